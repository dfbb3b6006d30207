//! The service through its gRPC interface: both databases, both wirings, a concierge that is a fake behind a real,
//! signed call.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure here is a failed test"
)]

mod ad_hoc;
mod agent_rights;
mod agent_rules;
mod agent_tools;
mod agents;
mod away;
mod backlog;
mod beats;
mod cancel;
mod cancelling;
mod change_rules;
mod changes;
mod continuation;
mod entrances;
mod fairness;
mod following;
mod following_agents;
mod hand_over;
mod hostile;
mod http_tools;
mod limits;
mod long_runs;
mod loss;
mod misbehaviour;
mod reading;
mod repeats;
mod requests;
mod resolution;
mod results;
mod run_rows;
mod sessions;
mod spending;
mod standing;
mod support;
mod tenancy;
mod tools;
mod turns;
mod usage;
mod versions;
