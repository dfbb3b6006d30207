//! A destroyed sandbox takes everything with it, once.

use std::time::Duration;

use copass_errors::ErrorCode;
use copass_proto::agent::{CreateAgentRequest, GetAgentRequest};
use copass_queue::{Message, Queue as _, QueueName};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, eventually, on_both_databases};
use serde_json::json;

use crate::support::{Builder, Fixture, LIMIT, assert_code, is_text};

const QUEUE: QueueName = QueueName::from_static("copass.agent-runner.tenancy");

on_both_databases! {
    everything_of_the_sandbox_goes_and_nothing_else
    a_second_delivery_changes_nothing
    a_message_that_is_none_is_a_dead_letter
}

async fn create(fixture: &Fixture, sandbox: &TestSandbox, slug: &str) {
    let request = CreateAgentRequest {
        sandbox_id: sandbox.id.to_string(),
        slug: slug.to_owned(),
        name: "An agent".to_owned(),
        system_prompt: "Be kind.".to_owned(),
        ..CreateAgentRequest::default()
    };
    fixture
        .agents()
        .create_agent(sandbox.owner().request(request))
        .await
        .unwrap();
}

fn destroyed(sandbox: &TestSandbox) -> Message {
    Message::new("sandbox.destroyed.v1", json!({"sandbox_id": sandbox.id}))
}

async fn handled(fixture: &Fixture) {
    eventually(LIMIT, async || {
        let depth = fixture.queue.depth(&QUEUE).await.unwrap();
        depth.ready == 0 && depth.delayed == 0 && depth.unacked == Some(0)
    })
    .await;
}

async fn everything_of_the_sandbox_goes_and_nothing_else(database: TestDatabase) {
    let script = json!({"match": [{"contains": "wait", "turns": [{"events": [{"text": "Hm"}, {"hang": true}]}]}],
        "turns": [{"events": [{"tool_call": {"name": "list_agents"}}]}, {"events": [{"text": "Hello."}]}]});
    let fixture = Builder::new(database, Wiring::Local).script(script).build().await;
    fixture.runner.start();
    let other = TestSandbox::new();
    create(&fixture, &fixture.sandbox, "mine").await;
    create(&fixture, &other, "theirs").await;
    fixture.say("hello").await;
    let mut live = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("wait"))
        .await
        .unwrap();
    live.until(is_text).await;

    fixture
        .queue
        .publish(&QUEUE, destroyed(&fixture.sandbox))
        .await
        .unwrap();
    handled(&fixture).await;
    tokio::time::timeout(Duration::from_secs(2), live.finish_reading())
        .await
        .expect("the live run ends");
    live.error();
    for table in [
        "select cast(count(*) as bigint) from runs",
        "select cast(count(*) as bigint) from run_steps",
        "select cast(count(*) as bigint) from conversations",
        "select cast(count(*) as bigint) from conversation_messages",
    ] {
        assert_eq!(fixture.count(table).await, 0, "{table}");
    }
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 1);
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from agent_versions")
            .await,
        1
    );
    let get = GetAgentRequest {
        sandbox_id: other.id.to_string(),
        slug: "theirs".to_owned(),
    };
    fixture.agents().get_agent(other.owner().request(get)).await.unwrap();
    let get = GetAgentRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        slug: "mine".to_owned(),
    };
    let gone = fixture
        .agents()
        .get_agent(fixture.sandbox.owner().request(get))
        .await
        .map_err(copass_errors::Error::from);
    assert_code(gone, ErrorCode::NotFound);
}

async fn a_second_delivery_changes_nothing(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    fixture.runner.start();
    create(&fixture, &fixture.sandbox, "first").await;
    let message = destroyed(&fixture.sandbox);
    fixture.queue.publish(&QUEUE, message.clone()).await.unwrap();
    handled(&fixture).await;
    // Made after the first delivery, so only a second effect could remove it.
    create(&fixture, &fixture.sandbox, "second").await;
    fixture.queue.publish(&QUEUE, message).await.unwrap();
    handled(&fixture).await;
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 1);
    assert_eq!(fixture.queue.depth(&QUEUE).await.unwrap().dead, 0);
}

async fn a_message_that_is_none_is_a_dead_letter(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    fixture.runner.start();
    create(&fixture, &fixture.sandbox, "mine").await;
    for message in [
        Message::new("sandbox.destroyed.v1", json!({})),
        Message::new(
            "sandbox.destroyed.v1",
            json!({"sandbox_id": "ag_00000000000000000000000000"}),
        ),
        Message::new("sandbox.destroyed.v9", json!({"sandbox_id": fixture.sandbox.id})),
    ] {
        fixture.queue.publish(&QUEUE, message).await.unwrap();
    }
    eventually(LIMIT, async || fixture.queue.depth(&QUEUE).await.unwrap().dead == 3).await;
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 1);
}
