//! Who works on a run: leases and fences.
//!
//! A worker owns a run while `fence` has the number it got and the status is `running`. Every write of a worker names
//! that number; whoever takes a run away raises it, so a worker that was paused past its lease changes nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_store::{AsConn, Batch, Dialect, Json, Tx, add_to, execute, fetch_all, fetch_optional};
use copass_types::{AgentId, RunId, SandboxId, SessionId};
use serde_json::Value;

use super::{stored, stored_word};
use crate::app::domain::{Entrance, Run, RunStatus, bounded_warnings};

/// The lease of one worker on one run.
#[derive(Debug, Clone)]
pub(crate) struct Lease<'a> {
    pub(crate) sandbox_id: &'a SandboxId,
    pub(crate) run_id: &'a RunId,
    pub(crate) fence: i64,
}

/// Begins a run that this worker holds: from here on it is running and has its trace. `false` means that it is not this
/// worker's, or over.
pub(crate) async fn begin(
    tx: &mut Tx,
    lease: &Lease<'_>,
    run: &Run,
    lease_expires_at: DateTime<Utc>,
) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update runs set status = 'running', started_at = $4, warnings = $5, tool_resolution_trace = $6, model = $7, \
         lease_expires_at = $8 \
         where id = $1 and sandbox_id = $2 and fence = $3 and status in ('pending', 'running')",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
        run.started_at,
        Json(bounded_warnings(&run.warnings)),
        run.tool_resolution_trace.as_ref().map(Json),
        run.model.as_deref(),
        lease_expires_at,
    )?;
    Ok(rows == 1)
}

/// Gives a run back unfinished: whoever looks next may take it up. `false` means that it was not this worker's. The fence
/// is raised, so that a beat of the giver's heart cannot take it back.
pub(crate) async fn hand_over(tx: &mut Tx, lease: &Lease<'_>) -> copass_store::Result<bool> {
    // Accepted long ago on every clock: the taker's may be behind the giver's.
    let rows = execute!(
        *tx,
        "update runs set fence = fence + 1, lease_owner = null, lease_expires_at = created_at \
         where id = $1 and sandbox_id = $2 and fence = $3 and status in ('pending', 'running')",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
    )?;
    Ok(rows == 1)
}

/// Notes that somebody wants the run to end. `false` when it is over.
pub(crate) async fn request_cancel(
    tx: &mut Tx,
    sandbox_id: &SandboxId,
    run_id: &RunId,
    now: DateTime<Utc>,
) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update runs set cancel_requested_at = coalesce(cancel_requested_at, $3) \
         where id = $1 and sandbox_id = $2 and status in ('pending', 'running')",
        run_id.as_str(),
        sandbox_id.as_str(),
        now,
    )?;
    Ok(rows == 1)
}

/// The runs of this worker that somebody wants to end, of whatever sandbox.
pub(crate) async fn to_stop<C: AsConn>(conn: &mut C, worker_id: &str) -> Result<Vec<RunId>> {
    fetch_all!(
        *conn,
        (String,),
        "select id from runs where status in ('pending', 'running') and lease_owner = $1 \
         and cancel_requested_at is not null",
        worker_id,
    )?
    .into_iter()
    .map(|(id,)| stored(&id, "run id"))
    .collect()
}

/// Extends the lease. Unless it touches one row the run is not this worker's any more, and nothing may be written.
pub(crate) fn extend_lease(batch: &mut Batch, lease: &Lease<'_>, lease_expires_at: DateTime<Utc>) {
    add_to!(
        *batch,
        "update runs set lease_expires_at = $4 \
         where id = $1 and sandbox_id = $2 and fence = $3 and status = 'running'",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
        lease_expires_at,
    );
}

/// A row that somebody has locked is left as it is: whoever has it may keep it for long, and no other run must wait for
/// that. Locked as an update does it, which writers of the run's steps do not hinder.
const KEEP_POSTGRES: &str = "update runs set lease_expires_at = $4 where id = (select id from runs \
     where id = $1 and sandbox_id = $2 and fence = $3 and status = 'running' for no key update skip locked) \
     and fence = $3 and status = 'running'";
