//! Sandboxes and their lifecycle.

use copass_errors::{Error, ErrorCode};
use copass_proto::sandbox::{
    ChangeSandboxStatusRequest, CreateSandboxRequest, DestroySandboxRequest, GetSandboxRequest, ListSandboxesRequest,
    Sandbox, UpdateSandboxRequest,
};
use copass_runtime::CallContext;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};

use crate::support::{Stage, ask, code, new_sandbox};

on_every_setup! {
    a_sandbox_is_made_with_the_contracts_defaults
    what_is_wrong_is_told_at_once
    a_name_is_good_once_per_owner_key
    one_idempotency_key_makes_one_sandbox
    lists_are_filtered
    updates_change_what_they_name
    a_suspended_sandbox_takes_no_changes
    lifecycle_calls_are_idempotent
    a_destroyed_sandbox_is_gone_and_destroying_is_idempotent
}

async fn create(stage: &Stage, me: &CallContext, request: CreateSandboxRequest) -> Result<Sandbox, Error> {
    ask(stage.sandboxes().create_sandbox(me.request(request))).await
}

async fn get(stage: &Stage, me: &CallContext, id: &str) -> Result<Sandbox, Error> {
    let request = GetSandboxRequest {
        sandbox_id: id.to_owned(),
    };
    ask(stage.sandboxes().get_sandbox(me.request(request))).await
}

async fn status(stage: &Stage, me: &CallContext, id: &str, status: &str) -> Result<Sandbox, Error> {
    let request = ChangeSandboxStatusRequest {
        sandbox_id: id.to_owned(),
        status: status.to_owned(),
    };
    ask(stage.sandboxes().change_sandbox_status(me.request(request))).await
}

async fn update(
    stage: &Stage,
    me: &CallContext,
    id: &str,
    name: Option<&str>,
    metadata: Option<&str>,
) -> Result<Sandbox, Error> {
    let text = |value: Option<&str>| value.map(str::to_owned);
    let request = UpdateSandboxRequest {
        sandbox_id: id.to_owned(),
        name: text(name),
        metadata_json: text(metadata),
    };
    ask(stage.sandboxes().update_sandbox(me.request(request))).await
}

async fn destroy(stage: &Stage, me: &CallContext, id: &str) -> Result<(), Error> {
    let request = DestroySandboxRequest {
        sandbox_id: id.to_owned(),
    };
    ask(stage.sandboxes().destroy_sandbox(me.request(request)))
        .await
        .map(|_| ())
}

