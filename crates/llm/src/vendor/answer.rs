//! The stream of one answer, as the port promises it.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use genai::chat::{ChatStream, ChatStreamEvent, ContentPart, MessageContent, StopReason as WireReason, StreamEnd};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::port::{Error, StopReason, StreamEvent, ToolCall, Usage};

use super::{Backend, fault, meter::Meter, names::Names};

/// No answer of a model is longer; what is, never ends.
const MAX_STREAM_BYTES: usize = 16 * 1024 * 1024;
/// No call has longer arguments.
const MAX_ARGUMENT_BYTES: usize = 512 * 1024;
/// What is carried back to a vendor may be this long.
const MAX_CONTINUATION_BYTES: usize = 256 * 1024;
/// How often a model that thinks shows that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// What is needed to read one answer.
pub(super) struct Answer {
    backend: Backend,
    names: Names,
    meter: Arc<Meter>,
    used_ids: HashSet<String>,
}

/// What follows from an event of the library.
enum Step {
    Nothing,
    SignOfLife,
    Text(String),
    Call(genai::chat::ToolCall),
    End(Box<StreamEnd>),
}

impl Answer {
    pub(super) fn new(backend: Backend, names: Names, meter: Arc<Meter>, used_ids: HashSet<String>) -> Self {
        Self {
            backend,
            names,
            meter,
            used_ids,
        }
    }

    /// The events of the port. Calls come when the answer is complete, so that none is ever half of one.
    pub(super) fn events(
        mut self,
        mut stream: ChatStream,
    ) -> impl Stream<Item = Result<StreamEvent, Error>> + Send + 'static {
        async_stream::stream! {
            let mut calls = Vec::new();
            let mut shown_at = Instant::now();
            loop {
                let (news, event) = heard(&mut stream, &self.meter).await;
                if let Some(usage) = news {
                    yield Ok(StreamEvent::Usage(usage));
                }
                let event = match event {
                    None => continue,
                    Some(None) => break,
                    Some(Some(event)) => event,
                };
                match self.step(event) {
                    Ok(Step::Nothing) => {}
                    Ok(Step::SignOfLife) => {
                        if shown_at.elapsed() >= SIGN_OF_LIFE {
                            shown_at = Instant::now();
                            yield Ok(StreamEvent::TextDelta(String::new()));
                        }
                    }
                    Ok(Step::Text(text)) => yield Ok(StreamEvent::TextDelta(text)),
                    Ok(Step::Call(call)) => calls.push(call),
                    Ok(Step::End(end)) => {
                        match self.end(*end, calls) {
                            Ok((calls, stop_reason, usage)) => {
                                for call in calls {
                                    yield Ok(StreamEvent::ToolCall(call));
                                }
                                yield Ok(StreamEvent::Finish { stop_reason, usage });
                            }
                            Err(error) => yield Err(error),
                        }
                        return;
                    }
                    Err(error) => {
                        yield Err(error);
                        return;
                    }
                }
            }
            yield Err(match self.meter.fault() {
                Some(fault) => fault::protocol(self.backend, &fault),
                None => fault::ended_early(self.backend, self.meter.has_data()),
            });
        }
    }

    fn step(&self, event: genai::Result<ChatStreamEvent>) -> Result<Step, Error> {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.failed(&error),
        };
        if let Some(fault) = self.meter.fault() {
            return Err(fault::protocol(self.backend, &fault));
        }
        if self.meter.bytes() > MAX_STREAM_BYTES {
            return Err(fault::protocol(
                self.backend,
                &format!("sent more than {MAX_STREAM_BYTES} bytes in one answer"),
            ));
        }
        Ok(match event {
            ChatStreamEvent::Start => Step::Nothing,
            ChatStreamEvent::Chunk(chunk) if chunk.content.is_empty() => Step::Nothing,
            ChatStreamEvent::Chunk(chunk) => Step::Text(chunk.content),
            ChatStreamEvent::ReasoningChunk(_)
            | ChatStreamEvent::ThoughtSignatureChunk(_)
            | ChatStreamEvent::Heartbeat => Step::SignOfLife,
            ChatStreamEvent::ToolCallChunk(chunk) => {
                let arguments = chunk.tool_call.fn_arguments.as_str().unwrap_or_default();
                if arguments.len() > MAX_ARGUMENT_BYTES {
                    return Err(fault::protocol(
                        self.backend,
                        &format!("sent a tool call with more than {MAX_ARGUMENT_BYTES} bytes of arguments"),
                    ));
                }
                match self.backend {
                    // Google's calls come whole; Anthropic's are collected by the library, the others' by the meter.
                    Backend::Google => Step::Call(chunk.tool_call),
                    Backend::Anthropic | Backend::Hermes => Step::SignOfLife,
                }
            }
            ChatStreamEvent::End(end) => Step::End(Box::new(end)),
        })
    }

    /// An error, or not one: the library takes a frame of Google's that holds counts only for a failure.
    fn failed(&self, error: &genai::Error) -> Result<Step, Error> {
        if let Some(fault) = self.meter.fault() {
            return Err(fault::protocol(self.backend, &fault));
        }
        if let Some(reason) = self.meter.refusal() {
            return Err(fault::refused(self.backend, &reason));
        }
        if self.backend == Backend::Google
            && let genai::Error::ChatResponse { body, .. } = error
            && body.get("error").is_none()
        {
            return Ok(Step::Nothing);
        }
        Err(fault::of_stream(self.backend, error))
    }

    fn end(
        &mut self,
        end: StreamEnd,
        mut calls: Vec<genai::chat::ToolCall>,
    ) -> Result<(Vec<ToolCall>, StopReason, Usage), Error> {
        let reason = end.captured_stop_reason;
        if self.backend == Backend::Google && reason.is_none() {
            // The connection ended without the frame that ends an answer.
            return Err(fault::ended_early(self.backend, self.meter.has_data()));
        }
        if let Some(word @ ("MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL")) = reason.as_ref().map(WireReason::raw)
        {
            return Err(fault::broken_call(self.backend, word));
        }
        if self.backend == Backend::Hermes {
            calls.extend(self.meter.take_calls());
        }
        let mut thoughts = Vec::new();
        if let Some(content) = end.captured_content {
            take_content(content, &mut calls, &mut thoughts);
        }
        let is_cut = reason.as_ref().is_some_and(WireReason::is_max_tokens);
        let mut whole = Vec::with_capacity(calls.len());
        for call in calls {
            if let Some(call) = self.call(call, is_cut)? {
                whole.push(call);
            }
        }
        if whole.is_empty() && matches!(reason, Some(WireReason::ToolCall(_))) {
            return Err(fault::protocol(
                self.backend,
                "ended its answer with tool calls and sent none that can be read",
            ));
        }
        if let Some(first) = whole.first_mut()
            && !thoughts.is_empty()
        {
            first.continuation = bounded(json!({ self.backend.name(): { "thinking": thoughts } }));
        }
        let stop_reason = stop_reason(reason, !whole.is_empty());
        Ok((whole, stop_reason, self.meter.usage()))
    }

    /// A call as the port wants it; `None` for one that the token limit cut off.
    fn call(&mut self, call: genai::chat::ToolCall, is_cut: bool) -> Result<Option<ToolCall>, Error> {
        let arguments = match call.fn_arguments {
            Value::Object(arguments) => arguments,
            Value::Null => Map::new(),
            _ if is_cut => return Ok(None),
            Value::String(text) if text.trim().is_empty() => Map::new(),
            _ => {
                return Err(fault::protocol(
                    self.backend,
                    "sent a tool call whose arguments are not a JSON object",
                ));
            }
        };
        if call.fn_name.is_empty() {
            return Err(fault::protocol(self.backend, "sent a tool call without a name"));
        }
        let signature = call
            .thought_signatures
            .and_then(|signatures| signatures.into_iter().next());
        let continuation = match (self.backend, signature) {
            (Backend::Google, Some(signature)) => {
                bounded(json!({ self.backend.name(): { "thought_signature": signature } }))
            }
            _ => None,
        };
        Ok(Some(ToolCall {
            call_id: self.fresh_id(call.call_id),
            name: self.names.ours(call.fn_name),
            arguments: Value::Object(arguments),
            continuation,
        }))
    }

    /// The vendor's id, or one of ours where it has none (the library makes them up) or has used it before.
    fn fresh_id(&mut self, id: String) -> String {
        let is_made_up = self.backend == Backend::Google && id.starts_with("call#");
        let mut fresh = if is_made_up { String::new() } else { id };
        let mut number = self.used_ids.len();
        while fresh.is_empty() || self.used_ids.contains(&fresh) {
            number += 1;
            fresh = format!("call_{number}");
        }
        self.used_ids.insert(fresh.clone());
        fresh
    }
}

