//! Ends runs whose worker was lost: a reconciler that looks at leases, at start and on a timer.
//!
//! It raises the fence, so the lost worker can write nothing when it comes back, ends the run, names the changing calls
//! nobody knows the outcome of, and frees the conversation; all in one transaction per run. Continuing such a run from
//! its journal goes in here, between taking it away and ending it.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_runtime::clock;
use tokio_util::sync::CancellationToken;

use crate::{
    app::turn::{Worker, uncertain_call, uncertain_sentence},
    store::{self, runs::Stale},
};

const BATCH: i64 = 100;
const ERROR_TYPE: &str = "WorkerLost";

pub(crate) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    loop {
        if let Err(error) = reap_expired(&worker).await {
            tracing::warn!(%error, cause = error.cause_chain(), "stale runs are not ended yet; the next look tries again");
        }
        let jitter = Duration::from_millis(rand::random_range(0..3_000)).min(worker.config.reap_interval);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(worker.config.reap_interval + jitter) => {}
        }
    }
}

/// Ends the runs whose lease has expired.
pub(crate) async fn reap_expired(worker: &Worker) -> Result<usize> {
    let mut ended = 0;
    loop {
        let now = clock::now();
        let stale = store::runs::expired(&mut worker.db.read().await?, now, BATCH).await?;
        let count = end_all(worker, &stale, Some(now)).await?;
        ended += count;
        if count == 0 || stale.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
            return Ok(ended);
        }
    }
}

/// Ends every run that is not final, whatever its lease says.
pub(crate) async fn reap_all(worker: &Worker) -> Result<usize> {
    let mut ended = 0;
    loop {
        let stale = store::runs::unfinished(&mut worker.db.read().await?, BATCH).await?;
        let count = end_all(worker, &stale, None).await?;
        ended += count;
        if count == 0 {
            return Ok(ended);
        }
    }
}

async fn end_all(worker: &Worker, stale: &[Stale], lease_before: Option<DateTime<Utc>>) -> Result<usize> {
    let mut ended = 0;
    for run in stale {
        if end_one(worker, run, lease_before).await? {
            ended += 1;
        }
    }
    Ok(ended)
}

async fn end_one(worker: &Worker, run: &Stale, lease_before: Option<DateTime<Utc>>) -> Result<bool> {
    let now = clock::now();
    let mut tx = worker.db.begin().await?;
    if !store::runs::take_away(&mut tx, run, lease_before).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    let reason = "the worker was lost before the step ended";
    let calls: Vec<String> = store::steps::close_open(&mut tx, &run.id, reason, now)
        .await?
        .iter()
        .map(|(name, call_id)| uncertain_call(name.as_deref(), call_id.as_deref()))
        .collect();
    let mut message = "the process that worked on this run was lost, and the run was not finished".to_owned();
    if !calls.is_empty() {
        message = format!("{message}; {}", uncertain_sentence(&calls));
    }
    store::runs::fail(&mut tx, run, ERROR_TYPE, &message, now).await?;
    if let Some(session_id) = &run.session_id {
        store::conversations::release(&mut tx, &run.sandbox_id, session_id, &run.id, now).await?;
    }
    tx.commit().await?;
    metrics::counter!("copass_runs_total", "status" => "failed", "agent_kind" => "system").increment(1);
    tracing::warn!(run.id = %run.id, sandbox.id = %run.sandbox_id, uncertain_calls = calls.len(), "run of a lost worker ended");
    Ok(true)
}
