//! Listening to a topic: a private queue that lives and dies with the connection. Gaps are found by the numbers that each
//! sender gives to its broadcasts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::sleep;

use super::Shared;
use super::link::{Backoff, Failure};
use super::topology;
use super::wire::{self, Decoded};
use crate::{Error, Event, Subscription, TopicName};

/// How much the broker sends ahead; the rest waits there, where it is bounded.
const PREFETCH: u16 = 256;

pub(super) struct AmqpSubscription {
    shared: Arc<Shared>,
    topic: TopicName,
    session: Option<Session>,
    backoff: Backoff,
    /// Events that are known and not yet told.
    pending: VecDeque<Event>,
    told_disconnected: bool,
}

struct Session {
    stream: lapin::Consumer,
    /// The last number of each sender.
    last: HashMap<String, u64>,
}

impl AmqpSubscription {
    pub(super) fn new(shared: Arc<Shared>, topic: TopicName) -> Self {
        Self {
            shared,
            topic,
            session: None,
            backoff: Backoff::default(),
            pending: VecDeque::new(),
            told_disconnected: false,
        }
    }

    /// One try to begin listening.
    pub(super) async fn establish(&mut self) -> Result<(), Failure> {
        let channel = self.shared.consuming.connection().await?.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let exchange = self.shared.names.exchange(&self.topic);
        topology::declare_topic(&channel, &exchange).await?;
        let queue = topology::declare_subscription(&channel, &exchange).await?;
        let options = BasicConsumeOptions {
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let stream = channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await?;
        self.session = Some(Session {
            stream,
            last: HashMap::new(),
        });
        self.pending.push_back(Event::Connected);
        self.told_disconnected = false;
        self.backoff.reset();
        Ok(())
    }

    /// Says once that news may be missed from now on.
    pub(super) fn disconnected(&mut self) {
        self.session = None;
        if !self.told_disconnected {
            self.told_disconnected = true;
            self.pending.push_back(Event::Disconnected);
        }
    }
}

#[async_trait]
impl Subscription for AmqpSubscription {
    async fn receive(&mut self) -> Result<Event, Error> {
        let closed = self.shared.closed.clone();
        loop {
            if closed.is_cancelled() {
                return Err(Error::Closed);
            }
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let Some(session) = &mut self.session else {
                let tried = tokio::select! {
                    biased;
                    () = closed.cancelled() => return Err(Error::Closed),
                    tried = self.establish() => tried,
                };
                match tried {
                    Ok(()) => {}
                    Err(Failure::Passing(error)) => {
                        let pause = self.backoff.next();
                        tracing::debug!(topic = %self.topic, %error, retry_after = ?pause, "cannot listen yet");
                        tokio::select! {
                            () = closed.cancelled() => return Err(Error::Closed),
                            () = sleep(pause) => {}
                        }
                    }
                    Err(failure) => return Err(failure.into_error("let a subscriber listen", Duration::ZERO)),
                }
                continue;
            };
            let item = tokio::select! {
                biased;
                () = closed.cancelled() => return Err(Error::Closed),
                item = session.stream.next() => item,
            };
            match item {
                Some(Ok(delivery)) => {
                    // Only makes room for the next one, so it need not be waited for.
                    let _ = delivery.acker.ack(BasicAckOptions::default()).now_or_never();
                    if let Some((sender, number)) = wire::sequence(&delivery.properties) {
                        let missed = session.missed(sender, number);
                        if missed > 0 {
                            self.pending.push_back(Event::Lagged { missed });
                        }
                    }
                    match wire::decode(&delivery) {
                        Decoded::Message { message, .. } => self.pending.push_back(Event::Message(message)),
                        Decoded::Poison(reason) => tracing::warn!(topic = %self.topic, reason, "broadcast is skipped"),
                    }
                }
                item => {
                    let error = item.and_then(Result::err).map(|error| error.to_string());
                    tracing::warn!(topic = %self.topic, error, "subscription was interrupted, listening again");
                    self.disconnected();
                }
            }
        }
    }
}

impl Session {
    /// How many of a sender's broadcasts are missing before this one. What came before the first is not missed: the
    /// subscription was not there.
    fn missed(&mut self, sender: String, number: u64) -> u64 {
        match self.last.insert(sender, number) {
            Some(last) => number.saturating_sub(last).saturating_sub(1),
            None => 0,
        }
    }
}
