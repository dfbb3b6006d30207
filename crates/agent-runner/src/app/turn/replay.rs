//! Where a run stands, from its journal: what a lost worker's successor goes on from (`design.md` 7).
//!
//! The journal is enough to build the conversation with the model again: each answer with its calls, each call with its
//! result. A reading call that was begun is made again; a changing one is not, because nobody knows whether it took
//! effect.

use std::collections::HashMap;

use copass_llm::{Message, ToolCall, Usage};
use serde_json::Value;

use super::journal::{Journal, StepHandle};
use crate::app::domain::{Step, StepKind, StepState};

/// What the next thing is that a run does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Ask the model, in the step that is begun, or in a new one.
    Ask(Option<StepHandle>),
    /// Make the calls of the last answer that have no result yet.
    Call(Vec<ToolCall>),
    /// The model has said the last word.
    Finish { stop_reason: String },
}

/// How far a run got.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Progress {
    pub(super) next: Next,
    /// The conversation since the run's own user turn.
    pub(super) messages: Vec<Message>,
    pub(super) text: String,
    /// What each model answer so far used.
    pub(super) answers: Vec<Spent>,
    /// What model steps used that gave no answer.
    pub(super) failed: Vec<Spent>,
    /// What the model step that is begun has used already.
    pub(super) begun: Option<Spent>,
    /// A model step was begun, and nobody knows what its answer used.
    pub(super) has_lost_answer: bool,
    /// The number of the next frame.
    pub(super) next_frame: i64,
    /// Changing calls that a lost worker began.
    pub(super) uncertain: Vec<StepHandle>,
    /// Calls that ended without anybody knowing how: the model was told, and the same call is not made again.
    pub(super) not_repeated: Vec<(String, Value)>,
}

/// What a model step used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spent {
    pub(super) usage: Usage,
    pub(super) is_cost_known: bool,
}

impl Spent {
    /// `None` where no answer was counted.
    fn of(step: &Step) -> Option<Self> {
        Some(Self {
            usage: step.usage?,
            is_cost_known: step.cost_microcents.is_some(),
        })
    }
}

/// The frame after `run_started`.
const FIRST_FRAME: i64 = 2;

impl Progress {
    /// What all model steps used.
    pub(super) fn spent(&self) -> impl Iterator<Item = Spent> {
        self.answers.iter().chain(&self.failed).copied().chain(self.begun)
    }

    /// A run that begins with this step.
    pub(super) fn first(step: StepHandle) -> Self {
        Self {
            next: Next::Ask(Some(step)),
            messages: Vec::new(),
            text: String::new(),
            answers: Vec::new(),
            failed: Vec::new(),
            begun: None,
            has_lost_answer: false,
            next_frame: FIRST_FRAME,
            uncertain: Vec::new(),
            not_repeated: Vec::new(),
        }
    }

    /// Where the journal ends.
    pub(super) fn of(journal: &Journal) -> Self {
        let mut progress = Self::first_without_step();
        let mut open: Vec<ToolCall> = Vec::new();
        let mut results: HashMap<String, Message> = HashMap::new();
        let mut stop_reason = String::new();
        for (handle, step) in journal.steps() {
            let frame = step.last_frame.max(step.first_frame).unwrap_or(0);
            progress.next_frame = progress.next_frame.max(frame + 1);
            match (step.kind, step.state) {
                (StepKind::Model, StepState::Done) => {
                    progress.close(&mut open, &mut results);
                    let (calls, reason) = progress.take_answer(step);
                    open = calls;
                    stop_reason = reason;
                    progress.next = Next::Ask(None);
                }
                (StepKind::Model, StepState::Intended) => {
                    progress.next = Next::Ask(Some(handle));
                    progress.begun = Spent::of(step);
                    progress.has_lost_answer = progress.begun.is_none();
                }
                (StepKind::Model, StepState::Failed | StepState::Unknown) => {
                    progress.next = Next::Ask(None);
                    progress.failed.extend(Spent::of(step));
                }
                (StepKind::Tool, StepState::Unknown) if step.output.is_none() => progress.uncertain.push(handle),
                (StepKind::Tool, StepState::Done | StepState::Failed | StepState::Unknown) => {
                    if step.state == StepState::Unknown {
                        let call = open.iter().find(|call| step.call_id.as_ref() == Some(&call.call_id));
                        let call = call.map(|call| (call.name.clone(), call.arguments.clone()));
                        progress.not_repeated.extend(call);
                    }
                    if let Some(message) = result(step) {
                        results.insert(step.call_id.clone().unwrap_or_default(), message);
                    }
                }
                (StepKind::Tool, StepState::Intended) if !step.is_read_only => progress.uncertain.push(handle),
                (StepKind::Tool, StepState::Intended) => {}
            }
        }
        if matches!(progress.next, Next::Ask(None)) && !progress.answers.is_empty() {
            let missing: Vec<ToolCall> = open
                .iter()
                .filter(|call| !results.contains_key(&call.call_id))
                .cloned()
                .collect();
            if open.is_empty() {
                progress.next = Next::Finish { stop_reason };
            } else if !missing.is_empty() {
                // Results come in the order of the calls; those still to be made follow those that were.
                open.retain(|call| results.contains_key(&call.call_id));
                progress.next = Next::Call(missing);
            }
        }
        progress.close(&mut open, &mut results);
        progress
    }

    fn first_without_step() -> Self {
        Self {
            next: Next::Ask(None),
            ..Self::first(StepHandle::default())
        }
    }

    fn close(&mut self, open: &mut Vec<ToolCall>, results: &mut HashMap<String, Message>) {
        for call in open.drain(..) {
            self.messages.extend(results.remove(&call.call_id));
        }
        results.clear();
    }

    fn take_answer(&mut self, step: &Step) -> (Vec<ToolCall>, String) {
        let output = step.output.as_ref().unwrap_or(&Value::Null);
        let text = output["text"].as_str().unwrap_or_default().to_owned();
        let calls: Vec<ToolCall> = serde_json::from_value(output["tool_calls"].clone()).unwrap_or_default();
        self.text.push_str(&text);
        self.answers.push(Spent::of(step).unwrap_or(Spent {
            usage: Usage::default(),
            is_cost_known: true,
        }));
        self.messages.push(Message::Assistant {
            text,
            tool_calls: calls.clone(),
        });
        (calls, output["stop_reason"].as_str().unwrap_or("end_turn").to_owned())
    }
}

fn result(step: &Step) -> Option<Message> {
    Some(Message::Tool {
        call_id: step.call_id.clone()?,
        name: step.name.clone().unwrap_or_default(),
        result: step.output.clone().unwrap_or_default(),
        error: step.error.clone(),
    })
}
