//! Runs of people's agents: made, started by every entrance, followed and waited for.

use std::time::Duration;

use copass_errors::Error;
use copass_proto::{
    agent::{Agent, CreateAgentRequest, ModelSettings, ToolSources, UpdateToolSourcesRequest},
    run::{
        CancelRunRequest, FollowAgentRunsRequest, FollowRunRequest, GetStepResultRequest, InvokeAgentRequest,
        RetryRunRequest, Run, RunAdHocRequest, RunChange, StepResult, TestAgentRequest, run_frame::Frame,
    },
};
use copass_runtime::CallContext;
use copass_test_support::eventually;
use copass_types::{ActorKind, AgentKeyKind, AgentKeyScope, ApiKeyId};
use serde_json::Value;
use tonic::Streaming;

use super::{Fixture, LIMIT, Turn};

/// The agent of most tests.
pub(crate) const AGENT: &str = "worker";

/// Settings that the scripted provider serves.
pub(crate) fn scripted_settings() -> ModelSettings {
    ModelSettings {
        backend: "anthropic".to_owned(),
        model: "scripted".to_owned(),
        ..ModelSettings::default()
    }
}

/// The caller with a key for one agent.
pub(crate) fn with_agent_key(mut caller: CallContext, agent: &Agent, kind: AgentKeyKind) -> CallContext {
    caller.principal.kind = ActorKind::AgentKey;
    caller.principal.api_key_id = Some(ApiKeyId::generate());
    caller.principal.agent_key = Some(AgentKeyScope {
        agent_id: agent.agent_id.parse().unwrap(),
        kind,
        has_holder: true,
    });
    caller
}

impl Fixture {
    /// The agent of most tests, made by the owner.
    pub(crate) async fn make_agent(&self) -> Agent {
        self.make_agent_with(|_| {}).await
    }

    pub(crate) async fn make_agent_with(&self, change: impl FnOnce(&mut CreateAgentRequest)) -> Agent {
        let mut request = CreateAgentRequest {
            sandbox_id: self.sandbox.id.to_string(),
            slug: AGENT.to_owned(),
            name: "Worker".to_owned(),
            system_prompt: "Do as you are told.".to_owned(),
            model_settings: Some(scripted_settings()),
            ..CreateAgentRequest::default()
        };
        change(&mut request);
        let request = self.sandbox.owner().request(request);
        self.agents().create_agent(request).await.unwrap().into_inner()
    }

    pub(crate) async fn set_sources(&self, names: &[&str]) {
        self.set_sources_of(AGENT, names).await;
    }

    pub(crate) async fn set_sources_of(&self, slug: &str, names: &[&str]) {
        let request = UpdateToolSourcesRequest {
            sandbox_id: self.sandbox.id.to_string(),
            slug: slug.to_owned(),
            tool_sources: Some(ToolSources {
                names: names.iter().map(|name| (*name).to_owned()).collect(),
            }),
            idempotency_key: None,
        };
        let request = self.sandbox.owner().request(request);
        self.agents().update_tool_sources(request).await.unwrap();
    }

    pub(crate) fn test_fire(&self, payload: &str) -> TestAgentRequest {
        TestAgentRequest {
            sandbox_id: self.sandbox.id.to_string(),
            agent_slug: AGENT.to_owned(),
            event_payload_json: Some(payload.to_owned()),
            ..TestAgentRequest::default()
        }
    }

    pub(crate) async fn fire(&self, caller: &CallContext, request: TestAgentRequest) -> Result<Turn, Error> {
        let stream = self.runs().test_agent(caller.request(request)).await?;
        Ok(Turn::new(stream.into_inner()))
    }

    /// One whole test-fire as the owner.
    pub(crate) async fn fired(&self, payload: &Value) -> Turn {
        let request = self.test_fire(&payload.to_string());
        let mut turn = self.fire(&self.sandbox.owner(), request).await.unwrap();
        turn.finish_reading().await;
        turn
    }

    pub(crate) fn ad_hoc(&self, message: &str) -> RunAdHocRequest {
        RunAdHocRequest {
            sandbox_id: self.sandbox.id.to_string(),
            provider: "anthropic".to_owned(),
            model: "scripted".to_owned(),
            system_prompt: "Be brief.".to_owned(),
            messages: vec![message.to_owned()],
            end_user_id: "user:1".to_owned(),
            session_id: None,
            idempotency_key: None,
        }
    }

    pub(crate) async fn run_ad_hoc(&self, caller: &CallContext, request: RunAdHocRequest) -> Result<Turn, Error> {
        let stream = self.runs().run_ad_hoc(caller.request(request)).await?;
        Ok(Turn::new(stream.into_inner()))
    }

    /// One whole stateless run as the owner.
    pub(crate) async fn ran_ad_hoc(&self, request: RunAdHocRequest) -> Turn {
        let mut turn = self.run_ad_hoc(&self.sandbox.owner(), request).await.unwrap();
        turn.finish_reading().await;
        turn
    }

    pub(crate) fn invocation(&self, message: &str) -> InvokeAgentRequest {
        InvokeAgentRequest {
            sandbox_id: self.sandbox.id.to_string(),
            agent_slug: AGENT.to_owned(),
            message: message.to_owned(),
            session_id: None,
            idempotency_key: None,
        }
    }

    pub(crate) async fn invoke(&self, caller: &CallContext, request: InvokeAgentRequest) -> Result<Run, Error> {
        let run = self.runs().invoke_agent(caller.request(request)).await?;
        Ok(run.into_inner())
    }

    /// Invokes as the owner and says the run's id.
    pub(crate) async fn invoked(&self, message: &str) -> String {
        let run = self.invoke(&self.sandbox.owner(), self.invocation(message)).await;
        run.unwrap().run_id
    }

