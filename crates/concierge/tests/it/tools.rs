//! Tool calls that come back from a run: name, role, arguments and credential are checked again.

use copass_errors::ErrorCode;
use copass_proto::{
    concierge::{CallToolRequest, CallToolResponse},
    identity::RevokeApiKeyRequest,
    sandbox::{RevokeConnectionRequest, Sandbox},
};
use copass_runtime::CallContext;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};
use copass_types::RunId;
use serde_json::{Value, json};

use crate::support::{Stage, ask, code};

on_every_setup! {
    a_tool_call_is_made_for_its_run_and_its_person
    unknown_and_hidden_tools_look_alike
    wrong_arguments_name_the_key
    rights_are_those_of_the_moment
    a_key_that_was_revoked_between_calls_nothing
    failures_of_the_owners_are_told
}

pub(crate) async fn call(
    stage: &Stage,
    caller: &CallContext,
    sandbox: &Sandbox,
    name: &str,
    arguments: &str,
) -> CallToolResponse {
    let run_id = RunId::generate();
    let mut context = caller.clone();
    context.principal.run_id = Some(run_id.clone());
    let request = CallToolRequest {
        sandbox_id: sandbox.sandbox_id.clone(),
        run_id: run_id.to_string(),
        call_id: "call_1".to_owned(),
        name: name.to_owned(),
        arguments_json: arguments.to_owned(),
    };
    ask(stage.chats().call_tool(context.request(request))).await.unwrap()
}

fn result(response: &CallToolResponse) -> Value {
    serde_json::from_str(&response.result_json).unwrap()
}

/// The error of a failed call, which is told in the result and beside it alike.
fn failure(response: &CallToolResponse) -> (String, String) {
    let result = result(response);
    let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
    let (code, detail) = (text("error"), text("detail"));
    assert_eq!(response.error.as_deref(), Some(format!("{code}: {detail}").as_str()));
    (code, detail)
}

async fn a_tool_call_is_made_for_its_run_and_its_person(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let me = stage.caller(&owner.access_token, Some(&sandbox.sandbox_id)).await;
    let answer = call(&stage, &me, &sandbox, "list_agents", "").await;
    assert_eq!(
        (answer.error.as_deref(), result(&answer)["count"].as_u64()),
        (None, Some(2))
    );
    let rows = &result(&answer)["agents"];
    assert!(rows[0].get("warnings").is_none(), "{rows}");
    assert_eq!(
        rows[1]["warnings"][0],
        "no tool was offered to the model; it can only talk"
    );
    let (method, context) = stage.fakes.calls().remove(0);
    assert_eq!(
        (method, context.principal.user_id.unwrap().as_str()),
        ("list_agents", owner.user_id.as_str())
    );
    assert!(context.principal.run_id.is_some());
    // Without a run, or for another one.
    for run_id in [None, Some(RunId::generate())] {
        let mut context = me.clone();
        context.principal.run_id = run_id;
        let request = CallToolRequest {
            sandbox_id: sandbox.sandbox_id.clone(),
            run_id: RunId::generate().to_string(),
            name: "list_agents".to_owned(),
            ..CallToolRequest::default()
        };
        let outcome = ask(stage.chats().call_tool(context.request(request))).await;
        assert_eq!(code(outcome), Some(ErrorCode::Forbidden));
    }
    assert_eq!(stage.fakes.calls().len(), 1);
    let denied = ("concierge.call_tool".to_owned(), "forbidden".to_owned());
    assert_eq!(
        stage.log().await.into_iter().filter(|entry| *entry == denied).count(),
        2
    );
}

