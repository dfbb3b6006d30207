//! Probes, request ids, raw HTTP and the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    fakes::SANDBOX,
    support::{TestGateway, eventually},
};

#[tokio::test]
async fn alive_and_ready_differ() {
    let gateway = TestGateway::start().await;
    let get = async |path: &str| {
        let response = gateway.bare(Method::GET, path).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(get("/readyz").await.0, 200);
    let up = Arc::new(AtomicBool::new(false));
    let probe = up.clone();
    gateway.readiness.add("store", move || {
        let up = probe.load(Ordering::SeqCst);
        async move {
            if up {
                Ok(())
            } else {
                Err("connection refused".to_owned())
            }
        }
    });
    gateway.readiness.check().await;
    let (status, body) = get("/readyz").await;
    assert_eq!(status, 503);
    let dependency = json!({"name": "store", "ready": false, "last_error": "connection refused"});
    assert_eq!(body, json!({"status": "not_ready", "dependencies": [dependency]}));
    assert_eq!(get("/healthz").await, (200, json!({"status": "ok"})));
    assert_eq!(get("/api/v1/healthz/").await.0, 200);
    up.store(true, Ordering::SeqCst);
    gateway.readiness.check().await;
    assert_eq!(get("/readyz").await.0, 200);
}

#[tokio::test]
async fn metrics_are_plain_text() {
    let gateway = TestGateway::start().await;
    let response = gateway.bare(Method::GET, "/metrics").send().await.unwrap();
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert_eq!(response.text().await.unwrap(), "up 1\n");
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let gateway = TestGateway::start().await;
    let id = async |given: &str| {
        let response = gateway
            .bare(Method::GET, "/healthz")
            .header("x-request-id", given)
            .send()
            .await
            .unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id("abc_1-2").await, "abc_1-2");
    let (made, other) = (id("not sane!").await, id("not sane!").await);
    assert!(made.starts_with("req_") && made != other);
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let gateway = TestGateway::with(|config| config.header_timeout = Duration::from_millis(50)).await;
    let answer = tokio::time::timeout(
        Duration::from_secs(10),
        gateway.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n"),
    );
    let answer = answer.await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let garbage = gateway.raw(b"\x16\x03\x01 this is not http\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let huge = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    let huge = gateway.raw(huge.as_bytes()).await;
    assert!(huge.starts_with("HTTP/1.1 431"), "{huge}");
}

#[tokio::test]
async fn stopping_ends_open_streams_with_a_frame_and_idle_connections_at_once() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.get("/storage/sandboxes").await.status(), 200);
    let mut chunks = gateway.say("chat", "silent").await.bytes_stream();
    let first = chunks.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"id: 1\nevent: run_started"));
    let started = Instant::now();
    assert!(gateway.tasks.shut_down(Duration::from_secs(10)).await);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let mut rest = Vec::new();
    while let Some(chunk) = chunks.next().await {
        rest.extend_from_slice(&chunk.unwrap());
    }
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.contains("event: agent_error") && rest.contains(r#""type":"Cancelled""#),
        "{rest}"
    );
    eventually("the run is cancelled", || {
        gateway.fakes.0.stream_dropped.load(Ordering::SeqCst)
    })
    .await;
    assert!(
        gateway.bare(Method::GET, "/healthz").send().await.is_err(),
        "the listener is closed"
    );
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_free_place() {
    let gateway = TestGateway::with(|config| config.max_connections = 1).await;
    let held = gateway.say("chat", "silent").await;
    let mut waiting = std::pin::pin!(gateway.bare(Method::GET, "/healthz").send());
    assert!(
        tokio::time::timeout(Duration::from_millis(100), waiting.as_mut())
            .await
            .is_err()
    );
    drop(held);
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn metrics_count_routes_and_not_what_callers_invent() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    let gateway = TestGateway::start().await;
    gateway.get(&format!("/api/v1/storage/sandboxes/{SANDBOX}/")).await;
    gateway.get("/invented/path").await;
    gateway
        .request(Method::from_bytes(b"INVENTED").unwrap(), "/healthz")
        .send()
        .await
        .unwrap();
    let text = handle.render();
    for line in [
        r#"copass_gateway_requests_total{route="/storage/sandboxes/{sandbox_id}",method="GET",status="200"} 1"#,
        r#"copass_gateway_requests_total{route="unmatched",method="GET",status="404"} 1"#,
        r#"copass_gateway_requests_total{route="/healthz",method="OTHER",status="405"} 1"#,
        r#"copass_gateway_request_seconds_count{route="/storage/sandboxes/{sandbox_id}",method="GET"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("invented") && !text.contains("INVENTED") && !text.contains(SANDBOX));
}
