//! The gRPC faces: conversion, nothing else.

use std::{pin::Pin, time::Duration};

use copass_errors::Error;
use copass_proto::{
    agent::{self as agent_proto, agent_service_server::AgentService},
    convert,
    run::{self as run_proto, run_frame, run_service_server::RunService},
};
use copass_runtime::CallContext;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{Request, Response, Status, async_trait};

use crate::app::{
    agent_rules::{Draft, SettingsDraft},
    agents::{Agents, AnswerCodec, Keyed},
    domain::{Agent, ModelSettings, Run, Step},
    runs::{Query, Runs},
    turn::{Failed, Finished, SystemTurn, ToolDraft, TurnFrame, Turns},
};

/// Arguments in one answer; beyond that, steps come without them, so that every run fits into one message.
const MAX_ARGUMENT_BYTES: usize = 1024 * 1024;

/// The agent service.
pub(crate) struct AgentsFace(pub(crate) Agents);

/// The run service.
pub(crate) struct RunsFace {
    pub(crate) runs: Runs,
    pub(crate) turns: Turns,
}

struct AgentCodec;

impl AnswerCodec for AgentCodec {
    type Answer = agent_proto::Agent;

    fn answer(agent: &Agent) -> Self::Answer {
        agent_message(agent.clone())
    }

    fn encode(answer: &Self::Answer) -> Vec<u8> {
        answer.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self::Answer, Error> {
        agent_proto::Agent::decode(bytes).map_err(Error::internal)
    }
}

#[async_trait]
impl AgentService for AgentsFace {
    async fn create_agent(
        &self,
        request: Request<agent_proto::CreateAgentRequest>,
    ) -> Result<Response<agent_proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let key = message.idempotency_key.take().filter(|key| !key.is_empty());
        let keyed = key.map(|key| Keyed {
            key,
            request: message.encode_to_vec(),
        });
        let agent = self
            .0
            .create::<AgentCodec>(&context, &sandbox_id, draft(message), keyed)
            .await?;
        Ok(Response::new(agent))
    }

    async fn list_agents(
        &self,
        request: Request<agent_proto::ListAgentsRequest>,
    ) -> Result<Response<agent_proto::ListAgentsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let agents = self.0.list(&context, &sandbox_id, message.status.as_deref()).await?;
        let agents = agents.into_iter().map(agent_message).collect();
        Ok(Response::new(agent_proto::ListAgentsResponse { agents }))
    }

    async fn get_agent(
        &self,
        request: Request<agent_proto::GetAgentRequest>,
    ) -> Result<Response<agent_proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        Ok(Response::new(agent_message(
            self.0.get(&context, &sandbox_id, &message.slug).await?,
        )))
    }
}

#[async_trait]
impl RunService for RunsFace {
    type StartSystemTurnStream = Pin<Box<dyn Stream<Item = Result<run_proto::RunFrame, Status>> + Send>>;

    async fn start_system_turn(
        &self,
        request: Request<run_proto::StartSystemTurnRequest>,
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
            tools: message.tools.into_iter().map(tool_draft).collect(),
            max_turns: limits.max_turns,
            timeout: Duration::from_millis(limits.timeout_ms.into()),
        };
        let frames = self.turns.start_system(context, turn).await?;
        Ok(Response::new(Box::pin(frames.map(|frame| Ok(frame_message(frame))))))
    }

    async fn list_runs(
        &self,
        request: Request<run_proto::ListRunsRequest>,
    ) -> Result<Response<run_proto::ListRunsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let query = Query {
            limit: message.limit,
            before: message.before,
            trigger_id: message.trigger_id,
            status: message.status,
        };
        let runs = self
            .runs
            .list(&context, &sandbox_id, &message.agent_slug, &query)
            .await?;
        let runs = runs.into_iter().map(|run| run_message(run, Vec::new())).collect();
        Ok(Response::new(run_proto::ListRunsResponse {
            agent_slug: message.agent_slug,
            runs,
        }))
    }

    async fn get_run(&self, request: Request<run_proto::GetRunRequest>) -> Result<Response<run_proto::Run>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let run_id = convert::id(&message.run_id, "run")?;
        let (run, steps) = self.runs.get(&context, &sandbox_id, &run_id).await?;
        Ok(Response::new(run_message(run, steps)))
    }
}

