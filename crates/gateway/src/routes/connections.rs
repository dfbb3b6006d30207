//! Grants on a sandbox (`rest.md` 6).

use axum::{Json, extract::State};
use copass_proto::{convert, sandbox as proto};
use copass_types::{
    ConnectionId,
    api::{CreateConnectionRequest, ListConnectionsQuery, RevokedConnection, SandboxConnection, SpawnedConnectionKey},
};
use http::StatusCode;

use crate::{
    auth::SandboxCaller,
    error::ApiResult,
    extract::{IdempotencyKey, JsonBody, PathParams, Query},
    state::App,
    views,
};

/// Shares the sandbox.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/connections", tag = "connections",
    operation_id = "connection_create", request_body = CreateConnectionRequest, security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, description = "The grant", body = SandboxConnection)))]
pub(super) async fn connection_create(
    State(app): State<App>,
    caller: SandboxCaller,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<CreateConnectionRequest>,
) -> ApiResult<(StatusCode, Json<SandboxConnection>)> {
    let request = proto::CreateConnectionRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        copass_id: body.copass_id,
        user_id: body.user_id,
        email: body.email,
        role: body.role,
        project_id: body.project_id,
        label: body.label,
        expires_at: body.expires_at.map(convert::timestamp),
        idempotency_key,
    };
    let connection = app
        .sandboxes()
        .create_connection(caller.context.request(request))
        .await?
        .into_inner();
    app.auth_cache.invalidate_sandbox(caller.sandbox_id.as_str());
    app.auth_cache.invalidate_user(&connection.user_id);
    Ok((StatusCode::CREATED, Json(views::connections::created(connection)?)))
}

/// The grants.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/connections", tag = "connections",
    operation_id = "connection_list", params(("sandbox_id" = String, Path), ListConnectionsQuery),
    security(("bearer" = [])), responses((status = 200, description = "The grants", body = Vec<SandboxConnection>)))]
pub(super) async fn connection_list(
    State(app): State<App>,
    caller: SandboxCaller,
    mut query: Query,
) -> ApiResult<Json<Vec<SandboxConnection>>> {
    let request = proto::ListConnectionsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        include_revoked: query.flag("include_revoked")?,
    };
    let list = app
        .sandboxes()
        .list_connections(caller.context.request(request))
        .await?;
    Ok(Json(views::connections::list(list.into_inner())?))
}

/// Ends a grant and every key bound to it, at once; a repeat answers alike.
#[utoipa::path(delete, path = "/storage/sandboxes/{sandbox_id}/connections/{connection_id}", tag = "connections",
    operation_id = "connection_revoke", params(("sandbox_id" = String, Path), ("connection_id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, description = "The grant is revoked", body = RevokedConnection)))]
pub(super) async fn connection_revoke(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
) -> ApiResult<Json<RevokedConnection>> {
    let id: ConnectionId = params.id("connection_id", "connection")?;
    let request = proto::RevokeConnectionRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        connection_id: id.to_string(),
    };
    let revoked = app
        .sandboxes()
        .revoke_connection(caller.context.request(request))
        .await?;
    app.auth_cache.invalidate_sandbox(caller.sandbox_id.as_str());
    Ok(Json(views::connections::revoked(revoked.into_inner())))
}

/// Makes a key that acts as the grantee inside this sandbox; its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/connections/{connection_id}/api-keys",
    tag = "connections", operation_id = "connection_key_create",
    params(("sandbox_id" = String, Path), ("connection_id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header)), security(("bearer" = [])),
    responses((status = 201, description = "The key with its secret", body = SpawnedConnectionKey)))]
pub(super) async fn connection_key_create(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    IdempotencyKey(idempotency_key): IdempotencyKey,
) -> ApiResult<(StatusCode, Json<SpawnedConnectionKey>)> {
    let id: ConnectionId = params.id("connection_id", "connection")?;
    let request = proto::SpawnConnectionKeyRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        connection_id: id.to_string(),
        idempotency_key,
    };
    let spawned = app
        .sandboxes()
        .spawn_connection_key(caller.context.request(request))
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(views::connections::spawned_key(spawned.into_inner())),
    ))
}
