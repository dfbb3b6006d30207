//! Errors on their way to the client.
//!
//! A handler's error does not become a body where it occurs, because the body carries the request id and the cause is
//! logged once: it travels in the response's extensions to `observe`, which renders and logs it.

use std::sync::Arc;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use copass_errors::Error;
use http::{HeaderValue, StatusCode, header};
use tonic::Status;

/// An error of a handler.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Error);

/// What handlers return.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

#[derive(Clone)]
struct Carried(Arc<Error>);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self(status.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.code().http_status().into_response();
        response.extensions_mut().insert(Carried(Arc::new(self.0)));
        response
    }
}

/// Gives an error response its body; other responses pass.
pub(crate) fn render(mut response: Response, request_id: &str) -> Response {
    let Some(Carried(error)) = response.extensions_mut().remove::<Carried>() else {
        return response;
    };
    let status = error.code().http_status();
    if status.is_server_error() {
        tracing::error!(
            code = error.code().as_str(),
            cause = error.cause_chain(),
            "request failed"
        );
    }
    let mut answer = (status, Json(error.body(request_id))).into_response();
    // Headers that the failing part set (`Allow` for a wrong method) stay.
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    if matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
        // A part of the body may be unread, so the connection cannot be used again; say so.
        answer
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if status == StatusCode::UNAUTHORIZED {
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let wait_s = error
        .retry_after_s()
        .or_else(|| (status == StatusCode::TOO_MANY_REQUESTS).then_some(1));
    if let Some(seconds) = wait_s {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