fn draft(message: agent_proto::CreateAgentRequest) -> Draft {
    Draft {
        slug: message.slug,
        name: message.name,
        description: message.description,
        system_prompt: message.system_prompt,
        tool_allowlist: message.tool_allowlist,
        model_settings: message.model_settings.map(settings_draft).unwrap_or_default(),
    }
}

fn settings_draft(message: agent_proto::ModelSettings) -> SettingsDraft {
    SettingsDraft {
        backend: message.backend,
        model: message.model,
        temperature: message.temperature,
        max_tokens: message.max_tokens,
        max_turns: message.max_turns,
        timeout_s: message.timeout_s,
        compute_provider: message.compute_provider,
    }
}

fn settings_message(settings: ModelSettings) -> agent_proto::ModelSettings {
    agent_proto::ModelSettings {
        backend: settings.backend,
        model: settings.model,
        temperature: settings.temperature,
        max_tokens: settings.max_tokens,
        max_turns: settings.max_turns,
        timeout_s: settings.timeout_s,
        compute_provider: settings.compute_provider,
    }
}

fn agent_message(agent: Agent) -> agent_proto::Agent {
    agent_proto::Agent {
        agent_id: agent.id.into(),
        user_id: agent.user_id.into(),
        sandbox_id: agent.sandbox_id.into(),
        slug: agent.slug,
        name: agent.name,
        description: agent.description,
        system_prompt: agent.system_prompt,
        tool_allowlist: agent.tool_allowlist,
        tool_sources: agent.tool_sources.map(|names| agent_proto::ToolSources { names }),
        model_settings: Some(settings_message(agent.model_settings)),
        status: agent.status.as_str().to_owned(),
        version: u32::try_from(agent.version).unwrap_or(u32::MAX),
        created_at: Some(convert::timestamp(agent.created_at)),
        updated_at: Some(convert::timestamp(agent.updated_at)),
    }
}

fn tool_draft(message: run_proto::ToolSpec) -> ToolDraft {
    ToolDraft {
        name: message.name,
        description: message.description,
        input_schema_json: message.input_schema_json,
        is_read_only: message.read_only,
    }
}

fn frame_message(frame: TurnFrame) -> run_proto::RunFrame {
    use run_frame::Frame;
    let frame = match frame {
        TurnFrame::RunStarted { run_id } => Frame::RunStarted(run_proto::RunStarted { run_id: run_id.into() }),
        TurnFrame::Text(text) => Frame::AgentTextDelta(run_proto::TextDelta { text }),
        TurnFrame::ToolCall {
            call_id,
            name,
            arguments_json,
        } => Frame::AgentToolCall(run_proto::ToolCallFrame {
            call_id,
            name,
            arguments_json,
        }),
        TurnFrame::ToolResult {
            call_id,
            name,
            result_json,
            error,
        } => Frame::AgentToolResult(run_proto::ToolResultFrame {
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
            Frame::AgentFinish(run_proto::RunFinished {
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
            Frame::AgentError(run_proto::RunFailed {
                message,
                r#type: kind.to_owned(),
                run_id: run_id.map(String::from).unwrap_or_default(),
                run: run.map(|run| run_message(run, Vec::new())),
            })
        }
    };
    run_proto::RunFrame { frame: Some(frame) }
}

fn run_message(run: Run, steps: Vec<Step>) -> run_proto::Run {
    let mut argument_bytes = 0;
    let steps = steps
        .into_iter()
        .map(|step| step_message(step, &mut argument_bytes))
        .collect();
    run_proto::Run {
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
        steps,
    }
}

fn step_message(step: Step, argument_bytes: &mut usize) -> run_proto::RunStep {
    let arguments_json = step
        .arguments
        .map(|arguments| arguments.to_string())
        .filter(|arguments| {
            *argument_bytes += arguments.len();
            *argument_bytes <= MAX_ARGUMENT_BYTES
        });
    run_proto::RunStep {
        step_id: step.id.into(),
        seq: u32::try_from(step.seq).unwrap_or(u32::MAX),
        kind: step.kind.as_str().to_owned(),
        state: step.state.as_str().to_owned(),
        name: step.name,
        arguments_json,
        error: step.error,
        result_bytes: step.result_bytes.map(unsigned),
        tokens_in: step.tokens_in.map(unsigned),
        tokens_out: step.tokens_out.map(unsigned),
        started_at: Some(convert::timestamp(step.started_at)),
        finished_at: step.finished_at.map(convert::timestamp),
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
