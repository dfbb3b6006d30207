//! Connections that break and brokers that restart lose nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use copass_queue::{AmqpOptions, AmqpQueue, Error, Event, Queue};

use crate::broker::{self, PrivateBroker, VirtualHost};
use crate::support::{LIMIT, NEWS, WORK, event, eventually, message, publish, receive};

/// Patient, and with attempts to spare: each broken connection counts for what was handed out.
fn connect(url: &str) -> AmqpQueue {
    let options = AmqpOptions {
        patience: Duration::from_secs(60),
        ..AmqpOptions::new(url)
    };
    AmqpQueue::new(options).unwrap()
}

#[tokio::test]
async fn broken_connections_lose_nothing() {
    let Some(shared) = broker::url() else { return };
    let host = VirtualHost::create(&shared, crate::amqp::unique_prefix().replace('.', "")).await;
    let queue = Arc::new(connect(&host.url));
    let mut consumer = queue.consume(&WORK, 4).await.unwrap();
    let mut subscription = queue.subscribe(&NEWS).await.unwrap();
    assert_eq!(event(&mut subscription).await, Event::Connected);
    publish(&*queue, 10).await;
    let held = receive(&mut consumer).await;

    let publishing = async {
        for number in 10..60 {
            queue.publish(&WORK, message(number)).await.unwrap();
        }
    };
    let breaking = async {
        for _ in 0..2 {
            host.break_connections().await;
            assert_eq!(event(&mut subscription).await, Event::Disconnected);
            assert_eq!(event(&mut subscription).await, Event::Connected);
        }
    };
    let consuming = async {
        let mut seen = BTreeSet::new();
        while seen.len() < 60 {
            let delivery = receive(&mut consumer).await;
            let id = delivery.message.id.clone();
            match delivery.ack().await {
                Ok(()) | Err(Error::DeliveryLost) => seen.insert(id),
                Err(error) => panic!("{error}"),
            };
        }
    };
    tokio::join!(publishing, breaking, consuming);

    // What was held over the break comes again elsewhere; deciding about the old delivery says so.
    assert!(matches!(held.ack().await, Err(Error::DeliveryLost)));
    queue.health().await.unwrap();
    queue.broadcast(&NEWS, message(0)).await.unwrap();
    assert_eq!(event(&mut subscription).await, Event::Message(message(0)));
    queue.close().await;
    host.delete().await;
}

#[tokio::test]
async fn a_broker_restart_loses_nothing() {
    if broker::skipped() {
        return;
    }
    let broker = PrivateBroker::new();
    let url = broker.start().await;
    let queue = Arc::new(connect(&url));
    publish(&*queue, 20).await;
    queue
        .publish_after(&WORK, message(20), Duration::from_secs(2))
        .await
        .unwrap();
    let mut consumer = queue.consume(&WORK, 5).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(receive(&mut consumer).await);
    }

    broker.stop().await;
    let down = AmqpQueue::new(AmqpOptions {
        patience: Duration::from_secs(1),
        ..AmqpOptions::new(&url)
    })
    .unwrap();
    assert!(down.health().await.is_err(), "the broker is down");
    // Publishing while it is down waits for it to come back.
    let meanwhile = async {
        for number in 21..30 {
            queue.publish(&WORK, message(number)).await.unwrap();
        }
    };
    let (again, ()) = tokio::join!(broker.start(), meanwhile);
    assert_eq!(again, url);

    let mut seen = BTreeSet::new();
    while seen.len() < 30 {
        let delivery = receive(&mut consumer).await;
        seen.insert(delivery.message.id.clone());
        delivery.ack().await.unwrap();
    }
    drop(held);
    let healthy = eventually("the queue is healthy", || async { queue.health().await.ok() });
    tokio::time::timeout(LIMIT, healthy).await.unwrap();
    queue.close().await;
}
