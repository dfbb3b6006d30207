//! The twin in the same process, for `copass dev` and for tests of services.
//!
//! It keeps every promise of the port except to outlive the process. It owns no task and no thread: a consumer that
//! waits does its own waiting, woken by a change or by the end of the nearest delay.

mod work;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::work::{Entry, Taken, Work};
use crate::port::Settle;
use crate::{
    Consumer, DeadLetter, Delivery, Error, Event, Message, Policies, Queue, QueueDepth, QueueName, Subscription,
    TopicName,
};

/// How many messages one queue holds before `publish` is refused.
const DEFAULT_CAPACITY: usize = 100_000;

/// How far a subscriber may fall behind before it is told that it lagged.
const TOPIC_CAPACITY: usize = 1_024;

/// A [`Queue`] inside this process. Clones share the same queues.
#[derive(Clone, Debug)]
pub struct MemoryQueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    policies: Policies,
    capacity: usize,
    queues: Mutex<BTreeMap<QueueName, Arc<Work>>>,
    topics: Mutex<BTreeMap<TopicName, broadcast::Sender<Message>>>,
    closed: CancellationToken,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new(Policies::default())
    }
}

impl MemoryQueue {
    /// Empty queues with these policies.
    pub fn new(policies: Policies) -> Self {
        Self::with_capacity(policies, DEFAULT_CAPACITY)
    }

