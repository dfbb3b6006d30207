//! Following a run: from any point, from any replica, exactly what is stored.

use std::time::{Duration, Instant};

use copass_errors::ErrorCode;
use copass_proto::run::run_frame::Frame;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, eventually, on_both_databases};
use copass_types::RunId;
use serde_json::{Value, json};

use crate::support::{
    Builder, FakeSource, Fixture, LIMIT, Turn, agent_runs::joined, assert_code, is_call, is_text, providers::Gated,
    scripted,
};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    a_follower_that_is_cut_anywhere_sees_the_stored_sequence
    a_reader_that_is_cut_anywhere_goes_on_with_the_stored_sequence
    }
}
on_both_databases! {
    a_run_that_failed_is_followed_to_its_end
    a_follower_elsewhere_sees_frames_at_once
    a_run_that_has_not_begun_is_followed
    a_reader_of_a_lost_worker_gets_the_end
    who_may_follow_what
}

/// Text in pieces that come one after the other, reading calls side by side, a change, and characters of several bytes.
fn varied() -> Value {
    json!({"turns": [
        {"events": [{"text": "Let "}, {"stall_ms": 20}, {"text": "me lö"}, {"stall_ms": 20}, {"text": "ök. "}, {"tool_call": {"name": "look", "arguments": {"b": 1, "a": 2}}},
                    {"tool_call": {"name": "list"}}, {"tool_call": {"name": "find"}}]},
        {"events": [{"tool_call": {"name": "make"}}, {"tool_call": {"name": "look"}}]},
        {"events": [{"text": "All "}, {"stall_ms": 20}, {"text": "is "}, {"text": "wéll."}]}]})
}

async fn fixture(database: TestDatabase, wiring: Wiring, script: Value) -> (Fixture, FakeSource) {
    let source = FakeSource::usual();
    source.answers("list", json!({"items": ["ä", "b"], "at": 1.5}));
    let fixture = Builder::new(database, wiring)
        .script(script)
        .tool_source(source.shared())
        .build()
        .await;
    fixture.make_agent().await;
    (fixture, source)
}

/// Cut after each frame of the reading and went on with: together what is stored.
async fn assert_resumable(fixture: &Fixture, run_id: &str, read: &Turn) {
    let stored = fixture.stored(run_id, None).await;
    let expected = joined(&stored.seen);
    for (index, id) in read.ids.iter().enumerate() {
        let rest = fixture.stored(run_id, Some(id)).await;
        let together: Vec<&Frame> = read.seen[..=index].iter().chain(&rest.seen).collect();
        assert_eq!(joined(together), expected, "cut after {id}");
    }
}

async fn a_follower_that_is_cut_anywhere_sees_the_stored_sequence(database: TestDatabase, wiring: Wiring) {
    let (fixture, _) = fixture(database, wiring, varied()).await;
    let run_id = fixture.invoked("begin").await;
    // From before the first step on, beside the run.
    let mut beside = fixture.follow(&fixture.sandbox.owner(), &run_id, None).await.unwrap();
    beside.finish_reading().await;
    let stored = fixture.stored(&run_id, None).await;
    assert_eq!((&beside.seen, &beside.ids), (&stored.seen, &stored.ids));
    let numbers: Vec<usize> = stored
        .ids
        .iter()
        .map(|id| id.split('.').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (1..=14).collect::<Vec<_>>(), "{:?}", stored.seen);
    assert_resumable(&fixture, &run_id, &stored).await;
    // Whoever has the end gets nothing, and whoever claims to have more gets the end.
    let end = stored.ids.last().unwrap();
    assert!(fixture.stored(&run_id, Some(end)).await.seen.is_empty());
    assert!(fixture.is_complete(&run_id, end).await);
    assert!(!fixture.is_complete(&run_id, "1").await);
    let beyond = fixture.stored(&run_id, Some("999.9")).await;
    assert_eq!(joined(&beyond.seen), joined(&stored.seen[13..]));
}

async fn a_reader_that_is_cut_anywhere_goes_on_with_the_stored_sequence(database: TestDatabase, wiring: Wiring) {
    let (fixture, _) = fixture(database, wiring, varied()).await;
    let live = fixture.fired(&json!({})).await;
    assert!(
        live.ids.iter().filter(|id| id.contains('.')).count() > 2,
        "{:?}",
        live.ids
    );
    assert_resumable(&fixture, &live.run_id(), &live).await;
    // A place in the middle of a character is as good as the one before it.
    let inside = fixture.stored(&live.run_id(), Some("2.8")).await;
    assert!(
        matches!(&inside.seen[0], Frame::AgentTextDelta(delta) if delta.text == "öök. "),
        "{:?}",
        inside.seen
    );
    let chat = fixture.say("hello").await;
    assert_resumable(&fixture, &chat.run_id(), &chat).await;
}