    pub(crate) async fn retry(
        &self,
        caller: &CallContext,
        run_id: &str,
        idempotency_key: Option<&str>,
    ) -> Result<Run, Error> {
        let request = RetryRunRequest {
            sandbox_id: self.sandbox.id.to_string(),
            run_id: run_id.to_owned(),
            idempotency_key: idempotency_key.map(str::to_owned),
        };
        Ok(self.runs().retry_run(caller.request(request)).await?.into_inner())
    }

    pub(crate) async fn cancel(&self, caller: &CallContext, run_id: &str) -> Result<Run, Error> {
        let request = CancelRunRequest {
            sandbox_id: self.sandbox.id.to_string(),
            run_id: run_id.to_owned(),
        };
        Ok(self.runs().cancel_run(caller.request(request)).await?.into_inner())
    }

    pub(crate) async fn step_result(
        &self,
        caller: &CallContext,
        run_id: &str,
        step_id: &str,
    ) -> Result<StepResult, Error> {
        let request = GetStepResultRequest {
            sandbox_id: self.sandbox.id.to_string(),
            run_id: run_id.to_owned(),
            step_id: step_id.to_owned(),
        };
        Ok(self.runs().get_step_result(caller.request(request)).await?.into_inner())
    }

    pub(crate) async fn follow(&self, caller: &CallContext, run_id: &str, after: Option<&str>) -> Result<Turn, Error> {
        let request = FollowRunRequest {
            sandbox_id: self.sandbox.id.to_string(),
            run_id: run_id.to_owned(),
            after: after.map(str::to_owned),
        };
        let stream = self.runs().follow_run(caller.request(request)).await?;
        Ok(Turn::new(stream.into_inner()))
    }

    /// Whether the answer's head says that nothing comes after this.
    pub(crate) async fn is_complete(&self, run_id: &str, after: &str) -> bool {
        let request = FollowRunRequest {
            sandbox_id: self.sandbox.id.to_string(),
            run_id: run_id.to_owned(),
            after: Some(after.to_owned()),
        };
        let answer = self
            .runs()
            .follow_run(self.sandbox.owner().request(request))
            .await
            .unwrap();
        answer.metadata().contains_key(copass_proto::NOTHING_FOLLOWS)
    }

    /// What is stored of a run that is over, as the owner.
    pub(crate) async fn stored(&self, run_id: &str, after: Option<&str>) -> Turn {
        let mut turn = self.follow(&self.sandbox.owner(), run_id, after).await.unwrap();
        while turn.next().await.is_some() {}
        turn
    }

    pub(crate) async fn follow_agent(
        &self,
        caller: &CallContext,
        after: Option<&str>,
        backlog: u32,
    ) -> Result<Changes, Error> {
        let request = FollowAgentRunsRequest {
            sandbox_id: self.sandbox.id.to_string(),
            agent_slug: AGENT.to_owned(),
            after: after.map(str::to_owned),
            backlog,
        };
        let stream = self.runs().follow_agent_runs(caller.request(request)).await?;
        Ok(Changes::new(stream.into_inner()))
    }

    /// Waits until the run is over, however it ends.
    pub(crate) async fn ended(&self, run_id: &str) -> Run {
        eventually(LIMIT, async || {
            let status = self.run_row(run_id).await.status;
            status != "pending" && status != "running"
        })
        .await;
        self.run_row(run_id).await
    }

    pub(crate) async fn warnings(&self, run_id: &str) -> Vec<String> {
        serde_json::from_str(&self.run_row(run_id).await.warnings_json).unwrap()
    }
}

/// The changes of an agent's runs, being read.
pub(crate) struct Changes(Streaming<RunChange>);

impl Changes {
    pub(crate) fn new(stream: Streaming<RunChange>) -> Self {
        Self(stream)
    }

    /// The next change as (position, run, status).
    pub(crate) async fn next(&mut self) -> (String, String, String) {
        let change = tokio::time::timeout(LIMIT, self.0.message()).await;
        let change = change.expect("a change in time").expect("the stream does not break");
        let change = change.expect("the stream goes on");
        let run = change.run.expect("a change with a run");
        (change.id, run.run_id, run.status)
    }

    /// The changes up to the one that fits, that one included.
    pub(crate) async fn until(&mut self, run_id: &str, status: &str) -> Vec<(String, String, String)> {
        let mut seen = Vec::new();
        loop {
            let change = self.next().await;
            let fits = change.1 == run_id && change.2 == status;
            seen.push(change);
            if fits {
                return seen;
            }
        }
    }

    /// That nothing comes for a while.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.0.message()).await.is_err()
    }
}

/// Frames without what is not in the stored sequence: pieces of one text are joined, rows are left out, and JSON is in the
/// order of names, which databases do not keep.
pub(crate) fn joined<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<Frame> {
    fn in_order(json: &mut String) {
        let mut value: Value = serde_json::from_str(json).unwrap();
        value.sort_all_objects();
        *json = value.to_string();
    }
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        if let (Some(Frame::AgentTextDelta(last)), Frame::AgentTextDelta(more)) = (joined.last_mut(), frame) {
            last.text.push_str(&more.text);
            continue;
        }
        let mut frame = frame.clone();
        match &mut frame {
            Frame::AgentToolCall(call) => in_order(&mut call.arguments_json),
            Frame::AgentToolResult(result) => in_order(&mut result.result_json),
            Frame::AgentFinish(finish) => {
                finish.run = None;
                in_order(&mut finish.usage_json);
            }
            Frame::AgentError(error) => error.run = None,
            Frame::RunStarted(_) | Frame::AgentTextDelta(_) => {}
        }
        joined.push(frame);
    }
    joined
}
