//! The inbox: a second delivery changes nothing.

use chrono::TimeDelta;
use copass_runtime::clock;
use copass_store::inbox;
use copass_test_support::{TestDatabase, on_both_databases};
use tokio::task::JoinSet;

on_both_databases! {
    the_second_delivery_is_known
    a_rolled_back_effect_is_not_recorded
    deliveries_at_the_same_time_have_one_effect
    what_is_old_is_forgotten
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
