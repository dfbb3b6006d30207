//! Answers that end when the server does: a stream that is still open then gets a status instead of a cut connection,
//! and does not keep the process until the grace limit.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use copass_errors::{Error, ErrorCode};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

/// The body of an answer, until `stop`.
pub(crate) struct EndingBody {
    /// Gone after the end; dropping it tells the handler that nobody listens.
    inner: Option<Body>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl EndingBody {
    pub(crate) fn new(inner: Body, stop: CancellationToken) -> Self {
        Self {
            inner: Some(inner),
            stop: Box::pin(stop.cancelled_owned()),
        }
    }
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else {
            return Poll::Ready(None);
        };
        // What is ready goes out first, so an answer that is complete stays complete.
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if this.stop.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.inner = None;
        let detail = "the server is shutting down; ask again in a moment";
        let mut trailers = HeaderMap::new();
        Status::from(Error::new(ErrorCode::Cancelled, detail)).add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body as _;

    use super::*;

    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    #[test]
    fn an_open_stream_ends_with_a_status_when_the_server_stops() {
        let stop = CancellationToken::new();
        let mut body = EndingBody::new(Body::new(Silent), stop.clone());
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        stop.cancel();
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
            panic!("no end")
        };
        let trailers = frame.into_trailers().unwrap();
        assert_eq!(
            Status::from_header_map(&trailers).unwrap().code(),
            tonic::Code::Cancelled
        );
        assert!(body.is_end_stream());
        assert!(matches!(
            Pin::new(&mut body).poll_frame(&mut context),
            Poll::Ready(None)
        ));
    }

    #[test]
    fn a_complete_answer_stays_complete() {
        let stop = CancellationToken::new();
        stop.cancel();
        let mut body = EndingBody::new(Body::empty(), stop);
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(
            Pin::new(&mut body).poll_frame(&mut context),
            Poll::Ready(None)
        ));
    }
}
