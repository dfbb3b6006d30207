//! Sandboxes and their whole lifecycle (`rest.md` 5). Lifecycle calls are idempotent.

use copass_errors::{Error, ErrorCode, FieldProblem, Result};
use copass_runtime::{CallContext, clock};
use copass_store::{Json, audit::Record, idempotency::KeyedRequest, outbox::OutboxMessage};
use copass_types::{AccessClass, AuditId, Role, SandboxId, UserId, validate};
use serde_json::{Value, json};

use super::{
    App,
    access::{require_active, role_of},
    account, person,
};
use crate::store::{
    self,
    sandboxes::{SandboxRow, VisibleRow},
};

/// Queues of the services that own things inside a sandbox.
const TENANCY_QUEUES: [&str; 3] = [
    "copass.agent-runner.tenancy",
    "copass.trigger-dispatcher.tenancy",
    "copass.ingestion.tenancy",
];
const TIERS: [&str; 3] = ["free", "pro", "enterprise"];
const STATUSES: &[&str] = copass_types::api::words::SandboxStatus::WORDS;
/// Audit records in one answer.
const MAX_AUDIT_RECORDS: u32 = 500;
const DEFAULT_AUDIT_RECORDS: u32 = 100;
/// Longest `owner_id`: the caller's own opaque key.
const OWNER_ID_MAX_CHARS: usize = 255;

/// What a tier allows (`gaps.md` G46).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_data_sources: u64,
    pub(crate) max_projects: u64,
    pub(crate) max_storage_bytes: u64,
}

impl Limits {
    pub(crate) fn of_tier(tier: &str) -> Self {
        const GIB: u64 = 1 << 30;
        let (max_data_sources, max_projects, max_storage_bytes) = match tier {
            "enterprise" => (10_000, 1000, 1024 * GIB),
            "pro" => (100, 50, 50 * GIB),
            _ => (10, 5, GIB),
        };
        Self {
            max_data_sources,
            max_projects,
            max_storage_bytes,
        }
    }
}

/// A sandbox as the caller sees it.
#[derive(Debug, Clone)]
pub(crate) struct SandboxView {
    pub(crate) row: SandboxRow,
    pub(crate) role: Role,
}

/// A new sandbox.
#[derive(Debug, Clone)]
pub(crate) struct NewSandbox {
    pub(crate) name: String,
    pub(crate) owner_id: String,
    pub(crate) tier: Option<String>,
    pub(crate) metadata: Option<Value>,
}

pub(crate) fn new_sandbox(
    user_id: &UserId,
    owner_id: &str,
    name: &str,
    tier: &str,
    metadata: Value,
) -> (SandboxId, SandboxRow) {
    let id = SandboxId::generate();
    let row = SandboxRow {
        id: id.to_string(),
        user_id: user_id.to_string(),
        owner_id: owner_id.to_owned(),
        name: name.to_owned(),
        tier: tier.to_owned(),
        status: "active".to_owned(),
        storage_provider_type: "platform_s3".to_owned(),
        metadata: Json(metadata),
        created_at: clock::now(),
    };
    (id, row)
}

impl App {
    /// Makes a sandbox. With a keyed request, `encode` turns the view into the answer that a repeat gets.
    pub(crate) async fn create_sandbox(
        &self,
        context: &CallContext,
        new: NewSandbox,
        keyed: Option<&KeyedRequest>,
        encode: impl Fn(&SandboxView) -> Vec<u8>,
    ) -> Result<SandboxView> {
        let user_id = account(context)?;
        let tier = new.tier.as_deref().unwrap_or("free");
        let metadata = new.metadata.unwrap_or_else(|| json!({}));
        let mut problems = Vec::new();
        check(
            &mut problems,
            "name",
            validate::name(&new.name, validate::NAME_MAX_CHARS),
        );
        check(
            &mut problems,
            "owner_id",
            validate::name(&new.owner_id, OWNER_ID_MAX_CHARS),
        );
        check(&mut problems, "metadata", validate::stored_object(&metadata));
        if !TIERS.contains(&tier) {
            problems.push(FieldProblem::body("tier", "must be free, pro or enterprise"));
        }
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let (id, row) = new_sandbox(user_id, &new.owner_id, &new.name, tier, metadata);
        let view = SandboxView { row, role: Role::Owner };
        let mut tx = self.db.begin().await?;
        store::sandboxes::insert(&mut tx, &view.row).await.map_err(name_taken)?;
        let entry = Record::new(context, "sandbox.create", id.as_str())
            .sandbox(&id)
            .after(summary(&view.row));
        self.audit(&mut tx, entry).await?;
        if let Some(keyed) = keyed {
            self.idempotency.remember(&mut tx, keyed, &encode(&view)).await?;
        }
        tx.commit().await?;
        Ok(view)
    }

