//! Sources, agents, runs, triggers and the Concierge.

use std::sync::{Arc, atomic::Ordering};

use copass_errors::{Error, ErrorCode};
use copass_proto::{agent, concierge, run, source, trigger};
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::{AGENT, Answer, Fakes, Frames, RUN, SANDBOX, SOURCE, State, TRIGGER, USER, at};

#[tonic::async_trait]
impl source::source_service_server::SourceService for Fakes {
    async fn register_source(&self, request: Request<source::RegisterSourceRequest>) -> Answer<source::DataSource> {
        self.saw(&request);
        Ok(Response::new(source_row()))
    }
    async fn list_sources(&self, request: Request<source::ListSourcesRequest>) -> Answer<source::ListSourcesResponse> {
        self.saw(&request);
        Ok(Response::new(source::ListSourcesResponse {
            sources: vec![source_row()],
        }))
    }
    async fn get_source(&self, request: Request<source::GetSourceRequest>) -> Answer<source::DataSource> {
        self.saw(&request);
        Ok(Response::new(source_row()))
    }
}

fn source_row() -> source::DataSource {
    source::DataSource {
        data_source_id: SOURCE.into(),
        user_id: USER.into(),
        sandbox_id: SANDBOX.into(),
        provider: "slack".into(),
        name: "team".into(),
        ingestion_mode: "manual".into(),
        status: "active".into(),
        kind: "durable".into(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl agent::agent_service_server::AgentService for Fakes {
    async fn create_agent(&self, request: Request<agent::CreateAgentRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        Ok(Response::new(agent_row()))
    }
    async fn list_agents(&self, request: Request<agent::ListAgentsRequest>) -> Answer<agent::ListAgentsResponse> {
        self.saw(&request);
        Ok(Response::new(agent::ListAgentsResponse {
            agents: vec![agent_row()],
        }))
    }
    async fn get_agent(&self, request: Request<agent::GetAgentRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        if request.get_ref().slug != "helper" {
            return Err(Error::not_found("agent").into());
        }
        Ok(Response::new(agent_row()))
    }
}

fn agent_row() -> agent::Agent {
    agent::Agent {
        agent_id: AGENT.into(),
        user_id: USER.into(),
        sandbox_id: SANDBOX.into(),
        slug: "helper".into(),
        name: "Helper".into(),
        system_prompt: "Help.".into(),
        tool_sources: Some(agent::ToolSources { names: vec![] }),
        model_settings: Some(agent::ModelSettings {
            backend: "anthropic".into(),
            model: "claude-sonnet-4-6".into(),
            ..Default::default()
        }),
        status: "active".into(),
        version: 1,
        created_at: at(),
        updated_at: at(),
        ..Default::default()
    }
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
        Ok(Response::new(run::Run {
            tool_resolution_trace_json: Some(r#"{"sources_resolved":[]}"#.into()),
            steps: vec![run::RunStep {
                step_id: "st_1".into(),
                kind: "model".into(),
                ..Default::default()
            }],
            ..run_row()
        }))
    }
}

fn run_row() -> run::Run {
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
        ..Default::default()
    }
}

#[tonic::async_trait]
impl trigger::trigger_service_server::TriggerService for Fakes {
    async fn list_triggers(
        &self,
        request: Request<trigger::ListTriggersRequest>,
    ) -> Answer<trigger::ListTriggersResponse> {
        self.saw(&request);
        Ok(Response::new(trigger::ListTriggersResponse {
            triggers: vec![trigger_row()],
        }))
    }
    async fn get_trigger(&self, request: Request<trigger::GetTriggerRequest>) -> Answer<trigger::Trigger> {
        self.saw(&request);
        Ok(Response::new(trigger_row()))
    }
}

fn trigger_row() -> trigger::Trigger {
    trigger::Trigger {
        trigger_id: TRIGGER.into(),
        user_id: USER.into(),
        sandbox_id: SANDBOX.into(),
        agent_id: AGENT.into(),
        data_source_id: SOURCE.into(),
        event_type_filter: "*".into(),
        status: "active".into(),
        ..Default::default()
    }
}

fn frame(frame: run::run_frame::Frame) -> Result<run::RunFrame, Status> {
    Ok(run::RunFrame { frame: Some(frame) })
}

fn started() -> Result<run::RunFrame, Status> {
    frame(run::run_frame::Frame::RunStarted(run::RunStarted {
        run_id: RUN.into(),
    }))
}

fn text(text: &str) -> Result<run::RunFrame, Status> {
    frame(run::run_frame::Frame::AgentTextDelta(run::TextDelta {
        text: text.into(),
    }))
}

fn finish() -> Result<run::RunFrame, Status> {
    frame(run::run_frame::Frame::AgentFinish(run::RunFinished {
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

#[tonic::async_trait]
impl concierge::concierge_service_server::ConciergeService for Fakes {
    type ChatStream = Frames;

    /// The message chooses what happens.
    async fn chat(&self, request: Request<concierge::ChatRequest>) -> Answer<Frames> {
        self.saw(&request);
        let frames: Frames = match request.into_inner().message.as_str() {
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
            "silent" => {
                let note = NoteDrop(self.0.clone());
                Box::pin(
                    stream::iter([started(), text("one moment")]).chain(stream::once(async move {
                        let _note = note;
                        std::future::pending().await
                    })),
                )
            }
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
                frame(run::run_frame::Frame::AgentError(run::RunFailed {
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
                frame(run::run_frame::Frame::AgentToolCall(run::ToolCallFrame {
                    call_id: "call_1".into(),
                    name: "list_sandboxes".into(),
                    arguments_json: "null".into(),
                })),
                frame(run::run_frame::Frame::AgentToolResult(run::ToolResultFrame {
                    call_id: "call_1".into(),
                    name: "list_sandboxes".into(),
                    result_json: "[\n1]".into(),
                    error: None,
                })),
                finish(),
            ])),
        };
        Ok(Response::new(frames))
    }

    async fn call_tool(&self, _: Request<concierge::CallToolRequest>) -> Answer<concierge::CallToolResponse> {
        Err(Status::unimplemented("the gateway never calls this"))
    }
}
