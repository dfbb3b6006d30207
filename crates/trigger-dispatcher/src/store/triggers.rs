//! Rows of `triggers`.

use chrono::{DateTime, Utc};
use copass_errors::{Error, Result};
use copass_store::{Conn, Json, Tx, execute, fetch_all, fetch_optional};
use copass_types::{AgentId, SandboxId, TriggerId};
use serde_json::Value;

use crate::app::triggers::{Status, Trigger};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    sandbox_id: String,
    user_id: String,
    agent_id: String,
    data_source_id: String,
    event_type_filter: String,
    filter_config: Option<Json<Value>>,
    status: String,
    rate_limit_per_hour: Option<i64>,
    last_fired_at: Option<DateTime<Utc>>,
    fire_count: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Trigger {
    type Error = Error;
    /// The database holds only what this service wrote, so what does not fit is a defect.
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id.parse().map_err(Error::internal)?,
            sandbox_id: row.sandbox_id.parse().map_err(Error::internal)?,
            user_id: row.user_id.parse().map_err(Error::internal)?,
            agent_id: row.agent_id.parse().map_err(Error::internal)?,
            data_source_id: row.data_source_id.parse().map_err(Error::internal)?,
            event_type_filter: row.event_type_filter,
            filter_config: row.filter_config.map(|config| config.0),
            status: Status::parse(&row.status).map_err(Error::internal)?,
            rate_limit_per_hour: row
                .rate_limit_per_hour
                .map(u32::try_from)
                .transpose()
                .map_err(Error::internal)?,
            last_fired_at: row.last_fired_at,
            fire_count: u64::try_from(row.fire_count).map_err(Error::internal)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// The triggers of an agent of the sandbox, oldest first.
pub(crate) async fn list(
    conn: &mut Conn,
    sandbox_id: &SandboxId,
    agent_id: &AgentId,
    status: Option<Status>,
) -> Result<Vec<Trigger>> {
    let rows = fetch_all!(
        *conn,
        Row,
        "select id, sandbox_id, user_id, agent_id, data_source_id, event_type_filter, filter_config, status, \
         rate_limit_per_hour, last_fired_at, fire_count, created_at, updated_at \
         from triggers where sandbox_id = $1 and agent_id = $2 and ($3 is null or status = $3) \
         order by created_at, id",
        sandbox_id.as_str(),
        agent_id.as_str(),
        status.map(Status::as_str),
    )?;
    rows.into_iter().map(Trigger::try_from).collect()
}

pub(crate) async fn find(
    conn: &mut Conn,
    sandbox_id: &SandboxId,
    agent_id: &AgentId,
    trigger_id: &TriggerId,
) -> Result<Option<Trigger>> {
    let row = fetch_optional!(
        *conn,
        Row,
        "select id, sandbox_id, user_id, agent_id, data_source_id, event_type_filter, filter_config, status, \
         rate_limit_per_hour, last_fired_at, fire_count, created_at, updated_at \
         from triggers where sandbox_id = $1 and agent_id = $2 and id = $3",
        sandbox_id.as_str(),
        agent_id.as_str(),
        trigger_id.as_str(),
    )?;
    row.map(Trigger::try_from).transpose()
}

/// Removes some triggers of a sandbox that is no more; returns how many, none when none is left.
pub(crate) async fn delete_some(tx: &mut Tx, sandbox_id: &SandboxId) -> copass_store::Result<u64> {
    execute!(
        *tx,
        "delete from triggers where id in (select id from triggers where sandbox_id = $1 limit 500)",
        sandbox_id.as_str()
    )
}
