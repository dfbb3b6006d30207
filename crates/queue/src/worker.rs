//! The loop of a consumer: receive, handle, decide.
//!
//! Every service consumes in the same way, so the parts that are easy to get wrong are here once: a failure that passes
//! is retried later and later, one that never passes becomes a dead letter at once, a panic harms only its own message,
//! and a stop finishes what is in hand. The handler's effect must be durable when it returns, because the message is
//! acknowledged then; its inbox makes a second delivery harmless.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use copass_errors::ErrorCode;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{Consumer, Delivery, Error, Message, Queue, QueueName};

/// With the default policy of ten attempts a message is tried for about half an hour before it is a dead letter: longer
/// than a database is away when it restarts or fails over.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(900);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Where work is short, places come and go; a consumer is left for good only when there was none for so long. Leaving one
/// and beginning another costs the broker more than a message, and what goes back counts as tried.
const KEPT_WITHOUT_PLACE: Duration = Duration::from_millis(100);

/// Why a message could not be handled, sorted by what happens to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// May work later: delivered again after a growing delay, until the queue's policy gives up.
    #[error("{0}")]
    Retry(String),
    /// Can never work: a dead letter at once.
    #[error("{0}")]
    Poison(String),
}

impl From<copass_errors::Error> for HandlerError {
    /// Failures of the surroundings pass; failures of the message do not.
    fn from(error: copass_errors::Error) -> Self {
        let reason = match error.cause_chain() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match error.code() {
            ErrorCode::Unavailable
            | ErrorCode::InternalError
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Cancelled
            | ErrorCode::RateLimited => Self::Retry(reason),
            _ => Self::Poison(reason),
        }
    }
}

/// Handles the messages of a queue, up to `prefetch` at once, until `stop` is cancelled or the queue is closed; what is
/// in hand then is finished first.
///
/// `Ok` acknowledges. A panic counts as [`HandlerError::Retry`]. While the broker is away the worker waits for it.
pub async fn run<H, Fut>(queue: Arc<dyn Queue>, name: QueueName, prefetch: u16, stop: CancellationToken, handler: H)
where
    H: Fn(Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    let prefetch = prefetch.max(1);
    let mut in_hand = FuturesUnordered::new();
    let mut pause = Pause::default();
    let mut consumer = None;
    loop {
        let room = in_hand.len() < usize::from(prefetch);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = in_hand.next() => {}
            received = receive(&*queue, &name, prefetch, &mut consumer, pause.current), if room => match received {
                Ok(delivery) => {
                    pause = Pause::default();
                    in_hand.push(handle(&name, delivery, &handler));
                }
                Err(Error::Closed) => break,
                Err(error) => {
                    pause.grow();
                    tracing::warn!(queue = %name, %error, retry_after = ?pause.current, "cannot receive");
                }
            },
        }
    }
    // What was handed out in advance goes back to other consumers while the rest is finished.
    drop(consumer);
    while in_hand.next().await.is_some() {}
}

/// As [`run`], for work that needs a place: a message is received when there is a place for it, and where there is none
/// for a moment this process holds no message, so that another one with a free place gets it. `find_place` waits for a
/// place; it may be dropped while it waits.
pub async fn run_with_places<P, W, Place, H, Fut>(
    queue: Arc<dyn Queue>,
    name: QueueName,
    stop: CancellationToken,
    find_place: W,
    handler: H,
) where
    P: Send,
    W: Fn() -> Place + Send + Sync,
    Place: Future<Output = P> + Send,
    H: Fn(Message, P) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    let mut in_hand = FuturesUnordered::new();
    let mut pause = Pause::default();
    let mut consumer = None;
    let mut place = None;
    let mut no_place_since = None;
    loop {
        if place.is_none() {
            place = find_place().now_or_never();
        }
        no_place_since = match place {
            Some(_) => None,
            None => no_place_since.or_else(|| Some(Instant::now())),
        };
        let leave_at = no_place_since
            .filter(|_| consumer.is_some())
            .map(|since| since + KEPT_WITHOUT_PLACE);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = in_hand.next() => {}
            found = find_place(), if place.is_none() => place = Some(found),
            // What was handed out in advance goes to whoever has a place.
            () = sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => consumer = None,
            received = receive(&*queue, &name, 1, &mut consumer, pause.current), if place.is_some() => match received {
                Ok(delivery) => {
                    pause = Pause::default();
                    if let Some(place) = place.take() {
                        in_hand.push(handle(&name, delivery, |message| handler(message, place)));
                    }
                }
                Err(Error::Closed) => break,
                Err(error) => {
                    pause.grow();
                    tracing::warn!(queue = %name, %error, retry_after = ?pause.current, "cannot receive");
                }
            },
        }
    }
    drop(consumer);
    while in_hand.next().await.is_some() {}
}

