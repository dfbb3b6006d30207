//! The tool calls of one model answer.
//!
//! Reading calls that stand together run in parallel; a changing call runs alone and in its place, after its intention
//! is durable. A call the model made up (unknown tool, arguments that are no object) gets an answer and is never made.

use copass_errors::{Error, ErrorCode};
use copass_llm::{Message, ToolCall};
use futures::{StreamExt as _, stream};
use serde_json::{Map, Value, json};

use super::{
    clean,
    engine::{End, Turn},
    frames::Frame,
    journal::StepHandle,
    tools::ToolAnswer,
};
use crate::{app::domain::StepState, store::signed};

/// What the model and the journal get of a result.
const MAX_RESULT_BYTES: usize = 64 * 1024;
/// What the person gets of a result; keeps every frame far below the largest message.
const MAX_FRAME_BYTES: usize = 1024 * 1024;
const MAX_ARGUMENT_BYTES: usize = 256 * 1024;
const MAX_NAME_CHARS: usize = 128;

/// A call with the decision about it.
pub(super) struct Prepared {
    call: ToolCall,
    decision: Decision,
}

enum Decision {
    Read(Map<String, Value>),
    Change(Map<String, Value>),
    Refuse {
        outcome: &'static str,
        code: &'static str,
        detail: String,
    },
}

/// A call that has been announced and journaled.
struct Begun {
    call: ToolCall,
    step: StepHandle,
    is_change: bool,
}

/// How a call ended.
enum Outcome {
    Answered(ToolAnswer),
    Failed(Error),
    Refused {
        outcome: &'static str,
        code: &'static str,
        detail: String,
    },
}

impl Turn<'_> {
    /// Makes a call of the model fit to be kept: bounded names, an id that is unique in the conversation.
    pub(super) fn clean(&mut self, call: ToolCall) -> ToolCall {
        let is_sound = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        let name: String = call
            .name
            .chars()
            .filter(|character| !character.is_control())
            .take(MAX_NAME_CHARS)
            .collect();
        let fits = is_sound(&call.call_id) && call.call_id.len() <= MAX_NAME_CHARS;
        let mut call_id = if fits { call.call_id } else { String::new() };
        let mut number = self.call_ids.len();
        while call_id.is_empty() || self.call_ids.contains(&call_id) {
            number += 1;
            call_id = format!("call_{number}");
        }
        self.call_ids.insert(call_id.clone());
        ToolCall {
            call_id,
            name,
            arguments: clean::value(call.arguments),
        }
    }

    pub(super) fn prepare(&self, call: ToolCall) -> Prepared {
        let decision = self.decide(&call);
        Prepared { call, decision }
    }

    fn decide(&self, call: &ToolCall) -> Decision {
        let Some(is_read_only) = self.toolset.is_read_only(&call.name) else {
            let detail = format!("unknown tool {:?}; use one of the tools that were offered", call.name);
            return Decision::Refuse {
                outcome: "unknown_tool",
                code: "not_found",
                detail,
            };
        };
        let invalid = |detail: String| Decision::Refuse {
            outcome: "invalid_arguments",
            code: "invalid_input",
            detail,
        };
        let arguments = match &call.arguments {
            Value::Object(arguments) => arguments.clone(),
            Value::Null => Map::new(),
            _ => return invalid("the arguments must be a JSON object".to_owned()),
        };
        if call.arguments.to_string().len() > MAX_ARGUMENT_BYTES {
            return invalid(format!(
                "the arguments must be at most {MAX_ARGUMENT_BYTES} bytes of JSON"
            ));
        }
        if is_read_only {
            return Decision::Read(arguments);
        }
        if self
            .uncertain
            .iter()
            .any(|(name, done)| *name == call.name && *done == call.arguments)
        {
            let detail = "the same call was made before and its outcome is not known, so it is not repeated; look at the \
                          present state first";
            return Decision::Refuse {
                outcome: "not_repeated",
                code: "conflict",
                detail: detail.to_owned(),
            };
        }
        Decision::Change(arguments)
    }

    /// Makes the calls and adds their results to the conversation, in the order in which the model made the calls.
    pub(super) async fn make_calls(&mut self, calls: Vec<Prepared>) -> Result<(), End> {
        let mut together = Vec::new();
        for prepared in calls {
            match prepared.decision {
                Decision::Change(arguments) => {
                    self.read_together(std::mem::take(&mut together)).await;
                    self.change(prepared.call, &arguments).await?;
                }
                _ => together.push(prepared),
            }
        }
        self.read_together(together).await;
        Ok(())
    }

    async fn read_together(&mut self, calls: Vec<Prepared>) {
        let mut begun = Vec::with_capacity(calls.len());
        let mut work = Vec::with_capacity(calls.len());
        for (index, prepared) in calls.into_iter().enumerate() {
            begun.push(Some(self.begin(prepared.call.clone(), false)));
            self.announce(&prepared.call).await;
            let caller = self.caller.clone();
            work.push(async move {
                let outcome = match prepared.decision {
                    Decision::Refuse { outcome, code, detail } => Outcome::Refused { outcome, code, detail },
                    Decision::Read(arguments) | Decision::Change(arguments) => outcome(
                        caller
                            .call(&prepared.call.call_id, &prepared.call.name, &arguments)
                            .await,
                    ),
                };
                (index, outcome)
            });
        }
        let mut results: Vec<Option<Message>> = begun.iter().map(|_| None).collect();
        let mut ended = stream::iter(work).buffer_unordered(self.limits().parallel_reads.max(1));
        while let Some((index, outcome)) = ended.next().await {
            if let Some(begun) = begun.get_mut(index).and_then(Option::take) {
                let message = self.conclude(begun, outcome).await;
                if let Some(place) = results.get_mut(index) {
                    *place = Some(message);
                }
            }
        }
        self.messages.extend(results.into_iter().flatten());
    }

    async fn change(&mut self, call: ToolCall, arguments: &Map<String, Value>) -> Result<(), End> {
        let begun = self.begin(call, true);
        // From here on a crash leaves a row that says: this call may have been made.
        self.journal.flush().await?;
        self.announce(&begun.call).await;
        let caller = self.caller.clone();
        let answer = caller.call(&begun.call.call_id, &begun.call.name, arguments).await;
        let message = self.conclude(begun, outcome(answer)).await;
        self.messages.push(message);
        Ok(())
    }

    fn begin(&mut self, call: ToolCall, is_change: bool) -> Begun {
        let stored = self.redactor.value(&call.arguments);
        let step = self.journal.begin_tool(&call.name, &call.call_id, stored, !is_change);
        Begun { call, step, is_change }
    }

    async fn announce(&self, call: &ToolCall) {
        let arguments = if call.arguments.is_object() {
            call.arguments.to_string()
        } else {
            "{}".to_owned()
        };
        let frame = Frame::ToolCall {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            arguments_json: arguments,
        };
        self.sink.send(frame).await;
    }

    /// Journals the end of a call, shows it to the person and gives the message for the model.
    async fn conclude(&mut self, begun: Begun, outcome: Outcome) -> Message {
        let Begun { call, step, is_change } = begun;
        let (word, state, result, error) = match outcome {
            Outcome::Answered(ToolAnswer { result, error: None }) => ("ok", StepState::Done, result, None),
            Outcome::Answered(ToolAnswer { result, error }) => ("error", StepState::Failed, result, error),
            Outcome::Refused { outcome, code, detail } => {
                // The contract's words for a tool that was not offered.
                let error = if outcome == "unknown_tool" {
                    "unknown tool".to_owned()
                } else {
                    detail.clone()
                };
                (outcome, StepState::Failed, error_object(code, &detail), Some(error))
            }
            Outcome::Failed(error) => {
                tracing::warn!(
                    run.id = %self.run.id, tool = call.name, %error, cause = error.cause_chain(), "tool call failed"
                );
                let is_uncertain = is_change && may_have_taken_effect(error.code());
                if is_uncertain {
                    self.uncertain.push((call.name.clone(), call.arguments.clone()));
                }
                let detail = if is_uncertain {
                    format!(
                        "{}; whether the call took effect is not known, so check before you repeat it",
                        error.detail()
                    )
                } else {
                    error.detail().to_owned()
                };
                let state = if is_uncertain {
                    StepState::Unknown
                } else {
                    StepState::Failed
                };
                (
                    word(error.code()),
                    state,
                    error_object(tool_code(error.code()), &detail),
                    Some(detail),
                )
            }
        };
        metrics::counter!("copass_tool_calls_total", "outcome" => word).increment(1);
        let result = clean::value(Value::Object(result));
        let error = error.map(clean::text);
        self.redactor.learn(&result);
        let text = result.to_string();
        let frame_text = if text.len() <= MAX_FRAME_BYTES {
            text.clone()
        } else {
            shortened(&text).to_string()
        };
        let stored = capped(self.redactor.value(&result));
        let stored_error = error.as_deref().map(|error| self.redactor.text(error));
        self.journal.end(step, state, |step| {
            step.output = Some(stored);
            step.error = stored_error;
            step.result_bytes = Some(signed(text.len() as u64));
        });
        let frame = Frame::ToolResult {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            result_json: frame_text,
            error: error.clone(),
        };
        self.sink.send(frame).await;
        let result = if text.len() <= MAX_RESULT_BYTES {
            result
        } else {
            shortened(&text)
        };
        Message::Tool {
            call_id: call.call_id,
            name: call.name,
            result,
            error,
        }
    }
}

