//! The server side: verifies the principal, enforces the deadline, survives panics, traces and counts.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use copass_errors::Error;
use futures::FutureExt as _;
use http::{HeaderMap, Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{PRINCIPAL_HEADER, TIMEOUT_HEADER, TRACEPARENT_HEADER, client::deadline_exceeded, decode_timeout};
use crate::{
    call::{CallContext, DEFAULT_DEADLINE, Signer},
    tasks::panic_text,
};

/// Methods that answer without a principal: probes and discovery of the interface.
const OPEN_PREFIXES: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// Makes a [`ServerStack`] around the routes of a network server.
#[derive(Clone, Debug)]
pub struct ServerLayer {
    service: &'static str,
    signer: Signer,
}

impl ServerLayer {
    /// A layer for the named service.
    #[must_use]
    pub fn new(service: &'static str, signer: Signer) -> Self {
        Self { service, signer }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = ServerStack<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ServerStack::new(inner, self.service, self.signer.clone())
    }
}

/// Wraps a service's routes.
#[derive(Clone, Debug)]
pub struct ServerStack<S> {
    inner: S,
    service: &'static str,
    signer: Signer,
}

impl<S> ServerStack<S> {
    /// A stack around the routes of the named service.
    pub fn new(inner: S, service: &'static str, signer: Signer) -> Self {
        Self { inner, service, signer }
    }

    fn context(&self, headers: &HeaderMap) -> Result<CallContext, Error> {
        let token = headers
            .get(PRINCIPAL_HEADER)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| Error::unauthorized("this internal interface needs a signed principal"))?;
        let mut principal = self.signer.verify(token)?;
        principal.via.push(self.service.to_owned());
        let timeout = headers
            .get(TIMEOUT_HEADER)
            .and_then(|value| value.to_str().ok())
            .and_then(decode_timeout)
            .unwrap_or(DEFAULT_DEADLINE);
        Ok(CallContext {
            principal,
            traceparent: headers
                .get(TRACEPARENT_HEADER)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            deadline: Some(Instant::now() + timeout),
        })
    }
}

impl<S> Service<Request<Body>> for ServerStack<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if OPEN_PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
            return Box::pin(self.inner.call(request));
        }
        let method = path.rsplit('/').next().unwrap_or_default().to_owned();
        let context = match self.context(request.headers()) {
            Ok(context) => context,
            Err(error) => return Box::pin(async move { Ok(Status::from(error).into_http()) }),
        };
        let span = tracing::info_span!(
            "rpc",
            service = self.service,
            method,
            request.id = context.principal.request_id,
            traceparent = context.traceparent,
        );
        let deadline = context.deadline.unwrap_or_else(|| Instant::now() + DEFAULT_DEADLINE);
        request.extensions_mut().insert(context);
        let service = self.service;
        // The ready service answers this call; its clone, which is not ready yet, stays behind.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let answer = async move {
            let started = Instant::now();
            let answer = AssertUnwindSafe(async move { ready.call(request).await }).catch_unwind();
            let response = match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(Ok(answer)) => answer?,
                Ok(Err(panic)) => {
                    tracing::error!(panic = panic_text(panic.as_ref()), "handler panicked");
                    Status::from(Error::internal("handler panicked")).into_http()
                }
                Err(_) => Status::from(deadline_exceeded()).into_http(),
            };
            let code = Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |status| status.code());
            let labels = [
                ("service", service.to_owned()),
                ("method", method),
                ("code", format!("{code:?}")),
            ];
            metrics::counter!("copass_rpc_calls_total", &labels).increment(1);
            metrics::histogram!("copass_rpc_call_seconds", &labels[..2]).record(started.elapsed().as_secs_f64());
            tracing::debug!(code = ?code, elapsed_us = started.elapsed().as_micros(), "rpc answered");
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}
