//! Extends the leases of live runs, independently of what their steps do.
//!
//! One task for all runs of the process and a transaction for some dozens of them, so a thousand waiting runs cost a few
//! disk flushes. A row that somebody has locked holds up no other run: it is left out and tried again. A run whose fence
//! was raised is told to stop.

use std::{sync::Arc, time::Duration};

use copass_errors::{Error, Result};
use copass_runtime::clock;
use copass_store::Batch;
use copass_types::RunId;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{
        active::{ActiveRun, StopCause},
        turn::Worker,
    },
    store::{self, leases::Lease},
};

/// Leases in one statement: a few hundred values.
const BATCH: usize = 64;
/// How often one beat tries a row that is locked.
const TRIES: u32 = 3;

pub(crate) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    loop {
        let pause = match beat(&worker).await {
            Ok(()) => worker.config.heartbeat,
            Err(error) => {
                tracing::warn!(%error, cause = error.cause_chain(), "leases are not extended; the next beat tries again");
                worker.config.heartbeat / 4
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Extends every lease of this process. One that hangs is given up while there is time for another one, which begins with
/// other runs.
pub(crate) async fn beat(worker: &Worker) -> Result<()> {
    let limit = worker.config.lease / 3;
    timeout(limit, extend_all(worker))
        .await
        .map_err(|_| Error::unavailable(format!("the leases could not be extended within {limit:?}")))?
}

async fn extend_all(worker: &Worker) -> Result<()> {
    let mut active = worker.active.all();
    if active.is_empty() {
        return Ok(());
    }
    let first = rand::random_range(0..active.len());
    active.rotate_left(first);
    let mut locked = extend(worker, active).await?;
    for _ in 1..TRIES {
        if locked.is_empty() {
            break;
        }
        sleep(pause(worker.config.lease)).await;
        locked = extend(worker, locked).await?;
    }
    // Wishes to cancel arrive as news; this finds those whose news was lost.
    for run_id in store::leases::to_stop(&mut worker.db.read().await?, &worker.config.worker_id).await? {
        worker.active.stop(&run_id, StopCause::Cancelled);
    }
    Ok(())
}

/// Before a locked row is tried again; a run's own writes are done by then.
fn pause(lease: Duration) -> Duration {
    lease / 30
}

/// Extends the leases of the runs, and tells those that are lost; gives those whose row is locked.
async fn extend(worker: &Worker, active: Vec<(RunId, ActiveRun)>) -> Result<Vec<(RunId, ActiveRun)>> {
    let mut locked = Vec::new();
    for some in active.chunks(BATCH) {
        let mut tx = worker.db.begin().await?;
        let mut batch = Batch::new(worker.db.dialect());
        // Now that there is a connection, which may have been waited for.
        let expires_at = clock::now() + worker.config.lease;
        for (run_id, run) in some {
            store::leases::keep_lease(&mut batch, &lease(run_id, run), expires_at);
        }
        let rows = batch.execute(&mut tx).await?;
        tx.commit().await?;
        for ((run_id, run), rows) in some.iter().zip(rows) {
            if rows > 0 {
                continue;
            }
            if store::leases::is_held(&mut worker.db.read().await?, &lease(run_id, run)).await? {
                locked.push((run_id.clone(), run.clone()));
            } else {
                // One that ended since the look at the list is told too; it does not listen any more.
                run.stop.stop(StopCause::LeaseLost);
            }
        }
    }
    Ok(locked)
}

fn lease<'a>(run_id: &'a RunId, run: &'a ActiveRun) -> Lease<'a> {
    Lease {
        sandbox_id: &run.sandbox_id,
        run_id,
        fence: run.fence,
    }
}
