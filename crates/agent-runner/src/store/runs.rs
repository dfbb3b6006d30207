//! Runs: rows, leases and fences.
//!
//! A worker owns a run while `fence` has the number it got and the status is `running`. Every write of a worker names
//! that number; whoever takes a run away raises it, so a worker that was paused past its lease changes nothing.

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_store::{AsConn, Json, Tx, execute, fetch_all, fetch_optional};
use copass_types::{AgentId, RunId, SandboxId, SessionId, UserId};
use serde_json::Value;

use super::{stored, stored_word};
use crate::app::domain::{AgentKind, Run, RunStatus};

/// Later than every run: where a list without a cursor begins. A valid id text, because collations of databases agree
/// on digits and capitals only.
pub(crate) const AFTER_ALL: &str = "rn_ZZZZZZZZZZZZZZZZZZZZZZZZZZ";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    sandbox_id: String,
    user_id: String,
    agent_id: String,
    agent_slug: String,
    agent_kind: String,
    agent_version: i64,
    trigger_id: Option<String>,
    session_id: Option<String>,
    status: String,
    input_event: Option<Json<Value>>,
    output_text: Option<String>,
    tokens_in: Option<i64>,
    tokens_out: Option<i64>,
    cost_microcents: Option<i64>,
    duration_ms: Option<i64>,
    error_type: Option<String>,
    error_message: Option<String>,
    warnings: Json<Vec<String>>,
    #[sqlx(default)]
    tool_resolution_trace: Option<Json<Value>>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl Row {
    fn run(self) -> Result<(Run, AgentKind)> {
        let kind = stored_word(AgentKind::from_text(&self.agent_kind), &self.agent_kind, "agent kind")?;
        let run = Run {
            id: stored(&self.id, "run id")?,
            sandbox_id: stored(&self.sandbox_id, "sandbox id")?,
            user_id: stored(&self.user_id, "user id")?,
            agent_id: stored(&self.agent_id, "agent id")?,
            agent_slug: self.agent_slug,
            agent_version: self.agent_version,
            trigger_id: self.trigger_id,
            session_id: self
                .session_id
                .as_deref()
                .map(|id| stored(id, "session id"))
                .transpose()?,
            status: stored_word(RunStatus::from_text(&self.status), &self.status, "run status")?,
            input_event: self.input_event.map(|event| event.0),
            output_text: self.output_text,
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
            cost_microcents: self.cost_microcents,
            duration_ms: self.duration_ms,
            error_type: self.error_type,
            error_message: self.error_message,
            warnings: self.warnings.0,
            tool_resolution_trace: self.tool_resolution_trace.map(|trace| trace.0),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        };
        Ok((run, kind))
    }
}

/// The lease of one worker on one run.
#[derive(Debug, Clone)]
pub(crate) struct Lease<'a> {
    pub(crate) sandbox_id: &'a SandboxId,
    pub(crate) run_id: &'a RunId,
    pub(crate) fence: i64,
}

/// Adds a run that the worker is already working on.
pub(crate) async fn insert(
    tx: &mut Tx,
    run: &Run,
    fence: i64,
    lease_owner: &str,
    lease_expires_at: DateTime<Utc>,
) -> copass_store::Result<()> {
    execute!(
        *tx,
        "insert into runs (id, sandbox_id, user_id, agent_id, agent_version, trigger_id, session_id, status, \
         input_event, warnings, tool_resolution_trace, lease_owner, lease_expires_at, fence, created_at, started_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        run.id.as_str(),
        run.sandbox_id.as_str(),
        run.user_id.as_str(),
        run.agent_id.as_str(),
        run.agent_version,
        run.trigger_id.as_deref(),
        run.session_id.as_ref().map(SessionId::as_str),
        run.status.as_str(),
        run.input_event.as_ref().map(Json),
        Json(&run.warnings),
        run.tool_resolution_trace.as_ref().map(Json),
        lease_owner,
        lease_expires_at,
        fence,
        run.created_at,
        run.started_at,
    )?;
    Ok(())
}

/// Extends the lease; `false` means that the run is not this worker's any more. The first statement of every write.
pub(crate) async fn extend_lease(
    tx: &mut Tx,
    lease: &Lease<'_>,
    lease_expires_at: DateTime<Utc>,
) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update runs set lease_expires_at = $4 \
         where id = $1 and sandbox_id = $2 and fence = $3 and status = 'running'",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
        lease_expires_at,
    )?;
    Ok(rows == 1)
}

/// Writes the end of a run; `false` means that the run is not this worker's any more and nothing was written.
pub(crate) async fn finish(tx: &mut Tx, lease: &Lease<'_>, run: &Run) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update runs set status = $4, output_text = $5, tokens_in = $6, tokens_out = $7, cost_microcents = $8, \
         duration_ms = $9, error_type = $10, error_message = $11, warnings = $12, finished_at = $13, \
         lease_owner = null, lease_expires_at = null \
         where id = $1 and sandbox_id = $2 and fence = $3 and status = 'running'",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
        run.status.as_str(),
        run.output_text.as_deref(),
        run.tokens_in,
        run.tokens_out,
        run.cost_microcents,
        run.duration_ms,
        run.error_type.as_deref(),
        run.error_message.as_deref(),
        Json(&run.warnings),
        run.finished_at,
    )?;
    Ok(rows == 1)
}

