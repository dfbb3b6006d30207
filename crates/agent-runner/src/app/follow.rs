//! Following one run: its frames, from any point and from any replica.
//!
//! A follower reads what is stored and is woken by news, so it sees exactly the stored sequence, wherever the run works and
//! however often the follower was cut. A timer behind the news finds what a lost piece of news would hide. Frames are not
//! stored as such: steps carry the numbers of theirs, and the frame is made from the step. They are read some at a time
//! (`journal_pages`), because a journal may be a thousand times as long as what one reader may cost.

use std::{sync::Arc, time::Duration};

use copass_errors::{Error, FieldProblem, Result};
use copass_types::{RunId, SandboxId};
use futures::stream::BoxStream;
use serde_json::Value;

use super::{
    domain::{Run, RunStatus},
    journal_pages::JournalPages,
    turn::{FrameId, Placed, TurnFrame, Worker, redact, terminal},
};
use crate::store::{
    self,
    frames::{Content, StoredFrame},
};

/// News may be lost between replicas; the database is looked at this often.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Reads where a follower wants to go on.
pub(crate) fn position(after: Option<&str>) -> Result<Option<FrameId>> {
    after
        .map(|text| {
            FrameId::parse(text).ok_or_else(|| bad_position("must be the id of a frame, for example 12 or 12.340"))
        })
        .transpose()
}

fn bad_position(message: &str) -> Error {
    Error::invalid(vec![FieldProblem::query("after", message)])
}

/// Whether whoever has `after` has everything there will be.
pub(crate) fn is_complete(run: &Run, after: Option<FrameId>) -> bool {
    run.status.is_terminal() && after == Some(end(run))
}

/// The id of the terminal frame of a run that is over.
fn end(run: &Run) -> FrameId {
    FrameId::whole(run.last_frame.unwrap_or(i64::MAX))
}

/// The frames of a run after `after`, up to the terminal one. Rights have been checked.
pub(crate) fn run_frames(
    worker: Arc<Worker>,
    sandbox_id: SandboxId,
    run_id: RunId,
    after: Option<FrameId>,
) -> BoxStream<'static, Result<Placed>> {
    Box::pin(async_stream::try_stream! {
        let news = worker.news.subscribe(run_id.as_str());
        let mut place = after.unwrap_or(FrameId::whole(0));
        let mut pages = JournalPages::new(worker.db.clone(), sandbox_id.clone(), run_id.clone(), place.number);
        loop {
            let changed = news.next();
            // The row first: what it says is over has all its steps.
            let status = status(&worker, &sandbox_id, &run_id).await?;
            let started = (FrameId::whole(1), TurnFrame::RunStarted { run_id: run_id.clone() });
            if let Some((id, frame)) = rest(started, place) {
                place = id;
                yield (id, frame);
            }
            while let Some(page) = pages.next().await? {
                for stored in page {
                    if let Some((id, frame)) = frame(stored)?.and_then(|placed| rest(placed, place)) {
                        place = id;
                        yield (id, frame);
                    }
                }
            }
            if status.is_terminal() {
                // A reader of a lost worker may have seen more than was stored, but not the end.
                let run = whole(&worker, &sandbox_id, &run_id).await?;
                let end = end(&run);
                if place != end {
                    yield (end, terminal(run));
                }
                return;
            }
            // Whether it was news or time: look again.
            let _ = tokio::time::timeout(LOOK_INTERVAL, changed).await;
        }
    })
}

async fn status(worker: &Worker, sandbox_id: &SandboxId, run_id: &RunId) -> Result<RunStatus> {
    let mut conn = worker.db.read().await?;
    let status = store::runs::status(&mut conn, sandbox_id, run_id).await?;
    status.ok_or_else(|| Error::not_found("run"))
}

async fn whole(worker: &Worker, sandbox_id: &SandboxId, run_id: &RunId) -> Result<Run> {
    let mut conn = worker.db.read().await?;
    let found = store::runs::find(&mut conn, sandbox_id, run_id).await?;
    found.map(|(run, _)| run).ok_or_else(|| Error::not_found("run"))
}

/// The frame as it is told; `None` for a text that is empty.
fn frame(stored: StoredFrame) -> Result<Option<Placed>> {
    let number = stored.number;
    Ok(match stored.content {
        Content::Text { text, .. } if text.is_empty() => None,
        Content::Text { text, told_bytes } => {
            // As many as the live stream told, secrets included.
            let bytes = told_bytes.and_then(|bytes| usize::try_from(bytes).ok());
            let id = FrameId::text(number, bytes.unwrap_or(text.len()));
            Some((id, TurnFrame::Text(text)))
        }
        Content::Call {
            call_id,
            name,
            arguments,
        } => {
            let call = TurnFrame::ToolCall {
                call_id,
                name,
                arguments_json: object(arguments.as_deref())?,
            };
            Some((FrameId::whole(number), call))
        }
        Content::Result {
            call_id,
            name,
            result,
            error,
        } => {
            let result = TurnFrame::ToolResult {
                call_id,
                name,
                result_json: object(result.as_deref())?,
                error,
            };
            Some((FrameId::whole(number), result))
        }
    })
}

/// The object as this service writes JSON; an empty one in place of everything that is none.
fn object(stored: Option<&str>) -> Result<String> {
    let value: Option<Value> = stored.map(serde_json::from_str).transpose().map_err(Error::internal)?;
    let object = value.filter(Value::is_object);
    Ok(object.map_or_else(|| "{}".to_owned(), |object| object.to_string()))
}

/// What a follower at `place` has not seen of a frame.
fn rest((id, frame): Placed, place: FrameId) -> Option<Placed> {
    if id.number > place.number {
        return Some((id, frame));
    }
    let seen = place.bytes.filter(|_| id.number == place.number)?;
    match frame {
        // The live stream told a beginning of the same text.
        TurnFrame::Text(text) => {
            let rest = redact::rest_of(&text, id.bytes.unwrap_or(text.len()), seen);
            (!rest.is_empty()).then(|| (id, TurnFrame::Text(rest.to_owned())))
        }
        _ => None,
    }
}
