use copass_llm::{
    Backend, Error, Message, Provider, Request, StopReason, StreamEvent, ToolCall, ToolSpec, Usage, Vendor,
};
use copass_model_server::ModelServer;
use copass_runtime::{Secret, egress::Egress};
use futures::StreamExt;
use serde_json::{Value, json};

/// A key that must appear in no message.
pub(crate) const KEY: &str = "canary-key-0123456789";

pub(crate) fn vendor(backend: Backend, url: &str) -> Vendor {
    let egress = Egress::new().unwrap();
    Vendor::new(backend, Some(url.parse().unwrap()), Some(Secret::new(KEY)), &egress).unwrap()
}

pub(crate) async fn server(script: Value) -> ModelServer {
    let server = ModelServer::start_local().await.unwrap();
    server.play(script).unwrap();
    server
}

pub(crate) fn tool(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: format!("does {name}"),
        input_schema: json!({"type": "object", "properties": {"x": {"type": "integer"}}}),
        read_only: true,
    }
}

pub(crate) fn request(messages: Vec<Message>) -> Request {
    Request {
        model: "test-model".to_owned(),
        system_prompt: "be good".to_owned(),
        messages,
        tools: vec![tool("look"), tool("apps/web.search")],
        max_tokens: Some(500),
        temperature: Some(0.5),
        now: None,
    }
}

/// A whole answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) stop_reason: Option<StopReason>,
    pub(crate) usage: Usage,
}

impl Answer {
    /// The calls without what is carried back.
    pub(crate) fn calls(&self) -> Vec<(&str, &str, &Value)> {
        self.calls
            .iter()
            .map(|call| (call.call_id.as_str(), call.name.as_str(), &call.arguments))
            .collect()
    }

    pub(crate) fn into_message(self) -> Message {
        Message::Assistant {
            text: self.text,
            tool_calls: self.calls,
        }
    }
}

/// Reads an answer to its end, and sees to the promises of the port: exactly one finish, and last; nothing after an
/// error.
pub(crate) async fn ask(provider: &dyn Provider, request: Request) -> Result<Answer, (Answer, Error)> {
    let mut answer = Answer::default();
    let mut stream = match provider.stream(request).await {
        Ok(stream) => stream,
        Err(error) => return Err((answer, error)),
    };
    while let Some(event) = stream.next().await {
        assert_eq!(answer.stop_reason, None, "an event after the finish");
        match event {
            Ok(StreamEvent::TextDelta(text)) => answer.text.push_str(&text),
            Ok(StreamEvent::ToolCall(call)) => answer.calls.push(call),
            Ok(StreamEvent::Usage(usage)) => answer.usage = usage,
            Ok(StreamEvent::Finish { stop_reason, usage }) => {
                answer.stop_reason = Some(stop_reason);
                let told = std::mem::replace(&mut answer.usage, usage);
                assert!(
                    told.is_untold() || told == usage,
                    "the last word is {told:?}, and then {usage:?}"
                );
            }
            Err(error) => {
                assert!(stream.next().await.is_none(), "an event after an error");
                return Err((answer, error));
            }
        }
    }
    assert!(answer.stop_reason.is_some(), "no finish");
    Ok(answer)
}

pub(crate) fn header(request: &copass_model_server::RecordedRequest, name: &str) -> Option<String> {
    let found = request.headers.iter().find(|(known, _)| known == name)?;
    Some(found.1.clone())
}
