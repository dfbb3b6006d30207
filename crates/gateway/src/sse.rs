//! A run as Server-Sent Events (`sse.md`).
//!
//! Three promises are kept here and nowhere else: the stream ends with exactly one terminal frame, whatever happens
//! behind it; frames that wait are written together, because a write costs more than a frame; and when the client
//! goes, the body is dropped, with it the gRPC stream, and that cancels the run.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use copass_errors::{Error, ErrorCode};
use copass_proto::run::RunFrame;
use copass_types::api::{Frame, concierge::StreamError};
use futures::Stream;
use http::{HeaderValue, header};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::views;

/// Frames are written together up to this size.
const CHUNK_BYTES: usize = 16 * 1024;
const PING: &[u8] = b": ping\n\n";

/// The answer of a stream whose first frame has come.
pub(crate) fn response<S>(first: RunFrame, rest: S, keep_alive: Duration, stop: CancellationToken) -> Response
where
    S: Stream<Item = Result<RunFrame, Status>> + Send + Unpin + 'static,
{
    let frames = Frames {
        source: Some(rest),
        first: Some(first),
        next_id: 1,
        run_id: None,
        keep_alive,
        silence: Box::pin(tokio::time::sleep(keep_alive)),
        stop: Box::pin(stop.cancelled_owned()),
        buffer: BytesMut::new(),
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
    (headers, Body::from_stream(frames)).into_response()
}

/// The terminal frame for an error that came after the stream began.
pub(crate) fn error_frame(error: &Error, run_id: Option<String>) -> StreamError {
    let kind = match error.code() {
        ErrorCode::DeadlineExceeded => "Timeout",
        ErrorCode::Cancelled => "Cancelled",
        ErrorCode::InsufficientCredits => "InsufficientCredits",
        ErrorCode::ProviderError | ErrorCode::ProviderNotConfigured => "ProviderError",
        _ => "InternalError",
    };
    StreamError {
        message: error.detail().to_owned(),
        kind: kind.to_owned(),
        run_id,
    }
}

/// The error of a stream that ended without a terminal frame.
pub(crate) fn broken_stream() -> Error {
    Error::internal("the run's stream ended without a terminal frame")
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

struct Frames<S> {
    /// Gone after the terminal frame.
    source: Option<S>,
    first: Option<RunFrame>,
    next_id: u64,
    run_id: Option<String>,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    buffer: BytesMut,
    _open: Open,
}

impl<S> Stream for Frames<S>
where
    S: Stream<Item = Result<RunFrame, Status>> + Unpin,
{
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while this.source.is_some() && this.buffer.len() < CHUNK_BYTES {
            match this.poll_source(context) {
                Poll::Ready(Ok(frame)) => this.take(frame),
                Poll::Ready(Err(error)) => this.end(&error),
                Poll::Pending => break,
            }
        }
        if this.source.is_some() && this.stop.as_mut().poll(context).is_ready() {
            let detail = "the server is shutting down and the run was cancelled; ask again in a moment";
            this.end(&Error::new(ErrorCode::Cancelled, detail));
        }
        if !this.buffer.is_empty() {
            this.silence.as_mut().reset(Instant::now() + this.keep_alive);
            return Poll::Ready(Some(Ok(this.buffer.split().freeze())));
        }
        if this.source.is_none() {
            return Poll::Ready(None);
        }
        if this.silence.as_mut().poll(context).is_ready() {
            this.silence.as_mut().reset(Instant::now() + this.keep_alive);
            return Poll::Ready(Some(Ok(Bytes::from_static(PING))));
        }
        Poll::Pending
    }
}

impl<S> Frames<S>
where
    S: Stream<Item = Result<RunFrame, Status>> + Unpin,
{
    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Result<RunFrame, Error>> {
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
            Some(Ok(frame)) => Ok(frame),
            Some(Err(status)) => Err(status.into()),
            None => Err(broken_stream()),
        })
    }

    /// Writes one frame; frames of a kind this version does not know are left out.
    fn take(&mut self, frame: RunFrame) {
        let Some(frame) = views::runs::frame(frame) else { return };
        if let Frame::RunStarted(started) = &frame {
            self.run_id = Some(started.run_id.clone());
        }
        self.write(&frame);
        if frame.is_terminal() {
            self.source = None;
        }
    }

    fn end(&mut self, error: &Error) {
        if error.code() != ErrorCode::Cancelled {
            tracing::error!(
                run.id = self.run_id,
                code = error.code().as_str(),
                cause = error.cause_chain(),
                "stream broke"
            );
        }
        self.write(&Frame::Error(error_frame(error, self.run_id.clone())));
        self.source = None;
    }

    fn write(&mut self, frame: &Frame) {
        let id = self.next_id;
        self.next_id += 1;
        let mut writer = (&mut self.buffer).writer();
        // Writing into memory cannot fail, and JSON of strings and maps of strings cannot either.
        let _ = std::io::Write::write_fmt(&mut writer, format_args!("id: {id}\nevent: {}\ndata: ", frame.event()));
        let _ = serde_json::to_writer(writer, frame);
        self.buffer.extend_from_slice(b"\n\n");
    }
}
