//! The audit log: each change once, with the whole chain of who; refusals too; never changed afterwards.

use copass_errors::ErrorCode;
use copass_proto::{
    identity::{CreateProfileRequest, RevokeApiKeyRequest, SetHandleRequest},
    sandbox::{
        ChangeSandboxStatusRequest, DestroySandboxRequest, GetSandboxRequest, ListAuditRecordsRequest,
        RevokeConnectionRequest, UpdateSandboxRequest,
    },
};
use copass_store::execute;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};
use serde_json::{Value, json};

use crate::support::{Stage, ask, code, gateway, new_connection, new_sandbox};

on_every_setup! {
    each_change_is_recorded_once_with_before_and_after
    a_record_names_the_whole_chain
    refusals_are_recorded_and_do_not_hurt
    pages_go_back_in_time
    records_cannot_be_changed
}

async fn each_change_is_recorded_once_with_before_and_after(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let me = stage.me(&owner).await;
    let (mut identity, mut sandboxes) = (stage.identity(), stage.sandboxes());
    let skip = stage.log().await.len();

    let profile = CreateProfileRequest {
        display_name: Some("Alice".to_owned()),
        canonical_id: None,
    };
    ask(identity.create_profile(me.request(profile))).await.unwrap();
    ask(identity.set_handle(me.request(SetHandleRequest {
        copass_id: "alice".to_owned(),
    })))
    .await
    .unwrap();
    let key = stage.api_key(&owner).await.key.unwrap();
    ask(identity.revoke_api_key(me.request(RevokeApiKeyRequest { id: key.id.clone() })))
        .await
        .unwrap();
    let sandbox = ask(sandboxes.create_sandbox(me.request(new_sandbox("one"))))
        .await
        .unwrap();
    let sandbox_id = sandbox.sandbox_id.clone();
    let renamed = UpdateSandboxRequest {
        sandbox_id: sandbox_id.clone(),
        name: Some("two".to_owned()),
        metadata_json: None,
    };
    ask(sandboxes.update_sandbox(me.request(renamed))).await.unwrap();
    let connection = new_connection(&sandbox, &other.user_id, "editor");
    let connection = ask(sandboxes.create_connection(me.request(connection))).await.unwrap();
    let spawned = stage.spawn_key(&owner, &connection).await;
    let connection_id = connection.connection_id.clone();
    let revoke = RevokeConnectionRequest {
        sandbox_id: sandbox_id.clone(),
        connection_id: connection_id.clone(),
    };
    ask(sandboxes.revoke_connection(me.request(revoke))).await.unwrap();
    for status in ["suspended", "archived", "active"] {
        let change = ChangeSandboxStatusRequest {
            sandbox_id: sandbox_id.clone(),
            status: status.to_owned(),
        };
        ask(sandboxes.change_sandbox_status(me.request(change))).await.unwrap();
    }
    let records = stage.audit(&owner, &sandbox_id).await;
    ask(sandboxes.destroy_sandbox(me.request(DestroySandboxRequest {
        sandbox_id: sandbox_id.clone(),
    })))
    .await
    .unwrap();

    let log: Vec<_> = stage.log().await.into_iter().skip(skip).collect();
    assert!(log.iter().all(|(_, result)| result == "ok"), "{log:?}");
    let actions: Vec<&str> = log.iter().map(|(action, _)| action.as_str()).collect();
    let of_the_sandbox = [
        "sandbox.create",
        "sandbox.update",
        "connection.create",
        "connection.key_create",
        "connection.revoke",
        "sandbox.suspend",
        "sandbox.archive",
        "sandbox.reactivate",
    ];
    let all = [
        &["profile.create", "handle.set", "api_key.create", "api_key.revoke"][..],
        &of_the_sandbox,
        &["sandbox.destroy"],
    ];
    assert_eq!(actions, all.concat());
    assert_eq!(
        records
            .iter()
            .rev()
            .map(|record| record.action.as_str())
            .collect::<Vec<_>>(),
        of_the_sandbox
    );
    let find = |action: &str| records.iter().find(|record| record.action == action).unwrap();
    let json = |text: &Option<String>| -> Value { serde_json::from_str(text.as_deref().unwrap_or("null")).unwrap() };
    let update = find("sandbox.update");
    assert_eq!(
        (&json(&update.before_json)["name"], &json(&update.after_json)["name"]),
        (&json!("one"), &json!("two"))
    );
    assert_eq!(
        (update.target.as_str(), update.result.as_str()),
        (sandbox_id.as_str(), "ok")
    );
    let suspend = find("sandbox.suspend");
    assert_eq!(
        (
            &json(&suspend.before_json)["status"],
            &json(&suspend.after_json)["status"]
        ),
        (&json!("active"), &json!("suspended"))
    );
    let made = find("connection.key_create");
    assert_eq!(
        (json(&made.after_json)["api_key_id"].as_str(), &made.target),
        (Some(spawned.api_key_id.as_str()), &connection_id)
    );
    assert_eq!(json(&find("connection.revoke").after_json)["cascaded_keys"], 1);
}

