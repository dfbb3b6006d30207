//! What every try of an answer used is counted, and what nobody knows is not nothing.

use std::{sync::Arc, time::Duration};

use copass_llm::{Error, ErrorKind, Prices, StopReason, StreamEvent, Usage};
use copass_proto::{agent::ModelSettings, run::Run};
use copass_runtime::clock;
use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use serde_json::json;

use crate::support::{Builder, Fixture, LIMIT, SOON, is_text, providers::Told};

on_both_databases! {
    a_cancelled_answer_is_counted_as_far_as_it_was_told
    an_answer_that_takes_too_long_is_counted_as_far_as_it_was_told
    every_try_is_counted_once
    a_run_that_goes_on_elsewhere_keeps_what_it_used
    an_answer_that_is_lost_with_its_worker_has_no_known_cost
    a_run_that_is_lost_with_its_worker_has_no_known_cost
    an_answer_that_nobody_counted_has_no_known_cost
    what_never_began_costs_nothing
    absurd_counts_are_told_and_cut
}

const MODEL: &str = "anthropic/claude-sonnet-4-5";

type Item = Result<StreamEvent, Error>;

fn usage(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage {
        input_tokens,
        output_tokens,
        ..Usage::default()
    }
}

fn told(input_tokens: u64, output_tokens: u64) -> Item {
    Ok(StreamEvent::Usage(usage(input_tokens, output_tokens)))
}

fn text() -> Item {
    Ok(StreamEvent::TextDelta("half".to_owned()))
}

fn finish(usage: Usage) -> Item {
    Ok(StreamEvent::Finish {
        stop_reason: StopReason::EndTurn,
        usage,
    })
}

fn overloaded() -> Error {
    Error::new(ErrorKind::Retryable, "overloaded")
}

/// In microcents.
fn price(usage: &Usage) -> Option<u64> {
    let prices = Prices::builtin().unwrap();
    prices
        .cost("anthropic", MODEL, usage, clock::now())
        .map(|cost| cost.total)
}

async fn fixture(database: TestDatabase, model: &str, lists: Vec<Vec<Item>>, run_timeout: Duration) -> Fixture {
    with_provider(database, model, Told::new(lists), run_timeout).await
}

async fn with_provider(database: TestDatabase, model: &str, told: Arc<Told>, run_timeout: Duration) -> Fixture {
    let builder = Builder::new(database, Wiring::Local)
        .provider(told)
        .config(|config| config.limits.run_timeout_cap = run_timeout);
    with_model(builder, model).await
}

async fn with_model(builder: Builder, model: &str) -> Fixture {
    let fixture = builder.registered_as("anthropic").build().await;
    fixture
        .make_agent_with(|request| request.model_settings = Some(settings(model)))
        .await;
    fixture
}

fn settings(model: &str) -> ModelSettings {
    ModelSettings {
        backend: "anthropic".to_owned(),
        model: model.to_owned(),
        ..ModelSettings::default()
    }
}

async fn ended(database: TestDatabase, model: &str, lists: Vec<Vec<Item>>) -> Run {
    let fixture = fixture(database, model, lists, LIMIT).await;
    fixture.ended(&fixture.invoked("go").await).await
}

fn assert_told_half(run: &Run) {
    let known = usage(150_000, 1);
    assert_eq!(run.output_text.as_deref(), Some("half"));
    assert_eq!((run.tokens_in, run.tokens_out), (Some(150_000), Some(1)));
    assert_eq!(run.cost_microcents, price(&known));
    let step = &run.steps[0];
    assert_eq!((step.tokens_in, step.tokens_out), (Some(150_000), Some(1)));
    assert_eq!(step.cost_microcents, price(&known));
    assert!(
        run.warnings_json.contains("an answer was cut before"),
        "{}",
        run.warnings_json
    );
}

async fn a_cancelled_answer_is_counted_as_far_as_it_was_told(database: TestDatabase) {
    let provider = Told::new([vec![told(150_000, 0), told(150_000, 1), text()]]);
    let fixture = with_provider(database, MODEL, provider.clone(), LIMIT).await;
    let run_id = fixture.invoked("go").await;
    eventually(LIMIT, async || provider.is_silent()).await;
    fixture.cancel(&fixture.sandbox.owner(), &run_id).await.unwrap();
    assert_told_half(&fixture.ended(&run_id).await);
}

async fn an_answer_that_takes_too_long_is_counted_as_far_as_it_was_told(database: TestDatabase) {
    let list = vec![told(150_000, 0), told(150_000, 1), text()];
    let fixture = fixture(database, MODEL, vec![list], Duration::from_millis(300)).await;
    let run = fixture.ended(&fixture.invoked("go").await).await;
    assert_eq!(run.status, "timeout");
    assert_told_half(&run);
}

async fn every_try_is_counted_once(database: TestDatabase) {
    let lists = vec![
        vec![told(1000, 1), Err(overloaded())],
        vec![told(1000, 1), told(1000, 40), finish(usage(1000, 50))],
    ];
    let run = ended(database, MODEL, lists).await;
    assert_eq!((run.status.as_str(), run.steps.len()), ("succeeded", 1), "{run:?}");
    assert_eq!((run.tokens_in, run.tokens_out), (Some(2000), Some(51)));
    let expected = price(&usage(1000, 1)).zip(price(&usage(1000, 50)));
    let expected = expected.map(|(first, second)| first + second);
    assert_eq!(run.cost_microcents, expected);
    let step = &run.steps[0];
    assert_eq!((step.tokens_in, step.tokens_out), (Some(2000), Some(51)));
    assert_eq!(step.cost_microcents, expected, "the sums agree at every level");
}

