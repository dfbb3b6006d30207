//! The audit log: who with the full chain, what, before and after, result; denials too.

use copass_errors::{Error, ErrorCode, Result};
use copass_runtime::{CallContext, clock};
use copass_store::{Json, Tx};
use copass_types::{AuditId, SandboxId};
use serde_json::Value;

use super::App;
use crate::store::{self, audit::AuditRow};

/// One record to be written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) action: &'static str,
    pub(crate) target: String,
    pub(crate) sandbox_id: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
    pub(crate) result: &'static str,
}

impl Entry {
    pub(crate) fn new(action: &'static str, target: impl Into<String>) -> Self {
        Self {
            action,
            target: target.into(),
            sandbox_id: None,
            user_id: None,
            before: None,
            after: None,
            result: "ok",
        }
    }

    pub(crate) fn sandbox(mut self, sandbox_id: &SandboxId) -> Self {
        self.sandbox_id = Some(sandbox_id.to_string());
        self
    }

    pub(crate) fn before(mut self, value: Value) -> Self {
        self.before = Some(value);
        self
    }

    pub(crate) fn after(mut self, value: Value) -> Self {
        self.after = Some(value);
        self
    }

    pub(crate) fn denied(mut self, code: ErrorCode) -> Self {
        self.result = code.as_str();
        self
    }
}

impl App {
    /// Writes a record in the transaction of what it records.
    pub(crate) async fn audit(&self, tx: &mut Tx, context: &CallContext, entry: Entry) -> Result<()> {
        let principal = &context.principal;
        let row = AuditRow {
            id: AuditId::generate().to_string(),
            at: clock::now(),
            sandbox_id: entry.sandbox_id,
            user_id: entry.user_id.or_else(|| principal.user_id.as_ref().map(ToString::to_string)),
            actor: Json(serde_json::json!({
                "kind": principal.kind,
                "user_id": principal.user_id,
                "api_key_id": principal.api_key_id,
                "connection_id": principal.connection_id,
                "role": principal.access.as_ref().map(|access| access.role),
                "run_id": principal.run_id,
                "via": principal.via,
                "remote_address": principal.remote_address,
            })),
            action: entry.action.to_owned(),
            target: entry.target,
            before: entry.before.map(Json),
            after: entry.after.map(Json),
            result: entry.result.to_owned(),
            request_id: principal.request_id.clone(),
        };
        store::audit::insert(tx, &row).await?;
        Ok(())
    }

    /// Passes the outcome of an operation on; a denial is recorded first. A record that cannot be written is logged
    /// and does not change the answer.
    pub(crate) async fn audit_denial<T>(
        &self,
        context: &CallContext,
        action: &'static str,
        target: &str,
        sandbox_id: Option<&SandboxId>,
        outcome: Result<T>,
    ) -> Result<T> {
        if let Err(error) = &outcome
            && is_denial(error)
        {
            let mut entry = Entry::new(action, target).denied(error.code());
            entry.sandbox_id = sandbox_id.map(ToString::to_string);
            let written = async {
                let mut tx = self.db.begin().await?;
                self.audit(&mut tx, context, entry).await?;
                tx.commit().await?;
                Ok::<_, Error>(())
            };
            if let Err(error) = written.await {
                tracing::error!(%error, action, target, "a denial could not be recorded");
            }
        }
        outcome
    }
}

fn is_denial(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::Forbidden | ErrorCode::NotFound | ErrorCode::SandboxNotActive)
}