async fn a_record_names_the_whole_chain(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    let key = stage.api_key(&owner).await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let mut caller = stage.caller(&key.plaintext, Some(&sandbox.sandbox_id)).await;
    caller.principal.request_id = "req_seen".to_owned();
    let update = UpdateSandboxRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
        name: Some("two".to_owned()),
        metadata_json: None,
    };
    ask(stage.sandboxes().update_sandbox(caller.request(update)))
        .await
        .unwrap();
    let record = stage.audit(&owner, &sandbox.sandbox_id).await.remove(0);
    let actor: Value = serde_json::from_str(&record.actor_json).unwrap();
    let expected = json!({
        "kind": "api_key", "user_id": owner.user_id, "api_key_id": key.key.unwrap().id, "connection_id": null,
        "role": "owner", "run_id": null, "via": ["gateway", "concierge"], "remote_address": "203.0.113.9",
    });
    assert_eq!((actor, record.request_id.as_str()), (expected, "req_seen"));
}

async fn refusals_are_recorded_and_do_not_hurt(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, editor, stranger) = (stage.person().await, stage.person().await, stage.person().await);
    let sandbox = stage.sandbox(&owner, "one").await;
    stage.grant(&owner, &sandbox, &editor, "editor").await;
    let destroy = DestroySandboxRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
    };
    let outcome = ask(stage
        .sandboxes()
        .destroy_sandbox(stage.me(&editor).await.request(destroy)))
    .await;
    assert_eq!(code(outcome), Some(ErrorCode::Forbidden));
    let get = GetSandboxRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
    };
    let outcome = ask(stage.sandboxes().get_sandbox(stage.me(&stranger).await.request(get))).await;
    assert_eq!(code(outcome), Some(ErrorCode::NotFound));
    // What a request names is kept, but it cannot break or fill the log.
    let revoke = |connection_id: String| RevokeConnectionRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
        connection_id,
    };
    for target in ["cn_\0evil".to_owned(), "x".repeat(100_000)] {
        let outcome = ask(stage
            .sandboxes()
            .revoke_connection(stage.me(&owner).await.request(revoke(target))))
        .await;
        assert_eq!(code(outcome), Some(ErrorCode::NotFound));
    }
    let records = stage.audit(&owner, &sandbox.sandbox_id).await;
    let seen: Vec<(&str, &str, usize)> = records
        .iter()
        .map(|record| (record.action.as_str(), record.result.as_str(), record.target.len()))
        .take(4)
        .collect();
    assert_eq!(
        seen,
        [
            ("connection.revoke", "not_found", 256),
            ("connection.revoke", "not_found", "cn_evil".len()),
            ("sandbox.get", "not_found", 29),
            ("sandbox.destroy", "forbidden", 29),
        ]
    );
    let who: Value = serde_json::from_str(&records[3].actor_json).unwrap();
    assert_eq!(who["user_id"], json!(editor.user_id));
}

async fn pages_go_back_in_time(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    let sandbox = stage.sandbox(&owner, "0").await;
    let me = stage.me(&owner).await;
    for name in 1..25 {
        let update = UpdateSandboxRequest {
            sandbox_id: sandbox.sandbox_id.clone(),
            name: Some(name.to_string()),
            metadata_json: None,
        };
        ask(stage.sandboxes().update_sandbox(me.request(update))).await.unwrap();
    }
    let page = async |limit: u32, before: Option<&str>| {
        let request = ListAuditRecordsRequest {
            sandbox_id: sandbox.sandbox_id.clone(),
            limit,
            before: before.map(str::to_owned),
        };
        ask(stage.sandboxes().list_audit_records(me.request(request)))
            .await
            .map(|list| list.records)
    };
    let all = page(0, None).await.unwrap();
    assert_eq!(all.len(), 25);
    assert_eq!(page(u32::MAX, None).await.unwrap(), all);
    let mut joined: Vec<copass_proto::sandbox::AuditRecord> = Vec::new();
    loop {
        let before = joined.last().map(|record| record.id.clone());
        let next = page(10, before.as_deref()).await.unwrap();
        if next.is_empty() {
            break;
        }
        joined.extend(next);
    }
    assert_eq!(joined, all);
    for before in ["", "nonsense", "\0", &sandbox.sandbox_id] {
        assert_eq!(
            code(page(1, Some(before)).await),
            Some(ErrorCode::ValidationError),
            "{before:?}"
        );
    }
    assert_eq!(
        code(
            ask(stage
                .sandboxes()
                .list_audit_records(gateway().request(Default::default())))
            .await
        ),
        Some(ErrorCode::NotFound)
    );
}

async fn records_cannot_be_changed(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    stage.sandbox(&owner, "one").await;
    let before = stage.log().await;
    for sql in ["update audit_records set result = 'ok'", "delete from audit_records"] {
        let mut tx = stage.database.begin().await.unwrap();
        assert!(execute!(tx, sql).is_err(), "{sql}");
    }
    assert_eq!(stage.log().await, before);
}
