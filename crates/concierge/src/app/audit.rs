//! The audit log: who with the full chain, what, before and after, result; denials too.
//!
//! The record is the one that other services send ([`copass_store::audit`]); this service owns the table and writes
//! without a detour.

use copass_errors::{Error, Result};
use copass_runtime::CallContext;
use copass_store::{
    Tx,
    audit::{Record, is_denial},
};
use copass_types::SandboxId;

use super::App;
use crate::store;

impl App {
    /// Writes a record in the transaction of what it records.
    pub(crate) async fn audit(&self, tx: &mut Tx, record: Record) -> Result<()> {
        store::audit::insert(tx, &record).await?;
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
            let mut record = Record::new(context, action, target).denied(error.code());
            record.sandbox_id = sandbox_id.cloned();
            let written = async {
                let mut tx = self.db.begin().await?;
                self.audit(&mut tx, record).await?;
                tx.commit().await?;
                Ok::<_, Error>(())
            };
            if let Err(error) = written.await {
                tracing::error!(%error, action, "a denial could not be recorded");
            }
        }
        outcome
    }

    /// As [`Self::audit_denial`] for what is the caller's own: not having it is no denial.
    pub(crate) async fn audit_own<T>(
        &self,
        context: &CallContext,
        action: &'static str,
        outcome: Result<T>,
    ) -> Result<T> {
        let own = context
            .principal
            .user_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        match outcome {
            Err(error) if error.code() == copass_errors::ErrorCode::NotFound => Err(error),
            outcome => self.audit_denial(context, action, &own, None, outcome).await,
        }
    }
}