async fn a_sandbox_is_made_with_the_contracts_defaults(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let me = stage.me(&person).await;
    let made = create(&stage, &me, new_sandbox("one")).await.unwrap();
    assert_eq!(
        (made.user_id.as_str(), made.owner_id.as_str()),
        (person.user_id.as_str(), "mine")
    );
    assert_eq!((made.tier.as_str(), made.status.as_str()), ("free", "active"));
    assert_eq!(
        (made.storage_provider_type.as_str(), made.metadata_json.as_str()),
        ("platform_s3", "{}")
    );
    assert_eq!((made.access.as_str(), made.is_external), ("owner", false));
    let free = made.limits.unwrap();
    assert!(free.max_data_sources > 0 && free.max_projects > 0 && free.max_storage_bytes > 0);
    assert_eq!(get(&stage, &me, &made.sandbox_id).await.unwrap(), made);
    let metadata_json = Some(r#"{"team":"ä","n":{"deep":[1,2.5,null]}}"#.to_owned());
    let pro = CreateSandboxRequest {
        tier: Some("pro".to_owned()),
        metadata_json,
        ..new_sandbox("two")
    };
    let pro = create(&stage, &me, pro).await.unwrap();
    assert!(pro.limits.unwrap().max_data_sources > free.max_data_sources);
    let read: serde_json::Value =
        serde_json::from_str(&get(&stage, &me, &pro.sandbox_id).await.unwrap().metadata_json).unwrap();
    assert_eq!(
        read,
        serde_json::json!({ "team": "ä", "n": { "deep": [1, 2.5, null] } })
    );
}

async fn what_is_wrong_is_told_at_once(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let me = stage.me(&stage.person().await).await;
    let bad = CreateSandboxRequest {
        name: " ".to_owned(),
        owner_id: "a\0".to_owned(),
        tier: Some("gold".to_owned()),
        metadata_json: Some("[]".to_owned()),
        idempotency_key: None,
    };
    let error = create(&stage, &me, bad).await.unwrap_err();
    let mut fields: Vec<&str> = error.problems().iter().map(|problem| problem.loc[1].as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["metadata", "name", "owner_id", "tier"]);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
    let large = serde_json::json!({ "a": "x".repeat(70_000) }).to_string();
    for metadata in [
        "{",
        "null",
        "1",
        "\"x\"",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":1e999}",
        &deep,
        &large,
    ] {
        let request = CreateSandboxRequest {
            metadata_json: Some(metadata.to_owned()),
            ..new_sandbox("x")
        };
        let shown: String = metadata.chars().take(60).collect();
        assert_eq!(
            code(create(&stage, &me, request).await),
            Some(ErrorCode::ValidationError),
            "{shown}"
        );
    }
    let long = new_sandbox(&"x".repeat(256));
    assert_eq!(code(create(&stage, &me, long).await), Some(ErrorCode::ValidationError));
    create(&stage, &me, new_sandbox(&"ä".repeat(255))).await.unwrap();
    assert_eq!(stage.count("select count(*) from sandboxes").await, 1);
}

async fn a_name_is_good_once_per_owner_key(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (me, other) = (
        stage.me(&stage.person().await).await,
        stage.me(&stage.person().await).await,
    );
    let made = create(&stage, &me, new_sandbox("one")).await.unwrap();
    assert_eq!(
        code(create(&stage, &me, new_sandbox("one")).await),
        Some(ErrorCode::Conflict)
    );
    let elsewhere = CreateSandboxRequest {
        owner_id: "another".to_owned(),
        ..new_sandbox("one")
    };
    create(&stage, &me, elsewhere).await.unwrap();
    create(&stage, &other, new_sandbox("one")).await.unwrap();
    create(&stage, &me, new_sandbox("two")).await.unwrap();
    assert_eq!(
        code(update(&stage, &me, &made.sandbox_id, Some("two"), None).await),
        Some(ErrorCode::Conflict)
    );
}

async fn one_idempotency_key_makes_one_sandbox(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, other) = (stage.person().await, stage.me(&stage.person().await).await);
    let me = stage.me(&person).await;
    let keyed = CreateSandboxRequest {
        idempotency_key: Some("once".to_owned()),
        ..new_sandbox("one")
    };
    let outcomes = futures::future::join_all((0..50).map(|_| create(&stage, &me, keyed.clone()))).await;
    let made: Vec<Sandbox> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(made.iter().all(|sandbox| *sandbox == made[0]));
    assert_eq!(stage.count("select count(*) from sandboxes").await, 1);
    let records = stage.audit(&person, &made[0].sandbox_id).await;
    assert_eq!(records.len(), 1, "{records:?}");
    // Another content under the key, another person, an unusable key.
    let changed = CreateSandboxRequest {
        name: "two".to_owned(),
        ..keyed.clone()
    };
    assert_eq!(
        code(create(&stage, &me, changed).await),
        Some(ErrorCode::IdempotencyConflict)
    );
    assert_ne!(
        create(&stage, &other, keyed.clone()).await.unwrap().sandbox_id,
        made[0].sandbox_id
    );
    for key in ["", "\0", &"x".repeat(256)] {
        let request = CreateSandboxRequest {
            idempotency_key: Some(key.to_owned()),
            ..new_sandbox("three")
        };
        assert_eq!(
            code(create(&stage, &me, request).await),
            Some(ErrorCode::ValidationError),
            "{key:?}"
        );
    }
    // A name that somebody else's request took stays taken.
    let late = CreateSandboxRequest {
        idempotency_key: Some("late".to_owned()),
        ..new_sandbox("one")
    };
    assert_eq!(code(create(&stage, &me, late).await), Some(ErrorCode::Conflict));
}

