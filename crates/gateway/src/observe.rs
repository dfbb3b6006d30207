//! What surrounds every request: its id, its one form of path, its span, its metrics, its errors, its panics.

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use copass_errors::{Error, ErrorCode};
use copass_runtime::tasks::panic_text;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::Authority};
use tower::Service as _;
use tracing::Instrument as _;

use crate::{
    error::{ApiError, render},
    normalise::normalise,
    state::App,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_MAX_BYTES: usize = 64;

/// The id of one request, in its answer, its logs and every internal call it causes.
#[derive(Clone)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's own id when it is sane, so that callers can find their request in our logs; a new one otherwise.
    fn of(headers: &HeaderMap) -> Self {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|text| {
                (1..=REQUEST_ID_MAX_BYTES).contains(&text.len())
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            });
        match given {
            Some(text) => Self(text.into()),
            None => Self(format!("req_{}", ulid::Ulid::generate()).into()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The routes with everything around them.
pub(crate) fn wrap(routes: Router<App>, app: &App) -> Router {
    let inner = routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), local_hosts))
        .layer(middleware::from_fn(observe))
        .with_state(app.clone());
    // Routing happens inside, so the path can still be rewritten out here.
    let outer = tower::service_fn(move |mut request: Request| {
        if let Some(uri) = normalise(request.uri()) {
            *request.uri_mut() = uri;
        }
        inner.clone().call(request)
    });
    Router::new()
        .fallback_service(outer)
        .layer(axum::extract::DefaultBodyLimit::disable())
}

/// Refuses requests for foreign hosts where the configuration says so: a web page whose name was rebound to loopback is
/// same-origin with this server for its browser, but still names its own host.
async fn local_hosts(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.config.only_local_hosts && !is_local_host(&request, app.config.public_url.as_deref()) {
        let detail =
            "this server answers on this machine only; use http://localhost or http://127.0.0.1, or set public_url";
        return ApiError::from(Error::new(ErrorCode::MisdirectedRequest, detail)).into_response();
    }
    next.run(request).await
}

fn is_local_host(request: &Request, public_url: Option<&str>) -> bool {
    let header = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let Some(authority) = request.uri().authority().map(Authority::as_str).or(header) else {
        // Without a name there is nothing that a browser could have been led by.
        return true;
    };
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let public = public_url.and_then(|url| url.parse::<Uri>().ok());
    let is_public = public
        .as_ref()
        .and_then(Uri::host)
        .is_some_and(|public| public.eq_ignore_ascii_case(authority.host()));
    is_loopback || is_public
}

async fn unknown_route(State(_): State<App>) -> ApiError {
    Error::new(
        ErrorCode::NotFound,
        "no such route; GET /openapi.json lists all of them",
    )
    .into()
}

async fn wrong_method(State(_): State<App>) -> ApiError {
    let detail = "this route does not answer this method; the Allow header and GET /openapi.json list those it does";
    Error::new(ErrorCode::MethodNotAllowed, detail).into()
}

async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = RequestId::of(request.headers());
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    request.extensions_mut().insert(request_id.clone());
    let span = tracing::info_span!("gateway.request", method, route, request.id = request_id.as_str());
    let answer = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone())
        .await;
    let _entered = span.enter();
    let response = answer.unwrap_or_else(|panic| {
        tracing::error!(panic = panic_text(panic.as_ref()), "handler panicked");
        ApiError(Error::internal("handler panicked")).into_response()
    });
    let mut response = render(response, request_id.as_str());
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let elapsed = started.elapsed();
    let status = response.status();
    tracing::debug!(status = status.as_u16(), elapsed_us = elapsed.as_micros(), "answered");
    let labels = [
        metrics::Label::new("route", route.to_owned()),
        metrics::Label::from_static_parts("method", method),
        metrics::Label::new("status", status.as_u16().to_string()),
    ];
    metrics::counter!("copass_gateway_requests_total", labels.iter()).increment(1);
    metrics::histogram!("copass_gateway_request_seconds", labels[..2].iter()).record(elapsed.as_secs_f64());
    response
}

/// A bounded label: anybody can invent methods.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_request_ids_are_taken_over() {
        let id = |text: &str| RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, text.parse().unwrap())]));
        assert_eq!(id("my-id_1").as_str(), "my-id_1");
        for bad in ["", "a b", "a\"b", "ä", &"a".repeat(65)] {
            assert!(id(bad).as_str().starts_with("req_"), "{bad}");
        }
    }
}
