//! What tests of several crates share: a database of one's own, brokers, callers with rights, and both wirings.
//!
//! Nothing here hides a condition that a test should wait for, and nothing is shared between two tests, so tests may run
//! in any order and side by side. Services are found through the environment (`scripts/services`); a missing one fails
//! the test with a sentence, unless the tests that need one are left out on purpose with `COPASS_TEST_SKIP_SERVICES=1`.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "only tests use this crate: a failure here is a failed test"
)]

mod background;
pub mod callers;
pub mod database;
pub mod environment;
pub mod queue;
pub mod wait;
pub mod wiring;

pub use callers::{TestSandbox, master_key, signer};
pub use database::{TestDatabase, databases};
pub use queue::{TestAmqp, amqp_queue, memory_queue};
pub use wait::eventually;
pub use wiring::{Wiring, both_wirings};
