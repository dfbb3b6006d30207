//! A destroyed sandbox takes its agents, conversations and runs with it.
//!
//! There may be hundreds of thousands of runs, so they go in slices between which others write, and the message is in the
//! inbox with the last one: an interrupted deletion goes on, and a second delivery of a finished one changes nothing. Live
//! runs are told to stop first; those of other replicas find at their next write or heartbeat that their row is gone.

use std::sync::Arc;

use copass_queue::{
    Message, Queue, QueueName,
    worker::{self, HandlerError},
};
use copass_store::inbox;
use copass_types::SandboxId;
use futures::FutureExt as _;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{active::StopCause, turn::Worker},
    store,
};

/// Where the concierge service sends news of sandboxes for this service.
pub(crate) const QUEUE: QueueName = QueueName::from_static("copass.agent-runner.tenancy");
const CONSUMER: &str = "agent-runner.tenancy";
const SANDBOX_DESTROYED: &str = "sandbox.destroyed.v1";
const PREFETCH: u16 = 4;

#[derive(Debug, Deserialize)]
struct SandboxDestroyed {
    sandbox_id: SandboxId,
}

/// The consumer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tenancy {
    worker: Arc<Worker>,
}

impl Tenancy {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        Self { worker }
    }

    pub(crate) async fn run(self, queue: Arc<dyn Queue>, stop: CancellationToken) {
        let handler = move |message| {
            let tenancy = self.clone();
            async move { tenancy.handle(message).await }
        };
        worker::run(queue, QUEUE, PREFETCH, stop, handler).await;
    }

    async fn handle(&self, message: Message) -> Result<(), HandlerError> {
        if message.kind != SANDBOX_DESTROYED {
            return Err(HandlerError::Poison(format!(
                "unknown kind of message {:?}",
                message.kind
            )));
        }
        let SandboxDestroyed { sandbox_id } = message
            .decode()
            .map_err(|error| HandlerError::Poison(format!("the message is not a {SANDBOX_DESTROYED}: {error}")))?;
        self.worker
            .active
            .stop_sandbox(&sandbox_id, StopCause::SandboxDestroyed);
        let sandbox = sandbox_id.clone();
        let rows = inbox::record_after_slices(&self.worker.db, CONSUMER, &message.id, move |tx| {
            let sandbox_id = sandbox.clone();
            async move { store::agents::delete_some_of_sandbox(tx, &sandbox_id).await }.boxed()
        })
        .await
        .map_err(copass_errors::Error::from)?;
        tracing::info!(sandbox.id = %sandbox_id, rows, "sandbox destroyed");
        Ok(())
    }
}
