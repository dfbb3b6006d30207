//! Workers that are lost: their runs go on elsewhere, and nothing that changes anything is done twice.

use std::{sync::Arc, time::Duration};

use copass_llm::{Message, Provider};
use copass_proto::run::run_frame::Frame;
use copass_store::execute;
use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    changes::archive,
    support::{
        AGENT, Builder, FakeSource, Fixture, LIMIT, SHORT_LEASE,
        agent_runs::joined,
        providers::{Gated, Recording, StandsStill},
        scripted,
    },
};

on_both_databases! {
    a_run_that_loses_its_worker_at_any_boundary_succeeds
    a_reading_call_in_flight_is_made_again
    a_changing_call_in_flight_is_not_and_the_run_names_it
    a_change_that_ended_before_the_loss_is_known
    a_call_that_was_uncertain_before_the_loss_stays_told
    a_run_that_loses_too_many_workers_fails
    of_many_workers_one_works_on_a_run
    a_runs_time_is_counted_from_its_first_start
    a_run_that_was_begun_goes_on_although_its_agent_is_archived
    secrets_that_are_not_kept_are_not_made_up
    a_worker_that_takes_its_own_run_up_again_keeps_it
    a_lost_run_waits_for_a_place_with_all_others
    many_runs_that_wait_do_not_keep_others_from_their_end
    a_worker_that_wakes_up_late_does_nothing
}

const USAGE: [u64; 5] = [1, 10, 100, 1_000, 10_000];

/// Five answers, five calls: ten steps.
fn ten_steps() -> Value {
    let usage = |index: usize| json!({"input_tokens": USAGE[index], "output_tokens": 1});
    json!({"turns": [
        {"events": [{"text": "One. "}, {"tool_call": {"name": "look"}}], "usage": usage(0)},
        {"events": [{"tool_call": {"name": "make", "arguments": {"n": 1}}}], "usage": usage(1)},
        {"events": [{"text": "Th"}, {"text": "ree. "}, {"tool_call": {"name": "list"}}, {"tool_call": {"name": "find"}}],
            "usage": usage(2)},
        {"events": [{"tool_call": {"name": "send"}}], "usage": usage(3)},
        {"events": [{"text": "Five."}], "usage": usage(4)},
    ]})
}

/// The same, standing still in the middle of an answer's text.
fn stuck_in_text(turn: usize) -> Value {
    let mut script = ten_steps();
    let events = script["turns"][turn]["events"].as_array_mut().unwrap();
    let end = events
        .iter()
        .position(|event| event.get("tool_call").is_some())
        .unwrap_or(events.len());
    events.insert(end, json!({"hang": true}));
    script
}

/// A worker that can lose its runs: nothing beats and nothing reaps in it.
fn first(database: &Arc<TestDatabase>, source: &FakeSource) -> Builder {
    Builder::sharing(database.clone(), Wiring::Local)
        .tool_source(source.shared())
        .short_leases()
}

/// A worker that takes runs up.
async fn second(first: &Fixture, source: &FakeSource, provider: Arc<dyn Provider>) -> Fixture {
    let second = Builder::replica_of(first, "second")
        .provider(provider)
        .tool_source(source.shared())
        .short_leases()
        .build()
        .await;
    second.runner.start();
    second
}

const BUSY: &str = "select cast(count(*) as bigint) from conversations where busy_run_id is not null";

