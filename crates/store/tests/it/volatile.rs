//! The outbox in front of a broker that dies with its process, as in `copass dev`: a row stays until its message was
//! handled, so a crash loses nothing there either (`design.md` 6).

use std::{
    collections::HashSet,
    future::ready,
    sync::{Arc, Mutex},
};

use copass_runtime::clock;
use copass_store::{
    Batch, Db, fetch_one, inbox,
    outbox::{Broker, Outbox, OutboxMessage},
};
use copass_test_support::{TestDatabase, eventually, on_both_databases};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::LIMIT;

on_both_databases! {
    a_message_stays_until_it_was_handled_and_leaves_once
    what_was_not_handled_leaves_again_after_a_restart
    what_was_handled_does_not_leave_again_after_a_restart
    what_waits_does_not_hide_what_comes_after_it
    a_broadcast_is_done_when_it_was_sent
    a_message_that_could_not_be_published_leaves_later
    the_relay_forgets_what_was_handled
}

type Published = Arc<Mutex<Vec<String>>>;

fn publisher(
    published: &Published,
) -> impl Fn(OutboxMessage) -> std::future::Ready<Result<(), String>> + Send + Sync + 'static {
    let published = Arc::clone(published);
    move |message| {
        published.lock().unwrap().push(message.id.to_string());
        ready(Ok(()))
    }
}

async fn add(db: &Db, outbox: &Outbox, message: &OutboxMessage) -> String {
    let mut tx = db.begin().await.unwrap();
    outbox.add(&mut tx, message).await.unwrap();
    tx.commit().await.unwrap();
    message.id.to_string()
}

fn work() -> OutboxMessage {
    OutboxMessage::to_queue("copass.test.work", "test.happened.v1", json!({}))
}

async fn handle(db: &Db, id: &str) {
    let mut tx = db.begin().await.unwrap();
    assert!(
        inbox::record(&mut tx, "copass.test.work", id, clock::now())
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
}

async fn waiting(db: &Db) -> i64 {
    let mut conn = db.read().await.unwrap();
    fetch_one!(conn, (i64,), "select count(*) from outbox").unwrap().0
}

async fn a_message_stays_until_it_was_handled_and_leaves_once(database: TestDatabase) {
    let (outbox, published) = (Outbox::new("test"), Published::default());
    let id = add(&database, &outbox, &work()).await;
    let (publish, mut known) = (publisher(&published), HashSet::new());
    for sent in [1, 0, 0] {
        assert_eq!(
            outbox
                .relay_volatile_batch(&database, &publish, &mut known)
                .await
                .unwrap(),
            sent
        );
        assert_eq!(waiting(&database).await, 1);
    }
    handle(&database, &id).await;
    assert_eq!(
        outbox
            .relay_volatile_batch(&database, &publish, &mut known)
            .await
            .unwrap(),
        0
    );
    assert_eq!((waiting(&database).await, known.len()), (0, 0));
    assert_eq!(*published.lock().unwrap(), [id]);
}

async fn what_was_not_handled_leaves_again_after_a_restart(database: TestDatabase) {
    let (outbox, published) = (Outbox::new("test"), Published::default());
    let id = add(&database, &outbox, &work()).await;
    for _ in 0..2 {
        // A new process knows nothing of what the last one has published.
        let mut known = HashSet::new();
        outbox
            .relay_volatile_batch(&database, &publisher(&published), &mut known)
            .await
            .unwrap();
    }
    assert_eq!(*published.lock().unwrap(), [id.clone(), id]);
}

async fn what_was_handled_does_not_leave_again_after_a_restart(database: TestDatabase) {
    let (outbox, published) = (Outbox::new("test"), Published::default());
    let id = add(&database, &outbox, &work()).await;
    outbox
        .relay_volatile_batch(&database, &publisher(&published), &mut HashSet::new())
        .await
        .unwrap();
    handle(&database, &id).await;
    // Killed before the relay looked again.
    outbox
        .relay_volatile_batch(&database, &publisher(&published), &mut HashSet::new())
        .await
        .unwrap();
    assert_eq!((waiting(&database).await, published.lock().unwrap().len()), (0, 1));
}

async fn what_waits_does_not_hide_what_comes_after_it(database: TestDatabase) {
    const MANY: usize = 2_100;
    let (outbox, published) = (Outbox::new("test"), Published::default());
    let mut tx = database.begin().await.unwrap();
    for _ in 0..MANY / 100 {
        let mut batch = Batch::new(database.dialect());
        for _ in 0..100 {
            outbox.add_to(&mut batch, &work());
        }
        batch.execute(&mut tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let (publish, mut known) = (publisher(&published), HashSet::new());
    let look = outbox.relay_volatile_batch(&database, &publish, &mut known);
    assert_eq!(look.await.unwrap(), MANY, "also after a restart");
    let id = add(&database, &outbox, &work()).await;
    let look = outbox.relay_volatile_batch(&database, &publish, &mut known);
    assert_eq!(look.await.unwrap(), 1);
    assert_eq!(published.lock().unwrap().last(), Some(&id));
    let look = outbox.relay_volatile_batch(&database, &publish, &mut known);
    assert_eq!(look.await.unwrap(), 0);
}

async fn a_broadcast_is_done_when_it_was_sent(database: TestDatabase) {
    let (outbox, published) = (Outbox::new("test"), Published::default());
    add(
        &database,
        &outbox,
        &OutboxMessage::to_topic("copass.test.news", "test.v1", json!({})),
    )
    .await;
    let mut known = HashSet::new();
    assert_eq!(
        outbox
            .relay_volatile_batch(&database, &publisher(&published), &mut known)
            .await
            .unwrap(),
        1
    );
    assert_eq!((waiting(&database).await, known.len()), (0, 0));
}

async fn a_message_that_could_not_be_published_leaves_later(database: TestDatabase) {
    let (outbox, published) = (Outbox::new("test"), Published::default());
    let id = add(&database, &outbox, &work()).await;
    let mut known = HashSet::new();
    let refuse = |_| ready(Err("the queue is full".to_owned()));
    assert!(
        outbox
            .relay_volatile_batch(&database, &refuse, &mut known)
            .await
            .is_err()
    );
    assert_eq!(
        outbox
            .relay_volatile_batch(&database, &publisher(&published), &mut known)
            .await
            .unwrap(),
        1
    );
    assert_eq!(*published.lock().unwrap(), [id]);
}

async fn the_relay_forgets_what_was_handled(database: TestDatabase) {
    let (outbox, published) = (Outbox::new("test"), Published::default());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(
        outbox
            .clone()
            .relay(database.db(), Broker::Volatile, publisher(&published), stop.clone()),
    );
    let id = add(&database, &outbox, &work()).await;
    outbox.wake();
    eventually(LIMIT, || ready(!published.lock().unwrap().is_empty())).await;
    handle(&database, &id).await;
    outbox.wake();
    eventually(LIMIT, || async { waiting(&database).await == 0 }).await;
    stop.cancel();
    tokio::time::timeout(LIMIT, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(*published.lock().unwrap(), [id]);
}
