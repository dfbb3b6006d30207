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
    /// Adds a run until the guard is dropped.
    pub(crate) fn enter(&self, run_id: RunId, run: ActiveRun) -> ActiveGuard {
        self.runs.lock().insert(run_id.clone(), run);
        ActiveGuard {
            runs: self.clone(),
            run_id,
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
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.runs.runs.lock().remove(&self.run_id);
    }
}