async fn a_run_that_loses_its_worker_at_any_boundary_succeeds(database: TestDatabase) {
    let database = Arc::new(database);
    let source = FakeSource::usual();
    let mut workers = Vec::new();
    let mut sandbox = None;
    // At every question to the model, and in the middle of every text.
    for place in 0..8 {
        let provider: Arc<dyn Provider> = match place {
            0..5 => StandsStill::at(place + 1, scripted(ten_steps())),
            place => scripted(stuck_in_text([0, 2, 4][place - 5])),
        };
        let mut builder = first(&database, &source).provider(provider);
        if let Some(sandbox) = &sandbox {
            builder = builder.sandbox(sandbox);
        }
        let worker = builder.build().await;
        if sandbox.is_none() {
            worker.make_agent().await;
            sandbox = Some(worker.sandbox.clone());
        }
        let run_id = worker.invoked("begin").await;
        let calls = [0, 1, 2, 4, 5, 0, 2, 5][place];
        let answers = [0, 1, 2, 3, 4, 0, 2, 4][place];
        eventually(LIMIT, async || {
            let steps = worker.run_row(&run_id).await.steps;
            let done = steps
                .iter()
                .filter(|step| step.kind == "model" && step.state == "done")
                .count();
            done == answers && steps.len() == answers + calls + 1
        })
        .await;
        assert_eq!(source.of_run(&run_id).len(), calls, "place {place}");
        workers.push((worker, run_id));
    }
    let second = second(&workers[0].0, &source, scripted(ten_steps())).await;
    let expected = {
        let run_id = second.invoked("undisturbed").await;
        second.ended(&run_id).await;
        kinds(&second.stored(&run_id, None).await.seen)
    };
    assert_eq!(expected.len(), 15, "{expected:?}");
    for (place, (_, run_id)) in workers.iter().enumerate() {
        let run = second.ended(run_id).await;
        assert_eq!(
            (run.status.as_str(), run.continuations),
            ("succeeded", 1),
            "place {place}: {run:?}"
        );
        assert_eq!(run.output_text.as_deref(), Some("One. Three. Five."), "place {place}");
        assert_eq!(
            (run.tokens_in, run.tokens_out),
            (Some(11_111), Some(5)),
            "place {place}"
        );
        assert!(
            run.warnings_json.contains("went on from its last step"),
            "{}",
            run.warnings_json
        );
        let mut names: Vec<String> = source.of_run(run_id).into_iter().map(|made| made.name).collect();
        names[2..4].sort();
        assert_eq!(names, ["look", "make", "find", "list", "send"], "place {place}");
        assert!(
            run.steps.iter().all(|step| step.state == "done"),
            "place {place}: {:?}",
            run.steps
        );
        assert_eq!(run.steps.len(), 10);
        let turn = second.stored(run_id, None).await;
        assert_eq!(kinds(&turn.seen), expected, "place {place}");
        let numbers: Vec<usize> = turn
            .ids
            .iter()
            .map(|id| id.split('.').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(numbers, (1..=15).collect::<Vec<_>>(), "place {place}");
    }
    assert_eq!(second.count(BUSY).await, 0);
    // What a lost worker does when it wakes up changes nothing: they all stand still until their futures are dropped.
    let rows = join_all(workers.iter().map(|(_, run_id)| second.run_row(run_id))).await;
    for (worker, _) in &workers {
        worker.tasks.shut_down(Duration::from_secs(5)).await;
    }
    let after = join_all(workers.iter().map(|(_, run_id)| second.run_row(run_id))).await;
    assert_eq!(rows, after);
}

fn kinds(frames: &[Frame]) -> Vec<String> {
    joined(frames)
        .iter()
        .map(|frame| match frame {
            Frame::RunStarted(_) => "start".to_owned(),
            Frame::AgentTextDelta(delta) => delta.text.clone(),
            Frame::AgentToolCall(call) => format!("call {}", call.call_id),
            Frame::AgentToolResult(_) => "result".to_owned(),
            Frame::AgentFinish(finish) => finish.stop_reason.clone(),
            Frame::AgentError(error) => error.r#type.clone(),
        })
        .collect()
}

/// A worker whose run stands in a call of this tool, and what the tool does for others.
async fn standing_in(database: TestDatabase, tool: &str, script: Value) -> (Fixture, FakeSource, String) {
    let source = FakeSource::usual();
    source.on(tool, |_| std::future::pending());
    let worker = first(&Arc::new(database), &source).script(script).build().await;
    worker.make_agent().await;
    let run_id = worker.invoked("begin").await;
    // Calls of other tools may come before it.
    eventually(LIMIT, async || source.count(tool) == 1 && source.running() == 1).await;
    source.answers(tool, json!({"found": 7}));
    (worker, source, run_id)
}

async fn a_reading_call_in_flight_is_made_again(database: TestDatabase) {
    let script = json!({"turns": [{"events": [{"text": "Hm. "}, {"tool_call": {"name": "look"}}]},
        {"events": [{"text": "Done."}]}]});
    let (worker, source, run_id) = standing_in(database, "look", script.clone()).await;
    let second = second(&worker, &source, scripted(script)).await;
    let run = second.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.output_text.as_deref()),
        ("succeeded", Some("Hm. Done."))
    );
    let made = source.of_run(&run_id);
    assert_eq!(made.len(), 2);
    assert_eq!(made[0].key, made[1].key, "the same call has the same key");
    let turn = second.stored(&run_id, None).await;
    assert_eq!(
        kinds(&turn.seen),
        ["start", "Hm. ", "call call_1", "result", "Done.", "end_turn"]
    );
}

