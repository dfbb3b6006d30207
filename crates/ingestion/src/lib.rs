//! The ingestion service: owns data sources (`design.md` 2), and will own jobs, documents and the graph.
//!
//! [`Ingestion::create`] wires, [`Ingestion::routes`] gives the gRPC interface to the composition root, and
//! [`Ingestion::start`] spawns the consumers.

mod app;
mod grpc;
mod store;
mod worker;

use std::sync::Arc;

use copass_proto::source::source_service_server::SourceServiceServer;
use copass_queue::Queue;
use copass_runtime::{MasterKey, Tasks, grpc::MAX_MESSAGE_BYTES};
use copass_store::{Db, idempotency::Idempotency, outbox::Outbox};
use tonic::service::Routes;

pub use worker::tenancy::QUEUE as TENANCY_QUEUE;

use crate::app::sources::Sources;

/// The name of the service, as logs, metrics and outboxes carry it.
pub const SERVICE: &str = "ingestion";

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
    /// Carries audit records; the process runs its relay.
    pub outbox: Outbox,
    /// Seals first answers of keyed requests.
    pub master_key: MasterKey,
    /// Where consumers are spawned.
    pub tasks: Tasks,
}

/// The service, wired and not started.
pub struct Ingestion {
    config: Config,
    deps: Deps,
    sources: Sources,
}

impl Ingestion {
    /// Wires the service; does no I/O.
    #[must_use]
    pub fn create(config: Config, deps: Deps) -> Self {
        let idempotency = Idempotency::new(deps.db.clone(), deps.master_key.clone());
        let sources = Sources::new(deps.db.clone(), idempotency, deps.outbox.clone());
        Self { config, deps, sources }
    }

    /// The gRPC interface, for a server or a local transport.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let sources = SourceServiceServer::new(grpc::SourceGrpc::new(self.sources.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Routes::new(sources)
    }

    /// Begins to consume.
    pub fn start(&self) {
        worker::tenancy::start(&self.deps, self.config.prefetch);
    }
}

impl std::fmt::Debug for Ingestion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ingestion")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
