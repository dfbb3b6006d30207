//! Rows of `data_sources`.

use chrono::{DateTime, Utc};
use copass_errors::{Error, Result};
use copass_store::{AsConn as _, Conn, Dialect, Json, Tx, execute, fetch_all, fetch_one, fetch_optional};
use copass_types::{DataSourceId, SandboxId};
use serde_json::Value;

use crate::app::{SourceKind, SourceStatus, sources::DataSource};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    sandbox_id: String,
    user_id: String,
    provider: String,
    name: String,
    ingestion_mode: String,
    status: String,
    kind: String,
    external_account_id: Option<String>,
    adapter_config: Json<Value>,
    poll_interval_seconds: Option<i64>,
    webhook_url: Option<String>,
    last_sync_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for DataSource {
    type Error = Error;
    /// The database holds only what this service wrote, so what does not fit is a defect.
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id.parse().map_err(Error::internal)?,
            sandbox_id: row.sandbox_id.parse().map_err(Error::internal)?,
            user_id: row.user_id.parse().map_err(Error::internal)?,
            provider: row.provider,
            name: row.name,
            ingestion_mode: row.ingestion_mode,
            status: SourceStatus::parse(&row.status).map_err(Error::internal)?,
            kind: SourceKind::parse(&row.kind).map_err(Error::internal)?,
            external_account_id: row.external_account_id,
            adapter_config: row.adapter_config.0,
            poll_interval_seconds: row
                .poll_interval_seconds
                .map(u32::try_from)
                .transpose()
                .map_err(Error::internal)?,
            webhook_url: row.webhook_url,
            last_sync_at: row.last_sync_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Makes registrations into one sandbox wait for each other until the end of the transaction.
///
/// PostgreSQL: without it, two transactions would both count the rows before either has written its own. An advisory
/// lock, because the row that stands for the sandbox belongs to another service. SQLite: nothing to do, a transaction
/// begins by taking the one write lock.
pub(crate) async fn lock(tx: &mut Tx, sandbox_id: &SandboxId) -> Result<()> {
    if tx.dialect() == Dialect::Postgres {
        let key = format!("data_sources/{sandbox_id}");
        execute!(*tx, "select pg_advisory_xact_lock(hashtextextended($1, 0))", key)?;
    }
    Ok(())
}

/// How many sources the sandbox holds that count against its tier: all but the archived ones.
pub(crate) async fn count(tx: &mut Tx, sandbox_id: &SandboxId) -> Result<u64> {
    let (count,) = fetch_one!(
        *tx,
        (i64,),
        "select count(*) from data_sources where sandbox_id = $1 and status <> 'archived'",
        sandbox_id.as_str(),
    )?;
    u64::try_from(count).map_err(Error::internal)
}

pub(crate) async fn insert(tx: &mut Tx, source: &DataSource) -> Result<()> {
    execute!(
        *tx,
        "insert into data_sources (id, sandbox_id, user_id, provider, name, ingestion_mode, status, kind, \
         external_account_id, adapter_config, poll_interval_seconds, webhook_url, last_sync_at, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        source.id.as_str(),
        source.sandbox_id.as_str(),
        source.user_id.as_str(),
        &source.provider,
        &source.name,
        &source.ingestion_mode,
        source.status.as_str(),
        source.kind.as_str(),
        source.external_account_id.as_deref(),
        Json(&source.adapter_config),
        source.poll_interval_seconds.map(i64::from),
        source.webhook_url.as_deref(),
        source.last_sync_at,
        source.created_at,
        source.updated_at,
    )?;
    Ok(())
}

/// The sources of the sandbox, oldest first.
pub(crate) async fn list(
    conn: &mut Conn,
    sandbox_id: &SandboxId,
    provider: Option<&str>,
    status: Option<SourceStatus>,
) -> Result<Vec<DataSource>> {
    let rows = fetch_all!(
        *conn,
        Row,
        "select id, sandbox_id, user_id, provider, name, ingestion_mode, status, kind, external_account_id, \
         adapter_config, poll_interval_seconds, webhook_url, last_sync_at, created_at, updated_at \
         from data_sources where sandbox_id = $1 and ($2 is null or provider = $2) and ($3 is null or status = $3) \
         order by created_at, id",
        sandbox_id.as_str(),
        provider,
        status.map(SourceStatus::as_str),
    )?;
    rows.into_iter().map(DataSource::try_from).collect()
}

pub(crate) async fn find(
    conn: &mut Conn,
    sandbox_id: &SandboxId,
    data_source_id: &DataSourceId,
) -> Result<Option<DataSource>> {
    let row = fetch_optional!(
        *conn,
        Row,
        "select id, sandbox_id, user_id, provider, name, ingestion_mode, status, kind, external_account_id, \
         adapter_config, poll_interval_seconds, webhook_url, last_sync_at, created_at, updated_at \
         from data_sources where sandbox_id = $1 and id = $2",
        sandbox_id.as_str(),
        data_source_id.as_str(),
    )?;
    row.map(DataSource::try_from).transpose()
}

/// Removes every source of a sandbox that is no more; returns how many there were.
pub(crate) async fn delete_all(tx: &mut Tx, sandbox_id: &SandboxId) -> Result<u64> {
    Ok(execute!(
        *tx,
        "delete from data_sources where sandbox_id = $1",
        sandbox_id.as_str()
    )?)
}
