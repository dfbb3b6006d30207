//! The AMQP queue: its fixture, and what only a broker has.

use std::sync::Arc;
use std::time::Duration;

use copass_queue::{AmqpOptions, AmqpQueue, Error, Message, Queue};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::time::Instant;

use crate::broker;
use crate::support::{Fixture, NEWS, WORK, message, policies, publish, receive};

/// A queue nobody else uses; `None` when the tests that need a broker are switched off.
pub(crate) fn fixture() -> Option<Fixture> {
    let url = broker::url()?;
    crate::support::log();
    let prefix = unique_prefix();
    let target = format!("{prefix}{WORK}");
    Some(Fixture {
        queue: Arc::new(connect(&url, &prefix)),
        prefix,
        poison: Box::new(move |bytes| {
            let (url, target) = (url.clone(), target.clone());
            Box::pin(async move { put(&url, &target, bytes, BasicProperties::default()).await })
        }),
    })
}

pub(crate) fn unique_prefix() -> String {
    format!("t{}.", uuid::Uuid::now_v7().simple())
}

pub(crate) fn connect(url: &str, prefix: &str) -> AmqpQueue {
    AmqpQueue::new(options(url, prefix)).unwrap()
}

fn options(url: &str, prefix: &str) -> AmqpOptions {
    let patience = Duration::from_secs(20);
    AmqpOptions {
        prefix: prefix.to_owned(),
        policies: policies(),
        patience,
        ..AmqpOptions::new(url)
    }
}

/// Removes what a test left on the broker.
pub(crate) async fn clean_up(fixture: &Fixture) {
    fixture.queue.close().await;
    let Some(url) = broker::url() else { return };
    let queue = connect(&url, &fixture.prefix);
    queue.delete(&WORK).await.unwrap();
    queue.delete_topic(&NEWS).await.unwrap();
    queue.close().await;
}

/// Puts something into a queue as another program would.
async fn put(url: &str, queue: &str, bytes: &[u8], properties: BasicProperties) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    let published = channel
        .basic_publish("".into(), queue.into(), Default::default(), bytes, properties)
        .await
        .unwrap();
    assert!(published.await.unwrap().is_ack());
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn a_removed_queue_is_declared_again() {
    let Some(fixture) = fixture() else { return };
    let url = broker::url().unwrap();
    let queue = AmqpQueue::new(AmqpOptions {
        idle_renewal: Duration::from_millis(500),
        ..options(&url, &fixture.prefix)
    });
    let queue = queue.unwrap();
    publish(&queue, 1).await;
    let mut consumers = [
        queue.consume(&WORK, 1).await.unwrap(),
        queue.consume(&WORK, 1).await.unwrap(),
    ];
    let [one, two] = &mut consumers;
    tokio::select! {
        delivery = receive(one) => delivery.ack().await.unwrap(),
        delivery = receive(two) => delivery.ack().await.unwrap(),
    }
    let operator = connect(&url, &fixture.prefix);
    operator.delete(&WORK).await.unwrap();
    // Created again by the publisher, at once: the broker does not tell the consumers then.
    queue.publish(&WORK, message(1)).await.unwrap();
    queue.publish(&WORK, message(2)).await.unwrap();
    let (first, second) = tokio::join!(receive(one), receive(two));
    first.ack().await.unwrap();
    second.ack().await.unwrap();
    operator.close().await;
    queue.close().await;
    clean_up(&fixture).await;
}

/// A delay beyond the ladder arrives with a remainder; here one that is nearly over.
#[tokio::test]
async fn the_rest_of_a_very_long_delay_is_kept() {
    let Some(fixture) = fixture() else { return };
    let queue = &*fixture.queue;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    let mut headers = FieldTable::default();
    headers.insert("x-copass-delay-left-ms".into(), AMQPValue::LongLongInt(200));
    let properties = BasicProperties::default()
        .with_message_id("m0".into())
        .with_type("suite.happened.v1".into())
        .with_headers(headers);
    let started = Instant::now();
    put(
        &broker::url().unwrap(),
        &format!("{}{WORK}", fixture.prefix),
        br#"{"number":0}"#,
        properties,
    )
    .await;
    let delivery = receive(&mut consumer).await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        delivery.message,
        Message {
            attempt: 1,
            ..message(0)
        }
    );
    delivery.ack().await.unwrap();
    clean_up(&fixture).await;
}

#[tokio::test]
async fn what_close_hands_back_comes_again() {
    let Some(fixture) = fixture() else { return };
    publish(&*fixture.queue, 2).await;
    let mut consumer = fixture.queue.consume(&WORK, 2).await.unwrap();
    let undecided = receive(&mut consumer).await;
    fixture.queue.close().await;
    let other = connect(&broker::url().unwrap(), &fixture.prefix);
    let mut consumer = other.consume(&WORK, 2).await.unwrap();
    for id in ["m0", "m1"] {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.message.id, id);
        delivery.ack().await.unwrap();
    }
    drop(undecided);
    other.close().await;
    clean_up(&fixture).await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_reported_and_waited_for() {
    let options = AmqpOptions {
        patience: Duration::from_millis(300),
        ..AmqpOptions::new("amqp://127.0.0.1:1/%2f")
    };
    let queue = AmqpQueue::new(options).unwrap();
    for result in [
        queue.health().await,
        queue.publish(&WORK, message(0)).await,
        queue.depth(&WORK).await.map(drop),
    ] {
        assert!(
            matches!(&result, Err(error @ Error::Unavailable { .. }) if error.is_retryable()),
            "{result:?}"
        );
    }
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(300), consumer.receive())
            .await
            .is_err()
    );
    let mut subscription = queue.subscribe(&NEWS).await.unwrap();
    assert_eq!(subscription.receive().await.unwrap(), copass_queue::Event::Disconnected);
    queue.close().await;
    assert!(matches!(consumer.receive().await, Err(Error::Closed)));
}

#[test]
fn bad_options_are_refused_without_the_password() {
    for (url, prefix) in [
        ("http://u:secret@host", ""),
        ("amqp://u:secret@host:x/%2f", ""),
        ("amqp://host", "No Spaces"),
    ] {
        let options = AmqpOptions {
            prefix: prefix.to_owned(),
            ..AmqpOptions::new(url)
        };
        assert!(!format!("{options:?}").contains("secret"));
        let error = AmqpQueue::new(options).unwrap_err();
        assert!(matches!(error, Error::InvalidOptions { .. }));
        assert!(!error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once() {
    let Some(url) = broker::url() else { return };
    let (_, host) = url.rsplit_once('@').unwrap();
    let queue = connect(&format!("amqp://guest:wrong@{host}"), &unique_prefix());
    assert!(matches!(
        queue.publish(&WORK, message(0)).await,
        Err(Error::Refused { .. })
    ));
    assert!(matches!(queue.consume(&WORK, 1).await, Err(Error::Refused { .. })));
}
