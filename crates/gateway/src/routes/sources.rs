//! Data sources (`rest.md` 8).

use axum::{Json, extract::State};
use copass_proto::{sandbox::GetSandboxRequest, source as proto};
use copass_types::{
    DataSourceId,
    api::{DataSource, DataSourceList, ListSourcesQuery, RegisterSourceRequest},
};
use http::StatusCode;

use super::sandboxes::json_text;
use crate::{
    auth::SandboxCaller,
    error::ApiResult,
    extract::{IdempotencyKey, JsonBody, PathParams, Query},
    state::App,
    views,
};

/// Registers a source.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/sources", tag = "sources",
    operation_id = "source_register", request_body = RegisterSourceRequest, security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, description = "The source", body = DataSource)))]
pub(super) async fn source_register(
    State(app): State<App>,
    caller: SandboxCaller,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<RegisterSourceRequest>,
) -> ApiResult<(StatusCode, Json<DataSource>)> {
    let sandbox_id = caller.sandbox_id.to_string();
    // The tier's limit belongs to the sandbox, which another service owns.
    let sandbox = GetSandboxRequest {
        sandbox_id: sandbox_id.clone(),
    };
    let sandbox = app
        .sandboxes()
        .get_sandbox(caller.context.request(sandbox))
        .await?
        .into_inner();
    let request = proto::RegisterSourceRequest {
        sandbox_id,
        provider: body.provider,
        name: body.name,
        ingestion_mode: body.ingestion_mode,
        kind: body.kind,
        external_account_id: body.external_account_id,
        adapter_config_json: json_text(body.adapter_config),
        poll_interval_seconds: body.poll_interval_seconds,
        idempotency_key,
        max_data_sources: sandbox.limits.unwrap_or_default().max_data_sources,
    };
    let source = app.sources().register_source(caller.context.request(request)).await?;
    Ok((StatusCode::CREATED, Json(views::sources::source(source.into_inner())?)))
}

/// The sources.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/sources", tag = "sources", operation_id = "source_list",
    params(("sandbox_id" = String, Path), ListSourcesQuery), security(("bearer" = [])),
    responses((status = 200, description = "The sources", body = DataSourceList)))]
pub(super) async fn source_list(
    State(app): State<App>,
    caller: SandboxCaller,
    mut query: Query,
) -> ApiResult<Json<DataSourceList>> {
    let request = proto::ListSourcesRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        provider: query.text("provider"),
        status: query.text("status"),
    };
    let list = app.sources().list_sources(caller.context.request(request)).await?;
    Ok(Json(views::sources::list(list.into_inner())?))
}

/// One source.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/sources/{source_id}", tag = "sources",
    operation_id = "source_get", params(("sandbox_id" = String, Path), ("source_id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, description = "The source", body = DataSource)))]
pub(super) async fn source_get(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
) -> ApiResult<Json<DataSource>> {
    let id: DataSourceId = params.id("source_id", "data source")?;
    let request = proto::GetSourceRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        data_source_id: id.to_string(),
    };
    let source = app.sources().get_source(caller.context.request(request)).await?;
    Ok(Json(views::sources::source(source.into_inner())?))
}
