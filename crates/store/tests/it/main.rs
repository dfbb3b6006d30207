//! The store's promises, on both databases.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap in a test is a failed test, in its helpers too"
)]

mod append_only;
mod batch;
mod batches;
mod idempotency;
mod inbox;
mod open;
mod outbox;
mod parity;
mod passing;
mod shared_commits;
mod silent;
mod transactions;
mod values;
mod volatile;

use std::time::Duration;

/// Long enough for a loaded machine; only a failing test waits for it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
