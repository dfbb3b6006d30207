//! Several statements in one round trip mean the same on both databases.

use copass_runtime::clock;
use copass_store::{Batch, Json, Tx, add_to, fetch_all};
use copass_test_support::{TestDatabase, on_both_databases};

on_both_databases! {
    each_statement_tells_how_many_rows_it_touched
    rows_may_refer_to_rows_of_the_same_batch
    an_error_in_the_middle_leaves_nothing
    an_empty_batch_does_nothing
}

fn receive(batch: &mut Batch, consumer: &str, id: &str) {
    add_to!(
        *batch,
        "insert into inbox (consumer, message_id, received_at) values ($1, $2, $3)",
        consumer,
        id,
        clock::now()
    );
}

async fn received(tx: &mut Tx) -> Vec<(String, String)> {
    let sql = "select consumer, message_id from inbox order by consumer, message_id";
    fetch_all!(*tx, (String, String), sql).unwrap()
}

async fn each_statement_tells_how_many_rows_it_touched(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    let mut batch = Batch::new(database.dialect());
    for id in ["1", "2", "3"] {
        receive(&mut batch, "a", id);
    }
    assert_eq!(batch.len(), 3);
    assert_eq!(batch.execute(&mut tx).await.unwrap(), [1, 1, 1]);

    let mut batch = Batch::new(database.dialect());
    receive(&mut batch, "b", "1");
    let rename = "update inbox set consumer = $2 where message_id <> $1 and consumer = $3";
    add_to!(batch, rename, "3", "c", "a");
    add_to!(batch, "delete from inbox where message_id = $1", "9");
    add_to!(
        batch,
        "insert into inbox (consumer, message_id, received_at) values ($1, $2, $3) on conflict do nothing",
        "a",
        "3",
        clock::now()
    );
    assert_eq!(batch.execute(&mut tx).await.unwrap(), [1, 2, 0, 0]);
    let rows = received(&mut tx).await;
    let rows: Vec<_> = rows
        .iter()
        .map(|(consumer, id)| (consumer.as_str(), id.as_str()))
        .collect();
    assert_eq!(rows, [("a", "3"), ("b", "1"), ("c", "1"), ("c", "2")]);
}

async fn rows_may_refer_to_rows_of_the_same_batch(database: TestDatabase) {
    let mut batch = Batch::new(database.dialect());
    let now = clock::now();
    add_to!(
        batch,
        "insert into users (id, email, metadata, created_at, updated_at) values ($1, $2, $4, $3, $3)",
        "u",
        "u@example.com",
        now,
        Json(serde_json::json!({})),
    );
    add_to!(
        batch,
        "insert into refresh_tokens (id, user_id, family_id, token_hash, created_at, expires_at) \
         values ($2, $1, $2, $2, $3, $3)",
        "u",
        "r",
        now,
    );
    let mut tx = database.begin().await.unwrap();
    assert_eq!(batch.execute(&mut tx).await.unwrap(), [1, 1]);
    tx.commit().await.unwrap();
}

async fn an_error_in_the_middle_leaves_nothing(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    let mut batch = Batch::new(database.dialect());
    for (consumer, id) in [("a", "1"), ("a", "2"), ("a", "1"), ("b", "1")] {
        receive(&mut batch, consumer, id);
    }
    assert!(batch.execute(&mut tx).await.unwrap_err().is_unique_violation());
    drop(tx);
    let mut tx = database.begin().await.unwrap();
    assert_eq!(received(&mut tx).await, []);
}

async fn an_empty_batch_does_nothing(database: TestDatabase) {
    let mut tx = database.begin().await.unwrap();
    let batch = Batch::new(database.dialect());
    assert!(batch.is_empty());
    assert!(batch.execute(&mut tx).await.unwrap().is_empty());
}
