//! The end of a turn: the row is final, the conversation is free, then one terminal frame.

use std::time::Duration;

use copass_errors::ErrorCode;
use copass_llm::Message;
use copass_runtime::clock;
use serde_json::json;

use super::{
    engine::{End, Turn, tokens_in},
    frames::{Failed, Finished, Frame},
    journal::{JournalError, uncertain_sentence},
};
use crate::{
    app::{
        active::StopCause,
        domain::{Run, RunStatus},
    },
    store::{self, signed},
};

/// How often the end is tried to be written before the run is left to the reaper.
const WRITE_ATTEMPTS: u32 = 6;
const FIRST_WRITE_PAUSE: Duration = Duration::from_millis(50);

const INTERNAL_ERROR: &str = "InternalError";

/// How much of the end was written.
enum Written {
    Whole,
    Bare,
}

/// The words of an end that is no success.
struct Verdict {
    status: RunStatus,
    kind: &'static str,
    message: String,
}

impl Turn<'_> {
    /// Writes the end and sends the terminal frame.
    pub(super) async fn finish(mut self, end: End) {
        let is_lost = matches!(end, End::Stopped(StopCause::LeaseLost));
        let (stop_reason, verdict) = match end {
            End::Finished { stop_reason } => (stop_reason, None),
            other => ("error".to_owned(), Some(self.verdict(&other))),
        };
        self.complete_row(verdict.as_ref());
        let written = if is_lost {
            Err(JournalError::LeaseLost)
        } else {
            self.write_end(verdict.is_none()).await
        };
        if written.is_ok() {
            self.count();
        }
        tracing::info!(
            run.id = %self.run.id, sandbox.id = %self.run.sandbox_id, status = self.run.status.as_str(),
            duration_ms = self.run.duration_ms, error = self.run.error_message, "run ended"
        );
        let usage_json = self.usage_json();
        let Self { run, sink, .. } = self;
        let frame = match (written, verdict) {
            (Ok(Written::Whole), None) => Frame::Finished(Box::new(Finished {
                stop_reason,
                usage_json,
                run,
            })),
            (Ok(Written::Whole), Some(Verdict { kind, .. })) => failed(kind, run),
            (Ok(Written::Bare), _) => failed(INTERNAL_ERROR, run),
            (Err(error), verdict) => {
                let message = not_written(&error, verdict.as_ref());
                Frame::Failed(Box::new(Failed {
                    message,
                    kind: INTERNAL_ERROR,
                    run_id: Some(run.id),
                    run: None,
                }))
            }
        };
        sink.end(frame);
    }

    fn verdict(&self, end: &End) -> Verdict {
        let verdict = |status, kind, message: &str| Verdict {
            status,
            kind,
            message: message.to_owned(),
        };
        match end {
            End::Finished { .. } | End::Broken => verdict(
                RunStatus::Failed,
                INTERNAL_ERROR,
                "internal error; try again, and report the run id if it stays",
            ),
            End::Provider(message) => verdict(RunStatus::Failed, "ProviderError", message),
            End::TimedOut(limit) => Verdict {
                status: RunStatus::Timeout,
                kind: "Timeout",
                message: format!("the run took longer than {} s and was stopped", limit.as_secs_f64()),
            },
            End::Stopped(cause) => {
                let message = match cause {
                    StopCause::ClientGone => "the client went away",
                    StopCause::SlowReader => "the client took no frames for too long",
                    StopCause::Shutdown => "server is shutting down",
                    StopCause::SandboxDestroyed => "the sandbox was destroyed",
                    StopCause::LeaseLost => "another worker ended the run",
                };
                verdict(RunStatus::Cancelled, "Cancelled", message)
            }
        }
    }

    fn complete_row(&mut self, verdict: Option<&Verdict>) {
        if let Some(verdict) = verdict {
            self.journal.end_open(&self.redactor.text(&verdict.message));
        }
        let uncertain = uncertain_sentence(&self.journal.uncertain());
        let finished_at = clock::now();
        let run = &mut self.run;
        match verdict {
            None => {
                run.status = RunStatus::Succeeded;
                if !uncertain.is_empty() {
                    run.warnings.push(uncertain);
                }
                if self.text.trim().is_empty() {
                    run.warnings.push("the model ended without saying anything".to_owned());
                }
            }
            Some(verdict) => {
                let separator = if uncertain.is_empty() { "" } else { "; " };
                run.status = verdict.status;
                run.error_type = Some(verdict.kind.to_owned());
                run.error_message = Some(format!(
                    "{}{separator}{uncertain}",
                    self.redactor.text(&verdict.message)
                ));
            }
        }
        run.output_text = Some(self.redactor.text(&self.text));
        run.tokens_in = Some(signed(tokens_in(&self.usage)));
        run.tokens_out = Some(signed(self.usage.output_tokens));
        run.duration_ms = Some(signed(
            u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        ));
        run.finished_at = Some(finished_at);
        // Without a price the cost is unknown, which is not the same as nothing.
        let is_free = self.is_free();
        self.run.cost_microcents = is_free.then_some(0);
    }

    /// One transaction; tried again while the database is away, because a run that is over must not look alive. Where the
    /// database refuses what the run gave, which only a defect brings about, the row alone is ended.
    async fn write_end(&mut self, is_success: bool) -> Result<Written, JournalError> {
        let mut pause = FIRST_WRITE_PAUSE;
        for attempt in 1.. {
            let error = match self.try_write_end(is_success).await {
                Ok(()) => return Ok(Written::Whole),
                Err(JournalError::LeaseLost) => return Err(JournalError::LeaseLost),
                Err(JournalError::Store(error)) => error,
            };
            tracing::warn!(
                run.id = %self.run.id, %error, cause = error.cause_chain(), attempt, "the run's end is not written yet"
            );
            if error.code() != ErrorCode::Unavailable {
                break;
            }
            if attempt == WRITE_ATTEMPTS {
                return Err(JournalError::Store(error));
            }
            tokio::time::sleep(pause).await;
            pause *= 3;
        }
        self.write_bare_end().await.map(|()| Written::Bare)
    }

    async fn write_bare_end(&mut self) -> Result<(), JournalError> {
        self.run.status = RunStatus::Failed;
        self.run.error_type = Some(INTERNAL_ERROR.to_owned());
        self.run.error_message = Some("the end of the run could not be stored in full; report the run id".to_owned());
        self.run.output_text = None;
        let now = clock::now();
        let mut tx = self.worker.db.begin().await?;
        if !store::runs::finish(&mut tx, &self.journal.lease(), &self.run).await? {
            tx.rollback().await?;
            return Err(JournalError::LeaseLost);
        }
        store::steps::close_open(&mut tx, &self.run.id, "the end of the step could not be stored", now).await?;
        store::conversations::release(&mut tx, &self.run.sandbox_id, &self.session_id, &self.run.id, now).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn try_write_end(&mut self, is_success: bool) -> Result<(), JournalError> {
        let now = self.run.finished_at.unwrap_or_else(clock::now);
        let mut tx = self.worker.db.begin().await?;
        if !store::runs::finish(&mut tx, &self.journal.lease(), &self.run).await? {
            tx.rollback().await?;
            return Err(JournalError::LeaseLost);
        }
        self.journal.write(&mut tx).await?;
        if is_success {
            // After a failure or a cancellation the person's message stays and the partial reply is dropped (sse.md 7).
            let said: Vec<Message> = self
                .messages
                .iter()
                .skip(self.history_len)
                .map(|message| self.redactor.message(message))
                .collect();
            store::conversations::append(&mut tx, &self.session_id, &self.run.id, &said, now).await?;
        }
        store::conversations::release(&mut tx, &self.run.sandbox_id, &self.session_id, &self.run.id, now).await?;
        tx.commit().await?;
        self.journal.written();
        Ok(())
    }

    fn count(&self) {
        let labels = [("status", self.run.status.as_str()), ("agent_kind", "system")];
        metrics::counter!("copass_runs_total", &labels).increment(1);
        metrics::histogram!("copass_run_seconds", &labels).record(self.began.elapsed().as_secs_f64());
    }

    fn usage_json(&self) -> String {
        let mut usage = json!({
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cache_read_input_tokens": self.usage.cache_read_input_tokens,
            "cache_creation_input_tokens": self.usage.cache_creation_input_tokens,
            "thinking_tokens": self.usage.thinking_tokens,
        });
        if let (Some(cost), Some(fields)) = (self.run.cost_microcents, usage.as_object_mut()) {
            fields.insert("cost_microcents".to_owned(), cost.into());
        }
        usage.to_string()
    }
}

fn failed(kind: &'static str, run: Run) -> Frame {
    let message = run.error_message.clone().unwrap_or_default();
    Frame::Failed(Box::new(Failed {
        message,
        kind,
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
