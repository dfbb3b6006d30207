//! What an answer used is told as soon as the provider tells it.

use std::time::Duration;

use copass_llm::{Backend, Message, Provider as _, StreamEvent, Usage};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::{ask, request, server, vendor};

/// Usage that was told before the answer went silent.
async fn told_before_silence(backend: Backend, events: Value) -> Usage {
    let server = server(json!({"turns": [{"events": events, "usage": {"input_tokens": 150_000}}]})).await;
    let mut stream = vendor(backend, &server.url())
        .stream(request(vec![Message::user("go")]))
        .await
        .unwrap();
    let told = async {
        loop {
            match stream.next().await {
                Some(Ok(StreamEvent::Usage(usage))) => return usage,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap()
}

#[tokio::test]
async fn usage_is_told_before_the_answer_ends() {
    let raw = |data: Value| json!([{"wire": {"raw": format!("data: {data}\n\n")}}, {"hang": true}]);
    for (backend, events) in [
        (Backend::Anthropic, json!([{"hang": true}])),
        (
            Backend::Google,
            raw(json!({"usageMetadata": {"promptTokenCount": 150_000}})),
        ),
        // The library says nothing of this frame.
        (
            Backend::Hermes,
            raw(json!({"choices": [], "usage": {"prompt_tokens": 150_000.0}})),
        ),
    ] {
        let usage = told_before_silence(backend, events).await;
        assert_eq!(usage.input_tokens, 150_000, "{backend:?}");
    }
}

#[tokio::test]
async fn a_broken_answer_keeps_what_was_told() {
    for (backend, told) in [(Backend::Anthropic, 70), (Backend::Hermes, 0)] {
        let server = server(json!({"turns": [{
            "events": [{"text": "so far"}, {"wire": {"stream_error": "overloaded_error"}}], "usage": {"input_tokens": 70},
        }]}))
        .await;
        let asked = request(vec![Message::user("go")]);
        let (answer, error) = ask(&vendor(backend, &server.url()), asked).await.unwrap_err();
        assert_eq!(
            (answer.usage.input_tokens, error.is_refused),
            (told, false),
            "{backend:?}"
        );
    }
}

#[tokio::test]
async fn a_request_that_was_refused_says_so() {
    for backend in Backend::ALL {
        for status in [400, 401, 429, 503, 529] {
            let server = server(json!({"turns": [{"events": [{"wire": {"status": {"status": status}}}]}]})).await;
            let asked = request(vec![Message::user("go")]);
            let (_, error) = ask(&vendor(backend, &server.url()), asked).await.unwrap_err();
            assert!(error.is_refused, "{backend:?} {status}");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let asked = request(vec![Message::user("go")]);
        let (_, error) = ask(&vendor(backend, &url), asked).await.unwrap_err();
        assert!(error.is_refused, "{backend:?}");
    }
    // Cut off within, nobody knows what it used.
    let server = server(json!({"turns": [{"events": [{"text": "so far"}, {"wire": {"cut": true}}]}]})).await;
    let asked = request(vec![Message::user("go")]);
    let (_, error) = ask(&vendor(Backend::Hermes, &server.url()), asked).await.unwrap_err();
    assert!(!error.is_refused);
}
