//! What every service needs to run and none of them owns: configuration, telemetry, shutdown, tasks, clock, sealing of
//! secrets, and the layer stack around every internal call (`design.md` 3, 9, 10).
//!
//! Nothing here is a process global that a second service in the same process would share by accident; values are
//! passed in. The one exception is the `metrics` and `tracing` dispatch, which those crates keep for the process.

pub mod call;
pub mod clock;
pub mod config;
pub mod egress;
pub mod grpc;
pub mod health;
pub mod listing;
pub mod secret;
pub mod tasks;
pub mod telemetry;

pub use call::{CallContext, Signer};
pub use config::Config;
pub use secret::{MasterKey, Secret};
pub use tasks::Tasks;
