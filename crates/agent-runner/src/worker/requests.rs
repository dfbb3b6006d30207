//! Takes run requests from the queue: those of triggers, and accepted runs for which the accepting process had no place.
//!
//! A message is done when its run is begun, not when it is over: from then on the run's lease sees to it. A process with
//! no free place takes no message up, and gives back in a moment what it was handed in advance, so others do.

use std::sync::Arc;

use copass_errors::{Error, ErrorCode};
use copass_queue::{
    Message, Queue,
    worker::{self, HandlerError},
};
use copass_runtime::clock;
use copass_store::inbox;
use futures::future::join_all;
use tokio::sync::OwnedSemaphorePermit as Place;
use tokio_util::sync::CancellationToken;

use crate::app::turn::{Background, RUN_ACCEPTED, RUN_QUEUE, RUN_REQUESTED, Requested, RunAccepted, Turns, Worker};

const CONSUMER: &str = "agent-runner.runs";
const MAX_TAKERS: usize = 8;
/// A taker that waits for a message keeps a place for it: most places are for runs that this process accepts itself.
const PLACES_PER_TAKER: usize = 8;

/// The consumer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests {
    worker: Arc<Worker>,
    turns: Turns,
    background: Background,
}

impl Requests {
    pub(crate) fn new(turns: Turns) -> Self {
        Self {
            worker: turns.worker(),
            background: turns.background(),
            turns,
        }
    }

    pub(crate) async fn run(self, queue: Arc<dyn Queue>, stop: CancellationToken) {
        // Each takes one message at a time and waits for a commit and the broker before the next one.
        let takers = (self.worker.config.background_runs / PLACES_PER_TAKER).clamp(1, MAX_TAKERS);
        join_all((0..takers).map(|_| {
            let find_place = || self.background.wait_for_place();
            let handler = |message, place| self.handle(message, place);
            worker::run_with_places(queue.clone(), RUN_QUEUE, stop.clone(), find_place, handler)
        }))
        .await;
    }

    async fn handle(&self, message: Message, place: copass_errors::Result<Place>) -> Result<(), HandlerError> {
        let place = place?;
        match message.kind.as_str() {
            RUN_ACCEPTED => {
                let body: RunAccepted = decode(&message)?;
                self.background.begin(body.sandbox_id, body.run_id, place);
            }
            RUN_REQUESTED => {
                let body: Requested = decode(&message)?;
                match self.turns.requested(body, place).await {
                    Ok(_) => {}
                    // The agent or the sandbox is gone, or the request is not one: trying again changes nothing.
                    Err(error) if is_final(&error) => {
                        return Err(HandlerError::Poison(error.to_string()));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            kind => return Err(HandlerError::Poison(format!("unknown kind of message {kind:?}"))),
        }
        self.record(&message).await.map_err(Error::from)?;
        Ok(())
    }

    /// With a volatile broker the message waits in the outbox until it is known to be handled. The effect itself is
    /// safe without: a run has a unique key and a fence.
    async fn record(&self, message: &Message) -> copass_store::Result<()> {
        let mut tx = self.worker.db.begin().await?;
        inbox::record(&mut tx, CONSUMER, &message.id, clock::now()).await?;
        tx.commit().await
    }
}

fn decode<T: serde::de::DeserializeOwned>(message: &Message) -> Result<T, HandlerError> {
    message
        .decode()
        .map_err(|error| HandlerError::Poison(format!("the message is not a {}: {error}", message.kind)))
}

fn is_final(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::NotFound | ErrorCode::InvalidRequest | ErrorCode::ValidationError | ErrorCode::IdempotencyConflict
    )
}
