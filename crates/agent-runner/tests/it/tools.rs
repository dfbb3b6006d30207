//! What a model may make of its tools.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use copass_errors::Error;
use copass_llm::Message;
use copass_proto::{concierge::CallToolResponse, run::run_frame::Frame};
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tonic::Status;

use crate::support::{Builder, Fixture, providers::Recording, scripted};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    reading_calls_run_together_and_changing_ones_in_order
    a_huge_result_is_cut_for_the_model
    secrets_reach_the_person_and_nothing_that_is_stored
    }
}

on_both_databases! {
    an_unknown_tool_is_answered_and_never_called
    arguments_that_are_no_object_are_answered_and_never_called
    a_tool_that_says_no_is_told_to_the_model
    a_tool_that_hangs_costs_its_call_and_not_the_run
    a_changing_call_without_an_answer_is_unknown_and_not_repeated
    a_tool_service_that_lies_costs_the_call
    results_that_are_no_object_are_wrapped
}

/// One answer with these calls, then a last word.
fn calls(events: Value) -> Value {
    json!({"turns": [{"events": events}, {"events": [{"text": "Done."}]}]})
}

async fn fixture(database: TestDatabase, wiring: Wiring, script: Value) -> (Fixture, Arc<Recording>) {
    let provider = Recording::new(scripted(script));
    let fixture = Builder::new(database, wiring)
        .provider(provider.clone())
        .config(|config| config.limits.tool_timeout = Duration::from_secs(1))
        .build()
        .await;
    (fixture, provider)
}

