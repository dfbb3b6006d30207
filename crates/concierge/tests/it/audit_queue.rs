//! Audit records of other services: through the queue, written once.

use copass_queue::{Message, QueueName};
use copass_store::audit::{KIND, QUEUE, Record};
use copass_test_support::{TestDatabase, Wiring, eventually, on_every_setup};
use copass_types::{RunId, SandboxId};
use serde_json::json;

use crate::support::{LIMIT, Stage};

const NAME: QueueName = QueueName::from_static(QUEUE);

on_every_setup! {
    a_record_that_comes_twice_is_written_once
    what_is_no_record_harms_no_other
}

fn message(record: Record) -> Message {
    let sent = record.into_message();
    assert_eq!(sent.destination, QUEUE);
    Message::with_id(sent.id.as_str(), sent.kind, sent.body)
}

async fn a_record_that_comes_twice_is_written_once(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let sandbox_id: SandboxId = sandbox.sandbox_id.parse().unwrap();
    let mut caller = stage.caller(&owner.access_token, Some(&sandbox.sandbox_id)).await;
    caller.principal.run_id = Some(RunId::generate());
    let record = |action: &str| {
        Record::new(&caller, action, "ag_1")
            .sandbox(&sandbox_id)
            .before(json!(null))
            .after(json!({ "slug": "x" }))
    };
    let twice = record("agent.create");
    let first = message(twice.clone());
    stage.queue.publish(&NAME, first.clone()).await.unwrap();
    stage.queue.publish(&NAME, first).await.unwrap();
    // The same record in another message: its producer crashed between sending and forgetting.
    stage.queue.publish(&NAME, message(twice.clone())).await.unwrap();
    stage
        .queue
        .publish(&NAME, message(record("agent.update")))
        .await
        .unwrap();
    stage.concierge.start();
    eventually(LIMIT, || async {
        let depth = stage.queue.depth(&NAME).await.unwrap();
        depth.ready == 0 && stage.count("select count(*) from inbox").await == 3
    })
    .await;
    let records = stage.audit(&owner, &sandbox.sandbox_id).await;
    let mut actions: Vec<&str> = records.iter().map(|record| record.action.as_str()).collect();
    actions.sort_unstable();
    assert_eq!(actions, ["agent.create", "agent.update", "sandbox.create"]);
    let written = records.iter().find(|record| record.action == "agent.create").unwrap();
    assert_eq!(written.id, twice.id.as_str());
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&written.actor_json).unwrap(),
        twice.actor
    );
    assert_eq!(written.request_id, caller.principal.request_id);
    assert!(stage.tasks.shut_down(LIMIT).await);
}

async fn what_is_no_record_harms_no_other(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    let me = stage.me(&owner).await;
    let before = stage.log().await.len();
    stage
        .queue
        .publish(&NAME, Message::new(KIND, json!({ "nonsense": true })))
        .await
        .unwrap();
    let good = Record::new(&me, "agent.create", "ag_1");
    let mut other = message(good.clone());
    other.kind = "audit.recorded.v2".to_owned();
    stage.queue.publish(&NAME, other).await.unwrap();
    stage.queue.publish(&NAME, message(good)).await.unwrap();
    stage.concierge.start();
    eventually(LIMIT, || async { stage.log().await.len() == before + 1 }).await;
    eventually(LIMIT, || async { stage.queue.depth(&NAME).await.unwrap().dead == 2 }).await;
    assert!(stage.tasks.shut_down(LIMIT).await);
}
