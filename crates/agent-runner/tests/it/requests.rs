//! Runs that nobody waits for: once more, from the queue, and those that wait for a place.

use copass_errors::ErrorCode;
use copass_llm::Message as ModelMessage;
use copass_proto::agent::Agent;
use copass_queue::{Message, Queue as _, QueueName};
use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use copass_types::{AgentId, AgentKeyKind, RunId, TriggerId};
use serde_json::{Value, json};

use crate::{
    changes::{archive, patch, update},
    support::{
        AGENT, Builder, FakeSource, Fixture, LIMIT, SHORT_LEASE, agent_runs::with_agent_key, assert_code,
        providers::Recording, scripted,
    },
};

const QUEUE: QueueName = QueueName::from_static("copass.agent-runner.runs");

on_both_databases! {
    a_retry_is_a_new_run_with_the_old_input
    a_retry_of_a_turn_stays_in_its_conversation
    what_cannot_be_run_again_says_why
    a_request_makes_one_run_however_often_it_arrives
    a_request_for_an_archived_agent_is_a_run_that_tells_so
    a_request_that_is_none_harms_nobody
    a_run_without_a_place_waits_for_one
    a_run_without_a_provider_fails_with_the_setting
}

async fn a_retry_is_a_new_run_with_the_old_input(database: TestDatabase) {
    let provider = Recording::new(scripted(json!({"turns": [{"events": [{"text": "Once."}]}]})));
    let fixture = Builder::new(database, Wiring::Local)
        .provider(provider.clone())
        .build()
        .await;
    fixture.make_agent().await;
    let original = fixture.fired(&json!({"n": 7})).await;
    let original = fixture.run_row(&original.run_id()).await;
    let owner = fixture.sandbox.owner();
    let mut change = patch(&fixture);
    change.slug = AGENT.to_owned();
    change.system_prompt = Some("Do it well this time.".to_owned());
    update(&fixture, &owner, change).await.unwrap();

    let viewer = fixture.sandbox.viewer();
    let again = fixture.retry(&viewer, &original.run_id, None).await.unwrap();
    assert_ne!(again.run_id, original.run_id);
    assert_eq!(again.retry_of.as_ref(), Some(&original.run_id));
    assert_eq!((again.entrance.as_str(), again.agent_version), ("retry", 2));
    assert_eq!(again.input_event_json, original.input_event_json);
    assert_eq!(
        Some(again.user_id),
        viewer.principal.user_id.map(String::from),
        "it acts for who asked"
    );
    assert_eq!(fixture.ended(&again.run_id).await.status, "succeeded");
    let requests = provider.requests.lock().unwrap().clone();
    assert_eq!(requests[0].messages, requests[1].messages);
    assert_eq!(requests[1].system_prompt, "Do it well this time.");
    // A retry can be run again too, and names the run it repeats.
    let third = fixture.retry(&owner, &again.run_id, None).await.unwrap();
    assert_eq!(third.retry_of, Some(again.run_id));
}

async fn a_retry_of_a_turn_stays_in_its_conversation(database: TestDatabase) {
    let provider = Recording::new(scripted(json!({"turns": [{"events": [{"text": "Noted."}]}]})));
    let fixture = Builder::new(database, Wiring::Local)
        .provider(provider.clone())
        .build()
        .await;
    fixture.make_agent().await;
    let owner = fixture.sandbox.owner();
    let first = fixture.ended(&fixture.invoked("I am Ada.").await).await;
    let mut invocation = fixture.invocation("Who am I?");
    invocation.session_id = first.provider_session_id.clone();
    let second = fixture.invoke(&owner, invocation).await.unwrap();
    fixture.ended(&second.run_id).await;

    let again = fixture.retry(&owner, &second.run_id, None).await.unwrap();
    let again = fixture.ended(&again.run_id).await;
    assert_eq!(again.provider_session_id, first.provider_session_id);
    let messages = provider.last().messages;
    assert_eq!(messages.len(), 5, "{messages:?}");
    assert_eq!(messages.last(), Some(&ModelMessage::user("Who am I?")));
    // The id tells when a run was accepted, to the millisecond; windows of time go by it.
    let id: RunId = again.run_id.parse().unwrap();
    let created_at = again.created_at.unwrap();
    let millis = created_at.seconds * 1000 + i64::from(created_at.nanos / 1_000_000);
    assert_eq!(id.generated_at().map(|at| at.timestamp_millis()), Some(millis));
    assert_eq!(created_at.nanos % 1_000_000, 0);

    // Another person was not a part of it.
    let other = fixture
        .retry(&fixture.sandbox.viewer(), &second.run_id, None)
        .await
        .unwrap();
    let other = fixture.ended(&other.run_id).await;
    assert_eq!((other.status.as_str(), other.provider_session_id), ("succeeded", None));
    assert_eq!(provider.last().messages.len(), 1);
}