async fn a_run_that_failed_is_followed_to_its_end(database: TestDatabase) {
    let script = json!({"match": [
        {"contains": "break", "turns": [
            {"events": [{"text": "A"}, {"text": "h. "}, {"tool_call": {"name": "look"}}]},
            {"events": [{"text": "So"}, {"text": " far"}, {"error": {"kind": "protocol", "message": "no"}}]}]},
        {"contains": "stand", "turns": [{"events": [{"text": "Wel"}, {"text": "l, "}, {"hang": true}]}]}],
        "turns": [{"events": [{"text": "x"}]}]});
    let (fixture, _) = fixture(database, Wiring::Local, script).await;
    let failed = fixture.fired(&json!({"do": "break"})).await;
    assert_eq!(failed.error().r#type, "ProviderError");
    assert_eq!(fixture.stored(&failed.run_id(), None).await.text(), "Ah. So far");
    assert_resumable(&fixture, &failed.run_id(), &failed).await;
    let mut request = fixture.test_fire(r#"{"do": "stand"}"#);
    request.timeout_ms = 100;
    let mut late = fixture.fire(&fixture.sandbox.owner(), request).await.unwrap();
    late.finish_reading().await;
    assert_eq!(late.error().r#type, "Timeout");
    assert_eq!(fixture.stored(&late.run_id(), None).await.text(), "Well, ");
    assert_resumable(&fixture, &late.run_id(), &late).await;
}

async fn a_follower_elsewhere_sees_frames_at_once(database: TestDatabase) {
    let source = FakeSource::usual();
    let provider = Gated::new(scripted(json!({"turns": [
        {"events": [{"text": "1"}, {"tool_call": {"name": "make"}}]}, {"events": [{"text": "2"}, {"tool_call": {"name": "make"}}]},
        {"events": [{"text": "3"}, {"tool_call": {"name": "make"}}]}, {"events": [{"text": "4"}]}]})));
    let here = Builder::new(database, Wiring::Remote)
        .provider(provider.clone())
        .tool_source(source.shared())
        .build()
        .await;
    here.runner.start();
    let there = Builder::replica_of(&here, "there").build().await;
    there.runner.start();
    here.make_agent().await;
    let run_id = here.invoked("begin").await;
    let mut follower = there.follow(&there.sandbox.owner(), &run_id, None).await.unwrap();
    follower.next().await;
    let mut delays = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        provider.gate.add_permits(1);
        follower.until(is_call).await;
        delays.push(began.elapsed());
    }
    let began = Instant::now();
    provider.gate.add_permits(1);
    follower.finish_reading().await;
    delays.push(began.elapsed());
    assert_eq!(follower.text(), "1234");
    // Without news each of them would take ten seconds, because a look has just been taken.
    assert!(delays.iter().min().unwrap() < &Duration::from_millis(300), "{delays:?}");
}

async fn a_run_that_has_not_begun_is_followed(database: TestDatabase) {
    let source = FakeSource::usual();
    let gate = source.gate("look");
    let fixture = Builder::new(database, Wiring::Local)
        .script(json!({"turns": [{"events": [{"tool_call": {"name": "look"}}]}, {"events": [{"text": "Done."}]}]}))
        .tool_source(source.shared())
        .config(|config| config.background_runs = 1)
        .build()
        .await;
    fixture.make_agent().await;
    let first = fixture.invoked("begin").await;
    let second = fixture.invoked("begin").await;
    fixture.runner.start();
    fixture.start_relay();
    let mut follower = fixture.follow(&fixture.sandbox.viewer(), &second, None).await.unwrap();
    follower.next().await;
    assert_eq!(
        (follower.run_id(), fixture.run_row(&second).await.status.as_str()),
        (second, "pending")
    );
    gate.add_permits(2);
    follower.finish_reading().await;
    assert_eq!(follower.text(), "Done.");
    fixture.ended(&first).await;
}

async fn a_reader_of_a_lost_worker_gets_the_end(database: TestDatabase) {
    // The worker tells more than it has written when it is lost.
    let script = json!({"turns": [{"events": [{"text": "One "}, {"text": "two "}, {"tool_call": {"name": "look"}}]}]});
    let source = FakeSource::usual();
    source.on("look", |_| std::future::pending());
    let lost = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .short_leases()
        .build()
        .await;
    lost.make_agent().await;
    let mut live = lost.fire(&lost.sandbox.owner(), lost.test_fire("{}")).await.unwrap();
    live.until(is_call).await;
    let reaper = Builder::replica_of(&lost, "reaper").short_leases().build().await;
    reaper.runner.start();
    let run = reaper.ended(&live.run_id()).await;
    assert_eq!(
        (run.status.as_str(), run.error_type.as_deref()),
        ("failed", Some("WorkerLost"))
    );
    for id in &live.ids {
        let rest = reaper.stored(&live.run_id(), Some(id)).await;
        assert_eq!(rest.seen.len(), 1, "after {id}: {:?}", rest.seen);
        assert_eq!(rest.error().r#type, "WorkerLost");
    }
    // Whoever has the end has it all.
    let stored = reaper.stored(&live.run_id(), None).await;
    assert_eq!(stored.seen.len(), 2);
    assert!(
        reaper
            .stored(&live.run_id(), Some(&stored.ids[1]))
            .await
            .seen
            .is_empty()
    );
}

async fn who_may_follow_what(database: TestDatabase) {
    let (fixture, source) = fixture(database, Wiring::Local, varied()).await;
    let gate = source.gate("make");
    let run_id = fixture.invoked("begin").await;
    let viewer = fixture.sandbox.viewer();
    for id in ["", "x", "1.", ".1", "-1", "1.2.3", "1.-1", "99999999999999999999"] {
        let refused = fixture.follow(&viewer, &run_id, Some(id)).await;
        let refused = assert_code(refused, ErrorCode::ValidationError);
        assert_eq!(refused.problems()[0].loc, ["query", "after"], "{id}");
    }
    for stranger in [fixture.sandbox.foreign(), fixture.sandbox.nobody()] {
        assert_code(fixture.follow(&stranger, &run_id, None).await, ErrorCode::NotFound);
    }
    let unknown = RunId::generate().to_string();
    assert_code(fixture.follow(&viewer, &unknown, None).await, ErrorCode::NotFound);
    // The run of another sandbox, by somebody who may read his own.
    let other = TestSandbox::new();
    let request = copass_proto::run::FollowRunRequest {
        sandbox_id: other.id.to_string(),
        run_id: run_id.clone(),
        after: None,
    };
    let refused = fixture.runs().follow_run(other.owner().request(request)).await;
    assert_code(
        refused.map(|_| ()).map_err(copass_errors::Error::from),
        ErrorCode::NotFound,
    );
    // A talk with the Concierge is followed by the person and the owner.
    let chat = fixture.say_as(&viewer, "hello", None).await.run_id();
    assert_code(
        fixture.follow(&fixture.sandbox.editor(), &chat, None).await,
        ErrorCode::NotFound,
    );
    for caller in [&viewer, &fixture.sandbox.owner()] {
        let mut turn = fixture.follow(caller, &chat, None).await.unwrap();
        turn.finish_reading().await;
    }
    // Following ends nothing, however many do and leave.
    for _ in 0..3 {
        let mut follower = fixture.follow(&viewer, &run_id, None).await.unwrap();
        follower.until(is_text).await;
    }
    eventually(LIMIT, async || source.count("make") == 1).await;
    gate.add_permits(1);
    assert_eq!(fixture.ended(&run_id).await.status, "succeeded");
}

/// All streams between two services share a connection. What still comes for those that were left must not close it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_leave_take_no_other_stream_with_them() {
    const READERS: usize = 200;
    let flood = json!({"turns": [{"events": [{"repeat": {"count": 100_000, "text": "word "}}]}]});
    let (fixture, _) = fixture(TestDatabase::sqlite().await, Wiring::Remote, flood).await;
    let owner = fixture.sandbox.owner();
    for _ in 0..12 {
        let readers = (0..READERS).map(async |_| {
            let mut reader = fixture.fire(&owner, fixture.test_fire("{}")).await.unwrap();
            reader.until(is_text).await;
            reader
        });
        // All at once: more than are remembered by default, with text on its way to each.
        drop(futures::future::join_all(readers).await);
    }
}
