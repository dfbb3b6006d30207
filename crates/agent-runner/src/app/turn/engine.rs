//! The loop between model and tools.
//!
//! Everything the loop learns is kept in [`Turn`], outside of the loop's future: whatever stops the loop drops that
//! future, and with it the model stream and every call in flight, while text, usage and steps so far stay for the end.

use std::{collections::HashSet, sync::Arc, time::Duration};

use copass_llm::{
    Error as ModelError, ErrorKind, Message, PLANNER, Provider, Request, StopReason, StreamEvent, ToolCall, Usage,
};
use copass_runtime::clock;
use copass_types::SessionId;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    Order, Worker,
    accept::Start,
    calls::Prepared,
    clean,
    frames::{Frame, FrameSink},
    journal::{Journal, JournalError, StepHandle},
    redact::Redactor,
    tools::{ToolCaller, Toolset},
};
use crate::{
    Limits,
    app::{
        active::StopCause,
        domain::{Run, StepState},
    },
    store::signed,
};

/// What one run may write; a model that never ends is cut here.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// Pieces of one answer, empty ones included: a model that streams nothing for ever is cut here.
const MAX_ANSWER_EVENTS: usize = 2_000_000;
const MAX_CALLS_PER_ANSWER: usize = 64;
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Why a turn is over.
#[derive(Debug)]
pub(super) enum End {
    /// The model said what it had to say, or a limit that is no failure was reached.
    Finished { stop_reason: String },
    /// The model provider failed, or the model misbehaved.
    Provider(String),
    /// It took longer than allowed.
    TimedOut(Duration),
    /// Somebody or something stopped it.
    Stopped(StopCause),
    /// Something of ours failed; the cause is in the log.
    Broken,
}

impl From<JournalError> for End {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::LeaseLost => Self::Stopped(StopCause::LeaseLost),
            JournalError::Store(error) => {
                tracing::error!(%error, cause = error.cause_chain(), "the journal cannot be written");
                Self::Broken
            }
        }
    }
}

/// One turn in progress.
pub(super) struct Turn<'a> {
    pub(super) worker: &'a Worker,
    pub(super) run: Run,
    pub(super) session_id: SessionId,
    pub(super) journal: Journal,
    pub(super) toolset: Toolset,
    pub(super) caller: Arc<dyn ToolCaller>,
    pub(super) sink: FrameSink,
    pub(super) redactor: Redactor,
    /// What the model gets, secrets included: it has to tell the person.
    pub(super) messages: Vec<Message>,
    /// How many of them are older than this turn's answer.
    pub(super) history_len: usize,
    pub(super) text: String,
    pub(super) usage: Usage,
    pub(super) began: Instant,
    /// Call ids of the whole conversation.
    pub(super) call_ids: HashSet<String>,
    /// Changing calls nobody knows the outcome of; the same call is not made again in this run.
    pub(super) uncertain: Vec<(String, Value)>,
    provider: Arc<dyn Provider>,
    system_prompt: String,
    max_turns: u32,
    model: String,
    model_step: StepHandle,
    has_spoken: bool,
}

struct Answer {
    text: String,
    calls: Vec<ToolCall>,
    stop_reason: StopReason,
    usage: Usage,
}

