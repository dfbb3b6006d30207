//! Audit records as they travel: the one shape that every service writes and the concierge reads.
//!
//! The audit log has one owner. Other services put a record into the transaction of what it records, through their
//! outbox ([`Record::into_message`]); the concierge writes it once, through its inbox, with the same type, so producers
//! and consumer cannot drift. Never put a secret into `before` or `after`: the log is append-only and cannot forget.

use chrono::{DateTime, Utc};
use copass_errors::{Error as ApiError, ErrorCode};
use copass_runtime::{CallContext, clock};
use copass_types::{AuditId, SandboxId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Db,
    outbox::{Outbox, OutboxMessage},
};

/// Queue of the records that other services write.
pub const QUEUE: &str = "copass.concierge.audit";
/// What a message on [`QUEUE`] is.
pub const KIND: &str = "audit.recorded.v1";
/// The `result` of what was done.
pub const OK: &str = "ok";
/// Targets come from requests too; nobody fills the log with one of them.
const TARGET_MAX_CHARS: usize = 256;

/// Who did what to which thing, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: AuditId,
    /// When.
    pub at: DateTime<Utc>,
    /// The sandbox it was about.
    pub sandbox_id: Option<SandboxId>,
    /// The person it was done for.
    pub user_id: Option<UserId>,
    /// The full chain of who: person, key, grant, run, services passed, network address.
    pub actor: Value,
    /// `<noun>.<verb>`, for example `agent.create`.
    pub action: String,
    /// The id of the thing.
    pub target: String,
    /// Its state before.
    pub before: Option<Value>,
    /// Its state after.
    pub after: Option<Value>,
    /// [`OK`] or the error code.
    pub result: String,
    /// The request that did it.
    pub request_id: String,
}

impl Record {
    /// What the caller has done. The rest is added with the methods below.
    #[must_use]
    pub fn new(context: &CallContext, action: &str, target: impl AsRef<str>) -> Self {
        let principal = &context.principal;
        Self {
            id: AuditId::generate(),
            at: clock::now(),
            sandbox_id: None,
            user_id: principal.user_id.clone(),
            actor: json!({
                "kind": principal.kind,
                "user_id": principal.user_id,
                "api_key_id": principal.api_key_id,
                "connection_id": principal.connection_id,
                "role": principal.access.as_ref().map(|access| access.role),
                "run_id": principal.run_id,
                "via": principal.via,
                "remote_address": principal.remote_address,
            }),
            action: action.to_owned(),
            // PostgreSQL keeps no NUL in text, and a record must never fail because of what was asked for.
            target: target
                .as_ref()
                .chars()
                .filter(|character| *character != '\0')
                .take(TARGET_MAX_CHARS)
                .collect(),
            before: None,
            after: None,
            result: OK.to_owned(),
            request_id: principal.request_id.clone(),
        }
    }

    /// The sandbox it was about: its owner sees the record.
    #[must_use]
    pub fn sandbox(mut self, sandbox_id: &SandboxId) -> Self {
        self.sandbox_id = Some(sandbox_id.clone());
        self
    }

    /// The person, where the caller is a service acting for somebody who has no credential yet.
    #[must_use]
    pub fn user(mut self, user_id: &UserId) -> Self {
        self.user_id = Some(user_id.clone());
        self
    }

    /// The state before.
    #[must_use]
    pub fn before(mut self, value: Value) -> Self {
        self.before = Some(value);
        self
    }

    /// The state after.
    #[must_use]
    pub fn after(mut self, value: Value) -> Self {
        self.after = Some(value);
        self
    }

    /// It was refused.
    #[must_use]
    pub fn denied(mut self, code: ErrorCode) -> Self {
        code.as_str().clone_into(&mut self.result);
        self
    }

    /// The message that carries the record to the concierge; add it to the transaction of what it records.
    #[must_use]
    pub fn into_message(self) -> OutboxMessage {
        // A struct of text, times and JSON has a JSON form; if it had none, the consumer would dead-letter the message.
        OutboxMessage::to_queue(QUEUE, KIND, serde_json::to_value(&self).unwrap_or_default())
    }
}

/// Whether the error says that the caller was not allowed to do what they tried.
#[must_use]
pub fn is_denial(error: &ApiError) -> bool {
    matches!(
        error.code(),
        ErrorCode::Forbidden | ErrorCode::NotFound | ErrorCode::SandboxNotActive | ErrorCode::Unauthorized
    )
}

/// Passes the outcome of an operation on; a denial is recorded first, through the outbox. A record that cannot be
/// written is logged and does not change the answer.
///
/// # Errors
/// Those of the outcome.
pub async fn note_denial<T>(
    db: &Db,
    outbox: &Outbox,
    record: Record,
    outcome: Result<T, ApiError>,
) -> Result<T, ApiError> {
    if let Err(error) = &outcome
        && is_denial(error)
    {
        let record = record.denied(error.code());
        let (action, target) = (record.action.clone(), record.target.clone());
        let message = record.into_message();
        let written = async {
            let mut tx = db.begin().await?;
            outbox.add(&mut tx, &message).await?;
            tx.commit().await
        };
        match written.await {
            Ok(()) => outbox.wake(),
            Err(error) => tracing::error!(%error, action, target, "a denial could not be recorded"),
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use copass_types::Principal;

    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let context = CallContext::new(Principal::service("gateway", "req_1"));
        let sandbox_id = SandboxId::generate();
        let record = Record::new(&context, "agent.create", "ag_1")
            .sandbox(&sandbox_id)
            .user(&UserId::generate())
            .before(json!({ "version": 1 }))
            .after(json!({ "version": 2 }));
        let message = record.clone().into_message();
        assert_eq!((message.destination.as_str(), message.kind.as_str()), (QUEUE, KIND));
        assert_eq!(serde_json::from_value::<Record>(message.body).unwrap(), record);
    }

    #[test]
    fn a_target_from_a_request_is_made_storable() {
        let context = CallContext::new(Principal::service("gateway", "req_1"));
        let record = Record::new(&context, "agent.get", format!("\0ä{}", "x".repeat(1000)));
        assert_eq!(record.target.chars().count(), TARGET_MAX_CHARS);
        assert!(record.target.starts_with('ä'));
    }
}
