//! Consuming: one channel per consumer, opened again when it breaks. The consumer owns no task; whoever waits in
//! `receive` does the reconnecting.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::Acker;
use lapin::Channel;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::link::{Backoff, Failure};
use super::publisher::Target;
use super::topology::{self, Part, Step};
use super::wire::{self, Decoded, Encoded};
use crate::port::{Settle, undecided};
use crate::{Consumer, Delivery, Error, Message, QueueName};

pub(super) const ACTION: &str = "hand out messages";

pub(super) struct AmqpConsumer {
    shared: Arc<Shared>,
    queue: QueueName,
    prefetch: u16,
    max_attempts: u32,
    session: Option<Session>,
    backoff: Backoff,
}

struct Session {
    channel: Channel,
    stream: lapin::Consumer,
    /// Shared with the deliveries in progress, which are counted by it.
    in_progress: Arc<()>,
    last_sign_at: Instant,
}

impl Session {
    async fn open(shared: Arc<Shared>, queue: QueueName, prefetch: u16) -> Result<Self, Failure> {
        let channel = shared.consuming.connection().await?.create_channel().await?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        topology::declare(&channel, &shared.names, &queue, Part::Dead).await?;
        topology::declare(&channel, &shared.names, &queue, Part::Main).await?;
        let name = shared.names.queue(&queue, Part::Main);
        let options = BasicConsumeOptions::default();
        let stream = channel
            .basic_consume(name.into(), "".into(), options, FieldTable::default())
            .await?;
        Ok(Self {
            channel,
            stream,
            in_progress: Arc::default(),
            last_sign_at: Instant::now(),
        })
    }

    /// Ends it and hands back at once what was handed out in advance, instead of with the last delivery in progress,
    /// which keeps the channel until then.
    async fn release(self) {
        let Self {
            channel, mut stream, ..
        } = self;
        if channel
            .basic_cancel(stream.tag(), BasicCancelOptions::default())
            .await
            .is_ok()
        {
            while let Some(Ok(delivery)) = stream.next().await {
                let _ = delivery.acker.reject(BasicRejectOptions { requeue: true }).await;
            }
        }
    }
}

impl AmqpConsumer {
    pub(super) fn new(shared: Arc<Shared>, queue: QueueName, prefetch: u16) -> Self {
        let max_attempts = shared.policies.get(&queue).max_attempts.max(1);
        Self {
            shared,
            queue,
            prefetch: prefetch.max(1),
            max_attempts,
            session: None,
            backoff: Backoff::default(),
        }
    }

    /// One try to begin consuming. In a task of its own, which comes to its end also when nobody waits for it any more:
    /// the broker hands messages to a consumer that is begun by halves, and they would stay with it.
    pub(super) async fn establish(&mut self) -> Result<(), Failure> {
        let opening = Session::open(Arc::clone(&self.shared), self.queue.clone(), self.prefetch);
        let (sender, opened) = oneshot::channel();
        self.shared.tasks.spawn(async move {
            if let Err(Ok(unwanted)) = sender.send(opening.await) {
                unwanted.release().await;
            }
        });
        self.session = Some(opened.await.map_err(|_| Failure::Closed)??);
        self.backoff.reset();
        Ok(())
    }

