//! What reaches the audit log: registrations and refusals, through the outbox, without the adapter's configuration.

use copass_store::{Json, fetch_all};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_every_setup};
use serde_json::Value;

use crate::support::{Fixture, registration};

on_every_setup! {
    a_registration_is_recorded_with_its_transaction
    a_refusal_is_recorded_and_a_bad_body_is_not
}

async fn records(fixture: &Fixture) -> Vec<Value> {
    let mut conn = fixture.database.db().read().await.unwrap();
    let rows = fetch_all!(
        conn,
        (String, Json<Value>),
        "select destination, body from outbox order by id"
    );
    let rows = rows.unwrap();
    assert!(rows.iter().all(|(queue, _)| queue == copass_store::audit::QUEUE));
    rows.into_iter().map(|(_, body)| body.0).collect()
}

async fn a_registration_is_recorded_with_its_transaction(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let mut request = registration(&sandbox);
    request.adapter_config_json = Some(r#"{"token": "canary"}"#.to_owned());
    let source = fixture.register(&sandbox.editor(), request).await.unwrap();
    let records = records(&fixture).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["action"], "source.register");
    assert_eq!(records[0]["target"], source.data_source_id);
    assert_eq!(records[0]["sandbox_id"], sandbox.id.as_str());
    assert_eq!(records[0]["result"], "ok");
    assert_eq!(records[0]["actor"]["role"], "editor");
    assert!(!records[0].to_string().contains("canary"));
}

async fn a_refusal_is_recorded_and_a_bad_body_is_not(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    fixture
        .register(&sandbox.viewer(), registration(&sandbox))
        .await
        .unwrap_err();
    let mut nameless = registration(&sandbox);
    nameless.name.clear();
    fixture.register(&sandbox.owner(), nameless).await.unwrap_err();
    let records = records(&fixture).await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["result"], &records[0]["actor"]["role"]),
        (&"forbidden".into(), &"viewer".into())
    );
}
