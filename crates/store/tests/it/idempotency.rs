//! `Idempotency-Key`: the same request gets the first answer, another one a conflict.

use copass_errors::ErrorCode;
use copass_runtime::{MasterKey, clock};
use copass_store::{
    Db, execute, fetch_one,
    idempotency::{Idempotency, KeyedRequest, RETENTION},
};
use copass_test_support::{TestDatabase, master_key, on_both_databases};
use tokio::task::JoinSet;

on_both_databases! {
    the_first_answer_is_given_again
    another_request_under_the_key_is_a_conflict
    keys_of_different_scopes_do_not_meet
    an_answer_is_kept_only_with_its_effect
    an_expired_key_can_be_used_again
    of_requests_at_the_same_time_one_is_first
    answers_are_sealed
}

fn keyed(scope: &str, key: &str, content: &str) -> KeyedRequest {
    KeyedRequest::new(scope.to_owned(), key.to_owned(), content.as_bytes())
}

async fn answer(db: &Db, request: &KeyedRequest, answer: &str) -> copass_errors::Result<()> {
    let mut tx = db.begin().await?;
    Idempotency::new(db.clone(), master_key())
        .remember(&mut tx, request, answer.as_bytes())
        .await?;
    tx.commit().await?;
    Ok(())
}

async fn replay(db: &Db, request: &KeyedRequest) -> Result<Option<String>, ErrorCode> {
    let answer = Idempotency::new(db.clone(), master_key())
        .replay(request)
        .await
        .map_err(|error| error.code())?;
    Ok(answer.map(|bytes| String::from_utf8(bytes).unwrap()))
}

async fn the_first_answer_is_given_again(database: TestDatabase) {
    let request = keyed("s", "k", "body");
    assert_eq!(replay(&database, &request).await, Ok(None));
    answer(&database, &request, "first").await.unwrap();
    assert_eq!(replay(&database, &request).await, Ok(Some("first".to_owned())));
    let second = answer(&database, &request, "second").await.unwrap_err();
    assert_eq!(second.code(), ErrorCode::IdempotencyConflict);
    assert_eq!(replay(&database, &request).await, Ok(Some("first".to_owned())));
}

async fn another_request_under_the_key_is_a_conflict(database: TestDatabase) {
    answer(&database, &keyed("s", "k", "body"), "first").await.unwrap();
    assert_eq!(
        replay(&database, &keyed("s", "k", "other body")).await,
        Err(ErrorCode::IdempotencyConflict)
    );
}

async fn keys_of_different_scopes_do_not_meet(database: TestDatabase) {
    answer(&database, &keyed("alice", "k", "body"), "hers").await.unwrap();
    assert_eq!(replay(&database, &keyed("bob", "k", "body")).await, Ok(None));
    answer(&database, &keyed("bob", "k", "body"), "his").await.unwrap();
    assert_eq!(
        replay(&database, &keyed("alice", "k", "body")).await,
        Ok(Some("hers".to_owned()))
    );
}

async fn an_answer_is_kept_only_with_its_effect(database: TestDatabase) {
    let request = keyed("s", "k", "body");
    let mut tx = database.begin().await.unwrap();
    Idempotency::new(database.db(), master_key())
        .remember(&mut tx, &request, b"never")
        .await
        .unwrap();
    drop(tx);
    assert_eq!(replay(&database, &request).await, Ok(None));
    answer(&database, &request, "first").await.unwrap();
}

async fn an_expired_key_can_be_used_again(database: TestDatabase) {
    let request = keyed("s", "k", "body");
    answer(&database, &request, "first").await.unwrap();
    for (age, expected) in [
        (RETENTION - chrono::TimeDelta::minutes(1), Some("first")),
        (RETENTION + chrono::TimeDelta::minutes(1), None),
    ] {
        let mut tx = database.begin().await.unwrap();
        execute!(tx, "update idempotency_keys set created_at = $1", clock::now() - age).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(replay(&database, &request).await, Ok(expected.map(str::to_owned)));
    }
    let other = keyed("s", "k", "other body");
    answer(&database, &other, "second").await.unwrap();
    assert_eq!(replay(&database, &other).await, Ok(Some("second".to_owned())));
}

async fn of_requests_at_the_same_time_one_is_first(database: TestDatabase) {
    let mut requests = JoinSet::new();
    for number in 0..8 {
        let db = database.db();
        requests.spawn(async move {
            let request = keyed("s", "k", "body");
            match answer(&db, &request, &number.to_string()).await {
                Ok(()) => (true, number.to_string()),
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::IdempotencyConflict);
                    (false, replay(&db, &request).await.unwrap().unwrap())
                }
            }
        });
    }
    let answers = requests.join_all().await;
    let first = answers.iter().filter(|(is_first, _)| *is_first).collect::<Vec<_>>();
    assert_eq!(first.len(), 1);
    assert!(answers.iter().all(|(_, answer)| *answer == first[0].1), "{answers:?}");
}

/// Some answers hold a key that is shown once.
async fn answers_are_sealed(database: TestDatabase) {
    let request = keyed("s", "k", "body");
    answer(&database, &request, "olk_secret").await.unwrap();
    let mut conn = database.read().await.unwrap();
    let (sealed,) = fetch_one!(conn, (String,), "select sealed_response from idempotency_keys").unwrap();
    assert!(!sealed.contains("olk_secret"));
    let other_key = MasterKey::generate_text();
    let other = Idempotency::new(database.db(), MasterKey::parse([other_key.as_str()]).unwrap());
    assert_eq!(
        other.replay(&request).await.unwrap_err().code(),
        ErrorCode::InternalError
    );
}
