//! Audit records of other services: they leave with the transaction of what they record (outbox) and are written here
//! once (inbox), because the audit log has one owner.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use copass_queue::{Message, Queue, QueueName, worker};
use copass_runtime::clock;
use copass_store::{Json, inbox};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{AUDIT_QUEUE, app::App, store, store::audit::AuditRow};

const CONSUMER: &str = "concierge.audit";

/// The body of `audit.recorded.v1`.
#[derive(Debug, Deserialize)]
struct Recorded {
    id: String,
    at: DateTime<Utc>,
    sandbox_id: Option<String>,
    user_id: Option<String>,
    actor: Value,
    action: String,
    target: String,
    before: Option<Value>,
    after: Option<Value>,
    result: String,
    request_id: String,
}

pub(crate) async fn run(app: Arc<App>, queue: Arc<dyn Queue>, stop: CancellationToken) {
    let handler = move |message: Message| {
        let app = app.clone();
        async move { write(&app, message).await }
    };
    worker::run(queue, QueueName::from_static(AUDIT_QUEUE), 8, stop, handler).await;
}

async fn write(app: &App, message: Message) -> Result<(), worker::HandlerError> {
    let recorded: Recorded = serde_json::from_value(message.body)
        .map_err(|error| worker::HandlerError::Poison(format!("not an audit record: {error}")))?;
    let row = AuditRow {
        id: recorded.id,
        at: recorded.at,
        sandbox_id: recorded.sandbox_id,
        user_id: recorded.user_id,
        actor: Json(recorded.actor),
        action: recorded.action,
        target: recorded.target,
        before: recorded.before.map(Json),
        after: recorded.after.map(Json),
        result: recorded.result,
        request_id: recorded.request_id,
    };
    let outcome = async {
        let mut tx = app.db.begin().await?;
        if inbox::record(&mut tx, CONSUMER, &message.id, clock::now()).await? {
            store::audit::insert(&mut tx, &row).await?;
            tx.commit().await?;
        }
        Ok::<_, copass_store::Error>(())
    };
    outcome.await.map_err(|error| worker::HandlerError::Retry(error.to_string()))
}
