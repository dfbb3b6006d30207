//! What tools give and what answers cost: shown, kept and told as it is.

use copass_errors::ErrorCode;
use copass_llm::{Cost, Message, Prices, Usage};
use copass_runtime::clock;
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use copass_types::{AgentKeyKind, RunId, StepId};
use serde_json::{Value, json};

use crate::support::{Builder, FakeSource, agent_runs::with_agent_key, assert_code, providers::Recording, scripted};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    a_long_result_is_given_by_reference_and_kept_whole
    }
}
on_both_databases! {
    a_result_beyond_all_bounds_costs_itself
    usage_and_cost_are_summed_over_the_answers
    without_a_price_the_cost_is_not_known
}

const SECRET: &str = "olk_c4n4ryc4n4ryc4n4ryc4n4ry";

fn calling(name: &str) -> Value {
    json!({"turns": [{"events": [{"tool_call": {"name": name}}]}, {"events": [{"text": "Done."}]}]})
}

async fn a_long_result_is_given_by_reference_and_kept_whole(database: TestDatabase, wiring: Wiring) {
    let provider = Recording::new(scripted(calling("look")));
    let source = FakeSource::usual();
    source.answers(
        "look",
        json!({"rows": "ä\"\\".repeat(100_000), "access_token": SECRET, "last": "the end"}),
    );
    let fixture = Builder::new(database, wiring)
        .provider(provider.clone())
        .tool_source(source.shared())
        .build()
        .await;
    let agent = fixture.make_agent().await;
    let viewer = fixture.sandbox.viewer();
    let key = with_agent_key(fixture.sandbox.owner(), &agent, AgentKeyKind::Delegate);
    let mut turn = fixture.fire(&key, fixture.test_fire("{}")).await.unwrap();
    turn.finish_reading().await;
    let run_id = turn.run_id();
    let run = fixture.run_row(&run_id).await;
    let step = &run.steps[1];
    assert!(step.is_truncated && step.result_bytes.unwrap() > 600_000);
    let messages = provider.last().messages;
    let Some(Message::Tool { result, .. }) = messages.last() else {
        panic!("{messages:?}")
    };
    assert_eq!(
        (&result["truncated"], &result["step_id"]),
        (&json!(true), &json!(step.step_id))
    );
    assert!(result["beginning"].as_str().unwrap().starts_with(r#"{"rows":"ä\"\\"#));
    assert!(result.to_string().len() <= 64 * 1024);

    let whole = fixture.step_result(&viewer, &run_id, &step.step_id).await.unwrap();
    assert_eq!((whole.name.as_str(), &whole.step_id), ("look", &step.step_id));
    let kept: Value = serde_json::from_str(&whole.result_json).unwrap();
    assert_eq!(kept["rows"].as_str().unwrap().chars().count(), 300_000);
    assert_eq!(
        (&kept["last"], &kept["access_token"]),
        (&json!("the end"), &json!("<redacted>"))
    );
    assert_eq!(fixture.step_result(&key, &run_id, &step.step_id).await.unwrap(), whole);

    let other_key = with_agent_key(fixture.sandbox.owner(), &agent, AgentKeyKind::Delegate);
    let refused = fixture.step_result(&other_key, &run_id, &step.step_id).await;
    assert_code(refused, ErrorCode::Forbidden);
    for stranger in [fixture.sandbox.foreign(), fixture.sandbox.nobody()] {
        let refused = fixture.step_result(&stranger, &run_id, &step.step_id).await;
        assert_code(refused, ErrorCode::NotFound);
    }
    let other_run = fixture.fired(&json!({})).await.run_id();
    for (run_id, step_id) in [
        (other_run.as_str(), step.step_id.as_str()),
        (&run_id, StepId::generate().as_ref()),
        (RunId::generate().as_ref(), &step.step_id),
        // A model's answer is no result.
        (&run_id, &run.steps[0].step_id),
    ] {
        let refused = fixture.step_result(&viewer, run_id, step_id).await;
        assert_code(refused, ErrorCode::NotFound);
    }
    for table in [
        "step_results where result like '%c4n4ryc4n4ry%'",
        "run_steps where cast(output as text) like '%c4n4ryc4n4ry%'",
    ] {
        let sql = format!("select cast(count(*) as bigint) from {table}");
        assert_eq!(fixture.count(Box::leak(sql.into_boxed_str())).await, 0, "{table}");
    }
}

async fn a_result_beyond_all_bounds_costs_itself(database: TestDatabase) {
    let source = FakeSource::usual();
    source.answers("look", json!({"rows": "x".repeat(10 * 1024 * 1024)}));
    let fixture = Builder::new(database, Wiring::Local)
        .script(calling("look"))
        .tool_source(source.shared())
        .build()
        .await;
    fixture.make_agent().await;
    let turn = fixture.fired(&json!({})).await;
    assert_eq!(turn.text(), "Done.");
    assert!(turn.results()[0].result_json.len() <= 1024 * 1024);
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(run.steps[1].result_bytes, Some(10 * 1024 * 1024 + 11));
    assert_eq!(
        fixture.count("select cast(count(*) as bigint) from step_results").await,
        0
    );
    let kept = fixture
        .step_result(&fixture.sandbox.owner(), &run.run_id, &run.steps[1].step_id)
        .await
        .unwrap();
    assert!(kept.result_json.contains("truncated") && kept.result_json.len() <= 64 * 1024);
}

fn answers() -> (Value, [Usage; 2]) {
    let usages = [
        Usage {
            input_tokens: 1_001,
            output_tokens: 203,
            cache_read_input_tokens: 5_007,
            cache_creation_input_tokens: 311,
            thinking_tokens: 101,
        },
        Usage {
            input_tokens: 17,
            output_tokens: 3,
            ..Usage::default()
        },
    ];
    let script = json!({"turns": [
        {"events": [{"tool_call": {"name": "look"}}], "usage": usages[0]},
        {"events": [{"text": "Done."}], "usage": usages[1]}]});
    (script, usages)
}

async fn usage_and_cost_are_summed_over_the_answers(database: TestDatabase) {
    let (script, usages) = answers();
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .registered_as("anthropic")
        .tool_source(FakeSource::usual().shared())
        .build()
        .await;
    fixture.make_agent_with(|request| request.model_settings = None).await;
    let turn = fixture.fired(&json!({})).await;
    let prices = Prices::builtin().unwrap();
    let costs = usages.map(|usage| {
        prices
            .cost("anthropic", "claude-sonnet-4-6", &usage, clock::now())
            .unwrap()
    });
    let sum: Cost = costs[0] + costs[1];
    assert!(sum.total > 0 && sum.cache_read > 0 && sum.thinking > 0, "{sum:?}");
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        (run.tokens_in, run.tokens_out),
        (Some(1_001 + 5_007 + 311 + 17), Some(206))
    );
    assert_eq!(run.cost_microcents, Some(sum.total));
    let breakdown: Value = serde_json::from_str(&run.cost_breakdown_json.unwrap()).unwrap();
    assert_eq!(
        breakdown,
        json!({"input": sum.input, "output": sum.output, "cache_read": sum.cache_read,
        "cache_creation": sum.cache_creation, "thinking": sum.thinking, "compute": 0, "total": sum.total})
    );
    let of_steps: Vec<Option<u64>> = run.steps.iter().map(|step| step.cost_microcents).collect();
    assert_eq!(of_steps, [Some(costs[0].total), None, Some(costs[1].total)]);
    let usage: Value = serde_json::from_str(&turn.finish().usage_json).unwrap();
    assert_eq!(
        usage,
        json!({"input_tokens": 1_018, "output_tokens": 206, "cache_read_input_tokens": 5_007,
        "cache_creation_input_tokens": 311, "thinking_tokens": 101, "cost_microcents": sum.total,
        "cost_breakdown_microcents": breakdown})
    );
    assert!(!run.warnings_json.contains("cost"), "{}", run.warnings_json);
}

async fn without_a_price_the_cost_is_not_known(database: TestDatabase) {
    let (script, _) = answers();
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .registered_as("hermes")
        .tool_source(FakeSource::usual().shared())
        .build()
        .await;
    let settings = copass_proto::agent::ModelSettings {
        backend: "hermes".to_owned(),
        model: "hermes/nobody/knows-this-one".to_owned(),
        ..copass_proto::agent::ModelSettings::default()
    };
    fixture
        .make_agent_with(|request| request.model_settings = Some(settings))
        .await;
    let turn = fixture.fired(&json!({})).await;
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!((run.status.as_str(), run.tokens_out), ("succeeded", Some(206)));
    assert_eq!(
        (run.cost_microcents, run.cost_breakdown_json),
        (None, None),
        "unknown is not nothing"
    );
    let warning = "the price list has no price for hermes/nobody/knows-this-one";
    assert!(run.warnings_json.contains(warning), "{}", run.warnings_json);
    assert!(
        !turn.finish().usage_json.contains("cost"),
        "{}",
        turn.finish().usage_json
    );
    assert_eq!(run.steps[0].cost_microcents, None);
}
