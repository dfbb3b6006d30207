//! The layer stack over both wirings, and the tools for tests themselves.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap in a test is a failed test, in its helpers too"
)]

mod layers;
mod tools;
