//! Login codes, refresh tokens and signing keys.

use chrono::{DateTime, Utc};
use copass_store::{AsConn, Dialect, Result, Tx, execute, fetch_all, fetch_one, fetch_optional};
use copass_types::UserId;

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct CodeRow {
    pub(crate) id: String,
    pub(crate) code_hash: String,
}

/// Makes requests for one address go one after the other until the transaction ends, so that a count still holds when
/// the row is written. There is no row to lock, so PostgreSQL takes an advisory lock; on SQLite a transaction has the
/// one write lock already.
pub(crate) async fn lock_address(tx: &mut Tx, email: &str) -> Result<()> {
    if tx.dialect() == Dialect::Postgres {
        execute!(
            *tx,
            "select pg_advisory_xact_lock(hashtextextended($1, 0))",
            format!("login_codes/{email}")
        )?;
    }
    Ok(())
}

pub(crate) async fn count_codes_since(conn: &mut impl AsConn, email: &str, since: DateTime<Utc>) -> Result<i64> {
    let (count,) = fetch_one!(
        *conn,
        (i64,),
        "select count(*) from login_codes where email = $1 and created_at > $2",
        email,
        since,
    )?;
    Ok(count)
}

pub(crate) async fn insert_code(
    tx: &mut Tx,
    id: &str,
    email: &str,
    code_hash: &str,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    execute!(
        *tx,
        "insert into login_codes (id, email, code_hash, attempts, created_at, expires_at) values ($1, $2, $3, 0, $4, $5)",
        id,
        email,
        code_hash,
        now,
        expires_at,
    )?;
    Ok(())
}

/// Counts an attempt on the newest code of the address and returns it; `None` when that one is used up or over. Older
/// ones are good for nothing: a new code replaces them, also after it was used.
pub(crate) async fn try_newest_code(
    tx: &mut Tx,
    email: &str,
    max_attempts: i64,
    now: DateTime<Utc>,
) -> Result<Option<CodeRow>> {
    fetch_optional!(
        *tx,
        CodeRow,
        "update login_codes set attempts = attempts + 1 where id = (\
             select id from login_codes where email = $1 order by created_at desc, id desc limit 1) \
         and expires_at > $2 and attempts < $3 and consumed_at is null returning id, code_hash",
        email,
        now,
        max_attempts,
    )
}

/// Consumes the code; `false` when somebody else just did.
pub(crate) async fn consume_code(tx: &mut Tx, id: &str, now: DateTime<Utc>) -> Result<bool> {
    let rows = execute!(
        *tx,
        "update login_codes set consumed_at = $2 where id = $1 and consumed_at is null",
        id,
        now
    )?;
    Ok(rows == 1)
}

pub(crate) async fn delete_codes_before(tx: &mut Tx, before: DateTime<Utc>) -> Result<u64> {
    execute!(*tx, "delete from login_codes where created_at < $1", before)
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct RefreshRow {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) family_id: String,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

pub(crate) async fn insert_refresh_token(
    tx: &mut Tx,
    id: &str,
    user_id: &UserId,
    family_id: &str,
    token_hash: &str,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    execute!(
        *tx,
        "insert into refresh_tokens (id, user_id, family_id, token_hash, created_at, expires_at) \
         values ($1, $2, $3, $4, $5, $6)",
        id,
        user_id.as_str(),
        family_id,
        token_hash,
        now,
        expires_at,
    )?;
    Ok(())
}

pub(crate) async fn find_refresh_token(tx: &mut Tx, token_hash: &str) -> Result<Option<RefreshRow>> {
    fetch_optional!(
        *tx,
        RefreshRow,
        "select id, user_id, family_id, expires_at, revoked_at from refresh_tokens where token_hash = $1",
        token_hash,
    )
}

/// Marks the token used; `false` when it was used before, which means that it was stolen or replayed.
pub(crate) async fn use_refresh_token(tx: &mut Tx, id: &str, now: DateTime<Utc>) -> Result<bool> {
    let rows = execute!(
        *tx,
        "update refresh_tokens set used_at = $2 where id = $1 and used_at is null",
        id,
        now
    )?;
    Ok(rows == 1)
}

pub(crate) async fn revoke_family(tx: &mut Tx, family_id: &str, now: DateTime<Utc>) -> Result<()> {
    execute!(
        *tx,
        "update refresh_tokens set revoked_at = $2 where family_id = $1 and revoked_at is null",
        family_id,
        now,
    )?;
    Ok(())
}

/// Whether the login still stands: it has a token that was not revoked. A family is revoked whole and gets no token
/// afterwards (both under the person's lock), so clean-up of old tokens never brings one back to life, and the first
/// row that is found answers.
pub(crate) async fn family_is_live(conn: &mut impl AsConn, family_id: &str) -> Result<bool> {
    let row = fetch_optional!(
        *conn,
        (String,),
        "select id from refresh_tokens where family_id = $1 and revoked_at is null limit 1",
        family_id,
    )?;
    Ok(row.is_some())
}

pub(crate) async fn delete_refresh_tokens_before(tx: &mut Tx, before: DateTime<Utc>) -> Result<u64> {
    execute!(*tx, "delete from refresh_tokens where expires_at < $1", before)
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct SigningKeyRow {
    pub(crate) id: String,
    pub(crate) sealed_private_key: String,
    pub(crate) public_key: String,
    pub(crate) created_at: DateTime<Utc>,
}

/// Keys that still verify, newest first.
pub(crate) async fn list_signing_keys(conn: &mut impl AsConn) -> Result<Vec<SigningKeyRow>> {
    fetch_all!(
        *conn,
        SigningKeyRow,
        "select id, sealed_private_key, public_key, created_at from signing_keys where retired_at is null \
         order by created_at desc, id desc",
    )
}

pub(crate) async fn insert_signing_key(tx: &mut Tx, key: &SigningKeyRow) -> Result<()> {
    execute!(
        *tx,
        "insert into signing_keys (id, sealed_private_key, public_key, created_at) values ($1, $2, $3, $4)",
        &key.id,
        &key.sealed_private_key,
        &key.public_key,
        key.created_at,
    )?;
    Ok(())
}

pub(crate) async fn retire_signing_keys_before(tx: &mut Tx, before: DateTime<Utc>, now: DateTime<Utc>) -> Result<u64> {
    execute!(
        *tx,
        "update signing_keys set retired_at = $2 where created_at < $1 and retired_at is null",
        before,
        now,
    )
}