    /// The next delivery of the broker, over as many connections as it takes.
    async fn next(&mut self) -> Result<(lapin::message::Delivery, Hold), Error> {
        loop {
            let closed = self.shared.closed.clone();
            let Some(session) = &mut self.session else {
                let tried = tokio::select! {
                    biased;
                    () = closed.cancelled() => return Err(Error::Closed),
                    tried = self.establish() => tried,
                };
                match tried {
                    Ok(()) => tracing::debug!(queue = %self.queue, "consuming"),
                    Err(Failure::Passing(error)) => {
                        let pause = self.backoff.next();
                        tracing::debug!(queue = %self.queue, %error, retry_after = ?pause, "cannot consume yet");
                        tokio::select! {
                            () = closed.cancelled() => return Err(Error::Closed),
                            () = sleep(pause) => {}
                        }
                    }
                    Err(failure) => return Err(failure.into_error(ACTION, Duration::ZERO)),
                }
                continue;
            };
            let item = tokio::select! {
                biased;
                () = closed.cancelled() => return Err(Error::Closed),
                item = session.stream.next() => item,
                () = sleep_until(session.last_sign_at + self.shared.idle_renewal) => {
                    session.last_sign_at = Instant::now();
                    if Arc::strong_count(&session.in_progress) == 1
                        && let Some(session) = self.session.take()
                    {
                        session.release().await;
                    }
                    continue;
                }
            };
            match item {
                Some(Ok(delivery)) => {
                    session.last_sign_at = Instant::now();
                    let hold = Hold {
                        _channel: session.channel.clone(),
                        _counted: Arc::clone(&session.in_progress),
                    };
                    return Ok((delivery, hold));
                }
                Some(Err(error)) => {
                    tracing::warn!(queue = %self.queue, %error, "consumer was interrupted, consuming again");
                    self.session = None;
                }
                None => {
                    tracing::warn!(queue = %self.queue, "consumer was cancelled by the broker, consuming again");
                    self.session = None;
                }
            }
        }
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn receive(&mut self) -> Result<Delivery, Error> {
        loop {
            let (delivery, hold) = self.next().await?;
            let decoded = wire::decode(&delivery);
            // From here on the message is handed back when anything goes wrong or this future is dropped.
            let settle = AmqpSettle {
                shared: Arc::clone(&self.shared),
                queue: self.queue.clone(),
                acker: Some(delivery.acker),
                _hold: hold,
            };
            match decoded {
                Decoded::Message { message, delay_left } if !delay_left.is_zero() => {
                    let attempt = message.attempt;
                    self.put_aside(settle.delay(&message, attempt, delay_left).await)
                        .await?;
                }
                Decoded::Message { message, .. } if message.attempt > self.max_attempts => {
                    let tried = message.attempt.saturating_sub(1);
                    let encoded = wire::encode(&message, tried, Duration::ZERO);
                    self.put_aside(settle.bury(encoded, &undecided(tried)).await).await?;
                }
                Decoded::Message { message, .. } => {
                    return Ok(Delivery::new(message, self.max_attempts, Box::new(settle)));
                }
                Decoded::Poison(reason) => {
                    let encoded = Encoded {
                        payload: delivery.data.into(),
                        properties: delivery.properties,
                    };
                    self.put_aside(settle.bury(encoded, &reason).await).await?;
                }
            }
        }
    }
}

impl AmqpConsumer {
    /// After moving a message elsewhere without showing it to the caller. When that failed the message comes again, so
    /// a broken broker must not make this a tight loop.
    async fn put_aside(&mut self, moved: Result<(), Error>) -> Result<(), Error> {
        match moved {
            Ok(()) => Ok(()),
            Err(Error::Closed) => Err(Error::Closed),
            Err(error) => {
                tracing::warn!(queue = %self.queue, %error, "message could not be moved, it comes again");
                sleep(self.backoff.next()).await;
                Ok(())
            }
        }
    }
}

impl Drop for AmqpConsumer {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            self.shared.tasks.spawn_on(session.release(), &runtime);
        }
    }
}

pub(super) struct AmqpSettle {
    shared: Arc<Shared>,
    queue: QueueName,
    /// Taken by a decision; what is left is handed back.
    acker: Option<Acker>,
    _hold: Hold,
}

/// What a delivery in progress keeps: the channel, on which alone it can be acknowledged, and its place in the count.
struct Hold {
    _channel: Channel,
    _counted: Arc<()>,
}

impl AmqpSettle {
    async fn acknowledge(mut self) -> Result<(), Error> {
        match self.acker.take() {
            Some(acker) => match acker.ack(Default::default()).await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(self.lost()),
            },
            None => Ok(()),
        }
    }

    fn lost(&self) -> Error {
        if self.shared.closed.is_cancelled() {
            Error::Closed
        } else {
            Error::DeliveryLost
        }
    }

    /// Stores the message in a retry queue, then takes it out of the main one: between the two it exists twice, never
    /// not at all.
    async fn delay(self, message: &Message, attempt: u32, delay: Duration) -> Result<(), Error> {
        let (step, left) = Step::split(delay);
        let target = Target::Queue(self.queue.clone(), Part::Retry(step));
        self.shared
            .publisher
            .publish(target, wire::encode(message, attempt, left))
            .await?;
        self.acknowledge().await
    }

    async fn bury(self, encoded: Encoded, reason: &str) -> Result<(), Error> {
        tracing::warn!(queue = %self.queue, reason, "message is a dead letter");
        let target = Target::Queue(self.queue.clone(), Part::Dead);
        self.shared
            .publisher
            .publish(target, wire::with_reason(encoded, reason))
            .await?;
        self.acknowledge().await
    }
}

#[async_trait]
impl Settle for AmqpSettle {
    async fn ack(self: Box<Self>) -> Result<(), Error> {
        self.acknowledge().await
    }

    async fn nack(mut self: Box<Self>, message: Message, delay: Duration) -> Result<(), Error> {
        if !delay.is_zero() {
            let attempt = message.attempt.saturating_add(1);
            return self.delay(&message, attempt, delay).await;
        }
        // The broker itself hands back at once, in place and counted.
        match self.acker.take() {
            Some(acker) => match acker.reject(BasicRejectOptions { requeue: true }).await {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(self.lost()),
            },
            None => Ok(()),
        }
    }

    async fn dead_letter(self: Box<Self>, message: Message, reason: &str) -> Result<(), Error> {
        let encoded = wire::encode(&message, message.attempt, Duration::ZERO);
        self.bury(encoded, reason).await
    }
}

impl Drop for AmqpSettle {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            // The first poll puts the frame into the send queue; nobody needs to wait for it to leave.
            let _ = acker.reject(BasicRejectOptions { requeue: true }).now_or_never();
        }
    }
}
