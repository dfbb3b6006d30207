//! Following one run: its frames, from any point and from any replica.
//!
//! A follower reads what is stored and is woken by news, so it sees exactly the stored sequence, wherever the run works and
//! however often the follower was cut. A timer behind the news finds what a lost piece of news would hide. Frames are not
//! stored as such: steps carry the numbers of theirs, and the frame is made from the step.

use std::{sync::Arc, time::Duration};

use copass_errors::{Error, FieldProblem, Result};
use copass_types::{RunId, SandboxId};
use futures::stream::BoxStream;
use serde_json::Value;

use super::{
    domain::{Run, Step, StepKind, StepState},
    turn::{FrameId, Placed, TurnFrame, Worker, redact, terminal},
};
use crate::store;

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
        loop {
            let changed = news.next();
            let (frames, is_over) = stored(&worker, &sandbox_id, &run_id, place).await?;
            for (id, frame) in frames {
                place = id;
                yield (id, frame);
            }
            if is_over {
                return;
            }
            // Whether it was news or time: look again.
            let _ = tokio::time::timeout(LOOK_INTERVAL, changed).await;
        }
    })
}

/// The stored frames after a place, and whether the run is over.
async fn stored(
    worker: &Worker,
    sandbox_id: &SandboxId,
    run_id: &RunId,
    place: FrameId,
) -> Result<(Vec<Placed>, bool)> {
    let mut conn = worker.db.read().await?;
    // The row first: what it says is over has all its steps.
    let (run, _) = store::runs::find(&mut conn, sandbox_id, run_id)
        .await?
        .ok_or_else(|| Error::not_found("run"))?;
    let steps = store::steps::list_from(&mut conn, sandbox_id, run_id, place.number).await?;
    drop(conn);
    let mut frames = Vec::new();
    let started = TurnFrame::RunStarted { run_id: run.id.clone() };
    frames.push((FrameId::whole(1), started));
    for step in steps {
        frames_of(step, &mut frames);
    }
    frames.sort_by_key(|(id, _)| id.number);
    let mut frames: Vec<Placed> = frames.into_iter().filter_map(|placed| rest(placed, place)).collect();
    let is_over = run.status.is_terminal();
    if is_over {
        // A reader of a lost worker may have seen more than was stored, but not the end.
        let end = end(&run);
        if place != end {
            frames.push((end, terminal(run)));
        }
    }
    Ok((frames, is_over))
}

/// The frames that a step has so far.
fn frames_of(step: Step, frames: &mut Vec<Placed>) {
    let Some(first) = step.first_frame else { return };
    if step.kind == StepKind::Model {
        let text = step.output.as_ref().and_then(|output| output["text"].as_str());
        // Of an answer that failed, what was shown of it.
        let is_over = matches!(step.state, StepState::Done | StepState::Failed);
        if let Some(text) = text.filter(|text| !text.is_empty() && is_over) {
            // As many as the live stream told, secrets included.
            let bytes = step.result_bytes.and_then(|bytes| usize::try_from(bytes).ok());
            let id = FrameId::text(first, bytes.unwrap_or(text.len()));
            frames.push((id, TurnFrame::Text(text.to_owned())));
        }
        return;
    }
    let call_id = step.call_id.unwrap_or_default();
    let name = step.name.unwrap_or_default();
    let arguments = step.arguments.filter(Value::is_object);
    let call = TurnFrame::ToolCall {
        call_id: call_id.clone(),
        name: name.clone(),
        arguments_json: arguments.map_or_else(|| "{}".to_owned(), |arguments| arguments.to_string()),
    };
    frames.push((FrameId::whole(first), call));
    if let Some(last) = step.last_frame {
        let result = step.output.filter(Value::is_object);
        let result = TurnFrame::ToolResult {
            call_id,
            name,
            result_json: result.map_or_else(|| "{}".to_owned(), |result| result.to_string()),
            error: step.error,
        };
        frames.push((FrameId::whole(last), result));
    }
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
