//! One turn from the first frame to the last.

use std::time::Duration;

use copass_errors::ErrorCode;
use copass_llm::ErrorKind;
use copass_proto::run::{RunLimits, run_frame::Frame};
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::{Value, json};

use crate::support::{Builder, SOON, assert_code, is_text, providers, scripted};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    frames_come_in_order_and_the_row_is_final_before_the_last
    the_row_and_its_trace_exist_before_the_model_answers
    a_provider_failure_after_text_is_an_agent_error
    }
}

on_both_databases! {
    a_slow_run_times_out
    every_kind_of_provider_failure_ends_the_run
    a_failure_before_any_output_is_retried_and_counted
    a_wait_beyond_the_bound_is_not_waited_for
    what_cannot_begin_is_refused_before_the_stream
    the_planner_costs_nothing
    a_silent_model_is_noticed
}

async fn frames_come_in_order_and_the_row_is_final_before_the_last(database: TestDatabase, wiring: Wiring) {
    let script = json!({"turns": [
        {"events": [{"text": "Let me look. "}, {"tool_call": {"name": "list_sandboxes", "arguments": {"q": "ä"}}}],
         "usage": {"input_tokens": 800, "output_tokens": 20, "cache_read_input_tokens": 12}},
        {"events": [{"text": "You have "}, {"text": "none yet."}], "usage": {"input_tokens": 900, "output_tokens": 4}},
    ]});
    let fixture = Builder::new(database, wiring).script(script).build().await;
    fixture
        .concierge
        .answers("list_sandboxes", json!({"sandboxes": [], "count": 0}));

    let mut owner = fixture.sandbox.owner();
    owner.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let mut turn = fixture.start(&owner, fixture.turn("What do I have?")).await.unwrap();
    turn.until(|frame| matches!(frame, Frame::AgentFinish(_))).await;
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        run.status, "succeeded",
        "the row must be final when the terminal frame is read"
    );
    turn.finish_reading().await;

    assert_eq!(turn.text(), "Let me look. You have none yet.");
    let mut kinds: Vec<_> = turn
        .seen
        .iter()
        .map(|frame| match frame {
            Frame::RunStarted(_) => "start",
            Frame::AgentTextDelta(_) => "text",
            Frame::AgentToolCall(_) => "call",
            Frame::AgentToolResult(_) => "result",
            Frame::AgentFinish(_) => "finish",
            Frame::AgentError(_) => "error",
        })
        .collect();
    // Pieces that waited for the reader may have become one.
    kinds.dedup();
    assert_eq!(kinds, ["start", "text", "call", "result", "text", "finish"]);
    assert!(matches!(&turn.seen[2], Frame::AgentToolCall(call) if call.arguments_json == r#"{"q":"ä"}"#));
    let finish = turn.finish();
    assert_eq!(finish.stop_reason, "end_turn");
    assert_eq!(finish.run_id, turn.run_id());
    let usage: Value = serde_json::from_str(&finish.usage_json).unwrap();
    assert_eq!(
        (&usage["input_tokens"], &usage["output_tokens"]),
        (&json!(1700), &json!(24))
    );

    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.output_text.as_deref(), Some("Let me look. You have none yet."));
    assert_eq!((run.tokens_in, run.tokens_out), (Some(1712), Some(24)));
    assert_eq!(run.cost_microcents, Some(0), "the scripted model costs nothing");
    assert_eq!(run.provider_session_id, finish.session_id);
    assert_eq!(run.user_id, fixture.sandbox.owner_user_id.to_string());
    assert_eq!(run.agent_slug.as_deref(), Some("@concierge"));
    assert!(run.finished_at.is_some() && run.duration_ms.is_some() && run.error_message.is_none());
    let steps: Vec<_> = run
        .steps
        .iter()
        .map(|step| (step.seq, step.kind.as_str(), step.state.as_str()))
        .collect();
    assert_eq!(steps, [(1, "model", "done"), (2, "tool", "done"), (3, "model", "done")]);
    assert_eq!(run.steps[1].name.as_deref(), Some("list_sandboxes"));
    assert_eq!((run.steps[0].tokens_in, run.steps[0].tokens_out), (Some(812), Some(20)));
    let final_row = finish.run.clone().unwrap();
    assert_eq!((final_row.status, final_row.output_text), (run.status, run.output_text));

    let calls = fixture.concierge.calls();
    let principal = &calls[0].context.principal;
    assert_eq!(calls.len(), 1);
    assert_eq!(principal.user_id, Some(fixture.sandbox.owner_user_id.clone()));
    assert_eq!(principal.run_id.as_ref().map(ToString::to_string), Some(turn.run_id()));
    assert_eq!(principal.via, ["gateway", "concierge", "agent-runner", "concierge"]);
    assert_eq!(calls[0].context.traceparent, owner.traceparent);
    assert_eq!(calls[0].request.sandbox_id, fixture.sandbox.id.to_string());
}

