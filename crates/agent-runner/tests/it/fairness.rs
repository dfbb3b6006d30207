//! Places for runs among sandboxes: who wants many at once does not keep the others from theirs.

use std::mem;

use copass_test_support::{TestDatabase, TestSandbox, Wiring, eventually, on_both_databases};
use serde_json::json;

use crate::support::{Builder, FakeSource, LIMIT};

on_both_databases! {
    one_sandbox_leaves_places_to_others_and_has_all_its_runs_in_the_end
}

const RUNNING: &str = "select cast(count(*) as bigint) from runs where status = 'running'";

async fn one_sandbox_leaves_places_to_others_and_has_all_its_runs_in_the_end(database: TestDatabase) {
    let source = FakeSource::usual();
    let gate = source.gate("look");
    let script = json!({"turns": [{"events": [{"tool_call": {"name": "look"}}]}, {"events": [{"text": "Done."}]}]});
    let mut fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source.shared())
        .config(|config| {
            config.background_runs = 4;
            config.background_runs_per_sandbox = 2;
        })
        .build()
        .await;
    fixture.runner.start();
    fixture.start_relay();
    fixture.make_agent().await;
    let mut flood = Vec::new();
    for _ in 0..9 {
        flood.push(fixture.invoked("begin").await);
    }
    eventually(LIMIT, async || source.running() == 2).await;

    let greedy = mem::replace(&mut fixture.sandbox, TestSandbox::new());
    fixture.make_agent().await;
    let other = fixture.invoked("begin").await;
    eventually(LIMIT, async || source.running() == 3).await;
    assert_eq!(fixture.run_row(&other).await.status, "running");
    assert_eq!(
        fixture.count(RUNNING).await,
        3,
        "a place is left, and none of the flood has it"
    );

    // Leases are far from their end: it is the end of one that begins the next.
    gate.add_permits(10);
    assert_eq!(fixture.ended(&other).await.status, "succeeded");
    fixture.sandbox = greedy;
    for run_id in &flood {
        assert_eq!(fixture.ended(run_id).await.status, "succeeded");
    }
    assert_eq!(source.names().len(), 10, "each of them once");
}
