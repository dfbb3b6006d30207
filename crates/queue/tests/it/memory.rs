//! The memory twin: its fixture, and what only it has.

use std::sync::Arc;
use std::time::Duration;

use copass_queue::{Error, MemoryQueue, Queue};
use tokio::time::Instant;

use crate::support::{Fixture, WORK, message, policies, publish};

pub(crate) fn fixture() -> Fixture {
    let queue = MemoryQueue::new(policies());
    let other = queue.clone();
    Fixture {
        queue: Arc::new(queue),
        prefix: String::new(),
        poison: Box::new(move |bytes| {
            other.publish_raw(&WORK, bytes).unwrap();
            Box::pin(async {})
        }),
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_recovers() {
    let queue = MemoryQueue::with_capacity(policies(), 2);
    publish(&queue, 2).await;
    let refused = queue.publish(&WORK, message(2)).await;
    assert!(
        matches!(&refused, Err(error @ Error::Full { .. }) if error.is_retryable()),
        "{refused:?}"
    );
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    // An undecided message still takes its place.
    let delivery = consumer.receive().await.unwrap();
    assert!(queue.publish(&WORK, message(2)).await.is_err());
    delivery.ack().await.unwrap();
    queue.publish(&WORK, message(2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn delays_are_exact() {
    let queue = MemoryQueue::new(policies());
    let started = Instant::now();
    let day = Duration::from_secs(86_400);
    queue.publish_after(&WORK, message(1), day).await.unwrap();
    queue.publish_after(&WORK, message(0), day / 2).await.unwrap();
    let mut consumer = queue.consume(&WORK, 2).await.unwrap();
    let first = consumer.receive().await.unwrap();
    assert_eq!((first.message.id.as_str(), started.elapsed().as_secs()), ("m0", 43_200));
    let second = consumer.receive().await.unwrap();
    assert_eq!(
        (second.message.id.as_str(), started.elapsed().as_secs()),
        ("m1", 86_400)
    );
}
