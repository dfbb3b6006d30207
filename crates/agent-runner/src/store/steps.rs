//! The journal of a run.

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_llm::Usage;
use copass_store::{AsConn, Batch, Json, Tx, add_to, execute, fetch_all, fetch_optional};
use copass_types::{RunId, SandboxId, StepId};
use serde_json::Value;

use super::{stored, stored_word};
use crate::app::domain::{Step, StepKind, StepState};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    seq: i64,
    kind: String,
    state: String,
    name: Option<String>,
    call_id: Option<String>,
    #[sqlx(default)]
    arguments: Option<Json<Value>>,
    #[sqlx(default)]
    output: Option<Json<Value>>,
    #[sqlx(default)]
    error: Option<String>,
    is_read_only: bool,
    result_bytes: Option<i64>,
    tokens_in: Option<i64>,
    tokens_out: Option<i64>,
    cost_microcents: Option<i64>,
    usage: Option<Json<Usage>>,
    first_frame: Option<i64>,
    last_frame: Option<i64>,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl Row {
    fn step(self) -> Result<Step> {
        Ok(Step {
            id: stored(&self.id, "step id")?,
            seq: self.seq,
            kind: stored_word(StepKind::from_text(&self.kind), &self.kind, "step kind")?,
            state: stored_word(StepState::from_text(&self.state), &self.state, "step state")?,
            name: self.name,
            call_id: self.call_id,
            arguments: self.arguments.map(|arguments| arguments.0),
            output: self.output.map(|output| output.0),
            error: self.error,
            is_read_only: self.is_read_only,
            result_bytes: self.result_bytes,
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
            cost_microcents: self.cost_microcents,
            usage: self.usage.map(|usage| usage.0),
            first_frame: self.first_frame,
            last_frame: self.last_frame,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}

/// Writes a step as it is now. The same step may be written again, also after a commit whose answer was lost.
pub(crate) fn put(batch: &mut Batch, run_id: &RunId, step: &Step) {
    add_to!(
        *batch,
        "insert into run_steps (id, run_id, seq, kind, state, name, call_id, arguments, output, error, is_read_only, \
         result_bytes, tokens_in, tokens_out, cost_microcents, usage, first_frame, last_frame, started_at, finished_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) \
         on conflict (id) do update set state = excluded.state, name = excluded.name, output = excluded.output, \
         error = excluded.error, result_bytes = excluded.result_bytes, tokens_in = excluded.tokens_in, \
         tokens_out = excluded.tokens_out, cost_microcents = excluded.cost_microcents, usage = excluded.usage, \
         first_frame = excluded.first_frame, last_frame = excluded.last_frame, finished_at = excluded.finished_at",
        step.id.as_str(),
        run_id.as_str(),
        step.seq,
        step.kind.as_str(),
        step.state.as_str(),
        step.name.as_deref(),
        step.call_id.as_deref(),
        step.arguments.as_ref().map(Json),
        step.output.as_ref().map(Json),
        step.error.as_deref(),
        step.is_read_only,
        step.result_bytes,
        step.tokens_in,
        step.tokens_out,
        step.cost_microcents,
        step.usage.as_ref().map(Json),
        step.first_frame,
        step.last_frame,
        step.started_at,
        step.finished_at,
    );
}

/// The steps of a run in order, with these columns of those that may be long.
macro_rules! steps_sql {
    ($long:literal) => {
        concat!(
            "select s.id, s.seq, s.kind, s.state, s.name, s.call_id, s.is_read_only, s.result_bytes, s.tokens_in, \
             s.tokens_out, s.cost_microcents, s.usage, s.first_frame, s.last_frame, s.started_at, s.finished_at",
            $long,
            " from run_steps s join runs r on r.id = s.run_id where s.run_id = $1 and r.sandbox_id = $2 order by s.seq"
        )
    };
}

async fn fetch<C: AsConn>(
    conn: &mut C,
    sql: &'static str,
    sandbox_id: &SandboxId,
    run_id: &RunId,
) -> Result<Vec<Step>> {
    fetch_all!(*conn, Row, sql, run_id.as_str(), sandbox_id.as_str())?
        .into_iter()
        .map(Row::step)
        .collect()
}

/// The steps of a run in order, whole.
pub(crate) async fn list<C: AsConn>(conn: &mut C, sandbox_id: &SandboxId, run_id: &RunId) -> Result<Vec<Step>> {
    const WHOLE: &str = steps_sql!(", s.arguments, s.output, s.error");
    fetch(conn, WHOLE, sandbox_id, run_id).await
}

/// The steps of a run in order, with outputs of models only: what a run said and used, and not what it read.
pub(crate) async fn list_answers<C: AsConn>(conn: &mut C, sandbox_id: &SandboxId, run_id: &RunId) -> Result<Vec<Step>> {
    const ANSWERS: &str = steps_sql!(", case when s.kind = 'model' then s.output end as output");
    fetch(conn, ANSWERS, sandbox_id, run_id).await
}

/// The steps of a run in order, without arguments, outputs and errors: [`texts`] has their beginnings.
pub(crate) async fn list_bare<C: AsConn>(conn: &mut C, sandbox_id: &SandboxId, run_id: &RunId) -> Result<Vec<Step>> {
    const BARE: &str = steps_sql!("");
    fetch(conn, BARE, sandbox_id, run_id).await
}

/// What may be long of a step. JSON is as the database writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Texts {
    pub(crate) arguments: Option<String>,
    /// The beginning of it.
    pub(crate) error: Option<String>,
    /// The beginning of the result, or of what the model said.
    pub(crate) output: Option<String>,
}

/// What [`texts`] gives of an output; a shorter one is whole.
pub(crate) const MAX_BEGINNING_CHARS: usize = 4096;

/// What may be long of the steps between these two, with arguments and with outputs where they are wanted.
pub(crate) async fn texts<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
    (first_seq, last_seq): (i64, i64),
    (wants_arguments, wants_outputs): (bool, bool),
) -> Result<Vec<(i64, Texts)>> {
    let rows = fetch_all!(
        *conn,
        (i64, Option<String>, Option<String>, Option<String>),
        // An error is shorter than this, but for the words of a provider that has no bounds.
        "select s.seq, case when $5 then cast(s.arguments as text) end, substr(s.error, 1, 8192), \
         case when $6 then substr(case when s.kind = 'model' then s.output ->> 'text' else cast(s.output as text) end, \
         1, $7) end \
         from run_steps s join runs r on r.id = s.run_id \
         where s.run_id = $1 and r.sandbox_id = $2 and s.seq >= $3 and s.seq <= $4 order by s.seq",
        run_id.as_str(),
        sandbox_id.as_str(),
        first_seq,
        last_seq,
        wants_arguments,
        wants_outputs,
        i32::try_from(MAX_BEGINNING_CHARS).unwrap_or(i32::MAX),
    )?;
    let texts = |(seq, arguments, error, output)| {
        let texts = Texts {
            arguments,
            error,
            output,
        };
        (seq, texts)
    };
    Ok(rows.into_iter().map(texts).collect())
}

/// Keeps a result that is too long for the model, whole.
pub(crate) fn put_result(batch: &mut Batch, run_id: &RunId, step_id: &StepId, result: &str) {
    add_to!(
        *batch,
        "insert into step_results (step_id, run_id, result) values ($1, $2, $3) on conflict (step_id) do nothing",
        step_id.as_str(),
        run_id.as_str(),
        result,
    );
}

/// Name and whole result of a tool call, where it has one.
pub(crate) async fn result<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
    step_id: &StepId,
) -> Result<Option<(String, String)>> {
    let row = fetch_optional!(
        *conn,
        (Option<String>, Option<Json<Value>>, Option<String>),
        "select s.name, s.output, w.result from run_steps s join runs r on r.id = s.run_id \
         left join step_results w on w.step_id = s.id \
         where s.id = $1 and s.run_id = $2 and r.sandbox_id = $3 and s.kind = 'tool'",
        step_id.as_str(),
        run_id.as_str(),
        sandbox_id.as_str(),
    )?;
    Ok(row.and_then(|(name, output, whole)| {
        let result = whole.or_else(|| output.map(|output| output.0.to_string()))?;
        Some((name.unwrap_or_default(), result))
    }))
}

/// Closes what a lost worker left open: a changing tool call becomes `unknown`, everything else `failed`. Returns the
/// uncertain calls as (tool, call id).
pub(crate) async fn close_open(
    tx: &mut Tx,
    run_id: &RunId,
    reason: &str,
    now: DateTime<Utc>,
) -> copass_store::Result<Vec<(Option<String>, Option<String>)>> {
    let uncertain = fetch_all!(
        *tx,
        (Option<String>, Option<String>),
        "select name, call_id from run_steps \
         where run_id = $1 and (state = 'unknown' or (state = 'intended' and kind = 'tool' and not is_read_only)) \
         order by seq",
        run_id.as_str(),
    )?;
    execute!(
        *tx,
        "update run_steps set state = case when kind = 'tool' and not is_read_only then 'unknown' else 'failed' end, \
         error = $2, finished_at = $3 where run_id = $1 and state = 'intended'",
        run_id.as_str(),
        reason,
        now,
    )?;
    Ok(uncertain)
}