async fn unknown_and_hidden_tools_look_alike(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, viewer) = (stage.person().await, stage.person().await);
    let sandbox = stage.sandbox(&owner, "one").await;
    stage.grant(&owner, &sandbox, &viewer, "viewer").await;
    let (me, viewer) = (stage.me(&owner).await, stage.me(&viewer).await);
    let good = r#"{"slug":"x","name":"X","system_prompt":"Be kind."}"#;
    let hidden = failure(&call(&stage, &viewer, &sandbox, "create_agent", good).await);
    assert_eq!(hidden.0, "not_found");
    assert!(hidden.1.starts_with("unknown tool"), "{hidden:?}");
    for name in [
        "nonsense",
        "destroy_sandbox",
        "",
        "create_agent ",
        "\0",
        "list_agents\n",
    ] {
        for caller in [&me, &viewer] {
            assert_eq!(
                failure(&call(&stage, caller, &sandbox, name, "{}").await),
                hidden,
                "{name:?}"
            );
        }
    }
    // Wrong arguments tell a viewer nothing either.
    assert_eq!(
        failure(&call(&stage, &viewer, &sandbox, "create_agent", "{}").await),
        hidden
    );
    assert_eq!(stage.fakes.created(), []);
    assert_eq!(call(&stage, &me, &sandbox, "create_agent", good).await.error, None);
    assert_eq!(stage.fakes.created().len(), 1);
    let records = stage.audit(&owner, &sandbox.sandbox_id).await;
    let denied: Vec<_> = records
        .iter()
        .filter(|record| record.target == "create_agent")
        .collect();
    assert_eq!(denied.len(), 2);
    assert!(
        denied
            .iter()
            .all(|record| record.action == "concierge.call_tool" && record.result == "not_found")
    );
}

