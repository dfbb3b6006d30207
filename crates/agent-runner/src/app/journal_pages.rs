//! The stored frames of one run, a page at a time and in their order: what a follower costs does not grow with the journal.

use std::collections::VecDeque;

use copass_errors::Result;
use copass_store::Db;
use copass_types::{RunId, SandboxId};

use super::domain::StepState;
use crate::store::{
    self,
    frames::{Range, StepFrames, StoredFrame},
};

/// Frames of one page.
const MAX_FRAMES: usize = 64;
/// A page ends with the frame that takes it beyond this.
const MAX_BYTES: i64 = 256 * 1024;
/// The places of the frames of so many steps are known at a time.
const WINDOW: i64 = 256;

/// A reader's place in the frames of a journal that may still grow.
#[derive(Debug)]
pub(super) struct JournalPages {
    db: Db,
    sandbox_id: SandboxId,
    run_id: RunId,
    /// The least number that is wanted.
    next: i64,
    /// No step before this one has a frame that is wanted and not known yet, or will have one.
    from_seq: i64,
    /// How many steps one look is about.
    window: i64,
    /// Number and step of the frames that come next, in order.
    known: VecDeque<(i64, i64)>,
    /// Whether there were no others when they were looked for.
    has_all: bool,
    /// How many frames the next page may have: where they are long the database would measure more of them in vain.
    most: usize,
}

impl JournalPages {
    /// The frames from this number on.
    pub(super) fn new(db: Db, sandbox_id: SandboxId, run_id: RunId, next: i64) -> Self {
        Self {
            db,
            sandbox_id,
            run_id,
            next,
            from_seq: 0,
            window: WINDOW,
            known: VecDeque::new(),
            has_all: false,
            most: MAX_FRAMES,
        }
    }

    /// The next frames; `None` where there are no more for now, and a later call looks again.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<StoredFrame>>> {
        loop {
            if self.known.is_empty() {
                if std::mem::take(&mut self.has_all) {
                    return Ok(None);
                }
                self.look().await?;
                continue;
            }
            let wanted = self.known.len().min(self.most);
            let Some(range) = range(self.known.range(..wanted)) else {
                return Ok(None);
            };
            let mut conn = self.db.read().await?;
            let page = store::frames::page(&mut conn, &self.sandbox_id, &self.run_id, range, MAX_BYTES).await?;
            drop(conn);
            let Some(last) = page.last() else {
                // The run was deleted in the meantime.
                self.known.drain(..wanted);
                continue;
            };
            self.next = last.number.saturating_add(1);
            while self.known.front().is_some_and(|(number, _)| *number < self.next) {
                self.known.pop_front();
            }
            self.most = (2 * page.len()).clamp(1, MAX_FRAMES);
            return Ok(Some(page));
        }
    }

    /// Finds the frames that come next.
    async fn look(&mut self) -> Result<()> {
        let mut conn = self.db.read().await?;
        let steps =
            store::frames::places(&mut conn, &self.sandbox_id, &self.run_id, self.from_seq, self.window).await?;
        drop(conn);
        self.has_all = i64::try_from(steps.len()).unwrap_or(i64::MAX) < self.window;
        // Steps that are not looked at here begin later than all of these, so nothing of theirs comes in between up to here.
        let horizon = if self.has_all {
            i64::MAX
        } else {
            steps.iter().rev().find_map(|step| step.first).unwrap_or(self.next - 1)
        };
        let mut known: Vec<(i64, i64)> = steps
            .iter()
            .flat_map(|step| [(step.first, step.seq), (step.result, step.seq)])
            .filter_map(|(number, seq)| Some((number?, seq)))
            .filter(|(number, _)| (self.next..=horizon).contains(number))
            .collect();
        known.sort_unstable();
        // What is over and will have been told after these is not looked at again.
        let is_settled = |step: &&StepFrames| {
            step.state != StepState::Intended && step.first.max(step.result).is_none_or(|last| last <= horizon)
        };
        let from_seq = match steps.iter().find(|step| !is_settled(step)) {
            Some(step) => step.seq,
            None => steps.last().map_or(self.from_seq, |step| step.seq + 1),
        };
        if known.is_empty() && !self.has_all && from_seq == self.from_seq {
            // Never by what this service writes; without it a journal of another make would be looked at for ever.
            self.window = self.window.saturating_mul(2);
        }
        self.from_seq = from_seq;
        self.known = known.into();
        Ok(())
    }
}