async fn reading_calls_run_together_and_changing_ones_in_order(database: TestDatabase, wiring: Wiring) {
    let script = calls(json!([
        {"tool_call": {"name": "list_agents"}}, {"tool_call": {"name": "list_runs"}},
        {"tool_call": {"name": "list_sandboxes"}},
        {"tool_call": {"name": "create_agent"}}, {"tool_call": {"name": "create_trigger"}},
        {"tool_call": {"name": "list_agents", "arguments": {"again": true}}},
    ]));
    let (fixture, provider) = fixture(database, wiring, script).await;
    // Answers only when all three are there, the first one last.
    let barrier = Arc::new(Barrier::new(3));
    for (name, pause) in [("list_runs", 20), ("list_sandboxes", 0), ("list_agents", 40)] {
        let barrier = barrier.clone();
        fixture.concierge.on(name, move |request| {
            let barrier = barrier.clone();
            async move {
                if !request.arguments_json.contains("again") {
                    barrier.wait().await;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Ok(CallToolResponse {
                    result_json: json!({"call": request.call_id}).to_string(),
                    error: None,
                })
            }
        });
    }
    let turn = fixture.say("all of it").await;
    assert_eq!(turn.text(), "Done.");
    let log = fixture.concierge.log();
    let mut opened = log[..3].to_vec();
    opened.sort();
    assert_eq!(opened, ["+list_agents", "+list_runs", "+list_sandboxes"], "{log:?}");
    let in_order = [
        "+create_agent",
        "-create_agent",
        "+create_trigger",
        "-create_trigger",
        "+list_agents",
        "-list_agents",
    ];
    assert_eq!(log[6..], in_order);
    // Results come as they come; the model gets them in the order of its calls.
    assert_eq!(turn.results().len(), 6);
    let given: Vec<String> = provider
        .last()
        .messages
        .iter()
        .filter_map(|message| match message {
            Message::Tool { call_id, .. } => Some(call_id.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(given, ["call_1", "call_2", "call_3", "call_4", "call_5", "call_6"]);
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.steps.len(), 8);
    assert!(run.steps.iter().all(|step| step.state == "done"));
}

async fn a_huge_result_is_cut_for_the_model(database: TestDatabase, wiring: Wiring) {
    let (fixture, provider) = fixture(
        database,
        wiring,
        calls(json!([{"tool_call": {"name": "list_runs"}}, {"tool_call": {"name": "list_agents"}}])),
    )
    .await;
    fixture
        .concierge
        .answers("list_runs", json!({"rows": "ä".repeat(100_000)}));
    fixture
        .concierge
        .answers("list_agents", json!({"rows": "x".repeat(5_000_000)}));
    let turn = fixture.say("look").await;
    assert_eq!(turn.text(), "Done.");
    for message in &provider.last().messages {
        if let Message::Tool { result, .. } = message {
            assert_eq!(result["truncated"], true);
            assert!(result["total_bytes"].as_u64().unwrap() > 200_000);
            assert!(result.to_string().len() <= 65_536);
        }
    }
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.steps[2].result_bytes, Some(5_000_011));
    let whole = turn
        .results()
        .iter()
        .find(|result| result.name == "list_runs")
        .unwrap()
        .result_json
        .len();
    assert!(whole > 200_000, "the person gets what fits into a frame");
    assert!(
        turn.results()
            .iter()
            .all(|result| result.result_json.len() <= 1_048_576)
    );
}

async fn secrets_reach_the_person_and_nothing_that_is_stored(database: TestDatabase, wiring: Wiring) {
    let secret = "olk_c4n4ryc4n4ryc4n4ryc4n4ryc4n4ry";
    let script = json!({"turns": [
        {"events": [{"tool_call": {"name": "mint_key"}}]},
        {"events": [{"text": format!("Your key is {secret}. ")}, {"tool_call": {"name": "list_agents", "arguments": {"note": secret}}}]},
        {"events": [{"text": format!("Keep {secret} safe.")}]},
    ]});
    let (fixture, provider) = fixture(database, wiring, script).await;
    fixture.concierge.answers(
        "mint_key",
        json!({"keys": [{"plaintext_key": secret, "key_prefix": "olk_c4n4"}]}),
    );
    let turn = fixture.say("a key please").await;
    assert!(
        turn.results()[0].result_json.contains(secret),
        "the person sees it once"
    );
    assert!(turn.text().contains(secret));
    assert!(
        format!("{:?}", provider.last().messages).contains(secret),
        "the model needs it to tell the person"
    );

    let run = fixture.run_row(&turn.run_id()).await;
    assert!(!format!("{run:?}").contains(secret));
    assert!(run.output_text.unwrap().contains("<redacted>"));
    assert!(!format!("{:?}", turn.finish().run).contains(secret));
    for table in [
        "select cast(count(*) as bigint) from run_steps where cast(output as text) like '%c4n4ryc4n4ry%' \
         or cast(arguments as text) like '%c4n4ryc4n4ry%' or error like '%c4n4ryc4n4ry%'",
        "select cast(count(*) as bigint) from conversation_messages where cast(message as text) like '%c4n4ryc4n4ry%'",
        "select cast(count(*) as bigint) from runs where output_text like '%c4n4ryc4n4ry%'",
    ] {
        assert_eq!(fixture.count(table).await, 0, "{table}");
    }
    // Neither does it come back to the model in the next turn.
    let session_id = turn.session_id();
    fixture
        .say_as(&fixture.sandbox.owner(), "and now?", Some(&session_id))
        .await;
    let replayed = provider
        .requests
        .lock()
        .unwrap()
        .iter()
        .rev()
        .find(|request| request.messages.len() > 6)
        .cloned();
    let turn_start = replayed.unwrap().messages.into_iter().take(6).collect::<Vec<_>>();
    assert!(!format!("{turn_start:?}").contains(secret), "{turn_start:?}");
}

async fn an_unknown_tool_is_answered_and_never_called(database: TestDatabase) {
    let script = calls(json!([
        {"tool_call": {"name": "destroy_sandbox", "arguments": {"yes": true}}},
        {"invalid_tool_call": {"name": ""}},
        {"invalid_tool_call": {"name": "x".repeat(5000), "call_id": "y".repeat(5000)}},
        {"invalid_tool_call": {"name": "list_agents", "call_id": "call_1", "arguments": {}}},
    ]));
    let (fixture, _) = fixture(database, Wiring::Local, script).await;
    let turn = fixture.say("destroy it").await;
    assert_eq!(turn.text(), "Done.");
    let unknown = turn
        .results()
        .into_iter()
        .filter(|result| result.error.as_deref() == Some("unknown tool"))
        .count();
    assert_eq!(unknown, 3);
    assert_eq!(fixture.concierge.log(), ["+list_agents", "-list_agents"]);
    let ids: std::collections::BTreeSet<_> = turn.results().iter().map(|result| result.call_id.clone()).collect();
    assert_eq!(ids.len(), 4, "ids are unique within the stream: {ids:?}");
    assert!(ids.iter().all(|id| id.len() <= 128));
}

async fn arguments_that_are_no_object_are_answered_and_never_called(database: TestDatabase) {
    let script = calls(json!([
        {"invalid_tool_call": {"name": "create_agent", "arguments": ["a", "b"]}},
        {"invalid_tool_call": {"name": "list_agents", "arguments": "text"}},
        {"invalid_tool_call": {"name": "list_runs", "arguments": {"x": "y".repeat(300_000)}}},
        {"invalid_tool_call": {"name": "list_sandboxes", "arguments": null}},
        {"invalid_tool_call": {"name": "list_sandboxes", "arguments": {"nul": "a\u{0}b"}}},
    ]));
    let (fixture, _) = fixture(database, Wiring::Local, script).await;
    let turn = fixture.say("go").await;
    assert_eq!(turn.text(), "Done.");
    assert_eq!(turn.results().iter().filter(|result| result.error.is_some()).count(), 3);
    assert_eq!(
        fixture.concierge.calls().len(),
        2,
        "no arguments at all are an empty object"
    );
    assert!(!fixture.concierge.calls()[1].request.arguments_json.contains("\\u0000"));
    for frame in &turn.seen {
        if let Frame::AgentToolCall(call) = frame {
            assert!(serde_json::from_str::<Value>(&call.arguments_json).unwrap().is_object());
        }
    }
}

async fn a_tool_that_says_no_is_told_to_the_model(database: TestDatabase) {
    let (fixture, provider) = fixture(
        database,
        Wiring::Local,
        calls(json!([{"tool_call": {"name": "create_agent"}}, {"tool_call": {"name": "create_trigger"}}])),
    )
    .await;
    fixture.concierge.on("create_agent", |_| async {
        let result_json = json!({"error": "conflict", "detail": "the slug is taken"}).to_string();
        Ok(CallToolResponse {
            result_json,
            error: Some("the slug is taken".to_owned()),
        })
    });
    fixture.concierge.on("create_trigger", |_| async {
        Err(Status::from(Error::forbidden("your role is too low")))
    });
    let turn = fixture.say("make").await;
    let results = turn.results();
    assert_eq!(results[0].error.as_deref(), Some("the slug is taken"));
    assert_eq!(results[1].error.as_deref(), Some("your role is too low"));
    assert_eq!(
        serde_json::from_str::<Value>(&results[1].result_json).unwrap()["error"],
        "forbidden"
    );
    let messages = provider.last().messages;
    assert!(
        messages
            .iter()
            .any(|message| matches!(message, Message::Tool { error: Some(error), .. } if error == "the slug is taken"))
    );
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        (
            run.status.as_str(),
            run.steps[1].state.as_str(),
            run.steps[2].state.as_str()
        ),
        ("succeeded", "failed", "failed")
    );
}

async fn a_tool_that_hangs_costs_its_call_and_not_the_run(database: TestDatabase) {
    let (fixture, _) = fixture(
        database,
        Wiring::Remote,
        calls(json!([{"tool_call": {"name": "list_agents"}}, {"tool_call": {"name": "list_runs"}}])),
    )
    .await;
    fixture.concierge.hangs("list_agents");
    let turn = fixture.say("look").await;
    assert_eq!(turn.text(), "Done.");
    let errors: Vec<_> = turn
        .results()
        .iter()
        .filter_map(|result| result.error.clone())
        .collect();
    assert_eq!(errors, ["the tool did not answer within 1 s"]);
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        (run.status.as_str(), run.steps[1].state.as_str()),
        ("succeeded", "failed")
    );
}

