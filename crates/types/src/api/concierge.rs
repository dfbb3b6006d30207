//! The Concierge's two routes (`rest.md` 15) and the frames of its stream (`sse.md` 3).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{JsonObject, words};

/// 15.1: one turn, answered when it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConciergeTestRequest {
    /// 1 to 4000 characters.
    #[schema(min_length = 1, max_length = 4000)]
    pub message: String,
}

/// 15.1: how the turn ended; a failed run is still 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConciergeTestResponse {
    /// The run.
    pub run_id: String,
    /// `succeeded`, `failed`, `timeout` or `cancelled`.
    #[schema(value_type = words::EndedRunStatus)]
    pub status: String,
    /// The reply; may be empty.
    pub output_text: String,
    /// Always empty, as at the vendor; the run's steps and the stream name the tools.
    #[serde(default)]
    pub tools_called: Vec<String>,
    /// Tokens read.
    pub tokens_in: Option<u64>,
    /// Tokens written.
    pub tokens_out: Option<u64>,
    /// How long it took.
    pub duration_ms: Option<u64>,
    /// Why it failed.
    pub error_message: Option<String>,
}

/// 15.2: one turn as a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConciergeChatRequest {
    /// 1 to 4000 characters.
    #[schema(min_length = 1, max_length = 4000)]
    pub message: String,
    /// Continues a conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
}

/// `run_started`: once, first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunStarted {
    /// The run.
    pub run_id: String,
}

/// `agent_text_delta`: concatenated in order they are the reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TextDelta {
    /// The next piece.
    pub text: String,
}

/// `agent_tool_call`: before a tool runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolCall {
    /// Pairs the call with its result.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// Complete, never partial.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub arguments: JsonObject,
}

/// `agent_tool_result`: after it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolResult {
    /// Equals that of the call.
    pub call_id: String,
    /// Equals that of the call.
    pub name: String,
    /// What the tool returned.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub result: JsonObject,
    /// Null on success.
    pub error: Option<String>,
}

/// `agent_finish`: terminal on success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finish {
    /// `end_turn`, `tool_use`, `max_tokens`, `max_turns` or `error`.
    pub stop_reason: String,
    /// Give it back to continue the conversation.
    pub session_id: Option<String>,
    /// Tokens and cost.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub usage: JsonObject,
    /// The run.
    pub run_id: Option<String>,
}

/// `agent_error`: terminal on failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamError {
    /// A sentence.
    pub message: String,
    /// `ProviderError`, `ToolResolutionError`, `Timeout`, `InsufficientCredits`, `Cancelled` or `InternalError`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The run.
    pub run_id: Option<String>,
}

/// A frame with the name of its event.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Frame {
    /// `run_started`.
    RunStarted(RunStarted),
    /// `agent_text_delta`.
    TextDelta(TextDelta),
    /// `agent_tool_call`.
    ToolCall(ToolCall),
    /// `agent_tool_result`.
    ToolResult(ToolResult),
    /// `agent_finish`.
    Finish(Finish),
    /// `agent_error`.
    Error(StreamError),
}

impl Frame {
    /// The name on the `event:` line.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::RunStarted(_) => "run_started",
            Self::TextDelta(_) => "agent_text_delta",
            Self::ToolCall(_) => "agent_tool_call",
            Self::ToolResult(_) => "agent_tool_result",
            Self::Finish(_) => "agent_finish",
            Self::Error(_) => "agent_error",
        }
    }

    /// Whether the stream ends after this frame.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Finish(_) | Self::Error(_))
    }

    /// Reads a frame; `None` for a name that this version does not know, which readers skip.
    ///
    /// # Errors
    /// The data is not the JSON that the name promises.
    pub fn parse(event: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match event {
            "run_started" => Self::RunStarted(serde_json::from_str(data)?),
            "agent_text_delta" => Self::TextDelta(serde_json::from_str(data)?),
            "agent_tool_call" => Self::ToolCall(serde_json::from_str(data)?),
            "agent_tool_result" => Self::ToolResult(serde_json::from_str(data)?),
            "agent_finish" => Self::Finish(serde_json::from_str(data)?),
            "agent_error" => Self::Error(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}

/// The value as an object: clients turn `arguments`, `result` and `usage` into a dictionary and break on anything else
/// (`sse.md` 3.1), so a list or scalar is wrapped as `{"result": …}` and null becomes `{}`.
#[must_use]
pub fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(map) => map,
        Value::Null => JsonObject::new(),
        other => JsonObject::from_iter([("result".to_owned(), other)]),
    }
}
