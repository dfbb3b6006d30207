//! The contract, case by case. Nothing here knows which implementation it runs on.

use std::time::Duration;

use copass_queue::{Error, Event, Message};
use futures::{FutureExt, StreamExt, future::join_all, stream};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::support::{
    Fixture, LIMIT, MAX_ATTEMPTS, NEWS, WORK, depth_becomes, event, is_closed, message, publish, receive,
};

/// The shortest delay that is worth measuring; a step of the AMQP ladder, which rounds up.
const DELAY: Duration = Duration::from_millis(250);

pub(crate) async fn what_is_published_is_received_as_it_was(fixture: &Fixture) {
    let queue = &*fixture.queue;
    queue.health().await.unwrap();
    let sent = Message::new(
        "sandbox.destroyed.v1",
        json!({ "id": "sb_1", "nested": [1, 2.5, null, { "text": "grüße ✓" }] }),
    )
    .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    .header("x-tenant", "t1");
    queue
        .publish(
            &WORK,
            Message {
                attempt: 7,
                ..sent.clone()
            },
        )
        .await
        .unwrap();
    let mut consumer = queue.consume(&WORK, 10).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.message, sent, "the attempt is the queue's business");
    delivery.ack().await.unwrap();
}

pub(crate) async fn an_acknowledged_message_does_not_come_again(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 2).await;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    receive(&mut consumer).await.ack().await.unwrap();
    drop(consumer);
    // What comes first after it, on a new consumer, is the second message; then nothing is left.
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.message.id, "m1");
    delivery.ack().await.unwrap();
    drop(consumer);
    let depth = depth_becomes(queue, |depth| depth.ready == 0 && depth.unacked.unwrap_or(0) == 0).await;
    assert_eq!((depth.delayed, depth.dead), (0, 0));
}

pub(crate) async fn a_dropped_delivery_comes_again_with_the_next_attempt(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 1).await;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    for attempt in 1..MAX_ATTEMPTS {
        let delivery = receive(&mut consumer).await;
        assert_eq!(
            (delivery.message.id.as_str(), delivery.message.attempt),
            ("m0", attempt)
        );
        assert!(!delivery.is_last_attempt());
        drop(delivery);
    }
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.message.attempt, MAX_ATTEMPTS);
    assert!(delivery.is_last_attempt());
    delivery.ack().await.unwrap();
    depth_becomes(queue, |depth| depth.ready == 0 && depth.dead == 0).await;
}

pub(crate) async fn a_message_handed_back_comes_again_after_the_delay(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 2).await;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    let delivery = receive(&mut consumer).await;
    let handed_back_at = Instant::now();
    delivery.nack(DELAY).await.unwrap();
    // It does not hold up the next one.
    let other = receive(&mut consumer).await;
    assert_eq!((other.message.id.as_str(), other.message.attempt), ("m1", 1));
    other.ack().await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert!(
        handed_back_at.elapsed() >= DELAY,
        "came after {:?}",
        handed_back_at.elapsed()
    );
    assert_eq!(
        delivery.message,
        Message {
            attempt: 2,
            ..message(0)
        }
    );
    // Counting goes on from there when the message is also dropped.
    drop(delivery);
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.message.attempt, 3);
    delivery.ack().await.unwrap();
}

pub(crate) async fn a_message_handed_back_at_once_comes_again(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 1).await;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    receive(&mut consumer).await.nack(Duration::ZERO).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(
        delivery.message,
        Message {
            attempt: 2,
            ..message(0)
        }
    );
    delivery.ack().await.unwrap();
}

pub(crate) async fn a_delayed_message_comes_after_its_delay(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    let published_at = Instant::now();
    queue.publish_after(&WORK, message(0), DELAY).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert!(
        published_at.elapsed() >= DELAY,
        "came after {:?}",
        published_at.elapsed()
    );
    assert_eq!(delivery.message, message(0));
    delivery.ack().await.unwrap();
}