const KEEP_SQLITE: &str = "update runs set lease_expires_at = $4 \
     where id = $1 and sandbox_id = $2 and fence = $3 and status = 'running'";

/// Extends the lease for the heartbeat. Where it touches no row, [`is_held`] says whether the run is not this worker's any
/// more or its row was locked.
pub(crate) fn keep_lease(batch: &mut Batch, lease: &Lease<'_>, lease_expires_at: DateTime<Utc>) {
    let sql = match batch.dialect() {
        Dialect::Postgres => KEEP_POSTGRES,
        Dialect::Sqlite => KEEP_SQLITE,
    };
    add_to!(
        *batch,
        sql,
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
        lease_expires_at,
    );
}

/// Whether the run is this worker's, whoever has locked its row.
pub(crate) async fn is_held<C: AsConn>(conn: &mut C, lease: &Lease<'_>) -> copass_store::Result<bool> {
    let row = fetch_optional!(
        *conn,
        (i32,),
        "select 1 from runs where id = $1 and sandbox_id = $2 and fence = $3 and status = 'running'",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
    )?;
    Ok(row.is_some())
}

/// How the run ended by the hand of the worker that has this lease; `None` where it goes on, or another one ended it.
pub(crate) async fn ended<C: AsConn>(conn: &mut C, lease: &Lease<'_>) -> Result<Option<RunStatus>> {
    let row = fetch_optional!(
        *conn,
        (String,),
        "select status from runs where id = $1 and sandbox_id = $2 and fence = $3 \
         and status not in ('pending', 'running')",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
    )?;
    row.map(|(status,)| stored_word(RunStatus::from_text(&status), &status, "run status"))
        .transpose()
}

/// A run that nobody seems to work on.
#[derive(Debug, Clone)]
pub(crate) struct Stale {
    pub(crate) id: RunId,
    pub(crate) sandbox_id: SandboxId,
    pub(crate) agent_id: AgentId,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) status: RunStatus,
    pub(crate) fence: i64,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) entrance: Entrance,
    pub(crate) continuations: i64,
    /// A worker had it and did not give it back.
    pub(crate) is_held: bool,
    /// Somebody wants it to end.
    pub(crate) is_cancelled: bool,
    /// The longest time it may take; [`Expired::Begun`] only.
    pub(crate) timeout: Option<Duration>,
    lease_expires_at: Option<DateTime<Utc>>,
}

impl Stale {
    /// Whether its worker may still be alive at the instant.
    pub(crate) fn is_leased_after(&self, instant: DateTime<Utc>) -> bool {
        self.lease_expires_at.is_some_and(|expires_at| expires_at > instant)
    }
}

macro_rules! stale_columns {
    () => {
        "id, sandbox_id, agent_id, session_id, status, fence, started_at, entrance, continuations, lease_owner, \
         lease_expires_at, cancel_requested_at"
    };
}

#[derive(sqlx::FromRow)]
struct StaleRow {
    id: String,
    sandbox_id: String,
    agent_id: String,
    session_id: Option<String>,
    status: String,
    fence: i64,
    started_at: Option<DateTime<Utc>>,
    entrance: String,
    continuations: i64,
    lease_owner: Option<String>,
    lease_expires_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
    #[sqlx(default)]
    timeout_ms: Option<i64>,
}

impl StaleRow {
    fn stale(self) -> Result<Stale> {
        let session_id = self.session_id.as_deref();
        Ok(Stale {
            id: stored(&self.id, "run id")?,
            sandbox_id: stored(&self.sandbox_id, "sandbox id")?,
            agent_id: stored(&self.agent_id, "agent id")?,
            session_id: session_id.map(|id| stored(id, "session id")).transpose()?,
            status: stored_word(RunStatus::from_text(&self.status), &self.status, "run status")?,
            fence: self.fence,
            started_at: self.started_at,
            entrance: stored_word(Entrance::from_text(&self.entrance), &self.entrance, "entrance")?,
            continuations: self.continuations,
            is_held: self.lease_owner.is_some(),
            is_cancelled: self.cancel_requested_at.is_some(),
            timeout: self
                .timeout_ms
                .and_then(|timeout_ms| u64::try_from(timeout_ms).ok())
                .map(Duration::from_millis),
            lease_expires_at: self.lease_expires_at,
        })
    }
}

