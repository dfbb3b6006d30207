//! Grants on sandboxes. Every function takes the sandbox.

use chrono::{DateTime, Utc};
use copass_store::{AsConn, Result, Tx, execute, fetch_all, fetch_optional};
use copass_types::{ConnectionId, SandboxId};

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ConnectionRow {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    pub(crate) user_id: String,
    /// The grantee's handle now.
    pub(crate) copass_id: Option<String>,
    pub(crate) role: String,
    pub(crate) project_id: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    pub(crate) created_by: String,
    pub(crate) created_at: DateTime<Utc>,
}

impl ConnectionRow {
    /// `active`, `revoked` or `expired`.
    pub(crate) fn status(&self, now: DateTime<Utc>) -> &'static str {
        if self.revoked_at.is_some() {
            "revoked"
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            "expired"
        } else {
            "active"
        }
    }
}

pub(crate) async fn insert(tx: &mut Tx, row: &ConnectionRow) -> Result<()> {
    execute!(
        *tx,
        "insert into connections (id, sandbox_id, user_id, role, project_id, label, expires_at, created_by, created_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &row.id,
        &row.sandbox_id,
        &row.user_id,
        &row.role,
        &row.project_id,
        &row.label,
        row.expires_at,
        &row.created_by,
        row.created_at,
    )?;
    Ok(())
}

pub(crate) async fn find(
    conn: &mut impl AsConn,
    sandbox_id: &SandboxId,
    id: &ConnectionId,
) -> Result<Option<ConnectionRow>> {
    fetch_optional!(
        *conn,
        ConnectionRow,
        "select c.id, c.sandbox_id, c.user_id, u.handle as copass_id, c.role, c.project_id, c.label, c.expires_at, \
         c.revoked_at, c.created_by, c.created_at from connections c join users u on u.id = c.user_id \
         where c.sandbox_id = $1 and c.id = $2",
        sandbox_id.as_str(),
        id.as_str(),
    )
}

pub(crate) async fn list(conn: &mut impl AsConn, sandbox_id: &SandboxId) -> Result<Vec<ConnectionRow>> {
    fetch_all!(
        *conn,
        ConnectionRow,
        "select c.id, c.sandbox_id, c.user_id, u.handle as copass_id, c.role, c.project_id, c.label, c.expires_at, \
         c.revoked_at, c.created_by, c.created_at from connections c join users u on u.id = c.user_id \
         where c.sandbox_id = $1 order by c.id desc",
        sandbox_id.as_str(),
    )
}

pub(crate) async fn revoke(tx: &mut Tx, sandbox_id: &SandboxId, id: &ConnectionId, now: DateTime<Utc>) -> Result<bool> {
    let rows = execute!(
        *tx,
        "update connections set revoked_at = $3 where sandbox_id = $1 and id = $2 and revoked_at is null",
        sandbox_id.as_str(),
        id.as_str(),
        now,
    )?;
    Ok(rows == 1)
}