pub(crate) async fn a_long_delay_does_not_hold_up_a_short_one(fixture: &Fixture) {
    let queue = &*fixture.queue;
    queue
        .publish_after(&WORK, message(0), Duration::from_secs(3_600))
        .await
        .unwrap();
    queue.publish_after(&WORK, message(1), DELAY).await.unwrap();
    let mut consumer = queue.consume(&WORK, 2).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.message.id, "m1");
    delivery.ack().await.unwrap();
    depth_becomes(queue, |depth| depth.ready == 0 && depth.delayed == 1).await;
}

pub(crate) async fn a_dead_letter_keeps_its_message_and_its_reason(fixture: &Fixture) {
    let queue = &*fixture.queue;
    assert_eq!(queue.dead_letters(&WORK, 10).await.unwrap(), []);
    publish(queue, 3).await;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    for reason in ["the agent does not exist", "the body is from the future"] {
        receive(&mut consumer).await.dead_letter(reason).await.unwrap();
    }
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.message.id, "m2");
    delivery.ack().await.unwrap();
    depth_becomes(queue, |depth| depth.dead == 2).await;
    // Looking changes nothing, however often.
    for _ in 0..3 {
        let letters = queue.dead_letters(&WORK, 10).await.unwrap();
        let reasons: Vec<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
        assert_eq!(reasons, ["the agent does not exist", "the body is from the future"]);
        assert_eq!(letters[0].message, Some(message(0)));
        assert_eq!(&letters[0].raw[..], br#"{"number":0}"#);
    }
    assert_eq!(queue.dead_letters(&WORK, 1).await.unwrap().len(), 1);
}

pub(crate) async fn a_message_that_is_handed_back_too_often_is_a_dead_letter(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 1).await;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    for attempt in 1..=MAX_ATTEMPTS {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.message.attempt, attempt);
        delivery
            .retry(Duration::from_millis(1), "the provider is down")
            .await
            .unwrap();
    }
    depth_becomes(queue, |depth| depth.dead == 1 && depth.ready == 0 && depth.delayed == 0).await;
    let letters = queue.dead_letters(&WORK, 10).await.unwrap();
    assert_eq!(
        letters[0].reason,
        "gave up after 3 attempts, last: the provider is down"
    );
    assert_eq!(
        letters[0].message,
        Some(Message {
            attempt: MAX_ATTEMPTS,
            ..message(0)
        })
    );
}

pub(crate) async fn a_message_that_is_dropped_too_often_is_a_dead_letter(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 1).await;
    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    for _ in 1..=MAX_ATTEMPTS {
        drop(receive(&mut consumer).await);
    }
    // Found out when it is its turn again, so somebody has to ask for the next message.
    queue.publish(&WORK, message(1)).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.message, message(1));
    delivery.ack().await.unwrap();
    let letters = queue.dead_letters(&WORK, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        letters[0].reason,
        "gave up after 3 attempts that ended without a decision"
    );
    assert_eq!(
        letters[0].message,
        Some(Message {
            attempt: MAX_ATTEMPTS,
            ..message(0)
        })
    );
}

pub(crate) async fn poison_harms_nobody(fixture: &Fixture) {
    let queue = &*fixture.queue;
    queue.publish(&WORK, message(0)).await.unwrap();
    (fixture.poison)(b"\xff\xfe not a message").await;
    queue.publish(&WORK, message(1)).await.unwrap();
    (fixture.poison)(b"").await;
    queue.publish(&WORK, message(2)).await.unwrap();
    let mut consumer = queue.consume(&WORK, 10).await.unwrap();
    for number in 0..3 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.message, message(number));
        delivery.ack().await.unwrap();
    }
    let letters = queue.dead_letters(&WORK, 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(&letters[0].raw[..], b"\xff\xfe not a message");
    for letter in letters {
        assert_eq!(letter.message, None);
        assert!(letter.reason.starts_with("not a message: "), "{}", letter.reason);
    }
}

