//! Whoever drops the stream cancels the run, wherever it is.

use std::time::Duration;

use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use serde_json::json;

use crate::support::{Builder, LIMIT, SOON, Turn, is_call, is_text};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    leaving_in_the_middle_of_the_text
    leaving_in_the_middle_of_a_tool_call
    leaving_while_the_model_says_nothing
    leaving_in_the_middle_of_a_changing_call
    }
}

on_both_databases! {
    a_reader_that_takes_nothing_is_disconnected
    leaving_before_the_first_frame
    leaving_after_the_end_changes_nothing
}

async fn leaving_in_the_middle_of_the_text(database: TestDatabase, wiring: Wiring) {
    let script = json!({"turns": [{"events": [{"repeat": {"count": 10_000, "text": "word ", "interval_ms": 5}}]}]});
    let fixture = Builder::new(database, wiring).script(script).build().await;
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("talk"))
        .await
        .unwrap();
    for _ in 0..3 {
        turn.until(is_text).await;
    }
    let (run_id, text) = (turn.run_id(), turn.text());
    drop(turn);
    let run = fixture.run_becomes(&run_id, "cancelled", SOON).await;
    assert_eq!(run.error_message.as_deref(), Some("the client went away"));
    assert!(run.output_text.unwrap().starts_with(&text), "partial text is kept");
    assert_eq!(run.steps[0].state, "failed");

    // The conversation is free, keeps what the person said and nothing of the broken reply.
    let session_id = run.provider_session_id.unwrap();
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from conversation_messages")
            .await,
        1
    );
    let mut again = fixture.turn("again");
    again.session_id = Some(session_id);
    drop(fixture.start(&fixture.sandbox.owner(), again).await.unwrap());
}

async fn leaving_in_the_middle_of_a_tool_call(database: TestDatabase, wiring: Wiring) {
    let script = json!({"turns": [{"events": [{"tool_call": {"name": "list_agents"}}]}]});
    let fixture = Builder::new(database, wiring).script(script).build().await;
    fixture.concierge.hangs("list_agents");
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("look"))
        .await
        .unwrap();
    turn.until(is_call).await;
    eventually(LIMIT, async || fixture.concierge.running() == 1).await;
    let run_id = turn.run_id();
    drop(turn);
    let run = fixture.run_becomes(&run_id, "cancelled", SOON).await;
    assert_eq!(
        (run.steps[1].kind.as_str(), run.steps[1].state.as_str()),
        ("tool", "failed")
    );
    // The call is stopped on the other side too.
    eventually(SOON, async || fixture.concierge.running() == 0).await;
}

async fn leaving_in_the_middle_of_a_changing_call(database: TestDatabase, wiring: Wiring) {
    let script = json!({"turns": [{"events": [{"tool_call": {"name": "create_agent", "arguments": {"slug": "a"}}}]}]});
    let fixture = Builder::new(database, wiring).script(script).build().await;
    fixture.concierge.hangs("create_agent");
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("make"))
        .await
        .unwrap();
    turn.until(is_call).await;
    eventually(LIMIT, async || fixture.concierge.running() == 1).await;
    let run_id = turn.run_id();
    assert_eq!(
        fixture.run_row(&run_id).await.steps[1].state,
        "intended",
        "the intention is durable before the call"
    );
    drop(turn);
    let run = fixture.run_becomes(&run_id, "cancelled", SOON).await;
    assert_eq!(run.steps[1].state, "unknown", "nobody knows whether it took effect");
    assert!(run.error_message.unwrap().contains("create_agent (call_1)"));
}

async fn leaving_while_the_model_says_nothing(database: TestDatabase, wiring: Wiring) {
    let fixture = Builder::new(database, wiring)
        .script(json!({"turns": [{"events": [{"hang": true}]}]}))
        .build()
        .await;
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("hello"))
        .await
        .unwrap();
    turn.next().await;
    let run_id = turn.run_id();
    drop(turn);
    let run = fixture.run_becomes(&run_id, "cancelled", SOON).await;
    assert_eq!(run.output_text.as_deref(), Some(""));
}

async fn leaving_before_the_first_frame(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local)
        .script(json!({"turns": [{"events": [{"hang": true}]}]}))
        .build()
        .await;
    for pause_us in [0, 200, 1000, 3000] {
        let owner = fixture.sandbox.owner();
        let starting = fixture.start(&owner, fixture.turn("hello"));
        let _: Result<Result<Turn, _>, _> = tokio::time::timeout(Duration::from_micros(pause_us), starting).await;
    }
    let live = "select cast(count(*) as bigint) from runs where status <> 'cancelled'";
    let busy = "select cast(count(*) as bigint) from conversations where busy_run_id is not null";
    eventually(SOON, async || {
        fixture.count(live).await == 0 && fixture.count(busy).await == 0
    })
    .await;
}

async fn leaving_after_the_end_changes_nothing(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("hello"))
        .await
        .unwrap();
    turn.next().await;
    let run_id = turn.run_id();
    fixture.run_becomes(&run_id, "succeeded", LIMIT).await;
    drop(turn);
    assert_eq!(fixture.run_row(&run_id).await.status, "succeeded");
}

async fn a_reader_that_takes_nothing_is_disconnected(database: TestDatabase) {
    let script =
        json!({"turns": [{"events": [{"repeat": {"count": 100, "text": "x".repeat(10_000)}}, {"hang": true}]}]});
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .config(|config| config.limits.slow_reader = Duration::from_millis(100))
        .build()
        .await;
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("talk"))
        .await
        .unwrap();
    turn.next().await;
    let run = fixture.run_becomes(&turn.run_id(), "cancelled", SOON).await;
    assert_eq!(
        run.error_message.as_deref(),
        Some("the client took no frames for too long")
    );
    // What it finally reads is whole and ends properly.
    turn.finish_reading().await;
    assert_eq!(turn.error().r#type, "Cancelled");
    assert!(turn.text().len() < 1_000_000);
}