async fn a_changing_call_without_an_answer_is_unknown_and_not_repeated(database: TestDatabase) {
    let call = json!({"tool_call": {"name": "create_agent", "arguments": {"slug": "a"}}});
    let other = json!({"tool_call": {"name": "create_agent", "arguments": {"slug": "b"}}});
    let script = json!({"turns": [{"events": [call]}, {"events": [call, other]}, {"events": [{"text": "Hm."}]}]});
    let (fixture, _) = fixture(database, Wiring::Local, script).await;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    fixture.concierge.on("create_agent", move |request| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(CallToolResponse {
                result_json: request.arguments_json,
                error: None,
            })
        }
    });
    let turn = fixture.say("make").await;
    let results = turn.results();
    assert!(results[0].error.as_deref().unwrap().contains("not known"));
    assert!(results[1].error.as_deref().unwrap().contains("not repeated"));
    assert_eq!(results[2].error, None);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.steps[1].state, "unknown");
    assert!(
        run.warnings_json
            .contains("the outcome of create_agent (call_1) is not known"),
        "{}",
        run.warnings_json
    );
}

async fn a_tool_service_that_lies_costs_the_call(database: TestDatabase) {
    let (fixture, _) = fixture(database, Wiring::Local, calls(json!([{"tool_call": {"name": "list_agents"}}, {"tool_call": {"name": "list_runs"}}, {"tool_call": {"name": "list_sandboxes"}}]))).await;
    fixture.concierge.on("list_agents", |_| async {
        Ok(CallToolResponse {
            result_json: "{not json".to_owned(),
            error: None,
        })
    });
    fixture
        .concierge
        .on("list_runs", |_| async { panic!("expected in this test") });
    fixture
        .concierge
        .answers("list_sandboxes", json!({"rows": "x".repeat(20_000_000)}));
    let turn = fixture.say("look").await;
    assert_eq!(turn.text(), "Done.");
    assert_eq!(turn.results().iter().filter(|result| result.error.is_some()).count(), 3);
}

async fn results_that_are_no_object_are_wrapped(database: TestDatabase) {
    let (fixture, _) = fixture(
        database,
        Wiring::Local,
        calls(json!([{"tool_call": {"name": "list_agents"}}, {"tool_call": {"name": "list_runs"}}])),
    )
    .await;
    fixture.concierge.answers("list_agents", json!(["a", "b"]));
    fixture.concierge.on("list_runs", |_| async {
        Ok(CallToolResponse {
            result_json: "null".to_owned(),
            error: Some(String::new()),
        })
    });
    let turn = fixture.say("look").await;
    let mut results: Vec<_> = turn
        .results()
        .iter()
        .map(|result| (result.result_json.clone(), result.error.clone()))
        .collect();
    results.sort();
    assert_eq!(
        results,
        [(r#"{"result":["a","b"]}"#.to_owned(), None), ("{}".to_owned(), None)]
    );
}