/// Which expired runs are looked at. The kinds are asked for one by one, because the many that wait for a place must not
/// hide the others. A run goes on without a reader and with fewer losses than the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Those that do not go on.
    End(i64),
    /// Those that go on and were held by a worker, which is lost.
    Held(i64),
    /// Those that go on and that nobody has begun, nor given back: the process that accepted them may be lost.
    Unbegun(i64),
    /// Those that go on and were given back: they wait for a place.
    Waiting(i64),
    /// Those that wait for a place although they were begun before.
    Begun(i64),
}

/// Begins with the columns that all have.
macro_rules! expired_sql {
    ($more:literal, $which:literal, $goes_on:literal) => {
        concat!(
            "select ",
            stale_columns!(),
            $more,
            " from runs where status in ('pending', 'running') and lease_expires_at < $1 and ",
            $which,
            $goes_on,
            " (entrance in ('invoke', 'trigger', 'retry') and continuations < $2) \
             and (lease_expires_at, id) > ($4, $5) order by lease_expires_at, id limit $3"
        )
    };
}

const END: &str = expired_sql!("", "", "not");
const HELD: &str = expired_sql!("", "lease_owner is not null and ", "");
const UNBEGUN: &str = expired_sql!("", "lease_owner is null and status = 'pending' and fence = 0 and ", "");
const WAITING: &str = expired_sql!("", "lease_owner is null and (status = 'running' or fence > 0) and ", "");
const BEGUN: &str = expired_sql!(
    ", cast(request ->> 'timeout_ms' as bigint) as timeout_ms",
    "lease_owner is null and status = 'running' and ",
    ""
);

/// Unfinished runs of every sandbox whose lease has expired, a page of them: the first one, or what comes after this run.
pub(crate) async fn expired<C: AsConn>(
    conn: &mut C,
    now: DateTime<Utc>,
    kind: Expired,
    after: Option<&Stale>,
    limit: i64,
) -> Result<Vec<Stale>> {
    let (sql, losses) = match kind {
        Expired::End(losses) => (END, losses),
        Expired::Held(losses) => (HELD, losses),
        Expired::Unbegun(losses) => (UNBEGUN, losses),
        Expired::Waiting(losses) => (WAITING, losses),
        Expired::Begun(losses) => (BEGUN, losses),
    };
    let (expired_at, id) = match after {
        Some(run) => (run.lease_expires_at.unwrap_or_default(), run.id.as_str()),
        None => (DateTime::default(), ""),
    };
    fetch_all!(*conn, StaleRow, sql, now, losses, limit, expired_at, id)?
        .into_iter()
        .map(StaleRow::stale)
        .collect()
}

/// Unfinished runs of every sandbox, whatever their lease says.
pub(crate) async fn unfinished<C: AsConn>(conn: &mut C) -> Result<Vec<Stale>> {
    fetch_all!(
        *conn,
        StaleRow,
        concat!(
            "select ",
            stale_columns!(),
            " from runs where status in ('pending', 'running') order by id"
        ),
    )?
    .into_iter()
    .map(StaleRow::stale)
    .collect()
}

/// Runs of the sandbox in the background that no worker has, whatever their lease says, oldest first.
pub(crate) async fn waiting<C: AsConn>(conn: &mut C, sandbox_id: &SandboxId, limit: i64) -> Result<Vec<RunId>> {
    let rows = fetch_all!(
        *conn,
        (String,),
        "select id from runs where status in ('pending', 'running') and lease_owner is null and sandbox_id = $1 \
         and entrance in ('invoke', 'trigger', 'retry') order by lease_expires_at, id limit $2",
        sandbox_id.as_str(),
        limit,
    )?;
    rows.iter().map(|(id,)| stored(id, "run id")).collect()
}

