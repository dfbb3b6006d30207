//! From a credential and a sandbox to a role, at the moment of the call.

use copass_errors::ErrorCode;
use copass_runtime::{CallContext, clock};
use copass_test_support::{TestDatabase, Wiring, on_every_setup};

use crate::support::{Stage, ask, code, gateway};

on_every_setup! {
    the_role_is_the_strongest_that_holds_now
    what_is_no_sandbox_of_the_caller_gives_no_access
    the_access_tells_the_state_and_the_owner
    only_services_may_verify_credentials
    a_call_without_a_person_is_refused
}

async fn the_role_is_the_strongest_that_holds_now(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let sandbox = stage.sandbox(&owner, "one").await;
    let key = stage.api_key(&other).await;
    let roles = async |credential: &str| {
        let answer = stage.authenticate(credential, Some(&sandbox.sandbox_id)).await.unwrap();
        answer.access.map(|access| access.role).unwrap_or_default()
    };
    assert_eq!(roles(&owner.access_token).await, "owner");
    // A session and a key of the account see the same.
    let both = async || {
        let session = roles(&other.access_token).await;
        assert_eq!(session, roles(&key.plaintext).await);
        session
    };
    assert_eq!(both().await, "");
    stage.grant(&owner, &sandbox, &other, "viewer").await;
    assert_eq!(both().await, "viewer");
    let editor = stage.grant(&owner, &sandbox, &other, "editor").await;
    stage.grant(&owner, &sandbox, &other, "viewer").await;
    assert_eq!(both().await, "editor");
    stage
        .sql(
            "update connections set expires_at = $2 where id = $1",
            &editor.connection_id,
            Some(clock::now()),
        )
        .await;
    assert_eq!(both().await, "viewer");
    stage
        .sql(
            "update connections set revoked_at = $2 where sandbox_id = $1",
            &sandbox.sandbox_id,
            Some(clock::now()),
        )
        .await;
    assert_eq!(both().await, "");
}

async fn what_is_no_sandbox_of_the_caller_gives_no_access(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, other) = (stage.person().await, stage.person().await);
    let foreign = stage.sandbox(&other, "one").await;
    for id in [
        foreign.sandbox_id.as_str(),
        "sb_01JAAAAAAAAAAAAAAAAAAAAAAA",
        "nonsense",
        "",
        "\0",
    ] {
        let answer = stage.authenticate(&person.access_token, Some(id)).await.unwrap();
        assert_eq!(
            (answer.access, answer.user_id.as_str()),
            (None, person.user_id.as_str()),
            "{id:?}"
        );
    }
}

async fn the_access_tells_the_state_and_the_owner(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let sandbox = stage.sandbox(&owner, "one").await;
    stage.grant(&owner, &sandbox, &other, "editor").await;
    let request = copass_proto::sandbox::ChangeSandboxStatusRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
        status: "suspended".to_owned(),
    };
    ask(stage
        .sandboxes()
        .change_sandbox_status(stage.me(&owner).await.request(request)))
    .await
    .unwrap();
    let access = stage
        .authenticate(&other.access_token, Some(&sandbox.sandbox_id))
        .await
        .unwrap()
        .access
        .unwrap();
    assert_eq!(
        (access.status.as_str(), access.owner_user_id),
        ("suspended", owner.user_id)
    );
}

async fn only_services_may_verify_credentials(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let me = stage.me(&stage.person().await).await;
    let mut identity = stage.identity();
    let outcomes = [
        code(ask(identity.authenticate(me.request(Default::default()))).await),
        code(ask(identity.send_login_code(me.request(Default::default()))).await),
        code(ask(identity.verify_login_code(me.request(Default::default()))).await),
        code(ask(identity.refresh_session(me.request(Default::default()))).await),
    ];
    assert_eq!(outcomes, [Some(ErrorCode::Forbidden); 4]);
}

async fn a_call_without_a_person_is_refused(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let service: CallContext = gateway();
    let mut identity = stage.identity();
    let mut sandboxes = stage.sandboxes();
    let outcomes = [
        code(ask(identity.get_profile(service.request(Default::default()))).await),
        code(ask(identity.list_api_keys(service.request(Default::default()))).await),
        code(ask(identity.get_handle(service.request(Default::default()))).await),
        code(ask(sandboxes.list_sandboxes(service.request(Default::default()))).await),
        // And without any token.
        code(ask(sandboxes.list_sandboxes(tonic::Request::new(Default::default()))).await),
        code(ask(identity.list_api_keys(tonic::Request::new(Default::default()))).await),
    ];
    assert_eq!(outcomes, [Some(ErrorCode::Unauthorized); 6]);
}