async fn a_run_that_goes_on_elsewhere_keeps_what_it_used(database: TestDatabase) {
    let provider = Told::new([vec![told(1000, 1), text()]]);
    let first = with_provider(database, MODEL, provider.clone(), LIMIT).await;
    first.runner.start();
    first.start_relay();
    let run_id = first.invoked("go").await;
    eventually(LIMIT, async || provider.is_silent()).await;
    assert!(first.tasks.shut_down(SOON).await);
    let second = Builder::replica_of(&first, "other")
        .provider(Told::new([vec![text(), finish(usage(1000, 50))]]))
        .registered_as("anthropic")
        .build()
        .await;
    second.runner.start();
    second.start_relay();
    let run = second.ended(&run_id).await;
    assert_eq!((run.tokens_in, run.tokens_out), (Some(2000), Some(51)), "{run:?}");
    let expected = price(&usage(1000, 1)).zip(price(&usage(1000, 50)));
    let expected = expected.map(|(first, second)| first + second);
    assert_eq!(
        (run.cost_microcents, run.steps[0].cost_microcents),
        (expected, expected)
    );
}

/// A worker that stands still in the middle of an answer, and that nothing keeps alive.
async fn lost(database: TestDatabase) -> Fixture {
    let builder = Builder::new(database, Wiring::Local)
        .provider(Told::new([vec![told(1000, 1), text()]]))
        .short_leases();
    with_model(builder, MODEL).await
}

async fn an_answer_that_is_lost_with_its_worker_has_no_known_cost(database: TestDatabase) {
    let first = lost(database).await;
    let run_id = first.invoked("go").await;
    eventually(LIMIT, async || first.run_row(&run_id).await.steps.len() == 1).await;
    let second = Builder::replica_of(&first, "other")
        .provider(Told::new([vec![text(), finish(usage(1000, 50))]]))
        .registered_as("anthropic")
        .short_leases()
        .build()
        .await;
    second.runner.start();
    let run = second.ended(&run_id).await;
    assert_eq!(
        (run.status.as_str(), run.tokens_in),
        ("succeeded", Some(1000)),
        "{run:?}"
    );
    assert_eq!((run.cost_microcents, run.steps[0].cost_microcents), (None, None));
    assert!(
        run.warnings_json
            .contains("a worker was lost in the middle of an answer"),
        "{}",
        run.warnings_json
    );
}

async fn a_run_that_is_lost_with_its_worker_has_no_known_cost(database: TestDatabase) {
    let first = lost(database).await;
    let mut turn = first
        .fire(&first.sandbox.owner(), first.test_fire(r#"{"n": 1}"#))
        .await
        .unwrap();
    turn.until(is_text).await;
    let second = Builder::replica_of(&first, "other").short_leases().build().await;
    second.runner.start();
    let run = second.run_becomes(&turn.run_id(), "failed", LIMIT).await;
    assert_eq!(
        (run.error_type.as_deref(), run.cost_microcents),
        (Some("WorkerLost"), None)
    );
}

async fn an_answer_that_nobody_counted_has_no_known_cost(database: TestDatabase) {
    let broken = Error::new(ErrorKind::Protocol, "broken");
    let fixture = fixture(
        database,
        MODEL,
        vec![
            vec![text(), finish(Usage::default())],
            vec![text(), Err(broken)],
            vec![Err(overloaded())],
            vec![finish(usage(10, 2))],
        ],
        LIMIT,
    )
    .await;
    for tokens in [0, 0, 10] {
        let run = fixture.ended(&fixture.invoked("go").await).await;
        assert_eq!((run.tokens_in, run.cost_microcents), (Some(tokens), None), "{run:?}");
        assert!(
            run.warnings_json.contains("the provider told no usage"),
            "{}",
            run.warnings_json
        );
        assert_eq!(run.steps[0].cost_microcents, None);
    }
}

async fn what_never_began_costs_nothing(database: TestDatabase) {
    let refused = || vec![Err(overloaded().refused())];
    let denied = vec![Err(Error::new(ErrorKind::Auth, "no").refused())];
    let fixture = fixture(
        database,
        MODEL,
        vec![refused(), vec![finish(usage(1000, 50))], denied.clone(), denied],
        LIMIT,
    )
    .await;
    let run = fixture.ended(&fixture.invoked("go").await).await;
    assert_eq!(
        (run.tokens_in, run.cost_microcents),
        (Some(1000), price(&usage(1000, 50)))
    );
    let run = fixture.ended(&fixture.invoked("go").await).await;
    assert_eq!((run.status.as_str(), run.cost_microcents), ("failed", Some(0)));
    // Without a price not even that is known.
    fixture
        .make_agent_with(|request| {
            request.slug = "unpriced".to_owned();
            request.model_settings = Some(settings("anthropic/nobody-knows"));
        })
        .await;
    let mut request = fixture.test_fire(&json!({}).to_string());
    request.agent_slug = "unpriced".to_owned();
    let mut turn = fixture.fire(&fixture.sandbox.owner(), request).await.unwrap();
    turn.finish_reading().await;
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!((run.status.as_str(), run.cost_microcents), ("failed", None));
    assert!(run.warnings_json.contains("no price for"), "{}", run.warnings_json);
}

async fn absurd_counts_are_told_and_cut(database: TestDatabase) {
    let run = ended(database, MODEL, vec![vec![finish(usage(Usage::MAX_COUNT, 5))]]).await;
    assert_eq!(run.tokens_in, Some(Usage::MAX_COUNT));
    assert!(
        run.warnings_json.contains("more tokens than an answer can have"),
        "{}",
        run.warnings_json
    );
}
