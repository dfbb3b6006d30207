//! What runs are started, stopped and repeated with (`rest.md` 12.9, 12.10, 12.15).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{JsonObject, words};

/// 12.9: fires an agent with an event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestAgentRequest {
    /// Given to the agent as JSON text; `{}` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub event_payload: Option<JsonObject>,
}

/// 12.10: a run that goes on without its caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvokeAgentRequest {
    /// What to tell the agent.
    #[schema(min_length = 1)]
    pub message: String,
    /// Continues a conversation: the `provider_session_id` of its last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
}

/// 12.10: the run is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvokedRun {
    /// The run.
    pub run_id: String,
    /// The conversation, where it has one already.
    #[serde(default)]
    pub session_id: Option<String>,
}

/// 12.15: runs an agent that exists for this call only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunAdHocRequest {
    /// `anthropic`, `google` or `hermes`.
    #[schema(value_type = words::Backend)]
    pub provider: String,
    /// The model's name at the provider.
    #[schema(min_length = 1)]
    pub model: String,
    /// What the agent is told to be.
    pub system_prompt: String,
    /// What the end user says, oldest first; at least one.
    #[schema(min_items = 1)]
    pub messages: Vec<AdHocMessage>,
    /// Keeps the end users of one sandbox apart: at most 128 of letters, digits, `-`, `.`, `_`, `~` and `:`.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._~:-]+$")]
    pub end_user_id: String,
    /// Continues a conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Must be there for google.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_engine_id: Option<String>,
    /// The region of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// One message of an end user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdHocMessage {
    /// `user`.
    #[schema(value_type = words::MessageRole)]
    pub role: String,
    /// The text.
    #[schema(min_length = 1)]
    pub content: String,
}

/// A run that repeats another is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetriedRun {
    /// The new run.
    pub run_id: String,
    /// The run whose input it has.
    pub retry_of: String,
}

/// The whole result of a tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepResult {
    /// The step.
    pub step_id: String,
    /// The tool.
    pub name: String,
    /// What it returned.
    #[schema(value_type = Option<Object>)]
    pub result: Value,
}
