//! Changes of agents, their versions, tools and keys.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{
    fakes::{AGENT, KEY, SANDBOX, USER},
    support::{TestGateway, expect_error},
};

/// A route of the agent, in the form with the prefix and in the one without.
pub(crate) fn both_forms(rest: &str) -> [String; 2] {
    ["", "/api/v1"].map(|prefix| format!("{prefix}/storage/sandboxes/{SANDBOX}/agents{rest}"))
}

async fn patch(gateway: &TestGateway, path: &str, body: &Value) -> Response {
    gateway.request(Method::PATCH, path).json(body).send().await.unwrap()
}

/// The place of the first problem of a 422.
pub(crate) async fn problem_at(response: Response) -> Value {
    expect_error(response, 422, "validation_error").await["detail"][0]["loc"].take()
}

fn is_the_changed_agent(body: &Value) {
    assert_eq!((&body["agent_id"], &body["version"]), (&json!(AGENT), &json!(2)));
    assert_eq!(body["warnings"], json!(["an entry of the allowlist matches no tool"]));
    assert_eq!(body["allowlist_missing_entries"], json!(["pd_slack_gone"]));
}

#[tokio::test]
async fn an_update_passes_on_what_is_given_and_tells_what_to_know() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper") {
        let body = json!({"name": "New", "system_prompt": "Be new.", "tool_allowlist": [], "status": "active",
            "description": null, "model_settings": {"backend": "google", "temperature": 0.5}, "future": 1});
        let answer = patch(&gateway, &path, &body).await;
        assert_eq!(answer.status(), 200);
        is_the_changed_agent(&answer.json().await.unwrap());
        let message = gateway.fakes.last_message();
        for part in [
            r#"name: Some("New")"#,
            "description: None, clear_description: true",
            r#"system_prompt: Some("Be new.")"#,
            "tool_allowlist: Some(Allowlist { entries: [] })",
            r#"backend: "google", model: "", temperature: Some(0.5)"#,
            r#"status: Some("active")"#,
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
    let path = &both_forms("/helper")[0];
    patch(&gateway, path, &json!({"description": "What it does"})).await;
    let message = gateway.fakes.last_message();
    assert!(message.contains(r#"description: Some("What it does"), clear_description: false"#));
    assert!(
        message.contains("name: None") && message.contains("tool_allowlist: None"),
        "{message}"
    );
    assert_eq!(
        patch(&gateway, path, &json!({})).await.status(),
        200,
        "an empty change is no error"
    );
    let reads: Value = gateway.get(path).await.json().await.unwrap();
    assert_eq!(reads["warnings"], json!(["an entry of the allowlist matches no tool"]));
    assert_eq!(reads["allowlist_missing_entries"], json!(["pd_slack_gone"]));
    let list: Value = gateway.get(&both_forms("")[0]).await.json().await.unwrap();
    assert_eq!(list["agents"][0]["warnings"], reads["warnings"], "{list}");
}

#[tokio::test]
async fn bad_updates_name_their_place() {
    let gateway = TestGateway::start().await;
    for (rest, body, loc) in [
        ("/helper", json!({"name": 1}), json!(["body", "name"])),
        (
            "/helper",
            json!({"tool_allowlist": [1]}),
            json!(["body", "tool_allowlist", "0"]),
        ),
        (
            "/helper",
            json!({"model_settings": ["anthropic"]}),
            json!(["body", "model_settings"]),
        ),
        ("/helper", json!([]), json!(["body"])),
        ("/helper/model-settings", json!({}), json!(["body"])),
        (
            "/helper/model-settings",
            json!({"model": null, "future": 1}),
            json!(["body"]),
        ),
        (
            "/helper/model-settings",
            json!({"max_turns": -1}),
            json!(["body", "max_turns"]),
        ),
        ("/helper/tool-sources", json!({}), json!(["body", "tool_sources"])),
        (
            "/helper/tool-sources",
            json!({"tool_sources": "all"}),
            json!(["body", "tool_sources"]),
        ),
    ] {
        for path in both_forms(rest) {
            assert_eq!(
                problem_at(patch(&gateway, &path, &body).await).await,
                loc,
                "{rest} {body}"
            );
        }
    }
    assert!(gateway.fakes.0.messages.lock().is_empty(), "no service was asked");
    for rest in ["/unknown", "/unknown/model-settings", "/unknown/tool-sources"] {
        let body = json!({"model": "m", "tool_sources": null});
        expect_error(patch(&gateway, &both_forms(rest)[0], &body).await, 404, "not_found").await;
    }
}

#[tokio::test]
async fn settings_are_merged_and_sources_replaced() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper/model-settings") {
        let answer = patch(&gateway, &path, &json!({"temperature": 0, "timeout_s": 60})).await;
        is_the_changed_agent(&answer.json().await.unwrap());
        let message = gateway.fakes.last_message();
        assert!(
            message.contains("backend: None, model: None, temperature: Some(0.0), max_tokens: None, max_turns: None, timeout_s: Some(60)"),
            "{message}"
        );
    }
    for (sources, expected) in [
        (json!(null), "tool_sources: None"),
        (json!([]), "tool_sources: Some(ToolSources { names: [] })"),
        (
            json!(["user_mcp"]),
            r#"tool_sources: Some(ToolSources { names: ["user_mcp"] })"#,
        ),
    ] {
        for path in both_forms("/helper/tool-sources") {
            let answer = patch(&gateway, &path, &json!({"tool_sources": sources})).await;
            is_the_changed_agent(&answer.json().await.unwrap());
            assert!(gateway.fakes.last_message().contains(expected), "{sources}");
        }
    }
}

