//! The port: what services program against.
//!
//! Deciding about a delivery consumes it, so a message cannot be acknowledged twice or acknowledged and handed back.
//! Forgetting to decide is safe: dropping a [`Delivery`] hands the message back.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{DeadLetter, Error, Message, QueueName, TopicName};

/// A message broker as copass needs it. Used as `Arc<dyn Queue>`.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Stores a message. Returns after the broker confirmed it, so the caller may forget it then.
    ///
    /// Waits through short interruptions; after an [`Error::Unavailable`] the message may still have been stored, and
    /// publishing it again with the same id is safe.
    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), Error>;

    /// Stores a message now that is delivered after `delay`, never earlier. A broker may round the delay up.
    async fn publish_after(&self, queue: &QueueName, message: Message, delay: Duration) -> Result<(), Error>;

    /// Starts to consume. At most `prefetch` deliveries (at least 1) are undecided at a time. Returns also while the
    /// broker is away; [`Consumer::receive`] waits for it.
    ///
    /// Choose `prefetch` as the number of messages that are handled at once: what a broker has handed out in advance
    /// counts as tried when the process dies. Decide within minutes (RabbitMQ takes a message back after 30): longer
    /// work records that it began, acknowledges, and keeps a lease of its own.
    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Box<dyn Consumer>, Error>;

    /// Tells every connected subscriber of a topic. Nobody listening is no error.
    async fn broadcast(&self, topic: &TopicName, message: Message) -> Result<(), Error>;

    /// Listens to a topic. After [`Event::Connected`], every broadcast reaches the subscription or is reported as
    /// missed; with a broker that is there, that holds as soon as this returns.
    async fn subscribe(&self, topic: &TopicName) -> Result<Box<dyn Subscription>, Error>;

    /// Whether messages can be published and consumed now; quick, for readiness.
    async fn health(&self) -> Result<(), Error>;

    /// How much waits in a queue.
    async fn depth(&self, queue: &QueueName) -> Result<QueueDepth, Error>;

    /// The oldest dead letters of a queue, which stay where they are.
    async fn dead_letters(&self, queue: &QueueName, limit: usize) -> Result<Vec<DeadLetter>, Error>;

    /// Ends everything in good order: consumers and subscriptions return [`Error::Closed`], undecided messages are
    /// handed back. May be called twice.
    async fn close(&self);
}

/// One consumer of one queue. Dropping it hands back what it holds.
#[async_trait]
pub trait Consumer: Send {
    /// The next message. Cancel safe: when the future is dropped, no message is lost and none is counted as tried.
    ///
    /// Waits while the queue is empty, while `prefetch` deliveries are undecided and while the broker is away. Ends
    /// with [`Error::Closed`] or with an error that waiting does not cure.
    async fn receive(&mut self) -> Result<Delivery, Error>;
}

/// One subscription to a topic.
#[async_trait]
pub trait Subscription: Send {
    /// The next event. Cancel safe.
    async fn receive(&mut self) -> Result<Event, Error>;
}

/// What a subscriber learns. A cache fed by a topic trusts itself only between `Connected` and the next
/// `Disconnected`, and forgets everything on `Connected` and `Lagged`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The subscription is live from here on. The first event, unless the broker was away, and the first after each
    /// `Disconnected`. What was sent before is unknown.
    Connected,
    /// The connection is lost; news may be missed until `Connected`.
    Disconnected,
    /// Messages were missed although the connection held, because the subscriber was too slow.
    Lagged {
        /// How many, at least.
        missed: u64,
    },
    /// A message.
    Message(Message),
}

/// How much waits in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Can be delivered now.
    pub ready: u64,
    /// Waits for its delay to end.
    pub delayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Delivered and undecided, over all consumers; not every broker tells.
    pub unacked: Option<u64>,
}

/// What an implementation does with a decided delivery. Dropping it hands the message back at once, which also covers a
/// decision whose future is dropped half-way.
#[async_trait]
pub(crate) trait Settle: Send {
    /// Takes the message out of the queue.
    async fn ack(self: Box<Self>) -> Result<(), Error>;
    /// Delivers the message, which is as it was delivered, again after the delay.
    async fn nack(self: Box<Self>, message: Message, delay: Duration) -> Result<(), Error>;
    /// Moves the message to the dead letters.
    async fn dead_letter(self: Box<Self>, message: Message, reason: &str) -> Result<(), Error>;
}

/// A message that waits for a decision. Dropped without one, it is delivered again with the next attempt number.
///
/// It stays valid when its [`Consumer`] is dropped: a worker that stops drops the consumer first, finishes what it has,
/// and closes the queue last.
#[must_use = "dropping a delivery hands the message back"]
pub struct Delivery {
    /// The message.
    pub message: Message,
    max_attempts: u32,
    settle: Box<dyn Settle>,
}

impl Delivery {
    pub(crate) fn new(message: Message, max_attempts: u32, settle: Box<dyn Settle>) -> Self {
        Self {
            message,
            max_attempts,
            settle,
        }
    }

    /// Whether handing back would make this a dead letter.
    pub fn is_last_attempt(&self) -> bool {
        self.message.attempt >= self.max_attempts
    }

    /// The work is done and durable; the message is not delivered again.
    ///
    /// [`Error::DeliveryLost`] means that it will be, although the work is done: the inbox makes that harmless.
    pub async fn ack(self) -> Result<(), Error> {
        self.settle.ack().await
    }

    /// The work could not be done now: deliver again after `delay` with the next attempt number, or move to the dead
    /// letters when the attempts are used up.
    pub async fn nack(self, delay: Duration) -> Result<(), Error> {
        self.retry(delay, "handed back").await
    }

    /// As [`nack`](Self::nack), and says why, so that the dead letter can tell what the last attempt ran into.
    pub async fn retry(self, delay: Duration, reason: &str) -> Result<(), Error> {
        if self.is_last_attempt() {
            let reason = format!("gave up after {}, last: {reason}", attempts(self.message.attempt));
            self.settle.dead_letter(self.message, &reason).await
        } else {
            self.settle.nack(self.message, delay).await
        }
    }

    /// The work can never be done: move to the dead letters and say why.
    pub async fn dead_letter(self, reason: &str) -> Result<(), Error> {
        self.settle.dead_letter(self.message, reason).await
    }
}

/// The reason for a message that kept coming back without anybody deciding about it.
pub(crate) fn undecided(attempt: u32) -> String {
    format!("gave up after {} that ended without a decision", attempts(attempt))
}

fn attempts(number: u32) -> String {
    if number == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{number} attempts")
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}
