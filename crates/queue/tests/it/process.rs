//! A consumer that is killed without warning loses nothing.

use std::process::Stdio;
use std::time::Duration;

use copass_queue::{Message, Queue};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::broker;
use crate::support::{LIMIT, WORK, message, publish, receive};

const URL: &str = "COPASS_QUEUE_CHILD_URL";
const PREFIX: &str = "COPASS_QUEUE_CHILD_PREFIX";
const HOLDING: &str = "child holds three";

#[tokio::test]
async fn a_killed_consumer_loses_nothing() {
    let Some(fixture) = crate::amqp::fixture() else { return };
    let queue = &*fixture.queue;
    publish(queue, 10).await;

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "process::child_that_never_decides",
            "--ignored",
            "--nocapture",
        ])
        .env(URL, broker::url().unwrap())
        .env(PREFIX, &fixture.prefix)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let holding = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(HOLDING) {
                return;
            }
        }
        panic!("the child ended early");
    };
    timeout(LIMIT, holding).await.expect("the child is not ready in time");
    // SIGKILL: no destructor runs, no connection is closed in good order.
    child.kill().await.unwrap();

    let mut consumer = queue.consume(&WORK, 1).await.unwrap();
    let mut received: Vec<Message> = Vec::new();
    for _ in 0..10 {
        let delivery = receive(&mut consumer).await;
        received.push(delivery.message.clone());
        delivery.ack().await.unwrap();
    }
    received.sort_by(|a, b| a.body["number"].as_u64().cmp(&b.body["number"].as_u64()));
    for (number, message_again) in received.iter().enumerate() {
        assert_eq!(message_again.id, message(number).id);
        let tried = if number < 3 { 2 } else { 1 };
        assert_eq!(
            message_again.attempt, tried,
            "the attempt that ended with the process counts: {message_again:?}"
        );
    }
    crate::amqp::clean_up(&fixture).await;
}

#[tokio::test]
#[ignore = "the other side of a_killed_consumer_loses_nothing, which starts it"]
async fn child_that_never_decides() {
    let (Ok(url), Ok(prefix)) = (std::env::var(URL), std::env::var(PREFIX)) else {
        return;
    };
    let queue = crate::amqp::connect(&url, &prefix);
    let mut consumer = queue.consume(&WORK, 3).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(receive(&mut consumer).await);
    }
    println!("{HOLDING}");
    tokio::time::sleep(Duration::from_secs(600)).await;
}
