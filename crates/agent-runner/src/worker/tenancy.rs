//! A destroyed sandbox takes its agents, conversations and runs with it.
//!
//! The inbox and the deletion are one transaction, so a second delivery changes nothing. Live runs are told to stop
//! first; those of other replicas find at their next write or heartbeat that their row is gone.

use std::sync::Arc;

use copass_queue::{
    Message, Queue, QueueName,
    worker::{self, HandlerError},
};
use copass_runtime::clock;
use copass_store::inbox;
use copass_types::SandboxId;
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
        let agents = self
            .delete(&sandbox_id, &message.id)
            .await
            .map_err(copass_errors::Error::from)?;
        tracing::info!(sandbox.id = %sandbox_id, agents, "sandbox destroyed");
        Ok(())
    }

    async fn delete(&self, sandbox_id: &SandboxId, message_id: &str) -> copass_store::Result<u64> {
        let mut tx = self.worker.db.begin().await?;
        if !inbox::record(&mut tx, CONSUMER, message_id, clock::now()).await? {
            tx.rollback().await?;
            return Ok(0);
        }
        let agents = store::agents::delete_sandbox(&mut tx, sandbox_id).await?;
        tx.commit().await?;
        Ok(agents)
    }
}
