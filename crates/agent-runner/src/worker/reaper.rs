//! Looks after runs whose worker was lost: a reconciler that looks at leases, at start and on a timer.
//!
//! A run in the background is taken up again and goes on from its last step. One that had a reader is ended, because its
//! reader is gone with its worker; so is one that has lost too many workers, because the run may be what kills them. Both
//! raise the fence, so the lost worker can write nothing when it comes back.
//!
//! After a pause of this process, or an absence of the database, that was longer than a lease, the leases of runs that are
//! well have ended too. So a look begins with a beat of this process's own heart, no look takes what this process works
//! on, and after an absence the other processes have the time for a beat before the next look.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_runtime::clock;
use tokio_util::sync::CancellationToken;

use super::heartbeat;
use crate::{
    app::{
        domain::{ErrorType, RunStatus},
        turn::{
            Background, Worker,
            take_over::{self, TakeOver},
            taken_up, took_longer,
        },
    },
    store::{
        self,
        leases::{Expired, Stale},
    },
};

const BATCH: i64 = 100;
/// Workers that one run may lose.
const MAX_CONTINUATIONS: i64 = 5;

pub(crate) async fn run(worker: Arc<Worker>, background: Background, stop: CancellationToken) {
    let config = &worker.config;
    let mut was_away = false;
    loop {
        let pause = match heartbeat::beat(&worker).await {
            Ok(()) if was_away => {
                was_away = false;
                config.heartbeat
            }
            Ok(()) => {
                look_after_expired(&worker, &background).await;
                let jitter = Duration::from_millis(rand::random_range(0..3_000)).min(config.reap_interval);
                config.reap_interval + jitter
            }
            Err(error) => {
                was_away = true;
                let cause = error.cause_chain();
                tracing::warn!(%error, cause, "stale runs are not looked after while leases cannot be extended");
                config.reap_interval.min(config.heartbeat) / 4
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What became of stale runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) ended: usize,
    pub(crate) taken_up: usize,
}

/// Looks after the runs whose lease has expired, and the pending ones nobody began in time. What fails with one of them,
/// or with one kind, must not keep the others from it.
async fn look_after_expired(worker: &Worker, background: &Background) {
    for outcome in [
        end_lost(worker).await,
        end_late(worker).await,
        take_up_held(worker, background).await,
        queue_up_unbegun(worker, background).await,
        take_up_waiting(worker, background).await,
    ] {
        if let Err(error) = outcome {
            tracing::warn!(%error, cause = error.cause_chain(), "stale runs are not looked after yet; the next look tries again");
        }
    }
    worker.outbox.wake();
}

/// Ends the runs that nobody goes on with.
async fn end_lost(worker: &Worker) -> Result<()> {
    let mut pages = Pages::new(Expired::End(MAX_CONTINUATIONS));
    while let Some(page) = pages.next(worker).await? {
        for run in &page {
            tell(run, end(worker, run, Some(pages.now)).await);
        }
    }
    Ok(())
}

/// Ends the runs that were given back and whose time is over before anybody has a place for them.
async fn end_late(worker: &Worker) -> Result<()> {
    let mut pages = Pages::new(Expired::Begun(MAX_CONTINUATIONS));
    while let Some(page) = pages.next(worker).await? {
        for run in &page {
            let used = run
                .started_at
                .and_then(|started_at| (pages.now - started_at).to_std().ok());
            let Some(timeout) = run.timeout.filter(|timeout| used.is_some_and(|used| used > *timeout)) else {
                continue;
            };
            let late = TakeOver {
                status: RunStatus::Timeout,
                error_type: ErrorType::Timeout,
                message: &took_longer(timeout),
                step_error: "the time of the run was over before the step ended",
                lease_before: Some(pages.now),
            };
            tell(run, take_over::end(worker, run, late).await);
        }
    }
    Ok(())
}

/// Goes on with the runs of lost workers, or lets them wait for a place.
async fn take_up_held(worker: &Worker, background: &Background) -> Result<()> {
    let mut pages = Pages::new(Expired::Held(MAX_CONTINUATIONS));
    while let Some(page) = pages.next(worker).await? {
        for run in page {
            match background.place() {
                Some(place) => background.begin(run.sandbox_id, run.id, place),
                None => tell(&run, queue_up(worker, &run, Some(pages.now)).await),
            }
        }
    }
    Ok(())
}

/// Sees to it that a message says of runs that were only accepted that they may be worked on. There may be as many as
/// anybody accepts, so one look sees to some.
async fn queue_up_unbegun(worker: &Worker, background: &Background) -> Result<()> {
    let mut pages = Pages::new(Expired::Unbegun(MAX_CONTINUATIONS));
    for run in pages.next(worker).await?.unwrap_or_default() {
        match background.place() {
            Some(place) => background.begin(run.sandbox_id, run.id, place),
            None => tell(&run, queue_up(worker, &run, Some(pages.now)).await),
        }
    }
    Ok(())
}

/// Begins what waits in the queue while there are places: its message may be lost.
async fn take_up_waiting(worker: &Worker, background: &Background) -> Result<()> {
    let Some(mut place) = background.place() else {
        return Ok(());
    };
    let mut pages = Pages::new(Expired::Waiting(MAX_CONTINUATIONS));
    while let Some(page) = pages.next(worker).await? {
        for run in page {
            background.begin(run.sandbox_id, run.id, place);
            let Some(next) = background.place() else {
                return Ok(());
            };
            place = next;
        }
    }
    Ok(())
}

/// Expired runs of one kind, page by page: what stays as it is must not be looked at again instead of the next ones.
struct Pages {
    kind: Expired,
    now: DateTime<Utc>,
    last: Option<Stale>,
    is_last: bool,
}

impl Pages {
    fn new(kind: Expired) -> Self {
        Self {
            kind,
            now: clock::now(),
            last: None,
            is_last: false,
        }
    }

    async fn next(&mut self, worker: &Worker) -> Result<Option<Vec<Stale>>> {
        if self.is_last {
            return Ok(None);
        }
        let mut conn = worker.db.read().await?;
        let mut page = store::leases::expired(&mut conn, self.now, self.kind, self.last.as_ref(), BATCH).await?;
        self.is_last = page.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
        self.last = page.last().cloned();
        page.retain(|run| !worker.active.has(&run.id, run.fence));
        Ok(Some(page))
    }
}

fn tell(run: &Stale, outcome: Result<bool>) {
    if let Err(error) = outcome {
        let cause = error.cause_chain();
        tracing::warn!(run.id = %run.id, %error, cause, "stale run is not looked after yet; the next look tries again");
    }
}

/// Looks after every run that is not over, whatever its lease says: for the only worker of a database, before it begins.
pub(crate) async fn look_after_all(worker: &Worker, background: &Background) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    let stale = store::leases::unfinished(&mut worker.db.read().await?).await?;
    for run in &stale {
        let (outcome, count) = if !goes_on(run) {
            (end(worker, run, None).await, &mut recovered.ended)
        } else if let Some(place) = background.place() {
            background.take_up(run, place);
            (Ok(true), &mut recovered.taken_up)
        } else {
            (queue_up(worker, run, None).await, &mut recovered.taken_up)
        };
        *count += usize::from(*outcome.as_ref().unwrap_or(&false));
        tell(run, outcome);
    }
    worker.outbox.wake();
    Ok(recovered)
}

fn goes_on(run: &Stale) -> bool {
    run.entrance.is_background() && run.continuations < MAX_CONTINUATIONS
}

/// Lets the run wait for a place with all others, instead of hoping that one is free when somebody looks.
async fn queue_up(worker: &Worker, run: &Stale, lease_before: Option<DateTime<Utc>>) -> Result<bool> {
    let mut tx = worker.db.begin().await?;
    if !store::leases::give_back(&mut tx, run, lease_before).await? {
        tx.rollback().await?;
        return Ok(false);
    }
    let message = taken_up(&run.sandbox_id, &run.id);
    worker.outbox.add(&mut tx, &message).await?;
    tx.commit().await?;
    Ok(true)
}

async fn end(worker: &Worker, run: &Stale, lease_before: Option<DateTime<Utc>>) -> Result<bool> {
    let lost = TakeOver {
        status: RunStatus::Failed,
        error_type: ErrorType::WorkerLost,
        message: "the process that worked on this run was lost, and the run was not finished",
        step_error: "the worker was lost before the step ended",
        lease_before,
    };
    take_over::end(worker, run, lost).await
}
