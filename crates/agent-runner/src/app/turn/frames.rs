//! The frames of one run on their way to its reader.
//!
//! A queue of our own instead of a channel, for three reasons: text that waits is joined, so a reader that keeps up sees
//! the model's own pieces, and one that is behind costs one frame and not a thousand; the bound is in bytes, because a
//! frame may be three bytes or a megabyte; and how long frames have waited is known, so that a reader that takes none is
//! noticed even while the model says nothing.
//!
//! Dropping the reading side tells the run to stop (`design.md` 12.4). Dropping the writing side without a terminal
//! frame, which only a defect does, gives the reader one: no stream ends without.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use copass_types::RunId;
use futures::{Stream, task::AtomicWaker};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::app::{
    active::{Stop, StopCause},
    domain::{ErrorType, Run},
};

const MAX_WAITING_BYTES: usize = 256 * 1024;
const MAX_WAITING_FRAMES: usize = 256;
const MAX_JOINED_BYTES: usize = 32 * 1024;
/// What a frame costs besides its text.
const FRAME_BYTES: usize = 128;

/// One frame, as `sse.md` 3 names them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    RunStarted {
        run_id: RunId,
    },
    Text(String),
    ToolCall {
        call_id: String,
        name: String,
        arguments_json: String,
    },
    ToolResult {
        call_id: String,
        name: String,
        result_json: String,
        error: Option<String>,
    },
    Finished(Box<Finished>),
    Failed(Box<Failed>),
}

/// A frame's place in its run's sequence (`RunFrame.id`): its number, and for a piece of a text how many bytes of that
/// text there are with this piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FrameId {
    pub(crate) number: i64,
    pub(crate) bytes: Option<usize>,
}

impl FrameId {
    pub(crate) fn whole(number: i64) -> Self {
        Self { number, bytes: None }
    }

    pub(crate) fn text(number: i64, bytes: usize) -> Self {
        Self {
            number,
            bytes: Some(bytes),
        }
    }

    /// The id in its wire form; `None` when it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        match text.split_once('.') {
            None => number(text).map(Self::whole),
            Some((first, second)) => Some(Self::text(number(first)?, second.parse().ok()?)),
        }
    }
}

impl std::fmt::Display for FrameId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.bytes {
            None => write!(formatter, "{}", self.number),
            Some(bytes) => write!(formatter, "{}.{bytes}", self.number),
        }
    }
}

/// A frame in its place.
pub(crate) type Placed = (FrameId, Frame);

/// The terminal frame of a run that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finished {
    pub(crate) stop_reason: String,
    pub(crate) usage_json: String,
    pub(crate) run: Run,
}

/// The terminal frame of a run that did not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failed {
    pub(crate) message: String,
    pub(crate) kind: ErrorType,
    pub(crate) run_id: Option<RunId>,
    /// The final row; absent where it could not be written.
    pub(crate) run: Option<Run>,
}

impl Frame {
    fn bytes(&self) -> usize {
        FRAME_BYTES
            + match self {
                Self::Text(text) => text.len(),
                Self::ToolCall { arguments_json, .. } => arguments_json.len(),
                Self::ToolResult { result_json, .. } => result_json.len(),
                Self::RunStarted { .. } | Self::Finished(_) | Self::Failed(_) => 0,
            }
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Placed>,
    bytes: usize,
    /// Since when the reader has taken nothing although something waits.
    waiting_since: Option<Instant>,
    run_id: Option<RunId>,
    is_ended: bool,
    is_reader_gone: bool,
}

impl State {
    fn has_room(&self) -> bool {
        self.waiting.is_empty() || (self.bytes < MAX_WAITING_BYTES && self.waiting.len() < MAX_WAITING_FRAMES)
    }