async fn a_changing_call_in_flight_is_not_and_the_run_names_it(database: TestDatabase) {
    let script = json!({"turns": [
        {"events": [{"tool_call": {"name": "look"}}], "usage": {"input_tokens": 3}},
        {"events": [{"text": "Now. "}, {"tool_call": {"name": "make"}}], "usage": {"input_tokens": 4}}]});
    let (worker, source, run_id) = standing_in(database, "make", script.clone()).await;
    let second = second(&worker, &source, scripted(script)).await;
    let run = second.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.error_type.as_deref()),
        ("failed", Some("UncertainToolCall"))
    );
    let message = run.error_message.unwrap();
    assert!(
        message.contains("the outcome of make (call_2) is not known"),
        "{message}"
    );
    assert_eq!(source.count("make"), 1);
    let states: Vec<&str> = run.steps.iter().map(|step| step.state.as_str()).collect();
    assert_eq!(states, ["done", "done", "done", "unknown"]);
    assert_eq!((run.tokens_in, run.output_text.as_deref()), (Some(7), Some("Now. ")));
    assert_eq!(second.count(BUSY).await, 0);
    // The end has its place behind everything that was told.
    let turn = second.stored(&run_id, None).await;
    assert_eq!(
        kinds(&turn.seen),
        [
            "start",
            "call call_1",
            "result",
            "Now. ",
            "call call_2",
            "UncertainToolCall"
        ]
    );
}

