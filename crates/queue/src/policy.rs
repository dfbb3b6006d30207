//! How often a message may be tried. Part of the deployment, not of a message, so both sides of a queue agree on it.

use std::collections::BTreeMap;

use crate::QueueName;

/// What a queue does with messages that are not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often a message is delivered before it becomes a dead letter. At least 1.
    pub max_attempts: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_attempts: 10 }
    }
}

/// The policies of all queues: one default and the exceptions.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    default: Policy,
    by_queue: BTreeMap<QueueName, Policy>,
}

impl Policies {
    /// The same policy for every queue that is not named otherwise.
    pub fn new(default: Policy) -> Self {
        Self {
            default,
            by_queue: BTreeMap::new(),
        }
    }

    /// Another policy for one queue.
    #[must_use]
    pub fn with(mut self, queue: QueueName, policy: Policy) -> Self {
        self.by_queue.insert(queue, policy);
        self
    }

    /// The policy of a queue.
    pub fn get(&self, queue: &QueueName) -> Policy {
        self.by_queue.get(queue).copied().unwrap_or(self.default)
    }
}