async fn what_cannot_be_run_again_says_why(database: TestDatabase) {
    let source = FakeSource::usual();
    let gate = source.gate("look");
    let script = json!({"match": [{"contains": "wait", "turns": [
            {"events": [{"tool_call": {"name": "look"}}]}, {"events": [{"text": "Done."}]}]}],
        "turns": [{"events": [{"text": "Hello."}]}]});
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .build()
        .await;
    let agent = fixture.make_agent().await;
    let owner = fixture.sandbox.owner();
    let live = fixture.invoked("wait").await;
    let refused = assert_code(fixture.retry(&owner, &live, None).await, ErrorCode::Conflict);
    assert!(refused.detail().contains("copass run cancel"), "{refused}");
    let chat = fixture.say("hello").await.run_id();
    assert_code(fixture.retry(&owner, &chat, None).await, ErrorCode::Conflict);
    let stateless = fixture.ran_ad_hoc(fixture.ad_hoc("hello")).await.run_id();
    assert_code(fixture.retry(&owner, &stateless, None).await, ErrorCode::Conflict);
    let unknown = RunId::generate().to_string();
    assert_code(fixture.retry(&owner, &unknown, None).await, ErrorCode::NotFound);
    assert_code(
        fixture.retry(&fixture.sandbox.foreign(), &live, None).await,
        ErrorCode::NotFound,
    );
    let key = with_agent_key(owner.clone(), &agent, AgentKeyKind::Delegate);
    assert_code(fixture.retry(&key, &live, None).await, ErrorCode::Forbidden);
    gate.add_permits(1);
    fixture.ended(&live).await;
    archive(&fixture, &owner, AGENT).await.unwrap();
    assert_code(fixture.retry(&owner, &live, None).await, ErrorCode::Conflict);
}

fn requested(fixture: &Fixture, agent_id: &str, trigger_id: &TriggerId, delivery: &str, event: Value) -> Message {
    let body = json!({
        "sandbox_id": fixture.sandbox.id,
        "agent_id": agent_id,
        "trigger_id": trigger_id,
        "delivery_key": delivery,
        "event": event,
        "principal": fixture.sandbox.owner().principal,
    });
    Message::new("run.requested.v1", body)
}

async fn handled(fixture: &Fixture) {
    eventually(LIMIT, async || {
        let depth = fixture.queue.depth(&QUEUE).await.unwrap();
        depth.ready == 0 && depth.delayed == 0 && depth.unacked == Some(0)
    })
    .await;
}

async fn started(database: TestDatabase) -> (Fixture, Agent) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    fixture.runner.start();
    let agent = fixture.make_agent().await;
    (fixture, agent)
}

async fn only_run(fixture: &Fixture) -> String {
    let mut conn = fixture.db().read().await.unwrap();
    let (id,) = copass_store::fetch_one!(conn, (String,), "select id from runs").unwrap();
    id
}

async fn a_request_makes_one_run_however_often_it_arrives(database: TestDatabase) {
    let (fixture, agent) = started(database).await;
    let trigger_id = TriggerId::generate();
    let event = json!({"type": "issue", "text": "a\u{0}b"});
    for _ in 0..10 {
        let again = requested(&fixture, &agent.agent_id, &trigger_id, "d1", event.clone());
        fixture.queue.publish(&QUEUE, again.clone()).await.unwrap();
        fixture.queue.publish(&QUEUE, again).await.unwrap();
    }
    handled(&fixture).await;
    let run = fixture.ended(&only_run(&fixture).await).await;
    assert_eq!((run.status.as_str(), run.entrance.as_str()), ("succeeded", "trigger"));
    assert_eq!(run.trigger_id, Some(trigger_id.to_string()));
    let kept: Value = serde_json::from_str(&run.input_event_json.unwrap()).unwrap();
    assert_eq!(
        kept,
        json!({"type": "issue", "text": "a\u{fffd}b"}),
        "no database keeps a NUL"
    );
    // Other deliveries, and the same delivery to another trigger, are other runs.
    for (trigger_id, delivery) in [(&trigger_id, "d2"), (&TriggerId::generate(), "d1")] {
        let other = requested(&fixture, &agent.agent_id, trigger_id, delivery, event.clone());
        fixture.queue.publish(&QUEUE, other).await.unwrap();
    }
    handled(&fixture).await;
    assert_eq!(fixture.count("select cast(count(*) as bigint) from runs").await, 3);
    assert_eq!(fixture.queue.depth(&QUEUE).await.unwrap().dead, 0);
}

async fn a_request_for_an_archived_agent_is_a_run_that_tells_so(database: TestDatabase) {
    let (fixture, agent) = started(database).await;
    archive(&fixture, &fixture.sandbox.owner(), AGENT).await.unwrap();
    let request = requested(&fixture, &agent.agent_id, &TriggerId::generate(), "d", json!({}));
    fixture.queue.publish(&QUEUE, request).await.unwrap();
    handled(&fixture).await;
    let run = fixture.ended(&only_run(&fixture).await).await;
    assert_eq!(
        (run.status.as_str(), run.error_type.as_deref()),
        ("failed", Some("AgentArchived"))
    );
    assert!(
        run.error_message
            .unwrap()
            .contains("copass agent update worker --status active")
    );
    assert!(
        run.tool_resolution_trace_json.is_some(),
        "a run that failed has a trace too"
    );
}

