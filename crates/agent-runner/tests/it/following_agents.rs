//! Following an agent: each run that is new or has changed, from any point and from any replica.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use copass_errors::ErrorCode;
use copass_proto::run::FollowAgentRunsRequest;
use copass_runtime::clock;
use copass_store::execute;
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::json;

use crate::{
    run_rows::RunRow,
    support::{Builder, FakeSource, Fixture, agent_runs::Changes, assert_code, providers::Gated, scripted},
};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    a_run_that_is_fired_elsewhere_appears_and_ends
    }
}
on_both_databases! {
    the_newest_runs_come_first_and_nothing_comes_twice
    who_goes_on_is_told_of_everything_that_was_not_over
    a_run_that_is_committed_late_is_not_missed
    a_follower_that_was_away_for_long_gets_the_newest
    who_may_follow_an_agent
}

/// An agent whose answers are gated.
async fn gated(database: TestDatabase, wiring: Wiring) -> (Fixture, std::sync::Arc<Gated>) {
    let provider = Gated::new(scripted(json!({"turns": [{"events": [{"text": "Hello."}]}]})));
    let fixture = Builder::new(database, wiring)
        .provider(provider.clone())
        .tool_source(FakeSource::usual().shared())
        .build()
        .await;
    fixture.runner.start();
    fixture.make_agent().await;
    (fixture, provider)
}

fn steps(changes: &[(String, String, String)]) -> Vec<(&str, &str)> {
    changes
        .iter()
        .map(|(_, run_id, status)| (run_id.as_str(), status.as_str()))
        .collect()
}

async fn a_run_that_is_fired_elsewhere_appears_and_ends(database: TestDatabase, wiring: Wiring) {
    let (here, provider) = gated(database, wiring).await;
    let there = Builder::replica_of(&here, "there").build().await;
    there.runner.start();
    let mut changes = there.follow_agent(&there.sandbox.viewer(), None, 10).await.unwrap();
    let mut delays = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let run_id = here.invoked("begin").await;
        // It is pending only until somebody begins it, which a look may miss.
        let seen = changes.until(&run_id, "running").await;
        delays.push(began.elapsed());
        assert!(seen.iter().all(|change| change.1 == run_id), "{seen:?}");
        let began = Instant::now();
        provider.gate.add_permits(1);
        let seen = changes.until(&run_id, "succeeded").await;
        delays.push(began.elapsed());
        assert_eq!(steps(&seen), [(run_id.as_str(), "succeeded")]);
    }
    // Without news each but the first would take two seconds, because a look has just been taken.
    assert!(
        delays[1..].iter().min().unwrap() < &Duration::from_millis(300),
        "{delays:?}"
    );
}

async fn the_newest_runs_come_first_and_nothing_comes_twice(database: TestDatabase) {
    let (fixture, provider) = gated(database, Wiring::Local).await;
    provider.gate.add_permits(5);
    let mut over = Vec::new();
    for _ in 0..5 {
        let run_id = fixture.invoked("begin").await;
        fixture.ended(&run_id).await;
        over.push(run_id);
    }
    let owner = fixture.sandbox.owner();
    let mut changes = fixture.follow_agent(&owner, None, 3).await.unwrap();
    let mut nothing = fixture.follow_agent(&owner, None, 0).await.unwrap();
    for run_id in &over[2..] {
        let (id, told, status) = changes.next().await;
        assert_eq!((&told, status.as_str()), (run_id, "succeeded"), "oldest of them first");
        assert_eq!(&id, run_id);
    }
    // Three that overlap: the first one to end is the newest.
    let mut runs = Vec::new();
    for _ in 0..3 {
        let run_id = fixture.invoked("begin").await;
        changes.until(&run_id, "running").await;
        nothing.until(&run_id, "running").await;
        runs.push(run_id);
    }
    provider.gate.add_permits(1);
    let (id, ended, status) = changes.next().await;
    assert_eq!(status, "succeeded");
    let open: Vec<&String> = runs.iter().filter(|run_id| **run_id != ended).collect();
    assert_eq!(&id, open[0], "what goes on is the oldest run that is not over");
    provider.gate.add_permits(2);
    let mut ends = vec![ended];
    for _ in 0..2 {
        let (_, run_id, status) = changes.next().await;
        assert_eq!(status, "succeeded");
        ends.push(run_id);
    }
    ends.sort();
    assert_eq!(ends, runs, "each ends once");
    for _ in 0..3 {
        assert_eq!(
            nothing.next().await.2,
            "succeeded",
            "without a backlog only what happens since"
        );
    }
    assert!(changes.is_silent(Duration::from_millis(200)).await);
    assert!(nothing.is_silent(Duration::from_millis(1)).await);
}

async fn who_goes_on_is_told_of_everything_that_was_not_over(database: TestDatabase) {
    let (fixture, provider) = gated(database, Wiring::Local).await;
    let owner = fixture.sandbox.owner();
    let mut changes = fixture.follow_agent(&owner, None, 10).await.unwrap();
    let mut runs = Vec::new();
    let mut last = String::new();
    for _ in 0..4 {
        let run_id = fixture.invoked("begin").await;
        last = changes.until(&run_id, "running").await.pop().unwrap().0;
        runs.push(run_id);
    }
    assert_eq!(last, runs[0]);
    drop(changes);
    // While nobody follows all of them end, and another one begins and ends.
    provider.gate.add_permits(5);
    runs.push(fixture.invoked("begin").await);
    for run_id in &runs {
        fixture.ended(run_id).await;
    }
    let mut again = fixture.follow_agent(&owner, Some(&last), 10).await.unwrap();
    for run_id in &runs {
        let (_, told, status) = again.next().await;
        assert_eq!((&told, status.as_str()), (run_id, "succeeded"));
    }
    drop(again);
    // Cut after each of them, and gone on from there: nothing is missing.
    let mut place = last;
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut changes = fixture.follow_agent(&owner, Some(&place), 10).await.unwrap();
        let (_, first, _) = changes.next().await;
        told.insert(first);
        match tokio::time::timeout(Duration::from_millis(300), changes.next()).await {
            Ok((id, run_id, _)) => {
                told.insert(run_id);
                place = id;
            }
            Err(_) => break,
        }
    }
    assert_eq!(told.into_iter().collect::<Vec<_>>(), runs);
}

