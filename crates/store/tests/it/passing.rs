//! What passes by itself is told apart from what does not: a caller may try again.

use std::time::Duration;

use copass_errors::{Error, ErrorCode};
use copass_runtime::clock;
use copass_store::{
    Batch, Db, add_to, execute, fetch_all,
    sqlx::{self, ConnectOptions as _, sqlite::SqliteConnectOptions},
};
use copass_test_support::TestDatabase;

use crate::transactions::rows;

/// Runs the statement, which is to fail.
async fn code(db: &Db, sql: &'static str) -> ErrorCode {
    let mut tx = db.begin().await.unwrap();
    Error::from(execute!(tx, sql).unwrap_err()).code()
}

#[tokio::test]
async fn postgres_says_what_passes() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    for sql in [
        "do 'begin raise exception ''admin shutdown'' using errcode = ''57P01''; end'",
        "do 'begin raise exception ''crash shutdown'' using errcode = ''57P02''; end'",
        "do 'begin raise exception ''starting up'' using errcode = ''57P03''; end'",
        "do 'begin raise exception ''connection failure'' using errcode = ''08006''; end'",
        "do 'begin raise exception ''too many connections'' using errcode = ''53300''; end'",
        "do 'begin raise exception ''serialization failure'' using errcode = ''40001''; end'",
        "do 'begin raise exception ''deadlock'' using errcode = ''40P01''; end'",
        "do 'begin raise exception ''took too long'' using errcode = ''57014''; end'",
    ] {
        assert_eq!(code(&database, sql).await, ErrorCode::Unavailable, "{sql}");
    }
    for sql in ["select 1 / 0", "select * from nothing"] {
        assert_eq!(code(&database, sql).await, ErrorCode::InternalError, "{sql}");
    }
}

#[tokio::test]
async fn a_lock_of_somebody_else_on_sqlite_passes() {
    let database = TestDatabase::sqlite().await;
    let path = database.url().strip_prefix("sqlite:").unwrap();
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::ZERO);
    let tx = database.begin().await.unwrap();
    let mut other = options.connect().await.unwrap();
    let refused = sqlx::query("begin immediate").execute(&mut other).await.unwrap_err();
    let error = Error::from(copass_store::Error::from(refused));
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    drop(tx);
    assert_eq!(
        code(&database, "insert into nothing values (1)").await,
        ErrorCode::InternalError
    );
}

/// As a restart of the server does to connections that have worked a moment ago.
#[tokio::test]
async fn a_cut_connection_fails_one_write_and_not_the_next() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let admin = Db::open(database.url(), 1).await.unwrap();
    for round in 0..3 {
        let mut tx = database.begin().await.unwrap();
        execute!(tx, "select 1").unwrap();
        tx.commit().await.unwrap();
        let mut conn = admin.read().await.unwrap();
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where datname = current_database() and pid <> pg_backend_pid()";
        fetch_all!(conn, (bool,), sql).unwrap();
        drop(conn);
        let mut tries = 0;
        loop {
            let mut batch = Batch::new(database.dialect());
            add_to!(
                batch,
                "insert into inbox (consumer, message_id, received_at) values ('c', $1, $2)",
                round.to_string(),
                clock::now()
            );
            match database.execute(batch).await {
                Ok(_) => break,
                Err(error) => assert_eq!(Error::from(error).code(), ErrorCode::Unavailable),
            }
            tries += 1;
            assert!(tries < 12, "no more tries than there are connections");
        }
    }
    assert_eq!(rows(&database).await, 3);
    admin.close().await;
}
