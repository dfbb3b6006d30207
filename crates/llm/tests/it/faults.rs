use std::time::Duration;

use copass_llm::{Backend, Error, ErrorKind, Message, Provider as _, StreamEvent};
use copass_test_support::eventually;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, KEY, ask, request, server, vendor};

const PROMPT_CANARY: &str = "prompt-canary";

/// The error of a turn, and what came before it; its message is fit for people and holds nothing foreign.
async fn fault(backend: Backend, turn: Value) -> (Answer, Error) {
    let server = server(json!({ "turns": [turn] })).await;
    let outcome = ask(
        &vendor(backend, &server.url()),
        request(vec![Message::user(PROMPT_CANARY)]),
    )
    .await;
    let (answer, error) = outcome.unwrap_err();
    assert!(
        !error.message.contains(KEY) && !error.message.contains(PROMPT_CANARY),
        "{}",
        error.message
    );
    assert!((20..400).contains(&error.message.len()), "{}", error.message);
    assert!(!error.message.contains('\n'), "{}", error.message);
    (answer, error)
}

fn status(status: u16) -> Value {
    // What vendors do: the key and the request in the text of the error.
    let leak = format!("Incorrect key {KEY} for {PROMPT_CANARY}");
    json!({"events": [{"wire": {"status": {"status": status, "body": {"error": {"message": leak, "type": leak}}}}}]})
}

#[tokio::test]
async fn every_status_has_its_kind() {
    for backend in Backend::ALL {
        for (code, kind) in [
            (400, ErrorKind::InvalidRequest),
            (401, ErrorKind::Auth),
            (403, ErrorKind::Auth),
            (404, ErrorKind::InvalidRequest),
            (408, ErrorKind::Retryable),
            (409, ErrorKind::Retryable),
            (413, ErrorKind::InvalidRequest),
            (422, ErrorKind::InvalidRequest),
            (429, ErrorKind::RateLimited),
            (500, ErrorKind::Retryable),
            (502, ErrorKind::Retryable),
            (503, ErrorKind::Retryable),
            (504, ErrorKind::Retryable),
            (529, ErrorKind::Retryable),
        ] {
            let (answer, error) = fault(backend, status(code)).await;
            assert_eq!(answer, Answer::default());
            assert_eq!(error.kind, kind, "{backend:?} {code}");
            assert!(error.message.contains(&format!("HTTP {code}")), "{}", error.message);
        }
        let (_, error) = fault(backend, status(401)).await;
        let setting = format!("models.{}.api_key", backend.name());
        assert!(error.message.contains(&setting), "{}", error.message);
    }
}

#[tokio::test]
async fn the_vendors_own_words_are_told() {
    for (backend, word) in [
        (Backend::Anthropic, "overloaded_error"),
        (Backend::Google, "unavailable"),
        (Backend::Hermes, "server_error"),
    ] {
        let (_, error) = fault(backend, json!({"events": [{"error": {"kind": "retryable"}}]})).await;
        assert_eq!(error.kind, ErrorKind::Retryable);
        assert!(error.message.contains(word), "{}", error.message);
    }
}

#[tokio::test]
async fn the_waiting_time_is_read_in_every_form() {
    let limited =
        |retry_after: &str| json!({"events": [{"wire": {"status": {"status": 429, "retry_after": retry_after}}}]});
    let (_, error) = fault(Backend::Anthropic, limited("7")).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    let milliseconds = json!({"events": [{"error": {"kind": "rate_limited", "retry_after_ms": 1500}}]});
    let (_, error) = fault(Backend::Hermes, milliseconds).await;
    assert_eq!(error.retry_after, Some(Duration::from_millis(1500)));
    let date = (copass_runtime::clock::now() + chrono::Duration::seconds(90)).to_rfc2822();
    let (_, error) = fault(Backend::Anthropic, limited(&date)).await;
    let wait = error.retry_after.unwrap();
    assert!(
        (Duration::from_secs(80)..=Duration::from_secs(91)).contains(&wait),
        "{wait:?}"
    );
    let (_, error) = fault(Backend::Anthropic, limited("Wed, 21 Oct 2015 07:28:00 GMT")).await;
    assert_eq!(error.retry_after, Some(Duration::ZERO));
    for nonsense in ["soon", "-1", "NaN"] {
        let (_, error) = fault(Backend::Anthropic, limited(nonsense)).await;
        assert_eq!(
            (error.kind, error.retry_after),
            (ErrorKind::RateLimited, None),
            "{nonsense}"
        );
    }
    let body = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "37s"}]}});
    let google = json!({"events": [{"wire": {"status": {"status": 429, "body": body}}}]});
    let (_, error) = fault(Backend::Google, google).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(37)));
}

