//! Batches that are transactions of their own: among others in a group, fenced, abandoned, and at the end of the database.
#![expect(clippy::disallowed_methods, reason = "tasks of a test, which waits for them")]

use std::{collections::BTreeMap, time::Duration};

use copass_runtime::clock;
use copass_store::{Batch, Db, Json, Result, add_to, fetch_all};
use copass_test_support::{TestDatabase, on_both_databases};
use futures::future::join_all;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    LIMIT,
    shared_commits::{in_line, let_them_wait, spoil},
    transactions::insert,
};

on_both_databases! {
    a_fence_that_misses_changes_nothing
    a_fence_that_misses_is_told_whatever_else_is_wrong
    many_at_once_are_each_whole_or_nothing
    a_value_that_cannot_be_stored_fails_its_batch_only
}

const INSERT: &str = "insert into inbox (consumer, message_id, received_at) values ('c', $1, $2)";

fn inserts(db: &Db, ids: &[&str]) -> Batch {
    let mut batch = Batch::new(db.dialect());
    for id in ids {
        add_to!(batch, INSERT, *id, clock::now());
    }
    batch
}

/// Inserts where there is a row already.
fn fenced(db: &Db, by: &str, ids: &[&str]) -> Batch {
    let mut batch = Batch::new(db.dialect());
    add_to!(
        batch,
        "update inbox set received_at = $2 where message_id = $1",
        by,
        clock::now()
    );
    for id in ids {
        add_to!(batch, INSERT, *id, clock::now());
    }
    batch
}

async fn ids(db: &Db) -> Vec<String> {
    let mut conn = db.read().await.unwrap();
    let rows = fetch_all!(conn, (String,), "select message_id from inbox order by message_id").unwrap();
    rows.into_iter().map(|(id,)| id).collect()
}

/// Waits in line, in a task of its own.
fn waiting(db: &Db, batch: Batch) -> JoinHandle<Result<Vec<u64>>> {
    let db = db.clone();
    tokio::spawn(async move { db.execute(batch).await })
}

fn waiting_fenced(db: &Db, batch: Batch) -> JoinHandle<Result<Option<Vec<u64>>>> {
    let db = db.clone();
    tokio::spawn(async move { db.execute_fenced(batch).await })
}

async fn a_fence_that_misses_changes_nothing(database: TestDatabase) {
    let missed = database
        .execute_fenced(fenced(&database, "a", &["b", "d"]))
        .await
        .unwrap();
    assert_eq!(missed, None);
    database.execute(inserts(&database, &["a"])).await.unwrap();
    let hit = database
        .execute_fenced(fenced(&database, "a", &["b", "d"]))
        .await
        .unwrap();
    assert_eq!(hit, Some(vec![1, 1, 1]));
    let missed = database
        .execute_fenced(fenced(&database, "nobody", &["e"]))
        .await
        .unwrap();
    assert_eq!(missed, None);
    assert_eq!(ids(&database).await, ["a", "b", "d"]);
    // More rows than one are no miss.
    let mut several = Batch::new(database.dialect());
    add_to!(several, "update inbox set consumer = $1", "all");
    assert_eq!(database.execute_fenced(several).await.unwrap(), Some(vec![3]));
}

/// A worker that has lost its run learns that, also where its successor has written the same step.
async fn a_fence_that_misses_is_told_whatever_else_is_wrong(database: TestDatabase) {
    database.execute(inserts(&database, &["a"])).await.unwrap();
    let missed = database.execute_fenced(fenced(&database, "nobody", &["b", "a"])).await;
    assert_eq!(missed.unwrap(), None);
    let refused = database.execute_fenced(fenced(&database, "a", &["b", "a"])).await;
    assert!(refused.unwrap_err().is_unique_violation());
    assert_eq!(ids(&database).await, ["a"]);
}

async fn many_at_once_are_each_whole_or_nothing(database: TestDatabase) {
    database.execute(inserts(&database, &["there"])).await.unwrap();
    let writers = (0..120).map(|number: u32| {
        let db = database.db();
        tokio::spawn(async move {
            let [one, two] = [format!("{number:03} one"), format!("{number:03} two")];
            match number % 4 {
                0 => db.execute(inserts(&db, &[&one, &two])).await.map(|_| true),
                1 => db.execute(inserts(&db, &[&one, "there", &two])).await.map(|_| true),
                2 => db
                    .execute_fenced(fenced(&db, "there", &[&one, &two]))
                    .await
                    .map(|rows| rows.is_some()),
                _ => db
                    .execute_fenced(fenced(&db, "nobody", &[&one, &two]))
                    .await
                    .map(|rows| rows.is_some()),
            }
        })
    });
    for (number, outcome) in join_all(writers).await.into_iter().enumerate() {
        match (number % 4, outcome.unwrap()) {
            (0 | 2, Ok(true)) | (3, Ok(false)) => {}
            (1, Err(error)) if error.is_unique_violation() => {}
            (_, outcome) => panic!("{number}: {outcome:?}"),
        }
    }
    let expected: Vec<String> = (0..120)
        .step_by(2)
        .flat_map(|number| [format!("{number:03} one"), format!("{number:03} two")])
        .chain(["there".to_owned()])
        .collect();
    assert_eq!(ids(&database).await, expected);
}

