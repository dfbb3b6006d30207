//! What can go wrong with a queue, sorted by what the caller does next rather than by where it happened.

use std::time::Duration;

/// An error of a queue operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The queue was closed by [`Queue::close`](crate::Queue::close); stop working.
    #[error("the queue is closed")]
    Closed,
    /// The broker cannot be reached or did not answer in time. The operation may have taken effect; repeating it is safe.
    #[error("the message broker did not {action} within {waited:?}")]
    Unavailable {
        /// What was asked of the broker, as a verb phrase.
        action: &'static str,
        /// How long the caller waited.
        waited: Duration,
        /// The last thing that went wrong, when there is one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The broker answered, and said no (access, limits, conflicting declaration).
    #[error("the message broker refused to {action}")]
    Refused {
        /// What was asked of the broker, as a verb phrase.
        action: &'static str,
        /// The broker's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The message reached no queue and was not stored.
    #[error("queue {queue} does not exist, the message was not stored")]
    Unroutable {
        /// The queue that should have taken it.
        queue: String,
    },
    /// The queue holds as much as it may; the message was not stored. Try again when consumers have caught up.
    #[error("queue {queue} is full, the message was not stored")]
    Full {
        /// The queue that refused.
        queue: String,
    },
    /// The decision about a delivery came too late: it is being delivered again, possibly to another consumer.
    #[error("the delivery was lost with its connection and is delivered again")]
    DeliveryLost,
    /// A queue or topic name that brokers or operators could not live with.
    #[error("{name:?} is not a queue name: use lower case letters, digits, dots, hyphens and underscores, at most 150")]
    InvalidName {
        /// The name as given.
        name: String,
    },
    /// The message cannot be sent as it is.
    #[error("the message cannot be encoded: {reason}")]
    InvalidMessage {
        /// Why not.
        reason: String,
    },
    /// The connection parameters are wrong; no retry will help.
    #[error("the broker address is not usable: {reason}")]
    InvalidOptions {
        /// Why not; never contains the password.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Full { .. } | Self::Unroutable { .. }
        )
    }
}
