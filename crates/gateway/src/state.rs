//! What handlers share.

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;
use copass_proto::{
    Transport, agent::agent_service_client::AgentServiceClient,
    concierge::concierge_service_client::ConciergeServiceClient,
    identity::identity_service_client::IdentityServiceClient, run::run_service_client::RunServiceClient,
    sandbox::sandbox_service_client::SandboxServiceClient, source::source_service_client::SourceServiceClient,
    trigger::trigger_service_client::TriggerServiceClient,
};
use copass_runtime::{grpc::MAX_MESSAGE_BYTES, health::Readiness};
use tokio_util::sync::CancellationToken;

use crate::{AuthCache, Config, Deps, RenderMetrics, limits::Limits};

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) auth_cache: AuthCache,
    pub(crate) limits: Limits,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: RenderMetrics,
    pub(crate) openapi: Bytes,
    /// Cancelled when the gateway stops: open streams end.
    pub(crate) stop: CancellationToken,
    identity: IdentityServiceClient<Transport>,
    sandboxes: SandboxServiceClient<Transport>,
    concierge: ConciergeServiceClient<Transport>,
    agents: AgentServiceClient<Transport>,
    runs: RunServiceClient<Transport>,
    triggers: TriggerServiceClient<Transport>,
    sources: SourceServiceClient<Transport>,
}

/// The state of one gateway; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

impl Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// One client for each service; a generated client is used mutably, so each call takes its own cheap copy.
macro_rules! clients {
    ($($name:ident: $client:ident;)*) => {
        impl App {
            $(pub(crate) fn $name(&self) -> $client<Transport> {
                self.0.$name.clone()
            })*
        }
    };
}

clients! {
    identity: IdentityServiceClient;
    sandboxes: SandboxServiceClient;
    concierge: ConciergeServiceClient;
    agents: AgentServiceClient;
    runs: RunServiceClient;
    triggers: TriggerServiceClient;
    sources: SourceServiceClient;
}

impl App {
    pub(crate) fn new(config: Config, deps: Deps, mut document: utoipa::openapi::OpenApi) -> Self {
        crate::openapi::set_servers(&mut document, config.public_url.as_deref());
        let openapi = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
        Self(Arc::new(Inner {
            auth_cache: AuthCache::new(config.auth_cache_ttl),
            limits: Limits::new(&config),
            readiness: deps.readiness,
            metrics: deps.metrics,
            openapi,
            stop: CancellationToken::new(),
            identity: IdentityServiceClient::new(deps.concierge.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            sandboxes: SandboxServiceClient::new(deps.concierge.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            concierge: ConciergeServiceClient::new(deps.concierge).max_decoding_message_size(MAX_MESSAGE_BYTES),
            agents: AgentServiceClient::new(deps.agent_runner.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            runs: RunServiceClient::new(deps.agent_runner).max_decoding_message_size(MAX_MESSAGE_BYTES),
            triggers: TriggerServiceClient::new(deps.trigger_dispatcher).max_decoding_message_size(MAX_MESSAGE_BYTES),
            sources: SourceServiceClient::new(deps.ingestion).max_decoding_message_size(MAX_MESSAGE_BYTES),
            config,
        }))
    }
}
