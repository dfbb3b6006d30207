//! Extends the leases of live runs, independently of what their steps do.
//!
//! One task for all runs of the process and one transaction per beat, so a thousand waiting runs cost one disk flush. A
//! run whose fence was raised is told to stop.

use std::sync::Arc;

use copass_runtime::clock;
use copass_store::Batch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{active::StopCause, turn::Worker},
    store::{self, leases::Lease},
};

/// Leases in one statement: a few hundred values.
const BATCH: usize = 64;

pub(crate) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(worker.config.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = beat(&worker).await {
            tracing::warn!(%error, cause = error.cause_chain(), "leases are not extended; the next beat tries again");
        }
    }
}

async fn beat(worker: &Worker) -> copass_errors::Result<()> {
    let active = worker.active.all();
    if active.is_empty() {
        return Ok(());
    }
    let mut lost = Vec::new();
    let mut tx = worker.db.begin().await?;
    let expires_at = clock::now() + worker.config.lease;
    for some in active.chunks(BATCH) {
        let mut batch = Batch::new(worker.db.dialect());
        for (run_id, run) in some {
            let lease = Lease {
                sandbox_id: &run.sandbox_id,
                run_id,
                fence: run.fence,
            };
            store::leases::extend_lease(&mut batch, &lease, expires_at);
        }
        let rows = batch.execute(&mut tx).await?;
        let taken = some.iter().zip(rows).filter(|(_, rows)| *rows == 0);
        lost.extend(taken.map(|((_, run), _)| run));
    }
    tx.commit().await?;
    // Wishes to cancel arrive as news; this finds those whose news was lost.
    for run_id in store::leases::to_stop(&mut worker.db.read().await?, &worker.config.worker_id).await? {
        worker.active.stop(&run_id, StopCause::Cancelled);
    }
    // A run that ended between the look at the list and the update is told too; it does not listen any more.
    for run in lost {
        run.stop.stop(StopCause::LeaseLost);
    }
    Ok(())
}
