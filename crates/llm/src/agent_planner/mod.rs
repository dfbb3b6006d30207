//! The planner as the model of an agent: for the first try, for CI and for sites without a network.
//!
//! An agent's prompt is free text, and no program without a model follows free text. What one can follow is exact: the
//! tools that the prompt names, in its order, with arguments that the event or the message holds under the same names.
//! That is what this does, and it says in every answer that it is no language model and how to set one up.
//!
//! * [`prompt`] – which tools the agent's own instructions name,
//! * [`facts`] – what the event or the message holds, by name,
//! * [`arguments`] – filling a tool's schema from it, or naming what is missing,
//! * [`report`] – the words of the answer.
//!
//! Only the agent's own instructions decide which tools are called. What stands in an event, in a message or in a result
//! is data: it may become an argument or be shown, and no word in it is ever taken for the name of a tool.

mod arguments;
mod facts;
mod prompt;
mod report;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::planner;
use crate::port::{Error, EventStream, Message, Provider, Request, StopReason, StreamEvent, ToolCall, ToolSpec, Usage};

use arguments::Missing;
use facts::Facts;

/// Prompts that name more tools than this are not followed further.
const MAX_CALLS: usize = 16;
/// Tools that take a question, the better one first.
const ASKED: [&str; 2] = ["search", "discover"];

/// The planner for agents.
#[derive(Debug, Clone, Copy, Default)]
pub struct AgentPlanner;

/// One thing to do, or the reason why it is not done.
enum Intent<'a> {
    Call(&'a ToolSpec, Value),
    Lacking(&'a ToolSpec, Vec<Missing>),
}

/// A call of this turn, and what came of it.
struct Outcome<'a> {
    name: &'a str,
    result: Result<&'a Value, &'a str>,
}

impl AgentPlanner {
    /// The events of the next step of this conversation.
    pub fn step(&self, request: &Request) -> Vec<StreamEvent> {
        let turn_start = request
            .messages
            .iter()
            .rposition(|message| matches!(message, Message::User { .. }));
        let (text, since) = match turn_start.map(|start| request.messages.split_at(start)) {
            Some((_, [Message::User { text }, since @ ..])) => (text.as_str(), since),
            _ => ("", &[] as &[Message]),
        };
        let facts = Facts::read(text);
        let intents = intents(request, &facts);
        let outcomes = outcomes(since);
        let calls: Vec<(&str, &Value)> = intents
            .iter()
            .filter_map(|intent| match intent {
                Intent::Call(tool, arguments) => Some((tool.name.as_str(), arguments)),
                Intent::Lacking(..) => None,
            })
            .collect();
        // An answer was given in this turn already: what it called is not called again.
        let has_called = since.iter().any(|message| matches!(message, Message::Assistant { .. }));
        let (mut events, stop_reason) = if !has_called && !calls.is_empty() {
            let first = planner::first_call_number(&request.messages);
            let calls = calls.into_iter().enumerate().map(|(position, (name, arguments))| {
                let call_id = format!("call_{}", first + position);
                StreamEvent::ToolCall(ToolCall::new(call_id, name, arguments.clone()))
            });
            (calls.collect::<Vec<_>>(), StopReason::ToolUse)
        } else {
            let lacking = intents.iter().filter_map(|intent| match intent {
                Intent::Lacking(tool, missing) => Some((tool.name.as_str(), missing.as_slice())),
                Intent::Call(..) => None,
            });
            let is_cut = request.system_prompt.len() > prompt::MAX_BYTES;
            let text = report::answer(&facts, &outcomes, lacking, is_cut);
            let deltas = planner::deltas(&text).into_iter().map(StreamEvent::TextDelta);
            (deltas.collect(), StopReason::EndTurn)
        };
        events.push(StreamEvent::Finish {
            stop_reason,
            usage: Usage::default(),
        });
        events
    }
}

#[async_trait]
impl Provider for AgentPlanner {
    fn name(&self) -> &str {
        crate::AGENT_PLANNER
    }

    async fn stream(&self, request: Request) -> Result<EventStream, Error> {
        Ok(Box::pin(futures::stream::iter(self.step(&request).into_iter().map(Ok))))
    }
}

/// The tools the instructions name, and where they name none, the one that takes a question.
fn intents<'a>(request: &'a Request, facts: &Facts) -> Vec<Intent<'a>> {
    let named = prompt::named_tools(&request.system_prompt, &request.tools);
    if !named.is_empty() {
        let intent = |tool: &'a ToolSpec| match arguments::fill(&tool.input_schema, facts) {
            Ok(arguments) => Intent::Call(tool, arguments),
            Err(missing) => Intent::Lacking(tool, missing),
        };
        return named.into_iter().take(MAX_CALLS).map(intent).collect();
    }
    let offered = ASKED
        .iter()
        .find_map(|name| request.tools.iter().find(|tool| tool.name == *name));
    match (offered, facts.question()) {
        (Some(tool), Some(question)) => match arguments::fill_question(&tool.input_schema, question, facts) {
            Some(arguments) => vec![Intent::Call(tool, arguments)],
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn outcomes(since: &[Message]) -> Vec<Outcome<'_>> {
    let answer = |id: &str| {
        since.iter().find_map(|message| match message {
            Message::Tool {
                call_id, result, error, ..
            } if call_id == id => Some(match error.as_deref().filter(|error| !error.is_empty()) {
                Some(error) => Err(error),
                None => Ok(result),
            }),
            _ => None,
        })
    };
    let calls = since.iter().flat_map(|message| match message {
        Message::Assistant { tool_calls, .. } => tool_calls.as_slice(),
        _ => &[],
    });
    calls
        .map(|call| Outcome {
            name: &call.name,
            result: answer(&call.call_id).unwrap_or(Err("the call was interrupted before it answered")),
        })
        .collect()
}

/// What a schema stands for when it is none.
fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// The names a schema requires.
fn required(schema: &Value) -> impl Iterator<Item = &str> {
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str)
}

/// An object of arguments.
fn object(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    entries.into_iter().fold(json!({}), |mut object, (name, value)| {
        object[name] = value;
        object
    })
}

#[cfg(test)]
mod tests;
