//! Sandboxes and their audit log (`rest.md` 5).

use axum::{Json, extract::State};
use copass_proto::sandbox as proto;
use copass_types::SandboxId;
use copass_types::api::{
    AuditList, CreateSandboxRequest, JsonObject, ListAuditQuery, ListSandboxesQuery, Sandbox, SandboxList,
    StatusResponse, UpdateSandboxRequest,
};
use http::StatusCode;

use crate::{
    auth::{Caller, SandboxCaller},
    error::ApiResult,
    extract::{IdempotencyKey, JsonBody, PathParams, Query},
    state::App,
    views,
};

/// An object as the text that services take.
pub(super) fn json_text(object: Option<JsonObject>) -> Option<String> {
    object.map(|object| serde_json::Value::Object(object).to_string())
}

/// Makes a sandbox.
#[utoipa::path(post, path = "/storage/sandboxes", tag = "sandboxes", operation_id = "sandbox_create",
    request_body = CreateSandboxRequest, params(("Idempotency-Key" = Option<String>, Header)),
    security(("bearer" = [])), responses((status = 201, description = "The sandbox", body = Sandbox)))]
pub(super) async fn sandbox_create(
    State(app): State<App>,
    caller: Caller,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<CreateSandboxRequest>,
) -> ApiResult<(StatusCode, Json<Sandbox>)> {
    let request = proto::CreateSandboxRequest {
        name: body.name,
        owner_id: body.owner_id,
        tier: body.tier,
        metadata_json: json_text(body.metadata),
        idempotency_key,
    };
    let sandbox = app.sandboxes().create_sandbox(caller.context.request(request)).await?;
    Ok((
        StatusCode::CREATED,
        Json(views::sandboxes::sandbox(sandbox.into_inner())?),
    ))
}

/// The caller's own sandboxes and those that were shared.
#[utoipa::path(get, path = "/storage/sandboxes", tag = "sandboxes", operation_id = "sandbox_list",
    params(ListSandboxesQuery), security(("bearer" = [])),
    responses((status = 200, description = "The sandboxes", body = SandboxList)))]
pub(super) async fn sandbox_list(
    State(app): State<App>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Json<SandboxList>> {
    let request = proto::ListSandboxesRequest {
        status: query.text("status"),
        owner_id: query.text("owner_id"),
    };
    let list = app.sandboxes().list_sandboxes(caller.context.request(request)).await?;
    Ok(Json(views::sandboxes::list(list.into_inner())?))
}

/// One sandbox.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}", tag = "sandboxes", operation_id = "sandbox_get",
    params(("sandbox_id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, description = "The sandbox", body = Sandbox)))]
pub(super) async fn sandbox_get(State(app): State<App>, caller: SandboxCaller) -> ApiResult<Json<Sandbox>> {
    let request = proto::GetSandboxRequest {
        sandbox_id: caller.sandbox_id.to_string(),
    };
    let sandbox = app.sandboxes().get_sandbox(caller.context.request(request)).await?;
    Ok(Json(views::sandboxes::sandbox(sandbox.into_inner())?))
}

/// Renames it or replaces its free data.
#[utoipa::path(patch, path = "/storage/sandboxes/{sandbox_id}", tag = "sandboxes", operation_id = "sandbox_update",
    params(("sandbox_id" = String, Path)), request_body = UpdateSandboxRequest, security(("bearer" = [])),
    responses((status = 200, description = "The sandbox", body = Sandbox)))]
pub(super) async fn sandbox_update(
    State(app): State<App>,
    caller: SandboxCaller,
    JsonBody(body): JsonBody<UpdateSandboxRequest>,
) -> ApiResult<Json<Sandbox>> {
    let request = proto::UpdateSandboxRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        name: body.name,
        metadata_json: json_text(body.metadata),
    };
    let sandbox = app.sandboxes().update_sandbox(caller.context.request(request)).await?;
    app.auth_cache.invalidate_sandbox(caller.sandbox_id.as_str());
    Ok(Json(views::sandboxes::sandbox(sandbox.into_inner())?))
}

/// Removes it and everything in it, for good. A repeat is answered alike, although the sandbox cannot be seen any more:
/// so the caller is only identified here, and the owner of sandboxes decides.
#[utoipa::path(delete, path = "/storage/sandboxes/{sandbox_id}", tag = "sandboxes", operation_id = "sandbox_destroy",
    params(("sandbox_id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, description = "It is gone", body = StatusResponse)))]
pub(super) async fn sandbox_destroy(
    State(app): State<App>,
    caller: Caller,
    params: PathParams,
) -> ApiResult<Json<StatusResponse>> {
    let sandbox_id: SandboxId = params.id("sandbox_id", "sandbox")?;
    let request = proto::DestroySandboxRequest {
        sandbox_id: sandbox_id.to_string(),
    };
    app.sandboxes().destroy_sandbox(caller.context.request(request)).await?;
    app.auth_cache.invalidate_sandbox(sandbox_id.as_str());
    Ok(Json(views::sandboxes::destroyed(sandbox_id.into())))
}

/// Refuses changes and runs until it is reactivated.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/suspend", tag = "sandboxes",
    operation_id = "sandbox_suspend", params(("sandbox_id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, description = "It is suspended", body = StatusResponse)))]
pub(super) async fn sandbox_suspend(State(app): State<App>, caller: SandboxCaller) -> ApiResult<Json<StatusResponse>> {
    change_status(&app, &caller, "suspended").await
}

/// Makes it active again.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/reactivate", tag = "sandboxes",
    operation_id = "sandbox_reactivate", params(("sandbox_id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, description = "It is active", body = StatusResponse)))]
pub(super) async fn sandbox_reactivate(
    State(app): State<App>,
    caller: SandboxCaller,
) -> ApiResult<Json<StatusResponse>> {
    change_status(&app, &caller, "active").await
}

/// Puts it out of sight; can be taken back.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/archive", tag = "sandboxes",
    operation_id = "sandbox_archive", params(("sandbox_id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, description = "It is archived", body = StatusResponse)))]
pub(super) async fn sandbox_archive(State(app): State<App>, caller: SandboxCaller) -> ApiResult<Json<StatusResponse>> {
    change_status(&app, &caller, "archived").await
}

async fn change_status(app: &App, caller: &SandboxCaller, status: &str) -> ApiResult<Json<StatusResponse>> {
    let request = proto::ChangeSandboxStatusRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        status: status.to_owned(),
    };
    let sandbox = app
        .sandboxes()
        .change_sandbox_status(caller.context.request(request))
        .await?;
    app.auth_cache.invalidate_sandbox(caller.sandbox_id.as_str());
    Ok(Json(views::sandboxes::status(sandbox.into_inner())))
}

/// Who did what, newest first; for the owner.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/audit", tag = "sandboxes", operation_id = "audit_list",
    params(("sandbox_id" = String, Path), ListAuditQuery), security(("bearer" = [])),
    responses((status = 200, description = "The records", body = AuditList)))]
pub(super) async fn audit_list(
    State(app): State<App>,
    caller: SandboxCaller,
    mut query: Query,
) -> ApiResult<Json<AuditList>> {
    let request = proto::ListAuditRecordsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        limit: query.clamped("limit", 100, 1..=500)?,
        before: query.text("before"),
    };
    let list = app
        .sandboxes()
        .list_audit_records(caller.context.request(request))
        .await?;
    Ok(Json(views::audit::list(list.into_inner())?))
}
