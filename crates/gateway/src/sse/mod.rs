//! Server-Sent Events (`sse.md`): what is written, when, and how a stream ends.
//!
//! Three promises are kept here and nowhere else: a stream ends the way its kind says, whatever happens behind it
//! ([`turn`]: with exactly one terminal frame; [`follow`]: with a comment, because its reader comes again); events that
//! wait are written together, because a write costs more than an event; and when the client goes, the body is dropped,
//! with it the gRPC stream, which cancels a run that was started by this stream.
//!
//! A stream that waits holds no buffer and one timer, which is moved when it fires and not when something is written.

mod follow;
mod turn;

use std::{
    convert::Infallible,
    mem,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use copass_errors::Error;
use futures::{Stream, future::BoxFuture};
use http::{HeaderValue, header};
use serde::Serialize;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

pub(crate) use follow::{RunChanges, RunFrames};
pub(crate) use turn::{Turn, broken_stream, error_frame};

/// Events are written together up to this size.
const CHUNK_BYTES: usize = 16 * 1024;
/// Room for a few tokens; a chunk grows from here.
const FIRST_BYTES: usize = 512;
const PING: &[u8] = b": ping\n\n";

/// How one kind of stream is written.
pub(crate) trait Writer {
    /// What comes from the service.
    type Item;
    /// Written at once: a reader, and a proxy between, sees that the stream is open although nothing has happened.
    const OPENING: &'static [u8] = b"";

    /// Writes an item; whether the stream ends with it.
    fn write(&mut self, item: Self::Item, buffer: &mut BytesMut) -> bool;

    /// Writes the last words of a stream that did not come to its end.
    fn break_off(&mut self, why: Break, buffer: &mut BytesMut);
}

/// Why a stream did not come to its end.
pub(crate) enum Break {
    /// The service ended it.
    Ended,
    /// The service failed.
    Failed(Error),
    /// The server stops.
    Stopping,
    /// The caller has no access any longer.
    AccessEnded,
}

/// What makes an answer of a stream.
pub(crate) struct Events<S, W: Writer> {
    /// From the service.
    pub(crate) source: S,
    /// What has come of it already.
    pub(crate) first: Option<W::Item>,
    pub(crate) writer: W,
    /// Longest silence.
    pub(crate) keep_alive: Duration,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
    /// Ends when the caller's access ends; absent where the service behind the stream looks itself.
    pub(crate) access_ended: Option<BoxFuture<'static, ()>>,
}

impl<S, W> Events<S, W>
where
    W: Writer + Send + Unpin + 'static,
    W::Item: Send + Unpin + 'static,
    S: Stream<Item = Result<W::Item, Status>> + Send + Unpin + 'static,
{
    /// The answer.
    pub(crate) fn into_response(self) -> Response {
        let body = EventBody {
            source: Some(self.source),
            first: self.first,
            writer: self.writer,
            keep_alive: self.keep_alive,
            last_write: Instant::now(),
            silence: Box::pin(tokio::time::sleep(self.keep_alive)),
            stop: Box::pin(self.stop.cancelled_owned()),
            access_ended: self.access_ended,
            buffer: BytesMut::from(W::OPENING),
            _open: Open::new(),
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (
                header::HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ),
        ];
        (headers, Body::from_stream(body)).into_response()
    }
}

/// Counts open streams.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::gauge!("copass_gateway_open_streams").increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("copass_gateway_open_streams").decrement(1);
    }
}

struct EventBody<S, W: Writer> {
    /// Gone after the last event.
    source: Option<S>,
    first: Option<W::Item>,
    writer: W,
    keep_alive: Duration,
    last_write: Instant,
    silence: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    access_ended: Option<BoxFuture<'static, ()>>,
    /// Given away with each write, so that a stream that waits holds nothing.
    buffer: BytesMut,
    _open: Open,
}

impl<S, W> Stream for EventBody<S, W>
where
    W: Writer + Unpin,
    W::Item: Unpin,
    S: Stream<Item = Result<W::Item, Status>> + Unpin,
{
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while this.source.is_some() && this.buffer.len() < CHUNK_BYTES {
            match this.poll_source(context) {
                Poll::Ready(Ok(item)) => this.write(item),
                Poll::Ready(Err(why)) => this.break_off(why),
                Poll::Pending => break,
            }
        }
        // Looked at before waiting, and between the chunks of a stream that never waits.
        let is_between = this.buffer.is_empty() || this.buffer.len() >= CHUNK_BYTES;
        if is_between
            && this.source.is_some()
            && let Some(why) = this.poll_outside(context)
        {
            this.break_off(why);
        }
        if !this.buffer.is_empty() {
            this.last_write = Instant::now();
            return Poll::Ready(Some(Ok(mem::take(&mut this.buffer).freeze())));
        }
        if this.source.is_none() {
            return Poll::Ready(None);
        }
        loop {
            ready!(this.silence.as_mut().poll(context));
            let now = Instant::now();
            let due = this.last_write + this.keep_alive;
            if due <= now {
                this.last_write = now;
                this.silence.as_mut().reset(now + this.keep_alive);
                return Poll::Ready(Some(Ok(Bytes::from_static(PING))));
            }
            this.silence.as_mut().reset(due);
        }
    }
}