async fn lists_are_filtered(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, other) = (stage.person().await, stage.person().await);
    let me = stage.me(&person).await;
    let first = create(&stage, &me, new_sandbox("first")).await.unwrap();
    let second = CreateSandboxRequest {
        owner_id: "another".to_owned(),
        ..new_sandbox("second")
    };
    let second = create(&stage, &me, second).await.unwrap();
    let granted = stage.sandbox(&other, "granted").await;
    stage.sandbox(&other, "hidden").await;
    // Granted twice: it comes once, with the stronger role.
    stage.grant(&other, &granted, &person, "viewer").await;
    stage.grant(&other, &granted, &person, "editor").await;
    status(&stage, &me, &first.sandbox_id, "suspended").await.unwrap();
    let list = async |status: Option<&str>, owner_id: Option<&str>| {
        let text = |value: Option<&str>| value.map(str::to_owned);
        let request = ListSandboxesRequest {
            status: text(status),
            owner_id: text(owner_id),
        };
        ask(stage.sandboxes().list_sandboxes(me.request(request)))
            .await
            .map(|list| list.sandboxes)
    };
    let names = |list: Vec<Sandbox>| list.into_iter().map(|sandbox| sandbox.name).collect::<Vec<_>>();
    let all = list(None, None).await.unwrap();
    let shared = all.iter().find(|sandbox| sandbox.name == "granted").unwrap();
    assert_eq!((shared.access.as_str(), shared.is_external), ("editor", true));
    assert_eq!(names(all), ["first", "second", "granted"]);
    assert_eq!(names(list(Some("active"), None).await.unwrap()), ["second", "granted"]);
    assert_eq!(names(list(Some("suspended"), None).await.unwrap()), ["first"]);
    assert_eq!(names(list(Some("archived"), None).await.unwrap()), Vec::<String>::new());
    assert_eq!(names(list(None, Some("another")).await.unwrap()), [second.name]);
    assert_eq!(names(list(Some("active"), Some("mine")).await.unwrap()), ["granted"]);
    assert_eq!(code(list(Some("gone"), None).await), Some(ErrorCode::ValidationError));
}