/// A model answer that failed; it may be asked for again when nothing of it was seen.
struct Failure {
    error: ModelError,
    is_untouched: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        worker: &'a Worker,
        order: Order,
        start: Start,
        caller: Arc<dyn ToolCaller>,
        sink: FrameSink,
        began: Instant,
    ) -> Self {
        let mut messages = start.history;
        let call_ids = messages
            .iter()
            .filter_map(|message| match message {
                Message::Assistant { tool_calls, .. } => Some(tool_calls.iter().map(|call| call.call_id.clone())),
                _ => None,
            })
            .flatten()
            .collect();
        messages.push(Message::user(order.message));
        Self {
            worker,
            run: start.run,
            session_id: start.session_id,
            journal: start.journal,
            toolset: order.toolset,
            caller,
            sink,
            redactor: Redactor::default(),
            history_len: messages.len(),
            messages,
            text: String::new(),
            usage: Usage::default(),
            began,
            call_ids,
            uncertain: Vec::new(),
            provider: order.provider,
            system_prompt: order.system_prompt,
            max_turns: order.max_turns,
            model: start.model,
            model_step: start.first_step,
            has_spoken: false,
        }
    }

    /// Whether the model costs nothing.
    pub(super) fn is_free(&self) -> bool {
        self.provider.name() == PLANNER
    }

    pub(super) fn limits(&self) -> &'a Limits {
        &self.worker.config.limits
    }

    /// The loop; returns when the turn is over.
    pub(super) async fn work(&mut self) -> End {
        match self.try_work().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn try_work(&mut self) -> Result<End, End> {
        for turn in 1..=self.max_turns {
            let answer = self.answer().await?;
            self.messages.push(Message::Assistant {
                text: answer.text,
                tool_calls: answer.calls.clone(),
            });
            if answer.calls.is_empty() {
                return Ok(End::Finished {
                    stop_reason: final_reason(&answer.stop_reason),
                });
            }
            let calls: Vec<Prepared> = answer.calls.into_iter().map(|call| self.prepare(call)).collect();
            self.make_calls(calls).await?;
            if turn < self.max_turns {
                self.model_step = self.journal.begin_model(&self.model);
                self.journal.flush().await?;
            }
        }
        self.run.warnings.push(format!(
            "stopped after {} model answers, the most this run may use; the model wanted to go on",
            self.max_turns
        ));
        Ok(End::Finished {
            stop_reason: "max_turns".to_owned(),
        })
    }

    /// One model answer, asked for again where that is allowed.
    async fn answer(&mut self) -> Result<Answer, End> {
        let mut attempt = 1;
        loop {
            let failure = match self.try_answer().await {
                Ok(answer) => {
                    self.end_model_step(&answer, attempt);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let pause = self.pause_before_retry(&failure, attempt);
            tracing::warn!(
                run.id = %self.run.id, error = %failure.error, kind = failure.error.kind.as_str(), attempt,
                retry_in_ms = pause.map(|pause| pause.as_millis()), "the model provider failed"
            );
            let Some(pause) = pause else {
                let message = clean::text(failure.error.message);
                let stored = self.redactor.text(&message);
                self.journal.end(self.model_step, StepState::Failed, |step| {
                    step.error = Some(stored);
                    step.output = Some(json!({"attempts": attempt, "error_kind": failure.error.kind.as_str()}));
                });
                return Err(End::Provider(message));
            };
            self.run.warnings.push(format!(
                "the model provider failed ({}) and was asked again, try {} of {}",
                failure.error.kind.as_str(),
                attempt + 1,
                self.limits().model_attempts
            ));
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// `None` where the answer must not or need not be asked for again.
    fn pause_before_retry(&self, failure: &Failure, attempt: u32) -> Option<Duration> {
        if !failure.is_untouched || !failure.error.kind.is_retryable() || attempt >= self.limits().model_attempts {
            return None;
        }
        let pause = failure.error.retry_after.unwrap_or_else(|| {
            let jitter = rand::random_range(0.5..1.5);
            FIRST_RETRY_PAUSE
                .saturating_mul(2_u32.saturating_pow(attempt - 1))
                .mul_f64(jitter)
        });
        // Asking earlier than the provider wants helps nobody, and waiting longer than this nobody wants.
        (pause <= self.limits().retry_pause_cap).then_some(pause)
    }

    async fn try_answer(&mut self) -> Result<Answer, Failure> {
        let request = Request {
            model: self.worker.config.concierge_backend_model.1.clone(),
            system_prompt: self.system_prompt.clone(),
            messages: self.messages.clone(),
            tools: self.toolset.specs().to_vec(),
            max_tokens: None,
            temperature: None,
            now: Some(clock::now()),
        };
        let silence = self.limits().model_silence;
        let untouched = |error| Failure {
            error,
            is_untouched: true,
        };
        let mut stream = timeout(silence, self.provider.stream(request))
            .await
            .unwrap_or_else(|_| Err(stalled(silence)))
            .map_err(untouched)?;
        let mut answer = Answer {
            text: String::new(),
            calls: Vec::new(),
            stop_reason: StopReason::EndTurn,
            usage: Usage::default(),
        };
        for event_count in 0..MAX_ANSWER_EVENTS {
            // A stream that is always ready must leave room for whoever wants to stop it.
            tokio::task::coop::consume_budget().await;
            let failed = |error| Failure {
                error,
                is_untouched: event_count == 0,
            };
            let event = timeout(silence, stream.next())
                .await
                .map_err(|_| failed(stalled(silence)))?;
            let event = event.ok_or_else(|| failed(protocol("the model's answer ended without a finish")))?;
            match event.map_err(failed)? {
                StreamEvent::TextDelta(text) => self.take_text(&mut answer, text).await.map_err(failed)?,
                StreamEvent::ToolCall(call) => {
                    if answer.calls.len() >= MAX_CALLS_PER_ANSWER {
                        let message = format!("the model wanted more than {MAX_CALLS_PER_ANSWER} tool calls at once");
                        return Err(failed(protocol(message)));
                    }
                    answer.calls.push(self.clean(call));
                }
                StreamEvent::Finish { stop_reason, usage } => {
                    self.usage += usage;
                    answer.usage = usage;
                    answer.stop_reason = stop_reason;
                    return Ok(answer);
                }
            }
        }
        Err(Failure {
            error: protocol("the model's answer never ended"),
            is_untouched: false,
        })
    }

    async fn take_text(&mut self, answer: &mut Answer, text: String) -> Result<(), ModelError> {
        let mut text = clean::text(text);
        let room = MAX_OUTPUT_BYTES.saturating_sub(self.text.len());
        let is_too_long = text.len() > room;
        if is_too_long {
            text.truncate(text.floor_char_boundary(room));
        }
        if !text.is_empty() {
            if !std::mem::replace(&mut self.has_spoken, true) {
                metrics::histogram!("copass_time_to_first_token_seconds").record(self.began.elapsed().as_secs_f64());
            }
            self.text.push_str(&text);
            answer.text.push_str(&text);
            self.sink.send(Frame::Text(text)).await;
        }
        if is_too_long {
            return Err(protocol(format!(
                "the model wrote more than {MAX_OUTPUT_BYTES} bytes; the text is cut there"
            )));
        }
        Ok(())
    }

    fn end_model_step(&mut self, answer: &Answer, attempts: u32) {
        let output = self.redactor.value(&json!({
            "text": answer.text,
            "tool_calls": answer.calls,
            "stop_reason": answer.stop_reason.as_str(),
            "attempts": attempts,
        }));
        let bytes = answer.text.len();
        self.journal.end(self.model_step, StepState::Done, |step| {
            step.output = Some(output);
            step.result_bytes = Some(signed(bytes as u64));
            step.tokens_in = Some(signed(tokens_in(&answer.usage)));
            step.tokens_out = Some(signed(answer.usage.output_tokens));
        });
    }
}

/// All tokens read, cached or not.
pub(super) fn tokens_in(usage: &Usage) -> u64 {
    usage
        .input_tokens
        .saturating_add(usage.cache_read_input_tokens)
        .saturating_add(usage.cache_creation_input_tokens)
}

/// A model that says it waits for tools and called none has nothing to wait for.
fn final_reason(reason: &StopReason) -> String {
    match reason {
        StopReason::ToolUse => StopReason::EndTurn.as_str().to_owned(),
        StopReason::Other(word) if word.is_empty() => "unknown".to_owned(),
        reason => reason
            .as_str()
            .chars()
            .filter(|character| !character.is_control())
            .take(64)
            .collect(),
    }
}

fn stalled(silence: Duration) -> ModelError {
    ModelError::new(
        ErrorKind::Stalled,
        format!("the model said nothing for {} s", silence.as_secs_f64()),
    )
}

fn protocol(message: impl Into<String>) -> ModelError {
    ModelError::new(ErrorKind::Protocol, message)
}
