//! Runs with as many and as long steps as there can be: they are shown, listed and followed at a bounded cost.

use copass_proto::run::{ListRunsRequest, RunStep, run_frame::Frame};
use copass_runtime::clock;
use copass_store::{Json, execute};
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::{Value, json};

use crate::{changes::with_agent, run_rows::RunRow, support::Fixture};

on_both_databases! {
    a_run_with_the_most_steps_is_shown
    a_run_with_the_longest_names_is_shown
    previews_are_the_same_on_every_database
    a_page_of_the_longest_rows_is_listed
    a_slow_follower_holds_no_journal
}

/// Calls of a run, all alike.
struct Calls {
    count: i64,
    name: String,
    /// The beginning of it; no two have the same.
    call_id: String,
    arguments: Value,
    output: Value,
    error: Option<String>,
}

impl Calls {
    fn of(count: i64) -> Self {
        Self {
            count,
            name: "look".to_owned(),
            call_id: "call_of_a_model_".to_owned(),
            arguments: json!({}),
            output: json!({"rows": []}),
            error: None,
        }
    }

    /// Adds them to the run, with a frame for each call and its result.
    async fn insert(&self, fixture: &Fixture, run_id: &str) {
        let mut tx = fixture.db().begin().await.unwrap();
        execute!(
            tx,
            "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < $9) \
             insert into run_steps (id, run_id, seq, kind, state, name, call_id, arguments, output, error, is_read_only, \
             result_bytes, first_frame, last_frame, started_at, finished_at) \
             select 'st_00000000000000' || cast(100000000000 + n as text), $1, n, 'tool', 'failed', $2, $3 || cast(n as text), $4, $5, $6, \
             true, $7, 2 * n, 2 * n + 1, $8, $8 from numbers",
            run_id,
            &self.name,
            &self.call_id,
            Json(&self.arguments),
            Json(&self.output),
            self.error.as_deref(),
            i64::try_from(self.output.to_string().len()).unwrap(),
            clock::now(),
            self.count,
        )
        .unwrap();
        tx.commit().await.unwrap();
    }
}

/// 200 answers with 64 calls each.
const MOST: i64 = 12_800;

async fn shown(fixture: &Fixture, run_id: &str) -> Vec<RunStep> {
    let steps = fixture.run_row(run_id).await.steps;
    assert!(steps.iter().map(|step| i64::from(step.seq)).eq(1..=MOST), "all of them");
    steps
}

