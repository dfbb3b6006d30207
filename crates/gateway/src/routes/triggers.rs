//! Triggers (`rest.md` 13).

use axum::{Json, extract::State};
use copass_proto::{agent::GetAgentRequest, trigger as proto};
use copass_types::{
    TriggerId,
    api::{ListTriggersQuery, Trigger, TriggerList},
};

use crate::{
    auth::SandboxCaller,
    error::ApiResult,
    extract::{PathParams, Query},
    state::App,
    views,
};

/// The agent's id: triggers know agents by id, paths by slug, and only the owner of agents knows both.
async fn agent_id(app: &App, caller: &SandboxCaller, slug: String) -> ApiResult<String> {
    let request = GetAgentRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        slug,
    };
    Ok(app
        .agents()
        .get_agent(caller.context.request(request))
        .await?
        .into_inner()
        .agent_id)
}

/// The triggers of an agent.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/triggers", tag = "triggers",
    operation_id = "trigger_list", params(("sandbox_id" = String, Path), ("slug" = String, Path), ListTriggersQuery),
    security(("bearer" = [])), responses((status = 200, description = "The triggers", body = TriggerList)))]
pub(super) async fn trigger_list(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    mut query: Query,
) -> ApiResult<Json<TriggerList>> {
    let slug = params.slug()?;
    let request = proto::ListTriggersRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        agent_id: agent_id(&app, &caller, slug.clone()).await?,
        status: query.text("status"),
    };
    let list = app.triggers().list_triggers(caller.context.request(request)).await?;
    Ok(Json(views::triggers::list(slug, list.into_inner())?))
}

/// One trigger.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/triggers/{trigger_id}", tag = "triggers",
    operation_id = "trigger_get", security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), ("trigger_id" = String, Path)),
    responses((status = 200, description = "The trigger", body = Trigger)))]
pub(super) async fn trigger_get(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
) -> ApiResult<Json<Trigger>> {
    let id: TriggerId = params.id("trigger_id", "trigger")?;
    let request = proto::GetTriggerRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        agent_id: agent_id(&app, &caller, params.slug()?).await?,
        trigger_id: id.to_string(),
    };
    let trigger = app.triggers().get_trigger(caller.context.request(request)).await?;
    Ok(Json(views::triggers::trigger(trigger.into_inner())?))
}
