//! Lost and late runs among many others: nothing that waits or cannot be worked on hides them.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use copass_runtime::clock;
use copass_store::{Db, Dialect, execute};
use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use serde_json::json;

use crate::support::{Builder, Fixture, LIMIT, is_text};

on_both_databases! {
    lost_and_late_runs_are_found_behind_a_backlog
    runs_that_cannot_be_ended_hold_nobody_up
    a_run_whose_steps_cannot_be_read_comes_to_its_end
}

fn hangs() -> serde_json::Value {
    json!({"turns": [{"events": [{"text": "Hm"}, {"hang": true}]}]})
}

/// More rows like the one there is, which wait since the instant or were lost then.
async fn copies(db: &Db, numbers: (i64, i64), lease_owner: Option<&str>, status: &str, since: DateTime<Utc>) {
    let mut tx = db.begin().await.unwrap();
    execute!(
        tx,
        "with recursive numbers (n) as (select cast($1 as bigint) union all select n + 1 from numbers where n < $2) \
         insert into runs (id, sandbox_id, user_id, agent_id, agent_version, status, warnings, fence, created_at, \
         started_at, entrance, request, lease_owner, lease_expires_at, end_user_id) \
         select 'rn_00000000000000' || cast(100000000000 + n as text), sandbox_id, user_id, agent_id, agent_version, \
         $3, warnings, 2, created_at, case when $3 = 'running' then $5 end, entrance, request, $4, $5, 'copy' \
         from numbers cross join (select * from runs order by created_at limit 1) as original",
        numbers.0,
        numbers.1,
        status,
        lease_owner,
        since,
    )
    .unwrap();
    tx.commit().await.unwrap();
}

fn id(number: i64) -> String {
    format!("rn_00000000000000{}", 100_000_000_000 + number)
}

async fn lost_and_late_runs_are_found_behind_a_backlog(database: TestDatabase) {
    let first = Builder::new(database, Wiring::Local)
        .script(hangs())
        .config(|config| config.background_runs = 1)
        .build()
        .await;
    first.make_agent().await;
    let run_id = first.invoked("begin").await;
    eventually(LIMIT, async || first.run_row(&run_id).await.status == "running").await;
    let now = clock::now();
    // Longer ago than the lost and the late one.
    copies(first.db(), (1, 250), None, "pending", now - TimeDelta::hours(9)).await;
    copies(
        first.db(),
        (501, 501),
        Some("lost"),
        "running",
        now - TimeDelta::seconds(5),
    )
    .await;
    copies(first.db(), (601, 601), None, "running", now - TimeDelta::hours(2)).await;
    copies(first.db(), (701, 701), None, "running", now - TimeDelta::seconds(5)).await;
    let replica = Builder::replica_of(&first, "replica")
        .script(hangs())
        .config(|config| {
            config.background_runs = 1;
            config.reap_interval = std::time::Duration::from_millis(50);
        })
        .build()
        .await;
    replica.runner.start();
    // The only place is for the one that was lost, and the late one needs none.
    eventually(LIMIT, async || {
        replica
            .count("select continuations from runs where id = 'rn_00000000000000100000000501'")
            .await
            == 1
    })
    .await;
    let late = replica.run_becomes(&id(601), "timeout", LIMIT).await;
    assert_eq!(late.error_type.as_deref(), Some("Timeout"));
    let message = late.error_message.unwrap();
    assert!(message.starts_with("the run took longer than "), "{message}");
    let in_time = replica.run_row(&id(701)).await;
    assert_eq!(in_time.status, "running", "its time is not over");
    let waiting = "select cast(count(*) as bigint) from runs where status = 'pending' and fence = 2";
    assert_eq!(replica.count(waiting).await, 250);
}

/// A trigger refuses to end what was copied.
async fn refuse_copies(db: &Db) {
    let mut tx = db.begin().await.unwrap();
    match db.dialect() {
        Dialect::Sqlite => {
            execute!(
                tx,
                "create trigger refuse before update on runs when new.status = 'failed' and new.end_user_id = 'copy' \
                 begin select raise(abort, 'no'); end"
            )
            .unwrap();
        }
        Dialect::Postgres => {
            let function = "create function refuse() returns trigger language plpgsql as \
                            'begin raise exception ''no''; end'";
            execute!(tx, function).unwrap();
            execute!(
                tx,
                "create trigger refuse before update on runs for each row \
                 when (new.status = 'failed' and new.end_user_id = 'copy') execute function refuse()"
            )
            .unwrap();
        }
    }
    tx.commit().await.unwrap();
}

async fn begun(fixture: &Fixture) -> crate::support::Turn {
    let mut turn = fixture
        .start(&fixture.sandbox.owner(), fixture.turn("hello"))
        .await
        .unwrap();
    turn.until(is_text).await;
    turn
}

async fn runs_that_cannot_be_ended_hold_nobody_up(database: TestDatabase) {
    let database = Arc::new(database);
    let first = Builder::sharing(database.clone(), Wiring::Local)
        .script(hangs())
        .build()
        .await;
    let turn = begun(&first).await;
    copies(
        first.db(),
        (1, 120),
        Some("lost"),
        "running",
        clock::now() - TimeDelta::hours(1),
    )
    .await;
    refuse_copies(first.db()).await;
    let mut tx = first.db().begin().await.unwrap();
    let lost = clock::now() - TimeDelta::seconds(5);
    execute!(
        tx,
        "update runs set lease_expires_at = $2 where id = $1",
        turn.run_id(),
        lost
    )
    .unwrap();
    tx.commit().await.unwrap();
    // One that looks at leases: a full page of those comes first.
    let replica = Builder::replica_of(&first, "replica").short_leases().build().await;
    replica.runner.start();
    replica.run_becomes(&turn.run_id(), "failed", LIMIT).await;
    // One that looks at all at its start.
    let next = begun(&first).await;
    let alone = Builder::replica_of(&first, "alone").build().await;
    assert_eq!(alone.runner.recover_all_at_start().await.unwrap(), (1, 0));
    assert_eq!(alone.run_row(&next.run_id()).await.status, "failed");
    assert_eq!(alone.run_row(&id(1)).await.status, "running");
}

async fn a_run_whose_steps_cannot_be_read_comes_to_its_end(database: TestDatabase) {
    let database = Arc::new(database);
    let first = Builder::sharing(database.clone(), Wiring::Local)
        .script(hangs())
        .build()
        .await;
    let [one, two] = [begun(&first).await, begun(&first).await];
    let mut tx = first.db().begin().await.unwrap();
    // Deeper than what is read.
    let deep = match first.db().dialect() {
        Dialect::Sqlite => {
            "update run_steps set output = replace(hex(zeroblob(200)), '00', '[') || replace(hex(zeroblob(200)), '00', ']')"
        }
        Dialect::Postgres => "update run_steps set output = cast(repeat('[', 200) || repeat(']', 200) as jsonb)",
    };
    execute!(tx, deep).unwrap();
    tx.commit().await.unwrap();
    // Nobody works on it here, so the cancellation ends it in the row.
    let other = Builder::replica_of(&first, "other").build().await;
    let cancelled = other.cancel(&other.sandbox.owner(), &one.run_id()).await.unwrap();
    assert_eq!(cancelled.status, "cancelled");
    assert_eq!(other.runner.recover_all_at_start().await.unwrap(), (1, 0));
    let status = "select cast(count(*) as bigint) from runs where status = 'failed' and output_text is null";
    assert_eq!(other.count(status).await, 1);
    drop(two);
}