    fn push(&mut self, id: FrameId, frame: Frame) {
        if self.is_reader_gone {
            return;
        }
        self.waiting_since.get_or_insert_with(Instant::now);
        if let Frame::Text(text) = &frame
            && let Some((last_id, Frame::Text(last))) = self.waiting.back_mut()
            && last_id.number == id.number
            && last.len() + text.len() <= MAX_JOINED_BYTES
        {
            last.push_str(text);
            *last_id = id;
            self.bytes += text.len();
            return;
        }
        self.bytes += frame.bytes();
        self.waiting.push_back((id, frame));
    }

    fn pop(&mut self) -> Option<Placed> {
        let placed = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(placed.1.bytes());
        self.waiting_since = (!self.waiting.is_empty()).then(Instant::now);
        Some(placed)
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    reader: AtomicWaker,
    room: Notify,
}

/// The writing side of a run that nobody reads: frames go nowhere, the journal has them.
pub(crate) fn nowhere() -> FrameSink {
    let shared = Arc::new(Shared::default());
    shared.state.lock().is_reader_gone = true;
    FrameSink { shared }
}

/// A queue for one run; `stop` is told when the reader goes away.
pub(crate) fn queue(stop: Stop) -> (FrameSink, FrameStream) {
    let shared = Arc::new(Shared::default());
    (FrameSink { shared: shared.clone() }, FrameStream { shared, stop })
}

/// The writing side: the run.
#[derive(Debug)]
pub(crate) struct FrameSink {
    shared: Arc<Shared>,
}

impl FrameSink {
    /// Adds a frame; waits while too much waits already. Frames for a reader that is gone are thrown away.
    pub(crate) async fn send(&self, id: FrameId, frame: Frame) {
        loop {
            let room = self.shared.room.notified();
            {
                let mut state = self.shared.state.lock();
                if state.has_room() || state.is_reader_gone {
                    if let Frame::RunStarted { run_id } = &frame {
                        state.run_id = Some(run_id.clone());
                    }
                    state.push(id, frame);
                    break;
                }
            }
            room.await;
        }
        self.shared.reader.wake();
    }

    /// Adds the terminal frame, for which there is always room, and ends the stream.
    pub(crate) fn end(self, id: FrameId, frame: Frame) {
        self.end_with(|_| (id, frame));
    }

    /// Watches for a reader that takes no frames.
    pub(crate) fn watch(&self) -> ReaderWatch {
        ReaderWatch {
            shared: self.shared.clone(),
        }
    }

    fn end_with(&self, frame: impl FnOnce(Option<RunId>) -> Placed) {
        let mut state = self.shared.state.lock();
        if !state.is_ended {
            state.is_ended = true;
            let (id, frame) = frame(state.run_id.clone());
            state.push(id, frame);
        }
        drop(state);
        self.shared.reader.wake();
    }
}

impl Drop for FrameSink {
    fn drop(&mut self) {
        self.end_with(|run_id| {
            let message = "the run ended in an unexpected way; its row tells how".to_owned();
            let failed = Frame::Failed(Box::new(Failed {
                message,
                kind: ErrorType::Internal,
                run_id,
                run: None,
            }));
            // Nothing is stored of this frame, so a later follow begins at its start.
            (FrameId::whole(0), failed)
        });
    }
}

/// Knows how long frames have waited.
#[derive(Debug)]
pub(crate) struct ReaderWatch {
    shared: Arc<Shared>,
}

impl ReaderWatch {
    /// Returns when the reader has taken nothing for `limit` although something waits.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let since = self.shared.state.lock().waiting_since;
            match since {
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => tokio::time::sleep_until(since + limit).await,
                None => tokio::time::sleep(limit / 4).await,
            }
        }
    }
}

/// The reading side: the response stream. Dropping it before the end cancels the run.
#[derive(Debug)]
pub(crate) struct FrameStream {
    shared: Arc<Shared>,
    stop: Stop,
}