#[tokio::test]
async fn what_a_status_hides_is_seen() {
    let of = |backend, status: u16, body: Value| {
        fault(
            backend,
            json!({"events": [{"wire": {"status": {"status": status, "body": body}}}]}),
        )
    };
    let invalid_key =
        json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}});
    assert_eq!(of(Backend::Google, 400, invalid_key).await.1.kind, ErrorKind::Auth);
    let no_credit = json!({"error": {"code": "insufficient_quota", "type": "insufficient_quota"}});
    assert_eq!(of(Backend::Hermes, 429, no_credit).await.1.kind, ErrorKind::Auth);
    assert_eq!(
        of(Backend::Hermes, 500, json!("<html>no JSON</html>")).await.1.kind,
        ErrorKind::Retryable
    );
    let redirect = json!({"events": [{"wire": {"status": {"status": 307, "location": "http://127.0.0.1:1/"}}}]});
    let (_, error) = fault(Backend::Anthropic, redirect).await;
    assert_eq!(error.kind, ErrorKind::NotConfigured);
    assert!(error.message.contains("models.anthropic.base_url"), "{}", error.message);
}

#[tokio::test]
async fn an_error_within_a_stream_has_its_kind() {
    for (backend, word, kind) in [
        (Backend::Anthropic, "overloaded_error", ErrorKind::Retryable),
        (Backend::Anthropic, "rate_limit_error", ErrorKind::RateLimited),
        (Backend::Anthropic, "authentication_error", ErrorKind::Auth),
        (Backend::Anthropic, "invalid_request_error", ErrorKind::InvalidRequest),
        (Backend::Google, "UNAVAILABLE", ErrorKind::Retryable),
        (Backend::Google, "RESOURCE_EXHAUSTED", ErrorKind::RateLimited),
        (Backend::Google, "INVALID_ARGUMENT", ErrorKind::InvalidRequest),
        (Backend::Hermes, "server_error", ErrorKind::Retryable),
        (Backend::Hermes, "rate_limit_exceeded", ErrorKind::RateLimited),
    ] {
        let turn = json!({"events": [{"text": "so far"}, {"wire": {"stream_error": word}}, {"text": "no more"}]});
        let (answer, error) = fault(backend, turn).await;
        assert_eq!(
            (answer.text.as_str(), error.kind),
            ("so far", kind),
            "{backend:?} {word}"
        );
    }
}

#[tokio::test]
async fn a_broken_stream_is_an_error_of_its_kind() {
    for backend in Backend::ALL {
        let wire = |fault: Value| json!({"events": [{"text": "so far"}, {"wire": fault}]});
        for (turn, kind) in [
            (wire(json!({"cut": true})), ErrorKind::Retryable),
            (
                json!({"events": [{"text": "so far"}, {"end_without_finish": true}]}),
                ErrorKind::Retryable,
            ),
            (wire(json!({"invalid_utf8": true})), ErrorKind::Protocol),
            (wire(json!({"broken_json": true})), ErrorKind::Protocol),
            (
                wire(json!({"endless_text": "x".repeat(256 * 1024)})),
                ErrorKind::Protocol,
            ),
        ] {
            let (answer, error) = fault(backend, turn.clone()).await;
            assert_eq!(error.kind, kind, "{backend:?} {turn}: {}", error.message);
            // What came in one packet with the fault may be lost with it.
            assert!(answer.text.is_empty() || answer.text.starts_with("so far"));
            assert!(answer.calls.is_empty());
        }
    }
}

