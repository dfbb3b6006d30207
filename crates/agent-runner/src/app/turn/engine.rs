//! The loop between model and tools.
//!
//! Everything the loop learns is kept in [`Turn`], outside of the loop's future: whatever stops the loop drops that
//! future, and with it the model stream and every call in flight, while text, usage and steps so far stay for the end.

use std::{collections::HashSet, time::Duration};

use copass_llm::{Cost, Error as ModelError, ErrorKind, Message, Request, StopReason, StreamEvent, ToolCall, Usage};
use copass_runtime::clock;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Worker,
    accept::Start,
    clean,
    frames::{Frame, FrameId, FrameSink},
    journal::{Journal, JournalError, StepHandle},
    mind::Mind,
    redact::Redactor,
    replay::Next,
    spending::OpenAnswer,
};
use crate::{
    Limits,
    app::{
        active::StopCause,
        domain::{ErrorType, Run, StepState},
        tool_sources::Resolution,
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
    /// The run may not be worked on, and why.
    Refused(ErrorType, String),
    /// A lost worker began changing calls whose outcome nobody knows.
    Uncertain,
    /// This process ends; the run goes on elsewhere.
    HandOver,
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
    pub(super) journal: Journal,
    pub(super) tools: Resolution,
    pub(super) mind: Mind,
    pub(super) sink: FrameSink,
    pub(super) redactor: Redactor,
    /// What the model gets, secrets included: it has to tell the person.
    pub(super) messages: Vec<Message>,
    /// How many of them are older than this turn's answer.
    pub(super) history_len: usize,
    pub(super) text: String,
    pub(super) usage: Usage,
    /// `None` as soon as the price of one answer, or what it used, is not known.
    pub(super) cost: Option<Cost>,
    /// What the answer that is being read used; `None` while none is.
    pub(super) open_answer: Option<OpenAnswer>,
    /// What the present model step used, tries that failed included.
    pub(super) step_usage: Usage,
    pub(super) step_cost: Option<Cost>,
    pub(super) began: Instant,
    /// Call ids of the whole conversation.
    pub(super) call_ids: HashSet<String>,
    /// Changing calls nobody knows the outcome of; the same call is not made again in this run.
    pub(super) uncertain: Vec<(String, Value)>,
    /// The number of the next frame.
    pub(super) next_frame: i64,
    /// Set when the process wants to end: a run in the background goes on elsewhere.
    hand_over: Option<CancellationToken>,
    next: Next,
    /// Changing calls that a lost worker left open.
    left_open: Vec<StepHandle>,
    turns: u32,
    pub(super) model_step: StepHandle,
    /// Where the text of the present answer begins.
    answer_began: usize,
    /// The frame of the answer's text with its bytes so far.
    text_frame: Option<(i64, usize)>,
    has_spoken: bool,
}

struct Answer {
    text: String,
    calls: Vec<ToolCall>,
    stop_reason: StopReason,
}

/// A model answer that failed; it may be asked for again when nothing of it was seen.
struct Failure {
    error: ModelError,
    is_untouched: bool,
    /// The provider never began to answer.
    used_nothing: bool,
}

impl<'a> Turn<'a> {
    /// `message` is the run's own user turn; `hand_over` is given for runs that go on elsewhere when this process ends.
    pub(super) fn new(
        worker: &'a Worker,
        start: Start,
        message: String,
        tools: Resolution,
        mind: Mind,
        sink: FrameSink,
        hand_over: Option<CancellationToken>,
    ) -> Self {
        let Start {
            run,
            history,
            journal,
            progress,
        } = start;
        let mut messages = history;
        messages.push(Message::user(message));
        let history_len = messages.len();
        messages.extend(progress.messages);
        let call_ids = messages
            .iter()
            .filter_map(|message| match message {
                Message::Assistant { tool_calls, .. } => Some(tool_calls.iter().map(|call| call.call_id.clone())),
                _ => None,
            })
            .flatten()
            .collect();
        let answer_began = progress.text.len();
        let mut turn = Self {
            worker,
            run,
            journal,
            tools,
            mind,
            sink,
            redactor: Redactor::default(),
            messages,
            history_len,
            text: progress.text,
            usage: Usage::default(),
            cost: Some(Cost::default()),
            open_answer: None,
            step_usage: Usage::default(),
            step_cost: Some(Cost::default()),
            began: Instant::now(),
            call_ids,
            uncertain: progress.not_repeated,
            next_frame: progress.next_frame,
            hand_over,
            next: progress.next,
            left_open: progress.uncertain,
            turns: u32::try_from(progress.answers.len()).unwrap_or(u32::MAX),
            model_step: StepHandle::default(),
            answer_began,
            text_frame: None,
            has_spoken: false,
        };
        for spent in progress.answers.iter().chain(&progress.failed) {
            turn.count(spent.usage, spent.is_cost_known);
        }
        turn.begin_counting();
        if let Some(spent) = progress.begun {
            turn.count(spent.usage, spent.is_cost_known);
        }
        if progress.has_lost_answer {
            turn.count_lost_answer();
        }
        turn
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
        if !self.left_open.is_empty() {
            let reason = "the worker was lost before the step ended";
            self.journal.end_unknown(&self.left_open, reason);
            return Ok(End::Uncertain);
        }
        loop {
            self.stay()?;
            match std::mem::replace(&mut self.next, Next::Ask(None)) {
                Next::Finish { stop_reason } => return Ok(End::Finished { stop_reason }),
                Next::Call(calls) => {
                    let calls = calls.into_iter().map(|call| self.prepare_again(call)).collect();
                    self.make_calls(calls).await?;
                }
                Next::Ask(begun) => {
                    if let Some(end) = self.limit_reached() {
                        return Ok(end);
                    }
                    self.model_step = match begun {
                        Some(step) => step,
                        None => {
                            self.begin_counting();
                            let step = self.journal.begin_model(&self.mind.label);
                            self.flush().await?;
                            step
                        }
                    };
                    let answer = self.answer().await?;
                    self.turns += 1;
                    self.messages.push(Message::Assistant {
                        text: answer.text,
                        tool_calls: answer.calls.clone(),
                    });
                    if answer.stop_reason == StopReason::MaxTokens {
                        self.warn_of_cut();
                    }
                    if answer.calls.is_empty() {
                        return Ok(End::Finished {
                            stop_reason: final_reason(&answer.stop_reason),
                        });
                    }
                    let calls = answer.calls.into_iter().map(|call| self.prepare(call)).collect();
                    self.make_calls(calls).await?;
                }
            }
        }
    }

    /// Makes everything so far durable and tells those who follow.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        self.journal.flush().await?;
        self.worker.news.tell(&self.run.id, &self.run.agent_id);
        Ok(())
    }

    /// At a step's boundary: whether the run goes on here.
    pub(super) fn stay(&self) -> Result<(), End> {
        match &self.hand_over {
            Some(token) if token.is_cancelled() => Err(End::HandOver),
            _ => Ok(()),
        }
    }

    /// Returns when this process wants to end and the run goes on elsewhere.
    pub(super) fn leave(&self) -> impl Future<Output = ()> + use<> {
        let hand_over = self.hand_over.clone();
        async move {
            match hand_over {
                Some(token) => token.cancelled_owned().await,
                None => std::future::pending().await,
            }
        }
    }

    fn limit_reached(&mut self) -> Option<End> {
        let stop = |reason: &str| {
            Some(End::Finished {
                stop_reason: reason.to_owned(),
            })
        };
        if self.turns >= self.mind.max_turns {
            self.run.warnings.push(format!(
                "stopped after {} model answers, the most this run may use; the model wanted to go on",
                self.mind.max_turns
            ));
            return stop("max_turns");
        }
        if self.tokens_left() == Some(0) {
            self.run.warnings.push(format!(
                "stopped after {} written tokens; this run may write {}, and the model wanted to go on",
                self.usage.output_tokens,
                self.mind.max_tokens.unwrap_or_default()
            ));
            return stop("max_tokens");
        }
        None
    }

    fn warn_of_cut(&mut self) {
        let most = match self.mind.max_tokens {
            Some(cap) => format!("{cap} tokens, the most this run may write"),
            None => "the most that the model writes in one answer".to_owned(),
        };
        self.run
            .warnings
            .push(format!("the model's answer was cut off: it reached {most}"));
    }

    /// What the run may still write.
    fn tokens_left(&self) -> Option<u32> {
        self.mind.max_tokens.map(|cap| {
            let written = u32::try_from(self.usage.output_tokens).unwrap_or(u32::MAX);
            cap.saturating_sub(written)
        })
    }

    /// The next frame's number.
    pub(super) fn number(&mut self) -> i64 {
        let number = self.next_frame;
        self.next_frame += 1;
        number
    }

    /// Model answers so far.
    pub(super) fn turns(&self) -> u32 {
        self.turns
    }

    /// One model answer, asked for again where that is allowed.
    async fn answer(&mut self) -> Result<Answer, End> {
        let mut attempt = 1;
        loop {
            self.text_frame = None;
            self.answer_began = self.text.len();
            let leave = self.leave();
            let answered = tokio::select! {
                biased;
                () = leave => {
                    self.count_open_answer(false);
                    // Also where it was never asked for: a successor must not take it for one that got lost.
                    self.write_spent();
                    // The whole answer is asked for again elsewhere, and nobody was shown this part of it.
                    self.journal.displace(self.model_step);
                    return Err(End::HandOver);
                }
                answered = self.try_answer() => answered,
            };
            let failure = match answered {
                Ok(answer) => {
                    self.count_open_answer(false);
                    self.end_model_step(&answer, attempt);
                    self.answer_began = self.text.len();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.count_open_answer(failure.used_nothing);
            let pause = self.pause_before_retry(&failure, attempt);
            tracing::warn!(
                run.id = %self.run.id, error = %failure.error, kind = failure.error.kind.as_str(), attempt,
                retry_in_ms = pause.map(|pause| pause.as_millis()), "the model provider failed"
            );
            let Some(pause) = pause else {
                let message = clean::text(failure.error.message);
                let stored = self.redactor.text(&message);
                let output = json!({"attempts": attempt, "error_kind": failure.error.kind.as_str()});
                self.journal.end(self.model_step, StepState::Failed, |step| {
                    step.error = Some(stored);
                    step.output = Some(output);
                });
                self.keep_partial_answer();
                return Err(End::Provider(message));
            };
            self.run.warnings.push(format!(
                "the model provider failed ({}) and was asked again, try {} of {}",
                failure.error.kind.as_str(),
                attempt + 1,
                self.limits().model_attempts
            ));
            tokio::select! {
                () = self.leave() => return Err(End::HandOver),
                () = tokio::time::sleep(pause) => {}
            }
            attempt += 1;
        }
    }

    /// Keeps what the model said of an answer that did not come to its end: it was shown, so followers get it too.
    pub(super) fn keep_partial_answer(&mut self) {
        let partial = self.text.get(self.answer_began..).unwrap_or_default();
        if partial.is_empty() {
            return;
        }
        let (text, bytes) = (self.redactor.text(partial), partial.len());
        self.answer_began = self.text.len();
        self.journal.amend(self.model_step, |step| {
            let mut output = step.output.take().unwrap_or_else(|| json!({}));
            output["text"] = text.into();
            step.output = Some(output);
            step.last_frame = step.first_frame;
            step.result_bytes = Some(signed(bytes as u64));
        });
    }

    /// `None` where the answer must not or need not be asked for again.
    fn pause_before_retry(&self, failure: &Failure, attempt: u32) -> Option<Duration> {
        if !failure.is_untouched || !failure.error.kind.is_retryable() || attempt >= self.limits().model_attempts {
            return None;
        }
        // The tries that failed may have used what the run may write.
        if self.tokens_left() == Some(0) {
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
            model: self.mind.model.clone(),
            system_prompt: self.mind.system_prompt.clone(),
            messages: self.messages.clone(),
            tools: self.tools.specs(),
            max_tokens: self.tokens_left(),
            temperature: self.mind.temperature,
            now: Some(clock::now()),
        };
        let silence = self.limits().model_silence;
        let untouched = |error, used_nothing| Failure {
            error,
            is_untouched: true,
            used_nothing,
        };
        self.open_answer = Some(OpenAnswer::default());
        let mut stream = timeout(silence, self.mind.provider.stream(request))
            .await
            .map_err(|_| untouched(stalled(silence), false))?
            .map_err(|error| untouched(error, true))?;
        let mut answer = Answer {
            text: String::new(),
            calls: Vec::new(),
            stop_reason: StopReason::EndTurn,
        };
        for _ in 0..MAX_ANSWER_EVENTS {
            // A stream that is always ready must leave room for whoever wants to stop it.
            tokio::task::coop::consume_budget().await;
            // Empty pieces are signs of life; calls are made when the answer is whole.
            let is_untouched = answer.text.is_empty();
            let failed = |error: ModelError| Failure {
                used_nothing: error.is_refused,
                error,
                is_untouched,
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
                StreamEvent::Usage(usage) => self.open_answer = Some(OpenAnswer::partial(usage)),
                StreamEvent::Finish { stop_reason, usage } => {
                    self.open_answer = Some(OpenAnswer::whole(usage));
                    answer.stop_reason = stop_reason;
                    return Ok(answer);
                }
            }
        }
        Err(Failure {
            error: protocol("the model's answer never ended"),
            is_untouched: false,
            used_nothing: false,
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
            let (number, before) = match self.text_frame {
                Some(place) => place,
                None => {
                    let number = self.number();
                    self.journal.place(self.model_step, number);
                    (number, 0)
                }
            };
            let bytes = before + text.len();
            self.text_frame = Some((number, bytes));
            self.sink.send(FrameId::text(number, bytes), Frame::Text(text)).await;
        }
        if is_too_long {
            return Err(protocol(format!(
                "the model wrote more than {MAX_OUTPUT_BYTES} bytes; the text is cut there"
            )));
        }
        Ok(())
    }

    fn end_model_step(&mut self, answer: &Answer, attempts: u32) {
        let calls: Vec<ToolCall> = answer.calls.iter().map(|call| self.redactor.call(call)).collect();
        let output = json!({
            "text": self.redactor.text(&answer.text),
            "tool_calls": calls,
            "stop_reason": answer.stop_reason.as_str(),
            "attempts": attempts,
        });
        let bytes = answer.text.len();
        self.journal.end(self.model_step, StepState::Done, |step| {
            step.last_frame = step.first_frame;
            step.output = Some(output);
            step.result_bytes = Some(signed(bytes as u64));
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