/// An unfinished run of the sandbox, as [`take_away`] takes it.
pub(crate) async fn unfinished_one<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
) -> Result<Option<Stale>> {
    fetch_optional!(
        *conn,
        StaleRow,
        concat!(
            "select ",
            stale_columns!(),
            " from runs where id = $1 and sandbox_id = $2 and status in ('pending', 'running')"
        ),
        run_id.as_str(),
        sandbox_id.as_str(),
    )?
    .map(StaleRow::stale)
    .transpose()
}

/// Which worker takes a run, and until when it is its.
#[derive(Debug, Clone)]
pub(crate) struct Taker<'a> {
    pub(crate) worker_id: &'a str,
    pub(crate) lease_expires_at: DateTime<Utc>,
}

/// Takes a stale run away from its worker: raises the fence, unless it was raised, renewed or finished meanwhile.
/// `lease_before` is the instant before which the lease must have ended; `None` takes it whatever the lease says. With a
/// taker the run is that worker's from here on, and a worker that did not give the run back is counted as lost.
pub(crate) async fn take_away(
    tx: &mut Tx,
    run: &Stale,
    lease_before: Option<DateTime<Utc>>,
    taker: Option<&Taker<'_>>,
) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update runs set fence = fence + 1, lease_owner = $6, lease_expires_at = $7, \
         continuations = continuations + case when status = 'running' and lease_owner is not null \
         and cast($6 as text) is not null then 1 else 0 end \
         where id = $1 and sandbox_id = $2 and fence = $3 and status in ('pending', 'running') \
         and (cast($4 as text) is null or lease_expires_at <= $5)",
        run.id.as_str(),
        run.sandbox_id.as_str(),
        run.fence,
        lease_before.map(|_| "yes"),
        lease_before.unwrap_or_default(),
        taker.map(|taker| taker.worker_id),
        taker.map(|taker| taker.lease_expires_at),
    )?;
    Ok(rows == 1)
}

/// Gives a stale run back in its lost worker's name: whoever has a place may take it up. As [`take_away`] otherwise.
pub(crate) async fn give_back(
    tx: &mut Tx,
    run: &Stale,
    lease_before: Option<DateTime<Utc>>,
) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update runs set fence = fence + 1, lease_owner = null, lease_expires_at = created_at, \
         continuations = continuations + case when status = 'running' and lease_owner is not null then 1 else 0 end \
         where id = $1 and sandbox_id = $2 and fence = $3 and status in ('pending', 'running') \
         and (cast($4 as text) is null or lease_expires_at <= $5)",
        run.id.as_str(),
        run.sandbox_id.as_str(),
        run.fence,
        lease_before.map(|_| "yes"),
        lease_before.unwrap_or_default(),
    )?;
    Ok(rows == 1)
}

/// What the journal of a lost worker's run adds up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) output_text: Option<String>,
    pub(crate) tokens_in: Option<i64>,
    pub(crate) tokens_out: Option<i64>,
    pub(crate) cost_microcents: Option<i64>,
    pub(crate) usage: Option<Value>,
    pub(crate) model_calls: i64,
}

/// How a run that was taken away ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending<'a> {
    pub(crate) status: RunStatus,
    pub(crate) error_type: &'a str,
    pub(crate) error_message: &'a str,
    pub(crate) totals: Totals,
    pub(crate) at: DateTime<Utc>,
}

/// Frames that a reader may have been shown before they were written.
const MAX_UNWRITTEN_FRAMES: i64 = 1000;

