//! The rules of agents, runs and turns; no HTTP, no gRPC.

pub(crate) mod active;
pub(crate) mod agent_rules;
pub(crate) mod agents;
pub(crate) mod domain;
pub(crate) mod runs;
pub mod secrets_scan;
pub(crate) mod turn;
