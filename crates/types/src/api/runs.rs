//! Runs and their traces (`rest.md` 12.B).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::words;

/// 12.11: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListRunsQuery {
    /// 1 to 100, 20 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only runs older than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Only runs of this trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_id: Option<String>,
    /// Only runs in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<words::RunStatus>, inline)]
    pub status: Option<String>,
    /// Only runs accepted at or after this instant (RFC 3339).
    #[serde(with = "super::time::option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Only runs accepted before this instant (RFC 3339).
    #[serde(with = "super::time::option", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Only runs of this version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1)]
    pub agent_version: Option<u32>,
}

/// The query of a run's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FollowRunQuery {
    /// The id of the last frame the caller has; the header `Last-Event-ID` wins over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The query of an agent's live runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FollowAgentRunsQuery {
    /// The id of the last event the caller has; the header `Last-Event-ID` wins over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many of the newest runs come first, when no event is named to go on from: 0 to 100, 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u32>,
}

/// A run, as rows of the list show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentRun {
    /// Its id.
    pub run_id: String,
    /// The person it acts for.
    pub user_id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// The agent.
    pub agent_id: String,
    /// The agent's version when the run began.
    pub agent_version: u32,
    /// The trigger that fired, if one did.
    pub trigger_id: Option<String>,
    /// `pending`, `running`, `succeeded`, `failed`, `timeout` or `cancelled`.
    #[schema(value_type = words::RunStatus)]
    pub status: String,
    /// What it was started with.
    #[schema(value_type = Option<Object>)]
    pub input_event: Option<Value>,
    /// The reply.
    pub output_text: Option<String>,
    /// Tokens read.
    pub tokens_in: Option<u64>,
    /// Tokens written.
    pub tokens_out: Option<u64>,
    /// 1e-6 USD.
    pub cost_microcents: Option<u64>,
    /// How long it took.
    pub duration_ms: Option<u64>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// When it began.
    #[serde(with = "super::time::option", default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(with = "super::time::option", default)]
    pub finished_at: Option<DateTime<Utc>>,
    /// The conversation it belongs to.
    pub provider_session_id: Option<String>,
    /// What the operator should know, for example a tool source that was skipped.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// When it was accepted.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// The agent's name in paths.
    pub agent_slug: Option<String>,
    /// What stopped it: one of the words of `sse.md` 3.3.
    #[serde(default)]
    pub error_type: Option<String>,
    /// How it came about: `chat`, `test`, `ad_hoc`, `invoke`, `trigger` or `retry`.
    #[serde(default)]
    #[schema(value_type = Option<words::Entrance>)]
    pub entrance: Option<String>,
    /// The run whose input it has.
    #[serde(default)]
    pub retry_of: Option<String>,
    /// The model that worked, as `backend/model`.
    #[serde(default)]
    pub model: Option<String>,
    /// The API key that started it.
    #[serde(default)]
    pub api_key_id: Option<String>,
    /// The end user it was started for.
    #[serde(default)]
    pub end_user_id: Option<String>,
    /// Cost by kind of token, in 1e-6 USD.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub cost_breakdown_microcents: Option<Value>,
    /// How often it was taken up again after its worker was lost.
    #[serde(default)]
    pub continuations: u32,
}

/// 12.11.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// The agent's name in paths.
    #[serde(default)]
    pub agent_slug: String,
    /// Most recent first.
    pub runs: Vec<AgentRun>,
    /// How many rows there are.
    pub count: usize,
}

/// 12.12: a run with what explains it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// The row.
    #[serde(flatten)]
    pub run: AgentRun,
    /// Which tools the model saw and why.
    #[schema(value_type = Option<Object>)]
    pub tool_resolution_trace: Option<Value>,
    /// Model answers and tool calls in order.
    #[serde(default)]
    pub steps: Vec<RunStep>,
}

/// One model answer or one tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunStep {
    /// Its id.
    pub step_id: String,
    /// Its place in the run.
    pub seq: u32,
    /// `model` or `tool`.
    #[schema(value_type = words::StepKind)]
    pub kind: String,
    /// `intended`, `done`, `failed` or `unknown`.
    #[schema(value_type = words::StepState)]
    pub state: String,
    /// The model or the tool.
    pub name: Option<String>,
    /// The arguments of a tool call, without secrets.
    #[schema(value_type = Option<Object>)]
    pub arguments: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// Size of the result.
    pub result_bytes: Option<u64>,
    /// Tokens read.
    pub tokens_in: Option<u64>,
    /// Tokens written.
    pub tokens_out: Option<u64>,
    /// When it began.
    #[serde(with = "super::time::option", default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(with = "super::time::option", default)]
    pub finished_at: Option<DateTime<Utc>>,
    /// Of a tool step: the call's id in the stream.
    #[serde(default)]
    pub call_id: Option<String>,
    /// Of a model step: what it said. Of a tool step: the beginning of the result as JSON text.
    #[serde(default)]
    pub output_preview: Option<String>,
    /// Whether the whole output is longer than the preview; `…/steps/{step_id}/result` has it.
    #[serde(default)]
    pub is_truncated: bool,
    /// Whether the tool only reads.
    #[serde(default)]
    pub read_only: bool,
    /// 1e-6 USD.
    #[serde(default)]
    pub cost_microcents: Option<u64>,
}
