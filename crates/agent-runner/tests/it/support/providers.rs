//! Providers that do what no script can: fail a number of times, panic, remember what they were asked.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use copass_llm::{Error, ErrorKind, EventStream, Provider, Request, StreamEvent};
use tokio::sync::Semaphore;
use tonic::async_trait;

/// Fails a number of times, then plays another provider.
pub(crate) struct Flaky {
    pub(crate) failures: AtomicUsize,
    pub(crate) error: Error,
    pub(crate) after: Arc<dyn Provider>,
    pub(crate) asked: AtomicUsize,
}

impl Flaky {
    pub(crate) fn new(failures: usize, error: Error, after: Arc<dyn Provider>) -> Arc<Self> {
        Arc::new(Self {
            failures: AtomicUsize::new(failures),
            error,
            after,
            asked: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Provider for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }

    async fn stream(&self, request: Request) -> Result<EventStream, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let fails = self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        if fails {
            Err(self.error.clone())
        } else {
            self.after.stream(request).await
        }
    }
}

/// Panics in the middle of a sentence.
pub(crate) struct Panicking;

#[async_trait]
impl Provider for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }

    async fn stream(&self, _: Request) -> Result<EventStream, Error> {
        let mut said = false;
        Ok(Box::pin(futures::stream::poll_fn(move |_| {
            assert!(!said, "expected in this test");
            said = true;
            std::task::Poll::Ready(Some(Ok(StreamEvent::TextDelta("half a".to_owned()))))
        })))
    }
}

/// Streams empty pieces for ever, always ready.
pub(crate) struct Babbling;

#[async_trait]
impl Provider for Babbling {
    fn name(&self) -> &str {
        "babbling"
    }

    async fn stream(&self, _: Request) -> Result<EventStream, Error> {
        Ok(Box::pin(futures::stream::repeat_with(|| {
            Ok(StreamEvent::TextDelta(String::new()))
        })))
    }
}

/// Remembers what it was asked.
pub(crate) struct Recording {
    pub(crate) requests: Mutex<Vec<Request>>,
    pub(crate) inner: Arc<dyn Provider>,
}

impl Recording {
    pub(crate) fn new(inner: Arc<dyn Provider>) -> Arc<Self> {
        Arc::new(Self {
            requests: Mutex::default(),
            inner,
        })
    }

    pub(crate) fn last(&self) -> Request {
        self.requests.lock().unwrap().last().cloned().expect("a request")
    }
}

#[async_trait]
impl Provider for Recording {
    fn name(&self) -> &str {
        "recording"
    }

    async fn stream(&self, request: Request) -> Result<EventStream, Error> {
        self.requests.lock().unwrap().push(request.clone());
        self.inner.stream(request).await
    }
}

pub(crate) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, format!("the provider says {}", kind.as_str()))
}

/// Plays another provider, but never answers from one of its requests on: a worker that stands still there.
pub(crate) struct StandsStill {
    inner: Arc<dyn Provider>,
    at: usize,
    asked: AtomicUsize,
}

impl StandsStill {
    /// Stands still at this request, counted from 1.
    pub(crate) fn at(at: usize, inner: Arc<dyn Provider>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            at,
            asked: AtomicUsize::new(0),
        })
    }

    /// Whether it stands.
    pub(crate) fn is_reached(&self) -> bool {
        self.asked.load(Ordering::SeqCst) >= self.at
    }
}

#[async_trait]
impl Provider for StandsStill {
    fn name(&self) -> &str {
        "stands_still"
    }

    async fn stream(&self, request: Request) -> Result<EventStream, Error> {
        if self.asked.fetch_add(1, Ordering::SeqCst) + 1 >= self.at {
            std::future::pending::<()>().await;
        }
        self.inner.stream(request).await
    }
}

/// Plays another provider, each answer for a permit of the gate.
pub(crate) struct Gated {
    pub(crate) gate: Semaphore,
    inner: Arc<dyn Provider>,
}

impl Gated {
    pub(crate) fn new(inner: Arc<dyn Provider>) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            inner,
        })
    }
}

#[async_trait]
impl Provider for Gated {
    fn name(&self) -> &str {
        "gated"
    }

    async fn stream(&self, request: Request) -> Result<EventStream, Error> {
        self.gate.acquire().await.expect("an open gate").forget();
        self.inner.stream(request).await
    }
}

/// Says what it is told to, one list for each request; behind a list that has no end it is silent for ever.
pub(crate) struct Told {
    lists: Mutex<std::collections::VecDeque<Vec<Result<StreamEvent, Error>>>>,
    is_silent: Arc<AtomicBool>,
}

impl Told {
    /// Whether somebody has heard a whole list and waits for more.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::SeqCst)
    }

    pub(crate) fn new(lists: impl IntoIterator<Item = Vec<Result<StreamEvent, Error>>>) -> Arc<Self> {
        Arc::new(Self {
            lists: Mutex::new(lists.into_iter().collect()),
            is_silent: Arc::default(),
        })
    }
}

#[async_trait]
impl Provider for Told {
    fn name(&self) -> &str {
        "told"
    }

    async fn stream(&self, _: Request) -> Result<EventStream, Error> {
        let list = self.lists.lock().unwrap().pop_front().expect("a list");
        let is_silent = self.is_silent.clone();
        let silence = futures::stream::poll_fn(move |_| {
            is_silent.store(true, Ordering::SeqCst);
            std::task::Poll::Pending
        });
        Ok(Box::pin(futures::StreamExt::chain(
            futures::stream::iter(list),
            silence,
        )))
    }
}
