//! The two wirings of one service (`design.md` 3), so that a suite runs over both.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use copass_proto::{Transport, TransportError};
use copass_runtime::{
    Tasks,
    grpc::{self, server::ServerLayer},
    tasks::Phase,
};
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    body::Body,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tower::Service;

use crate::callers::signer;

/// How a client reaches a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// In the same process.
    Local,
    /// Over a real socket.
    Remote,
}

impl Wiring {
    /// A transport to the routes; a server behind it ends with the last clone.
    pub async fn connect(self, routes: Routes, service: &'static str) -> Transport {
        match self {
            Self::Local => grpc::local(routes, service, &signer()),
            Self::Remote => remote(routes, service).await,
        }
    }
}

/// The service behind each wiring, with its name for messages.
pub async fn both_wirings(routes: Routes, service: &'static str) -> Vec<(&'static str, Transport)> {
    vec![
        ("local", Wiring::Local.connect(routes.clone(), service).await),
        ("remote", Wiring::Remote.connect(routes, service).await),
    ]
}

async fn remote(routes: Routes, service: &'static str) -> Transport {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let stop = CancellationToken::new();
    let guard = Arc::new(stop.clone().drop_guard());
    Tasks::new().spawn(Phase::Serve, "test server", move |_| async move {
        let layer = ServerLayer::new(service, signer());
        let server = Server::builder()
            .http2_max_pending_accept_reset_streams(Some(grpc::MAX_UNSEEN_RESETS))
            .layer(layer)
            .add_routes(routes);
        // As `node` serves: without it a small frame waits for the acknowledgement of the one before.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        server
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
            .expect("the test server runs");
    });
    let transport = grpc::remote(&format!("http://{address}"), &signer()).expect("the address is valid");
    Transport::new(Guarded {
        transport,
        _server: guard,
    })
}

/// A transport that keeps its server alive.
#[derive(Clone)]
struct Guarded {
    transport: Transport,
    _server: Arc<DropGuard>,
}

impl Service<Request<Body>> for Guarded {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = <Transport as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.transport.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.transport.call(request)
    }
}
