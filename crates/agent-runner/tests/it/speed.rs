//! How long a turn takes; a measurement, not a check: `cargo test --release -p copass-agent-runner speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use copass_test_support::{TestDatabase, Wiring};
use serde_json::json;

use crate::support::Builder;

const TURNS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn turns_with_two_tool_steps_on_sqlite() {
    let script = json!({"turns": [
        {"events": [{"text": "Let me look. "}, {"tool_call": {"name": "list_sandboxes"}}]},
        {"events": [{"tool_call": {"name": "list_agents"}}]},
        {"events": [{"text": "You have none."}]},
    ]});
    for wiring in [Wiring::Local, Wiring::Remote] {
        let fixture = Builder::new(TestDatabase::sqlite().await, wiring)
            .script(script.clone())
            .build()
            .await;
        let mut times = Vec::with_capacity(TURNS);
        for _ in 0..TURNS {
            let began = Instant::now();
            fixture.say("What do I have?").await;
            times.push(began.elapsed());
        }
        times.sort();
        let at = |percent: usize| times[times.len() * percent / 100];
        eprintln!("{wiring:?}: p50 {:?}, p99 {:?}; {}", at(50), at(99), flush_time().await);
    }
}

/// What one disk flush costs here, to compare with.
async fn flush_time() -> String {
    let database = TestDatabase::sqlite().await;
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..50 {
        let began = Instant::now();
        let mut tx = database.begin().await.unwrap();
        let id = format!("m{number}");
        copass_store::execute!(
            tx,
            "insert into inbox (consumer, message_id, received_at) values ('c', $1, 'n')",
            id
        )
        .unwrap();
        tx.commit().await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    format!("one commit {:?}", times[times.len() / 2])
}