async fn the_row_and_its_trace_exist_before_the_model_answers(database: TestDatabase, wiring: Wiring) {
    let fixture = Builder::new(database, wiring)
        .script(json!({"turns": [{"events": [{"hang": true}]}]}))
        .build()
        .await;
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("hello"))
        .await
        .unwrap();
    turn.next().await;
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.status, "running");
    let trace: Value = serde_json::from_str(&run.tool_resolution_trace_json.unwrap()).unwrap();
    assert_eq!(trace["sources_resolved"], json!(["copass_management"]));
    assert_eq!(trace["tool_names_advertised"].as_array().unwrap().len(), 6);
    for empty in ["sources_skipped", "allowlist_filtered_out", "allowlist_missing_entries"] {
        assert_eq!(trace[empty], json!([]), "{empty}");
    }
    assert!(trace["duration_ms"].is_u64());
    assert_eq!((run.steps.len(), run.steps[0].state.as_str()), (1, "intended"));
}

async fn a_provider_failure_after_text_is_an_agent_error(database: TestDatabase, wiring: Wiring) {
    let script =
        json!({"turns": [{"events": [{"text": "Well, "}, {"error": {"kind": "retryable", "message": "overloaded"}}]}]});
    let fixture = Builder::new(database, wiring).script(script).build().await;
    let turn = fixture.say("hello").await;
    let error = turn.error();
    assert_eq!(
        (error.r#type.as_str(), error.message.as_str()),
        ("ProviderError", "overloaded")
    );
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        (run.status.as_str(), run.error_message.as_deref()),
        ("failed", Some("overloaded"))
    );
    assert_eq!(run.output_text.as_deref(), Some("Well, "), "partial text is kept");
    assert_eq!(run.steps[0].state, "failed");
}

async fn a_slow_run_times_out(database: TestDatabase) {
    let script = json!({"turns": [{"events": [{"text": "Hm"}, {"hang": true}]}]});
    let fixture = Builder::new(database, Wiring::Local).script(script).build().await;
    let mut turn = fixture.start_within("hello", Duration::from_millis(100)).await;
    turn.finish_reading().await;
    assert_eq!(turn.error().r#type, "Timeout");
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        (run.status.as_str(), run.output_text.as_deref()),
        ("timeout", Some("Hm"))
    );
    assert!(run.error_message.unwrap().contains("0.1 s"));
}

