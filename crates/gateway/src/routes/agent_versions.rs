//! The numbered states of an agent; routes of our own.

use axum::{Json, extract::State};
use copass_errors::{Error, FieldProblem};
use copass_proto::agent as proto;
use copass_types::api::{
    Agent, AgentVersion, AgentVersionDiff, AgentVersionList, DiffAgentVersionsQuery, ListAgentVersionsQuery,
    RollBackAgentRequest,
};

use crate::{
    auth::SandboxCaller,
    error::ApiResult,
    extract::{IdempotencyKey, JsonBody, PathParams, Query},
    state::App,
    views,
};

/// The versions of an agent, newest first.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/versions", tag = "agents",
    operation_id = "agent_version_list", security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), ListAgentVersionsQuery),
    responses((status = 200, description = "The versions", body = AgentVersionList)))]
pub(super) async fn agent_version_list(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    mut query: Query,
) -> ApiResult<Json<AgentVersionList>> {
    let request = proto::ListAgentVersionsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: params.slug()?,
        limit: query.clamped("limit", 20, 1..=100)?,
        before: query.number("before")?,
    };
    let list = app
        .agents()
        .list_agent_versions(caller.context.request(request))
        .await?;
    Ok(Json(views::agents::versions(list.into_inner())?))
}

/// An agent as it was.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/versions/{version}", tag = "agents",
    operation_id = "agent_version_get", security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), ("version" = u32, Path)),
    responses((status = 200, description = "The version", body = AgentVersion)))]
pub(super) async fn agent_version_get(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
) -> ApiResult<Json<AgentVersion>> {
    let request = proto::GetAgentVersionRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: params.slug()?,
        version: params.id("version", "agent version")?,
    };
    let version = app.agents().get_agent_version(caller.context.request(request)).await?;
    Ok(Json(views::agents::version(version.into_inner())?))
}

/// What differs between two versions. Versions are numbers, so `diff` is never one of them.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/versions/diff", tag = "agents",
    operation_id = "agent_version_diff", security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), DiffAgentVersionsQuery),
    responses((status = 200, description = "What differs", body = AgentVersionDiff)))]
pub(super) async fn agent_version_diff(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    mut query: Query,
) -> ApiResult<Json<AgentVersionDiff>> {
    let slug = params.slug()?;
    let Some(from) = query.number("from")? else {
        let problem = FieldProblem::query("from", "must name the version to begin with");
        return Err(Error::invalid(vec![problem]).into());
    };
    let request = proto::DiffAgentVersionsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug,
        from,
        to: query.number("to")?.unwrap_or(0),
    };
    let diff = app
        .agents()
        .diff_agent_versions(caller.context.request(request))
        .await?;
    Ok(Json(views::agents::diff(diff.into_inner())?))
}

/// Makes a new version with the content of an old one; history is never changed.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/rollback", tag = "agents",
    operation_id = "agent_roll_back", request_body = RollBackAgentRequest, security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn agent_roll_back(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<RollBackAgentRequest>,
) -> ApiResult<Json<Agent>> {
    let request = proto::RollBackAgentRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: params.slug()?,
        to_version: body.to_version,
        idempotency_key,
    };
    let agent = app.agents().roll_back_agent(caller.context.request(request)).await?;
    Ok(Json(views::agents::agent(agent.into_inner())?))
}
