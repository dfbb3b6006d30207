//! The end of a turn: the row is final, the conversation is free, then one terminal frame.

use std::time::Duration;

use chrono::{DateTime, Utc};
use copass_llm::{Cost, Message, Usage};
use copass_runtime::clock;
use copass_store::Batch;
use serde_json::{Value, json};

use super::{
    background,
    engine::{End, Turn, tokens_in},
    frames::{Failed, Finished, Frame, FrameId},
    journal::{JournalError, begin_fenced, execute_fenced, uncertain_sentence},
    patience::Patience,
};
use crate::{
    app::{
        active::StopCause,
        domain::{ErrorType, Run, RunStatus, bounded_warnings},
    },
    store::{self, signed},
};

/// How much of the end was written.
enum Written {
    Whole,
    Bare,
}

/// The words of an end that is no success.
struct Verdict {
    status: RunStatus,
    kind: ErrorType,
    message: String,
}

impl Turn<'_> {
    /// Writes the end and sends the terminal frame.
    pub(super) async fn finish(mut self, end: End) {
        if matches!(end, End::HandOver) {
            return self.hand_over().await;
        }
        if matches!(end, End::Broken) && self.journal.is_cut_off() && self.run.entrance.is_background() {
            // As if this worker were lost: another one goes on from the last step that is written.
            tracing::warn!(run.id = %self.run.id, "the database is away; the run is taken up again when its lease has ended");
            return;
        }
        // What stopped the loop dropped the answer that was being read; what it used is known here.
        self.count_open_answer(false);
        let is_lost = matches!(end, End::Stopped(StopCause::LeaseLost));
        let verdict = self.verdict(end);
        let number = self.number();
        self.complete_row(verdict.as_ref(), number);
        let written = if is_lost {
            Err(JournalError::LeaseLost)
        } else {
            self.write_end(verdict.is_ok()).await
        };
        if written.is_ok() {
            self.count_run();
            self.worker.news.tell(&self.run.id, &self.run.agent_id);
        }
        tracing::info!(
            run.id = %self.run.id, sandbox.id = %self.run.sandbox_id, status = self.run.status.as_str(),
            duration_ms = self.run.duration_ms, error = self.run.error_message, "run ended"
        );
        let Self { run, sink, .. } = self;
        let (id, frame) = match written {
            Ok(_) => (FrameId::whole(number), terminal(run)),
            Err(error) => {
                let message = not_written(&error, verdict.as_ref().err());
                let failed = Frame::Failed(Box::new(Failed {
                    message,
                    kind: ErrorType::Internal,
                    run_id: Some(run.id),
                    run: None,
                }));
                // It is not stored, so it has no place: whoever goes on from here is told how the run really ended.
                (FrameId::whole(0), failed)
            }
        };
        sink.end(id, frame);
    }

    /// Gives the run back: its steps so far are durable, and another worker goes on from there.
    async fn hand_over(mut self) {
        let outcome = async {
            let mut tx = self.worker.db.begin().await?;
            if !store::leases::hand_over(&mut tx, &self.journal.lease()).await? {
                tx.rollback().await?;
                return Err(JournalError::LeaseLost);
            }
            let mut batch = Batch::new(self.worker.db.dialect());
            self.journal.write(&mut batch);
            batch.execute(&mut tx).await?;
            let message = background::taken_up(&self.run.sandbox_id, &self.run.id);
            self.worker.outbox.add(&mut tx, &message).await?;
            tx.commit().await?;
            self.journal.written();
            self.worker.outbox.wake();
            self.worker.news.tell(&self.run.id, &self.run.agent_id);
            Ok(())
        };
        match outcome.await {
            Ok(()) => tracing::info!(run.id = %self.run.id, "run handed over"),
            // Its lease runs out, and then it is taken up.
            Err(error) => tracing::warn!(run.id = %self.run.id, ?error, "run could not be handed over"),
        }
    }

    /// The words for how it ended: the stop reason of a success, or what went wrong.
    fn verdict(&self, end: End) -> Result<String, Verdict> {
        let verdict = |status, kind, message: &str| {
            Err(Verdict {
                status,
                kind,
                message: message.to_owned(),
            })
        };
        match end {
            End::Finished { stop_reason } => Ok(stop_reason),
            End::Broken | End::HandOver => verdict(
                RunStatus::Failed,
                ErrorType::Internal,
                "internal error; try again, and report the run id if it stays",
            ),
            End::Provider(message) => verdict(RunStatus::Failed, ErrorType::Provider, &message),
            End::Refused(kind, message) => verdict(RunStatus::Failed, kind, &message),
            End::Uncertain => verdict(
                RunStatus::Failed,
                ErrorType::UncertainToolCall,
                "the process that worked on this run was lost during a tool call that changes something",
            ),
            End::TimedOut(limit) => Err(Verdict {
                status: RunStatus::Timeout,
                kind: ErrorType::Timeout,
                message: took_longer(limit),
            }),
            End::Stopped(cause) => {
                let message = match cause {
                    StopCause::ClientGone => "the client went away",
                    StopCause::SlowReader => "the client took no frames for too long",
                    StopCause::Shutdown => "server is shutting down",
                    StopCause::SandboxDestroyed => "the sandbox was destroyed",
                    StopCause::Cancelled => "somebody cancelled the run",
                    StopCause::LeaseLost => "another worker ended the run",
                };
                verdict(RunStatus::Cancelled, ErrorType::Cancelled, message)
            }
        }
    }

    fn complete_row(&mut self, verdict: Result<&String, &Verdict>, number: i64) {
        if let Err(verdict) = verdict {
            self.keep_partial_answer();
            self.journal.end_open(&self.redactor.text(&verdict.message));
        }
        let uncertain = uncertain_sentence(&self.journal.uncertain());
        let finished_at = clock::now();
        let turns = self.turns();
        let breakdown = self.cost.map(|cost| breakdown(&cost));
        let usage = usage_object(&self.usage, self.cost.map(|cost| cost.total), breakdown.clone());
        let run = &mut self.run;
        match verdict {
            Ok(stop_reason) => {
                run.status = RunStatus::Succeeded;
                run.stop_reason = Some(stop_reason.clone());
                if !uncertain.is_empty() {
                    run.warnings.push(uncertain);
                }
                if self.text.trim().is_empty() {
                    run.warnings.push("the model ended without saying anything".to_owned());
                }
            }
            Err(verdict) => {
                let separator = if uncertain.is_empty() { "" } else { "; " };
                run.status = verdict.status;
                run.error_type = Some(verdict.kind);
                run.error_message = Some(format!(
                    "{}{separator}{uncertain}",
                    self.redactor.text(&verdict.message)
                ));
            }
        }
        run.output_text = Some(self.redactor.text(&self.text));
        run.tokens_in = Some(signed(tokens_in(&self.usage)));
        run.tokens_out = Some(signed(self.usage.output_tokens));
        // Since it began, also where another worker began it.
        let since = run.started_at.unwrap_or(finished_at);
        run.duration_ms = Some((finished_at - since).num_milliseconds().max(0));
        run.finished_at = Some(finished_at);
        run.last_frame = Some(number);
        run.model_calls = i64::from(turns);
        // Without a price the cost is unknown, which is not the same as nothing.
        run.cost_microcents = self.cost.map(|cost| signed(cost.total));
        run.cost_breakdown = breakdown;
        if self.cost.is_none() {
            let label = &self.mind.label;
            let has_price = self.mind.cost(self.worker, &Usage::default()).is_some();
            run.warnings.push(if has_price {
                format!("the cost is not known: the provider told no usage for at least one answer of {label}")
            } else {
                format!("the cost is not known: the price list has no price for {label}; add it to models.prices_file")
            });
        }
        run.usage = Some(usage);
        // The frame says what the row says.
        run.warnings = bounded_warnings(&run.warnings);
    }

    /// One transaction; tried again while the database is away, because a run that is over must not look alive. Where the
    /// database refuses what the run gave, which only a defect brings about, the row alone is ended.
    async fn write_end(&mut self, is_success: bool) -> Result<Written, JournalError> {
        let mut patience = Patience::default();
        loop {
            let outcome = self.try_write_end(is_success).await;
            let Err(error) = self.unless_written(outcome, &patience).await else {
                return Ok(Written::Whole);
            };
            if patience.outlasts(&self.run.id, &error).await {
                continue;
            }
            match error {
                JournalError::Store(_) if !error.is_unavailable() => break,
                error => return Err(error),
            }
        }
        let mut patience = Patience::default();
        loop {
            let outcome = self.write_bare_end().await;
            let Err(error) = self.unless_written(outcome, &patience).await else {
                return Ok(Written::Bare);
            };
            if !patience.outlasts(&self.run.id, &error).await {
                return Err(error);
            }
        }
    }

    /// After a failed try the run may be over because that try was written and only its answer was lost.
    async fn unless_written(&self, outcome: Result<(), JournalError>, patience: &Patience) -> Result<(), JournalError> {
        if !matches!(outcome, Err(JournalError::LeaseLost)) || !patience.is_tried() {
            return outcome;
        }
        let mut conn = self.worker.db.read().await?;
        let ended = store::leases::ended(&mut conn, &self.journal.lease()).await?;
        if ended == Some(self.run.status) {
            Ok(())
        } else {
            outcome
        }
    }

    async fn write_bare_end(&mut self) -> Result<(), JournalError> {
        self.run.status = RunStatus::Failed;
        self.run.error_type = Some(ErrorType::Internal);
        self.run.error_message = Some("the end of the run could not be stored in full; report the run id".to_owned());
        self.run.output_text = None;
        let now = clock::now();
        let mut batch = Batch::new(self.worker.db.dialect());
        store::runs::finish(&mut batch, &self.journal.lease(), &self.run);
        self.release(&mut batch, now);
        let mut tx = begin_fenced(&self.worker.db, batch).await?;
        store::steps::close_open(&mut tx, &self.run.id, "the end of the step could not be stored", now).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn try_write_end(&mut self, is_success: bool) -> Result<(), JournalError> {
        let now = self.run.finished_at.unwrap_or_else(clock::now);
        let mut batch = Batch::new(self.worker.db.dialect());
        store::runs::finish(&mut batch, &self.journal.lease(), &self.run);
        self.journal.write(&mut batch);
        if let Some(session_id) = &self.run.session_id
            && is_success
        {
            // After a failure or a cancellation the person's message stays and the partial reply is dropped (sse.md 7).
            let said: Vec<Message> = self
                .messages
                .iter()
                .skip(self.history_len)
                .map(|message| self.redactor.message(message))
                .collect();
            store::conversations::append(&mut batch, session_id, &self.run.id, &said, now);
        }
        self.release(&mut batch, now);
        execute_fenced(&self.worker.db, batch).await?;
        self.journal.written();
        Ok(())
    }

    /// Frees the conversation.
    fn release(&self, batch: &mut Batch, now: DateTime<Utc>) {
        let run = &self.run;
        if let Some(session_id) = &run.session_id {
            store::conversations::release(batch, &run.sandbox_id, session_id, &run.id, now);
        }
    }

    fn count_run(&self) {
        let labels = [
            ("status", self.run.status.as_str()),
            ("entrance", self.run.entrance.as_str()),
        ];
        metrics::counter!("copass_runs_total", &labels).increment(1);
        metrics::histogram!("copass_run_seconds", &labels).record(self.began.elapsed().as_secs_f64());
        metrics::counter!("copass_tokens_total", "direction" => "in").increment(tokens_in(&self.usage));
        metrics::counter!("copass_tokens_total", "direction" => "out").increment(self.usage.output_tokens);
        match self.cost {
            Some(cost) => metrics::counter!("copass_cost_microcents_total").increment(cost.total),
            None => metrics::counter!("copass_runs_without_price_total").increment(1),
        }
    }
}

