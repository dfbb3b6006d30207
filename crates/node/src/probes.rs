//! `/healthz`, `/readyz` and `/metrics` of a process without the gateway.

use axum::{Json, Router, http::StatusCode, routing::get};
use copass_runtime::{Tasks, health::Readiness, tasks::Phase, telemetry::Metrics};
use serde_json::json;
use tokio::net::TcpListener;

/// Serves the probes until the serve phase ends.
pub(crate) fn start(listener: TcpListener, readiness: Readiness, metrics: Metrics, tasks: &Tasks) {
    let ready = move || {
        let report = readiness.report();
        async move {
            let status = if report.is_ready() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, Json(report))
        }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { metrics.render() }));
    tasks.spawn(Phase::Serve, "probes", move |stop| async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!(%error, "probe server ended");
        }
    });
}
