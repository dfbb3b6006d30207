//! The outbox: a message leaves when its transaction is committed, and not otherwise.

use std::{
    collections::BTreeSet,
    future::{Future, pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use copass_store::{
    Db, fetch_one,
    outbox::{Broker, Outbox, OutboxMessage, RelayError},
};
use copass_test_support::{TestDatabase, eventually, on_both_databases};
use serde_json::json;
use tokio::{
    sync::{Barrier, Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::LIMIT;

on_both_databases! {
    a_rolled_back_message_never_leaves
    a_committed_message_leaves_once_and_whole
    messages_leave_in_their_order
    the_broker_is_waited_for_once_for_many_messages
    what_could_not_be_published_stays_and_leaves_later
    a_crash_after_publishing_publishes_again_with_the_same_id
    every_service_relays_its_own
    a_woken_relay_publishes_at_once
    a_relay_that_nobody_wakes_finds_what_waits
    a_relay_tries_until_the_broker_is_back
    a_stopped_relay_publishes_what_was_committed_before
    more_than_a_batch_leaves_without_waiting
}

/// A publisher that remembers, and can fail.
#[derive(Clone, Default)]
struct FakeBroker {
    published: Arc<Mutex<Vec<OutboxMessage>>>,
    away: Arc<AtomicBool>,
    refusals: Arc<AtomicUsize>,
}

impl FakeBroker {
    fn publisher(&self) -> impl Fn(OutboxMessage) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
        let broker = self.clone();
        move |message| {
            if broker.away.load(Ordering::SeqCst) {
                broker.refusals.fetch_add(1, Ordering::SeqCst);
                return ready(Err("the broker is away".to_owned()));
            }
            broker.published.lock().unwrap().push(message);
            ready(Ok(()))
        }
    }

    fn ids(&self) -> Vec<String> {
        self.published
            .lock()
            .unwrap()
            .iter()
            .map(|message| message.id.to_string())
            .collect()
    }

    async fn has(&self, count: usize) {
        eventually(LIMIT, || ready(self.published.lock().unwrap().len() >= count)).await;
    }
}

fn message(number: usize) -> OutboxMessage {
    OutboxMessage::to_queue("copass.test.work", "test.happened.v1", json!({ "number": number }))
}

async fn add(db: &Db, outbox: &Outbox, count: usize) -> Vec<String> {
    let mut tx = db.begin().await.unwrap();
    let mut ids = Vec::new();
    for number in 0..count {
        let message = message(number);
        outbox.add(&mut tx, &message).await.unwrap();
        ids.push(message.id.to_string());
    }
    tx.commit().await.unwrap();
    ids
}

async fn waiting(db: &Db) -> i64 {
    let mut conn = db.read().await.unwrap();
    fetch_one!(conn, (i64,), "select count(*) from outbox").unwrap().0
}

/// A relay in the background; ends with the returned set or with the token.
fn relay(db: &Db, outbox: &Outbox, broker: &FakeBroker) -> (JoinSet<()>, CancellationToken) {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(
        outbox
            .clone()
            .relay(db.clone(), Broker::Durable, broker.publisher(), stop.clone()),
    );
    (tasks, stop)
}

async fn a_rolled_back_message_never_leaves(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let mut tx = database.begin().await.unwrap();
    outbox.add(&mut tx, &message(0)).await.unwrap();
    drop(tx);
    assert_eq!(outbox.relay_batch(&database, &broker.publisher()).await.unwrap(), 0);
    assert!(broker.ids().is_empty());
}

async fn a_committed_message_leaves_once_and_whole(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let mut topic = OutboxMessage::to_topic("copass.test.news", "test.changed.v1", json!({ "ä": [1, null, "\n"] }));
    topic.headers.insert("traceparent".to_owned(), "00-aa-bb-01".to_owned());
    let queue = message(7);
    let mut tx = database.begin().await.unwrap();
    for message in [&topic, &queue] {
        outbox.add(&mut tx, message).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(outbox.relay_batch(&database, &broker.publisher()).await.unwrap(), 2);
    assert_eq!(*broker.published.lock().unwrap(), [topic, queue]);
    assert_eq!(outbox.relay_batch(&database, &broker.publisher()).await.unwrap(), 0);
    assert_eq!((broker.ids().len(), waiting(&database).await), (2, 0));
}

async fn messages_leave_in_their_order(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let mut expected = Vec::new();
    for count in [1, 3, 20] {
        expected.extend(add(&database, &outbox, count).await);
    }
    outbox.relay_batch(&database, &broker.publisher()).await.unwrap();
    assert_eq!(broker.ids(), expected);
}

async fn the_broker_is_waited_for_once_for_many_messages(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let expected = add(&database, &outbox, 5).await;
    let (publish, all_begun) = (broker.publisher(), Barrier::new(5));
    let confirmed_together = |message| {
        let (publishing, all_begun) = (publish(message), &all_begun);
        async move {
            publishing.await?;
            all_begun.wait().await;
            Ok(())
        }
    };
    let relayed = tokio::time::timeout(LIMIT, outbox.relay_batch(&database, &confirmed_together)).await;
    let Ok(relayed) = relayed else {
        panic!("each message is waited for alone");
    };
    assert_eq!(relayed.unwrap(), 5);
    assert_eq!((broker.ids(), waiting(&database).await), (expected, 0));
}

async fn what_could_not_be_published_stays_and_leaves_later(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let expected = add(&database, &outbox, 5).await;
    let (remaining, publish) = (AtomicUsize::new(2), broker.publisher());
    let fails_after_two = |message| {
        let left = remaining.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let outcome: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = match left {
            Ok(_) => Box::pin(publish(message)),
            Err(_) => Box::pin(ready(Err("full".to_owned()))),
        };
        outcome
    };
    let error = outbox.relay_batch(&database, &fails_after_two).await.unwrap_err();
    assert!(
        matches!(&error, RelayError::Publish(reason) if reason == "full"),
        "{error:?}"
    );
    assert_eq!(
        waiting(&database).await,
        3,
        "what left before the failure does not leave again"
    );
    outbox.relay_batch(&database, &broker.publisher()).await.unwrap();
    assert_eq!(broker.ids(), expected);
}

async fn a_crash_after_publishing_publishes_again_with_the_same_id(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let expected = add(&database, &outbox, 1).await;
    let (published, publish) = (Notify::new(), broker.publisher());
    let never_returns = |message| {
        let publishing = publish(message);
        let published = &published;
        async move {
            publishing.await?;
            published.notify_one();
            pending().await
        }
    };
    tokio::select! {
        outcome = outbox.relay_batch(&database, &never_returns) => panic!("ended: {outcome:?}"),
        () = published.notified() => {}
    }
    assert_eq!((broker.ids(), waiting(&database).await), (expected.clone(), 1));
    // PostgreSQL frees the claim a moment after the relay is gone.
    eventually(LIMIT, || async {
        outbox.relay_batch(&database, &broker.publisher()).await.unwrap() == 1
    })
    .await;
    assert_eq!(broker.ids(), [expected.clone(), expected].concat());
    assert_eq!(waiting(&database).await, 0);
}

async fn every_service_relays_its_own(database: TestDatabase) {
    let (mine, other, broker) = (Outbox::new("mine"), Outbox::new("other"), FakeBroker::default());
    let (expected, _) = (add(&database, &mine, 2).await, add(&database, &other, 2).await);
    assert_eq!(mine.relay_batch(&database, &broker.publisher()).await.unwrap(), 2);
    assert_eq!((broker.ids(), waiting(&database).await), (expected, 2));
}

async fn a_woken_relay_publishes_at_once(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let (_tasks, _stop) = relay(&database, &outbox, &broker);
    for round in 1..=20 {
        let started = Instant::now();
        add(&database, &outbox, 1).await;
        outbox.wake();
        broker.has(round).await;
        // The timer would take five seconds.
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "round {round} took {:?}",
            started.elapsed()
        );
    }
}

async fn a_relay_that_nobody_wakes_finds_what_waits(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let before = add(&database, &outbox, 1).await;
    let (_tasks, _stop) = relay(&database, &outbox, &broker);
    broker.has(1).await;
    // Committed by another program: nobody here is told.
    let after = add(&database, &Outbox::new("test"), 1).await;
    broker.has(2).await;
    assert_eq!(broker.ids(), [before, after].concat());
}

async fn a_relay_tries_until_the_broker_is_back(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    broker.away.store(true, Ordering::SeqCst);
    let expected = add(&database, &outbox, 3).await;
    let (_tasks, _stop) = relay(&database, &outbox, &broker);
    eventually(LIMIT, || ready(broker.refusals.load(Ordering::SeqCst) >= 3)).await;
    assert_eq!(waiting(&database).await, 3);
    broker.away.store(false, Ordering::SeqCst);
    broker.has(3).await;
    assert_eq!(broker.ids(), expected);
    eventually(LIMIT, || async { waiting(&database).await == 0 }).await;
}

async fn a_stopped_relay_publishes_what_was_committed_before(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let (mut tasks, stop) = relay(&database, &outbox, &broker);
    add(&database, &outbox, 2).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!((broker.ids().len(), waiting(&database).await), (2, 0));
}

async fn more_than_a_batch_leaves_without_waiting(database: TestDatabase) {
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let expected = add(&database, &outbox, 250).await;
    let (_tasks, _stop) = relay(&database, &outbox, &broker);
    let started = Instant::now();
    broker.has(250).await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "took {:?}",
        started.elapsed()
    );
    assert!(broker.ids() == expected, "not in the order in which they were added");
}

/// Replicas of one service on PostgreSQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_never_publish_the_same_message() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (outbox, slow, fast) = (Outbox::new("test"), FakeBroker::default(), FakeBroker::default());
    let all: BTreeSet<String> = add(&database, &outbox, 150).await.into_iter().collect();
    let (claimed, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let mut tasks = JoinSet::new();
    {
        let (outbox, db, publish) = (outbox.clone(), database.db(), slow.publisher());
        let (claimed, gate) = (Arc::clone(&claimed), Arc::clone(&gate));
        tasks.spawn(async move {
            let publish = |message| {
                let (publishing, claimed, gate) = (publish(message), Arc::clone(&claimed), Arc::clone(&gate));
                async move {
                    claimed.notify_one();
                    gate.acquire().await.unwrap().forget();
                    publishing.await
                }
            };
            outbox.relay_batch(&db, &publish).await.unwrap()
        });
    }
    claimed.notified().await;
    // The first holds a batch of a hundred; the second takes the rest and does not wait.
    let second = tokio::time::timeout(LIMIT, outbox.relay_batch(&database, &fast.publisher())).await;
    assert_eq!(second.expect("waits for the other relay").unwrap(), 50);
    gate.add_permits(150);
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), 100);
    let published = [slow.ids(), fast.ids()].concat();
    assert_eq!(published.len(), 150);
    assert_eq!(published.into_iter().collect::<BTreeSet<_>>(), all);
    assert_eq!(waiting(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_relays_and_writers_publish_everything_once() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (outbox, broker) = (Outbox::new("test"), FakeBroker::default());
    let relays: Vec<_> = (0..3).map(|_| relay(&database, &outbox, &broker)).collect();
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (db, outbox) = (database.db(), outbox.clone());
        writers.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..25 {
                ids.extend(add(&db, &outbox, 3).await);
                outbox.wake();
            }
            ids
        });
    }
    let all: BTreeSet<String> = writers.join_all().await.into_iter().flatten().collect();
    broker.has(300).await;
    for (mut tasks, stop) in relays {
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
    }
    let published = broker.ids();
    assert_eq!(published.len(), 300);
    assert_eq!(published.into_iter().collect::<BTreeSet<_>>(), all);
}
