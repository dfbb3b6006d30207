//! What is written is read: one SQL text, the same values on both databases.

use chrono::{DateTime, TimeDelta, Utc};
use copass_runtime::clock;
use copass_store::{Json, execute, fetch_all, fetch_one, fetch_optional};
use copass_test_support::{TestDatabase, on_both_databases};
use serde_json::{Value, json};

on_both_databases! {
    instants_keep_their_microseconds
    instants_compare_in_the_order_of_time
    json_and_booleans_round_trip
    null_is_not_empty
    text_keeps_every_character
    large_numbers_round_trip
    absent_values_can_be_bound_as_filters
    broken_uniqueness_and_broken_references_are_recognised
    a_failed_check_is_neither
}

async fn insert_user(
    database: &TestDatabase,
    id: &str,
    email: Option<&str>,
    at: DateTime<Utc>,
) -> copass_store::Result<()> {
    let mut tx = database.begin().await?;
    execute!(
        tx,
        "insert into users (id, email, metadata, created_at, updated_at) values ($1, $2, $3, $4, $4)",
        id,
        email,
        Json(json!({})),
        at,
    )?;
    tx.commit().await
}

async fn insert_message(database: &TestDatabase, id: &str, is_broadcast: bool, body: &Value) {
    let mut tx = database.begin().await.unwrap();
    execute!(
        tx,
        "insert into outbox (id, owner, destination, is_broadcast, kind, body, headers, created_at) \
         values ($1, 'test', 'q', $2, 'k', $3, $4, $5)",
        id,
        is_broadcast,
        Json(body),
        Json(json!({})),
        clock::now(),
    )
    .unwrap();
    tx.commit().await.unwrap();
}

