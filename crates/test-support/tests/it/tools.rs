//! What the suites of other crates rest on.

use std::time::Duration;

use copass_queue::{Message, QueueName};
use copass_store::{Db, OpenError, execute, fetch_one};
use copass_test_support::{TestDatabase, amqp_queue, databases, eventually};
use serde_json::json;

const WORK: QueueName = QueueName::from_static("copass.tools.work");

async fn inbox_rows(db: &Db) -> i64 {
    let mut conn = db.read().await.unwrap();
    let (count,) = fetch_one!(conn, (i64,), "select count(*) from inbox").unwrap();
    count
}

#[tokio::test]
async fn every_database_is_migrated_and_belongs_to_one_test() {
    for database in databases().await {
        let other = match database.name() {
            "postgres" => TestDatabase::postgres().await.unwrap(),
            _ => TestDatabase::sqlite().await,
        };
        let mut tx = database.begin().await.unwrap();
        execute!(
            tx,
            "insert into inbox (consumer, message_id, received_at) values ('c', 'm', $1)",
            copass_runtime::clock::now()
        )
        .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            (inbox_rows(&database).await, inbox_rows(&other).await),
            (1, 0),
            "{}",
            database.name()
        );
    }
}

#[tokio::test]
async fn a_database_goes_with_its_guard() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let url = database.url().to_owned();
    drop(database);
    assert!(matches!(Db::open(&url, 1).await, Err(OpenError::Unreachable { .. })));
}

#[tokio::test]
async fn two_queues_on_one_broker_do_not_meet() {
    let (Some(mine), Some(other)) = (amqp_queue(&[WORK], &[]), amqp_queue(&[WORK], &[])) else {
        return;
    };
    mine.queue()
        .publish(&WORK, Message::new("test.v1", json!({})))
        .await
        .unwrap();
    other
        .queue()
        .publish(&WORK, Message::new("test.v1", json!({})))
        .await
        .unwrap();
    for queue in [mine.queue(), other.queue()] {
        assert_eq!(queue.depth(&WORK).await.unwrap().ready, 1);
    }
}

#[tokio::test]
#[should_panic(expected = "tools.rs")]
async fn a_condition_that_never_holds_names_the_line_that_waited() {
    eventually(Duration::from_millis(20), || async { false }).await;
}
