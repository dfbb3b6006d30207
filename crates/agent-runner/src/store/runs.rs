//! Runs: rows and what they were asked to do. Who works on them is in `leases`.

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_store::{AsConn, Batch, Json, add_to, fetch_all, fetch_optional};
use copass_types::{AgentId, ApiKeyId, RunId, SandboxId, SessionId, UserId};
use serde_json::Value;

use super::{leases::Lease, stored, stored_word};
use crate::app::domain::{
    AgentKind, AgentStatus, Entrance, ErrorType, ModelSettings, Run, RunRequest, RunStatus, bounded_warnings,
};

/// The columns of a run `r` with its agent `a`, without what may be long.
macro_rules! run_columns {
    () => {
        "r.id, r.sandbox_id, r.user_id, r.agent_id, a.slug as agent_slug, a.kind as agent_kind, r.agent_version, \
         r.trigger_id, r.session_id, r.status, r.tokens_in, r.tokens_out, r.cost_microcents, \
         r.duration_ms, r.error_type, r.warnings, r.entrance, r.retry_of, r.model, r.api_key_id, \
         r.end_user_id, r.cost_breakdown, r.model_calls, r.stop_reason, r.last_frame, r.continuations, r.created_at, \
         r.started_at, r.finished_at"
    };
}
pub(super) use run_columns;

#[derive(sqlx::FromRow)]
pub(super) struct Row {
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
    entrance: String,
    retry_of: Option<String>,
    model: Option<String>,
    api_key_id: Option<String>,
    end_user_id: Option<String>,
    #[sqlx(default)]
    usage: Option<Json<Value>>,
    cost_breakdown: Option<Json<Value>>,
    model_calls: i64,
    stop_reason: Option<String>,
    last_frame: Option<i64>,
    continuations: i64,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl Row {
    pub(super) fn run(self) -> Result<(Run, AgentKind)> {
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
            error_type: self
                .error_type
                .as_deref()
                .map(|text| stored_word(ErrorType::from_text(text), text, "type of error"))
                .transpose()?,
            error_message: self.error_message,
            warnings: self.warnings.0,
            tool_resolution_trace: self.tool_resolution_trace.map(|trace| trace.0),
            entrance: stored_word(Entrance::from_text(&self.entrance), &self.entrance, "entrance")?,
            retry_of: self.retry_of.as_deref().map(|id| stored(id, "run id")).transpose()?,
            model: self.model,
            api_key_id: self
                .api_key_id
                .as_deref()
                .map(|id| stored::<ApiKeyId>(id, "API key id"))
                .transpose()?,
            end_user_id: self.end_user_id,
            usage: self.usage.map(|usage| usage.0),
            cost_breakdown: self.cost_breakdown.map(|breakdown| breakdown.0),
            model_calls: self.model_calls,
            stop_reason: self.stop_reason,
            last_frame: self.last_frame,
            continuations: self.continuations,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        };
        Ok((run, kind))
    }
}

/// How a run is added: what it was asked to do, and who holds it.
#[derive(Debug, Clone)]
pub(crate) struct NewRun<'a> {
    pub(crate) run: &'a Run,
    pub(crate) request: &'a RunRequest,
    /// At most one run of the sandbox has it.
    pub(crate) unique_key: Option<&'a str>,
    pub(crate) fence: i64,
    /// The worker, for a run that it works on already.
    pub(crate) lease_owner: Option<&'a str>,
    /// A pending run nobody began by then is taken up by whoever looks.
    pub(crate) lease_expires_at: DateTime<Utc>,
}

/// Adds a run. A unique violation means that another one has its unique key.
pub(crate) fn insert(batch: &mut Batch, new: &NewRun<'_>) {
    let run = new.run;
    add_to!(
        *batch,
        "insert into runs (id, sandbox_id, user_id, agent_id, agent_version, trigger_id, session_id, status, \
         input_event, warnings, tool_resolution_trace, unique_key, lease_owner, lease_expires_at, fence, created_at, \
         started_at, entrance, request, retry_of, model, api_key_id, end_user_id) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
         $23)",
        run.id.as_str(),
        run.sandbox_id.as_str(),
        run.user_id.as_str(),
        run.agent_id.as_str(),
        run.agent_version,
        run.trigger_id.as_deref(),
        run.session_id.as_ref().map(SessionId::as_str),
        run.status.as_str(),
        run.input_event.as_ref().map(Json),
        Json(bounded_warnings(&run.warnings)),
        run.tool_resolution_trace.as_ref().map(Json),
        new.unique_key,
        new.lease_owner,
        new.lease_expires_at,
        new.fence,
        run.created_at,
        run.started_at,
        run.entrance.as_str(),
        Json(new.request),
        run.retry_of.as_ref().map(RunId::as_str),
        run.model.as_deref(),
        run.api_key_id.as_ref().map(ApiKeyId::as_str),
        run.end_user_id.as_deref(),
    );
}

/// The run that has the unique key, with what it was asked to do.
pub(crate) async fn find_by_key<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    unique_key: &str,
) -> Result<Option<(RunId, RunRequest)>> {
    fetch_optional!(
        *conn,
        (String, Json<RunRequest>),
        "select id, request from runs where sandbox_id = $1 and unique_key = $2",
        sandbox_id.as_str(),
        unique_key,
    )?
    .map(|(id, request)| Ok((stored(&id, "run id")?, request.0)))
    .transpose()
}

/// What a run was asked to do; absent for runs of system agents that talk.
pub(crate) async fn request<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
) -> Result<Option<RunRequest>> {
    let row = fetch_optional!(
        *conn,
        (Option<Json<RunRequest>>,),
        "select request from runs where id = $1 and sandbox_id = $2",
        run_id.as_str(),
        sandbox_id.as_str(),
    )?;
    Ok(row.and_then(|(request,)| request).map(|request| request.0))
}

