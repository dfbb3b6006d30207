//! What a run of an agent may do and use: tools that were offered, arguments that fit, turns, tokens and time.

use std::time::Duration;

use copass_llm::Message;
use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use serde_json::{Value, json};

use crate::support::{
    Builder, FakeSource, Fixture, LIMIT, agent_runs::scripted_settings, providers::Recording, scripted, sources::tool,
};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    arguments_that_do_not_fit_are_told_to_the_model_and_to_nobody_else
    }
}
on_both_databases! {
    what_was_not_offered_never_runs
    reading_calls_run_together_as_far_as_they_may
    an_agents_turns_are_counted
    an_agents_tokens_are_counted_over_its_answers
    an_answer_that_was_cut_says_so
    an_invoked_run_that_takes_too_long_is_stopped
    what_was_said_before_a_failure_is_kept
}

fn calls(calls: &[Value]) -> Value {
    let events: Vec<Value> = calls.iter().map(|call| json!({ "tool_call": call })).collect();
    json!({"turns": [{"events": events}, {"events": [{"text": "Done."}]}]})
}

async fn with_agent(builder: Builder, change: impl FnOnce(&mut copass_proto::agent::ModelSettings)) -> Fixture {
    let fixture = builder.build().await;
    let mut settings = scripted_settings();
    change(&mut settings);
    fixture
        .make_agent_with(|request| request.model_settings = Some(settings))
        .await;
    fixture
}

async fn arguments_that_do_not_fit_are_told_to_the_model_and_to_nobody_else(database: TestDatabase, wiring: Wiring) {
    let mut strict = tool("make", false);
    strict.input_schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}},
        "required": ["n"], "additionalProperties": false});
    let mut broken = tool("break", true);
    broken.input_schema = json!({"type": "object", "properties": {"n": {"type": 7}}});
    let source = FakeSource::new("fake").tool(strict).tool(broken);
    let call = |name: &str, arguments: Value| json!({"name": name, "arguments": arguments});
    let script = calls(&[
        call("make", json!({"n": "olk_secret"})),
        call("make", json!({})),
        call("make", json!({"n": 0})),
        call("make", json!({"n": 1, "m": 2})),
        call("break", json!({"n": 1})),
        call("make", json!({"n": 1})),
    ]);
    let provider = Recording::new(scripted(script));
    let builder = Builder::new(database, wiring)
        .provider(provider.clone())
        .tool_source(source.shared());
    let fixture = with_agent(builder, |_| {}).await;
    let turn = fixture.fired(&json!({})).await;
    assert_eq!(turn.text(), "Done.");
    let made: Vec<Value> = source.calls().into_iter().map(|made| made.arguments).collect();
    assert_eq!(made, [json!({"n": 1})]);
    let told: Vec<Value> = provider
        .last()
        .messages
        .into_iter()
        .filter_map(|message| match message {
            Message::Tool { result, error, .. } => error.map(|_| result),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 5);
    for (result, word) in told.iter().zip(["/n: ", "\"n\"", "/n: ", "m", "schema is broken"]) {
        let detail = result["detail"].as_str().unwrap();
        assert_eq!(result["error"], "invalid_input");
        assert!(
            detail.contains(word) && !detail.contains("olk_secret"),
            "{word}: {detail}"
        );
    }
    let run = fixture.run_row(&turn.run_id()).await;
    let states: Vec<&str> = run.steps.iter().map(|step| step.state.as_str()).collect();
    assert_eq!(
        states,
        ["done", "failed", "failed", "failed", "failed", "failed", "done", "done"]
    );
}

async fn what_was_not_offered_never_runs(database: TestDatabase) {
    let source = FakeSource::usual();
    let script = calls(&[
        json!({"name": "make"}),
        json!({"name": "delete_everything"}),
        json!({"name": "LOOK"}),
        json!({"name": "look "}),
        json!({"name": "look"}),
    ]);
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .build()
        .await;
    let allowed = vec!["look".to_owned()];
    fixture
        .make_agent_with(|request| request.tool_allowlist = allowed)
        .await;
    let turn = fixture.fired(&json!({})).await;
    let unknown = turn
        .results()
        .iter()
        .filter(|result| result.error.as_deref() == Some("unknown tool"))
        .count();
    assert_eq!((unknown, source.names()), (4, vec!["look".to_owned()]));
    assert_eq!(turn.text(), "Done.");
}

async fn reading_calls_run_together_as_far_as_they_may(database: TestDatabase) {
    let source = FakeSource::usual();
    let gates = ["look", "list", "find"].map(|name| source.gate(name));
    let names = ["look", "list", "find", "look", "list"];
    let script = calls(&names.map(|name| json!({ "name": name })));
    let builder = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .config(|config| config.limits.parallel_reads = 3);
    let fixture = with_agent(builder, |_| {}).await;
    let run_id = fixture.invoked("go").await;
    eventually(LIMIT, async || source.running() == 3).await;
    assert_eq!(source.names(), ["look", "list", "find"]);
    gates[2].add_permits(1);
    eventually(LIMIT, async || source.names().len() == 4).await;
    gates.iter().for_each(|gate| gate.add_permits(2));
    assert_eq!(fixture.ended(&run_id).await.status, "succeeded");
    assert_eq!((source.names().len(), source.most_running()), (5, 3));
    let turn = fixture.stored(&run_id, None).await;
    let results: Vec<&str> = turn.results().iter().map(|result| result.name.as_str()).collect();
    assert_eq!(results[0], "find", "results come as they come");
}

