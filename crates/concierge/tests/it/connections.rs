//! Grants on sandboxes, and the keys bound to one.

use copass_errors::{Error, ErrorCode};
use copass_proto::{
    convert,
    identity::SetHandleRequest,
    sandbox::{
        Connection, CreateConnectionRequest, ListConnectionsRequest, RevokeConnectionRequest, RevokeConnectionResponse,
        SpawnConnectionKeyRequest,
    },
};
use copass_runtime::{CallContext, clock};
use copass_test_support::{TestDatabase, Wiring, on_every_setup};

use crate::support::{Person, Stage, ask, code, in_seconds, new_connection};

on_every_setup! {
    exactly_one_identity_is_named
    a_grant_by_handle_is_labelled_with_it
    what_a_grant_may_hold
    lists_hide_what_has_ended
    revoking_ends_the_keys_at_once_and_is_idempotent
    a_key_of_a_grant_acts_with_its_role_in_its_sandbox_only
    a_key_dies_with_the_end_of_its_grant
    one_idempotency_key_makes_one_grant
}

async fn create(stage: &Stage, me: &CallContext, request: CreateConnectionRequest) -> Result<Connection, Error> {
    ask(stage.sandboxes().create_connection(me.request(request))).await
}

async fn list(stage: &Stage, me: &CallContext, sandbox_id: &str, include_revoked: bool) -> Vec<Connection> {
    let request = ListConnectionsRequest {
        sandbox_id: sandbox_id.to_owned(),
        include_revoked,
    };
    ask(stage.sandboxes().list_connections(me.request(request)))
        .await
        .unwrap()
        .connections
}

async fn revoke(stage: &Stage, me: &CallContext, connection: &Connection) -> Result<RevokeConnectionResponse, Error> {
    let request = RevokeConnectionRequest {
        sandbox_id: connection.sandbox_id.clone(),
        connection_id: connection.connection_id.clone(),
    };
    ask(stage.sandboxes().revoke_connection(me.request(request))).await
}

async fn claim(stage: &Stage, person: &Person, handle: &str) {
    let request = SetHandleRequest {
        copass_id: handle.to_owned(),
    };
    ask(stage.identity().set_handle(stage.me(person).await.request(request)))
        .await
        .unwrap();
}

async fn exactly_one_identity_is_named(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    claim(&stage, &other, "bob").await;
    let me = stage.me(&owner).await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let request = |copass_id: Option<&str>, user_id: Option<&str>, email: Option<&str>| CreateConnectionRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
        copass_id: copass_id.map(str::to_owned),
        user_id: user_id.map(str::to_owned),
        email: email.map(str::to_owned),
        role: "viewer".to_owned(),
        ..CreateConnectionRequest::default()
    };
    let (bob, email) = (Some("bob"), Some(other.email.as_str()));
    let id = Some(other.user_id.as_str());
    for (copass_id, user_id, email) in [
        (None, None, None),
        (bob, id, None),
        (bob, None, email),
        (None, id, email),
        (bob, id, email),
    ] {
        let outcome = create(&stage, &me, request(copass_id, user_id, email)).await;
        assert_eq!(code(outcome), Some(ErrorCode::ValidationError));
    }
    assert_eq!(
        code(create(&stage, &me, request(None, None, email)).await),
        Some(ErrorCode::NotImplemented)
    );
    for unknown in ["carol", "Bob", "@", "", "bob\0", "x".repeat(1000).as_str()] {
        let error = create(&stage, &me, request(Some(unknown), None, None))
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound);
        assert!(error.detail().starts_with("Unknown copass_id"), "{error}");
    }
    for unknown in ["bob", "", "\0", "019a0000-0000-7000-8000-000000000000"] {
        assert_eq!(
            code(create(&stage, &me, request(None, Some(unknown), None)).await),
            Some(ErrorCode::NotFound)
        );
    }
    let myself = create(&stage, &me, request(None, Some(&owner.user_id), None)).await;
    assert_eq!(code(myself), Some(ErrorCode::InvalidRequest));
    assert_eq!(list(&stage, &me, &sandbox.sandbox_id, true).await, []);
}

