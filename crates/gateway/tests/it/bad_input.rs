//! Every kind of bad request gets a 4xx in the contract's shape, never a 5xx.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    fakes::SANDBOX,
    support::{TestGateway, expect_error},
};

const JSON: &str = "application/json";

async fn post_raw(gateway: &TestGateway, content_type: Option<&str>, body: impl Into<Vec<u8>>) -> reqwest::Response {
    let mut request = gateway.request(Method::POST, "/storage/sandboxes").body(body.into());
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn broken_and_wrong_bodies_are_422_with_the_place() {
    let gateway = TestGateway::start().await;
    for (body, loc, kind) in [
        (&b"{"[..], json!(["body"]), "json_invalid"),
        (b"\xff\xfe", json!(["body"]), "json_invalid"),
        (
            b"{\"name\":\"\xff\",\"owner_id\":\"o\"}",
            json!(["body"]),
            "json_invalid",
        ),
        (b"[]", json!(["body"]), "type_error"),
        (b"\"text\"", json!(["body"]), "type_error"),
        (b"", json!(["body", "name"]), "missing"),
        (b"{}", json!(["body", "name"]), "missing"),
        (br#"{"name":"a"}"#, json!(["body", "owner_id"]), "missing"),
        (
            br#"{"name":null,"owner_id":"o"}"#,
            json!(["body", "name"]),
            "type_error",
        ),
        (
            br#"{"name":"a","owner_id":"o","metadata":3}"#,
            json!(["body", "metadata"]),
            "type_error",
        ),
    ] {
        let response = post_raw(&gateway, Some(JSON), body).await;
        let answer = expect_error(response, 422, "validation_error").await;
        assert_eq!(answer["detail"][0]["loc"], loc, "{answer}");
        assert_eq!(answer["detail"][0]["type"], kind, "{answer}");
        assert!(answer["detail"][0]["msg"].as_str().unwrap().len() > 3);
    }
    assert!(gateway.fakes.0.messages.lock().is_empty());
}

#[tokio::test]
async fn nesting_without_end_is_422() {
    let gateway = TestGateway::start().await;
    let deep = format!(
        r#"{{"name":"a","owner_id":"o","metadata":{}"#,
        r#"{"a":"#.repeat(50_000)
    );
    expect_error(post_raw(&gateway, Some(JSON), deep).await, 422, "validation_error").await;
}

#[tokio::test]
async fn the_content_type_counts_only_when_there_is_a_body() {
    let gateway = TestGateway::start().await;
    let body = r#"{"name":"a","owner_id":"o"}"#;
    for wrong in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonx"),
    ] {
        expect_error(post_raw(&gateway, wrong, body).await, 415, "unsupported_media_type").await;
    }
    for right in [
        JSON,
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.x+json",
    ] {
        assert_eq!(post_raw(&gateway, Some(right), body).await.status(), 201, "{right}");
    }
    for content_type in [None, Some(JSON), Some("text/plain")] {
        let mut request = gateway.request(Method::POST, &format!("/storage/sandboxes/{SANDBOX}/suspend"));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        assert_eq!(request.send().await.unwrap().status(), 200);
        let mut request = gateway.request(Method::POST, "/users/me/profile");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        assert_eq!(request.send().await.unwrap().status(), 201, "no field is required");
    }
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let gateway = TestGateway::start().await;
    let body = json!({"name": "a", "owner_id": "o", "future": {"deep": [1]}});
    assert_eq!(gateway.post("/storage/sandboxes", &body).await.status(), 201);
}

#[tokio::test]
async fn bodies_over_the_cap_are_413_announced_or_not() {
    let gateway = TestGateway::with(|config| config.body_limit_bytes = 100).await;
    let large = json!({"name": "a".repeat(200), "owner_id": "o"}).to_string();
    expect_error(
        post_raw(&gateway, Some(JSON), large.clone()).await,
        413,
        "payload_too_large",
    )
    .await;
    let chunked = gateway
        .request(Method::POST, "/storage/sandboxes")
        .header("content-type", JSON)
        .body(reqwest::Body::wrap_stream(futures::stream::iter([Ok::<
            _,
            std::io::Error,
        >(large)])))
        .send()
        .await
        .unwrap();
    expect_error(chunked, 413, "payload_too_large").await;
    let small = json!({"name": "a", "owner_id": "o"}).to_string();
    assert_eq!(post_raw(&gateway, Some(JSON), small).await.status(), 201);
}

#[tokio::test]
async fn unknown_routes_are_404_and_wrong_methods_405_in_the_same_shape() {
    let gateway = TestGateway::start().await;
    for path in [
        "/",
        "/nothing",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v2/storage/sandboxes",
        "/storage/sandboxes//",
    ] {
        expect_error(gateway.get(path).await, 404, "not_found").await;
    }
    for (method, path) in [
        (Method::PUT, "/storage/sandboxes".to_owned()),
        (Method::DELETE, "/api/v1/storage/sandboxes".to_owned()),
        (Method::GET, format!("/storage/sandboxes/{SANDBOX}/suspend")),
        (Method::OPTIONS, "/healthz".to_owned()),
    ] {
        let response = gateway.request(method, &path).send().await.unwrap();
        assert!(response.headers().contains_key("allow"), "{path}");
        expect_error(response, 405, "method_not_allowed").await;
    }
}

#[tokio::test]
async fn malformed_ids_and_slugs_in_paths_are_404() {
    let gateway = TestGateway::start().await;
    let base = format!("/storage/sandboxes/{SANDBOX}");
    for path in [
        "/sources/nope".to_owned(),
        "/sources/%00".to_owned(),
        "/agents/Not%20A%20Slug".to_owned(),
        "/agents/runs".to_owned(),
        "/agents/runs/nope".to_owned(),
        "/agents/%FF%FE/runs".to_owned(),
        "/agents/helper/triggers/nope".to_owned(),
        format!("/agents/{}", "a".repeat(2000)),
    ] {
        expect_error(gateway.get(&format!("{base}{path}")).await, 404, "not_found").await;
    }
    expect_error(
        gateway.request(Method::DELETE, "/api-keys/nope").send().await.unwrap(),
        404,
        "not_found",
    )
    .await;
    // What is malformed is what is not found, and not what stands before it.
    for (path, what) in [
        ("/agents/%ff", "agent"),
        ("/agents/%ff/runs", "agent"),
        ("/sources/%ff", "source"),
        ("/agents/runs/%ff", "run"),
    ] {
        let body = expect_error(gateway.get(&format!("{base}{path}")).await, 404, "not_found").await;
        assert!(
            body["detail"].as_str().unwrap().contains(&format!("{what} not found")),
            "{path}: {body}"
        );
    }
}

#[tokio::test]
async fn wrong_query_values_are_422_and_numbers_out_of_range_are_moved_in() {
    let gateway = TestGateway::start().await;
    let runs = format!("/storage/sandboxes/{SANDBOX}/agents/helper/runs");
    let body = expect_error(gateway.get(&format!("{runs}?limit=ten")).await, 422, "validation_error").await;
    assert_eq!(body["detail"][0]["loc"], json!(["query", "limit"]));
    for (query, limit) in [
        ("", 20),
        ("?limit=", 20),
        ("?limit=0", 1),
        ("?limit=-3", 1),
        ("?limit=5000", 100),
    ] {
        assert_eq!(gateway.get(&format!("{runs}{query}")).await.status(), 200);
        assert!(
            gateway.fakes.last_message().contains(&format!("limit: {limit},")),
            "{query}"
        );
    }
    let connections = format!("/storage/sandboxes/{SANDBOX}/connections");
    let response = gateway.get(&format!("{connections}?include_revoked=perhaps")).await;
    let body = expect_error(response, 422, "validation_error").await;
    assert_eq!(body["detail"][0]["loc"], json!(["query", "include_revoked"]));
}

#[tokio::test]
async fn login_bodies_are_checked_before_anything_is_sent() {
    let gateway = TestGateway::start().await;
    let post = |path: &str, body: Value| gateway.bare(Method::POST, path).json(&body).send();
    let response = post("/auth/v1/otp", json!({})).await.unwrap();
    let body = expect_error(response, 422, "validation_error").await;
    assert_eq!(body["detail"][0]["loc"], json!(["body", "email"]));
    let wrong_kind = json!({"email": "a@b", "token": "000000", "type": "sms"});
    expect_error(
        post("/auth/v1/verify", wrong_kind).await.unwrap(),
        422,
        "validation_error",
    )
    .await;
    for query in ["", "?grant_type=password"] {
        let response = post(&format!("/auth/v1/token{query}"), json!({"refresh_token": "r"}))
            .await
            .unwrap();
        let body = expect_error(response, 422, "validation_error").await;
        assert_eq!(body["detail"][0]["loc"], json!(["query", "grant_type"]));
    }
    assert!(gateway.fakes.0.messages.lock().is_empty());
}

#[tokio::test]
async fn idempotency_keys_are_passed_on_or_refused() {
    let gateway = TestGateway::start().await;
    let send = |key: String| {
        gateway
            .request(Method::POST, "/storage/sandboxes")
            .header("idempotency-key", key)
            .json(&json!({"name": "a", "owner_id": "o"}))
            .send()
    };
    assert_eq!(send("once-1".to_owned()).await.unwrap().status(), 201);
    assert!(
        gateway
            .fakes
            .last_message()
            .contains(r#"idempotency_key: Some("once-1")"#)
    );
    for bad in [String::new(), "a b".to_owned(), "x".repeat(256)] {
        let body = expect_error(send(bad).await.unwrap(), 422, "validation_error").await;
        assert_eq!(body["detail"][0]["loc"], json!(["header", "Idempotency-Key"]));
    }
}

#[tokio::test]
async fn errors_of_services_keep_their_code_and_hide_their_cause() {
    let gateway = TestGateway::start().await;
    let create = |name: &str| json!({"name": name, "owner_id": "o"});
    let body = expect_error(
        gateway.post("/storage/sandboxes", &create("taken")).await,
        409,
        "conflict",
    )
    .await;
    assert!(body["detail"].as_str().unwrap().contains("choose another name"));
    expect_error(
        gateway.post("/storage/sandboxes", &create("full")).await,
        409,
        "tier_limit",
    )
    .await;
    let body = expect_error(
        gateway.post("/storage/sandboxes", &create("internal")).await,
        500,
        "internal_error",
    )
    .await;
    assert!(!body.to_string().contains("secret cause"));
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_server_lives_on() {
    let gateway = TestGateway::start().await;
    let body = json!({"name": "panic", "owner_id": "o"});
    expect_error(gateway.post("/storage/sandboxes", &body).await, 500, "internal_error").await;
    assert_eq!(gateway.get("/storage/sandboxes").await.status(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408_and_frees_the_connection() {
    let gateway = TestGateway::with(|config| config.body_timeout = std::time::Duration::from_millis(50)).await;
    let head = b"POST /auth/v1/otp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    let answer = gateway.raw(head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"body_timeout\""), "{answer}");
}

/// DNS rebinding: the browser believes that a page's own host is this machine, and says so in `Host`.
#[tokio::test]
async fn a_local_server_answers_for_local_hosts_only() {
    let gateway = TestGateway::with(|config| {
        config.only_local_hosts = true;
        config.public_url = Some("https://copass.example:8443/".to_owned());
    })
    .await;
    let status = async |host: &str| {
        let request = gateway.bare(Method::GET, "/healthz").header("host", host);
        request.send().await.unwrap().status().as_u16()
    };
    for host in [
        "localhost",
        "LOCALHOST:8484",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]:8484",
        "copass.example:8443",
    ] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8484",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "localhost.evil.example",
    ] {
        assert_eq!(status(host).await, 421, "{host}");
    }
    let request = gateway
        .bare(Method::POST, "/auth/v1/verify")
        .header("host", "evil.example");
    expect_error(request.send().await.unwrap(), 421, "misdirected_request").await;
}