impl<S, W> EventBody<S, W>
where
    W: Writer,
    S: Stream<Item = Result<W::Item, Status>> + Unpin,
{
    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Result<W::Item, Break>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        let Some(source) = self.source.as_mut() else {
            return Poll::Pending;
        };
        // A local stream runs the service's code right here; its panic must not cut the connection without a word.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(source).poll_next(context))).unwrap_or_else(
            |panic| {
                tracing::error!(
                    panic = copass_runtime::tasks::panic_text(panic.as_ref()),
                    "stream panicked"
                );
                Poll::Ready(None)
            },
        );
        polled.map(|next| match next {
            Some(Ok(item)) => Ok(item),
            Some(Err(status)) => Err(Break::Failed(status.into())),
            None => Err(Break::Ended),
        })
    }

    /// Why the stream must end although the service goes on.
    fn poll_outside(&mut self, context: &mut Context<'_>) -> Option<Break> {
        if self.stop.as_mut().poll(context).is_ready() {
            return Some(Break::Stopping);
        }
        let access_ended = self.access_ended.as_mut()?.as_mut();
        access_ended.poll(context).is_ready().then_some(Break::AccessEnded)
    }

    fn write(&mut self, item: W::Item) {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(FIRST_BYTES);
        }
        if self.writer.write(item, &mut self.buffer) {
            self.source = None;
        }
    }

    fn break_off(&mut self, why: Break) {
        self.writer.break_off(why, &mut self.buffer);
        self.source = None;
    }
}

/// Writes one event; an empty id is left out.
fn write_event(buffer: &mut BytesMut, id: &str, event: &str, data: &impl Serialize) {
    if !id.is_empty() {
        for part in ["id: ", id, "\n"] {
            buffer.extend_from_slice(part.as_bytes());
        }
    }
    for part in ["event: ", event, "\ndata: "] {
        buffer.extend_from_slice(part.as_bytes());
    }
    // Writing into memory cannot fail, and JSON of strings and maps of strings cannot either.
    let _ = serde_json::to_writer(buffer.writer(), data);
    buffer.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    /// Writes numbers; 0 is the last one.
    struct Numbers;

    impl Writer for Numbers {
        type Item = u32;

        fn write(&mut self, item: u32, buffer: &mut BytesMut) -> bool {
            write_event(buffer, &item.to_string(), "n", &item);
            item == 0
        }

        fn break_off(&mut self, _: Break, buffer: &mut BytesMut) {
            buffer.extend_from_slice(b": broken\n\n");
        }
    }

    fn body<S>(source: S) -> EventBody<S, Numbers> {
        EventBody {
            source: Some(source),
            first: None,
            writer: Numbers,
            keep_alive: Duration::from_secs(10),
            last_write: Instant::now(),
            silence: Box::pin(tokio::time::sleep(Duration::from_secs(10))),
            stop: Box::pin(CancellationToken::new().cancelled_owned()),
            access_ended: None,
            buffer: BytesMut::new(),
            _open: Open::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_leaves_in_one_write_and_a_stream_that_waits_holds_no_buffer() {
        let source = stream::iter((1..=50).map(Ok)).chain(stream::pending());
        let mut body = body(source);
        let chunk = body.next().await.unwrap().unwrap();
        assert_eq!(
            chunk.iter().filter(|byte| **byte == b'v').count(),
            50,
            "one write of 50 events"
        );
        assert_eq!(body.next().await.unwrap().unwrap(), PING);
        assert_eq!(body.buffer.capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_write() {
        let began = Instant::now();
        let late = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            Ok(1)
        };
        let mut body = body(stream::once(Box::pin(late)).chain(stream::pending()));
        assert!(body.next().await.unwrap().unwrap().starts_with(b"id: 1\n"));
        assert_eq!(body.next().await.unwrap().unwrap(), PING);
        assert_eq!(began.elapsed().as_secs(), 17);
        assert_eq!(body.next().await.unwrap().unwrap(), PING);
        assert_eq!(began.elapsed().as_secs(), 27);
    }

    #[tokio::test]
    async fn nothing_follows_the_end_and_a_chunk_is_bounded() {
        let source = stream::iter((0..10_000).rev().map(Ok).chain([Ok(7)]));
        let chunks: Vec<_> = body(source).map(Result::unwrap).collect().await;
        assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 100));
        assert!(chunks.last().unwrap().ends_with(b"id: 0\nevent: n\ndata: 0\n\n"));
    }

    #[tokio::test]
    async fn access_that_ends_breaks_the_stream_off() {
        let mut body = body(stream::pending::<Result<u32, Status>>());
        body.access_ended = Some(Box::pin(std::future::ready(())));
        assert_eq!(body.next().await.unwrap().unwrap(), ": broken\n\n");
        assert!(body.next().await.is_none());
    }
}