#[tokio::test]
async fn a_broken_call_is_never_made() {
    for backend in Backend::ALL {
        for (name, arguments) in [
            (Some("look"), "{\"x\": "),
            (Some("look"), "[1, 2]"),
            (Some("look"), "not json at all"),
            (None, "{}"),
            (Some(""), "{}"),
        ] {
            let raw = json!({"raw_call": {"name": name, "arguments": arguments}});
            let turn = json!({"events": [{"text": "so far"}, {"wire": raw}]});
            let (answer, error) = fault(backend, turn).await;
            assert_eq!(error.kind, ErrorKind::Protocol, "{backend:?} {name:?} {arguments}");
            assert!(answer.calls.is_empty());
        }
    }
}

#[tokio::test]
async fn a_refused_prompt_of_google_is_told() {
    let raw = "data: {\"promptFeedback\":{\"blockReason\":\"PROHIBITED_CONTENT\"},\"usageMetadata\":{\"promptTokenCount\":5}}\n\n";
    let (_, error) = fault(Backend::Google, json!({"events": [{"wire": {"raw": raw}}]})).await;
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
    assert!(error.message.contains("prohibited_content"), "{}", error.message);
    // A frame that only counts is no error.
    let raw = "data: {\"usageMetadata\":{\"promptTokenCount\":5}}\n\n";
    let server = server(json!({"turns": [{"events": [{"wire": {"raw": raw}}, {"text": "ok"}]}]})).await;
    let answer = ask(
        &vendor(Backend::Google, &server.url()),
        request(vec![Message::user("go")]),
    )
    .await;
    assert_eq!(answer.unwrap().text, "ok");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_speaks_otherwise_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for backend in Backend::ALL {
        let (_, error) = ask(&vendor(backend, &url), request(vec![Message::user("go")]))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Retryable);
        let setting = format!("models.{}.base_url", backend.name());
        assert!(error.message.contains(&setting), "{}", error.message);
    }
    // A web page with status 200.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let page = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 64 * 1024];
        let _ = socket.read(&mut asked).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>";
        socket.write_all(answer).await.unwrap();
        socket
    };
    let vendor = vendor(Backend::Anthropic, &url);
    let (outcome, _socket) = tokio::join!(ask(&vendor, request(vec![Message::user("go")])), page);
    assert_eq!(outcome.unwrap_err().1.kind, ErrorKind::Protocol);
}

#[tokio::test]
async fn a_model_that_stalls_holds_nothing_up_that_is_dropped() {
    let server = server(json!({"turns": [{"events": [{"text": "so far"}, {"hang": true}]}]})).await;
    server.hold_from(2);
    for backend in Backend::ALL {
        server.reset();
        server.hold_from(2);
        let vendor = vendor(backend, &server.url());
        let mut stream = vendor.stream(request(vec![Message::user("go")])).await.unwrap();
        let said = stream.by_ref().filter(|event| {
            let is_count = matches!(event, Ok(StreamEvent::Usage(_)));
            async move { !is_count }
        });
        let said = std::pin::pin!(said).next().await;
        assert_eq!(said, Some(Ok(StreamEvent::TextDelta("so far".to_owned()))));
        drop(stream);
        // The second one is held at the gate until whoever asked goes away.
        let mut stream = vendor.stream(request(vec![Message::user("go")])).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_secs(20), async {
            tokio::select! {
                _ = stream.next() => panic!("the gate is closed"),
                () = eventually(Duration::from_secs(10), || async { server.held() == [2] }) => {}
            }
        });
        waiting.await.unwrap();
        drop(stream);
        eventually(Duration::from_secs(10), || async { server.held().is_empty() }).await;
    }
}

#[tokio::test]
async fn a_request_without_a_model_is_refused_before_it_is_made() {
    let server = server(json!({"turns": [{"events": []}]})).await;
    for model in ["", "hermes/"] {
        let mut asked = request(vec![Message::user("go")]);
        asked.model = model.to_owned();
        let (_, error) = ask(&vendor(Backend::Hermes, &server.url()), asked).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidRequest);
    }
    assert!(server.requests().is_empty());
}
