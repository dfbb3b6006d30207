//! Transactions, readers beside writers, and many writers at once.

use copass_runtime::clock;
use copass_store::{Db, Tx, execute, fetch_one};
use copass_test_support::{TestDatabase, on_both_databases};
use tokio::task::JoinSet;

on_both_databases! {
    a_dropped_transaction_leaves_nothing
    a_rolled_back_transaction_leaves_nothing
    a_transaction_that_met_an_error_leaves_nothing
    readers_see_what_is_committed_and_nothing_else
    a_cancelled_transaction_does_not_block_the_next
    concurrent_writers_lose_nothing
}

pub(crate) async fn insert(tx: &mut Tx, id: &str) -> copass_store::Result<u64> {
    execute!(
        *tx,
        "insert into inbox (consumer, message_id, received_at) values ('c', $1, $2)",
        id,
        clock::now()
    )
}

pub(crate) async fn rows(db: &Db) -> i64 {
    let mut conn = db.read().await.unwrap();
    let (count,) = fetch_one!(conn, (i64,), "select count(*) from inbox").unwrap();
    count
}

async fn a_dropped_transaction_leaves_nothing(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, "1").await.unwrap();
    drop(tx);
    assert_eq!(rows(&database).await, 0);
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, "1").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(rows(&database).await, 1);
}

async fn a_rolled_back_transaction_leaves_nothing(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, "1").await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(rows(&database).await, 0);
}

async fn a_transaction_that_met_an_error_leaves_nothing(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, "1").await.unwrap();
    assert!(insert(&mut tx, "1").await.unwrap_err().is_unique_violation());
    drop(tx);
    assert_eq!(rows(&database).await, 0);
}

async fn readers_see_what_is_committed_and_nothing_else(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, "1").await.unwrap();
    assert_eq!(
        rows(&database).await,
        0,
        "before the commit, and without waiting for it"
    );
    let (own,) = fetch_one!(tx, (i64,), "select count(*) from inbox").unwrap();
    assert_eq!(own, 1, "inside the transaction");
    tx.commit().await.unwrap();
    assert_eq!(rows(&database).await, 1);
}

/// A handler whose caller went away is dropped in the middle of a statement.
async fn a_cancelled_transaction_does_not_block_the_next(database: TestDatabase) {
    for round in 0..20 {
        let db = database.db();
        let never_done = async move {
            let mut tx = db.begin().await.unwrap();
            for number in 0_u64.. {
                insert(&mut tx, &format!("{round}/{number}")).await.unwrap();
            }
        };
        let limit = std::time::Duration::from_millis(round);
        assert!(tokio::time::timeout(limit, never_done).await.is_err());
    }
    assert_eq!(rows(&database).await, 0);
    let mut tx = database.begin().await.unwrap();
    insert(&mut tx, "next").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(rows(&database).await, 1);
}

/// Each reads, waits and writes; on SQLite through two programs' worth of connections to one file.
async fn concurrent_writers_lose_nothing(database: TestDatabase) {
    const WRITERS: i64 = 50;
    let mut tx = database.begin().await.unwrap();
    execute!(
        tx,
        "insert into login_codes (id, email, code_hash, attempts, created_at, expires_at) values ('c', 'e', 'h', 0, $1, $1)",
        clock::now(),
    )
    .unwrap();
    tx.commit().await.unwrap();
    let second = Db::open(database.url(), 10).await.unwrap();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let db = if number % 2 == 0 { database.db() } else { second.clone() };
        writers.spawn(async move {
            let mut tx = db.begin().await.unwrap();
            // On PostgreSQL the row is locked by the update; on SQLite the transaction has the only write lock.
            execute!(tx, "update login_codes set email = email where id = 'c'").unwrap();
            let (attempts,) = fetch_one!(tx, (i64,), "select attempts from login_codes where id = 'c'").unwrap();
            tokio::task::yield_now().await;
            execute!(tx, "update login_codes set attempts = $1 where id = 'c'", attempts + 1).unwrap();
            insert(&mut tx, &number.to_string()).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(rows(&database).await, WRITERS);
    let mut conn = second.read().await.unwrap();
    let (attempts,) = fetch_one!(conn, (i64,), "select attempts from login_codes where id = 'c'").unwrap();
    assert_eq!(attempts, WRITERS);
    drop(conn);
    second.close().await;
}

#[tokio::test]
async fn a_reading_connection_of_sqlite_cannot_write() {
    let database = TestDatabase::sqlite().await;
    let mut conn = database.read().await.unwrap();
    for sql in [
        "delete from inbox",
        "create table more (id text)",
        "insert into inbox values ('c', 'm', 'now')",
    ] {
        let error = execute!(conn, sql).unwrap_err();
        assert!(error.to_string().contains("readonly"), "{error}");
    }
}