pub(crate) async fn messages_keep_their_order(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 200).await;
    let mut consumer = queue.consume(&WORK, 16).await.unwrap();
    for number in 0..200 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.message, message(number));
        delivery.ack().await.unwrap();
    }
}

pub(crate) async fn prefetch_bounds_what_is_undecided(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 4).await;
    let mut consumer = queue.consume(&WORK, 2).await.unwrap();
    let first = receive(&mut consumer).await;
    let second = receive(&mut consumer).await;
    depth_becomes(queue, |depth| depth.ready == 2).await;
    assert!(
        consumer.receive().now_or_never().is_none(),
        "a third message was handed out"
    );
    first.ack().await.unwrap();
    let third = receive(&mut consumer).await;
    assert_eq!(third.message.id, "m2");
    depth_becomes(queue, |depth| depth.ready == 1).await;
    assert!(
        consumer.receive().now_or_never().is_none(),
        "a third message was handed out"
    );
    second.ack().await.unwrap();
    third.ack().await.unwrap();
    receive(&mut consumer).await.ack().await.unwrap();
}

pub(crate) async fn a_cancelled_receive_loses_and_counts_nothing(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let mut consumer = queue.consume(&WORK, 4).await.unwrap();
    for number in 0..30 {
        // Given up in whatever state it is by now.
        assert!(
            timeout(Duration::from_micros(number * 50), consumer.receive())
                .await
                .is_err()
        );
    }
    publish(queue, 20).await;
    let mut next = 0;
    let deadline = Instant::now() + LIMIT;
    while next < 20 {
        assert!(Instant::now() < deadline, "only {next} messages arrived");
        if let Ok(delivery) = timeout(Duration::from_micros(200), consumer.receive()).await {
            let delivery = delivery.unwrap();
            assert_eq!(delivery.message, message(next), "in order and in the first attempt");
            delivery.ack().await.unwrap();
            next += 1;
        }
    }
}

pub(crate) async fn two_consumers_share_the_work(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let mut consumers = [
        queue.consume(&WORK, 1).await.unwrap(),
        queue.consume(&WORK, 1).await.unwrap(),
    ];
    publish(queue, 2).await;
    // Each holds one, so neither waits for the other.
    let [one, two] = &mut consumers;
    let (first, second) = tokio::join!(receive(one), receive(two));
    let mut ids = [first.message.id.clone(), second.message.id.clone()];
    ids.sort();
    assert_eq!(ids, ["m0", "m1"]);
    first.ack().await.unwrap();
    second.ack().await.unwrap();
}

pub(crate) async fn a_worker_that_stops_finishes_what_it_has(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 3).await;
    let mut stopping = queue.consume(&WORK, 3).await.unwrap();
    let in_progress = receive(&mut stopping).await;
    drop(stopping);
    // The others are free at once, although the first is still in progress.
    let mut consumer = queue.consume(&WORK, 3).await.unwrap();
    for id in ["m1", "m2"] {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.message.id, id);
        delivery.ack().await.unwrap();
    }
    in_progress.ack().await.unwrap();
    depth_becomes(queue, |depth| {
        depth.ready == 0 && depth.dead == 0 && depth.unacked.unwrap_or(0) == 0
    })
    .await;
    assert!(consumer.receive().now_or_never().is_none());
}

pub(crate) async fn a_broadcast_reaches_every_subscriber(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let mut one = queue.subscribe(&NEWS).await.unwrap();
    let mut two = queue.subscribe(&NEWS).await.unwrap();
    // Sent before anybody called `receive`, yet nothing is missed.
    queue
        .broadcast(&NEWS, message(0).header("traceparent", "00-1-2-01"))
        .await
        .unwrap();
    for subscription in [&mut one, &mut two] {
        assert_eq!(event(subscription).await, Event::Connected);
        assert_eq!(
            event(subscription).await,
            Event::Message(message(0).header("traceparent", "00-1-2-01"))
        );
    }
    // Who comes later begins later, and who has left is not waited for.
    drop(one);
    let mut late = queue.subscribe(&NEWS).await.unwrap();
    queue.broadcast(&NEWS, message(1)).await.unwrap();
    assert_eq!(event(&mut late).await, Event::Connected);
    for subscription in [&mut two, &mut late] {
        assert_eq!(event(subscription).await, Event::Message(message(1)));
    }
}

