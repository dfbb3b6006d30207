//! Transports between roles: local where both run here, remote elsewhere.
//!
//! Services call each other in circles (the Concierge's turn runs in agent-runner, whose tool calls go back to the
//! Concierge), so a local transport exists before the service behind it: a [`Slot`] that is filled once.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use copass_proto::Transport;
use copass_runtime::{
    Signer,
    config::Services,
    grpc::{self, client::ClientStack, server::ServerStack},
};
use http::{Request, Response};
use tonic::{Status, body::Body, service::Routes};
use tower::{Service, ServiceExt as _};

use crate::{Failure, Role, RoleSet};

/// The routes of a service in this process, filled when the service is created.
#[derive(Clone, Default)]
pub(crate) struct Slot {
    routes: Arc<OnceLock<Routes>>,
}

impl Slot {
    pub(crate) fn fill(&self, routes: Routes) {
        // A slot is filled by the one place that creates its service.
        let _ = self.routes.set(routes);
    }

    fn transport(&self, service: &'static str, signer: &Signer) -> Transport {
        let server = ServerStack::new(self.clone(), service, signer.clone());
        Transport::new(ClientStack::new(server, signer.clone()))
    }
}

impl Service<Request<Body>> for Slot {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.routes.get() {
            Some(routes) => Box::pin(routes.clone().oneshot(request)),
            None => Box::pin(async { Ok(Status::unavailable("the service is still starting").into_http()) }),
        }
    }
}

/// How each internal service is reached from this process.
#[derive(Clone)]
pub(crate) struct Wiring {
    pub(crate) concierge: Transport,
    pub(crate) agent_runner: Transport,
    pub(crate) trigger_dispatcher: Transport,
    pub(crate) ingestion: Transport,
    pub(crate) concierge_slot: Slot,
    pub(crate) agent_runner_slot: Slot,
    pub(crate) trigger_dispatcher_slot: Slot,
    pub(crate) ingestion_slot: Slot,
}

impl Wiring {
    pub(crate) fn new(roles: &RoleSet, services: &Services, signer: &Signer) -> Result<Self, Failure> {
        let [
            concierge_slot,
            agent_runner_slot,
            trigger_dispatcher_slot,
            ingestion_slot,
        ] = [(); 4].map(|()| Slot::default());
        let transport = |role: Role, slot: &Slot, address: &str| {
            if roles.contains(role) {
                return Ok(slot.transport(role.as_str(), signer));
            }
            grpc::remote(address, signer).map_err(|_| {
                Failure::new(
                    format!("the address of {role}, '{address}', is not usable"),
                    format!(
                        "set services.{}.address to http://host:port",
                        role.as_str().replace('-', "_")
                    ),
                )
            })
        };
        Ok(Self {
            concierge: transport(Role::Concierge, &concierge_slot, &services.concierge.address)?,
            agent_runner: transport(Role::AgentRunner, &agent_runner_slot, &services.agent_runner.address)?,
            trigger_dispatcher: transport(
                Role::TriggerDispatcher,
                &trigger_dispatcher_slot,
                &services.trigger_dispatcher.address,
            )?,
            ingestion: transport(Role::Ingestion, &ingestion_slot, &services.ingestion.address)?,
            concierge_slot,
            agent_runner_slot,
            trigger_dispatcher_slot,
            ingestion_slot,
        })
    }
}
