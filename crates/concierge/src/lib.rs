//! Identity, tenancy and the Concierge.
//!
//! This service owns people and their credentials, sandboxes and the grants on them, the audit log, and the Concierge's
//! prompt, catalogue and tool execution (`design.md` 2). The Concierge is an agent: a turn goes to agent-runner like any
//! other, each tool call comes back here, is checked **again**, and calls the service that owns the thing.

mod app;
mod grpc;
mod store;
mod tools;
mod worker;

use std::sync::Arc;

use copass_proto::{
    Transport, concierge::concierge_service_server::ConciergeServiceServer,
    identity::identity_service_server::IdentityServiceServer, sandbox::sandbox_service_server::SandboxServiceServer,
};
use copass_queue::Queue;
use copass_runtime::{
    MasterKey, Secret, Tasks,
    config::{Auth, Smtp},
    grpc::MAX_MESSAGE_BYTES,
    tasks::Phase,
};
use copass_store::{Db, outbox::Outbox};
use tonic::service::Routes;

pub use app::mail::MailError;

/// The service's name in logs, metrics and principals.
pub const SERVICE: &str = "concierge";
/// Topic that tells gateways whose verified credentials to forget.
pub const REVOKED_TOPIC: &str = "copass.identity.revoked";
/// Queue of audit records that other services write through their outboxes.
pub const AUDIT_QUEUE: &str = copass_store::audit::QUEUE;

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Login and tokens.
    pub auth: Auth,
    /// Outgoing mail.
    pub smtp: Smtp,
    /// Accept `000000` as a login code; the node sets it only for `dev` bound to loopback.
    pub accept_dev_code: bool,
}

/// What the service needs from outside.
#[derive(Clone)]
pub struct Deps {
    /// Its database.
    pub db: Db,
    /// The broker, for audit records of other services.
    pub queue: Arc<dyn Queue>,
    /// Its outbox; the node runs the relay.
    pub outbox: Outbox,
    /// Seals signing keys and first answers.
    pub master_key: MasterKey,
    /// Where background work runs.
    pub tasks: Tasks,
    /// Agents and runs.
    pub agent_runner: Transport,
    /// Triggers.
    pub trigger_dispatcher: Transport,
    /// Data sources.
    pub ingestion: Transport,
}

/// The service.
#[derive(Clone)]
pub struct Concierge {
    app: Arc<app::App>,
    deps: Deps,
}

impl Concierge {
    /// Wires the service; nothing runs yet.
    ///
    /// # Errors
    /// The mail settings are not usable.
    pub fn create(config: Config, deps: Deps) -> Result<Self, MailError> {
        let app = Arc::new(app::App::new(config, &deps)?);
        Ok(Self { app, deps })
    }

    /// The gRPC interface.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let identity = IdentityServiceServer::new(grpc::identity::Identity::new(self.app.clone()));
        let sandbox = SandboxServiceServer::new(grpc::sandbox::Sandboxes::new(self.app.clone()));
        let concierge = ConciergeServiceServer::new(grpc::concierge::Chats::new(self.app.clone(), &self.deps));
        Routes::new(identity.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(sandbox.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(concierge.max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Starts consumers and reconcilers.
    pub fn start(&self) {
        let app = self.app.clone();
        self.deps.tasks.spawn(Phase::Serve, "concierge key usage", move |stop| {
            worker::key_usage::run(app, stop)
        });
        let app = self.app.clone();
        let queue = self.deps.queue.clone();
        self.deps.tasks.spawn(Phase::Serve, "concierge audit", move |stop| {
            worker::audit::run(app, queue, stop)
        });
        let app = self.app.clone();
        self.deps.tasks.spawn(Phase::Intake, "concierge cleanup", move |stop| {
            worker::cleanup::run(app, stop)
        });
    }

    /// Makes the person of the address, their profile and a key, as `copass dev` needs on a first start.
    ///
    /// # Errors
    /// The store failed.
    pub async fn bootstrap_owner(&self, email: &str, display_name: &str) -> copass_errors::Result<Bootstrap> {
        self.app.bootstrap_owner(email, display_name).await
    }
}

/// What [`Concierge::bootstrap_owner`] made.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The person.
    pub user_id: String,
    /// Their primary sandbox.
    pub sandbox_id: String,
    /// A new general API key.
    pub api_key: Secret,
}