async fn wrong_arguments_name_the_key(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let me = stage.me(&owner).await;
    let secret = "olk_thisLooksLikeASecret";
    let agent = |change: Value| {
        let mut arguments = json!({ "slug": "x", "name": "X", "system_prompt": "Be kind." });
        arguments
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        arguments.to_string()
    };
    for (tool, arguments, key) in [
        ("list_agents", r#"{"colour":"red"}"#.to_owned(), "colour"),
        ("list_sources", r#"{"provider":1}"#.to_owned(), "provider"),
        ("get_agent", "{}".to_owned(), "slug"),
        ("get_agent", r#"{"slug":""}"#.to_owned(), "slug"),
        ("get_agent", r#"{"slug":null}"#.to_owned(), "slug"),
        ("list_runs", r#"{"agent_slug":"x","limit":0}"#.to_owned(), "limit"),
        ("list_runs", r#"{"agent_slug":"x","limit":51}"#.to_owned(), "limit"),
        ("list_runs", r#"{"agent_slug":"x","limit":"ten"}"#.to_owned(), "limit"),
        ("list_runs", r#"{"agent_slug":"x","limit":1.5}"#.to_owned(), "limit"),
        ("list_api_keys", r#"{"kinds":["connection"]}"#.to_owned(), "kinds"),
        (
            "list_api_keys",
            r#"{"include_revoked":"yes"}"#.to_owned(),
            "include_revoked",
        ),
        ("list_sandboxes", r#"{"sandbox_id":"sb_1"}"#.to_owned(), "sandbox_id"),
        ("create_agent", agent(json!({ "slug": "Not A Slug" })), "slug"),
        ("create_agent", agent(json!({ "temperature": 2.5 })), "temperature"),
        ("create_agent", agent(json!({ "max_tokens": 0 })), "max_tokens"),
        (
            "create_agent",
            agent(json!({ "max_tokens": 5_000_000_000_u64 })),
            "max_tokens",
        ),
        ("create_agent", agent(json!({ "backend": "other" })), "backend"),
        (
            "create_agent",
            agent(json!({ "tool_allowlist": "search" })),
            "tool_allowlist",
        ),
        (
            "create_agent",
            agent(json!({ "name": secret, "extra": secret })),
            "extra",
        ),
        ("create_agent", agent(json!({ "backend": secret })), "backend"),
        ("get_agent", "[]".to_owned(), "arguments"),
        ("get_agent", "\"slug\"".to_owned(), "arguments"),
        ("get_agent", "{".to_owned(), "arguments"),
    ] {
        let answer = call(&stage, &me, &sandbox, tool, &arguments).await;
        let error = answer.error.clone().unwrap();
        assert!(
            error.starts_with("invalid_input: ") && error.contains(key),
            "{tool} {arguments}: {error}"
        );
        // What was given may be a secret or a book; it does not come back.
        assert!(!format!("{answer:?}").contains(secret), "{answer:?}");
        // Tools whose results have no error form say it beside the result only.
        if tool.starts_with("list_a") && tool == "list_agents" || tool == "list_sources" || tool == "list_sandboxes" {
            assert_eq!(result(&answer), json!({}));
        } else {
            failure(&answer);
        }
    }
    assert_eq!(stage.fakes.calls().len(), 0);
    // A whole number is one however it is written.
    assert_eq!(
        call(&stage, &me, &sandbox, "list_runs", r#"{"agent_slug":"x","limit":7.0}"#)
            .await
            .error,
        None
    );
    assert_eq!(
        call(&stage, &me, &sandbox, "list_runs", r#"{"agent_slug":"x"}"#)
            .await
            .error,
        None
    );
    assert_eq!(stage.fakes.list_limits(), [7, 10]);
}

async fn rights_are_those_of_the_moment(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let sandbox = stage.sandbox(&owner, "one").await;
    let editor = stage.grant(&owner, &sandbox, &other, "editor").await;
    let viewer = stage.grant(&owner, &sandbox, &other, "viewer").await;
    // What the model was offered, it was offered to an editor.
    let caller = stage.caller(&other.access_token, Some(&sandbox.sandbox_id)).await;
    assert_eq!(caller.principal.access.as_ref().unwrap().role.as_str(), "editor");
    let good = r#"{"slug":"x","name":"X","system_prompt":"Be kind."}"#;
    let revoke = async |connection_id: String| {
        let request = RevokeConnectionRequest {
            sandbox_id: sandbox.sandbox_id.clone(),
            connection_id,
        };
        ask(stage
            .sandboxes()
            .revoke_connection(stage.me(&owner).await.request(request)))
        .await
        .unwrap();
    };
    revoke(editor.connection_id).await;
    let answer = call(&stage, &caller, &sandbox, "create_agent", good).await;
    assert!(failure(&answer).1.starts_with("unknown tool"));
    assert_eq!(call(&stage, &caller, &sandbox, "list_agents", "{}").await.error, None);
    // The owners of things see the role of the moment too.
    let role = stage.fakes.calls().pop().unwrap().1.principal.access.unwrap().role;
    assert_eq!(role.as_str(), "viewer");
    revoke(viewer.connection_id).await;
    let answer = call(&stage, &caller, &sandbox, "get_agent", r#"{"slug":"x"}"#).await;
    assert_eq!(failure(&answer).0, "not_found");
    assert_eq!((stage.fakes.created(), stage.fakes.calls().len()), (vec![], 1));
    let denied = ("concierge.call_tool".to_owned(), "not_found".to_owned());
    assert_eq!(
        stage.log().await.into_iter().filter(|entry| *entry == denied).count(),
        2
    );
}

async fn a_key_that_was_revoked_between_calls_nothing(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (owner, other) = (stage.person().await, stage.person().await);
    let sandbox = stage.sandbox(&owner, "one").await;
    let key = stage.api_key(&owner).await;
    let connection = stage.grant(&owner, &sandbox, &other, "editor").await;
    let spawned = stage.spawn_key(&owner, &connection).await;
    let callers = [
        stage.caller(&key.plaintext, Some(&sandbox.sandbox_id)).await,
        stage.caller(&spawned.plaintext, Some(&sandbox.sandbox_id)).await,
    ];
    for caller in &callers {
        assert_eq!(call(&stage, caller, &sandbox, "list_agents", "").await.error, None);
    }
    let revoke = RevokeApiKeyRequest {
        id: key.key.unwrap().id,
    };
    ask(stage.identity().revoke_api_key(stage.me(&owner).await.request(revoke)))
        .await
        .unwrap();
    let sql = "update api_keys set expires_at = $2 where id = $1";
    stage
        .sql(sql, &spawned.api_key_id, Some(copass_runtime::clock::now()))
        .await;
    for caller in &callers {
        let answer = call(&stage, caller, &sandbox, "get_agent", r#"{"slug":"x"}"#).await;
        assert_eq!(failure(&answer).0, "forbidden");
    }
    assert_eq!(stage.fakes.calls().len(), 2);
    let denied = ("concierge.call_tool".to_owned(), "unauthorized".to_owned());
    assert_eq!(
        stage.log().await.into_iter().filter(|entry| *entry == denied).count(),
        2
    );
}

async fn failures_of_the_owners_are_told(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let owner = stage.person().await;
    let sandbox = stage.sandbox(&owner, "one").await;
    let me = stage.me(&owner).await;
    for (tool, arguments) in [
        ("get_agent", r#"{"slug":"missing"}"#),
        ("list_triggers", r#"{"agent_slug":"missing"}"#),
    ] {
        let (code, detail) = failure(&call(&stage, &me, &sandbox, tool, arguments).await);
        assert_eq!(code, "not_found");
        assert!(detail.starts_with("agent"), "{detail}");
    }
}
