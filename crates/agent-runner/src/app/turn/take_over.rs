//! Ending a run from outside: one whose worker is lost, or does not end it although it should.
//!
//! The fence is raised first, so whoever worked on it writes nothing any more. What the journal holds by then counts: text
//! and tokens of the answers so far are in the row, and changing calls that were begun are named.

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_llm::Usage;
use copass_runtime::clock;
use copass_store::{Batch, Tx};

use super::{
    Worker,
    engine::tokens_in,
    finish::usage_object,
    journal::{Journal, uncertain_call, uncertain_sentence},
    replay::Progress,
};
use crate::{
    app::domain::{ErrorType, RunStatus, Step, StepKind},
    store::{
        self,
        leases::{Ending, Stale, Totals},
        signed,
    },
};

/// How a run is ended from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakeOver<'a> {
    pub(crate) status: RunStatus,
    pub(crate) error_type: ErrorType,
    pub(crate) message: &'a str,
    /// What a step says that was open.
    pub(crate) step_error: &'a str,
    /// The lease must have ended before this instant; `None` ends the run whatever its lease says.
    pub(crate) lease_before: Option<DateTime<Utc>>,
}

/// Ends the run and tells everybody; `false` when somebody has taken or ended it since it was looked at.
pub(crate) async fn end(worker: &Worker, run: &Stale, take_over: TakeOver<'_>) -> Result<bool> {
    let now = clock::now();
    let mut tx = worker.db.begin().await?;
    if !store::leases::take_away(&mut tx, run, take_over.lease_before, None).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    let calls: Vec<String> = store::steps::close_open(&mut tx, &run.id, take_over.step_error, now)
        .await?
        .iter()
        .map(|(name, call_id)| uncertain_call(name.as_deref(), call_id.as_deref()))
        .collect();
    let uncertain = uncertain_sentence(&calls);
    let separator = if uncertain.is_empty() { "" } else { "; " };
    // What cannot be read must not keep the run from its end.
    let totals = totals(&mut tx, worker, run).await.unwrap_or_else(|error| {
        let cause = error.cause_chain();
        tracing::error!(run.id = %run.id, %error, cause, "steps cannot be read; the run ends without what they add up to");
        Totals::default()
    });
    let ending = Ending {
        status: take_over.status,
        error_type: take_over.error_type.as_str(),
        error_message: &format!("{}{separator}{uncertain}", take_over.message),
        totals,
        at: now,
    };
    store::leases::end(&mut tx, run, &ending).await?;
    if let Some(session_id) = &run.session_id {
        let mut batch = Batch::new(worker.db.dialect());
        store::conversations::release(&mut batch, &run.sandbox_id, session_id, &run.id, now);
        batch.execute(&mut tx).await?;
    }
    tx.commit().await?;
    worker.news.tell(&run.id, &run.agent_id);
    let labels = [
        ("status", take_over.status.as_str()),
        ("entrance", run.entrance.as_str()),
    ];
    metrics::counter!("copass_runs_total", &labels).increment(1);
    tracing::warn!(
        run.id = %run.id, sandbox.id = %run.sandbox_id, status = take_over.status.as_str(),
        uncertain_calls = calls.len(), "run ended from outside: {}", take_over.message
    );
    Ok(true)
}

/// Whether the model of a step costs nothing; the step's name is the model's label.
fn is_free(worker: &Worker, step: &Step) -> bool {
    let label = step.name.as_deref().unwrap_or_default();
    let (backend, model) = label.split_once('/').unwrap_or((label, label));
    worker.prices.is_free(backend, model, clock::now())
}

async fn totals(tx: &mut Tx, worker: &Worker, run: &Stale) -> Result<Totals> {
    if run.status == RunStatus::Pending {
        return Ok(Totals::default());
    }
    let steps = store::steps::list_answers(tx, &run.sandbox_id, &run.id).await?;
    let costs: Option<Vec<i64>> = steps
        .iter()
        .filter(|step| step.kind == StepKind::Model)
        // What was open has been closed by now, and nobody told what it used; where tokens cost nothing, that is nothing.
        .map(|step| step.cost_microcents.or_else(|| is_free(worker, step).then_some(0)))
        .collect();
    // Without the price of one answer the sum is not known.
    let cost = costs.map(|costs| costs.into_iter().fold(0_i64, i64::saturating_add));
    let (sandbox_id, run_id) = (run.sandbox_id.clone(), run.id.clone());
    let journal = Journal::new(worker.db.clone(), sandbox_id, run_id, run.fence, worker.config.lease).resume(steps);
    let progress = Progress::of(&journal);
    let usage = progress.spent().fold(Usage::default(), |sum, spent| sum + spent.usage);
    Ok(Totals {
        output_text: Some(progress.text),
        tokens_in: Some(signed(tokens_in(&usage))),
        tokens_out: Some(signed(usage.output_tokens)),
        cost_microcents: cost,
        usage: Some(usage_object(
            &usage,
            cost.and_then(|cost| u64::try_from(cost).ok()),
            None,
        )),
        model_calls: i64::try_from(progress.answers.len()).unwrap_or(i64::MAX),
    })
}
