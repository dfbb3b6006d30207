//! The frames that a journal holds: where they are, and some of them at a time.
//!
//! The numbers of a run's frames grow with the steps they begin, but a call's result comes after the calls that were made
//! beside it. So the places of frames are read on their own, which costs little, and what is in the frames in their order.

use copass_errors::Result;
use copass_store::{AsConn, fetch_all};
use copass_types::{RunId, SandboxId};

use super::stored_word;
use crate::app::domain::{StepKind, StepState};

/// Which frames a step has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepFrames {
    pub(crate) seq: i64,
    pub(crate) state: StepState,
    /// Of its text or its call.
    pub(crate) first: Option<i64>,
    /// Of its result.
    pub(crate) result: Option<i64>,
}

/// Which frames the steps of a run have, in order, from a step on.
pub(crate) async fn places<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
    from_seq: i64,
    limit: i64,
) -> Result<Vec<StepFrames>> {
    fetch_all!(
        *conn,
        (i64, String, String, Option<i64>, Option<i64>),
        "select s.seq, s.kind, s.state, s.first_frame, s.last_frame from run_steps s join runs r on r.id = s.run_id \
         where s.run_id = $1 and r.sandbox_id = $2 and s.seq >= $3 order by s.seq limit $4",
        run_id.as_str(),
        sandbox_id.as_str(),
        from_seq,
        limit,
    )?
    .into_iter()
    .map(|(seq, kind, state, first, last)| {
        let kind = stored_word(StepKind::from_text(&kind), &kind, "step kind")?;
        let state = stored_word(StepState::from_text(&state), &state, "step state")?;
        // Of an answer that failed, what was shown of it.
        let is_told = kind == StepKind::Tool || matches!(state, StepState::Done | StepState::Failed);
        let first = first.filter(|_| is_told);
        Ok(StepFrames {
            seq,
            state,
            first,
            result: first.and(last).filter(|_| kind == StepKind::Tool),
        })
    })
    .collect()
}

/// A frame as the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredFrame {
    pub(crate) number: i64,
    pub(crate) content: Content,
}

/// What a stored frame is of. JSON is as the database writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Text {
        text: String,
        /// How long it was when it was told, secrets included.
        told_bytes: Option<i64>,
    },
    Call {
        call_id: String,
        name: String,
        arguments: Option<String>,
    },
    Result {
        call_id: String,
        name: String,
        result: Option<String>,
        error: Option<String>,
    },
}

impl Content {
    /// How long it is, but for what is always short.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text { text, .. } => text.len(),
            Self::Call { arguments, .. } => arguments.as_ref().map_or(0, String::len),
            Self::Result { result, .. } => result.as_ref().map_or(0, String::len),
        }
    }
}

/// Which frames are read: those with these numbers, of these steps; both ends are included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) numbers: (i64, i64),
    pub(crate) seqs: (i64, i64),
}

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    kind: String,
    last_frame: Option<i64>,
    call_id: Option<String>,
    name: Option<String>,
    error: Option<String>,
    result_bytes: Option<i64>,
    body: Option<String>,
}

impl Row {
    fn frame(self) -> Result<StoredFrame> {
        let (call_id, name) = (self.call_id.unwrap_or_default(), self.name.unwrap_or_default());
        let content = match stored_word(StepKind::from_text(&self.kind), &self.kind, "step kind")? {
            StepKind::Model => Content::Text {
                text: self.body.unwrap_or_default(),
                told_bytes: self.result_bytes,
            },
            StepKind::Tool if self.last_frame == Some(self.number) => Content::Result {
                call_id,
                name,
                result: self.body,
                error: self.error,
            },
            StepKind::Tool => Content::Call {
                call_id,
                name,
                arguments: self.body,
            },
        };
        Ok(StoredFrame {
            number: self.number,
            content,
        })
    }
}

/// The frames of a range in order, up to the first one with which they are longer than `max_bytes`.
pub(crate) async fn page<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    run_id: &RunId,
    range: Range,
    max_bytes: i64,
) -> Result<Vec<StoredFrame>> {
    fetch_all!(
        *conn,
        Row,
        "with frames as ( \
         select s.seq, s.first_frame as number, \
         case when s.kind = 'model' then s.output ->> 'text' else cast(s.arguments as text) end as body \
         from run_steps s join runs r on r.id = s.run_id where s.run_id = $1 and r.sandbox_id = $2 \
         and s.seq >= $3 and s.seq <= $4 and s.first_frame >= $5 and s.first_frame <= $6 \
         and (s.kind = 'tool' or s.state in ('done', 'failed')) \
         union all \
         select s.seq, s.last_frame as number, cast(s.output as text) as body \
         from run_steps s join runs r on r.id = s.run_id where s.run_id = $1 and r.sandbox_id = $2 \
         and s.seq >= $3 and s.seq <= $4 and s.last_frame >= $5 and s.last_frame <= $6 \
         and s.kind = 'tool' and s.first_frame is not null \
         ), measured as ( \
         select seq, number, body, \
         sum(coalesce(octet_length(body), 0)) over (order by number) - coalesce(octet_length(body), 0) as bytes_before \
         from frames \
         ) select f.number, s.kind, s.last_frame, s.call_id, s.name, s.error, s.result_bytes, f.body \
         from measured f join run_steps s on s.run_id = $1 and s.seq = f.seq \
         where f.bytes_before < $7 order by f.number",
        run_id.as_str(),
        sandbox_id.as_str(),
        range.seqs.0,
        range.seqs.1,
        range.numbers.0,
        range.numbers.1,
        max_bytes,
    )?
    .into_iter()
    .map(Row::frame)
    .collect()
}
