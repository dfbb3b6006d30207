//! Profiles (`rest.md` 2). The first call also makes a primary sandbox and a default project.

use chrono::{DateTime, Utc};
use copass_errors::{Error, FieldProblem, Result};
use copass_runtime::{CallContext, clock};
use copass_store::{Tx, audit::Record};
use copass_types::{ProjectId, SandboxId, UserId, validate};
use serde_json::{Value, json};

use super::{
    App, account,
    sandboxes::{name_taken, new_sandbox},
};
use crate::store::{self, users::UserRow};

/// A person as they see themselves.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) user_id: String,
    pub(crate) display_name: String,
    pub(crate) email: Option<String>,
    pub(crate) handle: Option<String>,
    pub(crate) canonical_id: Option<String>,
    pub(crate) sandbox_id: Option<String>,
    pub(crate) project_id: Option<String>,
    pub(crate) metadata: Value,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) was_created: bool,
}

impl Profile {
    fn of(row: UserRow, was_created: bool) -> Option<Self> {
        Some(Self {
            user_id: row.id,
            display_name: row.display_name?,
            email: row.email,
            handle: row.handle,
            canonical_id: row.canonical_id,
            sandbox_id: row.primary_sandbox_id,
            project_id: row.default_project_id,
            metadata: row.metadata.0,
            created_at: row.profile_created_at?,
            was_created,
        })
    }
}

impl App {
    /// Makes the profile, or updates its display name. Repeating is harmless.
    pub(crate) async fn create_profile(
        &self,
        context: &CallContext,
        display_name: Option<&str>,
        canonical_id: Option<&str>,
    ) -> Result<Profile> {
        self.ensure_profile(context, display_name, canonical_id, false).await
    }

    /// As [`Self::create_profile`]; `needs_sandbox` also makes a new primary sandbox when the first one was destroyed.
    pub(crate) async fn ensure_profile(
        &self,
        context: &CallContext,
        display_name: Option<&str>,
        canonical_id: Option<&str>,
        needs_sandbox: bool,
    ) -> Result<Profile> {
        let user_id = account(context)?;
        let mut problems = Vec::new();
        if let Some(Err(problem)) = display_name.map(|name| validate::name(name, validate::NAME_MAX_CHARS)) {
            problems.push(FieldProblem::body("display_name", problem));
        }
        if let Some(Err(problem)) = canonical_id.map(|id| validate::name(id, validate::NAME_MAX_CHARS)) {
            problems.push(FieldProblem::body("canonical_id", problem));
        }
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        store::users::lock(&mut tx, user_id).await?;
        let user = find_user(store::users::find(&mut tx, user_id).await?)?;
        let was_created = user.profile_created_at.is_none();
        let name = display_name
            .map(str::to_owned)
            .or_else(|| user.display_name.clone())
            .or_else(|| {
                user.email
                    .as_deref()
                    .and_then(|email| email.split('@').next())
                    .map(str::to_owned)
            })
            .unwrap_or_else(|| "me".to_owned());
        store::users::set_profile(&mut tx, user_id, &name, canonical_id, now).await?;
        if was_created || (needs_sandbox && user.primary_sandbox_id.is_none()) {
            let sandbox_id = primary_sandbox(&mut tx, user_id).await?;
            let project_id = ProjectId::generate();
            store::sandboxes::insert_project(&mut tx, &project_id, &sandbox_id, user_id, "default", now).await?;
            store::users::set_primary(&mut tx, user_id, &sandbox_id, &project_id).await?;
            let created = json!({ "display_name": name, "sandbox_id": sandbox_id, "project_id": project_id });
            let action = if was_created {
                "profile.create"
            } else {
                "profile.new_primary_sandbox"
            };
            let entry = Record::new(context, action, user_id.as_str())
                .sandbox(&sandbox_id)
                .after(created);
            self.audit(&mut tx, entry).await?;
        }
        let after = find_user(store::users::find(&mut tx, user_id).await?)?;
        let changed = after.display_name != user.display_name || after.canonical_id != user.canonical_id;
        if !was_created && changed {
            let entry = Record::new(context, "profile.update", user_id.as_str())
                .before(json!({ "display_name": user.display_name, "canonical_id": user.canonical_id }))
                .after(json!({ "display_name": after.display_name, "canonical_id": after.canonical_id }));
            self.audit(&mut tx, entry).await?;
        }
        let user = after;
        tx.commit().await?;
        Profile::of(user, was_created).ok_or_else(|| Error::internal("a profile without a name after writing it"))
    }

    pub(crate) async fn get_profile(&self, context: &CallContext) -> Result<Profile> {
        // Whoever holds a key of a grant acts for the grantee in one sandbox; that is not their address and name.
        let user_id = account(context)?;
        let mut conn = self.db.read().await?;
        let user = find_user(store::users::find(&mut conn, user_id).await?)?;
        Profile::of(user, false).ok_or_else(|| {
            Error::new(
                copass_errors::ErrorCode::NotFound,
                "there is no profile yet; make one with `copass setup` or POST /users/me/profile",
            )
        })
    }
}

/// The person's first sandbox. Somebody may have made one of that name before they made a profile; then it is that one.
async fn primary_sandbox(tx: &mut Tx, user_id: &UserId) -> Result<SandboxId> {
    let (owner_id, name) = (user_id.as_str(), "primary");
    if let Some(id) = store::sandboxes::find_named(tx, user_id, owner_id, name).await? {
        return id.parse().map_err(Error::internal);
    }
    let (sandbox_id, sandbox) = new_sandbox(user_id, owner_id, name, "free", json!({}));
    store::sandboxes::insert(tx, &sandbox).await.map_err(name_taken)?;
    Ok(sandbox_id)
}

pub(crate) fn find_user(row: Option<UserRow>) -> Result<UserRow> {
    row.ok_or_else(|| Error::unauthorized("the account behind this credential no longer exists"))
}

/// The id of a row as a typed id.
pub(crate) fn user_id_of(row: &UserRow) -> Result<UserId> {
    row.id.parse().map_err(Error::internal)
}
