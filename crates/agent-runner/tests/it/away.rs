//! The database is away for a moment, as in a restart of the server: it costs runs some time and nothing else. The faults
//! are triggers of PostgreSQL's, which counts them in a sequence because that survives a rolled back statement.

use copass_store::{Db, execute};
use copass_test_support::{TestDatabase, Wiring, eventually};
use serde_json::json;

use crate::support::{Builder, FakeSource, Fixture, LIMIT, Turn};

/// Makes the statements fail that the trigger is for.
pub(crate) async fn break_it(db: &Db, when: &'static str, trigger: &'static str) {
    let mut tx = db.begin().await.unwrap();
    execute!(tx, "create sequence faults").unwrap();
    execute!(tx, when).unwrap();
    execute!(tx, trigger).unwrap();
    tx.commit().await.unwrap();
}

pub(crate) const FAULTS: &str = "select case when is_called then last_value else 0 end from faults";
const TWO_OF_THREE: &str = "create function fail() returns trigger language plpgsql as 'begin \
    if nextval(''faults'') % 3 <> 0 then raise exception ''shutting down'' using errcode = ''57P01''; end if; \
    return new; end'";
pub(crate) const ALWAYS: &str = "create function fail() returns trigger language plpgsql as 'begin \
    perform nextval(''faults''); raise exception ''shutting down'' using errcode = ''57P01''; end'";
const SIX_TIMES: &str = "create function fail() returns trigger language plpgsql as 'begin \
    if nextval(''faults'') <= 6 then raise exception ''shutting down'' using errcode = ''57P01''; end if; \
    return new; end'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_of_a_run_outlasts_it() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let script = json!({"turns": [
        {"events": [{"tool_call": {"name": "create_agent"}}]},
        {"events": [{"text": "Made."}]}]});
    let fixture = Builder::new(database, Wiring::Local).script(script).build().await;
    let trigger = "create trigger fail before update on runs for each row execute function fail()";
    break_it(fixture.db(), TWO_OF_THREE, trigger).await;
    let turn = fixture.say("make one").await;
    assert_eq!(
        (turn.text().as_str(), turn.finish().stop_reason.as_str()),
        ("Made.", "end_turn")
    );
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.status, "succeeded");
    assert!(run.steps.iter().all(|step| step.state == "done"), "{:?}", run.steps);
    assert_eq!(fixture.concierge.calls().len(), 1);
    let faults = fixture.count(FAULTS).await;
    assert!(faults >= 6 && faults % 3 == 0, "{faults}");
}

/// A turn whose success the database does not take.
async fn that_cannot_succeed(database: TestDatabase) -> (Fixture, Turn) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let trigger = "create trigger fail before update on runs for each row when (new.status = 'succeeded') \
                   execute function fail()";
    break_it(fixture.db(), ALWAYS, trigger).await;
    let turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("hello"))
        .await
        .unwrap();
    (fixture, turn)
}

/// The commit was made and its answer was lost, so the next try finds the run over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_is_written_is_told_as_it_is() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (fixture, mut turn) = that_cannot_succeed(database).await;
    let written = async {
        eventually(LIMIT, async || fixture.count(FAULTS).await > 0).await;
        let mut tx = fixture.db().begin().await.unwrap();
        execute!(tx, "drop trigger fail on runs").unwrap();
        execute!(
            tx,
            "update runs set status = 'succeeded', lease_owner = null, lease_expires_at = null"
        )
        .unwrap();
        tx.commit().await.unwrap();
    };
    tokio::join!(turn.finish_reading(), written);
    assert_eq!(turn.finish().stop_reason, "end_turn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_another_kind_is_not_taken_for_its_own() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let (fixture, mut turn) = that_cannot_succeed(database).await;
    let taken = async {
        eventually(LIMIT, async || fixture.count(FAULTS).await > 0).await;
        let mut tx = fixture.db().begin().await.unwrap();
        execute!(tx, "update runs set status = 'failed', fence = fence + 1").unwrap();
        tx.commit().await.unwrap();
    };
    tokio::join!(turn.finish_reading(), taken);
    let message = &turn.error().message;
    assert!(message.contains("another worker ended the run"), "{message}");
}

/// Longer than a worker waits: another one goes on from the last step that was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_the_background_outlives_a_long_absence() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let source = FakeSource::usual();
    let script = json!({"turns": [
        {"events": [{"tool_call": {"name": "make"}}]},
        {"events": [{"text": "Made."}]}]});
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .short_leases()
        .build()
        .await;
    let trigger = "create trigger fail before insert on run_steps for each row when (new.kind = 'tool') \
                   execute function fail()";
    break_it(fixture.db(), SIX_TIMES, trigger).await;
    fixture.runner.start();
    fixture.start_relay();
    fixture.make_agent().await;
    let run_id = fixture.invoked("begin").await;
    let run = fixture.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.output_text.as_deref()),
        ("succeeded", Some("Made.")),
        "{run:?}"
    );
    assert_eq!((run.continuations, source.count("make")), (1, 1));
}
