//! A destroyed sandbox takes its triggers with it, once, however often it is told.

use copass_queue::Message;
use copass_store::fetch_one;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, eventually, on_both_databases};
use copass_trigger_dispatcher::TENANCY_QUEUE;
use copass_types::AgentId;
use serde_json::json;

use crate::support::{Fixture, LIMIT, NewTrigger, list_of};

on_both_databases! {
    a_destroyed_sandbox_takes_its_triggers_with_it
    a_second_delivery_changes_nothing
    what_nobody_understands_is_a_dead_letter_and_harms_nobody
}

fn destroyed(id: &str, sandbox: &TestSandbox) -> Message {
    Message::with_id(id, "sandbox.destroyed.v1", json!({ "sandbox_id": sandbox.id.as_str() }))
}

async fn count(fixture: &Fixture, sandbox: &TestSandbox, agent: &AgentId) -> usize {
    fixture
        .list(&sandbox.owner(), list_of(sandbox, agent))
        .await
        .unwrap()
        .len()
}

async fn settled(fixture: &Fixture) {
    eventually(LIMIT, || async {
        let depth = fixture.queue.depth(&TENANCY_QUEUE).await.unwrap();
        depth.ready == 0 && depth.delayed == 0 && depth.unacked == Some(0)
    })
    .await;
}

async fn a_destroyed_sandbox_takes_its_triggers_with_it(database: TestDatabase) {
    let fixture = Fixture::new(database, Wiring::Local).await;
    let (gone, stays, agent) = (TestSandbox::new(), TestSandbox::new(), AgentId::generate());
    for sandbox in [&gone, &gone, &stays] {
        fixture.insert(sandbox, NewTrigger::of(&agent)).await;
    }
    fixture
        .queue
        .publish(&TENANCY_QUEUE, destroyed("m1", &gone))
        .await
        .unwrap();
    eventually(LIMIT, || async { count(&fixture, &gone, &agent).await == 0 }).await;
    assert_eq!(count(&fixture, &stays, &agent).await, 1);
    assert!(
        fixture.tasks.shut_down(LIMIT).await,
        "the consumer stops when it is asked to"
    );
}

async fn a_second_delivery_changes_nothing(database: TestDatabase) {
    let fixture = Fixture::new(database, Wiring::Local).await;
    let (sandbox, agent) = (TestSandbox::new(), AgentId::generate());
    fixture
        .queue
        .publish(&TENANCY_QUEUE, destroyed("m1", &sandbox))
        .await
        .unwrap();
    settled(&fixture).await;
    // A row that only a second effect could remove.
    fixture.insert(&sandbox, NewTrigger::of(&agent)).await;
    for _ in 0..3 {
        fixture
            .queue
            .publish(&TENANCY_QUEUE, destroyed("m1", &sandbox))
            .await
            .unwrap();
    }
    settled(&fixture).await;
    assert_eq!(count(&fixture, &sandbox, &agent).await, 1);
    let mut conn = fixture.database.read().await.unwrap();
    let (recorded,) = fetch_one!(conn, (i64,), "select count(*) from inbox where message_id = 'm1'").unwrap();
    assert_eq!(
        (recorded, fixture.queue.depth(&TENANCY_QUEUE).await.unwrap().dead),
        (1, 0)
    );
}

async fn what_nobody_understands_is_a_dead_letter_and_harms_nobody(database: TestDatabase) {
    let fixture = Fixture::new(database, Wiring::Local).await;
    let (sandbox, agent) = (TestSandbox::new(), AgentId::generate());
    fixture.insert(&sandbox, NewTrigger::of(&agent)).await;
    for (id, kind, body) in [
        ("m1", "sandbox.destroyed.v1", json!({ "sandbox_id": "nonsense" })),
        ("m2", "sandbox.renamed.v1", json!({ "sandbox_id": sandbox.id.as_str() })),
    ] {
        fixture
            .queue
            .publish(&TENANCY_QUEUE, Message::with_id(id, kind, body))
            .await
            .unwrap();
    }
    settled(&fixture).await;
    assert_eq!(fixture.queue.depth(&TENANCY_QUEUE).await.unwrap().dead, 2);
    assert_eq!(count(&fixture, &sandbox, &agent).await, 1);
    fixture
        .queue
        .publish(&TENANCY_QUEUE, destroyed("m3", &sandbox))
        .await
        .unwrap();
    eventually(LIMIT, || async { count(&fixture, &sandbox, &agent).await == 0 }).await;
}
