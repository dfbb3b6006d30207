//! Background tasks and the order in which they end (`style.md` 3.4).
//!
//! A [`Tasks`] belongs to one running node. Every task is named, gets a cancellation token, is awaited at shutdown and
//! its panic is reported. Consumers stop before servers do, so tasks are spawned into a [`Phase`].

use std::{future::Future, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// When a task is asked to stop; phases end in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Takes new work in from queues and timers: stops first.
    Intake,
    /// Work in progress: runs reach a step boundary or are handed back.
    Work,
    /// Serves others in this process (servers, relays): stops last.
    Serve,
}

/// The tasks of one node.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    phases: [PhaseTasks; 3],
}

#[derive(Debug, Clone, Default)]
struct PhaseTasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when the phase ends.
    #[must_use]
    pub fn token(&self, phase: Phase) -> CancellationToken {
        self.phase(phase).token.clone()
    }

    /// Spawns a named task; `work` gets the token that asks it to stop.
    pub fn spawn<F, Fut>(&self, phase: Phase, name: &'static str, work: F) -> JoinHandle<()>
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.phase(phase);
        let work = work(tasks.token.clone());
        tasks.tracker.spawn(report_panic(name, work))
    }

    /// Asks the phases to stop one after the other and waits; `grace` bounds the whole.
    ///
    /// Returns whether every task ended in time.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + grace;
        let mut all_ended = true;
        for phase in &self.phases {
            phase.token.cancel();
            phase.tracker.close();
            all_ended &= tokio::time::timeout_at(deadline, phase.tracker.wait()).await.is_ok();
        }
        all_ended
    }

    fn phase(&self, phase: Phase) -> &PhaseTasks {
        &self.phases[phase as usize]
    }
}

async fn report_panic(name: &'static str, work: impl Future<Output = ()> + Send) {
    use futures::FutureExt as _;
    if let Err(panic) = std::panic::AssertUnwindSafe(work).catch_unwind().await {
        tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked");
    }
}

/// The text of a panic payload.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn phases_end_in_order() {
        let tasks = Tasks::new();
        let order = Arc::new(AtomicUsize::new(0));
        for (phase, expected) in [(Phase::Serve, 2), (Phase::Intake, 0), (Phase::Work, 1)] {
            let order = order.clone();
            tasks.spawn(phase, "ordered", move |stop| async move {
                stop.cancelled().await;
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), expected);
            });
        }
        assert!(tasks.shut_down(Duration::from_secs(5)).await);
        assert_eq!(order.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_stuck_task_is_left_behind_at_the_grace_limit_and_a_panic_is_survived() {
        let tasks = Tasks::new();
        tasks.spawn(Phase::Work, "stuck", |_| std::future::pending());
        tasks.spawn(Phase::Work, "panics", |_| async { panic!("expected in this test") });
        assert!(!tasks.shut_down(Duration::from_millis(20)).await);
    }
}
