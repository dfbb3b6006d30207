//! Profiles (`rest.md` 2). The first call also makes a primary sandbox and a default project.

use chrono::{DateTime, Utc};
use copass_errors::{Error, FieldProblem, Result};
use copass_runtime::{CallContext, clock};
use copass_types::{ProjectId, UserId, validate};
use serde_json::{Value, json};

use super::{App, account, audit::Entry, person, sandboxes::new_sandbox};
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
        store::users::lock(&mut tx, user_id, now).await?;
        let user = find_user(store::users::find(&mut tx, user_id).await?)?;
        let was_created = user.profile_created_at.is_none();
        let name = display_name
            .map(str::to_owned)
            .or_else(|| user.display_name.clone())
            .or_else(|| user.email.as_deref().and_then(|email| email.split('@').next()).map(str::to_owned))
            .unwrap_or_else(|| "me".to_owned());
        store::users::set_profile(&mut tx, user_id, &name, canonical_id, now).await?;
        if was_created {
            let (sandbox_id, sandbox) = new_sandbox(user_id, user_id.as_str(), "primary", "free", json!({}));
            store::sandboxes::insert(&mut tx, &sandbox).await?;
            let project_id = ProjectId::generate();
            store::sandboxes::insert_project(&mut tx, &project_id, &sandbox_id, user_id, "default", now).await?;
            store::users::set_primary(&mut tx, user_id, &sandbox_id, &project_id).await?;
            let created = json!({ "display_name": name, "sandbox_id": sandbox_id, "project_id": project_id });
            let entry = Entry::new("profile.create", user_id.as_str()).sandbox(&sandbox_id).after(created);
            self.audit(&mut tx, context, entry).await?;
        } else if user.display_name.as_deref() != Some(name.as_str()) {
            let entry = Entry::new("profile.update", user_id.as_str())
                .before(json!({ "display_name": user.display_name }))
                .after(json!({ "display_name": name }));
            self.audit(&mut tx, context, entry).await?;
        }
        let user = find_user(store::users::find(&mut tx, user_id).await?)?;
        tx.commit().await?;
        Profile::of(user, was_created).ok_or_else(|| Error::internal("a profile without a name after writing it"))
    }

    pub(crate) async fn get_profile(&self, context: &CallContext) -> Result<Profile> {
        let user_id = person(context)?;
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

pub(crate) fn find_user(row: Option<UserRow>) -> Result<UserRow> {
    row.ok_or_else(|| Error::unauthorized("the account behind this credential no longer exists"))
}

/// The id of a row as a typed id.
pub(crate) fn user_id_of(row: &UserRow) -> Result<UserId> {
    row.id.parse().map_err(Error::internal)
}
