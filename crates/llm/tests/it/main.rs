//! Real providers over real HTTP, against the project's own model server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may be as blunt as tests"
)]

mod answers;
mod faults;
mod hermes_calls;
mod support;
mod usage;
