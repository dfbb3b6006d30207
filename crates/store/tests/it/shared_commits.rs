//! Transactions of SQLite that share a commit: each is whole or nothing, and nobody is told before the disk has it.
#![expect(clippy::disallowed_methods, reason = "tasks of a test, which waits for them")]

use std::time::Duration;

use copass_runtime::clock;
use copass_store::{Db, Tx, execute, fetch_one};
use copass_test_support::TestDatabase;
use futures::future::join_all;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    LIMIT,
    transactions::{insert, rows},
};

/// What the group's only commit finds wrong.
pub(crate) async fn spoil(tx: &mut Tx) {
    execute!(*tx, "pragma defer_foreign_keys = on").unwrap();
    execute!(
        *tx,
        "insert into refresh_tokens (id, user_id, family_id, token_hash, created_at, expires_at) \
         values ('r', 'nobody', 'f', 'h', $1, $1)",
        clock::now()
    )
    .unwrap();
}

/// Waits in line behind the present transaction, inserts, and ends.
pub(crate) fn in_line(db: &Db, id: &'static str, is_kept: bool) -> JoinHandle<copass_store::Result<()>> {
    let db = db.clone();
    tokio::spawn(async move {
        let mut tx = db.begin().await?;
        insert(&mut tx, id).await?;
        if is_kept {
            tx.commit().await
        } else {
            tx.rollback().await
        }
    })
}

/// So many wait in line: tasks of a test's runtime begin in order, and each runs up to its wait.
pub(crate) async fn let_them_wait() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn those_that_wait_join_and_all_are_told_of_the_one_commit() {
    let database = TestDatabase::sqlite().await;
    let mut first = database.begin().await.unwrap();
    insert(&mut first, "first").await.unwrap();
    let others: Vec<_> = ["a", "b", "c"].map(|id| in_line(&database, id, true)).into();
    let_them_wait().await;
    spoil(&mut first).await;
    let error = first.commit().await.unwrap_err();
    assert!(error.is_foreign_key_violation(), "{error}");
    for other in others {
        let error = other.await.unwrap().unwrap_err();
        assert!(error.is_foreign_key_violation(), "they shared the commit: {error}");
    }
    assert_eq!(rows(&database).await, 0, "nobody was told otherwise");
    // The next group knows nothing of it.
    in_line(&database, "next", true).await.unwrap().unwrap();
    assert_eq!(rows(&database).await, 1);
}

#[tokio::test]
async fn a_member_that_is_undone_takes_nobody_with_it() {
    let database = TestDatabase::sqlite().await;
    let mut first = database.begin().await.unwrap();
    insert(&mut first, "first").await.unwrap();
    let kept = in_line(&database, "a", true);
    let undone = in_line(&database, "b", false);
    let refused = in_line(&database, "first", true);
    let after = in_line(&database, "c", true);
    let_them_wait().await;
    first.commit().await.unwrap();
    kept.await.unwrap().unwrap();
    undone.await.unwrap().unwrap();
    let error = refused.await.unwrap().unwrap_err();
    assert!(error.is_unique_violation(), "it sees what its group wrote: {error}");
    after.await.unwrap().unwrap();
    assert_eq!(rows(&database).await, 3);
}

/// Whoever answers from what it read of its group must not answer before the disk has it.
#[tokio::test]
async fn one_that_is_rolled_back_is_told_what_became_of_what_it_read() {
    let database = TestDatabase::sqlite().await;
    let mut first = database.begin().await.unwrap();
    let reader = in_line(&database, "b", false);
    let_them_wait().await;
    spoil(&mut first).await;
    first.commit().await.unwrap_err();
    reader.await.unwrap().unwrap_err();
    assert_eq!(rows(&database).await, 0);
}

/// It met a row of its group and gave up without a word; what it met must be there when it looks.
#[tokio::test]
async fn whoever_drops_a_transaction_can_read_what_it_saw() {
    let database = TestDatabase::sqlite().await;
    for round in 0..50 {
        let id = round.to_string();
        let mut first = database.begin().await.unwrap();
        insert(&mut first, &id).await.unwrap();
        let (db, same) = (database.db(), id.clone());
        let late = tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            assert!(insert(&mut tx, &same).await.unwrap_err().is_unique_violation());
            drop(tx);
            rows(&db).await
        });
        let_them_wait().await;
        first.commit().await.unwrap();
        assert_eq!(late.await.unwrap(), round + 1);
    }
}

#[tokio::test]
async fn nobody_is_told_before_readers_can_see_it() {
    let database = TestDatabase::sqlite().await;
    let writers = (0..200).map(|number| {
        let db = database.db();
        tokio::spawn(async move {
            let id = number.to_string();
            let mut tx = db.begin().await.unwrap();
            insert(&mut tx, &id).await.unwrap();
            tx.commit().await.unwrap();
            let mut conn = db.read().await.unwrap();
            let (count,) = fetch_one!(conn, (i64,), "select count(*) from inbox where message_id = $1", &id).unwrap();
            count
        })
    });
    for seen in join_all(writers).await {
        assert_eq!(seen.unwrap(), 1);
    }
}

/// The first member is the one that sees to the commit.
#[tokio::test]
async fn members_that_go_away_keep_nobody_waiting() {
    let database = TestDatabase::sqlite().await;
    for round in 0..50 {
        let (done, told) = oneshot::channel();
        let db = database.db();
        let hasty = tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            insert(&mut tx, &format!("hasty {round}")).await.unwrap();
            done.send(()).unwrap();
            tx.commit().await
        });
        told.await.unwrap();
        let db = database.db();
        let patient = tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            insert(&mut tx, &format!("patient {round}")).await.unwrap();
            tx.commit().await
        });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        hasty.abort();
        let committed = timeout(LIMIT, patient).await.expect("somebody commits");
        committed.unwrap().unwrap();
    }
    let mut conn = database.read().await.unwrap();
    let sql = "select count(*) from inbox where message_id like 'patient %'";
    let (count,) = fetch_one!(conn, (i64,), sql).unwrap();
    assert_eq!(count, 50);
}

#[tokio::test]
async fn closing_waits_for_what_is_complete() {
    let database = TestDatabase::sqlite().await;
    let db = database.db();
    let mut tx = db.begin().await.unwrap();
    insert(&mut tx, "1").await.unwrap();
    let (committed, ()) = tokio::join!(tx.commit(), db.close());
    committed.unwrap();
    let again = Db::open(database.url(), 1).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(5), rows(&again)).await.unwrap(), 1);
    again.close().await;
}
