//! Readers that stand still, over the one connection that everybody's calls share.

use std::time::Duration;

use copass_test_support::{TestDatabase, Wiring};
use serde_json::json;
use tokio::time::timeout;

use crate::support::{Builder, is_text};

/// Together they have more to take than HTTP/2 would let wait for them with hyper's own windows.
const READERS: usize = 12;
const TEXT_BYTES: usize = 1_000_000;
/// Less than a reader may stand still before it is sent away, which would set the others free.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn readers_that_stand_still_stop_nobody() {
    let database = TestDatabase::sqlite().await;
    let fixture = Builder::new(database, Wiring::Remote)
        .script(json!({"turns": [{"events": [{"text": "x".repeat(TEXT_BYTES)}]}]}))
        .build()
        .await;
    fixture.make_agent().await;
    let run_id = fixture.invoked("write a book").await;
    let ended = fixture.ended(&run_id).await;
    assert_eq!(ended.output_text.map(|text| text.len()), Some(TEXT_BYTES));
    let owner = fixture.sandbox.owner();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = timeout(SOON, fixture.follow(&owner, &run_id, None))
            .await
            .expect("a follower is let in")
            .unwrap();
        // The first frame has come, so what follows is on its way.
        let first = timeout(SOON, reader.next()).await.expect("a first frame");
        assert!(first.is_some());
        readers.push(reader);
    }
    for _ in 0..50 {
        timeout(SOON, fixture.warnings(&run_id)).await.expect("an answer");
    }
    // Nothing is lost on those that go on.
    for reader in &mut readers {
        reader.until(is_text).await;
        while reader.next().await.is_some() {}
    }
}
