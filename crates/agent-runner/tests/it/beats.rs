//! Leases of runs that are well: nobody's lock and nobody's pause makes them be taken for lost.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use copass_store::{Tx, execute, fetch_one};
use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use serde_json::json;

use crate::{
    away::{ALWAYS, FAULTS, break_it},
    support::{Builder, Fixture, LIMIT, Turn, is_text},
};

on_both_databases! {
    a_reaper_leaves_the_runs_of_its_own_process_alone
}

const NEVER: Duration = Duration::from_secs(3600);

/// A worker whose turns never end by themselves.
fn worker(database: &Arc<TestDatabase>, name: &str, lease: Duration, heartbeat: Duration) -> Builder {
    Builder::sharing(database.clone(), Wiring::Local)
        .script(json!({"turns": [{"events": [{"text": "Hm"}, {"hang": true}]}]}))
        .config(|config| {
            config.worker_id = name.to_owned();
            config.lease = lease;
            config.heartbeat = heartbeat;
            config.reap_interval = NEVER;
        })
}

async fn begun(fixture: &Fixture) -> (Turn, String) {
    let owner = fixture.sandbox.owner();
    let mut turn = fixture.start(&owner, fixture.turn("hello")).await.unwrap();
    turn.until(is_text).await;
    let run_id = turn.run_id();
    (turn, run_id)
}

async fn lease(fixture: &Fixture, run_id: &str) -> DateTime<Utc> {
    let mut conn = fixture.db().read().await.unwrap();
    let sql = "select lease_expires_at from runs where id = $1";
    fetch_one!(conn, (DateTime<Utc>,), sql, run_id).unwrap().0
}

async fn is_extended(fixture: &Fixture, run_id: &str) {
    let before = lease(fixture, run_id).await;
    eventually(LIMIT, async || lease(fixture, run_id).await > before).await;
}

async fn locking(fixture: &Fixture, run_id: &str) -> Tx {
    let mut tx = fixture.db().begin().await.unwrap();
    let sql = "select id from runs where id = $1 for update";
    fetch_one!(tx, (String,), sql, run_id).unwrap();
    tx
}

/// A worker on PostgreSQL whose heart beats often; `None` where there is no PostgreSQL.
async fn beating(lease: Duration) -> Option<Fixture> {
    let database = Arc::new(TestDatabase::postgres().await?);
    let fixture = worker(&database, "one", lease, Duration::from_millis(50)).build().await;
    fixture.runner.start();
    Some(fixture)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_run_holds_up_no_other_and_is_not_lost() {
    let Some(fixture) = beating(Duration::from_secs(3)).await else {
        return;
    };
    let (_locked_turn, locked) = begun(&fixture).await;
    let (_turn, other) = begun(&fixture).await;
    let lock = locking(&fixture, &locked).await;
    let before = lease(&fixture, &locked).await;
    for _ in 0..3 {
        is_extended(&fixture, &other).await;
    }
    assert_eq!(lease(&fixture, &locked).await, before);
    lock.rollback().await.unwrap();
    // A run that is told that it is lost is not beaten for any more.
    for _ in 0..3 {
        is_extended(&fixture, &locked).await;
    }
    assert_eq!(fixture.run_row(&locked).await.status, "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beat_that_hangs_is_given_up_and_tried_again() {
    let Some(fixture) = beating(Duration::from_millis(1500)).await else {
        return;
    };
    let (_turn, run_id) = begun(&fixture).await;
    let mut tx = fixture.db().begin().await.unwrap();
    execute!(tx, "lock table runs in share mode").unwrap();
    // Those that were given up still wait on the server, which does not know that yet.
    let hanging = "select count(*) from pg_stat_activity where datname = current_database() \
                   and wait_event_type = 'Lock' and query like '%update runs set lease_expires_at%'";
    eventually(LIMIT, async || fixture.count(hanging).await >= 3).await;
    tx.rollback().await.unwrap();
    is_extended(&fixture, &run_id).await;
    assert_eq!(fixture.run_row(&run_id).await.status, "running");
}

const LEASE: Duration = Duration::from_millis(200);

/// As after a pause of the process: the reaper looks before the heart has beaten.
async fn a_reaper_leaves_the_runs_of_its_own_process_alone(database: TestDatabase) {
    let database = Arc::new(database);
    let own = worker(&database, "own", LEASE, NEVER);
    let own = own.config(|config| config.reap_interval = LEASE / 4).build().await;
    own.runner.start();
    let (_turn, own_run) = begun(&own).await;
    // One that is lost, and whose lease ends later: when it is found, the other one was looked at.
    let lost = worker(&database, "lost", LEASE, NEVER)
        .sandbox(&own.sandbox)
        .build()
        .await;
    let (_lost_turn, lost_run) = begun(&lost).await;
    own.run_becomes(&lost_run, "failed", LIMIT).await;
    assert_eq!(own.run_row(&own_run).await.status, "running");
    is_extended(&own, &own_run).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_for_lost_while_leases_cannot_be_extended() {
    let Some(database) = TestDatabase::postgres().await.map(Arc::new) else {
        return;
    };
    let own = worker(&database, "own", LEASE, LEASE);
    let own = own.config(|config| config.reap_interval = LEASE / 4).build().await;
    let (_turn, own_run) = begun(&own).await;
    let lost = worker(&database, "lost", LEASE, NEVER)
        .sandbox(&own.sandbox)
        .build()
        .await;
    let (_lost_turn, lost_run) = begun(&lost).await;
    // Who takes a run away raises the fence, and could.
    let trigger = "create trigger fail before update on runs for each row \
                   when (old.fence = new.fence and old.lease_expires_at < new.lease_expires_at) execute function fail()";
    break_it(own.db(), ALWAYS, trigger).await;
    own.runner.start();
    let expired = "select count(*) from runs where lease_expires_at < now()";
    eventually(LIMIT, async || own.count(expired).await == 2).await;
    let before = own.count(FAULTS).await;
    eventually(LIMIT, async || own.count(FAULTS).await >= before + 8).await;
    for run_id in [&own_run, &lost_run] {
        assert_eq!(own.run_row(run_id).await.status, "running");
    }
    let mut tx = own.db().begin().await.unwrap();
    execute!(tx, "drop trigger fail on runs").unwrap();
    tx.commit().await.unwrap();
    own.run_becomes(&lost_run, "failed", LIMIT).await;
    assert_eq!(own.run_row(&own_run).await.status, "running");
}