pub(crate) async fn a_broadcast_without_subscribers_is_no_error(fixture: &Fixture) {
    fixture.queue.broadcast(&NEWS, message(0)).await.unwrap();
}

pub(crate) async fn a_slow_subscriber_is_told_that_it_missed_something(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let mut subscription = queue.subscribe(&NEWS).await.unwrap();
    const SENT: usize = 11_000;
    stream::iter(0..SENT)
        .for_each_concurrent(200, |number| async move {
            queue.broadcast(&NEWS, message(number)).await.unwrap()
        })
        .await;
    assert_eq!(event(&mut subscription).await, Event::Connected);
    let (mut missed, mut received) = (0, 0);
    while missed == 0 || missed + received < SENT as u64 {
        match event(&mut subscription).await {
            Event::Lagged { missed: more } => missed += more,
            Event::Message(_) => received += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(missed + received, SENT as u64);
    assert!(received > 0 && missed > 0);
}

pub(crate) async fn a_message_that_cannot_be_carried_is_refused(fixture: &Fixture) {
    let queue = &*fixture.queue;
    let good = message(0);
    for bad in [
        Message {
            id: String::new(),
            ..good.clone()
        },
        Message {
            id: "x".repeat(256),
            ..good.clone()
        },
        Message {
            kind: String::new(),
            ..good.clone()
        },
        good.clone().header("", "empty"),
        good.clone().header("x-death", "taken"),
        good.clone().header("x-copass-attempt", "taken"),
    ] {
        assert!(
            matches!(
                queue.publish(&WORK, bad.clone()).await,
                Err(Error::InvalidMessage { .. })
            ),
            "{bad:?}"
        );
        assert!(matches!(
            queue.broadcast(&NEWS, bad).await,
            Err(Error::InvalidMessage { .. })
        ));
    }
}

pub(crate) async fn a_closed_queue_says_so(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 1).await;
    let mut consumer = queue.consume(&WORK, 2).await.unwrap();
    let mut subscription = queue.subscribe(&NEWS).await.unwrap();
    let undecided = receive(&mut consumer).await;
    assert_eq!(event(&mut subscription).await, Event::Connected);
    let (received, told, ()) = tokio::join!(
        timeout(LIMIT, consumer.receive()),
        timeout(LIMIT, subscription.receive()),
        queue.close(),
    );
    assert!(
        is_closed(&received.unwrap()) && is_closed(&told.unwrap()),
        "waiting ends"
    );
    assert!(is_closed(&undecided.ack().await));
    assert!(is_closed(&queue.publish(&WORK, message(1)).await));
    assert!(is_closed(&queue.broadcast(&NEWS, message(1)).await));
    assert!(is_closed(&queue.depth(&WORK).await));
    assert!(is_closed(&queue.health().await));
    assert!(is_closed(&queue.consume(&WORK, 1).await));
    queue.close().await;
}

pub(crate) async fn a_consumer_that_nobody_waits_for_keeps_no_message(fixture: &Fixture) {
    let queue = &*fixture.queue;
    publish(queue, 1).await;
    let begun = Instant::now();
    drop(queue.consume(&WORK, 1).await.unwrap());
    let (usual, work) = (begun.elapsed(), &WORK);
    for _ in 0..5 {
        // As many as handle messages side by side, and each is left somewhere on its way.
        let left = (1..=20).map(|step| timeout(usual * step / 10, queue.consume(work, 1)));
        join_all(left).await;
    }
    depth_becomes(queue, |depth| depth.ready == 1 && depth.unacked.unwrap_or(0) == 0).await;
}
