//! Live streams of runs; routes of our own. Leaving one changes nothing, and whoever comes again goes on where they were.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use copass_proto::run as proto;
use copass_types::{
    RunId,
    api::{FollowAgentRunsQuery, FollowRunQuery},
};
use http::StatusCode;

use crate::{
    auth::{AgentCaller, Presented, SandboxCaller},
    error::ApiResult,
    extract::{After, PathParams, Query},
    sse,
    state::App,
};

/// The frames of a run: those that are stored, then those to come, up to the terminal one.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/runs/{run_id}/events", tag = "runs",
    operation_id = "run_follow", security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("run_id" = String, Path), FollowRunQuery,
           ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, description = "Frames as those of agents/run, each with the id to go on from", body = String,
               content_type = "text/event-stream"),
              (status = 204, description = "The run is over and its last frame is where the caller wants to go on: do not \
               come again")))]
pub(super) async fn run_follow(
    State(app): State<App>,
    AgentCaller(caller): AgentCaller,
    presented: Presented,
    params: PathParams,
    after: After,
) -> ApiResult<Response> {
    let id: RunId = params.id("run_id", "run")?;
    let request = proto::FollowRunRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        run_id: id.to_string(),
        after: after.frame()?,
    };
    // Watched from before the question on, so that no revocation falls between the two.
    let access_ended = presented.access_ended(app.clone(), &caller);
    let frames = app.runs().follow_run(caller.context.request(request)).await?;
    // What comes again by itself stops at this status (HTML, server-sent events, "reestablish the connection").
    if frames.metadata().contains_key(copass_proto::NOTHING_FOLLOWS) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = sse::Events {
        source: frames.into_inner(),
        first: None,
        writer: sse::RunFrames,
        keep_alive: app.config.sse_keep_alive,
        stop: app.stop.clone(),
        access_ended: Some(Box::pin(access_ended)),
    };
    Ok(events.into_response())
}

/// The newest runs of an agent, then each run that begins or changes.
#[utoipa::path(get, path = "/storage/sandboxes/{sandbox_id}/agents/{slug}/runs/stream", tag = "runs",
    operation_id = "agent_runs_follow", security(("bearer" = [])),
    params(("sandbox_id" = String, Path), ("slug" = String, Path), FollowAgentRunsQuery,
           ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, description = "Events `run` with a row each", body = String,
               content_type = "text/event-stream")))]
pub(super) async fn agent_runs_follow(
    State(app): State<App>,
    caller: SandboxCaller,
    presented: Presented,
    params: PathParams,
    mut query: Query,
    after: After,
) -> ApiResult<Response> {
    let after_loc = after.loc();
    let request = proto::FollowAgentRunsRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        agent_slug: params.slug()?,
        after: after.change()?,
        backlog: query.clamped("backlog", 0, 0..=100)?,
    };
    let access_ended = presented.access_ended(app.clone(), &caller);
    let changes = app.runs().follow_agent_runs(caller.context.request(request)).await;
    let changes = changes.map_err(|status| After::placed(after_loc, status.into()))?;
    let events = sse::Events {
        source: changes.into_inner(),
        first: None,
        writer: sse::RunChanges,
        keep_alive: app.config.sse_keep_alive,
        stop: app.stop.clone(),
        access_ended: Some(Box::pin(access_ended)),
    };
    Ok(events.into_response())
}