    /// As [`new`](Self::new), with another bound on the messages that one queue holds.
    pub fn with_capacity(policies: Policies, capacity: usize) -> Self {
        let inner = Inner {
            policies,
            capacity,
            queues: Mutex::default(),
            topics: Mutex::default(),
            closed: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Puts bytes into a queue that may or may not be a message, as a foreign program could on a broker.
    pub fn publish_raw(&self, queue: &QueueName, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.check_open()?;
        self.work(queue).put(Entry::raw(bytes.into()), None)
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.inner.closed.is_cancelled() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    fn work(&self, queue: &QueueName) -> Arc<Work> {
        let mut queues = self.inner.queues.lock();
        if let Some(work) = queues.get(queue) {
            return Arc::clone(work);
        }
        let max_attempts = self.inner.policies.get(queue).max_attempts.max(1);
        let work = Arc::new(Work::new(queue.clone(), self.inner.capacity, max_attempts));
        queues.insert(queue.clone(), Arc::clone(&work));
        work
    }

    fn topic(&self, topic: &TopicName) -> broadcast::Sender<Message> {
        let mut topics = self.inner.topics.lock();
        topics
            .entry(topic.clone())
            .or_insert_with(|| broadcast::Sender::new(TOPIC_CAPACITY))
            .clone()
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), Error> {
        self.publish_after(queue, message, Duration::ZERO).await
    }

    async fn publish_after(&self, queue: &QueueName, message: Message, delay: Duration) -> Result<(), Error> {
        self.check_open()?;
        message.check()?;
        self.work(queue).put(Entry::message(message, 1), due(delay))
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Box<dyn Consumer>, Error> {
        self.check_open()?;
        Ok(Box::new(MemoryConsumer {
            work: self.work(queue),
            permits: Arc::new(Semaphore::new(prefetch.max(1).into())),
            closed: self.inner.closed.clone(),
        }))
    }

    async fn broadcast(&self, topic: &TopicName, mut message: Message) -> Result<(), Error> {
        self.check_open()?;
        message.check()?;
        message.attempt = 1;
        // The only error is that nobody listens.
        let _ = self.topic(topic).send(message);
        Ok(())
    }

    async fn subscribe(&self, topic: &TopicName) -> Result<Box<dyn Subscription>, Error> {
        self.check_open()?;
        let receiver = self.topic(topic).subscribe();
        Ok(Box::new(MemorySubscription {
            receiver,
            closed: self.inner.closed.clone(),
            greeted: false,
        }))
    }

    async fn health(&self) -> Result<(), Error> {
        self.check_open()
    }

    async fn depth(&self, queue: &QueueName) -> Result<QueueDepth, Error> {
        self.check_open()?;
        Ok(self.work(queue).depth(Instant::now()))
    }

    async fn dead_letters(&self, queue: &QueueName, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.check_open()?;
        Ok(self.work(queue).dead_letters(limit))
    }

    async fn close(&self) {
        self.inner.closed.cancel();
    }
}

/// The end of a delay; `None` where there is none or where it is beyond the clock.
fn due(delay: Duration) -> Option<Instant> {
    if delay.is_zero() {
        None
    } else {
        Instant::now().checked_add(delay)
    }
}

struct MemoryConsumer {
    work: Arc<Work>,
    permits: Arc<Semaphore>,
    closed: CancellationToken,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn receive(&mut self) -> Result<Delivery, Error> {
        let permit = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(Error::Closed),
            permit = Arc::clone(&self.permits).acquire_owned() => permit.map_err(|_| Error::Closed)?,
        };
        loop {
            // Registered before looking, so that a message put between looking and waiting wakes us.
            let mut changed = pin!(self.work.changed());
            changed.as_mut().enable();
            let wake_at = match self.work.take(Instant::now()) {
                Taken::Message(sequence, message) => {
                    let held = message.clone();
                    let max_attempts = self.work.max_attempts();
                    let settle = MemorySettle {
                        work: Arc::clone(&self.work),
                        closed: self.closed.clone(),
                        undecided: Some((sequence, held)),
                        _permit: permit,
                    };
                    return Ok(Delivery::new(message, max_attempts, Box::new(settle)));
                }
                Taken::NothingUntil(wake_at) => wake_at,
            };
            let delay_ends = async {
                match wake_at {
                    Some(instant) => sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return Err(Error::Closed),
                () = changed => {}
                () = delay_ends => {}
            }
        }
    }
}

/// Fields drop in order after `Drop::drop`, so the message is back before the permit lets the consumer take the next.
struct MemorySettle {
    work: Arc<Work>,
    closed: CancellationToken,
    undecided: Option<(u64, Message)>,
    _permit: OwnedSemaphorePermit,
}

impl MemorySettle {
    fn decide(&mut self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            // As on a broker, whose connection is gone now: dropping hands back.
            return Err(Error::Closed);
        }
        self.undecided = None;
        Ok(())
    }
}

#[async_trait]
impl Settle for MemorySettle {
    async fn ack(mut self: Box<Self>) -> Result<(), Error> {
        self.decide()?;
        self.work.forget();
        Ok(())
    }

    async fn nack(mut self: Box<Self>, message: Message, delay: Duration) -> Result<(), Error> {
        if delay.is_zero() {
            // Keeps its place, which is what dropping does.
            return if self.closed.is_cancelled() {
                Err(Error::Closed)
            } else {
                Ok(())
            };
        }
        self.decide()?;
        self.work.delay(message, due(delay));
        Ok(())
    }

    async fn dead_letter(mut self: Box<Self>, message: Message, reason: &str) -> Result<(), Error> {
        self.decide()?;
        self.work.bury(message, reason);
        Ok(())
    }
}

impl Drop for MemorySettle {
    fn drop(&mut self) {
        if let Some((sequence, message)) = self.undecided.take() {
            self.work.hand_back(sequence, message);
        }
    }
}

struct MemorySubscription {
    receiver: broadcast::Receiver<Message>,
    closed: CancellationToken,
    greeted: bool,
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn receive(&mut self) -> Result<Event, Error> {
        if !self.greeted {
            self.greeted = true;
            return Ok(Event::Connected);
        }
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::Closed),
            received = self.receiver.recv() => match received {
                Ok(message) => Ok(Event::Message(message)),
                Err(broadcast::error::RecvError::Lagged(missed)) => Ok(Event::Lagged { missed }),
                Err(broadcast::error::RecvError::Closed) => Err(Error::Closed),
            },
        }
    }
}
