//! The journal of one run while it is worked on: steps in memory, written in as few commits as the promises allow.
//!
//! A commit costs a disk flush, so steps are written together: the first model step with the run row, a reading tool
//! call with its result and the next model step, the last step with the end of the run. Only a changing tool call costs
//! a commit of its own, before it is made: that row is what stops anybody from making the call twice.
//!
//! Every write is fenced: its first statement extends the lease and finds out whether it still is ours.

use std::time::Duration;

use copass_errors::{Error, ErrorCode};
use copass_runtime::clock;
use copass_store::{Batch, Db, Tx};
use copass_types::{RunId, SandboxId, StepId};
use serde_json::{Value, json};

use super::{clean, patience::Patience};
use crate::{
    app::domain::{Step, StepKind, StepState},
    store::{self, leases::Lease},
};

/// Whole results that one commit writes.
const MAX_UNWRITTEN_BYTES: usize = 16 * 1024 * 1024;
/// Larger arguments are kept as a note of their size.
const MAX_STORED_BYTES: usize = 64 * 1024;

/// Uncertain calls that are named to people; the steps of the run tell of all.
const MAX_NAMED: usize = 20;

/// Why a write was not made.
#[derive(Debug)]
pub(crate) enum JournalError {
    /// The run is another worker's, or over.
    LeaseLost,
    /// The database failed.
    Store(Error),
}

impl JournalError {
    /// Whether the database was away for longer than anybody waited.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Store(error) if error.code() == ErrorCode::Unavailable)
    }
}

impl From<Error> for JournalError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<copass_store::Error> for JournalError {
    fn from(error: copass_store::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A step of this journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StepHandle(usize);

#[derive(Debug)]
struct Entry {
    step: Step,
    is_dirty: bool,
    /// A result that is too long for the model, whole.
    whole_result: Option<String>,
}

/// The steps of one run.
#[derive(Debug)]
pub(crate) struct Journal {
    db: Db,
    sandbox_id: SandboxId,
    run_id: RunId,
    fence: i64,
    lease: Duration,
    entries: Vec<Entry>,
    /// The database was away and steps could not be written.
    is_cut_off: bool,
}

impl Journal {
    pub(crate) fn new(db: Db, sandbox_id: SandboxId, run_id: RunId, fence: i64, lease: Duration) -> Self {
        Self {
            db,
            sandbox_id,
            run_id,
            fence,
            lease,
            entries: Vec::new(),
            is_cut_off: false,
        }
    }

    /// The journal of a run that another worker began, as that one left it.
    pub(crate) fn resume(mut self, steps: Vec<Step>) -> Self {
        self.entries = steps
            .into_iter()
            .map(|step| Entry {
                step,
                is_dirty: false,
                whole_result: None,
            })
            .collect();
        self
    }

    /// The steps so far, with their handles.
    pub(crate) fn steps(&self) -> impl DoubleEndedIterator<Item = (StepHandle, &Step)> {
        self.entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (StepHandle(index), &entry.step))
    }

    /// Notes the first frame of a step.
    pub(crate) fn place(&mut self, handle: StepHandle, number: i64) {
        if let Some(entry) = self.entries.get_mut(handle.0) {
            entry.step.first_frame = Some(number);
            entry.is_dirty = true;
        }
    }

    /// Takes a step's frame back: nobody was shown it, and nothing was kept of it.
    pub(crate) fn displace(&mut self, handle: StepHandle) {
        self.amend(handle, |step| step.first_frame = None);
    }

    /// Adds something to a step.
    pub(crate) fn amend(&mut self, handle: StepHandle, change: impl FnOnce(&mut Step)) {
        if let Some(entry) = self.entries.get_mut(handle.0) {
            change(&mut entry.step);
            entry.step.output = entry.step.output.take().map(clean::value);
            entry.is_dirty = true;
        }
    }

    /// How many steps there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Drops the steps after the first so many. Only for steps that were never written.
    pub(crate) fn forget_after(&mut self, len: usize) {
        self.entries.truncate(len);
    }

    /// Whether the end of a changing call is known here only.
    pub(crate) fn has_unwritten_change(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.is_dirty && entry.step.kind == StepKind::Tool && !entry.step.is_read_only)
    }

