//! The run service's face: conversion, nothing else.

use std::{pin::Pin, time::Duration};

use copass_errors::{Error, FieldProblem};
use copass_proto::{
    convert,
    run::{self as proto, run_frame, run_service_server::RunService},
};
use copass_runtime::CallContext;
use copass_types::SandboxId;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status, async_trait, metadata::MetadataValue};

use super::run_queries;
use crate::app::{
    cancel,
    domain::Run,
    follow, follow_agent,
    run_detail::ShownStep,
    runs::Runs,
    turn::{
        AdHoc, Begun, Failed, Finished, FrameId, Invoke, ManagementTool, Placed, SystemTurn, TestFire, TurnFrame, Turns,
    },
};

/// The run service.
pub(crate) struct RunsFace {
    pub(crate) runs: Runs,
    pub(crate) turns: Turns,
}

type FrameMessages = Pin<Box<dyn Stream<Item = Result<proto::RunFrame, Status>> + Send>>;

impl RunsFace {
    /// The frames of a run that was begun now, or of the one that the same request made before.
    fn frames(&self, begun: Begun, sandbox_id: &SandboxId) -> FrameMessages {
        match begun {
            Begun::Live(frames) => Box::pin(frames.map(|placed| Ok(frame_message(placed)))),
            Begun::Before(run_id) => {
                let worker = self.turns.worker();
                followed(follow::run_frames(worker, sandbox_id.clone(), run_id, None))
            }
        }
    }
}

fn followed(frames: BoxStream<'static, copass_errors::Result<Placed>>) -> FrameMessages {
    Box::pin(frames.map(|placed| placed.map(frame_message).map_err(Status::from)))
}

#[async_trait]
impl RunService for RunsFace {
    type StartSystemTurnStream = FrameMessages;