async fn a_run_that_is_committed_late_is_not_missed(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let agent = fixture.make_agent().await;
    let owner = fixture.sandbox.owner();
    let mut changes = fixture.follow_agent(&owner, None, 0).await.unwrap();
    // Rows that are written here make no news; a run does.
    let newest = fixture.invoked("begin").await;
    changes.until(&newest, "succeeded").await;
    // Accepted before that one, and committed after it.
    let row = RunRow {
        at: clock::now() - TimeDelta::seconds(3),
        ..RunRow::of(&agent)
    };
    let late = row.insert(&fixture).await;
    assert!(late < newest);
    fixture.invoked("nudge").await;
    changes.until(&late, "succeeded").await;
    // One that is not over and much older, whose end is told all the same.
    let old = RunRow {
        at: clock::now() - TimeDelta::seconds(3600),
        status: "running",
        ..RunRow::of(&agent)
    };
    let old = old.insert(&fixture).await;
    let mut changes = fixture.follow_agent(&owner, None, 1).await.unwrap();
    let mut tx = fixture.db().begin().await.unwrap();
    execute!(tx, "update runs set status = 'failed' where id = $1", &old).unwrap();
    tx.commit().await.unwrap();
    fixture.invoked("nudge").await;
    changes.until(&old, "failed").await;
}

async fn a_follower_that_was_away_for_long_gets_the_newest(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let agent = fixture.make_agent().await;
    let long_ago = clock::now() - TimeDelta::seconds(7200);
    let old = RunRow {
        at: long_ago,
        ..RunRow::of(&agent)
    };
    old.insert(&fixture).await;
    let mut tx = fixture.db().begin().await.unwrap();
    execute!(
        tx,
        "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 1500) \
         insert into runs (id, sandbox_id, user_id, agent_id, agent_version, status, warnings, fence, created_at) \
         select substr(r.id, 1, 20) || cast(100000000 + n as text), r.sandbox_id, r.user_id, r.agent_id, 1, 'succeeded', \
         r.warnings, 1, r.created_at from numbers, runs r"
    )
    .unwrap();
    tx.commit().await.unwrap();
    let newest = RunRow::of(&agent).insert(&fixture).await;
    let unix_ms = u64::try_from(long_ago.timestamp_millis()).unwrap();
    let before_all = format!("rn_{}", ulid::Ulid::from_parts(unix_ms - 1, 0));
    let owner = fixture.sandbox.owner();
    let mut changes = fixture.follow_agent(&owner, Some(&before_all), 10).await.unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&newest) {
        told.push(changes.next().await.1);
    }
    assert_eq!(told.len(), 1000, "no follower makes this process read a whole history");
    assert!(told.is_sorted());
}

async fn who_may_follow_an_agent(database: TestDatabase) {
    let (fixture, _) = gated(database, Wiring::Local).await;
    let owner = fixture.sandbox.owner();
    for id in ["", "x", "12", "ag_00000000000000000000000000", "rn_", "rn_1"] {
        let refused = fixture.follow_agent(&owner, Some(id), 10).await.map(|_| ());
        let refused = assert_code(refused, ErrorCode::ValidationError);
        assert_eq!(refused.problems()[0].loc, ["query", "after"], "{id}");
    }
    for stranger in [fixture.sandbox.foreign(), fixture.sandbox.nobody()] {
        let refused = fixture.follow_agent(&stranger, None, 10).await.map(|_| ());
        assert_code(refused, ErrorCode::NotFound);
    }
    let of = |slug: &str| FollowAgentRunsRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        agent_slug: slug.to_owned(),
        after: None,
        backlog: 10,
    };
    let refused = fixture.runs().follow_agent_runs(owner.request(of("nobody"))).await;
    assert_code(
        refused.map(|_| ()).map_err(copass_errors::Error::from),
        ErrorCode::NotFound,
    );
    // Of talks with the Concierge a person sees their own, and the owner all.
    let (viewer, other) = (fixture.sandbox.viewer(), fixture.sandbox.viewer());
    let mut turns = Vec::new();
    for caller in [&viewer, &other, &viewer] {
        let mut turn = fixture.start(caller, fixture.turn("hello")).await.unwrap();
        turn.next().await;
        turns.push(turn);
    }
    let ids: Vec<String> = turns.iter().map(crate::support::Turn::run_id).collect();
    for (caller, expected) in [
        (&viewer, vec![&ids[0], &ids[2]]),
        (&other, vec![&ids[1]]),
        (&owner, ids.iter().collect()),
    ] {
        let stream = fixture
            .runs()
            .follow_agent_runs(caller.request(of("@concierge")))
            .await
            .unwrap();
        let mut changes = Changes::new(stream.into_inner());
        for run_id in expected {
            assert_eq!(&changes.next().await.1, run_id);
        }
        assert!(changes.is_silent(Duration::from_millis(50)).await);
    }
}