async fn a_change_that_ended_before_the_loss_is_known(database: TestDatabase) {
    // One answer: two changes, then a reading call in which the worker is lost.
    let script = json!({"turns": [
        {"events": [{"tool_call": {"name": "make"}}, {"tool_call": {"name": "send"}}, {"tool_call": {"name": "look"}}]},
        {"events": [{"text": "Done."}]}]});
    let (worker, source, run_id) = standing_in(database, "look", script.clone()).await;
    let provider = Recording::new(scripted(script));
    let second = second(&worker, &source, provider.clone()).await;
    let run = second.ended(&run_id).await;
    assert_eq!(run.status, "succeeded", "{run:?}");
    assert_eq!(source.names(), ["make", "send", "look", "look"]);
    let answered: Vec<String> = provider
        .last()
        .messages
        .iter()
        .filter_map(|message| match message {
            Message::Tool { call_id, .. } => Some(call_id.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(answered, ["call_1", "call_2", "call_3"]);
    let turn = second.stored(&run_id, None).await;
    assert_eq!(turn.ids, ["1", "2", "3", "4", "5", "6", "7", "8.5", "9"]);
    assert_eq!(run.steps.len(), 5);
}

async fn a_call_that_was_uncertain_before_the_loss_stays_told(database: TestDatabase) {
    let call = json!({"tool_call": {"name": "make", "arguments": {"slug": "a"}}});
    let script = json!({"turns": [{"events": [call]}, {"events": [call]}, {"events": [{"text": "Hm."}]}]});
    let source = FakeSource::usual();
    source.on("make", |_| std::future::pending());
    let stands = StandsStill::at(2, scripted(script.clone()));
    let worker = first(&Arc::new(database), &source)
        .provider(stands.clone())
        .config(|config| config.limits.tool_timeout = Duration::from_millis(50))
        .build()
        .await;
    worker.make_agent().await;
    let run_id = worker.invoked("begin").await;
    eventually(LIMIT, async || stands.is_reached()).await;
    let second = second(&worker, &source, scripted(script)).await;
    let run = second.ended(&run_id).await;
    // The model knew when the worker was lost, so the run goes on; and the guard against a repeat goes on with it.
    assert_eq!((run.status.as_str(), source.count("make")), ("succeeded", 1), "{run:?}");
    let turn = second.stored(&run_id, None).await;
    assert!(turn.results()[1].error.as_deref().unwrap().contains("not repeated"));
    assert!(
        run.warnings_json.contains("the outcome of make (call_1) is not known"),
        "{}",
        run.warnings_json
    );
}

async fn a_run_that_loses_too_many_workers_fails(database: TestDatabase) {
    let stuck = || StandsStill::at(1, scripted(ten_steps()));
    let source = FakeSource::usual();
    let worker = first(&Arc::new(database), &source).provider(stuck()).build().await;
    worker.make_agent().await;
    let run_id = worker.invoked("begin").await;
    let mut lost = vec![worker];
    for losses in 1..=5 {
        // Each takes the run up, as the only worker of the database does at its start, and is lost.
        let provider = stuck();
        let worker = Builder::replica_of(&lost[0], &format!("worker-{losses}"))
            .provider(provider.clone())
            .tool_source(source.shared())
            .build()
            .await;
        eventually(LIMIT, async || lost[0].run_row(&run_id).await.status == "running").await;
        assert_eq!(worker.runner.recover_all_at_start().await.unwrap(), (0, 1));
        eventually(LIMIT, async || provider.is_reached()).await;
        assert_eq!(worker.run_row(&run_id).await.continuations, losses);
        lost.push(worker);
    }
    let last = Builder::replica_of(&lost[0], "last").build().await;
    assert_eq!(last.runner.recover_all_at_start().await.unwrap(), (1, 0));
    let run = last.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.error_type.as_deref()),
        ("failed", Some("WorkerLost"))
    );
    assert_eq!(run.output_text.as_deref(), Some(""));
    assert_eq!(last.count(BUSY).await, 0);
    let turn = last.stored(&run_id, None).await;
    assert_eq!(kinds(&turn.seen), ["start", "WorkerLost"]);
}

async fn of_many_workers_one_works_on_a_run(database: TestDatabase) {
    let source = FakeSource::usual();
    let worker = first(&Arc::new(database), &source)
        .provider(StandsStill::at(1, scripted(ten_steps())))
        .build()
        .await;
    worker.make_agent().await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(worker.invoked("begin").await);
    }
    let running = "select cast(count(*) as bigint) from runs where status = 'running'";
    eventually(LIMIT, async || worker.count(running).await == 5).await;
    let mut others = Vec::new();
    for number in 0..4 {
        let other = Builder::replica_of(&worker, &format!("worker-{number}"))
            .script(ten_steps())
            .tool_source(source.shared())
            .short_leases()
            .build()
            .await;
        others.push(other);
    }
    others.iter().for_each(|other| other.runner.start());
    for run_id in &runs {
        let run = others[0].ended(run_id).await;
        assert_eq!((run.status.as_str(), run.continuations), ("succeeded", 1), "{run:?}");
        assert_eq!(source.of_run(run_id).len(), 5, "each call once");
    }
    assert_eq!(others[0].count("select cast(max(fence) as bigint) from runs").await, 2);
}

