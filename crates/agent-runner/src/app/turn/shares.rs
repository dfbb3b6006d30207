//! Which part of a process's places for runs one sandbox may have.
//!
//! Places go to whoever asks first and are kept for as long as a run takes, so without this a sandbox that wants a thousand
//! runs at once would have all of them, and everybody else's would wait until those are over. A run that is refused stays
//! accepted; when one of its sandbox ends here, the oldest that waits is looked for, and it stands in line for a place like
//! everybody's.

use std::{collections::HashMap, sync::Arc};

use copass_types::{RunId, SandboxId};
use parking_lot::Mutex;

/// The shares of one process.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Runs of one sandbox at once.
    cap: usize,
    sandboxes: Mutex<HashMap<SandboxId, InWork>>,
}

#[derive(Debug, Default)]
struct InWork {
    /// A run is in it twice for the moment in which two find out which of them has it.
    runs: Vec<RunId>,
    /// Refusals since the last time nothing was found to wait; counted, so that one in between is not missed.
    refusals: u64,
}

impl Shares {
    pub(crate) fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self {
            cap: cap.max(1),
            sandboxes: Mutex::default(),
        })
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }

    /// A share for the run; `None` where its sandbox has all that it may have, which is remembered.
    pub(crate) fn take(self: &Arc<Self>, sandbox_id: &SandboxId, run_id: &RunId) -> Option<Share> {
        let mut sandboxes = self.sandboxes.lock();
        let in_work = sandboxes.entry(sandbox_id.clone()).or_default();
        let share = self.share(in_work, sandbox_id, run_id);
        if share.is_none() {
            in_work.refusals += 1;
        }
        share
    }

    /// As [`Self::take`], for one of many that could be begun: nothing where it is in work here already, and no refusal is
    /// remembered.
    pub(crate) fn take_idle(self: &Arc<Self>, sandbox_id: &SandboxId, run_id: &RunId) -> Option<Share> {
        let mut sandboxes = self.sandboxes.lock();
        let in_work = sandboxes.entry(sandbox_id.clone()).or_default();
        if in_work.runs.contains(run_id) {
            return None;
        }
        self.share(in_work, sandbox_id, run_id)
    }

    /// Whether runs of the sandbox were refused; the number is for [`Self::none_waits`].
    pub(crate) fn refusals(&self, sandbox_id: &SandboxId) -> Option<u64> {
        let sandboxes = self.sandboxes.lock();
        let refusals = sandboxes.get(sandbox_id)?.refusals;
        (refusals > 0).then_some(refusals)
    }

    /// No run of the sandbox waits any more, unless one was refused since.
    pub(crate) fn none_waits(&self, sandbox_id: &SandboxId, refusals: u64) {
        let mut sandboxes = self.sandboxes.lock();
        if let Some(in_work) = sandboxes.get_mut(sandbox_id)
            && in_work.refusals == refusals
        {
            in_work.refusals = 0;
            if in_work.runs.is_empty() {
                sandboxes.remove(sandbox_id);
            }
        }
    }

    /// Takes a share, where the sandbox has not all that it may have.
    fn share(self: &Arc<Self>, in_work: &mut InWork, sandbox_id: &SandboxId, run_id: &RunId) -> Option<Share> {
        if in_work.runs.len() >= self.cap {
            return None;
        }
        in_work.runs.push(run_id.clone());
        Some(Share {
            shares: self.clone(),
            sandbox_id: sandbox_id.clone(),
            run_id: run_id.clone(),
        })
    }
}

/// What one run has of its sandbox's share, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    sandbox_id: SandboxId,
    run_id: RunId,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut sandboxes = self.shares.sandboxes.lock();
        let Some(in_work) = sandboxes.get_mut(&self.sandbox_id) else {
            return;
        };
        if let Some(index) = in_work.runs.iter().position(|run_id| *run_id == self.run_id) {
            in_work.runs.swap_remove(index);
        }
        if in_work.runs.is_empty() && in_work.refusals == 0 {
            sandboxes.remove(&self.sandbox_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_its_share_and_no_more() {
        let shares = Shares::new(2);
        let (one, other) = (SandboxId::generate(), SandboxId::generate());
        let runs: Vec<RunId> = (0..4).map(|_| RunId::generate()).collect();
        let first = shares.take(&one, &runs[0]).expect("a share");
        assert!(shares.take_idle(&one, &runs[0]).is_none(), "it is in work");
        let second = shares.take(&one, &runs[1]).expect("a share");
        assert_eq!(shares.refusals(&one), None);
        assert!(shares.take(&one, &runs[2]).is_none());
        let _third = shares.take(&other, &runs[3]).expect("another sandbox has its own");
        let seen = shares.refusals(&one).expect("a refusal");
        // One more while somebody looks: what was found out is not true any more.
        assert!(shares.take(&one, &runs[2]).is_none());
        shares.none_waits(&one, seen);
        assert_eq!(shares.refusals(&one), Some(2));
        drop(first);
        let idle = shares.take_idle(&one, &runs[2]).expect("a share");
        assert!(shares.take_idle(&one, &runs[0]).is_none());
        shares.none_waits(&one, 2);
        assert_eq!(shares.refusals(&one), None);
        drop((second, idle));
        assert_eq!(
            shares.sandboxes.lock().len(),
            1,
            "nothing is kept of those who want nothing"
        );
    }
}
