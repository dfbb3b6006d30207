//! Accepting a turn: conversation, user message, run row with its trace and the first model step, in one transaction.
//!
//! So there is no run without its trace and no model call without its run, and a turn costs one disk flush before the
//! first model call.

use chrono::{DateTime, Utc};
use copass_errors::{Error, ErrorCode, Result};
use copass_llm::Message;
use copass_runtime::clock;
use copass_store::Tx;
use copass_types::{AgentId, RunId, SessionId};

use super::{
    Order, Worker,
    journal::{Journal, StepHandle},
};
use crate::{
    app::domain::{CONCIERGE_SLUG, ModelSettings, Run, RunStatus, SYSTEM_AGENT_VERSION},
    store::{
        self,
        conversations::{Claim, Owner},
    },
};

/// The fence of a run that has had one worker.
pub(super) const FIRST_FENCE: i64 = 1;
/// What a model is given of a long conversation.
const HISTORY_MAX_MESSAGES: i64 = 400;
const HISTORY_MAX_BYTES: usize = 512 * 1024;

/// A turn that was accepted.
pub(super) struct Start {
    pub(super) run: Run,
    pub(super) session_id: SessionId,
    /// Everything before this turn's message.
    pub(super) history: Vec<Message>,
    pub(super) journal: Journal,
    pub(super) first_step: StepHandle,
    pub(super) model: String,
}

pub(super) async fn accept(worker: &Worker, order: &Order) -> Result<Start> {
    let settings = settings(worker);
    let model = model_name(&settings);
    let session_id = match &order.session_id {
        Some(text) => Some(text.parse::<SessionId>().map_err(|_| unknown_session())?),
        None => None,
    };
    let now = clock::now();
    let run_id = RunId::generate();
    let mut journal = Journal::new(
        worker.db.clone(),
        order.sandbox_id.clone(),
        run_id.clone(),
        FIRST_FENCE,
        worker.config.lease,
    );
    let first_step = journal.begin_model(&model);

    let mut tx = worker.db.begin().await?;
    let agent_id =
        store::agents::ensure_system(&mut tx, &order.sandbox_id, &order.owner, CONCIERGE_SLUG, &settings, now).await?;
    let (session_id, history) = open_conversation(&mut tx, order, &agent_id, session_id, &run_id, now).await?;
    let run = Run {
        id: run_id.clone(),
        sandbox_id: order.sandbox_id.clone(),
        user_id: order.user_id.clone(),
        agent_id,
        agent_slug: CONCIERGE_SLUG.to_owned(),
        agent_version: SYSTEM_AGENT_VERSION,
        trigger_id: None,
        session_id: Some(session_id.clone()),
        status: RunStatus::Running,
        input_event: None,
        output_text: None,
        tokens_in: None,
        tokens_out: None,
        cost_microcents: None,
        duration_ms: None,
        error_type: None,
        error_message: None,
        warnings: order.toolset.warnings().to_vec(),
        tool_resolution_trace: Some(order.toolset.trace().clone()),
        created_at: now,
        started_at: Some(now),
        finished_at: None,
    };
    store::runs::insert(
        &mut tx,
        &run,
        FIRST_FENCE,
        &worker.config.worker_id,
        now + worker.config.lease,
    )
    .await?;
    let message = [Message::user(order.message.clone())];
    store::conversations::append(&mut tx, &session_id, &run_id, &message, now).await?;
    journal.write(&mut tx).await?;
    tx.commit().await?;
    journal.written();
    Ok(Start {
        run,
        session_id,
        history,
        journal,
        first_step,
        model,
    })
}

async fn open_conversation(
    tx: &mut Tx,
    order: &Order,
    agent_id: &AgentId,
    session_id: Option<SessionId>,
    run_id: &RunId,
    now: DateTime<Utc>,
) -> Result<(SessionId, Vec<Message>)> {
    let owner = Owner {
        sandbox_id: &order.sandbox_id,
        user_id: &order.user_id,
        agent_id,
    };
    let Some(session_id) = session_id else {
        let session_id = SessionId::generate();
        store::conversations::insert(tx, &session_id, &owner, run_id, now).await?;
        return Ok((session_id, Vec::new()));
    };
    match store::conversations::claim(tx, &session_id, &owner, run_id, now).await? {
        Claim::Taken => {}
        Claim::Unknown => return Err(unknown_session()),
        Claim::Busy => {
            return Err(Error::new(
                ErrorCode::SessionBusy,
                "this conversation has a turn in progress; wait for its end, or start another conversation by leaving \
                 session_id out",
            ));
        }
    }
    let messages = store::conversations::newest_messages(tx, &session_id, HISTORY_MAX_MESSAGES).await?;
    Ok((session_id, recent(messages)))
}

fn unknown_session() -> Error {
    Error::not_found("session")
}

/// The newest part of the conversation that fits, beginning with something a person said: a result without its call, or
/// a reply without its question, makes no sense to a model.
fn recent(messages: Vec<Message>) -> Vec<Message> {
    let mut bytes = 0;
    let fitting = messages
        .iter()
        .rev()
        .take_while(|message| {
            bytes += size(message);
            bytes <= HISTORY_MAX_BYTES
        })
        .count();
    let mut recent = messages;
    recent.drain(..recent.len() - fitting);
    let first_said = recent
        .iter()
        .position(|message| matches!(message, Message::User { .. }));
    recent.drain(..first_said.unwrap_or(recent.len()));
    recent
}

fn size(message: &Message) -> usize {
    match message {
        Message::User { text } => text.len(),
        Message::Assistant { text, tool_calls } => {
            text.len()
                + tool_calls
                    .iter()
                    .map(|call| call.arguments.to_string().len())
                    .sum::<usize>()
        }
        Message::Tool { result, .. } => result.to_string().len(),
    }
}

fn settings(worker: &Worker) -> ModelSettings {
    let (backend, model) = &worker.config.concierge_backend_model;
    ModelSettings {
        backend: backend.clone(),
        model: model.clone(),
        temperature: None,
        max_tokens: None,
        max_turns: Some(worker.config.limits.max_turns),
        timeout_s: u32::try_from(worker.config.limits.run_timeout.as_secs()).ok(),
        compute_provider: None,
    }
}

fn model_name(settings: &ModelSettings) -> String {
    match (settings.backend.as_str(), settings.model.as_str()) {
        ("", model) => model.to_owned(),
        (backend, model) if model.is_empty() || model == backend => backend.to_owned(),
        (backend, model) => format!("{backend}/{model}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(result: serde_json::Value) -> Message {
        Message::Tool {
            call_id: "c".into(),
            name: "t".into(),
            result,
            error: None,
        }
    }

    #[test]
    fn a_long_conversation_is_cut_at_something_a_person_said() {
        let big = "x".repeat(HISTORY_MAX_BYTES / 2);
        let messages = vec![
            Message::user("old"),
            tool(json!(big)),
            Message::user("middle"),
            tool(json!(big.clone())),
            Message::assistant("tail"),
            Message::user("new"),
            Message::assistant("end"),
        ];
        let kept = recent(messages);
        assert_eq!(kept.first(), Some(&Message::user("middle")));
        assert_eq!(kept.len(), 5);
    }

    #[test]
    fn a_conversation_without_a_beginning_is_dropped() {
        assert!(recent(vec![tool(json!({})), Message::assistant("x")]).is_empty());
        assert!(recent(Vec::new()).is_empty());
    }
}