async fn a_runs_time_is_counted_from_its_first_start(database: TestDatabase) {
    let source = FakeSource::usual();
    let stands = StandsStill::at(2, scripted(ten_steps()));
    let worker = first(&Arc::new(database), &source)
        .provider(stands.clone())
        .build()
        .await;
    worker.make_agent().await;
    let run_id = worker.invoked("begin").await;
    eventually(LIMIT, async || stands.is_reached()).await;
    // It began eleven minutes ago, which is more than the ten that it has.
    let mut tx = worker.db().begin().await.unwrap();
    let long_ago = copass_runtime::clock::now() - Duration::from_secs(660);
    execute!(tx, "update runs set started_at = $1", long_ago).unwrap();
    tx.commit().await.unwrap();
    let second = second(&worker, &source, scripted(ten_steps())).await;
    let run = second.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.output_text.as_deref()),
        ("timeout", Some("One. "))
    );
    assert!(run.duration_ms.unwrap() >= 660_000, "{:?}", run.duration_ms);
    assert_eq!((source.names().len(), second.count(BUSY).await), (1, 0));
}

async fn a_run_that_was_begun_goes_on_although_its_agent_is_archived(database: TestDatabase) {
    let source = FakeSource::usual();
    let stands = StandsStill::at(2, scripted(ten_steps()));
    let worker = first(&Arc::new(database), &source)
        .provider(stands.clone())
        .build()
        .await;
    worker.make_agent().await;
    let run_id = worker.invoked("begin").await;
    eventually(LIMIT, async || stands.is_reached()).await;
    archive(&worker, &worker.sandbox.owner(), AGENT).await.unwrap();
    let second = second(&worker, &source, scripted(ten_steps())).await;
    assert_eq!(second.ended(&run_id).await.status, "succeeded");
}

async fn secrets_that_are_not_kept_are_not_made_up(database: TestDatabase) {
    // The journal has no secrets, so a call whose arguments hold one cannot be made from it.
    let script = json!({"turns": [
        {"events": [
            {"tool_call": {"name": "make"}}, {"tool_call": {"name": "look", "arguments": {"api_token": "s3cret-s3cret"}}},
            {"tool_call": {"name": "list", "arguments": {"q": 1}}}]},
        {"events": [{"text": "Done."}]}]});
    let source = FakeSource::usual();
    source.on("look", |_| std::future::pending());
    source.on("list", |_| std::future::pending());
    let worker = first(&Arc::new(database), &source).script(script.clone()).build().await;
    worker.make_agent().await;
    let run_id = worker.invoked("begin").await;
    eventually(LIMIT, async || source.running() == 2).await;
    source.answers("look", json!({}));
    source.answers("list", json!({}));
    let provider = Recording::new(scripted(script));
    let second = second(&worker, &source, provider.clone()).await;
    assert_eq!(second.ended(&run_id).await.status, "succeeded");
    assert_eq!((source.count("look"), source.count("list")), (1, 2));
    assert_eq!(
        source
            .calls()
            .iter()
            .find(|made| made.name == "look")
            .unwrap()
            .arguments["api_token"],
        "s3cret-s3cret"
    );
    let told = format!("{:?}", provider.last().messages);
    assert!(told.contains("make the call again if it is still wanted"), "{told}");
}

async fn a_worker_that_takes_its_own_run_up_again_keeps_it(database: TestDatabase) {
    // A process that was asleep for longer than its leases: it reaps its own run, which it still works on.
    let source = FakeSource::usual();
    let gate = source.gate("look");
    let script = json!({"turns": [{"events": [{"tool_call": {"name": "look"}}]}, {"events": [{"text": "Done."}]}]});
    let worker = first(&Arc::new(database), &source)
        .script(script)
        .config(|config| config.lease = LIMIT)
        .build()
        .await;
    worker.make_agent().await;
    worker.runner.start();
    let run_id = worker.invoked("begin").await;
    eventually(LIMIT, async || source.running() == 1).await;
    let mut tx = worker.db().begin().await.unwrap();
    execute!(tx, "update runs set lease_expires_at = created_at, fence = fence + 1").unwrap();
    tx.commit().await.unwrap();
    eventually(LIMIT, async || source.names().len() == 2 && source.running() == 1).await;
    // The second work has a heart of its own: for several beats nobody takes it away.
    let fence = "select fence from runs";
    let taken = worker.count(fence).await;
    let patience = tokio::time::Instant::now() + SHORT_LEASE * 2;
    eventually(LIMIT, async || {
        assert_eq!(worker.count(fence).await, taken);
        tokio::time::Instant::now() > patience
    })
    .await;
    gate.add_permits(2);
    let run = worker.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.output_text.as_deref()),
        ("succeeded", Some("Done."))
    );
}

