//! Triggers: list, get (`rest.md` 13.2, 13.3).

use chrono::{DateTime, Utc};
use copass_errors::{Error, FieldProblem, Result};
use copass_store::Db;
use copass_types::{AccessClass, AgentId, DataSourceId, Principal, SandboxId, TriggerId, UserId};
use serde_json::Value;

use crate::store;

/// A trigger: runs an agent on events of a source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trigger {
    pub(crate) id: TriggerId,
    pub(crate) sandbox_id: SandboxId,
    /// The account that holds the sandbox.
    pub(crate) user_id: UserId,
    pub(crate) agent_id: AgentId,
    pub(crate) data_source_id: DataSourceId,
    pub(crate) event_type_filter: String,
    pub(crate) filter_config: Option<Value>,
    pub(crate) status: Status,
    pub(crate) rate_limit_per_hour: Option<u32>,
    pub(crate) last_fired_at: Option<DateTime<Utc>>,
    pub(crate) fire_count: u64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// What state a trigger is in. The words in the database are the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Fires.
    Active,
    /// Does not fire until it is resumed.
    Paused,
    /// Switched off.
    Disabled,
}

impl Status {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// The value of a word, or the sentence that lists the words there are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "active" => Ok(Self::Active),
            "paused" => Ok(Self::Paused),
            "disabled" => Ok(Self::Disabled),
            _ => Err("must be one of active, paused, disabled".to_owned()),
        }
    }
}

/// Triggers of all sandboxes; each call names one and proves its rights on it.
#[derive(Debug, Clone)]
pub(crate) struct Triggers {
    db: Db,
}

impl Triggers {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }

    /// The triggers of an agent, oldest first. Whether the agent exists is known to its owner, not here: an unknown one
    /// has no triggers.
    pub(crate) async fn list(
        &self,
        principal: &Principal,
        sandbox_id: &SandboxId,
        agent_id: &str,
        status: Option<&str>,
    ) -> Result<Vec<Trigger>> {
        principal.require_whole(sandbox_id, AccessClass::Read)?;
        let agent_id = parse_agent(agent_id)?;
        let status = status.map(Status::parse).transpose();
        let status = status.map_err(|problem| Error::invalid(vec![FieldProblem::query("status", problem)]))?;
        let mut conn = self.db.read().await?;
        store::triggers::list(&mut conn, sandbox_id, &agent_id, status).await
    }

    /// One trigger of an agent. The ids are text, because a malformed one is told only to those who may look.
    pub(crate) async fn get(
        &self,
        principal: &Principal,
        sandbox_id: &SandboxId,
        agent_id: &str,
        trigger_id: &str,
    ) -> Result<Trigger> {
        principal.require_whole(sandbox_id, AccessClass::Read)?;
        let agent_id = parse_agent(agent_id)?;
        let unknown = || Error::not_found("trigger");
        let trigger_id: TriggerId = trigger_id.parse().map_err(|_| unknown())?;
        let mut conn = self.db.read().await?;
        store::triggers::find(&mut conn, sandbox_id, &agent_id, &trigger_id)
            .await?
            .ok_or_else(unknown)
    }
}

fn parse_agent(text: &str) -> Result<AgentId> {
    text.parse().map_err(|_| Error::not_found("agent"))
}