async fn a_request_that_is_none_harms_nobody(database: TestDatabase) {
    let (fixture, agent) = started(database).await;
    let trigger_id = TriggerId::generate();
    let nobody = AgentId::generate().to_string();
    let good = |delivery: &str| requested(&fixture, &agent.agent_id, &trigger_id, delivery, json!({"n": 1}));
    let mut no_id = good("bad");
    no_id.body["agent_id"] = json!("x");
    let mut no_principal = good("bad");
    no_principal.body["principal"] = json!({});
    let other_event = requested(&fixture, &agent.agent_id, &trigger_id, "d1", json!({"n": 2}));
    let huge = json!({"text": "x".repeat(300_000)});
    fixture.queue.publish(&QUEUE, good("d1")).await.unwrap();
    handled(&fixture).await;
    let poison = [
        requested(&fixture, &nobody, &trigger_id, "bad", json!({})),
        requested(&fixture, &agent.agent_id, &trigger_id, "bad", json!([])),
        requested(&fixture, &agent.agent_id, &trigger_id, "bad", huge),
        other_event,
        no_id,
        no_principal,
        Message::new("run.requested.v9", json!({})),
        Message::new("run.accepted.v1", json!({"run_id": "rn_1"})),
    ];
    let dead = u64::try_from(poison.len()).unwrap();
    for message in poison {
        fixture.queue.publish(&QUEUE, message).await.unwrap();
    }
    fixture.queue.publish(&QUEUE, good("d2")).await.unwrap();
    eventually(LIMIT, async || fixture.queue.depth(&QUEUE).await.unwrap().dead == dead).await;
    handled(&fixture).await;
    // A run that is not there is no reason to be told anything.
    let gone = json!({"sandbox_id": fixture.sandbox.id, "run_id": RunId::generate()});
    fixture
        .queue
        .publish(&QUEUE, Message::new("run.accepted.v1", gone))
        .await
        .unwrap();
    handled(&fixture).await;
    let succeeded = "select cast(count(*) as bigint) from runs where status = 'succeeded'";
    eventually(LIMIT, async || fixture.count(succeeded).await == 2).await;
    assert_eq!(fixture.count("select cast(count(*) as bigint) from runs").await, 2);
}

async fn a_run_without_a_place_waits_for_one(database: TestDatabase) {
    let source = FakeSource::usual();
    let gate = source.gate("look");
    let script = json!({"turns": [{"events": [{"tool_call": {"name": "look"}}]}, {"events": [{"text": "Done."}]}]});
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .config(|config| config.background_runs = 2)
        .short_leases()
        .build()
        .await;
    fixture.runner.start();
    fixture.start_relay();
    fixture.make_agent().await;
    let mut runs = Vec::new();
    for number in 0..6 {
        runs.push(fixture.invoked(&format!("number {number}")).await);
    }
    eventually(LIMIT, async || source.running() == 2).await;
    // They wait for longer than their lease, and nobody who looks after leases does anything to them.
    let late = "select cast(count(*) as bigint) from runs where status = 'pending'";
    let patience = tokio::time::Instant::now() + SHORT_LEASE * 3;
    eventually(LIMIT, async || {
        assert_eq!((fixture.count(late).await, source.running()), (4, 2));
        tokio::time::Instant::now() > patience
    })
    .await;
    gate.add_permits(6);
    for run_id in &runs {
        let run = fixture.ended(run_id).await;
        assert_eq!((run.status.as_str(), run.continuations), ("succeeded", 0));
        assert_eq!(source.of_run(run_id).len(), 1);
    }
    assert_eq!(source.most_running(), 2);
    assert_eq!(fixture.queue.depth(&QUEUE).await.unwrap().dead, 0);
}

async fn a_run_without_a_provider_fails_with_the_setting(database: TestDatabase) {
    let source = FakeSource::usual();
    let fixture = Builder::new(database, Wiring::Local)
        .tool_source(source.shared())
        .build()
        .await;
    let unserved = |request: &mut copass_proto::agent::CreateAgentRequest| request.model_settings = None;
    fixture.make_agent_with(unserved).await;
    let fired = fixture.fired(&json!({})).await;
    assert_eq!(fired.error().r#type, "ProviderNotConfigured");
    let invoked = fixture.ended(&fixture.invoked("hello").await).await;
    for run in [&fixture.run_row(&fired.run_id()).await, &invoked] {
        assert_eq!(
            (run.status.as_str(), run.error_type.as_deref()),
            ("failed", Some("ProviderNotConfigured"))
        );
        assert!(
            run.error_message.as_ref().unwrap().contains("ANTHROPIC_API_KEY"),
            "{run:?}"
        );
        assert!(run.tool_resolution_trace_json.as_ref().unwrap().contains("look"));
        assert_eq!(run.steps[0].state, "failed");
    }
    // The conversation is free.
    let session_id = invoked.provider_session_id;
    let mut again = fixture.invocation("again");
    again.session_id = session_id;
    let again = fixture.invoke(&fixture.sandbox.owner(), again).await.unwrap();
    fixture.ended(&again.run_id).await;
}
