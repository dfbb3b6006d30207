//! The rules of agents, runs and turns; no HTTP, no gRPC.

pub(crate) mod active;
pub(crate) mod agent_changes;
pub(crate) mod agent_rules;
pub(crate) mod agent_versions;
pub(crate) mod agents;
pub(crate) mod cancel;
pub(crate) mod domain;
pub(crate) mod follow;
pub(crate) mod follow_agent;
pub(crate) mod id_window;
mod journal_pages;
pub(crate) mod news;
pub(crate) mod run_detail;
pub(crate) mod runs;
pub mod secrets_scan;
pub mod tool_sources;
pub(crate) mod turn;
pub(crate) mod usage;
