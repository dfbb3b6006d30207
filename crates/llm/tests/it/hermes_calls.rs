//! Servers that speak OpenAI's format number and name their calls as they like.

use copass_llm::{Backend, Error, ErrorKind, Message};
use serde_json::{Value, json};

use crate::support::{Answer, ask, request, server, vendor};

fn frame(delta: &Value, finish_reason: Option<&str>) -> String {
    let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]});
    format!("data: {chunk}\n\n")
}

/// An answer whose frames hold these pieces of calls, up to its end.
async fn answer(frames: &[Value], finish_reason: &str) -> Result<Answer, (Answer, Error)> {
    let mut raw: String = frames
        .iter()
        .map(|pieces| frame(&json!({ "tool_calls": pieces }), None))
        .collect();
    raw += &frame(&json!({}), Some(finish_reason));
    raw += "data: [DONE]\n\n";
    let server = server(json!({"turns": [{"events": [{"wire": {"raw": raw}}]}]})).await;
    ask(
        &vendor(Backend::Hermes, &server.url()),
        request(vec![Message::user("go")]),
    )
    .await
}

fn call(id: &str, x: u32) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "look", "arguments": format!("{{\"x\":{x}}}")}})
}

fn at(index: u64, mut call: Value) -> Value {
    call["index"] = json!(index);
    call
}

#[tokio::test]
async fn a_call_with_a_giant_number_is_a_call_like_any_other() {
    let answer = answer(&[json!([at(4_000_000_000, call("a", 1))])], "tool_calls")
        .await
        .unwrap();
    assert_eq!(answer.calls(), [("a", "look", &json!({"x": 1}))]);
}

#[tokio::test]
async fn no_call_is_lost_however_they_are_numbered_and_named() {
    for frames in [
        vec![json!([at(0, call("a", 1))]), json!([at(1, call("a", 2))])],
        vec![json!([at(0, call("", 1))]), json!([at(1, call("", 2))])],
        vec![json!([call("a", 1)]), json!([call("b", 2)])],
        vec![json!([call("", 1), call("", 2)])],
        vec![json!([at(0, call("a", 1))]), json!([at(0, call("b", 2))])],
    ] {
        let answer = answer(&frames, "tool_calls").await.unwrap();
        let arguments: Vec<&Value> = answer.calls.iter().map(|call| &call.arguments).collect();
        assert_eq!(arguments, [&json!({"x": 1}), &json!({"x": 2})], "{frames:?}");
        let ids = (&answer.calls[0].call_id, &answer.calls[1].call_id);
        assert!(ids.0 != ids.1 && !ids.0.is_empty() && !ids.1.is_empty(), "{ids:?}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_calls_has_some() {
    for frames in [vec![], vec![json!([])], vec![json!("no list")]] {
        let (_, error) = answer(&frames, "tool_calls").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol, "{frames:?}: {}", error.message);
        assert!(error.message.contains("tool calls"), "{}", error.message);
    }
}

#[tokio::test]
async fn more_calls_than_anybody_makes_are_refused() {
    let many: Vec<Value> = (0..100).map(|index| at(index, call("a", 1))).collect();
    let endless = json!([{"index": 0, "function": {"name": "look", "arguments": "x".repeat(64 * 1024)}}]);
    for (frames, word) in [
        (vec![json!(many)], "more than 64 tool calls"),
        (vec![endless; 20], "bytes"),
    ] {
        let (answer, error) = answer(&frames, "tool_calls").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol, "{}", error.message);
        assert!(error.message.contains(word), "{}", error.message);
        assert!(answer.calls.is_empty());
    }
}
