//! Who may do what (`rest.md` 0.5): register is class B, list and get are class R.

use copass_errors::{Error, ErrorCode};
use copass_proto::source::{GetSourceRequest, ListSourcesRequest, RegisterSourceRequest};
use copass_runtime::CallContext;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_every_setup};
use copass_types::ProjectId;
use tonic::{Code, Request, Status};

use crate::support::{Fixture, get_one, list_all, registration};

on_every_setup! {
    the_matrix_of_roles
    a_sandbox_that_is_not_active_is_read_only
    a_call_without_a_token_is_unauthenticated
    a_source_of_another_sandbox_is_unknown
    a_grant_limited_to_a_project_sees_no_source_outside_it
}

/// The codes of register, list and get.
async fn codes(fixture: &Fixture, caller: &CallContext, sandbox: &TestSandbox, source: &str) -> [Option<ErrorCode>; 3] {
    let code = |error: Error| error.code();
    [
        fixture.register(caller, registration(sandbox)).await.err().map(code),
        fixture.list(caller, list_all(sandbox)).await.err().map(code),
        fixture.get(caller, get_one(sandbox, source)).await.err().map(code),
    ]
}

async fn the_matrix_of_roles(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let source = fixture
        .register(&sandbox.owner(), registration(&sandbox))
        .await
        .unwrap()
        .data_source_id;
    let (forbidden, unknown) = (Some(ErrorCode::Forbidden), Some(ErrorCode::NotFound));
    for (who, caller, expected) in [
        ("owner", sandbox.owner(), [None, None, None]),
        ("editor", sandbox.editor(), [None, None, None]),
        ("viewer", sandbox.viewer(), [forbidden, None, None]),
        ("foreign", sandbox.foreign(), [unknown, unknown, unknown]),
        ("nobody", sandbox.nobody(), [unknown, unknown, unknown]),
        (
            "key of another sandbox",
            sandbox.owner_with_key_of_another_sandbox(),
            [unknown, unknown, unknown],
        ),
        ("service", CallContext::service("gateway"), [unknown, unknown, unknown]),
    ] {
        assert_eq!(codes(&fixture, &caller, &sandbox, &source).await, expected, "{who}");
    }
    assert_eq!(fixture.rows().await, 3, "those who may not have registered nothing");
}

/// Sources cannot be linked to projects yet, so none is inside one.
async fn a_grant_limited_to_a_project_sees_no_source_outside_it(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let source = fixture
        .register(&sandbox.owner(), registration(&sandbox))
        .await
        .unwrap()
        .data_source_id;
    let mut limited = sandbox.editor();
    limited.principal.access.as_mut().unwrap().project_id = Some(ProjectId::generate());
    assert_eq!(
        codes(&fixture, &limited, &sandbox, &source).await,
        [Some(ErrorCode::Forbidden), None, Some(ErrorCode::NotFound)]
    );
    assert!(fixture.list(&limited, list_all(&sandbox)).await.unwrap().is_empty());
    assert_eq!(fixture.rows().await, 1);
}

/// `gaps.md` G66.
async fn a_sandbox_that_is_not_active_is_read_only(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let source = fixture
        .register(&sandbox.owner(), registration(&sandbox))
        .await
        .unwrap()
        .data_source_id;
    for status in ["suspended", "archived"] {
        let caller = sandbox.with_status(status).owner();
        let expected = [Some(ErrorCode::SandboxNotActive), None, None];
        assert_eq!(codes(&fixture, &caller, &sandbox, &source).await, expected, "{status}");
    }
}

async fn a_call_without_a_token_is_unauthenticated(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let mut client = fixture.client.clone();
    let statuses: [Status; 3] = [
        client
            .register_source(Request::new(RegisterSourceRequest::default()))
            .await
            .unwrap_err(),
        client
            .list_sources(Request::new(ListSourcesRequest::default()))
            .await
            .unwrap_err(),
        client
            .get_source(Request::new(GetSourceRequest::default()))
            .await
            .unwrap_err(),
    ];
    assert!(
        statuses.iter().all(|status| status.code() == Code::Unauthenticated),
        "{statuses:?}"
    );
}

/// Malformed, unknown and foreign answer alike, and a malformed sandbox is a sandbox one may not know of.
async fn a_source_of_another_sandbox_is_unknown(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (mine, other) = (TestSandbox::new(), TestSandbox::new());
    let foreign = fixture
        .register(&other.owner(), registration(&other))
        .await
        .unwrap()
        .data_source_id;
    let never_made = copass_types::DataSourceId::generate().to_string();
    let ids = [
        foreign.as_str(),
        &never_made,
        "",
        "ds_",
        "nonsense",
        "ds_'; drop table data_sources; --",
        "ds_\0",
    ];
    let mut details = Vec::new();
    for id in ids {
        let error = fixture.get(&mine.owner(), get_one(&mine, id)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound, "{id:?}");
        details.push(error.detail().to_owned());
    }
    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    assert!(fixture.list(&mine.owner(), list_all(&mine)).await.unwrap().is_empty());
    for sandbox_id in ["", "nonsense", other.id.as_str()] {
        let request = ListSourcesRequest {
            sandbox_id: sandbox_id.to_owned(),
            ..ListSourcesRequest::default()
        };
        let error = fixture.list(&mine.owner(), request).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound, "{sandbox_id:?}");
    }
}
