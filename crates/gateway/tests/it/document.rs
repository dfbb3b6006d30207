//! What the OpenAPI document says of values is what the server does.

use copass_types::validate;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{fakes::SANDBOX, support::TestGateway};

async fn document(gateway: &TestGateway) -> Value {
    let answer = gateway.bare(Method::GET, "/openapi.json").send().await.unwrap();
    answer.json().await.unwrap()
}

/// The schema itself, of one that is a reference, may be null, or is a list of others.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str() {
        let place = name.trim_start_matches('#');
        return document
            .pointer(place)
            .unwrap_or_else(|| panic!("{name} is named and is not there"));
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        let real = variants.iter().find(|variant| variant["type"] != "null").unwrap();
        return resolved(document, real);
    }
    if schema["items"].is_object() && schema.get("minItems").is_none() {
        return resolved(document, &schema["items"]);
    }
    schema
}

fn field<'a>(document: &'a Value, schema: &str, field: &str) -> &'a Value {
    let found = &document["components"]["schemas"][schema]["properties"][field];
    assert!(found.is_object(), "{schema}.{field} is not there");
    resolved(document, found)
}

fn operation<'a>(document: &'a Value, id: &str) -> &'a Value {
    let paths = document["paths"].as_object().unwrap().values();
    paths
        .flat_map(|item| item.as_object().unwrap().values())
        .find(|operation| operation["operationId"] == id)
        .unwrap()
}

fn parameter<'a>(document: &'a Value, id: &str, name: &str) -> &'a Value {
    let parameters = operation(document, id)["parameters"].as_array().unwrap();
    let found = parameters.iter().find(|parameter| parameter["name"] == name).unwrap();
    resolved(document, &found["schema"])
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    fn check(document: &Value, value: &Value) {
        match value {
            Value::Object(map) => {
                if map.get("$ref").is_some_and(Value::is_string) {
                    resolved(document, value);
                }
                map.values().for_each(|value| check(document, value));
            }
            Value::Array(items) => items.iter().for_each(|value| check(document, value)),
            _ => {}
        }
    }
    let document = document(&TestGateway::start().await).await;
    check(&document, &document);
}

#[tokio::test]
async fn closed_fields_name_their_words() {
    let document = document(&TestGateway::start().await).await;
    let agent_status = json!(["active", "archived"]);
    let backend = json!(["anthropic", "google", "hermes"]);
    let run_status = json!(["pending", "running", "succeeded", "failed", "timeout", "cancelled"]);
    let trigger_status = json!(["active", "paused", "disabled"]);
    let key_kind = json!(["general", "agent_invoke", "agent_delegate"]);
    let dimensions = json!(["agent", "trigger", "model", "status", "entrance", "day"]);
    for (schema, name, words) in [
        ("Agent", "status", &agent_status),
        ("UpdateAgentRequest", "status", &agent_status),
        ("ModelSettings", "backend", &backend),
        ("ModelSettingsInput", "backend", &backend),
        ("RunAdHocRequest", "provider", &backend),
        ("AgentRun", "status", &run_status),
        (
            "AgentRun",
            "entrance",
            &json!(["chat", "test", "ad_hoc", "invoke", "trigger", "retry"]),
        ),
        ("RunStep", "kind", &json!(["model", "tool"])),
        ("RunStep", "state", &json!(["intended", "done", "failed", "unknown"])),
        ("ApiKey", "kind", &key_kind),
        ("CreateAgentKeyRequest", "kind", &json!(["invoke", "delegate"])),
        ("Trigger", "status", &trigger_status),
        ("SandboxUsage", "group_by", &dimensions),
    ] {
        assert_eq!(field(&document, schema, name)["enum"], *words, "{schema}.{name}");
    }
    for (id, name, words) in [
        ("agent_list", "status", &agent_status),
        ("run_list", "status", &run_status),
        ("trigger_list", "status", &trigger_status),
        ("api_key_list", "kinds", &key_kind),
        ("sandbox_usage_get", "group_by", &dimensions),
    ] {
        assert_eq!(parameter(&document, id, name)["enum"], *words, "{id} {name}");
    }
}

