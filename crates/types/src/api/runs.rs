//! Runs and their traces (`rest.md` 12.B).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

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
    pub status: Option<String>,
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
    pub kind: String,
    /// `intended`, `done`, `failed` or `unknown`.
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
}
