//! Our conversation in the library's words.
//!
//! Vendors refuse what a stored conversation may well hold: empty texts, calls whose result was lost in a crash, results
//! whose call was cut off with the start of a long history, arguments that are no object. All of that is put right here,
//! so that a conversation that was accepted once can always go on.

use std::collections::{BTreeSet, HashMap, HashSet};

use genai::chat::{
    ChatMessage, ChatOptions, ChatRequest, ContentPart, CustomPart, MessageContent, ReasoningEffort, Tool, ToolCall,
    ToolResponse,
};
use serde_json::{Map, Value, json};

use crate::port::{self, Message, Request};

use super::{
    Backend,
    names::{Names, wire_id},
};

/// What a person said who said nothing; an empty text is refused.
const NO_TEXT: &str = "(no text)";
const INTERRUPTED: &str = "the call was interrupted before it answered";

/// Ids of all calls of a conversation; the next ones must differ.
pub(super) fn call_ids(messages: &[Message]) -> HashSet<String> {
    let calls = messages.iter().flat_map(|message| match message {
        Message::Assistant { tool_calls, .. } => tool_calls.as_slice(),
        _ => &[],
    });
    calls.map(|call| call.call_id.clone()).collect()
}

/// What is asked of the library beside the conversation.
pub(super) fn options(backend: Backend, model: &str, request: &Request) -> ChatOptions {
    let mut options = ChatOptions::default()
        .with_capture_usage(false)
        // Google's come whole. Where they come in pieces with an index, the library makes room for as many as the index
        // says, which ends the process when a server says four billion.
        .with_capture_tool_calls(backend == Backend::Anthropic)
        // Anthropic wants its signed thoughts back beside the calls that follow from them.
        .with_capture_reasoning_content(backend == Backend::Anthropic);
    if let Some(max_tokens) = request.max_tokens {
        options = options.with_max_tokens(max_tokens);
    }
    if let Some(temperature) = request.temperature {
        // Anthropic's scale ends at 1.
        let highest = if backend == Backend::Anthropic { 1.0 } else { 2.0 };
        options = options.with_temperature(temperature.clamp(0.0, highest));
    }
    let mut body = Map::new();
    if backend == Backend::Hermes {
        // Usage is read from the wire, so the library is not told to capture it, and does not ask for it.
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    // The library cuts endings like `-max` off a model's name and takes them for an effort. An effort of our own keeps
    // the name whole; these two are written into no request.
    if backend == Backend::Hermes {
        options = options.with_reasoning_effort(ReasoningEffort::Budget(0));
    } else if ReasoningEffort::from_model_name(model).0.is_some() {
        options = options.with_reasoning_effort(ReasoningEffort::Zero);
    }
    if backend != Backend::Google {
        // Nor is anything before `::` the vendor's namespace.
        body.insert("model".to_owned(), json!(model));
    }
    if body.is_empty() {
        options
    } else {
        options.with_extra_body(Value::Object(body))
    }
}

/// The conversation and the tools; what can be moved out of the request is.
pub(super) fn conversation(backend: Backend, request: &mut Request, names: &Names) -> ChatRequest {
    let messages = Conversation::new(backend, names).read(std::mem::take(&mut request.messages));
    let mut conversation = ChatRequest::new(messages);
    let system_prompt = std::mem::take(&mut request.system_prompt);
    if !system_prompt.trim().is_empty() {
        conversation = conversation.with_system(system_prompt);
    }
    let tools: Vec<Tool> = request
        .tools
        .drain(..)
        .map(|tool| {
            let mut wire = Tool::new(names.to_wire(&tool.name));
            wire.schema = Some(object_schema(tool.input_schema));
            wire.description = (!tool.description.is_empty()).then_some(tool.description);
            wire
        })
        .collect();
    if !tools.is_empty() {
        conversation = conversation.with_tools(tools);
    }
    conversation
}

/// Every vendor wants an object with a type.
fn object_schema(schema: Value) -> Value {
    match schema {
        Value::Object(mut schema) => {
            schema.entry("type").or_insert_with(|| json!("object"));
            schema.entry("properties").or_insert_with(|| json!({}));
            Value::Object(schema)
        }
        _ => json!({"type": "object", "properties": {}}),
    }
}

struct Conversation<'a> {
    backend: Backend,
    names: &'a Names,
    messages: Vec<ChatMessage>,
    /// Wire id and wire name of the calls that wait for their results, in their order.
    waiting: Vec<(String, String)>,
    results: HashMap<String, String>,
}

