//! Runs and their streams.

use std::sync::{Arc, atomic::Ordering};

use copass_errors::{Error, ErrorCode, FieldProblem};
use copass_proto::run::{self, run_frame::Frame};
use futures::{StreamExt as _, stream, stream::BoxStream};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::{AGENT, Answer, Fakes, Frames, KEY, RUN, SANDBOX, State, USER, at};

/// A run whose stream stays open.
pub(crate) const LIVE_RUN: &str = "rn_01J9Z0000000000000000000BB";
/// A run whose stream ends too early.
pub(crate) const CUT_RUN: &str = "rn_01J9Z0000000000000000000CC";
/// A run whose stream fails.
pub(crate) const FAILING_RUN: &str = "rn_01J9Z0000000000000000000DD";
/// A run that nobody has.
pub(crate) const NO_RUN: &str = "rn_01J9Z0000000000000000000EE";
/// What a retry makes.
pub(crate) const NEW_RUN: &str = "rn_01J9Z0000000000000000000FF";

fn known(run_id: &str) -> Result<(), Status> {
    if run_id == NO_RUN {
        return Err(Error::not_found("run").into());
    }
    Ok(())
}

#[tonic::async_trait]
impl run::run_service_server::RunService for Fakes {
    type StartSystemTurnStream = Frames;
    async fn start_system_turn(&self, _: Request<run::StartSystemTurnRequest>) -> Answer<Frames> {
        Err(Status::unimplemented("the gateway never calls this"))
    }
    async fn list_runs(&self, request: Request<run::ListRunsRequest>) -> Answer<run::ListRunsResponse> {
        self.saw(&request);
        Ok(Response::new(run::ListRunsResponse {
            agent_slug: "helper".into(),
            runs: vec![run_row()],
        }))
    }
    async fn get_run(&self, request: Request<run::GetRunRequest>) -> Answer<run::Run> {
        self.saw(&request);
        known(&request.get_ref().run_id)?;
        let status = if self.0.is_unfinished.load(Ordering::SeqCst) {
            "running"
        } else {
            "succeeded"
        };
        Ok(Response::new(run::Run {
            status: status.into(),
            tool_resolution_trace_json: Some(r#"{"sources_resolved":[]}"#.into()),
            steps: vec![run::RunStep {
                step_id: "st_1".into(),
                kind: "model".into(),
                output_preview: Some("Hel".into()),
                is_truncated: true,
                ..Default::default()
            }],
            ..run_row()
        }))
    }

    type TestAgentStream = Frames;
    /// The event's `do` chooses what happens.
    async fn test_agent(&self, request: Request<run::TestAgentRequest>) -> Answer<Frames> {
        self.saw(&request);
        let event: serde_json::Value =
            serde_json::from_str(request.get_ref().event_payload_json.as_deref().unwrap_or("{}")).unwrap();
        Ok(Response::new(self.play(event["do"].as_str().unwrap_or_default())?))
    }

    type RunAdHocStream = Frames;
    /// The last message chooses what happens.
    async fn run_ad_hoc(&self, request: Request<run::RunAdHocRequest>) -> Answer<Frames> {
        self.saw(&request);
        Ok(Response::new(self.play(request.into_inner().messages.last().unwrap())?))
    }

    async fn invoke_agent(&self, request: Request<run::InvokeAgentRequest>) -> Answer<run::Run> {
        self.saw(&request);
        Ok(Response::new(run::Run {
            status: "pending".into(),
            provider_session_id: request.into_inner().session_id,
            ..run_row()
        }))
    }
    async fn cancel_run(&self, request: Request<run::CancelRunRequest>) -> Answer<run::Run> {
        self.saw(&request);
        known(&request.get_ref().run_id)?;
        Ok(Response::new(run::Run {
            status: "cancelled".into(),
            ..run_row()
        }))
    }
    async fn retry_run(&self, request: Request<run::RetryRunRequest>) -> Answer<run::Run> {
        self.saw(&request);
        known(&request.get_ref().run_id)?;
        Ok(Response::new(run::Run {
            run_id: NEW_RUN.into(),
            status: "pending".into(),
            retry_of: Some(request.into_inner().run_id),
            ..run_row()
        }))
    }
    async fn get_step_result(&self, request: Request<run::GetStepResultRequest>) -> Answer<run::StepResult> {
        self.saw(&request);
        known(&request.get_ref().run_id)?;
        Ok(Response::new(run::StepResult {
            step_id: request.into_inner().step_id,
            name: "search".into(),
            result_json: "[1]".into(),
        }))
    }

    type FollowRunStream = Frames;
    /// The run's id chooses what happens.
    async fn follow_run(&self, request: Request<run::FollowRunRequest>) -> Answer<Frames> {
        self.saw(&request);
        let run::FollowRunRequest { run_id, after, .. } = request.into_inner();
        known(&run_id)?;
        let stored = [
            stored("1", started()),
            stored("2.3", text("Hel")),
            stored("2.5", text("lo")),
            stored("3", finish()),
        ];
        let from = after.map_or(0, |after| {
            1 + stored
                .iter()
                .position(|frame| frame.as_ref().is_ok_and(|frame| frame.id == after))
                .unwrap()
        });
        let is_complete = from == stored.len();
        let frames = stream::iter(stored).skip(from);
        let mut response = Response::<Frames>::new(match run_id.as_str() {
            LIVE_RUN => Box::pin(frames.take(3).chain(self.silence())),
            CUT_RUN => Box::pin(frames.take(2)),
            FAILING_RUN => {
                let failure = Err(Error::unavailable("the runner is gone").into());
                Box::pin(frames.take(2).chain(stream::iter([failure])))
            }
            _ => Box::pin(frames),
        });
        if is_complete {
            let yes = MetadataValue::from_static("1");
            response.metadata_mut().insert(copass_proto::NOTHING_FOLLOWS, yes);
        }
        Ok(response)
    }

    type FollowAgentRunsStream = BoxStream<'static, Result<run::RunChange, Status>>;
    async fn follow_agent_runs(
        &self,
        request: Request<run::FollowAgentRunsRequest>,
    ) -> Answer<Self::FollowAgentRunsStream> {
        self.saw(&request);
        let request = request.into_inner();
        if request.agent_slug != "helper" {
            return Err(Error::not_found("agent").into());
        }
        if request.after.as_deref() == Some("unreadable") {
            return Err(Error::invalid(vec![FieldProblem::query("after", "is not an id")]).into());
        }
        let change = |index: u32| {
            Ok(run::RunChange {
                id: format!("c{index}"),
                run: Some(run_row()),
            })
        };
        Ok(Response::new(Box::pin(
            stream::iter((0..request.backlog).map(change)).chain(self.silence()),
        )))
    }

    async fn aggregate_usage(
        &self,
        request: Request<run::AggregateUsageRequest>,
    ) -> Answer<run::AggregateUsageResponse> {
        self.saw(&request);
        let sum = |runs: u64| run::UsageSum {
            runs,
            tokens_in: 100 * runs,
            tokens_out: 10 * runs,
            cost_microcents: 1_500_000 * runs,
            runs_without_price: 0,
            model_calls: 2 * runs,
        };
        let group = |keys: [&str; 2], runs| run::UsageGroup {
            keys: keys.map(str::to_owned).to_vec(),
            sum: Some(sum(runs)),
        };
        let groups = match request.into_inner().group_by.as_slice() {
            [] => Vec::new(),
            _ => vec![
                group(["anthropic/claude-sonnet-4-6", "trigger"], 3),
                group(["anthropic/claude-sonnet-4-6", "test"], 2),
                group(["hermes/hermes/some/model", "test"], 1),
                group(["", "invoke"], 0),
            ],
        };
        Ok(Response::new(run::AggregateUsageResponse {
            total: Some(sum(6)),
            groups,
        }))
    }
}

pub(super) fn run_row() -> run::Run {
    run::Run {
        run_id: RUN.into(),
        user_id: USER.into(),
        sandbox_id: SANDBOX.into(),
        agent_id: AGENT.into(),
        agent_version: 1,
        status: "succeeded".into(),
        output_text: Some("Hello there".into()),
        tokens_in: Some(8),
        tokens_out: Some(2),
        duration_ms: Some(12),
        warnings_json: r#"["no key: the planner answered"]"#.into(),
        created_at: at(),
        agent_slug: Some("helper".into()),
        entrance: "test".into(),
        model: Some("anthropic/claude-sonnet-4-6".into()),
        api_key_id: Some(KEY.into()),
        cost_breakdown_json: Some(r#"{"total":7}"#.into()),
        ..Default::default()
    }
}

fn frame(frame: Frame) -> Result<run::RunFrame, Status> {
    Ok(run::RunFrame {
        frame: Some(frame),
        id: String::new(),
    })
}

fn stored(id: &str, frame: Result<run::RunFrame, Status>) -> Result<run::RunFrame, Status> {
    frame.map(|frame| run::RunFrame { id: id.into(), ..frame })
}

fn started() -> Result<run::RunFrame, Status> {
    frame(Frame::RunStarted(run::RunStarted { run_id: RUN.into() }))
}

fn text(text: &str) -> Result<run::RunFrame, Status> {
    frame(Frame::AgentTextDelta(run::TextDelta { text: text.into() }))
}

fn finish() -> Result<run::RunFrame, Status> {
    frame(Frame::AgentFinish(run::RunFinished {
        stop_reason: "end_turn".into(),
        session_id: Some("sess_01J9Z0000000000000000000AB".into()),
        usage_json: r#"{"input_tokens":8,"output_tokens":2}"#.into(),
        run_id: RUN.into(),
        run: Some(run_row()),
    }))
}

/// Notes that the client of the stream is gone.
struct NoteDrop(Arc<State>);

impl Drop for NoteDrop {
    fn drop(&mut self) {
        self.0.stream_dropped.store(true, Ordering::SeqCst);
    }
}

impl Fakes {
    /// Nothing, until the client goes.
    fn silence<T: Send + 'static>(&self) -> BoxStream<'static, T> {
        let note = NoteDrop(self.0.clone());
        Box::pin(stream::once(async move {
            let _note = note;
            std::future::pending().await
        }))
    }

    /// The stream of a run that does what the word says.
    pub(super) fn play(&self, word: &str) -> Result<Frames, Status> {
        Ok(match word {
            "busy" => {
                return Err(Error::new(ErrorCode::SessionBusy, "a turn is in progress; wait for its end").into());
            }
            "no session" => Box::pin(stream::iter([Err(Error::not_found("session").into())])),
            "nothing" => Box::pin(stream::empty()),
            "break" => Box::pin(stream::iter([started(), text("Hel")])),
            "fail" => Box::pin(stream::iter([
                started(),
                Err(Error::unavailable("the runner is gone").into()),
            ])),
            "slow" => Box::pin(stream::iter([
                started(),
                Err(Error::new(ErrorCode::DeadlineExceeded, "the turn took too long").into()),
            ])),
            "panic" => Box::pin(stream::iter([started()]).chain(stream::once(async {
                tokio::task::yield_now().await;
                panic!("expected in this test")
            }))),
            "silent" => Box::pin(stream::iter([started(), text("one moment")]).chain(self.silence())),
            "stored" => Box::pin(stream::iter([
                stored("1", started()),
                stored("2.2", text("He")),
                stored("2.4", text("y!")),
                stored("3", finish()),
            ])),
            "stored break" => Box::pin(stream::iter([stored("1", started()), stored("2.2", text("He"))])),
            "endless" => {
                let note = NoteDrop(self.0.clone());
                Box::pin(stream::iter([started()]).chain(stream::unfold(note, |note| async move {
                    Some((text(&"x".repeat(4000)), note))
                })))
            }
            "many" => Box::pin(
                stream::iter([started()])
                    .chain(stream::iter((0..100).map(|_| text("a"))))
                    .chain(stream::iter([finish(), text("after the end")])),
            ),
            "refused" => Box::pin(stream::iter([
                started(),
                frame(Frame::AgentError(run::RunFailed {
                    message: "the provider said no".into(),
                    r#type: "ProviderError".into(),
                    run_id: RUN.into(),
                    run: Some(run::Run {
                        status: "failed".into(),
                        output_text: None,
                        ..run_row()
                    }),
                })),
            ])),
            _ => Box::pin(stream::iter([
                started(),
                text("Hello\n\"there\" ä\u{2028}"),
                frame(Frame::AgentToolCall(run::ToolCallFrame {
                    call_id: "call_1".into(),
                    name: "list_sandboxes".into(),
                    arguments_json: "null".into(),
                })),
                frame(Frame::AgentToolResult(run::ToolResultFrame {
                    call_id: "call_1".into(),
                    name: "list_sandboxes".into(),
                    result_json: "[\n1]".into(),
                    error: None,
                })),
                finish(),
            ])),
        })
    }
}