async fn a_silent_model_is_noticed(database: TestDatabase) {
    let script = json!({"turns": [{"events": [{"text": "Hm"}, {"hang": true}]}]});
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .config(|config| config.limits.model_silence = Duration::from_millis(50))
        .build()
        .await;
    let turn = fixture.say("hello").await;
    assert_eq!(turn.error().r#type, "ProviderError");
    assert!(
        turn.error().message.contains("said nothing"),
        "{}",
        turn.error().message
    );
}

async fn every_kind_of_provider_failure_ends_the_run(database: TestDatabase) {
    let database = std::sync::Arc::new(database);
    for kind in [
        "auth",
        "invalid_request",
        "not_configured",
        "protocol",
        "stalled",
        "rate_limited",
        "retryable",
    ] {
        let script = json!({"turns": [{"events": [{"error": {"kind": kind, "retry_after_ms": 1}}]}]});
        let fixture = Builder::sharing(database.clone(), Wiring::Local)
            .script(script)
            .build()
            .await;
        let turn = fixture.say("hello").await;
        assert_eq!(turn.error().r#type, "ProviderError", "{kind}");
        let run = fixture.run_row(&turn.run_id()).await;
        assert_eq!(run.status, "failed", "{kind}");
        let retries = matches!(kind, "stalled" | "rate_limited" | "retryable");
        let warnings: Vec<String> = serde_json::from_str(&run.warnings_json).unwrap();
        assert_eq!(warnings.len(), if retries { 2 } else { 0 }, "{kind}: {warnings:?}");
    }
}

async fn a_failure_before_any_output_is_retried_and_counted(database: TestDatabase) {
    let after = scripted(json!({"turns": [{"events": [{"text": "At last."}]}]}));
    let error = providers::error(ErrorKind::RateLimited).with_retry_after(Duration::from_millis(120));
    let provider = providers::Flaky::new(2, error, after);
    let fixture = Builder::new(database, Wiring::Local)
        .provider(provider.clone())
        .build()
        .await;
    let began = std::time::Instant::now();
    let turn = fixture.say("hello").await;
    assert!(
        began.elapsed() >= Duration::from_millis(240),
        "the provider's waiting time is honoured"
    );
    assert_eq!(turn.text(), "At last.");
    assert_eq!(provider.asked.load(std::sync::atomic::Ordering::SeqCst), 3);
    let run = fixture.run_row(&turn.run_id()).await;
    let warnings: Vec<String> = serde_json::from_str(&run.warnings_json).unwrap();
    assert!(
        warnings.len() == 2 && warnings[0].contains("rate_limited"),
        "{warnings:?}"
    );
    let output = "select cast(count(*) as bigint) from run_steps where cast(output as text) like '%\"attempts\"%3%'";
    assert_eq!(fixture.count(output).await, 1);
}

async fn a_wait_beyond_the_bound_is_not_waited_for(database: TestDatabase) {
    let error = providers::error(ErrorKind::RateLimited).with_retry_after(Duration::from_secs(3600));
    let provider = providers::Flaky::new(1, error, scripted(json!({"turns": [{"events": [{"text": "x"}]}]})));
    let fixture = Builder::new(database, Wiring::Local)
        .provider(provider.clone())
        .build()
        .await;
    let turn = fixture.say("hello").await;
    assert_eq!(turn.error().r#type, "ProviderError");
    assert_eq!(provider.asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

async fn what_cannot_begin_is_refused_before_the_stream(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    for (message, code) in [
        ("", ErrorCode::ValidationError),
        ("  \n", ErrorCode::ValidationError),
        ("a\0b", ErrorCode::ValidationError),
        (&"x".repeat(4001), ErrorCode::ValidationError),
    ] {
        assert_code(fixture.start(&owner, fixture.turn(message)).await, code);
    }
    let mut turn = fixture.turn("hello");
    turn.system_agent = "somebody".to_owned();
    assert_code(fixture.start(&owner, turn).await, ErrorCode::NotFound);
    let mut turn = fixture.turn("hello");
    turn.tools[1].name = turn.tools[0].name.clone();
    assert_code(fixture.start(&owner, turn).await, ErrorCode::InvalidRequest);
    let mut turn = fixture.turn("hello");
    turn.tools[0].input_schema_json = "{".to_owned();
    assert_code(fixture.start(&owner, turn).await, ErrorCode::InvalidRequest);
    // Not through the concierge service: only it may start turns of the system.
    let request = owner.request(fixture.turn("hello"));
    let refused = fixture
        .runs()
        .start_system_turn(request)
        .await
        .map_err(copass_errors::Error::from);
    assert_code(refused.map(|_| ()), ErrorCode::Forbidden);
    let service = copass_runtime::CallContext::service("concierge");
    assert_code(
        fixture.start(&service, fixture.turn("hello")).await,
        ErrorCode::NotFound,
    );
    let suspended = fixture.sandbox.with_status("suspended").owner();
    assert_code(
        fixture.start(&suspended, fixture.turn("hello")).await,
        ErrorCode::SandboxNotActive,
    );
    for stranger in [
        fixture.sandbox.foreign(),
        fixture.sandbox.nobody(),
        fixture.sandbox.owner_with_key_of_another_sandbox(),
    ] {
        assert_code(
            fixture.start(&stranger, fixture.turn("hello")).await,
            ErrorCode::NotFound,
        );
    }
    assert_eq!(fixture.count("select cast(count(*) as bigint) from runs").await, 0);
}

async fn the_planner_costs_nothing(database: TestDatabase) {
    let planner = std::sync::Arc::new(copass_llm::Planner::concierge().unwrap());
    let fixture = Builder::new(database, Wiring::Local)
        .provider(planner)
        .registered_as("planner")
        .config(|config| config.concierge_backend_model = ("planner".to_owned(), "planner".to_owned()))
        .build()
        .await;
    fixture
        .concierge
        .answers("list_sandboxes", json!({"sandboxes": [], "count": 0}));
    let turn = fixture.say("What sandboxes do I have?").await;
    assert!(!turn.text().is_empty());
    assert_eq!(fixture.run_row(&turn.run_id()).await.cost_microcents, Some(0));
    assert!(turn.finish().usage_json.contains(r#""cost_microcents":0"#));
}

#[tokio::test]
async fn without_a_provider_the_setting_is_named() {
    let fixture = Builder::new(TestDatabase::sqlite().await, Wiring::Local)
        .registered_as("other")
        .build()
        .await;
    let refused = fixture.start(&fixture.sandbox.owner(), fixture.turn("hi")).await;
    let refused = assert_code(refused, ErrorCode::ProviderNotConfigured);
    assert!(refused.detail().contains("COPASS__MODELS__SCRIPTED"), "{refused}");
    assert_eq!(fixture.count("select cast(count(*) as bigint) from runs").await, 0);
}

#[tokio::test]
async fn a_node_that_shuts_down_cancels_its_runs_with_the_reason_and_takes_no_new_ones() {
    let script = json!({"turns": [{"events": [{"text": "Hm"}, {"hang": true}]}]});
    let fixture = Builder::new(TestDatabase::sqlite().await, Wiring::Remote)
        .script(script)
        .build()
        .await;
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("hello"))
        .await
        .unwrap();
    turn.until(is_text).await;
    assert!(fixture.tasks.shut_down(SOON).await);
    turn.finish_reading().await;
    assert_eq!(
        (turn.error().r#type.as_str(), turn.error().message.as_str()),
        ("Cancelled", "server is shutting down")
    );
    assert_eq!(fixture.run_row(&turn.run_id()).await.status, "cancelled");
    assert_code(
        fixture.start(&fixture.sandbox.owner(), fixture.turn("hello")).await,
        ErrorCode::Unavailable,
    );
}

#[tokio::test]
async fn limits_of_the_request_are_capped() {
    let script = json!({"turns": [{"events": [{"tool_call": {"name": "list_agents"}}]}]});
    let fixture = Builder::new(TestDatabase::sqlite().await, Wiring::Local)
        .script(script)
        .config(|config| config.limits.max_turns_cap = 3)
        .build()
        .await;
    let mut request = fixture.turn("loop");
    request.limits = Some(RunLimits {
        max_turns: 1000,
        timeout_ms: u32::MAX,
    });
    let mut turn = fixture.start(&fixture.sandbox.owner(), request).await.unwrap();
    turn.finish_reading().await;
    assert_eq!(turn.finish().stop_reason, "max_turns");
    assert_eq!(fixture.concierge.calls().len(), 3);
    let warnings = fixture.run_row(&turn.run_id()).await.warnings_json;
    assert!(warnings.contains("stopped after 3 model answers"), "{warnings}");
}
