//! Sandboxes, grants and the audit log.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Place, SANDBOX, profile, read, sandbox, write};

#[tokio::test]
async fn list_show_and_create() {
    let place = Place::ready().await;
    let shared = json!({"sandbox_id": "sb_other", "user_id": "u", "owner_id": "o", "name": "a very different one",
        "tier": "pro", "status": "suspended", "storage_provider_type": "platform_s3",
        "limits": {"max_data_sources": 1, "max_projects": 1, "max_storage_bytes": 1}, "metadata": {},
        "created_at": null, "access": "viewer", "is_external": true});
    place
        .on(
            "GET",
            "/api/v1/storage/sandboxes",
            200,
            &json!({"sandboxes": [sandbox("main"), shared], "count": 2}),
        )
        .await;
    place.in_sandbox("GET", "", 200, &sandbox("main")).await;
    place.on("GET", "/api/v1/users/me/profile", 200, &profile()).await;
    place
        .on("POST", "/api/v1/storage/sandboxes", 201, &sandbox("new"))
        .await;
    assert_snapshot!(place.run(&["sandbox", "list"]).await, @r#"
        exit 0
        --- stdout
        ID                             NAME                  STATUS     ACCESS  TIER  CREATED
        sb_01J9Z0000000000000000000AA  main                  active     owner   free  2026-04-30 14:25:18Z  *
        sb_other                       a very different one  suspended  viewer  pro   -
        --- stderr
        "#);
    assert_snapshot!(place.run(&["sandbox", "show"]).await, @r#"
        exit 0
        --- stdout
        id       sb_01J9Z0000000000000000000AA
        name     main
        status   active
        access   owner
        tier     free
        owner    me
        limits   10 sources, 5 projects, 1000 bytes
        created  2026-04-30 14:25:18Z
        --- stderr
        "#);
    assert_snapshot!(place.run(&["sandbox", "create", "new", "--tier", "pro"]).await, @r#"
        exit 0
        --- stdout
        Created sandbox new (sb_01J9Z0000000000000000000AA).
        --- stderr
        Work in it with `copass sandbox use sb_01J9Z0000000000000000000AA`.
        "#);
    assert_eq!(
        place.sent("POST", "/sandboxes").await,
        [json!({"name": "new", "tier": "pro", "owner_id": "0b8f3c52-7a1e-4c0e-9a55-0123456789ab"})]
    );
}

#[tokio::test]
async fn no_sandboxes_yet() {
    let place = Place::ready().await;
    place
        .on(
            "GET",
            "/api/v1/storage/sandboxes",
            200,
            &json!({"sandboxes": [], "count": 0}),
        )
        .await;
    assert_snapshot!(place.run(&["sandbox", "list"]).await, @r#"
        exit 0
        --- stdout
        No sandboxes. Create one with `copass setup` or `copass sandbox create <name>`.
        --- stderr
        "#);
}

#[tokio::test]
async fn using_another_one_forgets_what_belonged_to_the_first() {
    let place = Place::ready().await.env("COPASS_SANDBOX_ID", "");
    place.in_sandbox("GET", "", 200, &sandbox("main")).await;
    let before = json!({"sandbox_id": "sb_old", "project_id": "pj", "data_source_id": "ds", "theirs": 1});
    write(&place.refs(), &before);
    let below = place.work().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    assert_snapshot!(place.run_in(&below, &["sandbox", "use", SANDBOX], "").await, @r#"
        exit 0
        --- stdout
        Now using sandbox main (sb_01J9Z0000000000000000000AA), noted in [work]/.olane/refs.json.
        --- stderr
        "#);
    assert_eq!(read(&place.refs()), json!({"sandbox_id": SANDBOX, "theirs": 1}));
}

fn changed(status: &str) -> Value {
    json!({"success": true, "message": "done", "sandbox_id": SANDBOX, "status": status})
}

#[tokio::test]
async fn lifecycle() {
    let place = Place::ready().await;
    place.in_sandbox("POST", "/suspend", 200, &changed("suspended")).await;
    place
        .in_sandbox(
            "POST",
            "/reactivate",
            200,
            &json!({"success": true, "message": null, "status": null}),
        )
        .await;
    place.in_sandbox("POST", "/archive", 200, &changed("archived")).await;
    let mut destroyed = changed("active");
    destroyed["deleted"] = json!(true);
    place.in_sandbox("DELETE", "", 200, &destroyed).await;
    assert_snapshot!(place.run(&["sandbox", "suspend", SANDBOX]).await, @r#"
        exit 0
        --- stdout
        Sandbox sb_01J9Z0000000000000000000AA: suspended.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["sandbox", "reactivate", SANDBOX]).await, @r#"
        exit 0
        --- stdout
        Sandbox sb_01J9Z0000000000000000000AA: active.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["sandbox", "archive", SANDBOX, "--yes"]).await, @r#"
        exit 0
        --- stdout
        Sandbox sb_01J9Z0000000000000000000AA: archived.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["sandbox", "destroy", SANDBOX, "-y"]).await, @r#"
        exit 0
        --- stdout
        Sandbox sb_01J9Z0000000000000000000AA: destroyed.
        --- stderr
        "#);
}

#[tokio::test]
async fn nothing_is_destroyed_without_consent() {
    let place = Place::ready().await;
    assert_snapshot!(place.run_with(&["sandbox", "archive", SANDBOX], "main\n").await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: refusing to archive a sandbox without confirmation

        hint: pass --yes to confirm
        "#);
    assert_snapshot!(place.run(&["sandbox", "destroy", SANDBOX]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: refusing to destroy a sandbox without confirmation

        hint: pass --yes to confirm
        "#);
    assert_snapshot!(place.run(&["sandbox", "destroy", SANDBOX, "--json"]).await, @r#"
        exit 2
        --- stdout
        {"detail":"refusing to destroy a sandbox without confirmation","error":"usage","status":0}
        --- stderr
        "#);
    assert_snapshot!(place.run(&["connection", "revoke", "cn_1"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: refusing to revoke a grant without confirmation

        hint: pass --yes to confirm
        "#);
    assert_eq!(place.calls().await, 0);
}

fn grant() -> Value {
    json!({
        "connection_id": "cn_1", "sandbox_id": SANDBOX, "user_id": "u-2", "copass_id": "bob", "role": "editor",
        "project_id": null, "label": "@bob", "expires_at": null, "revoked_at": null, "created_by": "u",
        "created_at": "2026-04-30T14:25:18.000000Z", "status": "active", "next_step": "tell bob",
    })
}

#[tokio::test]
async fn grants() {
    let place = Place::ready().await.env("COPASS_PROJECT_ID", "pj_of_the_directory");
    let mut nameless = grant();
    nameless["copass_id"] = json!(null);
    nameless["label"] = json!(null);
    place
        .in_sandbox("GET", "/connections", 200, &json!([grant(), nameless]))
        .await;
    place.in_sandbox("POST", "/connections", 201, &grant()).await;
    place
        .in_sandbox(
            "DELETE",
            "/connections/cn_1",
            200,
            &json!({"success": true, "message": "gone", "connection_id": "cn_1", "revoked": true, "cascaded_keys": 2}),
        )
        .await;
    place
        .in_sandbox(
            "POST",
            "/connections/cn_1/api-keys",
            201,
            &json!({"api_key_id": "ak_9", "key_id": "ak_9", "plaintext_key": "olk_c", "key": "olk_c",
                "key_prefix": "olk_c", "expires_at": null, "warning": null}),
        )
        .await;
    assert_snapshot!(place.run(&["connection", "list"]).await, @r#"
        exit 0
        --- stdout
        ID    WHO   ROLE    STATUS  PROJECT  LABEL  ENDS  CREATED
        cn_1  @bob  editor  active  -        @bob   -     2026-04-30 14:25:18Z
        cn_1  u-2   editor  active  -        -      -     2026-04-30 14:25:18Z
        --- stderr
        "#);
    assert_snapshot!(place.run(&["connection", "grant", "@bob", "--role", "editor"]).await, @r#"
        exit 0
        --- stdout
        @bob is now editor of sb_01J9Z0000000000000000000AA (cn_1).
        --- stderr
        tell bob
        "#);
    place
        .run(&[
            "connection",
            "grant",
            "bob",
            "--role",
            "viewer",
            "--project",
            "pj_1",
            "--expires-at",
            "2027-01-01T00:00:00Z",
        ])
        .await;
    assert_eq!(
        place.sent("POST", "/connections").await,
        [
            json!({"copass_id": "@bob", "role": "editor"}),
            json!({"copass_id": "bob", "role": "viewer", "project_id": "pj_1",
                "expires_at": "2027-01-01T00:00:00.000000Z"}),
        ]
    );
    assert_snapshot!(place.run(&["connection", "grant", "@bob", "--role", "owner"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: invalid value 'owner' for '--role <ROLE>'
          [possible values: viewer, editor]

        For more information, try '--help'.
        "#);
    assert_snapshot!(place.run(&["connection", "key", "cn_1"]).await, @r#"
        exit 0
        --- stdout
        olk_c
        --- stderr
        Key ak_9 of the grant cn_1. Pass it on safely: it is not shown again.
        "#);
    assert_snapshot!(place.run(&["connection", "revoke", "cn_1", "--yes"]).await, @r#"
        exit 0
        --- stdout
        Revoked cn_1 and 2 of its keys.
        --- stderr
        "#);
}

#[tokio::test]
async fn audit() {
    let place = Place::ready().await;
    let record = json!({
        "id": "au_1", "at": "2026-04-30T14:25:18.000000Z", "sandbox_id": SANDBOX,
        "actor": {"user_id": "u-1", "kind": "api_key", "api_key_id": "ak_1"}, "action": "sandbox.archive",
        "target": SANDBOX, "before": {"status": "active"}, "after": {"status": "archived"}, "result": "ok",
        "request_id": "req_1",
    });
    place
        .in_sandbox("GET", "/audit", 200, &json!({"records": [record], "count": 1}))
        .await;
    assert_snapshot!(place.run(&["audit", "list", "--limit", "5"]).await, @r#"
        exit 0
        --- stdout
        ID    AT                    WHO         ACTION           TARGET                         RESULT
        au_1  2026-04-30 14:25:18Z  u-1 (ak_1)  sandbox.archive  sb_01J9Z0000000000000000000AA  ok
        --- stderr
        "#);
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.query(), Some("limit=5"));
    let full = place.run(&["audit", "list", "--limit", "1"]).await;
    assert!(
        full.ends_with("--- stderr\nOlder records: `copass audit list --before au_1 --limit 1`.\n"),
        "{full}"
    );
    let json = place.run(&["audit", "list", "--limit", "1", "--json"]).await;
    assert!(json.ends_with("--- stderr\n"), "{json}");
}
