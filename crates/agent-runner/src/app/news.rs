//! News of runs: who waits for a run or for an agent's runs is told when something of them was committed.
//!
//! News say that something changed and never what: whoever is woken reads the database. So a lost or doubled piece of
//! news costs a look and nothing else, and a follower on one replica sees what a worker on another did. Here in the
//! process they arrive at once; to other replicas they travel as broadcasts, many runs in one message
//! (`worker/news.rs`).

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use copass_types::{AgentId, RunId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

/// Changes that wait to be told to other replicas; when nobody takes them, followers there look by themselves.
const MAX_WAITING: usize = 4096;

/// Something of the run was committed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) run_id: RunId,
    pub(crate) agent_id: AgentId,
}

/// What other replicas are told.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    /// Something of the run was committed.
    Changed(Changed),
    /// Somebody wants the run to end.
    Cancel(Changed),
}

/// Those who wait for news of one run or one agent. They are counted, and not their references to what wakes them: a
/// reference is given up some time after the look at how many there are.
#[derive(Debug, Default)]
struct Waiting {
    notify: Arc<Notify>,
    subscriptions: usize,
}

/// Where news arrive and are waited for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct News {
    waiting: Arc<Mutex<HashMap<String, Waiting>>>,
    outgoing: mpsc::Sender<Outgoing>,
}

/// Wakes at each piece of news about one run or one agent. Make it before the first look at the database.
#[derive(Debug)]
pub(crate) struct Subscription {
    key: String,
    notify: Arc<Notify>,
    waiting: Arc<Mutex<HashMap<String, Waiting>>>,
}

impl News {
    /// News, and what goes to other replicas.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (outgoing, receiver) = mpsc::channel(MAX_WAITING);
        let news = Self {
            waiting: Arc::default(),
            outgoing,
        };
        (news, receiver)
    }

    /// Tells everybody, here and elsewhere.
    pub(crate) fn tell(&self, run_id: &RunId, agent_id: &AgentId) {
        let changed = Changed {
            run_id: run_id.clone(),
            agent_id: agent_id.clone(),
        };
        self.arrived(&changed);
        // Full means that nobody broadcasts; followers elsewhere have their timers.
        let _ = self.outgoing.try_send(Outgoing::Changed(changed));
    }

    /// Tells the other replicas that somebody wants the run to end.
    pub(crate) fn cancel(&self, run_id: &RunId, agent_id: &AgentId) {
        let changed = Changed {
            run_id: run_id.clone(),
            agent_id: agent_id.clone(),
        };
        let _ = self.outgoing.try_send(Outgoing::Cancel(changed));
    }

    /// Tells those who wait in this process.
    pub(crate) fn arrived(&self, changed: &Changed) {
        let waiting = self.waiting.lock();
        for key in [changed.run_id.as_str(), changed.agent_id.as_str()] {
            if let Some(waiting) = waiting.get(key) {
                waiting.notify.notify_waiters();
            }
        }
    }

    /// Wakes everybody: something may have been missed.
    pub(crate) fn missed(&self) {
        for waiting in self.waiting.lock().values() {
            waiting.notify.notify_waiters();
        }
    }

    /// News of one run or one agent, by its id.
    pub(crate) fn subscribe(&self, id: &str) -> Subscription {
        let mut all = self.waiting.lock();
        let waiting = all.entry(id.to_owned()).or_default();
        waiting.subscriptions += 1;
        Subscription {
            key: id.to_owned(),
            notify: waiting.notify.clone(),
            waiting: self.waiting.clone(),
        }
    }
}

impl Subscription {
    /// A wait that is woken by every piece of news after this call, also before it is first polled: take it, look at
    /// the database, then wait.
    pub(crate) fn next(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut all = self.waiting.lock();
        if let Entry::Occupied(mut entry) = all.entry(std::mem::take(&mut self.key)) {
            entry.get_mut().subscriptions -= 1;
            if entry.get().subscriptions == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_is_woken_and_the_last_one_cleans_up() {
        let (news, mut outgoing) = News::new();
        let (run_id, agent_id) = (RunId::generate(), AgentId::generate());
        let first = news.subscribe(run_id.as_str());
        let second = news.subscribe(run_id.as_str());
        let of_agent = news.subscribe(agent_id.as_str());
        let waits = [first.next(), second.next(), of_agent.next()];
        let mut waits: Vec<_> = waits.into_iter().map(Box::pin).collect();
        for wait in &mut waits {
            wait.as_mut().enable();
        }
        news.tell(&run_id, &agent_id);
        for wait in waits {
            tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap();
        }
        let told = outgoing.recv().await.unwrap();
        assert!(matches!(told, Outgoing::Changed(changed) if changed == Changed { run_id, agent_id }));
        drop((first, of_agent));
        assert_eq!(news.waiting.lock().len(), 1);
        drop(second);
        assert!(news.waiting.lock().is_empty());
    }

    #[test]
    fn the_last_one_cleans_up_whoever_still_holds_what_woke_it() {
        let (news, _outgoing) = News::new();
        let first = news.subscribe("rn_1");
        // As one that is dropped at the same time holds it: it has looked for others, and has not let go yet.
        let held = first.notify.clone();
        let second = news.subscribe("rn_1");
        drop(second);
        assert_eq!(news.waiting.lock().len(), 1);
        drop(first);
        assert!(news.waiting.lock().is_empty());
        drop(held);
    }
}
