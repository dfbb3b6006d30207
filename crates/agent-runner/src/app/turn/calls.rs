//! The tool calls of one model answer.
//!
//! Reading calls that stand together run in parallel; a changing call runs alone and in its place, after its intention
//! is durable, and its end is durable before anything else is waited for. A call the model made up (unknown tool,
//! arguments that are no object) gets an answer and is never made.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use copass_errors::{Error, ErrorCode};
use copass_llm::{Message, ToolCall};
use copass_runtime::tasks::panic_text;
use copass_types::RunId;
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    clean,
    engine::{End, Turn},
    frames::{Frame, FrameId},
    journal::StepHandle,
    redact,
};
use crate::{
    app::{
        domain::StepState,
        tool_sources::{Call, ResolvedTool, ToolAnswer},
    },
    store::signed,
};

/// What the model and the journal get of a result.
const MAX_RESULT_BYTES: usize = 64 * 1024;
/// Longer results are not kept whole: what is kept must fit into one message.
const MAX_WHOLE_BYTES: usize = 8 * 1024 * 1024;
/// What the person gets of a result; keeps every frame far below the largest message.
const MAX_FRAME_BYTES: usize = 1024 * 1024;
const MAX_ARGUMENT_BYTES: usize = 256 * 1024;
const MAX_NAME_CHARS: usize = 128;
/// What a tool may say about its failure; everybody gets it whole.
const MAX_ERROR_BYTES: usize = 4 * 1024;
/// What stands in place of arguments that are not kept; no tool takes it.
const TOO_DEEP: &str = "(nested too deeply)";

/// A call with the decision about it.
pub(super) struct Prepared {
    call: ToolCall,
    decision: Decision,
}

