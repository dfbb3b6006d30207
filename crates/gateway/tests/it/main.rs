//! The gateway over real HTTP, in front of fake services on the generated server traits.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may be as blunt as tests"
)]

mod agents;
mod auth;
mod bad_input;
mod document;
mod fakes;
mod lifecycle;
mod live;
mod routes;
mod runs;
mod streams;
mod support;
