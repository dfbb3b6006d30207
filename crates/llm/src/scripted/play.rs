//! Playing one turn.

use std::time::Duration;

use crate::port::{Error, ErrorKind, EventStream, StopReason, StreamEvent, ToolCall};

use super::script::{Event, Failure, Turn};

/// The stream of one turn; ids continue after the calls the conversation has seen.
pub(super) fn play(turn: Turn, calls_before: usize) -> EventStream {
    Box::pin(async_stream::stream! {
        let mut calls = calls_before;
        for event in turn.events {
            match event {
                Event::Text(text) => yield Ok(StreamEvent::TextDelta(text)),
                Event::ToolCall(call) => {
                    calls += 1;
                    let call_id = format!("call_{calls}");
                    yield Ok(StreamEvent::ToolCall(ToolCall::new(call_id, call.name, call.arguments)));
                }
                Event::InvalidToolCall(call) => {
                    calls += 1;
                    let call_id = call.call_id.unwrap_or_else(|| format!("call_{calls}"));
                    yield Ok(StreamEvent::ToolCall(ToolCall::new(call_id, call.name, call.arguments)));
                }
                Event::StallMs(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
                Event::Repeat(repeat) => {
                    for _ in 0..repeat.count {
                        if repeat.interval_ms > 0 {
                            tokio::time::sleep(Duration::from_millis(repeat.interval_ms)).await;
                        }
                        yield Ok(StreamEvent::TextDelta(repeat.text.clone()));
                    }
                }
                Event::Hang(true) => std::future::pending::<()>().await,
                Event::Error(failure) => {
                    yield Err(error(failure));
                    return;
                }
                Event::EndWithoutFinish(true) => return,
                Event::Hang(false) | Event::EndWithoutFinish(false) => {}
            }
        }
        let stop_reason = match turn.stop_reason.as_deref() {
            Some(word) => StopReason::from(word),
            None if calls > calls_before => StopReason::ToolUse,
            None => StopReason::EndTurn,
        };
        yield Ok(StreamEvent::Finish { stop_reason, usage: turn.usage });
    })
}

pub(super) fn error(failure: Failure) -> Error {
    let message = match failure.message {
        message if message.is_empty() => default_message(failure.kind),
        message => message,
    };
    let retry_after = failure.retry_after_ms.map(Duration::from_millis);
    Error {
        retry_after,
        ..Error::new(failure.kind, message)
    }
}

fn default_message(kind: ErrorKind) -> String {
    format!("scripted failure: {}", kind.as_str())
}
