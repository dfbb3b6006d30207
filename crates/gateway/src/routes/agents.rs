//! Agents and their changes (`rest.md` 12.1 to 12.7).

use axum::{Json, extract::State};
use copass_errors::{Error, FieldProblem};
use copass_proto::agent as proto;
use copass_runtime::listing;
use copass_types::api::{
    Agent, AgentList, CreateAgentRequest, ListAgentsQuery, ModelSettingsInput, UpdateAgentRequest,
    UpdateToolSourcesRequest,
};
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
    let status = query.text("status");
    let agents = listing::agents(&mut app.agents(), &caller.context, caller.sandbox_id.as_str(), status).await?;
    Ok(Json(views::agents::list(agents)?))
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

/// Changes any of the fields; one new version when something changed, none otherwise.
#[utoipa::path(patch, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}", tag = "agents",
    operation_id = "agent_update", request_body = UpdateAgentRequest, security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn agent_update(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<UpdateAgentRequest>,
) -> ApiResult<Json<Agent>> {
    let request = proto::UpdateAgentRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: params.slug()?,
        name: body.name,
        clear_description: body.description == Some(None),
        description: body.description.flatten(),
        system_prompt: body.system_prompt,
        tool_allowlist: body.tool_allowlist.map(|entries| proto::Allowlist { entries }),
        model_settings: body.model_settings.map(views::agents::model_settings),
        status: body.status,
        idempotency_key,
    };
    let agent = app.agents().update_agent(caller.context.request(request)).await?;
    Ok(Json(views::agents::agent(agent.into_inner())?))
}

/// Archives the agent: it stays readable and does not run. A repeat answers alike.
#[utoipa::path(delete, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}", tag = "agents",
    operation_id = "agent_archive", params(("sandbox_id" = String, Path), ("slug" = String, Path)),
    security(("bearer" = [])), responses((status = 204, description = "It is archived")))]
pub(super) async fn agent_archive(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
) -> ApiResult<StatusCode> {
    let request = proto::ArchiveAgentRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: params.slug()?,
    };
    app.agents().archive_agent(caller.context.request(request)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Merges settings into the present ones.
#[utoipa::path(patch, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/model-settings", tag = "agents",
    operation_id = "agent_settings_update", request_body = ModelSettingsInput, security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn agent_settings_update(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<ModelSettingsInput>,
) -> ApiResult<Json<Agent>> {
    let slug = params.slug()?;
    if body == ModelSettingsInput::default() {
        let problem = FieldProblem {
            loc: vec!["body".to_owned()],
            msg: "must hold at least one of backend, model, temperature, max_tokens, max_turns, timeout_s, \
                  compute_provider; PATCH the agent with whole model_settings to take a setting away"
                .to_owned(),
            kind: "missing".to_owned(),
        };
        return Err(Error::invalid(vec![problem]).into());
    }
    let request = proto::UpdateModelSettingsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug,
        backend: body.backend,
        model: body.model,
        temperature: body.temperature,
        max_tokens: body.max_tokens,
        max_turns: body.max_turns,
        timeout_s: body.timeout_s,
        compute_provider: body.compute_provider,
        idempotency_key,
    };
    let agent = app
        .agents()
        .update_model_settings(caller.context.request(request))
        .await?;
    Ok(Json(views::agents::agent(agent.into_inner())?))
}

/// Replaces the tool sources.
#[utoipa::path(patch, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/tool-sources", tag = "agents",
    operation_id = "agent_sources_update", request_body = UpdateToolSourcesRequest, security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn agent_sources_update(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    JsonBody(body): JsonBody<UpdateToolSourcesRequest>,
) -> ApiResult<Json<Agent>> {
    let request = proto::UpdateToolSourcesRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug: params.slug()?,
        tool_sources: body.tool_sources.map(|names| proto::ToolSources { names }),
        idempotency_key,
    };
    let agent = app
        .agents()
        .update_tool_sources(caller.context.request(request))
        .await?;
    Ok(Json(views::agents::agent(agent.into_inner())?))
}
