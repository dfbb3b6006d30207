//! Runs (`rest.md` 12.B).

use axum::{Json, extract::State};
use copass_proto::run as proto;
use copass_types::{
    RunId,
    api::{ListRunsQuery, RunDetail, RunList},
};

use crate::{
    auth::SandboxCaller,
    error::ApiResult,
    extract::{PathParams, Query},
    state::App,
    views,
};

/// The runs of an agent, most recent first.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/runs", tag = "runs",
    operation_id = "run_list", params(("sandbox_id" = String, Path), ("slug" = String, Path), ListRunsQuery),
    security(("bearer" = [])), responses((status = 200, description = "The runs", body = RunList)))]
pub(super) async fn run_list(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
    mut query: Query,
) -> ApiResult<Json<RunList>> {
    let request = proto::ListRunsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        agent_slug: params.slug()?,
        limit: query.clamped("limit", 20, 1..=100)?,
        before: query.text("before"),
        trigger_id: query.text("trigger_id"),
        status: query.text("status"),
    };
    let list = app.runs().list_runs(caller.context.request(request)).await?;
    Ok(Json(views::runs::list(list.into_inner())?))
}

/// One run with what explains it.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/runs/{run_id}", tag = "runs",
    operation_id = "run_get", params(("sandbox_id" = String, Path), ("run_id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, description = "The run", body = RunDetail)))]
pub(super) async fn run_get(
    State(app): State<App>,
    caller: SandboxCaller,
    params: PathParams,
) -> ApiResult<Json<RunDetail>> {
    let id: RunId = params.id("run_id", "run")?;
    let request = proto::GetRunRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        run_id: id.to_string(),
    };
    let run = app.runs().get_run(caller.context.request(request)).await?;
    Ok(Json(views::runs::detail(run.into_inner())?))
}
