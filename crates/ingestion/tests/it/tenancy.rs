//! A destroyed sandbox takes its sources with it, once, however often it is told.

use std::sync::Arc;

use copass_ingestion::TENANCY_QUEUE;
use copass_queue::{Message, Queue};
use copass_runtime::clock;
use copass_store::{Json, execute, fetch_one};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, amqp_queue, eventually, on_both_databases};
use serde_json::json;

use crate::support::{Fixture, LIMIT, list_all, registration};

on_both_databases! {
    a_destroyed_sandbox_takes_its_sources_with_it
    a_second_delivery_changes_nothing
    what_nobody_understands_is_a_dead_letter_and_harms_nobody
    the_same_over_a_broker
}

fn destroyed(id: &str, sandbox: &TestSandbox) -> Message {
    Message::with_id(id, "sandbox.destroyed.v1", json!({ "sandbox_id": sandbox.id.as_str() }))
}

async fn fixture(database: TestDatabase) -> Fixture {
    Fixture::new(database, Wiring::Local).await
}

async fn settled(fixture: &Fixture) {
    eventually(LIMIT, || async {
        let depth = fixture.queue.depth(&TENANCY_QUEUE).await.unwrap();
        depth.ready == 0 && depth.delayed == 0 && depth.unacked.unwrap_or(0) == 0
    })
    .await;
}

async fn count(fixture: &Fixture, sandbox: &TestSandbox) -> usize {
    fixture.list(&sandbox.owner(), list_all(sandbox)).await.unwrap().len()
}

async fn a_destroyed_sandbox_takes_its_sources_with_it(database: TestDatabase) {
    let fixture = fixture(database).await;
    let (gone, stays) = (TestSandbox::new(), TestSandbox::new());
    for sandbox in [&gone, &gone, &stays] {
        fixture.register(&sandbox.owner(), registration(sandbox)).await.unwrap();
    }
    fixture
        .queue
        .publish(&TENANCY_QUEUE, destroyed("m1", &gone))
        .await
        .unwrap();
    eventually(LIMIT, || async { count(&fixture, &gone).await == 0 }).await;
    assert_eq!(count(&fixture, &stays).await, 1);
    assert!(
        fixture.tasks.shut_down(LIMIT).await,
        "the consumer stops when it is asked to"
    );
}

async fn a_second_delivery_changes_nothing(database: TestDatabase) {
    let fixture = fixture(database).await;
    let sandbox = TestSandbox::new();
    fixture
        .queue
        .publish(&TENANCY_QUEUE, destroyed("m1", &sandbox))
        .await
        .unwrap();
    settled(&fixture).await;
    // A row that only a second effect could remove.
    fixture
        .register(&sandbox.owner(), registration(&sandbox))
        .await
        .unwrap();
    for _ in 0..3 {
        fixture
            .queue
            .publish(&TENANCY_QUEUE, destroyed("m1", &sandbox))
            .await
            .unwrap();
    }
    settled(&fixture).await;
    assert_eq!(count(&fixture, &sandbox).await, 1);
    assert_eq!(fixture.queue.depth(&TENANCY_QUEUE).await.unwrap().dead, 0);
    let mut conn = fixture.database.read().await.unwrap();
    let (recorded,) = fetch_one!(conn, (i64,), "select count(*) from inbox where message_id = 'm1'").unwrap();
    assert_eq!(recorded, 1);
    fixture
        .queue
        .publish(&TENANCY_QUEUE, destroyed("m2", &sandbox))
        .await
        .unwrap();
    eventually(LIMIT, || async { count(&fixture, &sandbox).await == 0 }).await;
}

async fn what_nobody_understands_is_a_dead_letter_and_harms_nobody(database: TestDatabase) {
    let fixture = fixture(database).await;
    let sandbox = TestSandbox::new();
    fixture
        .register(&sandbox.owner(), registration(&sandbox))
        .await
        .unwrap();
    for (id, kind, body) in [
        ("m1", "sandbox.destroyed.v1", json!({})),
        ("m2", "sandbox.destroyed.v1", json!({ "sandbox_id": "nonsense" })),
        ("m3", "sandbox.destroyed.v1", json!("text")),
        (
            "m4",
            "sandbox.destroyed.v2",
            json!({ "sandbox_id": sandbox.id.as_str() }),
        ),
    ] {
        fixture
            .queue
            .publish(&TENANCY_QUEUE, Message::with_id(id, kind, body))
            .await
            .unwrap();
    }
    settled(&fixture).await;
    let letters = fixture.queue.dead_letters(&TENANCY_QUEUE, 10).await.unwrap();
    let mut ids: Vec<_> = letters.into_iter().map(|letter| letter.message.unwrap().id).collect();
    ids.sort();
    assert_eq!(ids, ["m1", "m2", "m3", "m4"]);
    assert_eq!(count(&fixture, &sandbox).await, 1);
    fixture
        .queue
        .publish(&TENANCY_QUEUE, destroyed("m5", &sandbox))
        .await
        .unwrap();
    eventually(LIMIT, || async { count(&fixture, &sandbox).await == 0 }).await;
}

/// Publishes as the outbox's relay does: a broker refuses for a moment while it starts a new queue.
async fn relay(queue: &dyn Queue, message: Message) {
    eventually(LIMIT, || async {
        match queue.publish(&TENANCY_QUEUE, message.clone()).await {
            Ok(()) => true,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                false
            }
        }
    })
    .await;
}

async fn the_same_over_a_broker(database: TestDatabase) {
    let Some(broker) = amqp_queue(&[TENANCY_QUEUE], &[]) else {
        return;
    };
    let queue: Arc<dyn Queue> = broker.queue();
    let fixture = Fixture::with_queue(database, Wiring::Remote, queue).await;
    let sandbox = TestSandbox::new();
    let mut tx = fixture.database.begin().await.unwrap();
    for number in 0..3 {
        execute!(
            tx,
            "insert into data_sources (id, sandbox_id, user_id, provider, name, ingestion_mode, status, kind, \
             adapter_config, created_at, updated_at) \
             values ($1, $2, $3, 'custom', 'n', 'manual', 'active', 'durable', $4, $5, $5)",
            format!("ds_{number:026}"),
            sandbox.id.as_str(),
            sandbox.owner_user_id.as_str(),
            Json(json!({})),
            clock::now(),
        )
        .unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(count(&fixture, &sandbox).await, 3);
    for _ in 0..2 {
        relay(&*fixture.queue, destroyed("m1", &sandbox)).await;
    }
    eventually(LIMIT, || async { count(&fixture, &sandbox).await == 0 }).await;
    assert!(fixture.tasks.shut_down(LIMIT).await);
    fixture.queue.close().await;
}
