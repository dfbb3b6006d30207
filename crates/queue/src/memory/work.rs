//! One queue in memory: what is ready, what waits for its delay, and what is dead. All methods are short and never
//! wait.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::port::undecided;
use crate::{DeadLetter, Error, Message, QueueDepth, QueueName};

#[derive(Debug)]
pub(super) struct Work {
    name: QueueName,
    capacity: usize,
    max_attempts: u32,
    state: Mutex<State>,
    changed: Notify,
}

/// Keys are sequence numbers: a message that is handed back keeps its number and with it its place.
#[derive(Debug, Default)]
struct State {
    next_sequence: u64,
    ready: BTreeMap<u64, Entry>,
    delayed: BTreeMap<(Instant, u64), Entry>,
    dead: VecDeque<DeadLetter>,
    unacked: usize,
}

#[derive(Debug)]
pub(super) enum Entry {
    Message(Message),
    Raw(Bytes),
}

pub(super) enum Taken {
    /// The next message with its place.
    Message(u64, Message),
    /// Nothing is ready; look again at this instant or on a change.
    NothingUntil(Option<Instant>),
}

impl Entry {
    pub(super) fn message(mut message: Message, attempt: u32) -> Self {
        message.attempt = attempt;
        Self::Message(message)
    }

    pub(super) fn raw(bytes: Bytes) -> Self {
        Self::Raw(bytes)
    }
}

impl State {
    fn sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    fn insert(&mut self, entry: Entry, due: Option<Instant>) {
        let sequence = self.sequence();
        match due {
            Some(due) => self.delayed.insert((due, sequence), entry),
            None => self.ready.insert(sequence, entry),
        };
    }

    /// Moves what is due behind what is ready already, as a broker does when a delay ends.
    fn promote(&mut self, now: Instant) {
        while let Some(delayed) = self.delayed.first_entry()
            && delayed.key().0 <= now
        {
            let entry = delayed.remove();
            self.insert(entry, None);
        }
    }

    fn bury(&mut self, letter: DeadLetter, capacity: usize, name: &QueueName) {
        if self.dead.len() >= capacity {
            self.dead.pop_front();
            tracing::warn!(queue = %name, "too many dead letters, the oldest is dropped");
        }
        tracing::warn!(queue = %name, reason = %letter.reason, message.id = letter.message.as_ref().map(|m| m.id.as_str()), "message is a dead letter");
        self.dead.push_back(letter);
    }
}

impl Work {
    pub(super) fn new(name: QueueName, capacity: usize, max_attempts: u32) -> Self {
        Self {
            name,
            capacity,
            max_attempts,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Completes at the next change after it was enabled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn put(&self, entry: Entry, due: Option<Instant>) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.ready.len() + state.delayed.len() + state.unacked >= self.capacity {
            return Err(Error::Full {
                queue: self.name.to_string(),
            });
        }
        state.insert(entry, due);
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    pub(super) fn take(&self, now: Instant) -> Taken {
        let mut state = self.state.lock();
        state.promote(now);
        while let Some((sequence, entry)) = state.ready.pop_first() {
            let letter = match entry {
                Entry::Message(message) if message.attempt <= self.max_attempts => {
                    state.unacked += 1;
                    return Taken::Message(sequence, message);
                }
                Entry::Message(mut message) => {
                    // The attempt that would have been the next did not happen.
                    message.attempt = message.attempt.saturating_sub(1);
                    let reason = undecided(message.attempt);
                    letter(message, reason)
                }
                Entry::Raw(raw) => DeadLetter {
                    message: None,
                    raw,
                    reason: "not a message: it has no id".to_owned(),
                },
            };
            state.bury(letter, self.capacity, &self.name);
        }
        Taken::NothingUntil(state.delayed.first_key_value().map(|((due, _), _)| *due))
    }

    /// An undecided message is done.
    pub(super) fn forget(&self) {
        let mut state = self.state.lock();
        state.unacked = state.unacked.saturating_sub(1);
    }

    /// An undecided message goes back to its place and counts as tried.
    pub(super) fn hand_back(&self, sequence: u64, message: Message) {
        let mut state = self.state.lock();
        state.unacked = state.unacked.saturating_sub(1);
        let attempt = message.attempt.saturating_add(1);
        state.ready.insert(sequence, Entry::message(message, attempt));
        drop(state);
        self.changed.notify_waiters();
    }

    /// An undecided message waits for its next attempt.
    pub(super) fn delay(&self, message: Message, due: Option<Instant>) {
        let mut state = self.state.lock();
        state.unacked = state.unacked.saturating_sub(1);
        let attempt = message.attempt.saturating_add(1);
        state.insert(Entry::message(message, attempt), due);
        drop(state);
        self.changed.notify_waiters();
    }

    /// An undecided message is a dead letter now.
    pub(super) fn bury(&self, message: Message, reason: &str) {
        let mut state = self.state.lock();
        state.unacked = state.unacked.saturating_sub(1);
        state.bury(letter(message, reason.to_owned()), self.capacity, &self.name);
    }

    pub(super) fn depth(&self, now: Instant) -> QueueDepth {
        let mut state = self.state.lock();
        state.promote(now);
        QueueDepth {
            ready: state.ready.len() as u64,
            delayed: state.delayed.len() as u64,
            dead: state.dead.len() as u64,
            unacked: Some(state.unacked as u64),
        }
    }

    pub(super) fn dead_letters(&self, limit: usize) -> Vec<DeadLetter> {
        self.state.lock().dead.iter().take(limit).cloned().collect()
    }
}

fn letter(message: Message, reason: String) -> DeadLetter {
    DeadLetter {
        raw: Bytes::from(message.body.to_string()),
        message: Some(message),
        reason,
    }
}
