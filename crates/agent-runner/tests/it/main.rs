//! The service through its gRPC interface: both databases, both wirings, a concierge that is a fake behind a real,
//! signed call.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure here is a failed test"
)]

mod agent_rules;
mod agents;
mod cancel;
mod loss;
mod misbehaviour;
mod reading;
mod sessions;
mod speed;
mod support;
mod tenancy;
mod tools;
mod turns;