    async fn start_system_turn(
        &self,
        request: Request<proto::StartSystemTurnRequest>,
    ) -> Result<Response<Self::StartSystemTurnStream>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let limits = message.limits.unwrap_or_default();
        let turn = SystemTurn {
            sandbox_id: convert::id(&message.sandbox_id, "sandbox")?,
            system_agent: message.system_agent,
            system_prompt: message.system_prompt,
            message: message.message,
            session_id: message.session_id,
            tools: message.tools.into_iter().map(management_tool).collect(),
            max_turns: limits.max_turns,
            timeout: Duration::from_millis(limits.timeout_ms.into()),
        };
        let sandbox_id = turn.sandbox_id.clone();
        let begun = self.turns.start_system(context, turn).await?;
        Ok(Response::new(self.frames(begun, &sandbox_id)))
    }

    async fn list_runs(
        &self,
        request: Request<proto::ListRunsRequest>,
    ) -> Result<Response<proto::ListRunsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let query = run_queries::list_query(&message)?;
        let runs = self
            .runs
            .list(&context, &sandbox_id, &message.agent_slug, &query)
            .await?;
        let mut runs: Vec<_> = runs.into_iter().map(|run| run_message(run, Vec::new())).collect();
        run_queries::fit(&mut runs);
        Ok(Response::new(proto::ListRunsResponse {
            agent_slug: message.agent_slug,
            runs,
        }))
    }

    async fn get_run(&self, request: Request<proto::GetRunRequest>) -> Result<Response<proto::Run>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let run_id = convert::id(&message.run_id, "run")?;
        let (run, steps) = self.runs.get(&context, &sandbox_id, &run_id).await?;
        Ok(Response::new(run_message(run, steps)))
    }
    type TestAgentStream = FrameMessages;

    async fn test_agent(
        &self,
        request: Request<proto::TestAgentRequest>,
    ) -> Result<Response<Self::TestAgentStream>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id: SandboxId = convert::id(&message.sandbox_id, "sandbox")?;
        let fire = TestFire {
            sandbox_id: sandbox_id.clone(),
            agent_slug: message.agent_slug,
            event_payload_json: message.event_payload_json,
            timeout: Duration::from_millis(message.timeout_ms.into()),
            idempotency_key: message.idempotency_key,
        };
        let begun = self.turns.test(context, fire).await?;
        Ok(Response::new(self.frames(begun, &sandbox_id)))
    }

    type RunAdHocStream = FrameMessages;

    async fn run_ad_hoc(
        &self,
        request: Request<proto::RunAdHocRequest>,
    ) -> Result<Response<Self::RunAdHocStream>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id: SandboxId = convert::id(&message.sandbox_id, "sandbox")?;
        let ad_hoc = AdHoc {
            sandbox_id: sandbox_id.clone(),
            provider: message.provider,
            model: message.model,
            system_prompt: message.system_prompt,
            messages: message.messages,
            end_user_id: message.end_user_id,
            session_id: message.session_id,
            idempotency_key: message.idempotency_key,
        };
        let begun = self.turns.ad_hoc(context, ad_hoc).await?;
        Ok(Response::new(self.frames(begun, &sandbox_id)))
    }

    async fn invoke_agent(&self, request: Request<proto::InvokeAgentRequest>) -> Result<Response<proto::Run>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let invoke = Invoke {
            sandbox_id: convert::id(&message.sandbox_id, "sandbox")?,
            agent_slug: message.agent_slug,
            message: message.message,
            session_id: message.session_id,
            idempotency_key: message.idempotency_key,
        };
        let run = self.turns.invoke(context, invoke).await?;
        Ok(Response::new(run_message(run, Vec::new())))
    }

    async fn cancel_run(&self, request: Request<proto::CancelRunRequest>) -> Result<Response<proto::Run>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let run_id = convert::id(&message.run_id, "run")?;
        let run = cancel::cancel(&self.turns.worker(), &context, &sandbox_id, &run_id).await?;
        Ok(Response::new(run_message(run, Vec::new())))
    }

    async fn retry_run(&self, request: Request<proto::RetryRunRequest>) -> Result<Response<proto::Run>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let run_id = convert::id(&message.run_id, "run")?;
        let run = self
            .turns
            .retry(context, sandbox_id, run_id, message.idempotency_key)
            .await?;
        Ok(Response::new(run_message(run, Vec::new())))
    }

    async fn get_step_result(
        &self,
        request: Request<proto::GetStepResultRequest>,
    ) -> Result<Response<proto::StepResult>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let run_id = convert::id(&message.run_id, "run")?;
        let step_id = convert::id(&message.step_id, "step")?;
        let (name, result_json) = self.runs.step_result(&context, &sandbox_id, &run_id, &step_id).await?;
        Ok(Response::new(proto::StepResult {
            step_id: message.step_id,
            name,
            result_json,
        }))
    }

    type FollowRunStream = FrameMessages;

    async fn follow_run(
        &self,
        request: Request<proto::FollowRunRequest>,
    ) -> Result<Response<Self::FollowRunStream>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id: SandboxId = convert::id(&message.sandbox_id, "sandbox")?;
        let run_id = convert::id(&message.run_id, "run")?;
        let after = follow::position(message.after.as_deref())?;
        let run = self.runs.followable(&context, &sandbox_id, &run_id).await?;
        let is_complete = follow::is_complete(&run, after);
        let frames = follow::run_frames(self.turns.worker(), sandbox_id, run.id, after);
        let mut response = Response::new(followed(frames));
        if is_complete {
            let yes = MetadataValue::from_static("1");
            response.metadata_mut().insert(copass_proto::NOTHING_FOLLOWS, yes);
        }
        Ok(response)
    }

    type FollowAgentRunsStream = Pin<Box<dyn Stream<Item = Result<proto::RunChange, Status>> + Send>>;

    async fn follow_agent_runs(
        &self,
        request: Request<proto::FollowAgentRunsRequest>,
    ) -> Result<Response<Self::FollowAgentRunsStream>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let after = message.after.as_deref().map(str::parse).transpose().map_err(|_| {
            let problem = FieldProblem::query(
                "after",
                "is not the id of an event of this stream; leave it out to begin anew",
            );
            Error::invalid(vec![problem])
        })?;
        let watched = self.runs.watched(&context, &sandbox_id, &message.agent_slug).await?;
        let changes = follow_agent::agent_runs(self.turns.worker(), watched, after, message.backlog).await?;
        let changes = changes.map(|change| {
            let change = change.map_err(Status::from)?;
            Ok(proto::RunChange {
                id: change.id.to_string(),
                run: Some(run_message(change.run, Vec::new())),
            })
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn aggregate_usage(
        &self,
        request: Request<proto::AggregateUsageRequest>,
    ) -> Result<Response<proto::AggregateUsageResponse>, Status> {
        run_queries::aggregate_usage(&self.runs, request).await
    }
}

fn management_tool(message: proto::ToolSpec) -> ManagementTool {
    ManagementTool {
        name: message.name,
        description: message.description,
        input_schema_json: message.input_schema_json,
        is_read_only: message.read_only,
    }
}

fn frame_message((id, frame): Placed) -> proto::RunFrame {
    use run_frame::Frame;
    let frame = match frame {
        TurnFrame::RunStarted { run_id } => Frame::RunStarted(proto::RunStarted { run_id: run_id.into() }),
        TurnFrame::Text(text) => Frame::AgentTextDelta(proto::TextDelta { text }),
        TurnFrame::ToolCall {
            call_id,
            name,
            arguments_json,
        } => Frame::AgentToolCall(proto::ToolCallFrame {
            call_id,
            name,
            arguments_json,
        }),
        TurnFrame::ToolResult {
            call_id,
            name,
            result_json,
            error,
        } => Frame::AgentToolResult(proto::ToolResultFrame {
            call_id,
            name,
            result_json,
            error,
        }),
        TurnFrame::Finished(finished) => {
            let Finished {
                stop_reason,
                usage_json,
                run,
            } = *finished;
            Frame::AgentFinish(proto::RunFinished {
                stop_reason,
                session_id: run.session_id.as_ref().map(ToString::to_string),
                usage_json,
                run_id: run.id.to_string(),
                run: Some(run_message(run, Vec::new())),
            })
        }
        TurnFrame::Failed(failed) => {
            let Failed {
                message,
                kind,
                run_id,
                run,
            } = *failed;
            Frame::AgentError(proto::RunFailed {
                message,
                r#type: kind.as_str().to_owned(),
                run_id: run_id.map(String::from).unwrap_or_default(),
                run: run.map(|run| run_message(run, Vec::new())),
            })
        }
    };
    // Number 0 is a frame that is not stored.
    let id = if id == FrameId::whole(0) {
        String::new()
    } else {
        id.to_string()
    };
    proto::RunFrame { frame: Some(frame), id }
}

fn run_message(run: Run, steps: Vec<ShownStep>) -> proto::Run {
    proto::Run {
        run_id: run.id.into(),
        user_id: run.user_id.into(),
        sandbox_id: run.sandbox_id.into(),
        agent_id: run.agent_id.into(),
        agent_version: u32::try_from(run.agent_version).unwrap_or(u32::MAX),
        trigger_id: run.trigger_id,
        status: run.status.as_str().to_owned(),
        input_event_json: run.input_event.map(|event| event.to_string()),
        output_text: run.output_text,
        tokens_in: run.tokens_in.map(unsigned),
        tokens_out: run.tokens_out.map(unsigned),
        cost_microcents: run.cost_microcents.map(unsigned),
        duration_ms: run.duration_ms.map(unsigned),
        error_message: run.error_message,
        started_at: run.started_at.map(convert::timestamp),
        finished_at: run.finished_at.map(convert::timestamp),
        provider_session_id: run.session_id.map(String::from),
        tool_resolution_trace_json: run.tool_resolution_trace.map(|trace| trace.to_string()),
        warnings_json: serde_json::Value::from(run.warnings).to_string(),
        created_at: Some(convert::timestamp(run.created_at)),
        agent_slug: Some(run.agent_slug),
        error_type: run.error_type.map(|kind| kind.as_str().to_owned()),
        entrance: run.entrance.as_str().to_owned(),
        retry_of: run.retry_of.map(String::from),
        model: run.model,
        api_key_id: run.api_key_id.map(String::from),
        end_user_id: run.end_user_id,
        cost_breakdown_json: run.cost_breakdown.map(|breakdown| breakdown.to_string()),
        continuations: u32::try_from(run.continuations).unwrap_or(u32::MAX),
        steps: steps.into_iter().map(step_message).collect(),
    }
}

fn step_message(shown: ShownStep) -> proto::RunStep {
    let step = shown.step;
    proto::RunStep {
        step_id: step.id.into(),
        seq: u32::try_from(step.seq).unwrap_or(u32::MAX),
        kind: step.kind.as_str().to_owned(),
        state: step.state.as_str().to_owned(),
        name: step.name,
        arguments_json: shown.arguments_json,
        error: step.error,
        result_bytes: step.result_bytes.map(unsigned),
        tokens_in: step.tokens_in.map(unsigned),
        tokens_out: step.tokens_out.map(unsigned),
        started_at: Some(convert::timestamp(step.started_at)),
        finished_at: step.finished_at.map(convert::timestamp),
        call_id: step.call_id,
        output_preview: shown.output_preview,
        read_only: step.is_read_only,
        is_truncated: shown.is_truncated,
        cost_microcents: step.cost_microcents.map(unsigned),
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
