//! The audit log. There is no update and no delete; triggers in the database refuse both.

use chrono::{DateTime, Utc};
use copass_store::{AsConn, Json, Result, Tx, audit::Record, execute, fetch_all, fetch_optional};
use copass_types::{AuditId, SandboxId, UserId};
use serde_json::Value;

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct AuditRow {
    pub(crate) id: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) sandbox_id: Option<String>,
    pub(crate) actor: Json<Value>,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) before: Option<Json<Value>>,
    pub(crate) after: Option<Json<Value>>,
    pub(crate) result: String,
    pub(crate) request_id: String,
}

/// Writes a record; one that is there already (a message sent twice by its producer) stays as it is.
pub(crate) async fn insert(tx: &mut Tx, record: &Record) -> Result<()> {
    execute!(
        *tx,
        "insert into audit_records (id, at, sandbox_id, user_id, actor, action, target, before, after, result, \
         request_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (id) do nothing",
        record.id.as_str(),
        record.at,
        record.sandbox_id.as_ref().map(SandboxId::as_str),
        record.user_id.as_ref().map(UserId::as_str),
        Json(&record.actor),
        &record.action,
        &record.target,
        record.before.as_ref().map(Json),
        record.after.as_ref().map(Json),
        &record.result,
        &record.request_id,
    )?;
    Ok(())
}

/// Newest first, only records older than `before` when it is given.
pub(crate) async fn list(
    conn: &mut impl AsConn,
    sandbox_id: &SandboxId,
    before: Option<&AuditId>,
    limit: i64,
) -> Result<Vec<AuditRow>> {
    fetch_all!(
        *conn,
        AuditRow,
        "select id, at, sandbox_id, actor, action, target, before, after, result, request_id \
         from audit_records where sandbox_id = $1 and ($2 is null or id < $2) order by id desc limit $3",
        sandbox_id.as_str(),
        before.map(AuditId::as_str),
        limit,
    )
}

/// Whether the person destroyed the sandbox before, so that a repeated destroy can be answered alike.
pub(crate) async fn was_destroyed_by(conn: &mut impl AsConn, user_id: &UserId, sandbox_id: &SandboxId) -> Result<bool> {
    let row = fetch_optional!(
        *conn,
        (String,),
        "select id from audit_records where sandbox_id = $1 and user_id = $2 and action = 'sandbox.destroy' \
         and result = 'ok' limit 1",
        sandbox_id.as_str(),
        user_id.as_str(),
    )?;
    Ok(row.is_some())
}