#[tokio::test]
async fn archiving_answers_204_without_a_body() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper") {
        let request = gateway
            .request(Method::DELETE, &path)
            .header("content-type", "application/json");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 204);
        assert!(answer.text().await.unwrap().is_empty());
        assert!(gateway.fakes.last_message().starts_with("ArchiveAgentRequest"));
    }
    let answer = gateway.request(Method::DELETE, &both_forms("/unknown")[0]).send();
    expect_error(answer.await.unwrap(), 404, "not_found").await;
}

#[tokio::test]
async fn versions_are_listed_shown_and_compared() {
    let gateway = TestGateway::start().await;
    let row = json!({"version": 2, "created_by": USER, "created_at": "2026-04-30T14:25:18.000005Z",
                     "changed": ["system_prompt"], "rolled_back_to": 1});
    for path in both_forms("/helper/versions") {
        let list: Value = gateway
            .get(&format!("{path}?limit=500&before=7"))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(list, json!({"agent_slug": "helper", "versions": [row], "count": 1}));
        assert!(gateway.fakes.last_message().contains("limit: 100, before: Some(7)"));

        let version: Value = gateway.get(&format!("{path}/2")).await.json().await.unwrap();
        assert_eq!(
            (&version["version"], &version["agent"]["slug"]),
            (&json!(2), &json!("helper"))
        );

        let diff: Value = gateway
            .get(&format!("{path}/diff?from=1&to=2"))
            .await
            .json()
            .await
            .unwrap();
        let change = json!({"field": "model_settings.temperature", "before": null, "after": 0.5});
        assert_eq!(
            diff,
            json!({"agent_slug": "helper", "from": 1, "to": 2, "changes": [change]})
        );
        gateway.get(&format!("{path}/diff?from=1")).await;
        assert!(
            gateway.fakes.last_message().contains("from: 1, to: 0"),
            "the present one"
        );

        for unknown in ["3", "0", "-1", "latest", "99999999999"] {
            expect_error(gateway.get(&format!("{path}/{unknown}")).await, 404, "not_found").await;
        }
        for (query, name) in [
            ("/diff", "from"),
            ("/diff?from=x", "from"),
            ("/diff?from=1&to=0", "to"),
            ("?before=x", "before"),
            ("?limit=x", "limit"),
        ] {
            let loc = problem_at(gateway.get(&format!("{path}{query}")).await).await;
            assert_eq!(loc, json!(["query", name]), "{query}");
        }
    }
}

#[tokio::test]
async fn a_roll_back_names_its_version() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper/rollback") {
        let answer = gateway.post(&path, &json!({"to_version": 1})).await;
        assert_eq!(answer.status(), 200);
        is_the_changed_agent(&answer.json().await.unwrap());
        assert!(gateway.fakes.last_message().contains("to_version: 1"));
        for body in [json!({}), json!({"to_version": "1"}), json!({"to_version": -1})] {
            assert_eq!(
                problem_at(gateway.post(&path, &body).await).await,
                json!(["body", "to_version"])
            );
        }
    }
}

