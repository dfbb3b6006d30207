//! The trigger dispatcher: owns triggers (`design.md` 2), and will own webhook endpoints, deliveries and schedules.
//!
//! [`TriggerDispatcher::create`] wires, [`TriggerDispatcher::routes`] gives the gRPC interface to the composition root,
//! and [`TriggerDispatcher::start`] spawns the consumers.

mod app;
mod grpc;
mod store;
mod worker;

use std::sync::Arc;

use copass_proto::trigger::trigger_service_server::TriggerServiceServer;
use copass_queue::Queue;
use copass_runtime::{MasterKey, Tasks, grpc::MAX_MESSAGE_BYTES};
use copass_store::Db;
use tonic::service::Routes;

pub use worker::tenancy::QUEUE as TENANCY_QUEUE;

use crate::app::triggers::Triggers;

/// The name of the service, as logs, metrics and outboxes carry it.
pub const SERVICE: &str = "trigger-dispatcher";

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many messages of one queue are handled at once.
    pub prefetch: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { prefetch: 8 }
    }
}

/// What the service needs from the process it runs in.
#[derive(Clone)]
pub struct Deps {
    /// The database.
    pub db: Db,
    /// The message queue.
    pub queue: Arc<dyn Queue>,
    /// Seals the secrets of webhook endpoints.
    pub master_key: MasterKey,
    /// Where consumers are spawned.
    pub tasks: Tasks,
}

/// The service, wired and not started.
pub struct TriggerDispatcher {
    config: Config,
    deps: Deps,
    triggers: Triggers,
}

impl TriggerDispatcher {
    /// Wires the service; does no I/O.
    #[must_use]
    pub fn create(config: Config, deps: Deps) -> Self {
        let triggers = Triggers::new(deps.db.clone());
        Self { config, deps, triggers }
    }

    /// The gRPC interface, for a server or a local transport.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let triggers = TriggerServiceServer::new(grpc::TriggerGrpc::new(self.triggers.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Routes::new(triggers)
    }

    /// Begins to consume.
    pub fn start(&self) {
        worker::tenancy::start(&self.deps, self.config.prefetch);
    }
}

impl std::fmt::Debug for TriggerDispatcher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TriggerDispatcher")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
