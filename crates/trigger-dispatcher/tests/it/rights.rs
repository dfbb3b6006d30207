//! Who may do what (`rest.md` 0.5): list and get are class R.

use copass_errors::{Error, ErrorCode};
use copass_proto::trigger::{GetTriggerRequest, ListTriggersRequest};
use copass_runtime::CallContext;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_every_setup};
use copass_types::AgentId;
use tonic::{Code, Request};

use crate::support::{Fixture, NewTrigger, get_one, list_of};

on_every_setup! {
    the_matrix_of_roles
    a_call_without_a_token_is_unauthenticated
    a_trigger_of_another_sandbox_or_agent_is_unknown
}

async fn the_matrix_of_roles(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (sandbox, agent) = (TestSandbox::new(), AgentId::generate());
    let trigger = fixture.insert(&sandbox, NewTrigger::of(&agent)).await;
    let unknown = Some(ErrorCode::NotFound);
    for (who, caller, expected) in [
        ("owner", sandbox.owner(), None),
        ("editor", sandbox.editor(), None),
        ("viewer", sandbox.viewer(), None),
        (
            "owner of a suspended sandbox",
            sandbox.with_status("suspended").owner(),
            None,
        ),
        (
            "viewer of an archived sandbox",
            sandbox.with_status("archived").viewer(),
            None,
        ),
        ("foreign", sandbox.foreign(), unknown),
        ("nobody", sandbox.nobody(), unknown),
        (
            "key of another sandbox",
            sandbox.owner_with_key_of_another_sandbox(),
            unknown,
        ),
        ("service", CallContext::service("gateway"), unknown),
    ] {
        let code = |error: Error| error.code();
        let list = fixture.list(&caller, list_of(&sandbox, &agent)).await.err().map(code);
        let get = fixture
            .get(&caller, get_one(&sandbox, &agent, &trigger))
            .await
            .err()
            .map(code);
        assert_eq!([list, get], [expected; 2], "{who}");
    }
}

async fn a_call_without_a_token_is_unauthenticated(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let mut client = fixture.client.clone();
    let list = client
        .list_triggers(Request::new(ListTriggersRequest::default()))
        .await
        .unwrap_err();
    let get = client
        .get_trigger(Request::new(GetTriggerRequest::default()))
        .await
        .unwrap_err();
    assert_eq!([list.code(), get.code()], [Code::Unauthenticated; 2]);
}

async fn a_trigger_of_another_sandbox_or_agent_is_unknown(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (mine, other, agent, another_agent) = (
        TestSandbox::new(),
        TestSandbox::new(),
        AgentId::generate(),
        AgentId::generate(),
    );
    let of_other_sandbox = fixture.insert(&other, NewTrigger::of(&agent)).await;
    let of_other_agent = fixture.insert(&mine, NewTrigger::of(&another_agent)).await;
    let never_made = copass_types::TriggerId::generate().to_string();
    let ids = [
        of_other_sandbox.as_str(),
        &of_other_agent,
        &never_made,
        "",
        "tr_",
        "nonsense",
        "tr_\0",
    ];
    let mut details = Vec::new();
    for id in ids {
        let error = fixture
            .get(&mine.owner(), get_one(&mine, &agent, id))
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound, "{id:?}");
        details.push(error.detail().to_owned());
    }
    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    assert!(
        fixture
            .list(&mine.owner(), list_of(&mine, &agent))
            .await
            .unwrap()
            .is_empty()
    );
    for agent_id in ["", "nonsense", "ag_\0"] {
        let request = ListTriggersRequest {
            agent_id: agent_id.to_owned(),
            ..list_of(&mine, &agent)
        };
        let error = fixture.list(&mine.owner(), request).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound, "{agent_id:?}");
    }
    for sandbox_id in ["", "nonsense", other.id.as_str()] {
        let request = ListTriggersRequest {
            sandbox_id: sandbox_id.to_owned(),
            ..list_of(&mine, &agent)
        };
        let error = fixture.list(&mine.owner(), request).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound, "{sandbox_id:?}");
    }
}