async fn a_grant_by_handle_is_labelled_with_it(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    claim(&stage, &other, "bob").await;
    let me = stage.me(&owner).await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let by_handle = |handle: &str, label: Option<&str>| CreateConnectionRequest {
        copass_id: Some(handle.to_owned()),
        user_id: None,
        label: label.map(str::to_owned),
        ..new_connection(&sandbox, "", "editor")
    };
    let made = create(&stage, &me, by_handle("@bob", None)).await.unwrap();
    assert_eq!(
        (made.user_id.as_str(), made.copass_id.as_deref()),
        (other.user_id.as_str(), Some("bob"))
    );
    assert_eq!((made.label.as_deref(), made.role.as_str()), (Some("@bob"), "editor"));
    assert_eq!(
        (made.status.as_str(), made.created_by.as_str()),
        ("active", owner.user_id.as_str())
    );
    let labelled = create(&stage, &me, by_handle("bob", Some("the boss"))).await.unwrap();
    assert_eq!(labelled.label.as_deref(), Some("the boss"));
    assert_eq!(
        create(&stage, &me, new_connection(&sandbox, &other.user_id, "viewer"))
            .await
            .unwrap()
            .label,
        None
    );
    // The handle is read when it is shown, the label stays.
    claim(&stage, &other, "robert").await;
    let listed = list(&stage, &me, &sandbox.sandbox_id, false).await;
    assert!(
        listed
            .iter()
            .all(|connection| connection.copass_id.as_deref() == Some("robert"))
    );
    assert_eq!(listed.last().unwrap().label.as_deref(), Some("@bob"));
}

async fn what_a_grant_may_hold(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let me = stage.me(&owner).await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let base = new_connection(&sandbox, &other.user_id, "viewer");
    for role in ["owner", "", "admin", "Viewer"] {
        let request = CreateConnectionRequest {
            role: role.to_owned(),
            ..base.clone()
        };
        assert_eq!(
            code(create(&stage, &me, request).await),
            Some(ErrorCode::ValidationError),
            "{role}"
        );
    }
    for label in ["x".repeat(256), "\0".to_owned()] {
        let request = CreateConnectionRequest {
            label: Some(label),
            ..base.clone()
        };
        assert_eq!(
            code(create(&stage, &me, request).await),
            Some(ErrorCode::ValidationError)
        );
    }
    let too_late = chrono::DateTime::from_timestamp(253_402_300_800, 0).unwrap();
    for at in [clock::now(), in_seconds(-60), too_late] {
        let request = CreateConnectionRequest {
            expires_at: Some(convert::timestamp(at)),
            ..base.clone()
        };
        assert_eq!(
            code(create(&stage, &me, request).await),
            Some(ErrorCode::ValidationError),
            "{at}"
        );
    }
    let nonsense = prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: -1,
    };
    let request = CreateConnectionRequest {
        expires_at: Some(nonsense),
        ..base.clone()
    };
    assert_eq!(
        code(create(&stage, &me, request).await),
        Some(ErrorCode::ValidationError)
    );
    for project in ["pj_01JAAAAAAAAAAAAAAAAAAAAAAA", "nonsense"] {
        let request = CreateConnectionRequest {
            project_id: Some(project.to_owned()),
            ..base.clone()
        };
        assert_eq!(code(create(&stage, &me, request).await), Some(ErrorCode::NotFound));
    }
    let mut ends = convert::timestamp(in_seconds(3600));
    ends.nanos = 123_456_789;
    let request = CreateConnectionRequest {
        expires_at: Some(ends),
        ..base
    };
    let made = create(&stage, &me, request).await.unwrap();
    assert_eq!(list(&stage, &me, &sandbox.sandbox_id, false).await, [made]);
}

