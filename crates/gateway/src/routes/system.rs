//! Probes, metrics and the document itself.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use copass_types::api::{Health, ReadinessReport};
use http::{StatusCode, header};

use crate::state::App;

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "system", operation_id = "health_get",
    responses((status = 200, description = "Alive", body = Health)))]
pub(super) async fn health_get() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
    })
}

/// Whether everything the process needs is usable.
#[utoipa::path(get, path = "/readyz", tag = "system", operation_id = "readiness_get",
    responses((status = 200, description = "Ready", body = ReadinessReport),
              (status = 503, description = "Not ready, with the reasons", body = ReadinessReport)))]
pub(super) async fn readiness_get(State(app): State<App>) -> Response {
    let report = app.readiness.report();
    let code = if report.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(report)).into_response()
}

/// Metrics in the format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "system", operation_id = "metrics_get",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub(super) async fn metrics_get(State(app): State<App>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        (app.metrics)(),
    )
        .into_response()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "system", operation_id = "openapi_get",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn openapi_get(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}
