//! The contract of the trigger dispatcher, over both wirings and on both databases.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test, in its helpers too"
)]

mod read;
mod rights;
mod support;
mod tenancy;