/// The next delivery, after a pause when the last try failed. Cancel safe, as `receive` is; `consume` is begun anew.
async fn receive(
    queue: &dyn Queue,
    name: &QueueName,
    prefetch: u16,
    consumer: &mut Option<Box<dyn Consumer>>,
    pause: Duration,
) -> Result<Delivery, Error> {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    let receiving = match consumer {
        Some(consumer) => consumer,
        None => consumer.insert(queue.consume(name, prefetch).await?),
    };
    let received = receiving.receive().await;
    if received.is_err() {
        *consumer = None;
    }
    received
}

async fn handle<H, Fut>(name: &QueueName, delivery: Delivery, handler: H)
where
    H: FnOnce(Message) -> Fut,
    Fut: Future<Output = Result<(), HandlerError>>,
{
    let message = delivery.message.clone();
    let span = tracing::info_span!(
        "message",
        queue = %name,
        message.id,
        message.kind,
        message.attempt,
        traceparent = message.headers.get("traceparent"),
    );
    async {
        // The call itself is inside, so that a panic before the first await is caught too.
        let outcome = match AssertUnwindSafe(async { handler(message).await }).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                tracing::error!(panic = text, "handler panicked");
                Err(HandlerError::Retry(format!("the handler panicked: {text}")))
            }
        };
        let outcome = settle(delivery, outcome).await;
        metrics::counter!("copass_queue_messages_total", "queue" => name.to_string(), "outcome" => outcome)
            .increment(1);
    }
    .instrument(span)
    .await;
}

/// Tells the queue, and says what became of the message.
async fn settle(delivery: Delivery, outcome: Result<(), HandlerError>) -> &'static str {
    let (settled, word) = match outcome {
        Ok(()) => (delivery.ack().await, "done"),
        Err(HandlerError::Poison(reason)) => {
            tracing::error!(reason, "message cannot be handled");
            (delivery.dead_letter(&reason).await, "dead")
        }
        Err(HandlerError::Retry(reason)) if delivery.is_last_attempt() => {
            tracing::error!(reason, "message could not be handled, this was the last attempt");
            (delivery.retry(Duration::ZERO, &reason).await, "dead")
        }
        Err(HandlerError::Retry(reason)) => {
            let delay = retry_delay(delivery.message.attempt);
            tracing::warn!(reason, retry_after = ?delay, "message could not be handled yet");
            (delivery.retry(delay, &reason).await, "retried")
        }
    };
    match settled {
        Ok(()) => word,
        Err(error) => {
            // The queue delivers it again; the inbox knows whether it was handled.
            tracing::warn!(%error, decided = word, "the queue did not take the decision");
            "undecided"
        }
    }
}

/// Three times as long each time, up to the last step, with jitter so that what failed together does not come back
/// together.
fn retry_delay(attempt: u32) -> Duration {
    let growth = 3_u32.saturating_pow(attempt.saturating_sub(1));
    FIRST_RETRY
        .saturating_mul(growth)
        .min(LAST_RETRY)
        .mul_f64(rand::random_range(0.5..1.0))
}

/// The pause before the next try to receive; zero while all is well.
#[derive(Default)]
struct Pause {
    current: Duration,
}

impl Pause {
    fn grow(&mut self) {
        self.current = (self.current * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests;
