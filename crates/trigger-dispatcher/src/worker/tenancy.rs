//! Follows the life of sandboxes: what a destroyed one held is removed.

use copass_queue::{
    Message, QueueName,
    worker::{self, HandlerError},
};
use copass_runtime::tasks::Phase;
use copass_store::{Db, inbox};
use copass_types::SandboxId;
use serde::Deserialize;

use crate::{Deps, store};

/// Where the concierge tells this service about sandboxes.
pub const QUEUE: QueueName = QueueName::from_static("copass.trigger-dispatcher.tenancy");

const DESTROYED: &str = "sandbox.destroyed.v1";

#[derive(Deserialize)]
struct SandboxDestroyed {
    sandbox_id: SandboxId,
}

pub(crate) fn start(deps: &Deps, prefetch: u16) {
    let (db, queue) = (deps.db.clone(), deps.queue.clone());
    deps.tasks
        .spawn(Phase::Intake, "trigger-dispatcher.tenancy", move |stop| {
            worker::run(queue, QUEUE, prefetch, stop, move |message| handle(db.clone(), message))
        });
}

async fn handle(db: Db, message: Message) -> Result<(), HandlerError> {
    match message.kind.as_str() {
        DESTROYED => {
            let body: SandboxDestroyed = message
                .decode()
                .map_err(|error| HandlerError::Poison(format!("{DESTROYED}: {error}")))?;
            Ok(destroyed(&db, &message.id, &body.sandbox_id).await?)
        }
        other => Err(HandlerError::Poison(format!("unknown kind {other:?}"))),
    }
}

/// The end of the effect and the record of the message are one transaction, so a second delivery changes nothing. Nothing
/// limits how many triggers there are, so they go in slices.
async fn destroyed(db: &Db, message_id: &str, sandbox_id: &SandboxId) -> copass_errors::Result<()> {
    let sandbox = sandbox_id.clone();
    let triggers = inbox::record_after_slices(db, QUEUE.as_str(), message_id, move |tx| {
        let sandbox_id = sandbox.clone();
        Box::pin(async move { store::triggers::delete_some(tx, &sandbox_id).await })
    })
    .await?;
    tracing::info!(sandbox.id = %sandbox_id, triggers, "removed the triggers of a destroyed sandbox");
    Ok(())
}
