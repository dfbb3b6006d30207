//! A model that misbehaves reaches a terminal state with a reason, and never a hanging run.

use std::{sync::Arc, time::Duration};

use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::{Value, json};

use crate::support::{Builder, Fixture, LIMIT, SOON, Turn, providers};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! { endless_text_is_cut
    }
}
on_both_databases! {
    an_answer_without_a_finish_fails
    a_panic_in_the_engine_fails_the_run
    a_model_that_loops_is_stopped
    too_many_calls_at_once_fail
    waiting_for_tools_without_calls_is_the_end
    nothing_said_is_a_warning
    characters_no_database_keeps_are_replaced
    a_stream_that_never_says_anything_can_be_left
}

async fn said(database: TestDatabase, script: Value) -> (Fixture, Turn) {
    let fixture = Builder::new(database, Wiring::Local).script(script).build().await;
    let turn = fixture.say("hello").await;
    (fixture, turn)
}

async fn endless_text_is_cut(database: TestDatabase, wiring: Wiring) {
    let script =
        json!({"turns": [{"events": [{"repeat": {"count": 1_000_000_000_u64, "text": "endless ä ".repeat(100)}}]}]});
    let fixture = Builder::new(database, wiring).script(script).build().await;
    let turn = fixture.say("talk").await;
    assert!(
        turn.error().message.contains("more than 1048576 bytes"),
        "{}",
        turn.error().message
    );
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.status, "failed");
    assert_eq!(run.output_text.unwrap(), turn.text());
    assert!((1_048_570..=1_048_576).contains(&turn.text().len()));
}

async fn an_answer_without_a_finish_fails(database: TestDatabase) {
    let (fixture, turn) = said(
        database,
        json!({"turns": [{"events": [{"text": "Well"}, {"end_without_finish": true}]}]}),
    )
    .await;
    assert!(turn.error().message.contains("without a finish"));
    assert_eq!(fixture.run_row(&turn.run_id()).await.status, "failed");
}

async fn a_panic_in_the_engine_fails_the_run(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local)
        .provider(Arc::new(providers::Panicking))
        .build()
        .await;
    let turn = fixture.say("hello").await;
    assert_eq!(turn.error().r#type, "InternalError");
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        (run.status.as_str(), run.output_text.as_deref()),
        ("failed", Some("half a"))
    );
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from conversations where busy_run_id is not null")
            .await,
        0
    );
}

async fn a_model_that_loops_is_stopped(database: TestDatabase) {
    let (fixture, turn) = said(
        database,
        json!({"turns": [{"events": [{"tool_call": {"name": "list_agents"}}]}]}),
    )
    .await;
    assert_eq!(turn.finish().stop_reason, "max_turns");
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.status, "succeeded");
    assert_eq!(run.steps.len(), 50, "25 answers and their calls");
    assert_eq!(fixture.concierge.calls().len(), 25);
    assert!(run.warnings_json.contains("stopped after 25 model answers"));
}

async fn too_many_calls_at_once_fail(database: TestDatabase) {
    let calls = vec![json!({"tool_call": {"name": "list_agents"}}); 65];
    let (fixture, turn) = said(database, json!({"turns": [{"events": calls}]})).await;
    assert_eq!(turn.error().r#type, "ProviderError");
    assert!(fixture.concierge.calls().is_empty());
}

async fn waiting_for_tools_without_calls_is_the_end(database: TestDatabase) {
    let script = json!({"turns": [{"events": [{"text": "So."}], "stop_reason": "tool_use"}]});
    let (_, turn) = said(database, script).await;
    assert_eq!(turn.finish().stop_reason, "end_turn");
}

async fn nothing_said_is_a_warning(database: TestDatabase) {
    let (fixture, turn) = said(
        database,
        json!({"turns": [{"events": [], "stop_reason": "max_tokens"}]}),
    )
    .await;
    assert_eq!(turn.finish().stop_reason, "max_tokens");
    assert!(
        fixture
            .run_row(&turn.run_id())
            .await
            .warnings_json
            .contains("without saying anything")
    );
}

async fn characters_no_database_keeps_are_replaced(database: TestDatabase) {
    let script = json!({"turns": [
        {"events": [{"text": "a\u{0}b"}, {"tool_call": {"name": "list_agents", "arguments": {"k\u{0}": ["\u{0}"]}}},
                    {"invalid_tool_call": {"name": "bad\u{0}name", "call_id": "id\u{0}"}}]},
        {"events": [{"text": "."}], "stop_reason": "odd\u{0}reason"}]});
    let fixture = Builder::new(database, Wiring::Local).script(script).build().await;
    fixture
        .concierge
        .answers("list_agents", json!({"name\u{0}": "x\u{0}y"}));
    let turn = fixture.say("hello").await;
    assert_eq!(turn.finish().stop_reason, "oddreason");
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.output_text.as_deref(), Some("a\u{fffd}b."));
    assert!(!format!("{:?}", turn.seen).contains('\0'));
}

async fn a_stream_that_never_says_anything_can_be_left(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local)
        .provider(Arc::new(providers::Babbling))
        .build()
        .await;
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("hello"))
        .await
        .unwrap();
    turn.next().await;
    let run_id = turn.run_id();
    drop(turn);
    let run = tokio::time::timeout(
        LIMIT,
        fixture.run_becomes(&run_id, "cancelled", SOON + Duration::from_secs(1)),
    );
    assert!(run.await.is_ok());
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_ends_the_run_all_the_same() {
    let script = json!({"turns": [{"events": [{"text": "Hm"}, {"tool_call": {"name": "list_agents"}}]}]});
    let fixture = Builder::new(TestDatabase::sqlite().await, Wiring::Local)
        .script(script)
        .build()
        .await;
    let mut tx = fixture.db().begin().await.unwrap();
    let refuse =
        "create trigger refuse before insert on run_steps when new.seq > 1 begin select raise(abort, 'no'); end";
    copass_store::execute!(tx, refuse).unwrap();
    tx.commit().await.unwrap();
    let turn = fixture.say("hello").await;
    assert_eq!(turn.error().r#type, "InternalError");
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!((run.status.as_str(), run.steps[0].state.as_str()), ("failed", "failed"));
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from conversations where busy_run_id is not null")
            .await,
        0
    );
}