fn len(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

async fn a_run_with_the_most_steps_is_shown(database: TestDatabase) {
    let (fixture, _, agent) = with_agent(database, Wiring::Local).await;
    let run_id = RunRow::of(&agent).insert(&fixture).await;
    let calls = Calls {
        arguments: json!({"query": "q".repeat(1_000)}),
        output: json!({"rows": "r".repeat(3_000)}),
        error: Some("é".repeat(2_000)),
        ..Calls::of(MOST)
    };
    calls.insert(&fixture, &run_id).await;
    let steps = shown(&fixture, &run_id).await;
    let first = &steps[0];
    assert_eq!(first.arguments_json, Some(calls.arguments.to_string()));
    assert_eq!(
        (&first.error, len(first.output_preview.as_ref())),
        (&calls.error, 2_048)
    );
    // Then there is less of each, and in the end nothing but that there is something.
    let (middle, last) = (&steps[2_000], &steps[12_799]);
    assert_eq!(middle.arguments_json, None);
    assert_eq!(middle.error, Some(format!("{}…", "é".repeat(64))));
    assert_eq!(len(middle.output_preview.as_ref()), 128);
    assert_eq!((last.error.as_deref(), &last.output_preview), (Some("…"), &None));
    assert!(
        steps.iter().all(|step| step.is_truncated),
        "there is more of each result"
    );
    for step in [first, middle, last] {
        let whole = fixture
            .step_result(&fixture.sandbox.owner(), &run_id, &step.step_id)
            .await
            .unwrap();
        assert_eq!(whole.result_json, calls.output.to_string());
    }
}

async fn a_run_with_the_longest_names_is_shown(database: TestDatabase) {
    let (fixture, _, agent) = with_agent(database, Wiring::Local).await;
    let run_id = RunRow::of(&agent).insert(&fixture).await;
    let calls = Calls {
        name: "🜁".repeat(128),
        call_id: "i".repeat(123),
        arguments: json!({"query": "q".repeat(100)}),
        output: json!({"rows": "r".repeat(200)}),
        error: Some("e".repeat(200)),
        ..Calls::of(MOST)
    };
    calls.insert(&fixture, &run_id).await;
    let steps = shown(&fixture, &run_id).await;
    assert!(steps.iter().all(|step| step.name.as_ref() == Some(&calls.name)));
    assert_eq!(steps[0].output_preview, Some(calls.output.to_string()));
    assert!(!steps[0].is_truncated && steps[12_799].is_truncated);
}

async fn previews_are_the_same_on_every_database(database: TestDatabase) {
    let (fixture, _, agent) = with_agent(database, Wiring::Local).await;
    // Around the bound, where a character of several bytes and an escape may stand.
    for (count, is_truncated) in [(1_016, false), (1_017, true), (1_400, true), (5_000, true)] {
        for unit in ["ö", "\\"] {
            let run_id = RunRow::of(&agent).insert(&fixture).await;
            let calls = Calls {
                output: json!({"rows": [1, unit.repeat(count)]}),
                ..Calls::of(1)
            };
            calls.insert(&fixture, &run_id).await;
            let whole = calls.output.to_string();
            let step = &fixture.run_row(&run_id).await.steps[0];
            let beginning = &whole[..whole.floor_char_boundary(2_048)];
            assert_eq!(step.output_preview.as_deref(), Some(beginning), "{count} {unit}");
            assert_eq!(step.is_truncated, is_truncated, "{count} {unit}");
            let mut tx = fixture.db().begin().await.unwrap();
            execute!(tx, "delete from run_steps where run_id = $1", &run_id).unwrap();
            tx.commit().await.unwrap();
        }
    }
}

async fn a_page_of_the_longest_rows_is_listed(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    let long = RunRow {
        input_event: Some(json!({"text": "x".repeat(64 * 1024 - 100)})),
        ..RunRow::of(&agent)
    };
    for _ in 0..100 {
        long.insert(&fixture).await;
    }
    let mut tx = fixture.db().begin().await.unwrap();
    execute!(
        tx,
        "update runs set output_text = $1, error_message = $2, warnings = $3 where agent_id = $4",
        "🜁".repeat(10_000),
        "🜂".repeat(100_000),
        Json(vec!["\"".repeat(1_000); 50]),
        &agent.agent_id,
    )
    .unwrap();
    tx.commit().await.unwrap();
    let request = ListRunsRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        agent_slug: "support".to_owned(),
        limit: 100,
        ..ListRunsRequest::default()
    };
    let runs = fixture
        .runs()
        .list_runs(owner.request(request))
        .await
        .unwrap()
        .into_inner()
        .runs;
    assert_eq!(runs.len(), 100);
    let (first, last) = (&runs[0], &runs[99]);
    assert_eq!(len(first.input_event_json.as_ref()), 64 * 1024 - 89);
    assert_eq!(len(first.output_text.as_ref()), 4 * 8_192);
    assert_eq!((&last.input_event_json, len(last.output_text.as_ref())), (&None, 512));
    assert!(last.warnings_json.contains("no room"), "{}", last.warnings_json);
}

async fn a_slow_follower_holds_no_journal(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    let run_id = RunRow::of(&agent).insert(&fixture).await;
    let calls = Calls {
        output: json!({"rows": "r".repeat(60 * 1024)}),
        ..Calls::of(200)
    };
    calls.insert(&fixture, &run_id).await;
    let mut follower = fixture.follow(&owner, &run_id, None).await.unwrap();
    for _ in 0..3 {
        follower.next().await;
    }
    // What it has not come to yet is still in the database, and only there.
    let mut tx = fixture.db().begin().await.unwrap();
    execute!(
        tx,
        "update run_steps set output = $1 where run_id = $2",
        Json(json!({"read": "late"})),
        &run_id
    )
    .unwrap();
    tx.commit().await.unwrap();
    follower.finish_reading().await;
    let results = follower.results();
    assert_eq!((results.len(), follower.seen.len()), (200, 402));
    assert!(matches!(follower.seen.last(), Some(Frame::AgentFinish(_))));
    let late = results
        .iter()
        .filter(|result| result.result_json == r#"{"read":"late"}"#)
        .count();
    // Some pages may be on their way to the reader.
    assert!(late >= 180, "{late}");
}