#[tokio::test]
async fn bounds_are_those_that_are_checked() {
    let document = document(&TestGateway::start().await).await;
    for settings in ["ModelSettingsInput", "ModelSettings"] {
        for (name, least, most) in [
            ("temperature", 0, 2),
            ("max_turns", 1, validate::MAX_TURNS),
            ("timeout_s", 1, validate::MAX_TIMEOUT_S),
        ] {
            let schema = field(&document, settings, name);
            let bounds = [&schema["minimum"], &schema["maximum"]].map(Value::as_f64);
            assert_eq!(bounds, [Some(least.into()), Some(most.into())], "{settings}.{name}");
        }
        assert_eq!(field(&document, settings, "max_tokens")["minimum"], 1);
    }
    for request in ["ConciergeTestRequest", "ConciergeChatRequest"] {
        let message = field(&document, request, "message");
        assert_eq!(message["minLength"], 1);
        assert_eq!(message["maxLength"], validate::MESSAGE_MAX_CHARS);
    }
    let slug = field(&document, "CreateAgentRequest", "slug");
    assert_eq!(slug["pattern"], "^[a-z0-9-]+$");
    assert_eq!(slug["maxLength"], validate::SLUG_MAX_CHARS);
    assert_eq!(
        field(&document, "CreateApiKeyRequest", "name")["maxLength"],
        validate::KEY_NAME_MAX_CHARS
    );
    assert_eq!(field(&document, "RollBackAgentRequest", "to_version")["minimum"], 1);
}

/// The least and the most of a number are accepted, and what lies beyond is refused.
#[tokio::test]
async fn numbers_of_queries_are_refused_below_what_the_document_says() {
    let gateway = TestGateway::start().await;
    let document = document(&gateway).await;
    let agent = format!("/storage/sandboxes/{SANDBOX}/agents/helper");
    for (id, name, query) in [
        ("run_list", "agent_version", "/runs?agent_version="),
        ("agent_version_list", "before", "/versions?before="),
        ("agent_version_diff", "from", "/versions/diff?from="),
        ("agent_version_diff", "to", "/versions/diff?from=1&to="),
    ] {
        let least = parameter(&document, id, name)["minimum"].as_i64().unwrap();
        for (value, status) in [(least, 200), (least - 1, 422)] {
            let answer = gateway.get(&format!("{agent}{query}{value}")).await;
            assert_eq!(answer.status(), status, "{id} {name}={value}");
        }
    }
}

#[tokio::test]
async fn end_user_ids_are_refused_outside_of_what_the_document_says() {
    let gateway = TestGateway::start().await;
    let document = document(&gateway).await;
    let schema = field(&document, "RunAdHocRequest", "end_user_id");
    assert_eq!(schema["pattern"], "^[A-Za-z0-9._~:-]+$");
    let matches = |id: &str| {
        id.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~:-".contains(&byte))
    };
    let most = usize::try_from(schema["maxLength"].as_u64().unwrap()).unwrap();
    assert_eq!(schema["minLength"], 1);
    for id in [
        "a",
        "A-z_0.9~:",
        "",
        "a b",
        "a/b",
        "ä",
        &"a".repeat(most),
        &"a".repeat(most + 1),
    ] {
        let is_good = matches(id) && (1..=most).contains(&id.chars().count());
        let body = json!({"provider": "anthropic", "model": "m", "system_prompt": "Help.", "end_user_id": id,
                          "messages": [{"role": "user", "content": "Hi"}]});
        let answer = gateway
            .post(&format!("/storage/sandboxes/{SANDBOX}/agents/run"), &body)
            .await;
        assert_eq!(answer.status() == 422, !is_good, "{id:?}: {}", answer.status());
    }
}

#[tokio::test]
async fn a_body_is_required_where_an_empty_one_is_refused() {
    let gateway = TestGateway::start().await;
    let document = document(&gateway).await;
    let sandbox = format!("/storage/sandboxes/{SANDBOX}");
    for (id, method, path, is_required) in [
        (
            "agent_test",
            Method::POST,
            format!("{sandbox}/agents/helper/test"),
            false,
        ),
        ("agent_update", Method::PATCH, format!("{sandbox}/agents/helper"), false),
        ("profile_create", Method::POST, "/users/me/profile".to_owned(), false),
        (
            "agent_sources_update",
            Method::PATCH,
            format!("{sandbox}/agents/helper/tool-sources"),
            true,
        ),
        (
            "agent_invoke",
            Method::POST,
            format!("{sandbox}/agents/helper/invoke-async"),
            true,
        ),
        ("agent_create", Method::POST, format!("{sandbox}/agents"), true),
    ] {
        let body = &operation(&document, id)["requestBody"];
        assert_eq!(body["required"] == json!(true), is_required, "{id}: {body}");
        let answer = gateway.request(method, &path).send().await.unwrap();
        assert_eq!(answer.status() == 422, is_required, "{id}: {}", answer.status());
    }
    assert_eq!(
        document["components"]["schemas"]["UpdateToolSourcesRequest"]["required"],
        json!(["tool_sources"])
    );
}
