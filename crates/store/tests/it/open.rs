//! Opening: what an operator meets on a bad day is one clear message.

use std::time::{Duration, Instant};

use copass_runtime::clock;
use copass_store::{Db, OpenError, execute, fetch_one};
use copass_test_support::{TestDatabase, on_both_databases};

on_both_databases! {
    opening_again_keeps_everything
    a_database_of_a_newer_program_is_refused
    a_migration_that_was_changed_is_refused
    many_openings_at_once_migrate_once
}

const NEWER: i64 = 20_990_101_000_001;

async fn opening_again_keeps_everything(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    execute!(
        tx,
        "insert into inbox (consumer, message_id, received_at) values ('c', 'm', $1)",
        clock::now()
    )
    .unwrap();
    tx.commit().await.unwrap();
    for _ in 0..2 {
        let again = Db::open(database.url(), 2).await.unwrap();
        again.ping().await.unwrap();
        let mut conn = again.read().await.unwrap();
        let (rows,) = fetch_one!(conn, (i64,), "select count(*) from inbox").unwrap();
        assert_eq!(rows, 1);
        drop(conn);
        again.close().await;
    }
}

async fn a_database_of_a_newer_program_is_refused(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    execute!(
        tx,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         select $1, 'from the future', success, checksum, execution_time from _sqlx_migrations limit 1",
        NEWER,
    )
    .unwrap();
    tx.commit().await.unwrap();
    let error = Db::open(database.url(), 2).await.unwrap_err();
    assert!(matches!(error, OpenError::TooNew(NEWER)), "{error:?}");
    assert!(error.to_string().contains("newer than this program"), "{error}");
    assert!(error.hint().contains("newer program"), "{}", error.hint());
}

async fn a_migration_that_was_changed_is_refused(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    let sql = "update _sqlx_migrations set checksum = $1 where version = (select min(version) from _sqlx_migrations)";
    execute!(tx, sql, vec![0_u8; 48]).unwrap();
    tx.commit().await.unwrap();
    let error = Db::open(database.url(), 2).await.unwrap_err();
    assert!(matches!(error, OpenError::Migration(_)), "{error:?}");
}

/// Five services start at the same time on a database that does not exist yet.
async fn many_openings_at_once_migrate_once(database: TestDatabase) {
    let directory = tempfile::tempdir().unwrap();
    let empty = TestDatabase::empty_postgres();
    let (url, _guard) = match database.name() {
        "postgres" => {
            let (url, guard) = empty.await.unwrap();
            (url, Some(guard))
        }
        _ => (format!("sqlite:{}", directory.path().join("new.db").display()), None),
    };
    let mut openings = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let url = url.clone();
        openings.spawn(async move { Db::open(&url, 2).await });
    }
    for opened in openings.join_all().await {
        let db = opened.unwrap();
        let mut conn = db.read().await.unwrap();
        let (rows,) = fetch_one!(conn, (i64,), "select count(*) from audit_records").unwrap();
        assert_eq!(rows, 0);
        drop(conn);
        db.close().await;
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(
        &file,
        "This is text and no database, and it is longer than the header of one would be. ".repeat(20),
    )
    .unwrap();
    // No folder; a file where a folder should be; a folder where a file should be; a file that is something else.
    for path in [
        directory.path().join("none/copass.db"),
        file.join("copass.db"),
        directory.path().to_owned(),
        file.clone(),
    ] {
        let error = Db::open_sqlite(&path).await.unwrap_err();
        assert!(matches!(&error, OpenError::File { .. }), "{path:?}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && !text.contains('\n'), "{text}");
        assert!(error.hint().contains("write"), "{}", error.hint());
    }
    assert!(
        std::fs::read_to_string(&file).unwrap().starts_with("This is text"),
        "what was there is untouched"
    );
}

#[tokio::test]
async fn a_database_file_that_may_only_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copass.db");
    Db::open_sqlite(&path).await.unwrap().close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    if std::fs::OpenOptions::new().append(true).open(&path).is_ok() {
        return; // The administrator may write everything.
    }
    let error = Db::open_sqlite(&path).await.unwrap_err();
    assert!(matches!(&error, OpenError::File { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_at_once_and_without_the_password() {
    let started = Instant::now();
    let error = Db::open("postgres://user:hunter2@127.0.0.1:1/copass", 2)
        .await
        .unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable { .. }), "{error:?}");
    let text = format!("{error} {error:?} {}", error.hint());
    assert!(
        text.contains("127.0.0.1:1/copass") && !text.contains("hunter2"),
        "{text}"
    );
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "took {:?}",
        started.elapsed()
    );
    assert!(error.hint().contains("PostgreSQL runs"), "{}", error.hint());
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_at_once() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let started = Instant::now();
    let error = Db::open(&format!("{}_not", database.url()), 2).await.unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "took {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    for url in [
        "",
        "copass.db",
        "mysql://user:hunter2@host/copass",
        "postgres://user:hunter2@host:port/copass",
        "sqlite:",
    ] {
        let error = Db::open(url, 2).await.unwrap_err();
        assert!(matches!(&error, OpenError::InvalidUrl(_)), "{url}: {error:?}");
        let text = format!("{error} {error:?} {}", error.hint());
        assert!(
            !text.contains("hunter2") && error.hint().contains("store.url"),
            "{text}"
        );
    }
}
