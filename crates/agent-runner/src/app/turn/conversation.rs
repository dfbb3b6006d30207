//! The conversation of a run: a new one, or one that goes on.

use chrono::{DateTime, Utc};
use copass_errors::{Error, ErrorCode, Result};
use copass_llm::Message;
use copass_store::{Batch, Tx};
use copass_types::{AgentId, ApiKeyId, SessionId};

use super::{
    Worker,
    accept::{Session, Wanted, WantedAgent},
};
use crate::{
    app::domain::{AD_HOC_SLUG, Run},
    store::{
        self,
        conversations::{Claim, Owner},
    },
};

/// What a model is given of a long conversation.
const HISTORY_MAX_MESSAGES: i64 = 400;
const HISTORY_MAX_BYTES: usize = 512 * 1024;

/// The conversation of a new run.
pub(super) enum Opened<'a> {
    /// It has none.
    None,
    /// The turn in it is the run's.
    Known {
        session_id: SessionId,
        history: Vec<Message>,
    },
    /// It is to be made, and begins with this.
    New { provider: &'a str, history: Vec<Message> },
}

impl<'a> Opened<'a> {
    pub(super) fn first(wanted: &'a Wanted) -> Self {
        Self::New {
            provider: provider(wanted),
            history: Vec::new(),
        }
    }
}

/// Sessions of stateless runs belong to one provider (sse.md 7); those of agents outlive a change of theirs.
fn provider(wanted: &Wanted) -> &str {
    match &wanted.agent {
        WantedAgent::System { slug, settings } if *slug == AD_HOC_SLUG => &settings.backend,
        _ => "",
    }
}

pub(super) fn owner<'a>(wanted: &'a Wanted, agent_id: &'a AgentId) -> Owner<'a> {
    Owner {
        sandbox_id: &wanted.sandbox_id,
        user_id: &wanted.user_id,
        agent_id,
        end_user_id: wanted.end_user_id.as_deref().or(agent_key(wanted)).unwrap_or_default(),
    }
}

/// Every agent key has conversations of its own: those who hold keys of one agent are not one person, and none of them is
/// the one the run's row names.
fn agent_key(wanted: &Wanted) -> Option<&str> {
    let principal = &wanted.request.principal;
    principal.agent_key.as_ref()?;
    principal.api_key_id.as_ref().map(ApiKeyId::as_str)
}

/// Adds the run's own message, after `before`.
pub(super) fn append(
    batch: &mut Batch,
    wanted: &Wanted,
    session_id: &SessionId,
    before: &[Message],
    now: DateTime<Utc>,
) {
    let own = Message::user(wanted.request.message.clone());
    let messages = before.iter().chain([&own]);
    store::conversations::append(batch, session_id, &wanted.run_id, messages, now);
}

/// Looks for the conversation and takes the turn in it.
pub(super) async fn open<'a>(
    tx: &mut Tx,
    wanted: &'a Wanted,
    agent_id: &AgentId,
    now: DateTime<Utc>,
) -> Result<Opened<'a>> {
    let owner = owner(wanted, agent_id);
    let provider = provider(wanted);
    let text = match &wanted.session {
        Session::None => return Ok(Opened::None),
        Session::New => return Ok(Opened::first(wanted)),
        Session::Continue(text) => text,
    };
    let session_id: SessionId = text.parse().map_err(|_| unknown_session())?;
    let known = store::conversations::provider(tx, &session_id, &owner).await?;
    let known = known.ok_or_else(unknown_session)?;
    if known != provider {
        // Another provider gets a session of its own with the same memory (sse.md 7).
        let messages =
            store::conversations::newest_messages(tx, &session_id, &wanted.run_id, HISTORY_MAX_MESSAGES).await?;
        return Ok(Opened::New {
            provider,
            history: recent(messages),
        });
    }
    match store::conversations::claim(tx, &session_id, &owner, &wanted.run_id, now).await? {
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
    let messages = store::conversations::newest_messages(tx, &session_id, &wanted.run_id, HISTORY_MAX_MESSAGES).await?;
    Ok(Opened::Known {
        session_id,
        history: recent(messages),
    })
}

/// What the model gets of the conversation before this run.
pub(super) async fn history(worker: &Worker, run: &Run) -> Result<Vec<Message>> {
    let Some(session_id) = &run.session_id else {
        return Ok(Vec::new());
    };
    let mut conn = worker.db.read().await?;
    let messages = store::conversations::newest_messages(&mut conn, session_id, &run.id, HISTORY_MAX_MESSAGES).await?;
    Ok(recent(messages))
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
        Message::Tool { result, error, .. } => result.to_string().len() + error.as_deref().map_or(0, str::len),
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
