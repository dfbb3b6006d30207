//! `ListSources` (`rest.md` 8.2): filters and order.

use copass_errors::ErrorCode;
use copass_proto::source::{ListSourcesRequest, RegisterSourceRequest};
use copass_store::execute;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_every_setup};

use crate::support::{Fixture, list_all, registration};

on_every_setup! {
    sources_are_listed_oldest_first
    filters_narrow_the_list
    an_unknown_status_is_refused
    an_odd_provider_has_no_sources
}

async fn names(fixture: &Fixture, sandbox: &TestSandbox, provider: Option<&str>, status: Option<&str>) -> Vec<String> {
    let request = ListSourcesRequest {
        provider: provider.map(str::to_owned),
        status: status.map(str::to_owned),
        ..list_all(sandbox)
    };
    let sources = fixture.list(&sandbox.viewer(), request).await.unwrap();
    sources.into_iter().map(|source| source.name).collect()
}

async fn register(fixture: &Fixture, sandbox: &TestSandbox, provider: &str, name: &str) {
    let request = RegisterSourceRequest {
        provider: provider.to_owned(),
        name: name.to_owned(),
        ..registration(sandbox)
    };
    fixture.register(&sandbox.owner(), request).await.unwrap();
}

async fn sources_are_listed_oldest_first(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    assert!(names(&fixture, &sandbox, None, None).await.is_empty());
    for name in ["c", "a", "b"] {
        register(&fixture, &sandbox, "custom", name).await;
    }
    assert_eq!(names(&fixture, &sandbox, None, None).await, ["c", "a", "b"]);
}

async fn filters_narrow_the_list(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (sandbox, other) = (TestSandbox::new(), TestSandbox::new());
    for (provider, name) in [("slack", "s1"), ("github", "g1"), ("slack", "s2"), ("github", "g2")] {
        register(&fixture, &sandbox, provider, name).await;
    }
    register(&fixture, &other, "slack", "foreign").await;
    let mut tx = fixture.database.begin().await.unwrap();
    execute!(
        tx,
        "update data_sources set status = 'paused' where name in ('s2', 'g2', 'foreign')"
    )
    .unwrap();
    tx.commit().await.unwrap();
    for (provider, status, expected) in [
        (None, None, vec!["s1", "g1", "s2", "g2"]),
        (Some("slack"), None, vec!["s1", "s2"]),
        (None, Some("paused"), vec!["s2", "g2"]),
        (Some("github"), Some("active"), vec!["g1"]),
        (Some("github"), Some("archived"), vec![]),
        (Some("linear"), None, vec![]),
    ] {
        assert_eq!(
            names(&fixture, &sandbox, provider, status).await,
            expected,
            "{provider:?} {status:?}"
        );
    }
    for status in ["active", "paused", "disconnected", "error", "archived"] {
        names(&fixture, &sandbox, None, Some(status)).await;
    }
}

async fn an_unknown_status_is_refused(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    for status in ["", "Active", "deleted", "active\0"] {
        let request = ListSourcesRequest {
            status: Some(status.to_owned()),
            ..list_all(&sandbox)
        };
        let error = fixture.list(&sandbox.owner(), request).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ValidationError, "{status:?}");
        assert_eq!(error.problems()[0].loc, ["query", "status"], "{status:?}");
        assert!(
            error.problems()[0].msg.contains("disconnected"),
            "{}",
            error.problems()[0].msg
        );
    }
}

async fn an_odd_provider_has_no_sources(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    register(&fixture, &sandbox, "slack", "s1").await;
    for provider in ["", "Slack", "%", "slack\0", "' or 1=1 --"] {
        assert!(
            names(&fixture, &sandbox, Some(provider), None).await.is_empty(),
            "{provider:?}"
        );
    }
}
