//! The Concierge (`rest.md` 15, `sse.md`).

use std::time::{Duration, Instant};

use axum::{Json, extract::State, response::Response};
use copass_errors::Error;
use copass_proto::{
    concierge::ChatRequest,
    run::{Run, RunFrame, run_frame::Frame},
};
use copass_types::api::{ConciergeChatRequest, ConciergeTestRequest, ConciergeTestResponse};
use tonic::Streaming;

use crate::{auth::SandboxCaller, error::ApiResult, extract::JsonBody, sse, state::App};

/// How much longer than the turn's own limit the gateway waits, so that the turn ends itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// One turn as a stream of frames; closing it cancels the run.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/concierge/chat", tag = "concierge",
    operation_id = "concierge_chat", params(("sandbox_id" = String, Path)), request_body = ConciergeChatRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "Frames run_started, agent_text_delta, agent_tool_call, \
               agent_tool_result and at the end agent_finish or agent_error", body = String,
               content_type = "text/event-stream")))]
pub(super) async fn concierge_chat(
    State(app): State<App>,
    caller: SandboxCaller,
    JsonBody(body): JsonBody<ConciergeChatRequest>,
) -> ApiResult<Response> {
    let request = ChatRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        message: body.message,
        session_id: body.session_id.filter(|id| !id.is_empty()),
        timeout_ms: 0,
    };
    let (first, rest) = begin(&app, &caller, request).await?;
    Ok(sse::response(first, rest, app.config.sse_keep_alive, app.stop.clone()))
}

/// One turn, answered when it is over; a failed run is an answer too.
#[utoipa::path(post, path = "/storage/sandboxes/{sandbox_id}/concierge/test", tag = "concierge",
    operation_id = "concierge_test", params(("sandbox_id" = String, Path)), request_body = ConciergeTestRequest,
    security(("bearer" = [])),
    responses((status = 200, description = "How the turn ended", body = ConciergeTestResponse)))]
pub(super) async fn concierge_test(
    State(app): State<App>,
    caller: SandboxCaller,
    JsonBody(body): JsonBody<ConciergeTestRequest>,
) -> ApiResult<Json<ConciergeTestResponse>> {
    let started = Instant::now();
    let limit = app.config.test_timeout;
    let request = ChatRequest {
        sandbox_id: caller.sandbox_id.to_string(),
        message: body.message,
        session_id: None,
        timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
    };
    let (first, mut rest) = begin(&app, &caller, request).await?;
    let mut turn = Turn::default();
    turn.take(first);
    let whole = async {
        while turn.end.is_none() {
            match rest.message().await {
                Ok(Some(frame)) => turn.take(frame),
                Ok(None) => return Err(sse::broken_stream()),
                Err(status) => return Err(status.into()),
            }
        }
        Ok(())
    };
    // The turn keeps its limit itself; this one only keeps a stuck service from keeping the client.
    let outcome = match tokio::time::timeout((limit + PATIENCE).saturating_sub(started.elapsed()), whole).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(
            copass_errors::ErrorCode::DeadlineExceeded,
            format!(
                "the turn took longer than {} s; use /concierge/chat for long ones",
                limit.as_secs()
            ),
        )),
    };
    // The run exists, so whatever went wrong is told in the answer: a 5xx would make clients repeat the turn.
    if let Err(error) = outcome {
        tracing::error!(run.id = turn.run_id, cause = error.cause_chain(), "turn broke");
        turn.broke(&error);
    }
    Ok(Json(turn.answer(started)))
}

/// Starts a turn and waits for its first frame: up to there, errors are ordinary answers.
async fn begin(app: &App, caller: &SandboxCaller, request: ChatRequest) -> ApiResult<(RunFrame, Streaming<RunFrame>)> {
    let answer = app.concierge().chat(caller.context.request(request)).await?;
    let mut frames = answer.into_inner();
    let first = tokio::time::timeout(app.config.call_timeout, frames.message())
        .await
        .map_err(|_| Error::unavailable("no first frame in time"))??;
    let first = first.ok_or_else(sse::broken_stream)?;
    Ok((first, frames))
}

/// A turn as far as it has come.
#[derive(Default)]
struct Turn {
    run_id: String,
    text: String,
    end: Option<End>,
}

struct End {
    status: &'static str,
    error: Option<String>,
    /// The final row, which is right where it differs from what was streamed.
    run: Option<Run>,
}

impl Turn {
    fn take(&mut self, frame: RunFrame) {
        match frame.frame {
            Some(Frame::RunStarted(started)) => self.run_id = started.run_id,
            Some(Frame::AgentTextDelta(delta)) => self.text.push_str(&delta.text),
            Some(Frame::AgentFinish(finish)) => {
                self.end = Some(End {
                    status: "succeeded",
                    error: None,
                    run: finish.run,
                });
            }
            Some(Frame::AgentError(failed)) => {
                let status = status_of(&failed.r#type);
                self.end = Some(End {
                    status,
                    error: Some(failed.message),
                    run: failed.run,
                });
            }
            Some(Frame::AgentToolCall(_) | Frame::AgentToolResult(_)) | None => {}
        }
    }

    fn broke(&mut self, error: &Error) {
        let frame = sse::error_frame(error, None);
        self.end = Some(End {
            status: status_of(&frame.kind),
            error: Some(frame.message),
            run: None,
        });
    }

    fn answer(self, started: Instant) -> ConciergeTestResponse {
        let end = self.end.unwrap_or(End {
            status: "failed",
            error: None,
            run: None,
        });
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).ok();
        let row = end.run.unwrap_or_default();
        ConciergeTestResponse {
            run_id: self.run_id,
            status: if row.status.is_empty() {
                end.status.to_owned()
            } else {
                row.status
            },
            output_text: row.output_text.unwrap_or(self.text),
            tools_called: Vec::new(),
            tokens_in: row.tokens_in,
            tokens_out: row.tokens_out,
            duration_ms: row.duration_ms.or(elapsed_ms),
            error_message: row.error_message.or(end.error),
        }
    }
}

fn status_of(kind: &str) -> &'static str {
    match kind {
        "Timeout" => "timeout",
        "Cancelled" => "cancelled",
        _ => "failed",
    }
}
