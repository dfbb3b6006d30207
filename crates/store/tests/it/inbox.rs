//! The inbox: a second delivery changes nothing.

use chrono::TimeDelta;
use copass_runtime::clock;
use copass_store::{Tx, execute, fetch_optional, inbox, sqlx};
use copass_test_support::{TestDatabase, on_both_databases};
use tokio::task::JoinSet;

use crate::transactions::rows;

on_both_databases! {
    the_second_delivery_is_known
    a_rolled_back_effect_is_not_recorded
    deliveries_at_the_same_time_have_one_effect
    what_is_old_is_forgotten
    an_interrupted_effect_goes_on_where_it_was
}

async fn record(database: &TestDatabase, consumer: &str, message_id: &str) -> bool {
    let mut tx = database.begin().await.unwrap();
    let first = inbox::record(&mut tx, consumer, message_id, clock::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    first
}

async fn the_second_delivery_is_known(database: TestDatabase) {
    assert!(record(&database, "a", "m1").await);
    assert!(!record(&database, "a", "m1").await);
    assert!(record(&database, "a", "m2").await);
    assert!(
        record(&database, "b", "m1").await,
        "another consumer has effects of its own"
    );
}

async fn a_rolled_back_effect_is_not_recorded(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    assert!(inbox::record(&mut tx, "a", "m1", clock::now()).await.unwrap());
    drop(tx);
    assert!(record(&database, "a", "m1").await);
}

async fn deliveries_at_the_same_time_have_one_effect(database: TestDatabase) {
    let mut deliveries = JoinSet::new();
    for _ in 0..8 {
        let db = database.db();
        deliveries.spawn(async move {
            let mut tx = db.begin().await.unwrap();
            let first = inbox::record(&mut tx, "a", "m1", clock::now()).await.unwrap();
            tokio::task::yield_now().await;
            tx.commit().await.unwrap();
            first
        });
    }
    let firsts = deliveries.join_all().await;
    assert_eq!(firsts.iter().filter(|first| **first).count(), 1);
}

async fn what_is_old_is_forgotten(database: TestDatabase) {
    let now = clock::now();
    let mut tx = database.begin().await.unwrap();
    inbox::record(&mut tx, "a", "old", now - TimeDelta::days(8))
        .await
        .unwrap();
    inbox::record(&mut tx, "a", "new", now).await.unwrap();
    assert_eq!(
        inbox::forget_before(&mut tx, now - TimeDelta::days(7)).await.unwrap(),
        1
    );
    assert!(inbox::record(&mut tx, "a", "old", now).await.unwrap());
    assert!(!inbox::record(&mut tx, "a", "new", now).await.unwrap());
}

/// Does one piece of work, unless that is the one at which it is interrupted.
async fn work(tx: &mut Tx, interrupted_at: &str) -> copass_store::Result<u64> {
    let next = fetch_optional!(
        *tx,
        (String,),
        "select message_id from inbox where consumer = 'work' order by message_id limit 1"
    )?;
    let Some((next,)) = next else { return Ok(0) };
    let rows = execute!(*tx, "delete from inbox where message_id = $1", &next)?;
    if next == interrupted_at {
        return Err(sqlx::Error::WorkerCrashed.into());
    }
    Ok(rows)
}

async fn an_interrupted_effect_goes_on_where_it_was(database: TestDatabase) {
    for message_id in ["w1", "w2", "w3", "w4"] {
        assert!(record(&database, "work", message_id).await);
    }
    let handle =
        |interrupted_at| inbox::record_after_slices(&database, "a", "m1", move |tx| Box::pin(work(tx, interrupted_at)));
    handle("w3").await.unwrap_err();
    assert_eq!(
        rows(&database).await,
        2,
        "what was done is done, and the message is not"
    );
    assert_eq!(handle("").await.unwrap(), Some(2));
    assert_eq!(handle("").await.unwrap(), None);
    assert!(!record(&database, "a", "m1").await);
}
