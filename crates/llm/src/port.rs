//! The provider port: what goes to a model and what comes back, in our own words.
//!
//! Providers translate between these types and their own wire format, so nothing above this module depends on a
//! vendor. The types are deliberately small: whatever a single vendor offers on top stays inside its adapter.

use std::ops::{Add, AddAssign};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The events of one model answer; dropping it stops the provider.
pub type EventStream = BoxStream<'static, Result<StreamEvent, Error>>;

/// A source of model answers.
///
/// A provider holds no conversation: everything it may know is in the [`Request`]. An error before the first event
/// is returned by [`Provider::stream`] where the provider can tell; an error after it is the last item of the stream.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name by which configuration, traces and metrics call this provider.
    fn name(&self) -> &str;

    /// Starts one model answer.
    ///
    /// The stream yields any number of [`StreamEvent::TextDelta`], [`StreamEvent::Usage`] and [`StreamEvent::ToolCall`],
    /// then exactly one [`StreamEvent::Finish`] or one error, and ends. Dropping the stream stops the work.
    async fn stream(&self, request: Request) -> Result<EventStream, Error>;
}

/// Everything a provider may know for one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Model id in the provider's own spelling.
    pub model: String,
    /// Instructions of the agent; never mixed with foreign text.
    pub system_prompt: String,
    /// The conversation since its start, oldest first.
    pub messages: Vec<Message>,
    /// The tools this run may call; a provider must not call any other.
    pub tools: Vec<ToolSpec>,
    /// Upper bound of generated tokens, where the agent sets one.
    pub max_tokens: Option<u32>,
    /// Sampling temperature, where the agent sets one.
    pub temperature: Option<f64>,
    /// The instant of the request. Passed in, because a provider that reads the clock cannot be replayed; without it
    /// nothing that depends on the time of day is said.
    pub now: Option<DateTime<Utc>>,
}

/// One entry of a conversation, as it is stored and as a provider gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// What the person, or the event that started the run, says.
    User {
        /// The text.
        text: String,
    },
    /// What the model answered: text, calls, or both.
    Assistant {
        /// The text; empty when the model only called tools.
        #[serde(default)]
        text: String,
        /// The calls, in the order in which the model made them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
    },
    /// What one call returned.
    Tool {
        /// The id of the call that this answers.
        call_id: String,
        /// The tool's name, equal to that of the call.
        name: String,
        /// The result; on failure an empty or error object.
        #[serde(default)]
        result: Value,
        /// Why the call failed; `None` on success.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

impl Message {
    /// A user message.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { text: text.into() }
    }

    /// An assistant message without calls.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Assistant {
            text: text.into(),
            tool_calls: Vec::new(),
        }
    }

    /// The result of a call that worked.
    pub fn tool_result(call: &ToolCall, result: Value) -> Self {
        Self::Tool {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            result,
            error: None,
        }
    }

    /// The result of a call that failed.
    pub fn tool_error(call: &ToolCall, result: Value, error: impl Into<String>) -> Self {
        Self::Tool {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            result,
            error: Some(error.into()),
        }
    }
}

/// A tool as it is offered to the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name; unique within a request.
    pub name: String,
    /// What the tool does, for the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub input_schema: Value,
    /// Whether a call changes nothing. Reading calls may run in parallel and may be repeated after a crash.
    pub read_only: bool,
}

/// A call the model wants made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique within a conversation; pairs the call with its result.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, a JSON object.
    pub arguments: Value,
    /// What the provider wants back beside this call when the conversation goes on (signatures of its thoughts), in the
    /// provider's own form. Nobody else reads it, and a provider ignores that of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<Value>,
}

impl ToolCall {
    /// A call without anything to carry back.
    pub fn new(call_id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        Self {
            call_id: call_id.into(),
            name: name.into(),
            arguments,
            continuation: None,
        }
    }
}

/// One piece of a model answer.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    /// More text; the concatenation of all deltas is the answer. It may be empty: a sign of life from a model that
    /// thinks.
    TextDelta(String),
    /// A complete tool call, never a part of one.
    ToolCall(ToolCall),
    /// What this answer used so far, as soon as the provider tells: whoever drops the stream pays for it all the same.
    /// Each one replaces the one before.
    Usage(Usage),
    /// The end of the answer: exactly one, and last.
    Finish {
        /// Why the model stopped.
        stop_reason: StopReason,
        /// What the answer used; nothing at all means that the provider did not tell.
        usage: Usage,
    },
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It said what it had to say.
    EndTurn,
    /// It waits for the results of its calls.
    ToolUse,
    /// It ran into the token limit.
    MaxTokens,
    /// Something else, in the provider's words.
    Other(String),
}

impl StopReason {
    /// The word used on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::ToolUse => "tool_use",
            Self::MaxTokens => "max_tokens",
            Self::Other(reason) => reason,
        }
    }
}