    /// The id of a step.
    pub(crate) fn id(&self, handle: StepHandle) -> Option<&StepId> {
        self.entries.get(handle.0).map(|entry| &entry.step.id)
    }

    /// Keeps a result whole that the model gets the beginning of, unless too much waits to be written already.
    pub(crate) fn keep_whole(&mut self, handle: StepHandle, result: String) {
        let waiting = self.entries.iter().filter_map(|entry| entry.whole_result.as_ref());
        if waiting.map(String::len).sum::<usize>() + result.len() > MAX_UNWRITTEN_BYTES {
            return;
        }
        if let Some(entry) = self.entries.get_mut(handle.0) {
            entry.whole_result = Some(result);
            entry.is_dirty = true;
        }
    }

    /// The right to write.
    pub(crate) fn lease(&self) -> Lease<'_> {
        Lease {
            sandbox_id: &self.sandbox_id,
            run_id: &self.run_id,
            fence: self.fence,
        }
    }

    /// Begins a model answer.
    pub(crate) fn begin_model(&mut self, model: &str) -> StepHandle {
        self.begin(StepKind::Model, model, None, None, true)
    }

    /// Begins a tool call; the arguments hold no secrets any more.
    pub(crate) fn begin_tool(&mut self, name: &str, call_id: &str, arguments: Value, is_read_only: bool) -> StepHandle {
        self.begin(
            StepKind::Tool,
            name,
            Some(call_id),
            Some(bounded(arguments)),
            is_read_only,
        )
    }

    fn begin(
        &mut self,
        kind: StepKind,
        name: &str,
        call_id: Option<&str>,
        arguments: Option<Value>,
        is_read_only: bool,
    ) -> StepHandle {
        let handle = StepHandle(self.entries.len());
        let step = Step {
            id: StepId::generate(),
            seq: i64::try_from(handle.0).unwrap_or(i64::MAX - 1) + 1,
            kind,
            state: StepState::Intended,
            name: Some(name.to_owned()),
            call_id: call_id.map(str::to_owned),
            arguments,
            output: None,
            error: None,
            is_read_only,
            result_bytes: None,
            tokens_in: None,
            tokens_out: None,
            cost_microcents: None,
            usage: None,
            first_frame: None,
            last_frame: None,
            started_at: clock::now(),
            finished_at: None,
        };
        self.entries.push(Entry {
            step,
            is_dirty: true,
            whole_result: None,
        });
        handle
    }

    /// Ends a step; `fill` adds what it gave.
    pub(crate) fn end(&mut self, handle: StepHandle, state: StepState, fill: impl FnOnce(&mut Step)) {
        if let Some(entry) = self.entries.get_mut(handle.0) {
            entry.step.state = state;
            entry.step.finished_at = Some(clock::now());
            fill(&mut entry.step);
            // The last net: a step that cannot be stored would take the whole journal with it.
            entry.step.output = entry.step.output.take().map(clean::value);
            entry.step.error = entry.step.error.take().map(clean::text);
            entry.is_dirty = true;
        }
    }

    /// Ends what is still open because the run is stopped. A changing call in flight may or may not take effect.
    pub(crate) fn end_open(&mut self, reason: &str) {
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| entry.step.state == StepState::Intended)
        {
            let is_uncertain = entry.step.kind == StepKind::Tool && !entry.step.is_read_only;
            entry.step.state = if is_uncertain {
                StepState::Unknown
            } else {
                StepState::Failed
            };
            entry.step.error = Some(reason.to_owned());
            entry.step.finished_at = Some(clock::now());
            entry.is_dirty = true;
        }
    }

    /// Ends steps of a lost worker that nobody can tell the outcome of.
    pub(crate) fn end_unknown(&mut self, handles: &[StepHandle], reason: &str) {
        for handle in handles {
            self.end(*handle, StepState::Unknown, |step| step.error = Some(reason.to_owned()));
        }
    }

    /// The calls nobody can tell the outcome of, as `tool (call id)`.
    pub(crate) fn uncertain(&self) -> Vec<String> {
        self.entries
            .iter()
            .filter(|entry| entry.step.state == StepState::Unknown)
            .map(|entry| uncertain_call(entry.step.name.as_deref(), entry.step.call_id.as_deref()))
            .collect()
    }

    /// Makes everything so far durable, in one commit; tried again while the database is away.
    pub(crate) async fn flush(&mut self) -> Result<(), JournalError> {
        let mut patience = Patience::default();
        loop {
            let Err(error) = self.try_flush().await else {
                return Ok(());
            };
            if !patience.outlasts(&self.run_id, &error).await {
                self.is_cut_off = error.is_unavailable();
                return Err(error);
            }
        }
    }

    /// Whether steps could not be written because the database was away.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    async fn try_flush(&mut self) -> Result<(), JournalError> {
        let mut batch = Batch::new(self.db.dialect());
        store::leases::extend_lease(&mut batch, &self.lease(), clock::now() + self.lease);
        self.write(&mut batch);
        execute_fenced(&self.db, batch).await?;
        self.written();
        Ok(())
    }

    /// Adds what is not written yet; the same transaction checks the fence. [`Self::written`] after its commit.
    pub(crate) fn write(&self, batch: &mut Batch) {
        for entry in self.entries.iter().filter(|entry| entry.is_dirty) {
            store::steps::put(batch, &self.run_id, &entry.step);
            if let Some(result) = &entry.whole_result {
                store::steps::put_result(batch, &self.run_id, &entry.step.id, result);
            }
        }
    }

    /// Everything is durable; outputs that will not change are not needed here any more.
    pub(crate) fn written(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_dirty) {
            entry.is_dirty = false;
            entry.whole_result = None;
            if entry.step.state != StepState::Intended {
                entry.step.output = None;
            }
        }
    }
}

