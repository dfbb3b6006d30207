//! A destroyed sandbox takes everything with it, once.

use std::time::Duration;

use copass_errors::ErrorCode;
use copass_proto::agent::{CreateAgentRequest, GetAgentRequest};
use copass_queue::{Message, Queue as _, QueueName};
use copass_store::{Dialect, execute};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, eventually, on_both_databases};
use serde_json::json;

use crate::support::{Builder, Fixture, LIMIT, assert_code, is_text};

const QUEUE: QueueName = QueueName::from_static("copass.agent-runner.tenancy");

on_both_databases! {
    everything_of_the_sandbox_goes_and_nothing_else
    a_second_delivery_changes_nothing
    a_message_that_is_none_is_a_dead_letter
    a_large_sandbox_goes_in_slices_and_an_interruption_costs_nothing
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

const HOLD_SQLITE: &str =
    "create trigger hold before delete on runs when old.id = 'rn_z' begin select raise(abort, 'held'); end";
const HOLD_POSTGRES: &str = "create trigger hold before delete on runs for each row when (old.id = 'rn_z') \
    execute function hold()";
const HOLD_FUNCTION: &str = "create function hold() returns trigger language plpgsql as \
    'begin raise exception ''held''; end'";

/// Many runs of the sandbox with steps, a conversation with many messages, and a last run that cannot be deleted.
async fn fill(fixture: &Fixture) {
    fixture.say("hello").await;
    let mut tx = fixture.db().begin().await.unwrap();
    for fill in [
        "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 1200) \
         insert into runs (id, sandbox_id, user_id, agent_id, agent_version, status, warnings, fence, created_at, entrance) \
         select case when n = 1200 then 'rn_z' else 'rn_' || cast(10000 + n as text) end, sandbox_id, user_id, agent_id, \
         agent_version, status, warnings, fence, created_at, entrance from numbers cross join runs",
        "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 2) \
         insert into run_steps (id, run_id, seq, kind, state, is_read_only, started_at) \
         select 'st_' || cast(n as text) || id, id, 100 + n, 'tool', 'done', fence > 0, created_at \
         from numbers cross join runs",
        "insert into step_results (step_id, run_id, result) select 'st_1' || id, id, 'long' from runs",
        "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 1100) \
         insert into conversation_messages (session_id, seq, run_id, message, created_at) \
         select session_id, 100 + n, run_id, message, created_at from numbers cross join conversation_messages \
         where seq = (select min(seq) from conversation_messages)",
    ] {
        execute!(tx, fill).unwrap();
    }
    match fixture.db().dialect() {
        Dialect::Sqlite => execute!(tx, HOLD_SQLITE).unwrap(),
        Dialect::Postgres => {
            execute!(tx, HOLD_FUNCTION).unwrap();
            execute!(tx, HOLD_POSTGRES).unwrap()
        }
    };
    tx.commit().await.unwrap();
}

async fn a_large_sandbox_goes_in_slices_and_an_interruption_costs_nothing(database: TestDatabase) {
    const RUNS: &str = "select cast(count(*) as bigint) from runs";
    const RECORDED: &str = "select cast(count(*) as bigint) from inbox where consumer = 'agent-runner.tenancy'";
    let fixture = Builder::new(database, Wiring::Local).build().await;
    fill(&fixture).await;
    assert_eq!(fixture.count(RUNS).await, 1201);
    fixture.runner.start();
    let message = destroyed(&fixture.sandbox);
    fixture.queue.publish(&QUEUE, message).await.unwrap();
    // What can be deleted is gone although the rest cannot be, and the message is not done.
    eventually(LIMIT, async || fixture.count(RUNS).await == 201).await;
    assert_eq!(fixture.count(RECORDED).await, 0);
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from conversations")
            .await,
        1
    );
    let mut tx = fixture.db().begin().await.unwrap();
    match fixture.db().dialect() {
        Dialect::Sqlite => execute!(tx, "drop trigger hold").unwrap(),
        Dialect::Postgres => execute!(tx, "drop trigger hold on runs").unwrap(),
    };
    tx.commit().await.unwrap();
    eventually(LIMIT, async || fixture.count(RECORDED).await == 1).await;
    for table in [
        RUNS,
        "select cast(count(*) as bigint) from run_steps",
        "select cast(count(*) as bigint) from step_results",
        "select cast(count(*) as bigint) from conversations",
        "select cast(count(*) as bigint) from conversation_messages",
        "select cast(count(*) as bigint) from agents",
        "select cast(count(*) as bigint) from agent_versions",
    ] {
        assert_eq!(fixture.count(table).await, 0, "{table}");
    }
    assert_eq!(fixture.queue.depth(&QUEUE).await.unwrap().dead, 0);
}