async fn updates_change_what_they_name(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let me = stage.me(&person).await;
    let made = create(&stage, &me, new_sandbox("one")).await.unwrap();
    let id = made.sandbox_id.as_str();
    let renamed = update(&stage, &me, id, Some("two"), None).await.unwrap();
    assert_eq!(
        renamed,
        Sandbox {
            name: "two".to_owned(),
            ..made.clone()
        }
    );
    let filled = update(&stage, &me, id, None, Some(r#"{"a":1}"#)).await.unwrap();
    assert_eq!(
        (filled.name.as_str(), filled.metadata_json.as_str()),
        ("two", r#"{"a":1}"#)
    );
    let replaced = update(&stage, &me, id, None, Some(r#"{"b":2}"#)).await.unwrap();
    assert_eq!(replaced.metadata_json, r#"{"b":2}"#);
    assert_eq!(update(&stage, &me, id, None, None).await.unwrap(), replaced);
    assert_eq!(get(&stage, &me, id).await.unwrap(), replaced);
    for (name, metadata) in [(Some(""), None), (None, Some("[]")), (None, Some("{"))] {
        assert_eq!(
            code(update(&stage, &me, id, name, metadata).await),
            Some(ErrorCode::ValidationError)
        );
    }
    // Two changes at once lose nothing.
    let (name, metadata) = tokio::join!(
        update(&stage, &me, id, Some("three"), None),
        update(&stage, &me, id, None, Some(r#"{"c":3}"#))
    );
    assert!(name.is_ok() && metadata.is_ok(), "{name:?} {metadata:?}");
    let both = get(&stage, &me, id).await.unwrap();
    assert_eq!(
        (both.name.as_str(), both.metadata_json.as_str()),
        ("three", r#"{"c":3}"#)
    );
    let updates = stage
        .audit(&person, id)
        .await
        .into_iter()
        .filter(|record| record.action == "sandbox.update")
        .count();
    assert_eq!(updates, 5);
}

async fn a_suspended_sandbox_takes_no_changes(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, grantee) = (stage.person().await, stage.person().await);
    let me = stage.me(&person).await;
    let sandbox = stage.sandbox(&person, "one").await;
    let connection = stage.grant(&person, &sandbox, &grantee, "viewer").await;
    for state in ["suspended", "archived"] {
        status(&stage, &me, &sandbox.sandbox_id, state).await.unwrap();
        let renamed = update(&stage, &me, &sandbox.sandbox_id, Some("two"), None).await;
        assert_eq!(code(renamed), Some(ErrorCode::SandboxNotActive), "{state}");
        let grant = crate::support::new_connection(&sandbox, &grantee.user_id, "editor");
        let granted = ask(stage.sandboxes().create_connection(me.request(grant))).await;
        assert_eq!(code(granted), Some(ErrorCode::SandboxNotActive), "{state}");
        assert_eq!(get(&stage, &me, &sandbox.sandbox_id).await.unwrap().status, state);
    }
    // Ending a grant is always possible.
    let request = copass_proto::sandbox::RevokeConnectionRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
        connection_id: connection.connection_id,
    };
    ask(stage.sandboxes().revoke_connection(me.request(request)))
        .await
        .unwrap();
    status(&stage, &me, &sandbox.sandbox_id, "active").await.unwrap();
    update(&stage, &me, &sandbox.sandbox_id, Some("two"), None)
        .await
        .unwrap();
}

async fn lifecycle_calls_are_idempotent(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let me = stage.me(&person).await;
    let id = stage.sandbox(&person, "one").await.sandbox_id;
    for state in [
        "active",
        "suspended",
        "suspended",
        "archived",
        "archived",
        "active",
        "active",
    ] {
        let outcomes = futures::future::join_all((0..3).map(|_| status(&stage, &me, &id, state))).await;
        assert!(outcomes.into_iter().all(|outcome| outcome.unwrap().status == state));
    }
    assert_eq!(
        code(status(&stage, &me, &id, "gone").await),
        Some(ErrorCode::ValidationError)
    );
    let actions: Vec<String> = stage
        .audit(&person, &id)
        .await
        .into_iter()
        .rev()
        .map(|record| record.action)
        .collect();
    assert_eq!(
        actions,
        [
            "sandbox.create",
            "sandbox.suspend",
            "sandbox.archive",
            "sandbox.reactivate"
        ]
    );
    let told: Vec<_> = stage
        .outbox()
        .await
        .into_iter()
        .map(|(_, body)| body["sandbox_id"].clone())
        .collect();
    assert_eq!(told, vec![serde_json::Value::from(id); 3]);
}

async fn a_destroyed_sandbox_is_gone_and_destroying_is_idempotent(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, other) = (stage.person().await, stage.person().await);
    let (me, stranger) = (stage.me(&person).await, stage.me(&other).await);
    let sandbox = stage.sandbox(&person, "one").await;
    let id = sandbox.sandbox_id.as_str();
    let connection = stage.grant(&person, &sandbox, &other, "editor").await;
    let key = stage.spawn_key(&person, &connection).await;
    let before = stage.outbox().await.len();
    assert_eq!(code(destroy(&stage, &stranger, id).await), Some(ErrorCode::Forbidden));
    let outcomes = futures::future::join_all((0..4).map(|_| destroy(&stage, &me, id))).await;
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()));
    destroy(&stage, &me, id).await.unwrap();
    for context in [&me, &stranger] {
        assert_eq!(code(get(&stage, context, id).await), Some(ErrorCode::NotFound));
    }
    for foreign in [id, "sb_01JAAAAAAAAAAAAAAAAAAAAAAA", "nonsense", ""] {
        assert_eq!(
            code(destroy(&stage, &stranger, foreign).await),
            Some(ErrorCode::NotFound),
            "{foreign}"
        );
    }
    assert_eq!(
        code(stage.authenticate(&key.plaintext, None).await),
        Some(ErrorCode::Unauthorized)
    );
    for sql in [
        "select count(*) from sandboxes",
        "select count(*) from connections",
        "select count(*) from projects",
    ] {
        assert_eq!(stage.count(sql).await, 0, "{sql}");
    }
    let told: Vec<String> = stage
        .outbox()
        .await
        .into_iter()
        .skip(before)
        .map(|(to, body)| {
            assert_eq!(body["sandbox_id"], id);
            to
        })
        .collect();
    let owners = [
        "copass.agent-runner.tenancy",
        "copass.trigger-dispatcher.tenancy",
        "copass.ingestion.tenancy",
    ];
    assert_eq!(told, [&owners[..], &["copass.identity.revoked"]].concat());
    let destroyed = ("sandbox.destroy".to_owned(), "ok".to_owned());
    assert_eq!(
        stage
            .log()
            .await
            .into_iter()
            .filter(|entry| *entry == destroyed)
            .count(),
        1
    );
    // The name is free again, and the primary sandbox is forgotten.
    stage.sandbox(&person, "one").await;
}