/// Said of a run whose time is over.
pub(crate) fn took_longer(limit: Duration) -> String {
    format!("the run took longer than {} s and was stopped", limit.as_secs_f64())
}

/// As `sse.md` 3.2 has it.
pub(super) fn usage_object(usage: &Usage, cost_microcents: Option<u64>, breakdown: Option<Value>) -> Value {
    let mut object = json!({
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "thinking_tokens": usage.thinking_tokens,
    });
    if let Some(fields) = object.as_object_mut() {
        fields.extend(cost_microcents.map(|cost| ("cost_microcents".to_owned(), cost.into())));
        fields.extend(breakdown.map(|breakdown| ("cost_breakdown_microcents".to_owned(), breakdown)));
    }
    object
}

fn breakdown(cost: &Cost) -> Value {
    json!({
        "input": cost.input,
        "output": cost.output,
        "cache_read": cost.cache_read,
        "cache_creation": cost.cache_creation,
        "thinking": cost.thinking,
        "compute": 0,
        "total": cost.total,
    })
}

/// The terminal frame of a run that is over, from its row alone: followers and readers of the live stream get the same.
pub(crate) fn terminal(run: Run) -> Frame {
    if run.status == RunStatus::Succeeded {
        return Frame::Finished(Box::new(Finished {
            stop_reason: run.stop_reason.clone().unwrap_or_else(|| "end_turn".to_owned()),
            usage_json: run.usage.clone().unwrap_or_else(|| json!({})).to_string(),
            run,
        }));
    }
    Frame::Failed(Box::new(Failed {
        message: run.error_message.clone().unwrap_or_default(),
        kind: run.error_type.unwrap_or(ErrorType::Internal),
        run_id: Some(run.id.clone()),
        run: Some(run),
    }))
}

fn not_written(error: &JournalError, verdict: Option<&Verdict>) -> String {
    match (error, verdict) {
        (JournalError::LeaseLost, _) => "another worker ended the run; its row tells how".to_owned(),
        (JournalError::Store(_), Some(verdict)) => {
            format!("{}; and the end of the run could not be stored", verdict.message)
        }
        (JournalError::Store(_), None) => "the end of the run could not be stored; the reply may be lost".to_owned(),
    }
}