/// Ends a run that was taken away in the same transaction. The number of its last frame is none that its reader has seen:
/// followers have seen what is written only.
pub(crate) async fn end(tx: &mut Tx, run: &Stale, ending: &Ending<'_>) -> copass_store::Result<()> {
    let duration_ms = run
        .started_at
        .map(|started_at| (ending.at - started_at).num_milliseconds().max(0));
    let totals = &ending.totals;
    let unwritten = if run.entrance.is_background() {
        0
    } else {
        MAX_UNWRITTEN_FRAMES
    };
    execute!(
        *tx,
        "update runs set status = $7, error_type = $3, error_message = $4, duration_ms = $5, finished_at = $6, \
         output_text = $8, tokens_in = $9, tokens_out = $10, cost_microcents = $11, usage = $12, model_calls = $13, \
         last_frame = $14 + 1 + coalesce((select max(coalesce(last_frame, first_frame)) from run_steps where run_id = $1), 1) \
         where id = $1 and sandbox_id = $2",
        run.id.as_str(),
        run.sandbox_id.as_str(),
        ending.error_type,
        ending.error_message,
        duration_ms,
        ending.at,
        ending.status.as_str(),
        totals.output_text.as_deref(),
        totals.tokens_in,
        totals.tokens_out,
        totals.cost_microcents,
        totals.usage.as_ref().map(Json),
        totals.model_calls,
        unwritten,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use copass_runtime::clock;
    use copass_store::Db;
    use copass_test_support::{TestDatabase, on_both_databases};
    use copass_types::UserId;
    use sqlx::AssertSqlSafe;

    use super::*;

    on_both_databases! {
        a_look_reads_unfinished_runs_only
    }

    async fn plan(db: &Db, sql: &str) -> String {
        match db {
            Db::Sqlite { read, .. } => {
                let sql = AssertSqlSafe(format!("explain query plan {sql}"));
                let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(sql).fetch_all(read).await.unwrap();
                rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("\n")
            }
            Db::Postgres { pool, .. } => {
                let mut sql = sql.to_owned();
                for (placeholder, value) in [
                    ("$1", "now()"),
                    ("$2", "5"),
                    ("$3", "100"),
                    ("$4", "'epoch'"),
                    ("$5", "''"),
                ] {
                    sql = sql.replace(placeholder, value);
                }
                let text = AssertSqlSafe(format!("explain {sql}"));
                let rows: Vec<(String,)> = sqlx::query_as(text).fetch_all(pool).await.unwrap();
                rows.into_iter().map(|row| row.0).collect::<Vec<_>>().join("\n")
            }
        }
    }

    async fn a_look_reads_unfinished_runs_only(database: TestDatabase) {
        let mut tx = database.begin().await.unwrap();
        let (sandbox_id, user_id, agent_id) = (SandboxId::generate(), UserId::generate(), AgentId::generate());
        execute!(
            tx,
            "insert into agents (id, sandbox_id, user_id, slug, kind, name, system_prompt, tool_allowlist, \
             model_settings, status, version, created_at, updated_at) \
             values ($1, $2, $3, 'a', 'user', 'a', 'a', $4, $4, 'active', 1, $5, $5)",
            agent_id.as_str(),
            sandbox_id.as_str(),
            user_id.as_str(),
            Json(serde_json::json!([])),
            clock::now(),
        )
        .unwrap();
        execute!(
            tx,
            "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 20000) \
             insert into runs (id, sandbox_id, user_id, agent_id, agent_version, status, warnings, fence, created_at, \
             lease_expires_at, entrance) select 'rn_00000000000000' || cast(100000000000 + n as text), $1, $2, $3, 1, \
             case when n % 100 = 0 then 'pending' else 'succeeded' end, $4, 1, $5, \
             case when n % 100 = 0 then $5 end, 'invoke' from numbers",
            sandbox_id.as_str(),
            user_id.as_str(),
            agent_id.as_str(),
            Json(Vec::<String>::new()),
            clock::now(),
        )
        .unwrap();
        tx.commit().await.unwrap();
        if let Db::Postgres { pool, .. } = &*database {
            sqlx::raw_sql("analyze runs").execute(pool).await.unwrap();
        }
        for sql in [END, HELD, UNBEGUN, WAITING, BEGUN] {
            let plan = plan(&database, sql).await;
            assert!(plan.contains("runs_lease_expires_at_idx"), "{sql}\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
        }
        let mut conn = database.read().await.unwrap();
        let now = clock::now();
        let mut seen = Vec::new();
        loop {
            let after = seen.last();
            let page = expired(&mut conn, now, Expired::Waiting(5), after, 30).await.unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        let ids: std::collections::BTreeSet<&str> = seen.iter().map(|run| run.id.as_str()).collect();
        assert_eq!((seen.len(), ids.len()), (200, 200), "every one, and none twice");
    }
}
