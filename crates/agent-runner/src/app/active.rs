//! The runs this process is working on, and how each of them can be told to stop.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use copass_types::{RunId, SandboxId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Why a run was told to stop before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// The stream's reader went away.
    ClientGone,
    /// The stream's reader takes no frames.
    SlowReader,
    /// The process ends.
    Shutdown,
    /// The sandbox is being destroyed.
    SandboxDestroyed,
    /// Somebody cancelled the run.
    Cancelled,
    /// Another worker ended the run; nothing may be written any more.
    LeaseLost,
}

/// Tells one run to stop; the first cause wins. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    cause: Arc<OnceLock<StopCause>>,
}

impl Stop {
    /// Tells the run to stop. Later causes change nothing.
    pub(crate) fn stop(&self, cause: StopCause) {
        // A second cause is refused by the lock, which is what "the first wins" means.
        let _ = self.cause.set(cause);
        self.token.cancel();
    }

    /// Waits until the run is told to stop.
    pub(crate) async fn stopped(&self) -> StopCause {
        self.token.cancelled().await;
        self.cause.get().copied().unwrap_or(StopCause::Shutdown)
    }
}

/// One run in progress.
#[derive(Debug, Clone)]
pub(crate) struct ActiveRun {
    pub(crate) sandbox_id: SandboxId,
    pub(crate) fence: i64,
    pub(crate) stop: Stop,
}

/// The runs in progress. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActiveRuns {
    runs: Arc<Mutex<HashMap<RunId, ActiveRun>>>,
}

impl ActiveRuns {
    /// Adds a run until the guard is dropped. Where this process worked on it before and was given up, that work stops.
    pub(crate) fn enter(&self, run_id: RunId, run: ActiveRun) -> ActiveGuard {
        let fence = run.fence;
        if let Some(before) = self.runs.lock().insert(run_id.clone(), run) {
            before.stop.stop(StopCause::LeaseLost);
        }
        ActiveGuard {
            runs: self.clone(),
            run_id,
            fence,
        }
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Vec<(RunId, ActiveRun)> {
        self.runs
            .lock()
            .iter()
            .map(|(id, run)| (id.clone(), run.clone()))
            .collect()
    }

    /// Whether this process works on the run and has this fence.
    pub(crate) fn has(&self, run_id: &RunId, fence: i64) -> bool {
        self.runs.lock().get(run_id).is_some_and(|run| run.fence == fence)
    }

    /// Tells one run to stop; `false` when this process does not work on it.
    pub(crate) fn stop(&self, run_id: &RunId, cause: StopCause) -> bool {
        match self.runs.lock().get(run_id) {
            Some(run) => {
                run.stop.stop(cause);
                true
            }
            None => false,
        }
    }

    /// Tells every run of the sandbox to stop.
    pub(crate) fn stop_sandbox(&self, sandbox_id: &SandboxId, cause: StopCause) {
        for run in self.runs.lock().values().filter(|run| run.sandbox_id == *sandbox_id) {
            run.stop.stop(cause);
        }
    }
}

/// Takes the run out when it is over, however it ended.
#[derive(Debug)]
pub(crate) struct ActiveGuard {
    runs: ActiveRuns,
    run_id: RunId,
    fence: i64,
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        let mut runs = self.runs.runs.lock();
        // Not one that has been taken up again here since.
        if runs.get(&self.run_id).is_some_and(|run| run.fence == self.fence) {
            runs.remove(&self.run_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_that_is_taken_up_again_here_outlives_its_first_work() {
        let active = ActiveRuns::default();
        let (run_id, sandbox_id) = (RunId::generate(), SandboxId::generate());
        let enter = |fence| {
            let run = ActiveRun {
                sandbox_id: sandbox_id.clone(),
                fence,
                stop: Stop::default(),
            };
            (run.stop.clone(), active.enter(run_id.clone(), run))
        };
        let (first_stop, first) = enter(1);
        let (_, second) = enter(2);
        assert_eq!(first_stop.stopped().await, StopCause::LeaseLost);
        drop(first);
        assert_eq!(active.all().len(), 1, "the heart of the second one beats on");
        drop(second);
        assert!(active.all().is_empty());
    }
}