async fn lists_hide_what_has_ended(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let me = stage.me(&owner).await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let active = stage.grant(&owner, &sandbox, &other, "viewer").await;
    let expired = stage.grant(&owner, &sandbox, &other, "viewer").await;
    let revoked = stage.grant(&owner, &sandbox, &other, "viewer").await;
    stage
        .sql(
            "update connections set expires_at = $2 where id = $1",
            &expired.connection_id,
            Some(clock::now()),
        )
        .await;
    revoke(&stage, &me, &revoked).await.unwrap();
    let statuses = |list: Vec<Connection>| {
        list.into_iter()
            .map(|connection| (connection.connection_id, connection.status))
            .collect::<Vec<_>>()
    };
    let shown = |connection: &Connection, status: &str| (connection.connection_id.clone(), status.to_owned());
    assert_eq!(
        statuses(list(&stage, &me, &sandbox.sandbox_id, false).await),
        [shown(&active, "active")]
    );
    assert_eq!(
        statuses(list(&stage, &me, &sandbox.sandbox_id, true).await),
        [
            shown(&revoked, "revoked"),
            shown(&expired, "expired"),
            shown(&active, "active")
        ]
    );
    // No new key comes of what has ended.
    for ended in [&expired, &revoked] {
        let request = SpawnConnectionKeyRequest {
            sandbox_id: sandbox.sandbox_id.clone(),
            connection_id: ended.connection_id.clone(),
            idempotency_key: None,
        };
        let outcome = ask(stage.sandboxes().spawn_connection_key(me.request(request))).await;
        assert_eq!(code(outcome), Some(ErrorCode::Conflict));
    }
}

async fn revoking_ends_the_keys_at_once_and_is_idempotent(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let me = stage.me(&owner).await;
    let (sandbox, second) = (stage.sandbox(&owner, "one").await, stage.sandbox(&owner, "two").await);
    let connection = stage.grant(&owner, &sandbox, &other, "editor").await;
    let unrelated = stage
        .spawn_key(&owner, &stage.grant(&owner, &second, &other, "viewer").await)
        .await;
    let keys = [
        stage.spawn_key(&owner, &connection).await,
        stage.spawn_key(&owner, &connection).await,
    ];
    let own_key = stage.api_key(&other).await;
    let before = stage.outbox().await.len();
    // Under another sandbox of the same owner the connection does not exist.
    let elsewhere = Connection {
        sandbox_id: second.sandbox_id.clone(),
        ..connection.clone()
    };
    assert_eq!(code(revoke(&stage, &me, &elsewhere).await), Some(ErrorCode::NotFound));
    let outcomes = futures::future::join_all((0..3).map(|_| revoke(&stage, &me, &connection))).await;
    let cascaded: Vec<u64> = outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap().cascaded_keys)
        .collect();
    assert_eq!((cascaded.iter().sum::<u64>(), cascaded.iter().max()), (2, Some(&2)));
    for key in &keys {
        assert_eq!(
            code(stage.authenticate(&key.plaintext, None).await),
            Some(ErrorCode::Unauthorized)
        );
    }
    stage.authenticate(&unrelated.plaintext, None).await.unwrap();
    let answer = stage
        .authenticate(&own_key.plaintext, Some(&sandbox.sandbox_id))
        .await
        .unwrap();
    assert_eq!(answer.access, None);
    let told: Vec<_> = stage
        .outbox()
        .await
        .into_iter()
        .skip(before)
        .map(|(_, body)| body["user_id"].clone())
        .collect();
    assert_eq!(told, [serde_json::Value::from(other.user_id)]);
    let records = stage.audit(&owner, &sandbox.sandbox_id).await;
    assert_eq!(
        records
            .iter()
            .filter(|record| record.action == "connection.revoke")
            .count(),
        1
    );
}