/// The numbers and the steps of these frames.
fn range<'a>(frames: impl Iterator<Item = &'a (i64, i64)>) -> Option<Range> {
    frames.fold(None, |range: Option<Range>, (number, seq)| {
        let range = range.unwrap_or(Range {
            numbers: (*number, *number),
            seqs: (*seq, *seq),
        });
        Some(Range {
            numbers: (range.numbers.0.min(*number), range.numbers.1.max(*number)),
            seqs: (range.seqs.0.min(*seq), range.seqs.1.max(*seq)),
        })
    })
}

#[cfg(test)]
mod tests {
    use copass_runtime::clock;
    use copass_store::{Batch, Json, execute};
    use copass_test_support::{TestDatabase, on_both_databases};
    use copass_types::{StepId, UserId};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        app::domain::{ModelSettings, Step, StepKind},
        store::{agents::ensure_system, frames::Content},
    };

    on_both_databases! {
        pages_together_are_the_journal
        a_journal_that_grows_is_read_on
    }

    struct Journal {
        db: Db,
        sandbox_id: SandboxId,
        run_id: RunId,
    }

    impl Journal {
        async fn new(db: Db) -> Self {
            let (sandbox_id, user_id, run_id) = (SandboxId::generate(), UserId::generate(), RunId::generate());
            let settings = ModelSettings {
                backend: "planner".to_owned(),
                model: "planner".to_owned(),
                temperature: None,
                max_tokens: None,
                max_turns: None,
                timeout_s: None,
                compute_provider: None,
            };
            let mut tx = db.begin().await.unwrap();
            let now = clock::now();
            let agent_id = ensure_system(&mut tx, &sandbox_id, &user_id, "@concierge", &settings, now)
                .await
                .unwrap();
            execute!(
                tx,
                "insert into runs (id, sandbox_id, user_id, agent_id, agent_version, status, warnings, fence, created_at) \
                 values ($1, $2, $3, $4, 1, 'running', $5, 1, $6)",
                run_id.as_str(),
                sandbox_id.as_str(),
                user_id.as_str(),
                agent_id.as_str(),
                Json(Vec::<String>::new()),
                now,
            )
            .unwrap();
            tx.commit().await.unwrap();
            Self { db, sandbox_id, run_id }
        }

        async fn put(&self, steps: &[Step]) {
            for steps in steps.chunks(50) {
                let mut tx = self.db.begin().await.unwrap();
                let mut batch = Batch::new(self.db.dialect());
                for step in steps {
                    store::steps::put(&mut batch, &self.run_id, step);
                }
                batch.execute(&mut tx).await.unwrap();
                tx.commit().await.unwrap();
            }
        }

        fn pages(&self, next: i64) -> JournalPages {
            JournalPages::new(self.db.clone(), self.sandbox_id.clone(), self.run_id.clone(), next)
        }
    }

    fn step(seq: usize, kind: StepKind, state: StepState, first: Option<i64>, last: Option<i64>) -> Step {
        Step {
            id: StepId::generate(),
            seq: i64::try_from(seq).unwrap(),
            kind,
            state,
            name: Some("look".to_owned()),
            call_id: (kind == StepKind::Tool).then(|| seq.to_string()),
            arguments: None,
            output: None,
            error: None,
            is_read_only: true,
            result_bytes: None,
            tokens_in: None,
            tokens_out: None,
            cost_microcents: None,
            usage: None,
            first_frame: first,
            last_frame: last,
            started_at: clock::now(),
            finished_at: None,
        }
    }

    /// The steps of some turns, each with calls side by side whose results come in the opposite order, and their frames.
    fn turns(bytes: &[usize], calls: usize) -> (Vec<Step>, Vec<(i64, String)>) {
        let (mut steps, mut frames) = (Vec::new(), Vec::new());
        let mut number = 1;
        let mut count = || {
            number += 1;
            number
        };
        for (turn, bytes) in bytes.iter().enumerate() {
            let seq = steps.len() + 1;
            // Every other answer has no text and so no frame.
            let first = (turn % 2 == 0).then(&mut count);
            let mut answer = step(seq, StepKind::Model, StepState::Done, first, first);
            answer.output = Some(
                json!({"text": if first.is_some() { format!("answer {seq}") } else { String::new() },
                "tool_calls": [{"text": "not this"}]}),
            );
            frames.extend(first.map(|number| (number, format!("answer {seq}"))));
            steps.push(answer);
            let first_call = steps.len();
            for seq in seq + 1..=seq + calls {
                let first = count();
                let mut call = step(seq, StepKind::Tool, StepState::Done, Some(first), None);
                call.arguments = Some(json!({"of": seq}));
                call.output = Some(json!({"of": seq, "rows": "x".repeat(*bytes)}));
                frames.push((first, format!("call {seq}")));
                steps.push(call);
            }
            for call in steps[first_call..].iter_mut().rev() {
                call.last_frame = Some(count());
                frames.extend(call.last_frame.map(|number| (number, format!("result {}", call.seq))));
            }
        }
        (steps, frames)
    }

    /// What the frame is of, by what is in it.
    fn told(frame: StoredFrame) -> (i64, String) {
        let of = |call_id: String, body: Option<String>| {
            let value: Value = serde_json::from_str(&body.unwrap()).unwrap();
            assert_eq!(value["of"].to_string(), call_id);
            call_id
        };
        let text = match frame.content {
            Content::Text { text, .. } => text,
            Content::Call { call_id, arguments, .. } => format!("call {}", of(call_id, arguments)),
            Content::Result { call_id, result, .. } => format!("result {}", of(call_id, result)),
        };
        (frame.number, text)
    }

    /// All frames there are for now.
    async fn read(pages: &mut JournalPages) -> Vec<(i64, String)> {
        let mut frames = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            assert!(!page.is_empty() && page.len() <= MAX_FRAMES, "{}", page.len());
            let bytes: usize = page.iter().rev().skip(1).map(|frame| frame.content.bytes()).sum();
            assert!(i64::try_from(bytes).unwrap() < MAX_BYTES, "{bytes}");
            frames.extend(page.into_iter().map(told));
        }
        frames
    }

    async fn pages_together_are_the_journal(database: TestDatabase) {
        let journal = Journal::new(database.db()).await;
        let long = 60 * 1024;
        let (mut steps, mut frames) = turns(&[10, 10, 3_000, long, 10, 10, 3_000, 10, 10], 40);
        assert!(i64::try_from(steps.len()).unwrap() > WINDOW, "more than one look finds");
        steps[250].output = Some(json!({"of": 251, "rows": "ö\"".repeat(200_000)}));
        // A call that a lost worker never ended: what comes after it does not wait for it.
        (steps[1].state, steps[1].output) = (StepState::Intended, None);
        let lost = steps[1].last_frame.take().unwrap();
        frames.retain(|(number, _)| *number != lost);
        journal.put(&steps).await;
        for next in [
            0,
            1,
            2,
            3,
            41,
            42,
            43,
            82,
            200,
            300,
            301,
            302,
            400,
            700,
            5_000,
            i64::MAX,
        ] {
            let expected: Vec<_> = frames.iter().filter(|(number, _)| *number >= next).cloned().collect();
            assert_eq!(read(&mut journal.pages(next)).await, expected, "from {next} on");
        }
    }

    async fn a_journal_that_grows_is_read_on(database: TestDatabase) {
        let journal = Journal::new(database.db()).await;
        let (steps, frames) = turns(&[10; 3], 3);
        let mut pages = journal.pages(0);
        assert!(read(&mut pages).await.is_empty());
        let mut seen = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            // Begun, announced where it is a call, and over: each as of its commit.
            let mut begun = step.clone();
            (begun.state, begun.output, begun.last_frame) = (StepState::Intended, None, None);
            if step.kind == StepKind::Model {
                begun.first_frame = None;
            }
            journal.put(&[begun]).await;
            seen.extend(read(&mut pages).await);
            // The results of a turn come with its last call.
            if index % 4 == 3 {
                journal.put(&steps[index - 2..=index]).await;
            } else if step.kind == StepKind::Model {
                journal.put(std::slice::from_ref(step)).await;
            }
            seen.extend(read(&mut pages).await);
        }
        assert_eq!(seen, frames);
        assert!(read(&mut pages).await.is_empty());
    }
}