#[tokio::test]
async fn tools_say_where_they_come_from_and_what_is_missing() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/tools") {
        let list: Value = gateway.get(&format!("{path}?app=copass")).await.json().await.unwrap();
        let tool = json!({"name": "search", "app_slug": "copass", "description": null,
                          "source": "copass_retrieval", "read_only": true});
        let skipped = json!([{"name": "pipedream", "reason": "it is not on this server yet"}]);
        assert_eq!(list, json!({"tools": [tool], "count": 1, "skipped": skipped}));
        assert!(gateway.fakes.last_message().contains(r#"app_slug: Some("copass")"#));
    }
}

#[tokio::test]
async fn agent_keys_have_the_contracts_fields() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper/keys") {
        let body = json!({"kind": "invoke", "label": "site", "copass_id": "@bob", "expires_in_days": 30});
        let answer = gateway.post(&path, &body).await;
        assert_eq!(answer.status(), 201);
        let created: Value = answer.json().await.unwrap();
        assert_eq!(
            created,
            json!({"api_key_id": KEY, "id": KEY, "key": "olk_abcdefgh", "plaintext_key": "olk_abcdefgh",
                   "key_prefix": "olk_abcd", "kind": "agent_invoke", "label": "site", "agent_id": AGENT,
                   "expires_at": null, "warning": created["warning"]})
        );
        assert!(created["warning"].as_str().unwrap().contains("once"));
        let message = gateway.fakes.last_message();
        assert!(
            message
                .contains(r#"kind: "invoke", label: Some("site"), copass_id: Some("@bob"), expires_in_days: Some(30)"#),
            "{message}"
        );

        let keys: Value = gateway
            .get(&format!("{path}?include_revoked=true"))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(keys[0]["agent_id"], AGENT);
        assert_eq!(keys[0]["kind"], "agent_invoke");
        assert!(keys[0].get("key").is_none(), "secrets are shown once");
        assert!(gateway.fakes.last_message().contains("include_revoked: true"));

        for (body, field) in [
            (json!({}), "kind"),
            (json!({"kind": 1}), "kind"),
            (json!({"kind": "invoke", "expires_in_days": -1}), "expires_in_days"),
        ] {
            assert_eq!(
                problem_at(gateway.post(&path, &body).await).await,
                json!(["body", field])
            );
        }
        let loc = problem_at(gateway.get(&format!("{path}?include_revoked=perhaps")).await).await;
        assert_eq!(loc, json!(["query", "include_revoked"]));
    }
}

#[tokio::test]
async fn everything_that_makes_something_takes_an_idempotency_key() {
    let gateway = TestGateway::start().await;
    let run = crate::fakes::RUN;
    let ad_hoc = json!({"provider": "anthropic", "model": "m", "system_prompt": "p", "end_user_id": "u",
                        "messages": [{"role": "user", "content": "hello"}]});
    for (method, rest, body) in [
        (
            Method::POST,
            String::new(),
            json!({"slug": "a", "name": "a", "system_prompt": "a"}),
        ),
        (Method::PATCH, "/helper".to_owned(), json!({})),
        (
            Method::PATCH,
            "/helper/model-settings".to_owned(),
            json!({"model": "m"}),
        ),
        (
            Method::PATCH,
            "/helper/tool-sources".to_owned(),
            json!({"tool_sources": null}),
        ),
        (Method::POST, "/helper/rollback".to_owned(), json!({"to_version": 1})),
        (Method::POST, "/helper/keys".to_owned(), json!({"kind": "invoke"})),
        (Method::POST, "/helper/test".to_owned(), json!({})),
        (Method::POST, "/helper/invoke-async".to_owned(), json!({"message": "m"})),
        (Method::POST, "/run".to_owned(), ad_hoc),
        (Method::POST, format!("/runs/{run}/retry"), json!({})),
    ] {
        let send = async |key: &str| {
            let request = gateway.request(method.clone(), &both_forms(&rest)[0]);
            request.header("idempotency-key", key).json(&body).send().await.unwrap()
        };
        let answer = send("once-1").await;
        assert!(answer.status().is_success(), "{method} {rest}: {}", answer.status());
        let message = gateway.fakes.last_message();
        assert!(
            message.contains(r#"idempotency_key: Some("once-1")"#),
            "{method} {rest}: {message}"
        );
        let asked = gateway.fakes.0.messages.lock().len();
        assert_eq!(
            problem_at(send("a b").await).await,
            json!(["header", "Idempotency-Key"]),
            "{rest}"
        );
        assert_eq!(gateway.fakes.0.messages.lock().len(), asked, "{rest}");
    }
}
