//! What the cases share: a fixture, and waiting for conditions with a limit.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use copass_queue::{
    Consumer, Delivery, Error, Event, Message, Policies, Policy, Queue, QueueDepth, QueueName, Subscription, TopicName,
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

/// Long enough for a loaded machine; only a failing test waits for it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) const WORK: QueueName = QueueName::from_static("copass.suite.work");
pub(crate) const NEWS: TopicName = TopicName::from_static("copass.suite.news");
pub(crate) const MAX_ATTEMPTS: u32 = 3;

type Done = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Fixture {
    pub(crate) queue: Arc<dyn Queue>,
    /// The prefix on the broker; empty in memory.
    pub(crate) prefix: String,
    /// Puts bytes into the work queue as somebody else would.
    pub(crate) poison: Box<dyn Fn(&'static [u8]) -> Done + Send + Sync>,
}

pub(crate) fn policies() -> Policies {
    Policies::new(Policy {
        max_attempts: MAX_ATTEMPTS,
    })
}

pub(crate) fn message(number: usize) -> Message {
    Message::with_id(format!("m{number}"), "suite.happened.v1", json!({ "number": number }))
}

pub(crate) async fn publish(queue: &dyn Queue, count: usize) {
    for number in 0..count {
        queue.publish(&WORK, message(number)).await.unwrap();
    }
}

pub(crate) async fn receive(consumer: &mut Box<dyn Consumer>) -> Delivery {
    timeout(LIMIT, consumer.receive())
        .await
        .expect("no message in time")
        .unwrap()
}

pub(crate) async fn event(subscription: &mut Box<dyn Subscription>) -> Event {
    timeout(LIMIT, subscription.receive())
        .await
        .expect("no event in time")
        .unwrap()
}

/// Waits until the depth is as wanted.
pub(crate) async fn depth_becomes(queue: &dyn Queue, wanted: impl Fn(&QueueDepth) -> bool) -> QueueDepth {
    let deadline = Instant::now() + LIMIT;
    loop {
        let depth = queue.depth(&WORK).await.unwrap();
        if wanted(&depth) {
            return depth;
        }
        assert!(Instant::now() < deadline, "the depth stays at {depth:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a look succeeds.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn is_closed<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Closed))
}

/// Shows the log of a failing test; `RUST_LOG` chooses.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}
