//! People.

use chrono::{DateTime, Utc};
use copass_store::{AsConn, Json, Result, Tx, execute, fetch_optional};
use copass_types::{ProjectId, SandboxId, UserId};
use serde_json::Value;

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct UserRow {
    pub(crate) id: String,
    pub(crate) email: Option<String>,
    pub(crate) display_name: Option<String>,
    pub(crate) handle: Option<String>,
    pub(crate) canonical_id: Option<String>,
    pub(crate) primary_sandbox_id: Option<String>,
    pub(crate) default_project_id: Option<String>,
    pub(crate) metadata: Json<Value>,
    pub(crate) profile_created_at: Option<DateTime<Utc>>,
}

pub(crate) async fn find(conn: &mut impl AsConn, id: &UserId) -> Result<Option<UserRow>> {
    fetch_optional!(
        *conn,
        UserRow,
        "select id, email, display_name, handle, canonical_id, primary_sandbox_id, default_project_id, metadata, \
         profile_created_at from users where id = $1",
        id.as_str(),
    )
}

pub(crate) async fn find_by_email(conn: &mut impl AsConn, email: &str) -> Result<Option<UserRow>> {
    fetch_optional!(
        *conn,
        UserRow,
        "select id, email, display_name, handle, canonical_id, primary_sandbox_id, default_project_id, metadata, \
         profile_created_at from users where email = $1",
        email,
    )
}

pub(crate) async fn find_by_handle(conn: &mut impl AsConn, handle: &str) -> Result<Option<UserRow>> {
    fetch_optional!(
        *conn,
        UserRow,
        "select id, email, display_name, handle, canonical_id, primary_sandbox_id, default_project_id, metadata, \
         profile_created_at from users where handle = $1",
        handle,
    )
}

/// Inserts the person unless the address is taken; the caller reads it back.
pub(crate) async fn insert_if_absent(tx: &mut Tx, id: &UserId, email: &str, now: DateTime<Utc>) -> Result<()> {
    execute!(
        *tx,
        "insert into users (id, email, metadata, created_at, updated_at) values ($1, $2, $3, $4, $4) \
         on conflict (email) do nothing",
        id.as_str(),
        email,
        Json(serde_json::json!({})),
        now,
    )?;
    Ok(())
}

pub(crate) async fn set_profile(
    tx: &mut Tx,
    id: &UserId,
    display_name: &str,
    canonical_id: Option<&str>,
    now: DateTime<Utc>,
) -> Result<()> {
    execute!(
        *tx,
        "update users set display_name = $2, canonical_id = coalesce($3, canonical_id), \
         profile_created_at = coalesce(profile_created_at, $4), updated_at = $4 where id = $1",
        id.as_str(),
        display_name,
        canonical_id,
        now,
    )?;
    Ok(())
}

pub(crate) async fn set_primary(
    tx: &mut Tx,
    id: &UserId,
    sandbox_id: &SandboxId,
    project_id: &ProjectId,
) -> Result<()> {
    execute!(
        *tx,
        "update users set primary_sandbox_id = $2, default_project_id = $3 where id = $1",
        id.as_str(),
        sandbox_id.as_str(),
        project_id.as_str(),
    )?;
    Ok(())
}

pub(crate) async fn forget_primary_sandbox(tx: &mut Tx, sandbox_id: &SandboxId) -> Result<()> {
    execute!(
        *tx,
        "update users set primary_sandbox_id = null, default_project_id = null where primary_sandbox_id = $1",
        sandbox_id.as_str(),
    )?;
    Ok(())
}

/// Makes changes to one person go one after the other until the transaction ends. Read what you decide on afterwards.
pub(crate) async fn lock(tx: &mut Tx, id: &UserId) -> Result<()> {
    execute!(
        *tx,
        "update users set updated_at = updated_at where id = $1",
        id.as_str()
    )?;
    Ok(())
}

pub(crate) async fn set_handle(tx: &mut Tx, id: &UserId, handle: Option<&str>, now: DateTime<Utc>) -> Result<()> {
    execute!(
        *tx,
        "update users set handle = $2, updated_at = $3 where id = $1",
        id.as_str(),
        handle,
        now
    )?;
    Ok(())
}
