//! Audit records of other services: they leave with the transaction of what they record (outbox) and are written here
//! once (inbox), because the audit log has one owner.

use std::sync::Arc;

use copass_queue::{Message, Queue, QueueName, worker};
use copass_runtime::clock;
use copass_store::{
    audit::{KIND, QUEUE, Record},
    inbox,
};
use tokio_util::sync::CancellationToken;

use crate::{app::App, store};

const CONSUMER: &str = "concierge.audit";
/// Messages in hand at once.
const PREFETCH: u16 = 8;

pub(crate) async fn run(app: Arc<App>, queue: Arc<dyn Queue>, stop: CancellationToken) {
    let handler = move |message: Message| {
        let app = app.clone();
        async move { write(&app, message).await }
    };
    worker::run(queue, QueueName::from_static(QUEUE), PREFETCH, stop, handler).await;
}

async fn write(app: &App, message: Message) -> Result<(), worker::HandlerError> {
    if message.kind != KIND {
        return Err(worker::HandlerError::Poison(format!(
            "not an audit record but {}",
            message.kind
        )));
    }
    let record: Record = message
        .decode()
        .map_err(|error| worker::HandlerError::Poison(format!("not an audit record: {error}")))?;
    let outcome = async {
        let mut tx = app.db.begin().await?;
        if inbox::record(&mut tx, CONSUMER, &message.id, clock::now()).await? {
            store::audit::insert(&mut tx, &record).await?;
            tx.commit().await?;
        }
        Ok::<_, copass_store::Error>(())
    };
    outcome
        .await
        .map_err(|error| worker::HandlerError::Retry(error.to_string()))
}
