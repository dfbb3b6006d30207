//! Which queues and exchanges stand behind one name, and how they are declared.
//!
//! For a queue `q`: `q` itself, `q.dead` for dead letters, and `q.retry.<step>` for delays. A delay is a message in a
//! retry queue that nobody consumes; when its time to live ends, the broker moves it back to `q`. The time to live
//! belongs to the queue and not to the message, because a broker only looks at the head of a queue: with one queue for
//! all delays a long one would hold up the short ones behind it. Hence a ladder of steps; a delay is rounded up to
//! the next step, and one beyond the ladder climbs its last step repeatedly.
//!
//! All of them are quorum queues: replicated where the broker is a cluster, and synced to disk before the confirm. The
//! hop out of a retry queue is `at-least-once`, so a message is not lost between the two queues either.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use crate::{QueueName, TopicName};

/// The ladder of delays.
const STEPS: [Step; 10] = [
    Step {
        name: "250ms",
        millis: 250,
    },
    Step {
        name: "1s",
        millis: 1_000,
    },
    Step {
        name: "2s",
        millis: 2_000,
    },
    Step {
        name: "5s",
        millis: 5_000,
    },
    Step {
        name: "15s",
        millis: 15_000,
    },
    Step {
        name: "1m",
        millis: 60_000,
    },
    Step {
        name: "5m",
        millis: 300_000,
    },
    Step {
        name: "15m",
        millis: 900_000,
    },
    Step {
        name: "1h",
        millis: 3_600_000,
    },
    Step {
        name: "6h",
        millis: 21_600_000,
    },
];

/// Newer brokers drop a message after 20 returns unless told otherwise; here the policy counts and gives a reason.
const DELIVERY_LIMIT: i32 = 1_000_000;

/// What a subscriber that stands still may keep waiting before the oldest news is dropped and it is told so.
const SUBSCRIPTION_LIMIT: i32 = 10_000;

/// One rung of the ladder of delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Step {
    name: &'static str,
    millis: i32,
}

impl Step {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        STEPS.into_iter()
    }

    /// The step for a delay and what is left of the delay after it.
    pub(super) fn split(delay: Duration) -> (Self, Duration) {
        let fitting = STEPS.into_iter().find(|step| step.duration() >= delay);
        let step = fitting.unwrap_or(STEPS[STEPS.len() - 1]);
        (step, delay.saturating_sub(step.duration()))
    }

    fn duration(self) -> Duration {
        Duration::from_millis(self.millis.unsigned_abs().into())
    }
}

/// One of the broker's queues that belong to a [`QueueName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Main,
    Dead,
    Retry(Step),
}

/// The names on the broker. The prefix keeps installations, and tests, that share a broker apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    pub(super) fn queue(&self, queue: &QueueName, part: Part) -> String {
        let prefix = &self.prefix;
        match part {
            Part::Main => format!("{prefix}{queue}"),
            Part::Dead => format!("{prefix}{queue}.dead"),
            Part::Retry(step) => format!("{prefix}{queue}.retry.{}", step.name),
        }
    }

    pub(super) fn exchange(&self, topic: &TopicName) -> String {
        format!("{}{topic}", self.prefix)
    }
}

/// Declares one part of a queue and returns how many messages wait in it. What it refers to is declared by the caller,
/// first.
pub(super) async fn declare(
    channel: &Channel,
    names: &Names,
    queue: &QueueName,
    part: Part,
) -> Result<u64, lapin::Error> {
    let mut arguments = Arguments::quorum();
    match part {
        Part::Dead => {}
        Part::Main => {
            // Used when the broker itself gives up on a message; the policy comes long before.
            arguments = arguments.dead_letters_to(&names.queue(queue, Part::Dead));
        }
        Part::Retry(step) => {
            arguments = arguments
                .dead_letters_to(&names.queue(queue, Part::Main))
                .int("x-message-ttl", step.millis);
        }
    }
    let name = names.queue(queue, part);
    let declared = channel
        .queue_declare(name.into(), QueueDeclareOptions::durable(), arguments.0)
        .await?;
    Ok(declared.message_count().into())
}

/// Declares the exchange of a topic.
pub(super) async fn declare_topic(channel: &Channel, exchange: &str) -> Result<(), lapin::Error> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Fanout, options, FieldTable::default())
        .await
}

/// Declares the private queue of one subscription and binds it to the topic; the broker removes it with the connection.
pub(super) async fn declare_subscription(channel: &Channel, exchange: &str) -> Result<String, lapin::Error> {
    let name = format!("{exchange}.sub.{}", uuid::Uuid::now_v7().simple());
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let arguments = Arguments(FieldTable::default()).int("x-max-length", SUBSCRIPTION_LIMIT);
    channel
        .queue_declare(name.as_str().into(), options, arguments.0)
        .await?;
    channel
        .queue_bind(
            name.as_str().into(),
            exchange.into(),
            "".into(),
            Default::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(name)
}

struct Arguments(FieldTable);

impl Arguments {
    fn quorum() -> Self {
        // Publishing to a full queue is refused instead of pushing out the oldest; `at-least-once` demands it.
        Self(FieldTable::default())
            .text("x-queue-type", "quorum")
            .text("x-overflow", "reject-publish")
            .int("x-delivery-limit", DELIVERY_LIMIT)
    }

    fn dead_letters_to(self, queue: &str) -> Self {
        self.text("x-dead-letter-exchange", "")
            .text("x-dead-letter-routing-key", queue)
            .text("x-dead-letter-strategy", "at-least-once")
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        self.0.insert(key.into(), AMQPValue::LongString(value.into()));
        self
    }

    fn int(mut self, key: &str, value: i32) -> Self {
        self.0.insert(key.into(), AMQPValue::LongInt(value));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_and_never_cut() {
        for (millis, step, left) in [
            (1, "250ms", 0),
            (250, "250ms", 0),
            (251, "1s", 0),
            (6_000, "15s", 0),
            (21_600_000, "6h", 0),
            (21_600_001, "6h", 1),
            (50_000_000, "6h", 28_400_000),
        ] {
            let (actual, rest) = Step::split(Duration::from_millis(millis));
            assert_eq!((actual.name, rest), (step, Duration::from_millis(left)), "{millis} ms");
        }
    }
}