async fn a_key_of_a_grant_acts_with_its_role_in_its_sandbox_only(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let (sandbox, second) = (stage.sandbox(&owner, "one").await, stage.sandbox(&owner, "two").await);
    let own = stage.sandbox(&other, "the grantee's own").await;
    stage.grant(&owner, &second, &other, "editor").await;
    let viewer = stage.grant(&owner, &sandbox, &other, "viewer").await;
    // The grantee is an editor too; the key is not.
    stage.grant(&owner, &sandbox, &other, "editor").await;
    let key = stage.spawn_key(&owner, &viewer).await;
    assert!(key.plaintext.starts_with(&key.key_prefix));
    let answer = stage
        .authenticate(&key.plaintext, Some(&sandbox.sandbox_id))
        .await
        .unwrap();
    assert_eq!(
        (answer.kind.as_str(), answer.user_id.as_str()),
        ("connection_key", other.user_id.as_str())
    );
    assert_eq!(answer.only_sandbox.as_deref(), Some(sandbox.sandbox_id.as_str()));
    assert_eq!(answer.connection_id.as_deref(), Some(viewer.connection_id.as_str()));
    let access = answer.access.unwrap();
    assert_eq!(
        (access.role.as_str(), access.owner_user_id.as_str()),
        ("viewer", owner.user_id.as_str())
    );
    for elsewhere in [&second, &own] {
        let answer = stage
            .authenticate(&key.plaintext, Some(&elsewhere.sandbox_id))
            .await
            .unwrap();
        assert_eq!(answer.access, None);
    }
    let context = stage.caller(&key.plaintext, None).await;
    let request = copass_proto::sandbox::ListSandboxesRequest::default();
    let listed = ask(stage.sandboxes().list_sandboxes(context.request(request)))
        .await
        .unwrap()
        .sandboxes;
    let names: Vec<_> = listed
        .iter()
        .map(|sandbox| (sandbox.name.as_str(), sandbox.access.as_str()))
        .collect();
    assert_eq!(names, [("one", "viewer")]);
}

async fn a_key_dies_with_the_end_of_its_grant(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let sandbox = stage.sandbox(&owner, "one").await;
    let ends = in_seconds(3600);
    let request = CreateConnectionRequest {
        expires_at: Some(convert::timestamp(ends)),
        ..new_connection(&sandbox, &other.user_id, "editor")
    };
    let connection = create(&stage, &stage.me(&owner).await, request).await.unwrap();
    let key = stage.spawn_key(&owner, &connection).await;
    assert_eq!(key.expires_at, Some(convert::timestamp(ends)));
    let answer = stage.authenticate(&key.plaintext, None).await.unwrap();
    assert_eq!(answer.expires_at, Some(convert::timestamp(ends)));
    // The grant is cut short; the key's own end is still ahead.
    let sql = "update connections set expires_at = $2 where id = $1";
    stage.sql(sql, &connection.connection_id, Some(in_seconds(60))).await;
    let sooner = stage
        .authenticate(&key.plaintext, None)
        .await
        .unwrap()
        .expires_at
        .unwrap();
    assert!(convert::instant(&sooner).unwrap() < ends);
    stage.sql(sql, &connection.connection_id, Some(clock::now())).await;
    let error = stage.authenticate(&key.plaintext, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unauthorized);
    assert!(error.detail().contains("has ended"), "{error}");
}

async fn one_idempotency_key_makes_one_grant(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let me = stage.me(&owner).await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let keyed = CreateConnectionRequest {
        idempotency_key: Some("once".to_owned()),
        ..new_connection(&sandbox, &other.user_id, "viewer")
    };
    let outcomes = futures::future::join_all((0..10).map(|_| create(&stage, &me, keyed.clone()))).await;
    let made: Vec<Connection> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(made.iter().all(|connection| *connection == made[0]));
    assert_eq!(list(&stage, &me, &sandbox.sandbox_id, true).await.len(), 1);
    let changed = CreateConnectionRequest {
        role: "editor".to_owned(),
        ..keyed
    };
    assert_eq!(
        code(create(&stage, &me, changed).await),
        Some(ErrorCode::IdempotencyConflict)
    );
}
