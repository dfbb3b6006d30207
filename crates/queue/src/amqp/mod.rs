//! The queue on an AMQP 0-9-1 broker (RabbitMQ 3.10 and newer, no plugins).
//!
//! Two connections, because a broker that is short of memory stops reading from connections that publish, and
//! acknowledgements must go on then. Both are opened when first needed and again whenever they break, so a service can
//! start before its broker; [`Queue::health`] tells the difference.

mod consumer;
mod inspect;
mod link;
mod publisher;
mod subscription;
mod topology;
mod wire;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::uri::AMQPUri;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::consumer::AmqpConsumer;
use self::link::{Failure, Link};
use self::publisher::{Publisher, Target};
use self::subscription::AmqpSubscription;
use self::topology::{Names, Part, Step};
use crate::{Consumer, DeadLetter, Error, Message, Policies, Queue, QueueDepth, QueueName, Subscription, TopicName};

/// Longest prefix; with the longest name and the longest ending it fits into AMQP's 255 bytes.
const MAX_PREFIX_LEN: usize = 50;

/// Seconds between signs of life, when the address does not say otherwise. A broker that vanished without a word is
/// noticed after twice that.
const HEARTBEAT_SECONDS: u16 = 10;

/// How long `close` waits for what is on its way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How to reach the broker.
#[derive(Clone)]
pub struct AmqpOptions {
    /// `amqp://user:password@host:port/vhost`, or `amqps` for TLS. `?heartbeat=` is understood.
    pub url: String,
    /// Put before every name on the broker, to keep installations apart that share one. Empty for none.
    pub prefix: String,
    /// Shown in the broker's list of connections.
    pub connection_name: String,
    /// How long an operation may take before it is an error, reconnecting included.
    pub patience: Duration,
    /// After how long without a message a consumer begins anew. When a queue is removed and created again at once,
    /// RabbitMQ 3.10 goes on with the old consumers but withholds messages from them, without a word.
    pub idle_renewal: Duration,
    /// How often messages are tried.
    pub policies: Policies,
}

impl AmqpOptions {
    /// The defaults for a broker at this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            connection_name: "copass".to_owned(),
            patience: Duration::from_secs(10),
            idle_renewal: Duration::from_secs(60),
            policies: Policies::default(),
        }
    }
}

impl fmt::Debug for AmqpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address holds the password.
        f.debug_struct("AmqpOptions")
            .field("prefix", &self.prefix)
            .field("connection_name", &self.connection_name)
            .finish_non_exhaustive()
    }
}

/// A [`Queue`] on a broker. Clones share the connections.
#[derive(Clone)]
pub struct AmqpQueue {
    shared: Arc<Shared>,
}

struct Shared {
    names: Names,
    policies: Policies,
    patience: Duration,
    idle_renewal: Duration,
    publishing: Arc<Link>,
    consuming: Arc<Link>,
    publisher: Publisher,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for AmqpQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpQueue")
            .field("names", &self.shared.names)
            .finish_non_exhaustive()
    }
}