impl<'a> Conversation<'a> {
    fn new(backend: Backend, names: &'a Names) -> Self {
        Self {
            backend,
            names,
            messages: Vec::new(),
            waiting: Vec::new(),
            results: HashMap::new(),
        }
    }

    fn read(mut self, messages: Vec<Message>) -> Vec<ChatMessage> {
        self.messages.reserve(messages.len());
        // A conversation begins with the person; what a cut history has before that refers to nothing.
        let first = messages
            .iter()
            .position(|message| matches!(message, Message::User { .. }))
            .unwrap_or(0);
        for message in messages.into_iter().skip(first) {
            match message {
                Message::User { text } => {
                    self.settle();
                    let text = if text.trim().is_empty() {
                        NO_TEXT.to_owned()
                    } else {
                        text
                    };
                    self.messages.push(ChatMessage::user(text));
                }
                Message::Assistant { text, tool_calls } => {
                    self.settle();
                    self.assistant(text, tool_calls);
                }
                Message::Tool {
                    call_id, result, error, ..
                } => {
                    let id = wire_id(&call_id);
                    if self.waiting.iter().any(|(waiting, _)| *waiting == id) {
                        self.results.entry(id).or_insert_with(|| result_text(result, error));
                    }
                }
            }
        }
        self.settle();
        self.messages
    }

    /// Gives the calls of the last answer their results, in one message and in the order of the calls.
    fn settle(&mut self) {
        let mut results = std::mem::take(&mut self.results);
        let parts: Vec<ContentPart> = std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(id, name)| {
                let text = results
                    .remove(&id)
                    .unwrap_or_else(|| json!({ "error": INTERRUPTED }).to_string());
                ContentPart::ToolResponse(ToolResponse::new(id, text).with_fn_name(name))
            })
            .collect();
        if !parts.is_empty() {
            self.messages.push(ChatMessage::tool(MessageContent::from_parts(parts)));
        }
    }

    fn assistant(&mut self, text: String, calls: Vec<port::ToolCall>) {
        let mut parts = Vec::with_capacity(1 + calls.len());
        for call in &calls {
            parts.extend(self.thoughts(call));
        }
        if !text.trim().is_empty() {
            parts.push(ContentPart::Text(text));
        }
        let mut seen = BTreeSet::new();
        for call in calls {
            let id = wire_id(&call.call_id);
            // A second call of the same id could not be told from the first.
            if !seen.insert(id.clone()) {
                continue;
            }
            let name = self.names.to_wire(&call.name);
            self.waiting.push((id.clone(), name.clone()));
            let signature = match self.backend {
                Backend::Google => own(&call, self.backend, "thought_signature").and_then(Value::as_str),
                Backend::Anthropic | Backend::Hermes => None,
            };
            let thought_signatures = signature.map(|signature| vec![signature.to_owned()]);
            parts.push(ContentPart::ToolCall(ToolCall {
                call_id: id,
                fn_name: name,
                fn_arguments: match call.arguments {
                    arguments @ Value::Object(_) => arguments,
                    _ => json!({}),
                },
                thought_signatures,
            }));
        }
        if !parts.is_empty() {
            self.messages
                .push(ChatMessage::assistant(MessageContent::from_parts(parts)));
        }
    }

    /// The blocks of thought that Anthropic sent before this call, as they came.
    fn thoughts(&self, call: &port::ToolCall) -> Vec<ContentPart> {
        if self.backend != Backend::Anthropic {
            return Vec::new();
        }
        let blocks = own(call, self.backend, "thinking").and_then(Value::as_array);
        let part = |block: &Value| {
            ContentPart::Custom(CustomPart {
                model_iden: None,
                data: block.clone(),
            })
        };
        blocks.into_iter().flatten().map(part).collect()
    }
}

/// What this backend, and no other, left with a call.
fn own<'a>(call: &'a port::ToolCall, backend: Backend, key: &str) -> Option<&'a Value> {
    call.continuation.as_ref()?.get(backend.name())?.get(key)
}

fn result_text(result: Value, error: Option<String>) -> String {
    match (error, result) {
        (Some(error), Value::Object(mut result)) => {
            result.entry("error").or_insert(Value::String(error));
            Value::Object(result).to_string()
        }
        (Some(error), Value::Null) => json!({ "error": error }).to_string(),
        (Some(error), result) => json!({ "error": error, "result": result }).to_string(),
        (None, Value::String(text)) if !text.is_empty() => text,
        (None, result) => result.to_string(),
    }
}