enum Decision {
    Make {
        tool: Arc<ResolvedTool>,
        arguments: Map<String, Value>,
    },
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
    /// Of the call.
    frame: i64,
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
        let arguments = if clean::is_too_deep(&call.arguments) {
            TOO_DEEP.into()
        } else {
            clean::value(call.arguments)
        };
        let continuation = call
            .continuation
            .filter(|continuation| !clean::is_too_deep(continuation));
        ToolCall {
            call_id,
            name,
            arguments,
            continuation: continuation.map(clean::value),
        }
    }

    pub(super) fn prepare(&self, call: ToolCall) -> Prepared {
        let detail = "an argument holds <redacted>, which stands for a secret that is not kept in this conversation; nothing \
                      was done: read the secret again, or ask for it";
        self.prepare_unless_redacted(call, detail)
    }

    /// As [`Self::prepare`], for a call of an answer that a lost worker got: its arguments are as they were kept.
    pub(super) fn prepare_again(&self, call: ToolCall) -> Prepared {
        let detail = "the process that worked on this run ended before it made this call, and a secret in the arguments \
                      is not kept; nothing was done, so make the call again if it is still wanted";
        self.prepare_unless_redacted(call, detail)
    }

    fn prepare_unless_redacted(&self, call: ToolCall, detail: &str) -> Prepared {
        let decision = if redact::is_redacted(&call.arguments) {
            Decision::Refuse {
                outcome: "not_kept",
                code: "conflict",
                detail: detail.to_owned(),
            }
        } else {
            self.decide(&call)
        };
        Prepared { call, decision }
    }

    fn decide(&self, call: &ToolCall) -> Decision {
        let Some(tool) = self.tools.tool(&call.name) else {
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
            _ => {
                let levels = clean::MAX_DEPTH;
                return invalid(format!(
                    "the arguments must be a JSON object of at most {levels} levels"
                ));
            }
        };
        if call.arguments.to_string().len() > MAX_ARGUMENT_BYTES {
            return invalid(format!(
                "the arguments must be at most {MAX_ARGUMENT_BYTES} bytes of JSON"
            ));
        }
        if let Some(problem) = tool.problem(&arguments) {
            return invalid(problem);
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
        Decision::Make {
            tool: tool.clone(),
            arguments,
        }
    }

    /// Makes the calls and adds their results to the conversation, in the order in which the model made the calls.
    pub(super) async fn make_calls(&mut self, calls: Vec<Prepared>) -> Result<(), End> {
        let mut together = Vec::new();
        for prepared in calls {
            match prepared.decision {
                Decision::Make { tool, arguments } if !tool.spec.read_only => {
                    self.read_together(std::mem::take(&mut together)).await?;
                    self.stay()?;
                    self.change(prepared.call, &tool, &arguments).await?;
                }
                _ => together.push(prepared),
            }
        }
        self.read_together(together).await
    }

    async fn read_together(&mut self, calls: Vec<Prepared>) -> Result<(), End> {
        if calls.is_empty() {
            return Ok(());
        }
        if self.journal.has_unwritten_change() {
            // Whoever comes after a crash in these calls must know how the change ended.
            self.flush().await?;
        }
        let steps_before = self.journal.len();
        let leave = self.leave();
        let results = tokio::select! {
            biased;
            () = leave => None,
            results = self.read_all(calls) => Some(results),
        };
        let Some(results) = results else {
            // Nothing of them is written, so they are made again elsewhere as if for the first time.
            self.journal.forget_after(steps_before);
            return Err(End::HandOver);
        };
        self.messages.extend(results);
        Ok(())
    }

    async fn read_all(&mut self, calls: Vec<Prepared>) -> Vec<Message> {
        let mut begun = Vec::with_capacity(calls.len());
        let mut work = Vec::with_capacity(calls.len());
        for (index, prepared) in calls.into_iter().enumerate() {
            let call = self.begin(prepared.call.clone(), false);
            self.announce(&call).await;
            begun.push(Some(call));
            let run_id = self.run.id.clone();
            let patience = self.limits().tool_timeout;
            work.push(async move {
                let outcome = match prepared.decision {
                    Decision::Refuse { outcome, code, detail } => Outcome::Refused { outcome, code, detail },
                    Decision::Make { tool, arguments } => {
                        make(&tool, &run_id, &prepared.call.call_id, &arguments, patience).await
                    }
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
        results.into_iter().flatten().collect()
    }

    async fn change(&mut self, call: ToolCall, tool: &ResolvedTool, arguments: &Map<String, Value>) -> Result<(), End> {
        let begun = self.begin(call, true);
        // From here on a crash leaves a row that says: this call may have been made.
        self.flush().await?;
        self.announce(&begun).await;
        let (run_id, patience) = (self.run.id.clone(), self.limits().tool_timeout);
        let outcome = make(tool, &run_id, &begun.call.call_id, arguments, patience).await;
        let message = self.conclude(begun, outcome).await;
        self.messages.push(message);
        Ok(())
    }

    fn begin(&mut self, call: ToolCall, is_change: bool) -> Begun {
        let stored = self.redactor.value(&call.arguments);
        let step = self.journal.begin_tool(&call.name, &call.call_id, stored, !is_change);
        let frame = self.number();
        self.journal.place(step, frame);
        Begun {
            call,
            step,
            frame,
            is_change,
        }
    }

    async fn announce(&self, begun: &Begun) {
        let call = &begun.call;
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
        self.sink.send(FrameId::whole(begun.frame), frame).await;
    }

    /// Journals the end of a call, shows it to the person and gives the message for the model.
    async fn conclude(&mut self, begun: Begun, outcome: Outcome) -> Message {
        let Begun {
            call, step, is_change, ..
        } = begun;
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
                    error_object(error.code().tool_code(), &detail),
                    Some(detail),
                )
            }
        };
        metrics::counter!("copass_tool_calls_total", "outcome" => word).increment(1);
        let (result, state, error) = if result.values().any(clean::is_too_deep) {
            let levels = clean::MAX_DEPTH;
            let detail =
                format!("the call was made, but its result is nested more than {levels} levels deep and is not kept");
            (
                error_object(ErrorCode::ProviderError.tool_code(), &detail),
                StepState::Failed,
                Some(detail),
            )
        } else {
            (result, state, error)
        };
        let result = clean::value(Value::Object(result));
        let error = error.map(|error| clean::text(bounded(error)));
        self.redactor.learn(&result);
        let text = result.to_string();
        let reference = self.journal.id(step).map(ToString::to_string).unwrap_or_default();
        let frame_text = if text.len() <= MAX_FRAME_BYTES {
            text.clone()
        } else {
            shortened(&text, &reference).to_string()
        };
        let is_whole = text.len() <= MAX_RESULT_BYTES;
        let whole = self.redactor.value(&result);
        let stored = if is_whole {
            whole
        } else {
            let whole = whole.to_string();
            let stored = shortened(&whole, &reference);
            if whole.len() <= MAX_WHOLE_BYTES {
                self.journal.keep_whole(step, whole);
            }
            stored
        };
        let stored_error = error.as_deref().map(|error| self.redactor.text(error));
        let number = self.number();
        self.journal.end(step, state, |step| {
            step.output = Some(stored);
            step.error = stored_error;
            step.result_bytes = Some(signed(text.len() as u64));
            step.last_frame = Some(number);
        });
        let frame = Frame::ToolResult {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            result_json: frame_text,
            error: error.clone(),
        };
        self.sink.send(FrameId::whole(number), frame).await;
        let result = if is_whole { result } else { shortened(&text, &reference) };
        Message::Tool {
            call_id: call.call_id,
            name: call.name,
            result,
            error,
        }
    }
}

/// Makes one call within its time.
async fn make(
    tool: &ResolvedTool,
    run_id: &RunId,
    call_id: &str,
    arguments: &Map<String, Value>,
    patience: Duration,
) -> Outcome {
    let idempotency_key = idempotency_key(run_id, call_id, &tool.spec.name, arguments);
    let call = Call {
        run_id,
        call_id,
        name: &tool.spec.name,
        arguments,
        idempotency_key: &idempotency_key,
    };
    // A panic of a source costs its call only.
    let work = AssertUnwindSafe(tool.caller.call(call)).catch_unwind();
    let answer = match tokio::time::timeout(patience, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(Error::internal(panic_text(panic.as_ref()).to_owned())),
        Err(_) => {
            let seconds = patience.as_secs_f64();
            Err(Error::new(
                ErrorCode::DeadlineExceeded,
                format!("the tool did not answer within {seconds} s"),
            ))
        }
    };
    answer.map_or_else(Outcome::Failed, Outcome::Answered)
}

/// The same for the same call, however often and by whomever it is made. Ids of calls come from the model and may come
/// again for another call after a crash, so they are not enough.
fn idempotency_key(run_id: &RunId, call_id: &str, name: &str, arguments: &Map<String, Value>) -> String {
    let mut call = json!([call_id, name, arguments]);
    // Databases do not keep the order of names.
    call.sort_all_objects();
    let mut hash = hex::encode(Sha256::digest(call.to_string()));
    hash.truncate(32);
    format!("{run_id}-{hash}")
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

/// The text, cut where it is too long for an error.
fn bounded(mut error: String) -> String {
    if error.len() > MAX_ERROR_BYTES {
        error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
        error.push('…');
    }
    error
}

/// The beginning of a result that is too long, marked as such; the whole is kept under the step's id.
fn shortened(text: &str, reference: &str) -> Value {
    // Quotes and backslashes are escaped once more inside the object, so the beginning has to be well below the bound.
    let beginning = &text[..text.floor_char_boundary(MAX_RESULT_BYTES / 2 - 512)];
    json!({"truncated": true, "total_bytes": text.len(), "step_id": reference, "beginning": beginning})
}