/// A run with its trace and the kind of its agent.
pub(crate) async fn find<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
) -> Result<Option<(Run, AgentKind)>> {
    fetch_optional!(
        *conn,
        Row,
        "select r.id, r.sandbox_id, r.user_id, r.agent_id, a.slug as agent_slug, a.kind as agent_kind, r.agent_version, \
         r.trigger_id, r.session_id, r.status, r.input_event, r.output_text, r.tokens_in, r.tokens_out, \
         r.cost_microcents, r.duration_ms, r.error_type, r.error_message, r.warnings, r.tool_resolution_trace, \
         r.created_at, r.started_at, r.finished_at \
         from runs r join agents a on a.id = r.agent_id where r.id = $1 and r.sandbox_id = $2",
        run_id.as_str(),
        sandbox_id.as_str(),
    )?
    .map(Row::run)
    .transpose()
}

/// Which runs of an agent a list shows.
#[derive(Debug, Clone)]
pub(crate) struct Filter<'a> {
    /// Only runs older than this one.
    pub(crate) before: &'a str,
    pub(crate) trigger_id: Option<&'a str>,
    pub(crate) status: Option<RunStatus>,
    /// Only runs that act for this person.
    pub(crate) user_id: Option<&'a UserId>,
    pub(crate) limit: i64,
}

/// Runs of an agent, newest first, without their traces and with the beginning of their texts: a page must fit into one
/// message whatever the runs wrote.
pub(crate) async fn list<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    agent_id: &AgentId,
    filter: &Filter<'_>,
) -> Result<Vec<Run>> {
    fetch_all!(
        *conn,
        Row,
        "select r.id, r.sandbox_id, r.user_id, r.agent_id, a.slug as agent_slug, a.kind as agent_kind, r.agent_version, \
         r.trigger_id, r.session_id, r.status, r.input_event, substr(r.output_text, 1, 8192) as output_text, \
         r.tokens_in, r.tokens_out, r.cost_microcents, r.duration_ms, r.error_type, r.error_message, r.warnings, \
         r.created_at, r.started_at, r.finished_at from runs r join agents a on a.id = r.agent_id \
         where r.agent_id = $1 and r.sandbox_id = $2 and r.id < $3 \
         and (cast($4 as text) is null or r.trigger_id = $4) and (cast($5 as text) is null or r.status = $5) \
         and (cast($6 as text) is null or r.user_id = $6) order by r.id desc limit $7",
        agent_id.as_str(),
        sandbox_id.as_str(),
        filter.before,
        filter.trigger_id,
        filter.status.map(RunStatus::as_str),
        filter.user_id.map(UserId::as_str),
        filter.limit,
    )?
    .into_iter()
    .map(|row| row.run().map(|(run, _)| run))
    .collect()
}

/// A run that nobody seems to work on.
#[derive(Debug, Clone)]
pub(crate) struct Stale {
    pub(crate) id: RunId,
    pub(crate) sandbox_id: SandboxId,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) fence: i64,
    pub(crate) started_at: Option<DateTime<Utc>>,
}

type StaleRow = (String, String, Option<String>, i64, Option<DateTime<Utc>>);

fn stale(row: StaleRow) -> Result<Stale> {
    Ok(Stale {
        id: stored(&row.0, "run id")?,
        sandbox_id: stored(&row.1, "sandbox id")?,
        session_id: row.2.as_deref().map(|id| stored(id, "session id")).transpose()?,
        fence: row.3,
        started_at: row.4,
    })
}

/// Unfinished runs of every sandbox whose lease has expired.
pub(crate) async fn expired<C: AsConn>(conn: &mut C, now: DateTime<Utc>, limit: i64) -> Result<Vec<Stale>> {
    fetch_all!(
        *conn,
        StaleRow,
        "select id, sandbox_id, session_id, fence, started_at from runs \
         where status in ('pending', 'running') and lease_expires_at < $1 order by lease_expires_at limit $2",
        now,
        limit,
    )?
    .into_iter()
    .map(stale)
    .collect()
}

/// Unfinished runs of every sandbox, whatever their lease says.
pub(crate) async fn unfinished<C: AsConn>(conn: &mut C, limit: i64) -> Result<Vec<Stale>> {
    fetch_all!(
        *conn,
        StaleRow,
        "select id, sandbox_id, session_id, fence, started_at from runs \
         where status in ('pending', 'running') order by id limit $1",
        limit,
    )?
    .into_iter()
    .map(stale)
    .collect()
}

/// Takes a stale run away from its worker: raises the fence, unless it was raised, renewed or finished meanwhile.
/// `lease_before` is the instant before which the lease must have ended; `None` takes it whatever the lease says.
pub(crate) async fn take_away(
    tx: &mut Tx,
    run: &Stale,
    lease_before: Option<DateTime<Utc>>,
) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update runs set fence = fence + 1, lease_owner = null, lease_expires_at = null \
         where id = $1 and sandbox_id = $2 and fence = $3 and status in ('pending', 'running') \
         and (cast($4 as text) is null or lease_expires_at < $5)",
        run.id.as_str(),
        run.sandbox_id.as_str(),
        run.fence,
        lease_before.map(|_| "yes"),
        lease_before.unwrap_or_default(),
    )?;
    Ok(rows == 1)
}

/// Ends a run that was taken away.
pub(crate) async fn fail(
    tx: &mut Tx,
    run: &Stale,
    error_type: &str,
    error_message: &str,
    now: DateTime<Utc>,
) -> copass_store::Result<()> {
    let duration_ms = run
        .started_at
        .map(|started_at| (now - started_at).num_milliseconds().max(0));
    execute!(
        *tx,
        "update runs set status = 'failed', error_type = $3, error_message = $4, duration_ms = $5, finished_at = $6 \
         where id = $1 and sandbox_id = $2",
        run.id.as_str(),
        run.sandbox_id.as_str(),
        error_type,
        error_message,
        duration_ms,
        now,
    )?;
    Ok(())
}