impl From<&str> for StopReason {
    fn from(word: &str) -> Self {
        match word {
            "end_turn" => Self::EndTurn,
            "tool_use" => Self::ToolUse,
            "max_tokens" => Self::MaxTokens,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Tokens spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read, without those served from a cache.
    pub input_tokens: u64,
    /// Tokens written, thinking included.
    pub output_tokens: u64,
    /// Tokens read from the provider's cache.
    pub cache_read_input_tokens: u64,
    /// Tokens written to the provider's cache.
    pub cache_creation_input_tokens: u64,
    /// Tokens spent on thinking.
    pub thinking_tokens: u64,
}

impl Usage {
    /// The largest count of a kind that a provider is believed: no answer has as many, and sums over many runs hold it.
    pub const MAX_COUNT: u64 = 1_000_000_000;

    /// Whether nothing was told: an answer has read something at least.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a count was cut, or should have been.
    #[must_use]
    pub fn is_implausible(&self) -> bool {
        [
            self.input_tokens,
            self.output_tokens,
            self.cache_read_input_tokens,
            self.cache_creation_input_tokens,
            self.thinking_tokens,
        ]
        .into_iter()
        .any(|count| count >= Self::MAX_COUNT)
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_input_tokens: self
                .cache_read_input_tokens
                .saturating_add(other.cache_read_input_tokens),
            cache_creation_input_tokens: self
                .cache_creation_input_tokens
                .saturating_add(other.cache_creation_input_tokens),
            thinking_tokens: self.thinking_tokens.saturating_add(other.thinking_tokens),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What went wrong, in the terms a run loop decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A fault that may be gone on the next try: connection lost, provider overloaded.
    Retryable,
    /// The provider asks to wait; see [`Error::retry_after`].
    RateLimited,
    /// The credential is missing, wrong or not allowed.
    Auth,
    /// The provider refuses the request as it is; trying again changes nothing.
    InvalidRequest,
    /// No provider is set up for this model; the message names the setting.
    NotConfigured,
    /// The provider went silent for too long.
    Stalled,
    /// The provider broke its own protocol: no finish, broken tool call.
    Protocol,
}

impl ErrorKind {
    /// The word used in traces, metrics and scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::RateLimited => "rate_limited",
            Self::Auth => "auth",
            Self::InvalidRequest => "invalid_request",
            Self::NotConfigured => "not_configured",
            Self::Stalled => "stalled",
            Self::Protocol => "protocol",
        }
    }

    /// Whether the same request may work later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Retryable | Self::RateLimited | Self::Stalled)
    }
}

/// A provider failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// A sentence for people, without credentials or request bodies.
    pub message: String,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// Whether the provider never began to answer, and so used nothing: it could not be reached, or refused.
    pub is_refused: bool,
}

impl Error {
    /// An error without a waiting time.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
            is_refused: false,
        }
    }

    /// The same error of a provider that never began to answer.
    #[must_use]
    pub fn refused(mut self) -> Self {
        self.is_refused = true;
        self
    }

    /// The same error with the time the provider asks to wait.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_messages_keep_their_shape() {
        let call = ToolCall::new("call_1", "t", json!({}));
        let messages = [
            Message::user("hi"),
            Message::Assistant {
                text: String::new(),
                tool_calls: vec![call.clone()],
            },
            Message::tool_error(&call, json!({"error": "not_found"}), "not_found"),
            Message::assistant("done"),
        ];
        let stored = json!([
            {"role": "user", "text": "hi"},
            {"role": "assistant", "text": "", "tool_calls": [{"call_id": "call_1", "name": "t", "arguments": {}}]},
            {"role": "tool", "call_id": "call_1", "name": "t", "result": {"error": "not_found"}, "error": "not_found"},
            {"role": "assistant", "text": "done"},
        ]);
        assert_eq!(serde_json::to_value(&messages).unwrap(), stored);
        assert_eq!(serde_json::from_value::<Vec<Message>>(stored).unwrap(), messages);
    }

    #[test]
    fn what_a_provider_wants_back_is_stored_with_the_call() {
        let call = ToolCall {
            continuation: Some(json!({"google": {"thought_signature": "c2ln"}})),
            ..ToolCall::new("call_1", "t", json!({}))
        };
        let stored = serde_json::to_value(&call).unwrap();
        assert_eq!(serde_json::from_value::<ToolCall>(stored).unwrap(), call);
    }

    #[test]
    fn usage_adds_up_without_wrapping() {
        let one = Usage {
            input_tokens: 1,
            output_tokens: u64::MAX,
            ..Usage::default()
        };
        let sum = one + one;
        assert_eq!((sum.input_tokens, sum.output_tokens), (2, u64::MAX));
    }
}