async fn an_agents_turns_are_counted(database: TestDatabase) {
    let source = FakeSource::usual();
    // The same change for ever.
    let script = json!({"turns": [{"events": [{"tool_call": {"name": "make", "arguments": {"n": 1}}}]}]});
    let builder = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared());
    let fixture = with_agent(builder, |settings| settings.max_turns = Some(4)).await;
    let run_id = fixture.invoked("loop").await;
    let run = fixture.ended(&run_id).await;
    assert_eq!((run.status.as_str(), source.names().len()), ("succeeded", 4));
    assert!(
        run.warnings_json.contains("stopped after 4 model answers"),
        "{}",
        run.warnings_json
    );
    assert_eq!(fixture.stored(&run_id, None).await.finish().stop_reason, "max_turns");
    let keys: std::collections::BTreeSet<String> = source.calls().into_iter().map(|made| made.key).collect();
    assert_eq!(keys.len(), 4, "each of them is a call of its own");
}

async fn an_agents_tokens_are_counted_over_its_answers(database: TestDatabase) {
    let answer =
        json!({"events": [{"tool_call": {"name": "look"}}], "usage": {"input_tokens": 5, "output_tokens": 30}});
    let provider = Recording::new(scripted(json!({"turns": [answer]})));
    let builder = Builder::new(database, Wiring::Local)
        .provider(provider.clone())
        .tool_source(FakeSource::usual().shared());
    let fixture = with_agent(builder, |settings| settings.max_tokens = Some(100)).await;
    let turn = fixture.fired(&json!({})).await;
    assert_eq!(turn.finish().stop_reason, "max_tokens");
    let left: Vec<Option<u32>> = provider
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|request| request.max_tokens)
        .collect();
    assert_eq!(
        left,
        [Some(100), Some(70), Some(40), Some(10)],
        "what an answer took is gone"
    );
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!((run.tokens_in, run.tokens_out), (Some(20), Some(120)));
    assert!(
        run.warnings_json.contains("stopped after 120 written tokens"),
        "{}",
        run.warnings_json
    );
}

async fn an_answer_that_was_cut_says_so(database: TestDatabase) {
    let script = json!({"turns": [{"events": [{"text": "Once upon a"}], "stop_reason": "max_tokens"}]});
    let builder = Builder::new(database, Wiring::Local).script(script);
    let fixture = with_agent(builder, |settings| settings.max_tokens = Some(5)).await;
    // The Concierge has no limit of its own.
    for (turn, most) in [
        (fixture.fired(&json!({})).await, "5 tokens, the most this run may write"),
        (fixture.say("hello").await, "the most that the model writes"),
    ] {
        assert_eq!(turn.finish().stop_reason, "max_tokens");
        let warnings = fixture.run_row(&turn.run_id()).await.warnings_json;
        assert!(
            warnings.contains("the model's answer was cut off") && warnings.contains(most),
            "{warnings}"
        );
    }
}

async fn an_invoked_run_that_takes_too_long_is_stopped(database: TestDatabase) {
    let source = FakeSource::usual();
    let _never = source.gate("make");
    let script = json!({"turns": [{"events": [{"text": "Making."}, {"tool_call": {"name": "make"}}]}]});
    let builder = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .config(|config| config.limits.run_timeout_cap = Duration::from_millis(300));
    let fixture = with_agent(builder, |settings| settings.timeout_s = Some(3600)).await;
    let run = fixture.ended(&fixture.invoked("go").await).await;
    assert_eq!(
        (run.status.as_str(), run.error_type.as_deref()),
        ("timeout", Some("Timeout"))
    );
    let message = run.error_message.unwrap();
    assert!(message.contains("longer than 0.3 s"), "{message}");
    assert!(
        message.contains("the outcome of make (call_1) is not known"),
        "{message}"
    );
    assert_eq!(run.output_text.as_deref(), Some("Making."));
    eventually(LIMIT, async || source.running() == 0).await;
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from conversations where busy_run_id is not null")
            .await,
        0
    );
}

async fn what_was_said_before_a_failure_is_kept(database: TestDatabase) {
    let script = json!({"turns": [
        {"events": [{"text": "First. "}, {"tool_call": {"name": "look"}}], "usage": {"output_tokens": 3}},
        {"events": [{"text": "Then "}, {"text": "half a"}, {"error": {"kind": "retryable", "message": "overloaded"}}]}]});
    let builder = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(FakeSource::usual().shared());
    let fixture = with_agent(builder, |_| {}).await;
    let run_id = fixture.invoked("go").await;
    let run = fixture.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.error_type.as_deref()),
        ("failed", Some("ProviderError"))
    );
    assert_eq!(run.error_message.as_deref(), Some("overloaded"));
    assert_eq!(run.output_text.as_deref(), Some("First. Then half a"));
    assert_eq!(run.tokens_out, Some(3));
    assert_eq!(run.steps[2].output_preview.as_deref(), Some("Then half a"));
    let turn = fixture.stored(&run_id, None).await;
    assert_eq!(turn.text(), "First. Then half a");
    assert_eq!(
        (turn.error().r#type.as_str(), turn.error().message.as_str()),
        ("ProviderError", "overloaded")
    );
    // The person's message stays in the conversation, the broken reply does not.
    let messages = "select cast(count(*) as bigint) from conversation_messages";
    assert_eq!(fixture.count(messages).await, 1);
}