async fn instants_keep_their_microseconds(database: TestDatabase) {
    let now = clock::now();
    // The last three digits are what a cut to milliseconds would lose.
    let cases = [
        "2026-04-30T14:25:18.000001Z",
        "1969-12-31T23:59:59.999999Z",
        "2024-02-29T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ];
    let cases = cases.map(|text| text.parse::<DateTime<Utc>>().unwrap());
    for (number, at) in cases.into_iter().chain([now]).enumerate() {
        let id = number.to_string();
        insert_user(&database, &id, None, at).await.unwrap();
        let mut conn = database.read().await.unwrap();
        let (read,) = fetch_one!(
            conn,
            (DateTime<Utc>,),
            "select created_at from users where id = $1",
            &id
        )
        .unwrap();
        assert_eq!(read, at);
    }
}

/// SQLite compares text; a fraction that is left out or cut must not change the order.
async fn instants_compare_in_the_order_of_time(database: TestDatabase) {
    let start: DateTime<Utc> = "2026-11-21T10:00:00Z".parse().unwrap();
    let steps = [0, 1, 10, 999, 1_000, 1_001, 500_000, 999_999, 1_000_000, 1_000_001];
    let instants = steps.map(|step| start + TimeDelta::microseconds(step));
    for (number, at) in instants.iter().enumerate().rev() {
        insert_user(&database, &number.to_string(), None, *at).await.unwrap();
    }
    let mut conn = database.read().await.unwrap();
    let rows = fetch_all!(
        conn,
        (DateTime<Utc>,),
        "select created_at from users order by created_at"
    )
    .unwrap();
    assert_eq!(rows.into_iter().map(|row| row.0).collect::<Vec<_>>(), instants);
    for (earlier, at) in instants.iter().enumerate() {
        let sql = "select count(*) from users where created_at < $1";
        let (count,) = fetch_one!(conn, (i64,), sql, *at).unwrap();
        assert_eq!(usize::try_from(count).unwrap(), earlier, "before {at}");
        let (count,) = fetch_one!(conn, (i64,), "select count(*) from users where created_at = $1", *at).unwrap();
        assert_eq!(count, 1, "at {at}");
    }
}

async fn json_and_booleans_round_trip(database: TestDatabase) {
    let bodies = [
        json!({ "b": 1, "a": [true, null, 1.5, "ä\u{1F600}\n\"\\"], "deep": { "er": {} } }),
        json!([]),
        json!("text"),
        json!(i64::MAX),
        json!(null),
        json!({ "": "" }),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let (id, is_broadcast) = (number.to_string(), number % 2 == 0);
        insert_message(&database, &id, is_broadcast, body).await;
        let mut conn = database.read().await.unwrap();
        let sql = "select is_broadcast, body from outbox where id = $1";
        let (read_flag, read_body) = fetch_one!(conn, (bool, Json<Value>), sql, &id).unwrap();
        assert_eq!((read_flag, &read_body.0), (is_broadcast, body));
    }
    let mut conn = database.read().await.unwrap();
    let (count,) = fetch_one!(
        conn,
        (i64,),
        "select count(*) from outbox where is_broadcast = $1",
        true
    )
    .unwrap();
    assert_eq!(count, 3);
}

async fn null_is_not_empty(database: TestDatabase) {
    insert_user(&database, "none", None, clock::now()).await.unwrap();
    insert_user(&database, "empty", Some(""), clock::now()).await.unwrap();
    let mut conn = database.read().await.unwrap();
    let sql = "select email, profile_created_at from users where id = $1";
    let none = fetch_one!(conn, (Option<String>, Option<DateTime<Utc>>), sql, "none").unwrap();
    let empty = fetch_one!(conn, (Option<String>, Option<DateTime<Utc>>), sql, "empty").unwrap();
    assert_eq!((none, empty), ((None, None), (Some(String::new()), None)));
    // Absent values are not equal to each other, so uniqueness does not bind them.
    insert_user(&database, "none too", None, clock::now()).await.unwrap();
    assert!(
        fetch_optional!(conn, (String,), "select id from users where id = $1", "nobody")
            .unwrap()
            .is_none()
    );
}

async fn text_keeps_every_character(database: TestDatabase) {
    let texts = [
        "ä ö ü ß",
        "日本語",
        "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
        "e\u{301} is not é",
        "'; drop table users; --",
        "$1 ? %s\\",
        " \t\r\n ",
    ];
    for text in texts {
        insert_user(&database, text, Some(text), clock::now()).await.unwrap();
        let mut conn = database.read().await.unwrap();
        let sql = "select id, email from users where email = $1";
        let row = fetch_one!(conn, (String, Option<String>), sql, text).unwrap();
        assert_eq!(row, (text.to_owned(), Some(text.to_owned())));
    }
}

async fn large_numbers_round_trip(database: TestDatabase) {
    for (number, attempts) in [0, -1, i64::from(u32::MAX), i64::MAX, i64::MIN].into_iter().enumerate() {
        let mut tx = database.begin().await.unwrap();
        execute!(
            tx,
            "insert into login_codes (id, email, code_hash, attempts, created_at, expires_at) \
             values ($1, 'e', 'h', $2, $3, $3)",
            number.to_string(),
            attempts,
            clock::now(),
        )
        .unwrap();
        let sql = "select attempts from login_codes where id = $1";
        let (read,) = fetch_one!(tx, (i64,), sql, number.to_string()).unwrap();
        assert_eq!(read, attempts);
        tx.commit().await.unwrap();
    }
}

async fn absent_values_can_be_bound_as_filters(database: TestDatabase) {
    insert_user(&database, "a", Some("a@b"), clock::now()).await.unwrap();
    insert_user(&database, "b", Some("b@b"), clock::now()).await.unwrap();
    let mut conn = database.read().await.unwrap();
    for (filter, count) in [(None, 2), (Some("a@b"), 1), (Some("c@b"), 0)] {
        let sql = "select id from users where ($1 is null or email = $1)";
        assert_eq!(fetch_all!(conn, (String,), sql, filter).unwrap().len(), count);
    }
}

async fn broken_uniqueness_and_broken_references_are_recognised(database: TestDatabase) {
    insert_user(&database, "u1", Some("a@b"), clock::now()).await.unwrap();
    for (id, email) in [("u1", "c@d"), ("u2", "a@b")] {
        let error = insert_user(&database, id, Some(email), clock::now()).await.unwrap_err();
        assert!(
            error.is_unique_violation() && !error.is_foreign_key_violation(),
            "{error}"
        );
    }
    let sql = "insert into refresh_tokens (id, user_id, family_id, token_hash, created_at, expires_at) \
               values ($1, $2, 'f', $1, $3, $3)";
    let mut tx = database.begin().await.unwrap();
    execute!(tx, sql, "t1", "u1", clock::now()).unwrap();
    let error = execute!(tx, sql, "t2", "nobody", clock::now()).unwrap_err();
    assert!(
        error.is_foreign_key_violation() && !error.is_unique_violation(),
        "{error}"
    );
    drop(tx);
    let mut tx = database.begin().await.unwrap();
    execute!(tx, sql, "t1", "u1", clock::now()).unwrap();
    execute!(tx, "delete from users where id = 'u1'").unwrap();
    let (left,) = fetch_one!(tx, (i64,), "select count(*) from refresh_tokens").unwrap();
    assert_eq!(left, 0, "a reference with `on delete cascade` cascades");
}

async fn a_failed_check_is_neither(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    let error = execute!(
        tx,
        "insert into data_sources (id, sandbox_id, user_id, provider, name, ingestion_mode, status, kind, \
         adapter_config, created_at, updated_at) \
         values ('d', 's', 'u', 'p', 'n', 'manual', 'on fire', 'durable', $1, $2, $2)",
        Json(json!({})),
        clock::now(),
    )
    .unwrap_err();
    assert!(!error.is_unique_violation() && !error.is_foreign_key_violation());
    assert_eq!(
        copass_errors::Error::from(error).code(),
        copass_errors::ErrorCode::InternalError
    );
}
