//! The contract of the ingestion service, over both wirings and on both databases.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap in a test is a failed test, in its helpers too"
)]

mod audit;
mod idempotency;
mod limit;
mod list;
mod register;
mod rights;
mod support;
mod tenancy;