async fn a_lost_run_waits_for_a_place_with_all_others(database: TestDatabase) {
    let source = FakeSource::usual();
    let worker = first(&Arc::new(database), &source)
        .provider(StandsStill::at(1, scripted(ten_steps())))
        .build()
        .await;
    worker.make_agent().await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(worker.invoked("begin").await);
    }
    let running = "select cast(count(*) as bigint) from runs where status = 'running'";
    eventually(LIMIT, async || worker.count(running).await == 3).await;
    // The only place of the other one is in the hands of its consumer.
    let other = Builder::replica_of(&worker, "other")
        .script(ten_steps())
        .tool_source(source.shared())
        .short_leases()
        .config(|config| config.background_runs = 1)
        .build()
        .await;
    other.runner.start();
    other.start_relay();
    for run_id in &runs {
        let run = other.ended(run_id).await;
        assert_eq!((run.status.as_str(), run.continuations), ("succeeded", 1), "{run:?}");
        assert!(run.warnings_json.contains("was lost"), "{}", run.warnings_json);
        assert_eq!(source.of_run(run_id).len(), 5, "each call once");
    }
}

async fn many_runs_that_wait_do_not_keep_others_from_their_end(database: TestDatabase) {
    let source = FakeSource::usual();
    let worker = first(&Arc::new(database), &source)
        .provider(StandsStill::at(1, scripted(ten_steps())))
        .config(|config| config.background_runs = 1)
        .build()
        .await;
    worker.make_agent().await;
    // One is begun, the others wait, and nobody takes messages from the queue.
    for _ in 0..120 {
        worker.invoked("begin").await;
    }
    let mut reader = worker
        .fire(&worker.sandbox.owner(), worker.test_fire("{}"))
        .await
        .unwrap();
    reader.next().await;
    let reaper = Builder::replica_of(&worker, "reaper")
        .provider(StandsStill::at(1, scripted(ten_steps())))
        .short_leases()
        .config(|config| config.background_runs = 1)
        .build()
        .await;
    reaper.runner.start();
    let run = reaper.ended(&reader.run_id()).await;
    assert_eq!(
        (run.status.as_str(), run.error_type.as_deref()),
        ("failed", Some("WorkerLost"))
    );
}

async fn a_worker_that_wakes_up_late_does_nothing(database: TestDatabase) {
    let script = json!({"turns": [
        {"events": [{"text": "Now. "}, {"tool_call": {"name": "make"}}]}, {"events": [{"text": "Done."}]}]});
    let source = FakeSource::usual();
    let provider = Gated::new(scripted(script.clone()));
    let asleep = first(&Arc::new(database), &source)
        .provider(provider.clone())
        .build()
        .await;
    asleep.make_agent().await;
    let run_id = asleep.invoked("begin").await;
    eventually(LIMIT, async || asleep.run_row(&run_id).await.status == "running").await;
    let second = second(&asleep, &source, scripted(script)).await;
    let run = second.ended(&run_id).await;
    assert_eq!((run.status.as_str(), source.count("make")), ("succeeded", 1));
    let messages = "select cast(count(*) as bigint) from conversation_messages";
    let said = second.count(messages).await;
    // It gets its answer now, wants to make the call, and finds that the run is not its own any more.
    let gate = &provider.gate;
    gate.add_permits(2);
    eventually(LIMIT, async || gate.available_permits() < 2).await;
    asleep.tasks.shut_down(LIMIT).await;
    assert_eq!(source.count("make"), 1);
    assert_eq!(
        (second.run_row(&run_id).await, second.count(messages).await),
        (run, said)
    );
}
