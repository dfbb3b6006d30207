//! The client side: signs the principal, passes the trace on, enforces the deadline, counts.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use copass_errors::{Error, ErrorCode};
use copass_proto::TransportError;
use http::{HeaderValue, Request, Response};
use tonic::{Status, body::Body};
use tower::Service;

use super::{PRINCIPAL_HEADER, TIMEOUT_HEADER, TRACEPARENT_HEADER, encode_timeout};
use crate::call::{CallContext, DEFAULT_DEADLINE, Signer};

/// Wraps a channel or a local server.
#[derive(Clone, Debug)]
pub struct ClientStack<S> {
    inner: S,
    signer: Signer,
}

impl<S> ClientStack<S> {
    /// A stack around the transport.
    pub fn new(inner: S, signer: Signer) -> Self {
        Self { inner, signer }
    }

    fn prepare(&self, request: &mut Request<Body>) -> Result<Instant, Error> {
        let deadline = match request.extensions_mut().remove::<CallContext>() {
            Some(context) => {
                let token = self.signer.sign(&context.principal)?;
                let headers = request.headers_mut();
                headers.insert(
                    PRINCIPAL_HEADER,
                    HeaderValue::from_str(&token).map_err(Error::internal)?,
                );
                if let Some(traceparent) = context.traceparent.as_deref().and_then(|text| text.parse().ok()) {
                    headers.insert(TRACEPARENT_HEADER, traceparent);
                }
                context.deadline
            }
            None => None,
        };
        let deadline = deadline.unwrap_or_else(|| Instant::now() + DEFAULT_DEADLINE);
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = HeaderValue::from_str(&encode_timeout(left)).map_err(Error::internal)?;
        request.headers_mut().insert(TIMEOUT_HEADER, timeout);
        Ok(deadline)
    }
}

impl<S> Service<Request<Body>> for ClientStack<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, TransportError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(TransportError::new)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let deadline = match self.prepare(&mut request) {
            Ok(deadline) => deadline,
            Err(error) => return Box::pin(async move { Ok(Status::from(error).into_http()) }),
        };
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let started = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => transport_failure(error.into()),
                Err(_) => Status::from(deadline_exceeded()).into_http(),
            };
            let code = Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |status| status.code());
            let labels = [("method", method), ("code", format!("{code:?}"))];
            metrics::counter!("copass_rpc_client_calls_total", &labels).increment(1);
            metrics::histogram!("copass_rpc_client_call_seconds", &labels[..1]).record(started.elapsed().as_secs_f64());
            Ok(response)
        })
    }
}

/// A transport failure is an answer too: the caller sees `unavailable`, the log sees the cause.
fn transport_failure(error: Box<dyn std::error::Error + Send + Sync>) -> Response<Body> {
    // The channel reads the same deadline from the header and may be the first to notice.
    if is_timeout(error.as_ref()) {
        return Status::from(deadline_exceeded()).into_http();
    }
    let error = Error::unavailable(error);
    tracing::warn!(cause = error.cause_chain(), "internal call failed");
    Status::from(error).into_http()
}

fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<tonic::TimeoutExpired>())
}

pub(super) fn deadline_exceeded() -> Error {
    Error::new(
        ErrorCode::DeadlineExceeded,
        "the operation took longer than allowed; try again, with less work in one call if it stays",
    )
}
