//! The audit log grows and never changes, whoever asks.

use copass_runtime::clock;
use copass_store::{Json, execute, fetch_one};
use copass_test_support::{TestDatabase, on_both_databases};
use serde_json::json;

on_both_databases! {
    audit_records_refuse_update_and_delete
}

async fn audit_records_refuse_update_and_delete(database: TestDatabase) {
    let insert = "insert into audit_records (id, at, actor, action, target, result, request_id) \
                  values ($1, $2, $3, 'sandbox.create', 'sb', 'ok', 'req')";
    let mut tx = database.begin().await.unwrap();
    execute!(tx, insert, "au_1", clock::now(), Json(json!({ "user": "u" }))).unwrap();
    execute!(tx, insert, "au_2", clock::now(), Json(json!({ "user": "u" }))).unwrap();
    tx.commit().await.unwrap();
    for sql in [
        "update audit_records set result = 'denied'",
        "update audit_records set result = 'denied' where id = 'au_1'",
        "delete from audit_records",
        "delete from audit_records where id = 'au_2'",
        "insert into audit_records (id, at, actor, action, target, result, request_id) \
         select id, at, actor, action, target, 'denied', request_id from audit_records where true \
         on conflict (id) do update set result = 'denied'",
    ] {
        let mut tx = database.begin().await.unwrap();
        let error = execute!(tx, sql).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{sql}: {error}");
    }
    if database.name() == "sqlite" {
        // SQLite's own way to change a row without an update.
        let mut tx = database.begin().await.unwrap();
        let sql = "insert or replace into audit_records (id, at, actor, action, target, result, request_id) \
                   select id, at, actor, action, target, 'denied', request_id from audit_records";
        let error = execute!(tx, sql).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    let mut conn = database.read().await.unwrap();
    let (kept,) = fetch_one!(conn, (i64,), "select count(*) from audit_records where result = 'ok'").unwrap();
    assert_eq!(kept, 2);
}
