//! Follows the life of sandboxes: what a destroyed one held is removed.

use copass_queue::{
    Message, QueueName,
    worker::{self, HandlerError},
};
use copass_runtime::{clock, tasks::Phase};
use copass_store::{Db, inbox};
use copass_types::SandboxId;
use serde::Deserialize;

use crate::{Deps, store};

/// Where the concierge tells this service about sandboxes.
pub const QUEUE: QueueName = QueueName::from_static("copass.ingestion.tenancy");

const DESTROYED: &str = "sandbox.destroyed.v1";

#[derive(Deserialize)]
struct SandboxDestroyed {
    sandbox_id: SandboxId,
}

pub(crate) fn start(deps: &Deps, prefetch: u16) {
    let (db, queue) = (deps.db.clone(), deps.queue.clone());
    deps.tasks.spawn(Phase::Intake, "ingestion.tenancy", move |stop| {
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

/// The effect and the record of the message are one transaction, so a second delivery changes nothing.
async fn destroyed(db: &Db, message_id: &str, sandbox_id: &SandboxId) -> copass_errors::Result<()> {
    let mut tx = db.begin().await?;
    if !inbox::record(&mut tx, QUEUE.as_str(), message_id, clock::now()).await? {
        return Ok(());
    }
    let sources = store::sources::delete_all(&mut tx, sandbox_id).await?;
    tx.commit().await?;
    tracing::info!(sandbox.id = %sandbox_id, sources, "removed the data sources of a destroyed sandbox");
    Ok(())
}