impl AmqpQueue {
    /// Checks the options. Connects when first used, so it succeeds while the broker is away.
    pub fn new(options: AmqpOptions) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::InvalidOptions {
            reason: reason.to_owned(),
        };
        let prefix = options.prefix;
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if prefix.len() > MAX_PREFIX_LEN || !prefix.bytes().all(is_plain) {
            return Err(invalid(
                "the prefix may have 50 lower case letters, digits, dots, hyphens and underscores",
            ));
        }
        // The parser's own message may quote the address with its password.
        let mut uri = AMQPUri::from_str(&options.url)
            .map_err(|_| invalid("it must look like amqp://user:password@host:5672/%2f"))?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let closed = CancellationToken::new();
        let link = |purpose: &str| {
            let name = format!("{} {purpose}", options.connection_name);
            Arc::new(Link::new(uri.clone(), name, closed.clone()))
        };
        let (publishing, consuming) = (link("publishing"), link("consuming"));
        let names = Names::new(prefix);
        let publisher = Publisher::new(Arc::clone(&publishing), names.clone(), options.patience, closed.clone());
        let shared = Shared {
            names,
            policies: options.policies,
            patience: options.patience,
            idle_renewal: options.idle_renewal,
            publishing,
            consuming,
            publisher,
            closed,
            tasks: TaskTracker::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Removes a queue with everything in it, its dead letters and its delayed messages. For tests and for operators.
    pub async fn delete(&self, queue: &QueueName) -> Result<(), Error> {
        self.within("remove a queue", self.shared.delete(queue)).await
    }

    /// Removes a topic.
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), Error> {
        self.within("remove a topic", self.shared.delete_topic(topic)).await
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.shared.closed.is_cancelled() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Runs one short conversation with the broker, ended by the patience and by `close`.
    async fn within<T>(
        &self,
        action: &'static str,
        conversation: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Error> {
        self.check_open()?;
        let waited = self.shared.patience;
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => Err(Error::Closed),
            done = timeout(waited, conversation) => match done {
                Ok(done) => done.map_err(|failure| failure.into_error(action, waited)),
                Err(_) => Err(Error::Unavailable { action, waited, source: None }),
            },
        }
    }
}

#[async_trait]
impl Queue for AmqpQueue {
    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), Error> {
        self.publish_after(queue, message, Duration::ZERO).await
    }

    async fn publish_after(&self, queue: &QueueName, message: Message, delay: Duration) -> Result<(), Error> {
        self.check_open()?;
        message.check()?;
        let (part, left) = if delay.is_zero() {
            (Part::Main, Duration::ZERO)
        } else {
            let (step, left) = Step::split(delay);
            (Part::Retry(step), left)
        };
        self.shared
            .publisher
            .publish(Target::Queue(queue.clone(), part), wire::encode(&message, 1, left))
            .await
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Box<dyn Consumer>, Error> {
        self.check_open()?;
        let mut consumer = AmqpConsumer::new(Arc::clone(&self.shared), queue.clone(), prefetch);
        match self.within(consumer::ACTION, consumer.establish()).await {
            // `receive` waits for a broker that is away.
            Ok(()) | Err(Error::Unavailable { .. }) => Ok(Box::new(consumer)),
            Err(error) => Err(error),
        }
    }

    async fn broadcast(&self, topic: &TopicName, message: Message) -> Result<(), Error> {
        self.check_open()?;
        message.check()?;
        self.shared
            .publisher
            .publish(Target::Topic(topic.clone()), wire::encode(&message, 1, Duration::ZERO))
            .await
    }

    async fn subscribe(&self, topic: &TopicName) -> Result<Box<dyn Subscription>, Error> {
        self.check_open()?;
        let mut subscription = AmqpSubscription::new(Arc::clone(&self.shared), topic.clone());
        match self.within("let a subscriber listen", subscription.establish()).await {
            Ok(()) => Ok(Box::new(subscription)),
            Err(Error::Unavailable { .. }) => {
                subscription.disconnected();
                Ok(Box::new(subscription))
            }
            Err(error) => Err(error),
        }
    }

    async fn health(&self) -> Result<(), Error> {
        self.within("answer", self.shared.health()).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<QueueDepth, Error> {
        self.within("count messages", self.shared.depth(queue)).await
    }

    async fn dead_letters(&self, queue: &QueueName, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        self.within("show dead letters", self.shared.dead_letters(queue, limit))
            .await
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        self.shared.tasks.close();
        if timeout(CLOSE_PATIENCE, self.shared.tasks.wait()).await.is_err() {
            tracing::debug!("messages that were handed out in advance go back with the connection");
        }
        // Publishing first: what a handler still wants to publish fails before its delivery is handed back.
        self.shared.publishing.close().await;
        self.shared.consuming.close().await;
    }
}