/// An agent as a run uses it: as it was in the run's version, archived or not as it is now.
#[derive(Debug, Clone)]
pub(crate) struct RunAgent {
    pub(crate) owner: UserId,
    pub(crate) status: AgentStatus,
    pub(crate) system_prompt: String,
    pub(crate) tool_allowlist: Vec<String>,
    pub(crate) tool_sources: Option<Vec<String>>,
    pub(crate) model_settings: ModelSettings,
}

#[derive(serde::Deserialize)]
struct Snapshot {
    system_prompt: String,
    tool_allowlist: Vec<String>,
    tool_sources: Option<Vec<String>>,
    model_settings: ModelSettings,
}

/// The agent in one of its versions.
pub(crate) async fn agent<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    agent_id: &AgentId,
    version: i64,
) -> Result<Option<RunAgent>> {
    let row = fetch_optional!(
        *conn,
        (String, String, Json<Value>),
        "select a.user_id, a.status, v.snapshot from agents a join agent_versions v on v.agent_id = a.id \
         where a.id = $1 and a.sandbox_id = $2 and v.version = $3",
        agent_id.as_str(),
        sandbox_id.as_str(),
        version,
    )?;
    row.map(|(owner, status, snapshot)| {
        let snapshot: Snapshot = serde_json::from_value(snapshot.0).map_err(copass_errors::Error::internal)?;
        Ok(RunAgent {
            owner: stored(&owner, "user id")?,
            status: stored_word(AgentStatus::from_text(&status), &status, "agent status")?,
            system_prompt: snapshot.system_prompt,
            tool_allowlist: snapshot.tool_allowlist,
            tool_sources: snapshot.tool_sources,
            model_settings: snapshot.model_settings,
        })
    })
    .transpose()
}

/// Writes the end of a run. Unless it touches one row the run is not this worker's any more, and nothing may be written.
pub(crate) fn finish(batch: &mut Batch, lease: &Lease<'_>, run: &Run) {
    add_to!(
        *batch,
        "update runs set status = $4, output_text = $5, tokens_in = $6, tokens_out = $7, cost_microcents = $8, \
         duration_ms = $9, error_type = $10, error_message = $11, warnings = $12, finished_at = $13, usage = $14, \
         cost_breakdown = $15, model_calls = $16, stop_reason = $17, last_frame = $18, model = $19, \
         lease_owner = null, lease_expires_at = null \
         where id = $1 and sandbox_id = $2 and fence = $3 and status in ('pending', 'running')",
        lease.run_id.as_str(),
        lease.sandbox_id.as_str(),
        lease.fence,
        run.status.as_str(),
        run.output_text.as_deref(),
        run.tokens_in,
        run.tokens_out,
        run.cost_microcents,
        run.duration_ms,
        run.error_type.map(ErrorType::as_str),
        run.error_message.as_deref(),
        Json(bounded_warnings(&run.warnings)),
        run.finished_at,
        run.usage.as_ref().map(Json),
        run.cost_breakdown.as_ref().map(Json),
        run.model_calls,
        run.stop_reason.as_deref(),
        run.last_frame,
        run.model.as_deref(),
    );
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
        concat!(
            "select ",
            run_columns!(),
            ", r.input_event, r.output_text, r.error_message, r.tool_resolution_trace, r.usage \
             from runs r join agents a on a.id = r.agent_id where r.id = $1 and r.sandbox_id = $2"
        ),
        run_id.as_str(),
        sandbox_id.as_str(),
    )?
    .map(Row::run)
    .transpose()
}

/// How a run is, and nothing else of it.
pub(crate) async fn status<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
) -> Result<Option<RunStatus>> {
    fetch_optional!(
        *conn,
        (String,),
        "select status from runs where id = $1 and sandbox_id = $2",
        run_id.as_str(),
        sandbox_id.as_str(),
    )?
    .map(|(status,)| stored_word(RunStatus::from_text(&status), &status, "run status"))
    .transpose()
}

/// Which runs of an agent a look is about.
#[derive(Debug, Clone)]
pub(crate) struct Looked<'a> {
    /// Only runs with this id or a later one.
    pub(crate) from: &'a str,
    /// Only runs older than this one.
    pub(crate) before: &'a str,
    /// Only runs that act for this person.
    pub(crate) user_id: Option<&'a UserId>,
    /// Only runs that are not over.
    pub(crate) is_open: bool,
    pub(crate) limit: i64,
}

/// How runs of an agent are, newest first, and nothing else of them.
pub(crate) async fn statuses<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    agent_id: &AgentId,
    looked: &Looked<'_>,
) -> Result<Vec<(RunId, RunStatus)>> {
    macro_rules! rows {
        ($which:literal) => {
            fetch_all!(
                *conn,
                (String, String),
                concat!(
                    "select r.id, r.status from runs r join agents a on a.id = r.agent_id \
                     where r.agent_id = $1 and a.sandbox_id = $2 and r.id >= $3 and r.id < $4",
                    $which,
                    " and (cast($5 as text) is null or r.user_id = $5) order by r.id desc limit $6"
                ),
                agent_id.as_str(),
                sandbox_id.as_str(),
                looked.from,
                looked.before,
                looked.user_id.map(UserId::as_str),
                looked.limit,
            )
        };
    }
    let rows = if looked.is_open {
        rows!(" and r.status in ('pending', 'running')")
    } else {
        rows!("")
    };
    rows?
        .into_iter()
        .map(|(id, status)| {
            let known = RunStatus::from_text(&status);
            Ok((stored(&id, "run id")?, stored_word(known, &status, "run status")?))
        })
        .collect()
}
