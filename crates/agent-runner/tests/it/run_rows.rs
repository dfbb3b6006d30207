//! Rows of runs as if they had been run, for what is read from many of them.

use chrono::{DateTime, Utc};
use copass_proto::agent::Agent;
use copass_runtime::clock;
use copass_store::{Json, execute};
use serde_json::Value;
use ulid::Ulid;

use crate::support::Fixture;

/// A run that is over.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub(crate) sandbox_id: String,
    pub(crate) user_id: String,
    pub(crate) agent_id: String,
    pub(crate) agent_version: i64,
    pub(crate) trigger_id: Option<String>,
    pub(crate) status: &'static str,
    pub(crate) entrance: &'static str,
    pub(crate) model: Option<&'static str>,
    pub(crate) tokens_in: Option<i64>,
    pub(crate) tokens_out: Option<i64>,
    pub(crate) cost_microcents: Option<i64>,
    pub(crate) model_calls: i64,
    pub(crate) input_event: Option<Value>,
    pub(crate) is_begun: bool,
    /// When it was accepted.
    pub(crate) at: DateTime<Utc>,
}

impl RunRow {
    /// A run of the agent, of now.
    pub(crate) fn of(agent: &Agent) -> Self {
        Self {
            sandbox_id: agent.sandbox_id.clone(),
            user_id: agent.user_id.clone(),
            agent_id: agent.agent_id.clone(),
            agent_version: 1,
            trigger_id: None,
            status: "succeeded",
            entrance: "invoke",
            model: Some("anthropic/claude-sonnet-4-6"),
            tokens_in: Some(10),
            tokens_out: Some(5),
            cost_microcents: Some(100),
            model_calls: 1,
            input_event: None,
            is_begun: true,
            at: clock::now(),
        }
    }

    /// Adds the row and says its id.
    pub(crate) async fn insert(&self, fixture: &Fixture) -> String {
        let unix_ms = u64::try_from(self.at.timestamp_millis()).unwrap();
        let id = format!("rn_{}", Ulid::from_parts(unix_ms, Ulid::generate().random()));
        let mut tx = fixture.db().begin().await.unwrap();
        execute!(
            tx,
            "insert into runs (id, sandbox_id, user_id, agent_id, agent_version, trigger_id, status, entrance, model, \
             tokens_in, tokens_out, cost_microcents, model_calls, input_event, warnings, fence, created_at, started_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1, $16, $17)",
            &id,
            &self.sandbox_id,
            &self.user_id,
            &self.agent_id,
            self.agent_version,
            self.trigger_id.as_deref(),
            self.status,
            self.entrance,
            self.model,
            self.tokens_in,
            self.tokens_out,
            self.cost_microcents,
            self.model_calls,
            self.input_event.as_ref().map(Json),
            Json(Vec::<String>::new()),
            self.at,
            self.is_begun.then_some(self.at),
        )
        .unwrap();
        tx.commit().await.unwrap();
        id
    }
}