    /// Own and granted sandboxes.
    pub(crate) async fn list_sandboxes(
        &self,
        context: &CallContext,
        status: Option<&str>,
        owner_id: Option<&str>,
    ) -> Result<Vec<SandboxView>> {
        let user_id = person(context)?;
        if status.is_some_and(|status| !STATUSES.contains(&status)) {
            let problem = FieldProblem::query("status", "must be active, suspended or archived");
            return Err(Error::invalid(vec![problem]));
        }
        let mut conn = self.db.read().await?;
        let now = clock::now();
        let through = context.principal.connection_id.as_ref();
        let rows = match through {
            Some(connection_id) => store::sandboxes::find_through_connection(&mut conn, connection_id, now)
                .await?
                .into_iter()
                .collect(),
            None => store::sandboxes::list_visible(&mut conn, user_id, now).await?,
        };
        let mut views: Vec<SandboxView> = Vec::with_capacity(rows.len());
        for row in rows {
            let wanted = status.is_none_or(|status| row.sandbox.status == status)
                && owner_id.is_none_or(|owner_id| row.sandbox.owner_id == owner_id);
            // A sandbox granted twice comes twice, the stronger grant first.
            if wanted && views.last().is_none_or(|last| last.row.id != row.sandbox.id) {
                views.push(view(row, user_id, through.is_some())?);
            }
        }
        Ok(views)
    }

    pub(crate) async fn get_sandbox(&self, context: &CallContext, id: &SandboxId) -> Result<SandboxView> {
        let mut conn = self.db.read().await?;
        let row = self.require(&mut conn, context, id, AccessClass::Read).await?;
        view(row, person(context)?, context.principal.connection_id.is_some())
    }

    /// Renames, or replaces the metadata.
    pub(crate) async fn update_sandbox(
        &self,
        context: &CallContext,
        id: &SandboxId,
        name: Option<&str>,
        metadata: Option<Value>,
    ) -> Result<SandboxView> {
        let mut problems = Vec::new();
        if let Some(name) = name {
            check(&mut problems, "name", validate::name(name, validate::NAME_MAX_CHARS));
        }
        if let Some(metadata) = &metadata {
            check(&mut problems, "metadata", validate::stored_object(metadata));
        }
        let mut tx = self.db.begin().await?;
        let found = self
            .require_for_change(&mut tx, context, id, AccessClass::Destroy)
            .await?;
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        require_active(&found)?;
        let before = found.sandbox;
        let owner: UserId = before.user_id.parse().map_err(Error::internal)?;
        let mut after = before.clone();
        after.name = name.map_or(after.name, str::to_owned);
        after.metadata = metadata.map_or(after.metadata, Json);
        if summary(&after) == summary(&before) {
            return Ok(SandboxView {
                row: before,
                role: Role::Owner,
            });
        }
        store::sandboxes::update(&mut tx, &owner, id, &after.name, &after.metadata, clock::now())
            .await
            .map_err(name_taken)?;
        let entry = Record::new(context, "sandbox.update", id.as_str())
            .sandbox(id)
            .before(summary(&before))
            .after(summary(&after));
        self.audit(&mut tx, entry).await?;
        tx.commit().await?;
        Ok(SandboxView {
            row: after,
            role: Role::Owner,
        })
    }