/// What comes next: news of the usage as soon as the meter has them, an event (`Some(None)` at the end), or both. The
/// library says nothing of a frame that only counts, and may wait for ever behind it.
async fn heard(
    stream: &mut ChatStream,
    meter: &Meter,
) -> (Option<Usage>, Option<Option<genai::Result<ChatStreamEvent>>>) {
    poll_fn(|context| {
        let polled = stream.poll_next_unpin(context);
        match (meter.news(), polled) {
            (news, Poll::Ready(event)) => Poll::Ready((news, Some(event))),
            (Some(usage), Poll::Pending) => Poll::Ready((Some(usage), None)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// Calls, and signed thoughts in the form in which they go back.
fn take_content(content: MessageContent, calls: &mut Vec<genai::chat::ToolCall>, thoughts: &mut Vec<Value>) {
    let mut signature = None;
    for part in content {
        match part {
            ContentPart::ToolCall(call) => calls.push(call),
            ContentPart::ThoughtSignature(text) => signature = Some(text),
            ContentPart::ReasoningContent(text) => {
                if let Some(signature) = signature.take() {
                    thoughts.push(json!({"type": "thinking", "thinking": text, "signature": signature}));
                }
            }
            ContentPart::Custom(block) => thoughts.push(block.data),
            _ => {}
        }
    }
}

/// A vendor that sends more than this does without it.
fn bounded(continuation: Value) -> Option<Value> {
    (continuation.to_string().len() <= MAX_CONTINUATION_BYTES).then_some(continuation)
}

fn stop_reason(reason: Option<WireReason>, has_calls: bool) -> StopReason {
    match reason {
        Some(WireReason::MaxTokens(_)) => StopReason::MaxTokens,
        // Google ends an answer with calls like any other.
        _ if has_calls => StopReason::ToolUse,
        None | Some(WireReason::Completed(_) | WireReason::StopSequence(_)) => StopReason::EndTurn,
        Some(WireReason::ToolCall(_)) => StopReason::ToolUse,
        Some(WireReason::ContentFilter(_)) => StopReason::Other("content_filter".to_owned()),
        Some(WireReason::Other(word)) => StopReason::Other(fault::word(&word).unwrap_or_else(|| "unknown".to_owned())),
    }
}