async fn a_value_that_cannot_be_stored_fails_its_batch_only(database: TestDatabase) {
    let tx = database.begin().await.unwrap();
    let before = waiting(&database, inserts(&database, &["before"]));
    let_them_wait().await;
    // JSON has texts for names only.
    let mut bad = Batch::new(database.dialect());
    add_to!(bad, INSERT, "bad", clock::now());
    add_to!(
        bad,
        "update inbox set consumer = $1",
        Json(BTreeMap::from([((1, 2), 3)]))
    );
    let bad = waiting(&database, bad);
    let_them_wait().await;
    let after = waiting(&database, inserts(&database, &["after"]));
    let_them_wait().await;
    tx.rollback().await.unwrap();
    before.await.unwrap().unwrap();
    bad.await.unwrap().unwrap_err();
    after.await.unwrap().unwrap();
    assert_eq!(ids(&database).await, ["after", "before"]);
}

#[tokio::test]
async fn one_that_fails_in_the_middle_of_a_group_takes_nobody_with_it() {
    let database = TestDatabase::sqlite().await;
    let mut first = database.begin().await.unwrap();
    insert(&mut first, "first").await.unwrap();
    let good = waiting(&database, inserts(&database, &["a", "b"]));
    let refused = waiting(&database, inserts(&database, &["x", "first", "y"]));
    let missed = waiting_fenced(&database, fenced(&database, "nobody", &["z"]));
    let hit = waiting_fenced(&database, fenced(&database, "a", &["d"]));
    let refused_too = waiting(&database, inserts(&database, &["d"]));
    let last = waiting(&database, inserts(&database, &["e"]));
    let_them_wait().await;
    first.commit().await.unwrap();
    assert_eq!(good.await.unwrap().unwrap(), [1, 1]);
    assert!(refused.await.unwrap().unwrap_err().is_unique_violation());
    assert_eq!(missed.await.unwrap().unwrap(), None);
    assert_eq!(hit.await.unwrap().unwrap(), Some(vec![1, 1]));
    assert!(refused_too.await.unwrap().unwrap_err().is_unique_violation());
    last.await.unwrap().unwrap();
    assert_eq!(ids(&database).await, ["a", "b", "d", "e", "first"]);
}

#[tokio::test]
async fn whoever_went_away_in_line_wants_nothing() {
    let database = TestDatabase::sqlite().await;
    for is_alone in [true, false] {
        let tx = database.begin().await.unwrap();
        let gone = waiting(&database, inserts(&database, &["gone"]));
        let gone_too = waiting_fenced(&database, fenced(&database, "gone", &["gone too"]));
        let_them_wait().await;
        gone.abort();
        gone_too.abort();
        let stays = (!is_alone).then(|| waiting(&database, inserts(&database, &["stays"])));
        let_them_wait().await;
        tx.rollback().await.unwrap();
        if let Some(stays) = stays {
            stays.await.unwrap().unwrap();
        }
        let next = database.execute(inserts(&database, &[&format!("next {is_alone}")]));
        timeout(LIMIT, next).await.unwrap().unwrap();
    }
    assert_eq!(ids(&database).await, ["next false", "next true", "stays"]);
}

/// Interactive ones before, between and behind, in one commit that fails for all or none.
#[tokio::test]
async fn batches_share_commits_with_other_transactions() {
    let database = TestDatabase::sqlite().await;
    for is_spoilt in [true, false] {
        let mut first = database.begin().await.unwrap();
        insert(&mut first, "first").await.unwrap();
        let a = waiting(&database, inserts(&database, &["a"]));
        // On a thread of its own, so it takes its place in line when it gets to it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let b = in_line(&database, "b", true);
        let_them_wait().await;
        let missed = waiting_fenced(&database, fenced(&database, "nobody", &["d"]));
        let undone = in_line(&database, "e", false);
        let_them_wait().await;
        if is_spoilt {
            spoil(&mut first).await;
            let error = first.commit().await.unwrap_err();
            assert!(error.is_foreign_key_violation(), "{error}");
            let error = a.await.unwrap().unwrap_err();
            assert!(error.is_foreign_key_violation(), "it shared the commit: {error}");
            b.await.unwrap().unwrap_err();
            // Whether these came in time for the same commit is not fixed.
            let _ = missed.await.unwrap();
            let _ = undone.await.unwrap();
            assert_eq!(ids(&database).await, Vec::<String>::new(), "nobody was told otherwise");
        } else {
            first.commit().await.unwrap();
            a.await.unwrap().unwrap();
            b.await.unwrap().unwrap();
            assert_eq!(missed.await.unwrap().unwrap(), None);
            undone.await.unwrap().unwrap();
            assert_eq!(ids(&database).await, ["a", "b", "first"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_keeps_what_was_told_and_holds_nobody() {
    for round in 0..20_u32 {
        let database = TestDatabase::sqlite().await;
        let db = database.db();
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, "first").await.unwrap();
        let batches: Vec<_> = (0..20)
            .map(|number| format!("{number:02}"))
            .map(|id| (waiting(&db, inserts(&db, &[&id])), id))
            .collect();
        let others = ["a", "b", "c"].map(|id| (in_line(&db, id, true), id));
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let (committed, ()) = tokio::join!(tx.commit(), async {
            timeout(LIMIT, db.close()).await.expect("it closes");
        });
        let mut told = Vec::new();
        if committed.is_ok() {
            told.push("first".to_owned());
        }
        for (batch, id) in batches {
            let outcome = timeout(LIMIT, batch).await.expect("nobody waits for ever");
            if outcome.unwrap().is_ok() {
                told.push(id);
            }
        }
        for (other, id) in others {
            let outcome = timeout(LIMIT, other).await.expect("nobody waits for ever");
            if outcome.unwrap().is_ok() {
                told.push(id.to_owned());
            }
        }
        told.sort();
        let again = Db::open(database.url(), 1).await.unwrap();
        assert_eq!(ids(&again).await, told, "round {round}");
        again.close().await;
    }
}