impl Stream for FrameStream {
    type Item = Placed;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Placed>> {
        self.shared.reader.register(context.waker());
        let mut state = self.shared.state.lock();
        if let Some(placed) = state.pop() {
            drop(state);
            self.shared.room.notify_waiters();
            return Poll::Ready(Some(placed));
        }
        if state.is_ended {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}

impl Drop for FrameStream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_reader_gone = true;
        state.waiting.clear();
        state.waiting_since = None;
        drop(state);
        self.stop.stop(StopCause::ClientGone);
        self.shared.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    fn text(text: &str) -> Frame {
        Frame::Text(text.to_owned())
    }

    fn id(bytes: usize) -> FrameId {
        FrameId::text(2, bytes)
    }

    async fn rest(stream: FrameStream) -> Vec<Frame> {
        stream.map(|(_, frame)| frame).collect().await
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for id in [FrameId::whole(7), FrameId::text(7, 0), FrameId::text(7, 12)] {
            assert_eq!(FrameId::parse(&id.to_string()), Some(id));
        }
        for text in ["", "x", "1.", ".1", "-1", "1.2.3", "1.-1", "99999999999999999999"] {
            assert_eq!(FrameId::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_keeps_up_sees_every_piece_and_a_late_one_all_the_text() {
        let (sink, mut stream) = queue(Stop::default());
        for number in 0..3 {
            sink.send(id(0), text(&number.to_string())).await;
            assert_eq!(stream.next().await.unwrap().1, text(&number.to_string()));
        }
        for number in 0..1000 {
            sink.send(id(0), text(&format!("{number} "))).await;
        }
        drop(sink);
        let frames = rest(stream).await;
        assert!(frames.len() < 20, "{}", frames.len());
        let joined: String = frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(joined, (0..1000).map(|number| format!("{number} ")).collect::<String>());
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_run_wait_and_the_reader_let_it_go_on() {
        let (sink, mut stream) = queue(Stop::default());
        let big = "x".repeat(MAX_WAITING_BYTES);
        sink.send(id(0), text(&big)).await;
        let waiting = tokio::time::timeout(Duration::from_millis(20), sink.send(id(0), text("more"))).await;
        assert!(waiting.is_err());
        let (taken, ()) = tokio::join!(stream.next(), sink.send(id(0), text("more")));
        assert_eq!(taken.unwrap().1, text(&big));
        assert_eq!(stream.next().await.unwrap().1, text("more"));
    }

    #[tokio::test]
    async fn a_reader_that_leaves_stops_the_run_and_frees_what_waits() {
        let stop = Stop::default();
        let (sink, stream) = queue(stop.clone());
        sink.send(id(0), text(&"x".repeat(MAX_WAITING_BYTES))).await;
        drop(stream);
        assert_eq!(stop.stopped().await, StopCause::ClientGone);
        sink.send(id(0), text("nobody reads this")).await;
    }

    #[tokio::test]
    async fn no_stream_ends_without_a_terminal_frame() {
        let (sink, stream) = queue(Stop::default());
        let run_id = RunId::generate();
        sink.send(FrameId::whole(1), Frame::RunStarted { run_id: run_id.clone() })
            .await;
        drop(sink);
        let frames = rest(stream).await;
        assert!(matches!(&frames[1], Frame::Failed(failed) if failed.run_id == Some(run_id)));
        assert_eq!(frames.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_noticed() {
        let (sink, mut stream) = queue(Stop::default());
        let watch = sink.watch();
        let limit = Duration::from_secs(30);
        let idle = tokio::time::timeout(limit * 10, watch.stalled(limit)).await;
        assert!(idle.is_err(), "nothing waits, so nobody is slow");
        for number in 0..4 {
            // Of different steps, so that each is a frame.
            for number in [2 * number, 2 * number + 1] {
                sink.send(FrameId::text(number, 1), text("x")).await;
            }
            let slow = tokio::time::timeout(limit / 2, watch.stalled(limit)).await;
            assert!(slow.is_err(), "it takes one now and then");
            stream.next().await;
        }
        let began = Instant::now();
        watch.stalled(limit).await;
        assert!(began.elapsed() <= limit);
    }
}