/// Runs a batch whose first statement finds out whether the run still is this worker's.
pub(super) async fn execute_fenced(db: &Db, batch: Batch) -> Result<(), JournalError> {
    match db.execute_fenced(batch).await? {
        Some(_) => Ok(()),
        None => Err(JournalError::LeaseLost),
    }
}

/// Begins a transaction with a batch whose first statement finds out whether the run still is this worker's.
pub(super) async fn begin_fenced(db: &Db, batch: Batch) -> Result<Tx, JournalError> {
    let (tx, rows) = db.begin_with(batch).await?;
    if rows.first() == Some(&1) {
        return Ok(tx);
    }
    tx.rollback().await?;
    Err(JournalError::LeaseLost)
}

/// How an uncertain call is named to people.
pub(crate) fn uncertain_call(name: Option<&str>, call_id: Option<&str>) -> String {
    format!("{} ({})", name.unwrap_or("a tool"), call_id.unwrap_or("no call id"))
}

/// The sentence about uncertain calls; empty when there are none. It is part of a message that rows and lists of them
/// carry, so it names some of very many.
pub(crate) fn uncertain_sentence(calls: &[String]) -> String {
    let (named, others) = calls.split_at(calls.len().min(MAX_NAMED));
    let mut names = named.join(", ");
    if names.is_empty() {
        return String::new();
    }
    if !others.is_empty() {
        names.push_str(&format!(" and {} more", others.len()));
    }
    format!("the outcome of {names} is not known: check before you repeat it")
}

/// The value, or a note of its size where it is too large to keep.
fn bounded(value: Value) -> Value {
    let bytes = value.to_string().len();
    if bytes <= MAX_STORED_BYTES {
        value
    } else {
        json!({"truncated": true, "total_bytes": bytes})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_very_many_uncertain_calls_are_named() {
        let calls: Vec<String> = (0..12_800)
            .map(|number| uncertain_call(Some("make"), Some(&number.to_string())))
            .collect();
        assert_eq!(uncertain_sentence(&[]), "");
        let sentence = uncertain_sentence(&calls[..2]);
        assert_eq!(
            sentence,
            "the outcome of make (0), make (1) is not known: check before you repeat it"
        );
        let sentence = uncertain_sentence(&calls);
        assert!(
            sentence.contains(", make (19) and 12780 more is not known"),
            "{sentence}"
        );
    }
}
