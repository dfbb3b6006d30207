//! Agents (`rest.md` 12).

use axum::{Json, extract::State};
use copass_proto::agent as proto;
use copass_types::api::{Agent, AgentList, CreateAgentRequest, ListAgentsQuery};
use http::StatusCode;

use crate::{
    auth::SandboxCaller,
    error::ApiResult,
    extract::{IdempotencyKey, JsonBody, PathParams, Query},
    state::App,
    views,
};

/// Makes an agent.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/agents", tag = "agents", operation_id = "agent_create",
    request_body = CreateAgentRequest, security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, description = "The agent", body = Agent)))]
pub(super) async fn agent_create(
    State(app): State<App>,
    caller: SandboxCaller,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<CreateAgentRequest>,
) -> ApiResult<(StatusCode, Json<Agent>)> {
    let request = proto::CreateAgentRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: body.slug,
        name: body.name,
        system_prompt: body.system_prompt,
        description: body.description,
        tool_allowlist: body.tool_allowlist.unwrap_or_default(),
        model_settings: body.model_settings.map(views::agents::model_settings),
        idempotency_key,
    };
    let agent = app.agents().create_agent(caller.context.request(request)).await?;
    Ok((StatusCode::CREATED, Json(views::agents::agent(agent.into_inner())?)))
}

/// The agents.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents", tag = "agents", operation_id = "agent_list",
    params(("sandbox_id" = String, Path), ListAgentsQuery), security(("bearer" = [])),
    responses((status = 200, description = "The agents", body = AgentList)))]
pub(super) async fn agent_list(
    State(app): State<App>,
    caller: SandboxCaller,
    mut query: Query,
) -> ApiResult<Json<AgentList>> {
    let request = proto::ListAgentsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        status: query.text("status"),
    };
    let list = app.agents().list_agents(caller.context.request(request)).await?;
    Ok(Json(views::agents::list(list.into_inner())?))
}

/// One agent.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}", tag = "agents", operation_id = "agent_get",
    params(("sandbox_id" = String, Path), ("slug" = String, Path)), security(("bearer" = [])),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn agent_get(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
) -> ApiResult<Json<Agent>> {
    let request = proto::GetAgentRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: params.slug()?,
    };
    let agent = app.agents().get_agent(caller.context.request(request)).await?;
    Ok(Json(views::agents::agent(agent.into_inner())?))
}