fn outcome(answer: copass_errors::Result<ToolAnswer>) -> Outcome {
    answer.map_or_else(Outcome::Failed, Outcome::Answered)
}

fn error_object(code: &str, detail: &str) -> Map<String, Value> {
    Map::from_iter([("error".to_owned(), code.into()), ("detail".to_owned(), detail.into())])
}

/// Errors after which nobody can tell whether the other side did it.
fn may_have_taken_effect(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DeadlineExceeded | ErrorCode::Unavailable | ErrorCode::Cancelled | ErrorCode::InternalError
    )
}

/// The word of a failure in the metric: a small closed set.
fn word(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::DeadlineExceeded => "timeout",
        ErrorCode::Unavailable => "unavailable",
        _ => "failed",
    }
}

/// The word of a failure in a tool's error object (`tools.md` 1).
fn tool_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NotFound => "not_found",
        ErrorCode::InvalidRequest | ErrorCode::ValidationError => "invalid_input",
        ErrorCode::Conflict | ErrorCode::SandboxNotActive | ErrorCode::IdempotencyConflict => "conflict",
        ErrorCode::Forbidden | ErrorCode::Unauthorized => "forbidden",
        ErrorCode::SecretDetected => "secret_detected",
        ErrorCode::TierLimit => "tier_limit",
        ErrorCode::ProviderError => "provider_error",
        _ => "internal_error",
    }
}

fn capped(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= MAX_RESULT_BYTES {
        value
    } else {
        shortened(&text)
    }
}

/// The beginning of a result that is too long, marked as such.
fn shortened(text: &str) -> Value {
    // Quotes and backslashes are escaped once more inside the object, so the beginning has to be well below the bound.
    let beginning = &text[..text.floor_char_boundary(MAX_RESULT_BYTES / 2)];
    json!({"truncated": true, "total_bytes": text.len(), "beginning": beginning})
}