    /// Suspend, reactivate, archive.
    pub(crate) async fn change_sandbox_status(
        &self,
        context: &CallContext,
        id: &SandboxId,
        status: &str,
    ) -> Result<SandboxView> {
        let action = match status {
            "active" => "sandbox.reactivate",
            "suspended" => "sandbox.suspend",
            "archived" => "sandbox.archive",
            _ => return Err(Error::invalid_field("status", "must be active, suspended or archived")),
        };
        let mut tx = self.db.begin().await?;
        let before = self
            .require_for_change(&mut tx, context, id, AccessClass::Destroy)
            .await?
            .sandbox;
        let mut after = before.clone();
        status.clone_into(&mut after.status);
        if before.status != status {
            let owner: UserId = before.user_id.parse().map_err(Error::internal)?;
            store::sandboxes::set_status(&mut tx, &owner, id, status, clock::now()).await?;
            self.announce_revocation(&mut tx, None, Some(id)).await?;
            let entry = Record::new(context, action, id.as_str())
                .sandbox(id)
                .before(summary(&before))
                .after(summary(&after));
            self.audit(&mut tx, entry).await?;
            tx.commit().await?;
            self.outbox.wake();
        }
        Ok(SandboxView {
            row: after,
            role: Role::Owner,
        })
    }

    /// Removes the sandbox now and, through the queue, everything other services keep in it.
    pub(crate) async fn destroy_sandbox(&self, context: &CallContext, id: &SandboxId) -> Result<()> {
        let user_id = person(context)?;
        let mut tx = self.db.begin().await?;
        let before = match self
            .require_for_change(&mut tx, context, id, AccessClass::Destroy)
            .await
        {
            Ok(row) => row.sandbox,
            Err(error) if error.code() == ErrorCode::NotFound => {
                return if store::audit::was_destroyed_by(&mut tx, user_id, id).await? {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            Err(error) => return Err(error),
        };
        let owner: UserId = before.user_id.parse().map_err(Error::internal)?;
        store::users::forget_primary_sandbox(&mut tx, id).await?;
        store::api_keys::revoke_of_sandbox(&mut tx, id, clock::now()).await?;
        store::sandboxes::delete(&mut tx, &owner, id).await?;
        for queue in TENANCY_QUEUES {
            let message = OutboxMessage::to_queue(queue, "sandbox.destroyed.v1", json!({ "sandbox_id": id }));
            self.outbox.add(&mut tx, &message).await?;
        }
        self.announce_revocation(&mut tx, None, Some(id)).await?;
        let entry = Record::new(context, "sandbox.destroy", id.as_str())
            .sandbox(id)
            .before(summary(&before));
        self.audit(&mut tx, entry).await?;
        tx.commit().await?;
        self.outbox.wake();
        Ok(())
    }

    /// Audit records of the sandbox, newest first; owner only.
    pub(crate) async fn list_audit_records(
        &self,
        context: &CallContext,
        id: &SandboxId,
        before: Option<&AuditId>,
        limit: u32,
    ) -> Result<Vec<store::audit::AuditRow>> {
        let mut conn = self.db.read().await?;
        self.require(&mut conn, context, id, AccessClass::Grant).await?;
        let limit = if limit == 0 {
            DEFAULT_AUDIT_RECORDS
        } else {
            limit.min(MAX_AUDIT_RECORDS)
        };
        let limit = i64::from(limit);
        Ok(store::audit::list(&mut conn, id, before, limit).await?)
    }
}

fn view(row: VisibleRow, user_id: &UserId, through_connection: bool) -> Result<SandboxView> {
    let role = role_of(&row, user_id, through_connection)?;
    Ok(SandboxView { row: row.sandbox, role })
}

fn summary(row: &SandboxRow) -> Value {
    json!({ "name": row.name, "owner_id": row.owner_id, "tier": row.tier, "status": row.status,
            "metadata": row.metadata.0 })
}

pub(crate) fn name_taken(error: copass_store::Error) -> Error {
    if error.is_unique_violation() {
        Error::conflict("a sandbox with this name and owner_id exists already; choose another name")
    } else {
        error.into()
    }
}

pub(crate) fn check(problems: &mut Vec<FieldProblem>, field: &str, outcome: std::result::Result<(), String>) {
    if let Err(problem) = outcome {
        problems.push(FieldProblem::body(field, problem));
    }
}
