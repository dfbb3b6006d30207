//! Publishing: one channel in confirm mode, shared by all callers, replaced when it breaks.
//!
//! A publication counts only when the broker confirmed it. When the channel breaks before, nobody knows whether the
//! message was stored, so it is published again: at least once, never lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::link::{Backoff, Failure, Link};
use super::topology::{self, Names, Part};
use super::wire::{self, Encoded};
use crate::{Error, QueueName, TopicName};

const ACTION: &str = "take a message";

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Queue(QueueName, Part),
    Topic(TopicName),
}

pub(super) struct Publisher {
    link: Arc<Link>,
    names: Names,
    /// How long a publication may take, reconnecting included.
    patience: Duration,
    closed: CancellationToken,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    /// Names this process in broadcasts, and counts them. Held while sending, so that numbers leave in order.
    sender: String,
    sequences: tokio::sync::Mutex<HashMap<TopicName, u64>>,
}

/// A channel and what is known to exist because it was declared on it.
struct Session {
    channel: Channel,
    declared: Mutex<HashSet<Target>>,
}

enum Outcome {
    Stored,
    Unroutable,
    Refused,
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>, names: Names, patience: Duration, closed: CancellationToken) -> Self {
        Self {
            link,
            names,
            patience,
            closed,
            session: tokio::sync::Mutex::default(),
            sender: uuid::Uuid::new_v4().simple().to_string(),
            sequences: tokio::sync::Mutex::default(),
        }
    }

    /// Stores a message and returns when the broker confirmed it.
    pub(super) async fn publish(&self, target: Target, encoded: Encoded) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = Backoff::default();
        let mut unroutable = 0;
        let mut last = None;
        loop {
            let tried = tokio::select! {
                biased;
                () = self.closed.cancelled() => return Err(Error::Closed),
                tried = timeout_at(deadline, self.try_publish(&target, &encoded)) => tried,
            };
            match tried {
                Ok(Ok(Outcome::Stored)) => return Ok(()),
                // A refusal passes when the queue drains, or when the leader of a queue that somebody has just declared
                // is up; only one that lasts is an error.
                Ok(Ok(Outcome::Refused)) => {
                    let pause = backoff.next();
                    if Instant::now() + pause >= deadline {
                        return Err(Error::Full {
                            queue: self.name(&target),
                        });
                    }
                    sleep(pause).await;
                }
                // Somebody removed the queue behind our back: declare it again, once.
                Ok(Ok(Outcome::Unroutable)) if unroutable == 0 => unroutable += 1,
                Ok(Ok(Outcome::Unroutable)) => {
                    return Err(Error::Unroutable {
                        queue: self.name(&target),
                    });
                }
                Ok(Err(Failure::Passing(error))) => {
                    tracing::debug!(%error, "publishing again");
                    last = Some(error);
                    self.forget_session().await;
                    let pause = backoff.next();
                    if Instant::now() + pause >= deadline {
                        return Err(self.unavailable(last));
                    }
                    sleep(pause).await;
                }
                Ok(Err(failure)) => {
                    self.forget_session().await;
                    return Err(failure.into_error(ACTION, self.patience));
                }
                Err(_) => return Err(self.unavailable(last)),
            }
        }
    }

    fn unavailable(&self, last: Option<lapin::Error>) -> Error {
        if self.closed.is_cancelled() {
            return Error::Closed;
        }
        let source = last.map(|error| -> Box<dyn std::error::Error + Send + Sync> { error.into() });
        Error::Unavailable {
            action: ACTION,
            waited: self.patience,
            source,
        }
    }

    fn name(&self, target: &Target) -> String {
        match target {
            Target::Queue(queue, part) => self.names.queue(queue, *part),
            Target::Topic(topic) => self.names.exchange(topic),
        }
    }

    async fn try_publish(&self, target: &Target, encoded: &Encoded) -> Result<Outcome, Failure> {
        let session = self.session().await?;
        session.ensure(&self.names, target).await?;
        let confirm = match target {
            Target::Queue(..) => {
                let options = BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                };
                let (payload, properties) = (&encoded.payload, encoded.properties.clone());
                session
                    .channel
                    .basic_publish("".into(), self.name(target).into(), options, payload, properties)
                    .await?
            }
            Target::Topic(topic) => {
                let mut sequences = self.sequences.lock().await;
                let sequence = sequences.entry(topic.clone()).or_default();
                *sequence += 1;
                let Encoded { payload, properties } = wire::with_sequence(encoded.clone(), &self.sender, *sequence);
                let options = BasicPublishOptions::default();
                session
                    .channel
                    .basic_publish(self.name(target).into(), "".into(), options, &payload, properties)
                    .await?
            }
        };
        match confirm.await? {
            Confirmation::Ack(None) => Ok(Outcome::Stored),
            Confirmation::Ack(Some(_)) => {
                session.declared.lock().clear();
                Ok(Outcome::Unroutable)
            }
            Confirmation::Nack(_) | Confirmation::NotRequested => Ok(Outcome::Refused),
        }
    }

    async fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut current = self.session.lock().await;
        if let Some(session) = &*current
            && session.channel.status().connected()
        {
            return Ok(Arc::clone(session));
        }
        let channel = self.link.connection().await?.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let session = Arc::new(Session {
            channel,
            declared: Mutex::default(),
        });
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Drops the channel if it is broken, so that the next try opens another.
    async fn forget_session(&self) {
        let mut current = self.session.lock().await;
        if current
            .as_ref()
            .is_some_and(|session| !session.channel.status().connected())
        {
            *current = None;
        }
    }
}

impl Session {
    /// Declares what the target needs, once per channel. A queue's targets come first, so that nothing that expires or
    /// is given up finds no place to go.
    async fn ensure(&self, names: &Names, target: &Target) -> Result<(), lapin::Error> {
        if self.declared.lock().contains(target) {
            return Ok(());
        }
        match target {
            Target::Topic(topic) => topology::declare_topic(&self.channel, &names.exchange(topic)).await?,
            Target::Queue(queue, part) => {
                topology::declare(&self.channel, names, queue, Part::Dead).await?;
                topology::declare(&self.channel, names, queue, Part::Main).await?;
                if let Part::Retry(_) = part {
                    topology::declare(&self.channel, names, queue, *part).await?;
                }
            }
        }
        self.declared.lock().insert(target.clone());
        Ok(())
    }
}
