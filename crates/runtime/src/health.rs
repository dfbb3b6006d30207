//! Readiness that follows dependencies (`style.md` 3.3): ready is not the same as started.
//!
//! Each dependency is a probe. A reconciler runs them on a timer; one good sample makes ready, three bad ones in a row
//! make not ready, so a single slow answer does not take a replica out.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use copass_types::api::{DependencyStatus, ReadinessReport};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

type Probe = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

const BAD_SAMPLES_TO_LEAVE_READY: u32 = 3;
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The state of one dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyState {
    /// Whether it counts as usable (damped).
    pub ready: bool,
    /// The last failure, for the operator.
    pub last_error: Option<String>,
}

#[derive(Default)]
struct Inner {
    probes: RwLock<BTreeMap<String, Probe>>,
    states: RwLock<BTreeMap<String, (DependencyState, u32)>>,
}

/// The dependencies of one node.
#[derive(Clone, Default)]
pub struct Readiness {
    inner: Arc<Inner>,
}

impl Readiness {
    /// Adds a dependency; it counts as not ready until its first good sample.
    pub fn add<F, Fut>(&self, name: impl Into<String>, probe: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let name = name.into();
        let state = DependencyState {
            ready: false,
            last_error: Some("not checked yet".to_owned()),
        };
        self.inner.states.write().insert(name.clone(), (state, 0));
        self.inner
            .probes
            .write()
            .insert(name, Arc::new(move || Box::pin(probe())));
    }

    /// Whether every dependency is usable.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.states.read().values().all(|(state, _)| state.ready)
    }

    /// The state of each dependency by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, DependencyState> {
        self.inner
            .states
            .read()
            .iter()
            .map(|(name, (state, _))| (name.clone(), state.clone()))
            .collect()
    }

    /// What `/readyz` answers, wherever it is served.
    #[must_use]
    pub fn report(&self) -> ReadinessReport {
        let dependencies: Vec<_> = self
            .snapshot()
            .into_iter()
            .map(|(name, state)| DependencyStatus {
                name,
                ready: state.ready,
                last_error: state.last_error,
            })
            .collect();
        let is_ready = dependencies.iter().all(|dependency| dependency.ready);
        ReadinessReport {
            status: if is_ready { "ready" } else { "not_ready" }.to_owned(),
            dependencies,
        }
    }

    /// Runs every probe once.
    pub async fn check(&self) {
        let probes: Vec<_> = self
            .inner
            .probes
            .read()
            .iter()
            .map(|(name, probe)| (name.clone(), probe.clone()))
            .collect();
        let checks = probes.into_iter().map(|(name, probe)| async move {
            let result = tokio::time::timeout(PROBE_TIMEOUT, probe())
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())));
            (name, result)
        });
        for (name, result) in futures::future::join_all(checks).await {
            self.record(&name, result);
        }
    }

    /// Checks until asked to stop.
    pub async fn watch(self, every: Duration, stop: CancellationToken) {
        loop {
            self.check().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    fn record(&self, name: &str, result: Result<(), String>) {
        let mut states = self.inner.states.write();
        let Some((state, bad_samples)) = states.get_mut(name) else {
            return;
        };
        let was_ready = state.ready;
        match result {
            Ok(()) => {
                *bad_samples = 0;
                *state = DependencyState {
                    ready: true,
                    last_error: None,
                };
            }
            Err(error) => {
                *bad_samples += 1;
                state.ready = was_ready && *bad_samples < BAD_SAMPLES_TO_LEAVE_READY;
                state.last_error = Some(error);
            }
        }
        if was_ready != state.ready {
            tracing::info!(dependency = name, ready = state.ready, error = ?state.last_error, "readiness changed");
        }
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.snapshot()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_good_sample_makes_ready_and_three_bad_ones_end_it() {
        let good = Arc::new(AtomicBool::new(true));
        let readiness = Readiness::default();
        let probe = good.clone();
        readiness.add("database", move || {
            let good = probe.load(Ordering::SeqCst);
            async move { if good { Ok(()) } else { Err("down".to_owned()) } }
        });
        assert!(!readiness.is_ready());
        readiness.check().await;
        assert!(readiness.is_ready());
        good.store(false, Ordering::SeqCst);
        readiness.check().await;
        readiness.check().await;
        assert!(readiness.is_ready());
        readiness.check().await;
        assert!(!readiness.is_ready());
        good.store(true, Ordering::SeqCst);
        readiness.check().await;
        assert!(readiness.is_ready());
    }
}
