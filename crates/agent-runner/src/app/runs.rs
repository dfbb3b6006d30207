//! Reading runs (`rest.md` 12.11, 12.12).
//!
//! Runs of people's agents are open to everybody who may read the sandbox. A run of a system agent is a private
//! conversation: only the person it acts for and the sandbox's owner see it; to others it does not exist.

use copass_errors::{Error, FieldProblem, Result};
use copass_runtime::CallContext;
use copass_store::Db;
use copass_types::{AccessClass, Principal, Role, RunId, SandboxAccess, SandboxId, TriggerId, UserId};

use super::domain::{AgentKind, CONCIERGE_SLUG, Run, RunStatus, Step};
use crate::store::{self, runs::Filter};

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// Which runs of an agent a caller wants to see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// 0 means the default.
    pub(crate) limit: u32,
    pub(crate) before: Option<String>,
    pub(crate) trigger_id: Option<String>,
    pub(crate) status: Option<String>,
}

/// The runs of all sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    db: Db,
}

impl Runs {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }

    /// Runs of an agent, newest first.
    pub(crate) async fn list(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        agent_slug: &str,
        query: &Query,
    ) -> Result<Vec<Run>> {
        let access = context.principal.require(sandbox_id, AccessClass::Read)?;
        let status = query
            .status
            .as_deref()
            .map(|text| {
                RunStatus::from_text(text).ok_or_else(|| {
                    invalid_query(
                        "status",
                        "must be pending, running, succeeded, failed, timeout or cancelled",
                    )
                })
            })
            .transpose()?;
        let limit = if query.limit == 0 {
            DEFAULT_LIMIT
        } else {
            query.limit.min(MAX_LIMIT)
        };
        if query
            .trigger_id
            .as_deref()
            .is_some_and(|trigger_id| trigger_id.parse::<TriggerId>().is_err())
        {
            return Err(invalid_query("trigger_id", "must be the id of a trigger, tr_…"));
        }
        let mut conn = self.db.read().await?;
        let Some(agent) = store::agents::find(&mut conn, sandbox_id, agent_slug).await? else {
            // The Concierge is always there; its row is made by its first turn.
            return if agent_slug == CONCIERGE_SLUG && query.before.is_none() {
                Ok(Vec::new())
            } else {
                Err(Error::not_found("agent"))
            };
        };
        let user_id = match visible_to(agent.kind, &context.principal, access) {
            Visible::All => None,
            Visible::Of(user_id) => Some(user_id),
            Visible::Nothing => return Err(Error::not_found("agent")),
        };
        if let Some(before) = &query.before {
            let cursor = match before.parse::<RunId>() {
                Ok(run_id) => store::runs::find(&mut conn, sandbox_id, &run_id).await?,
                Err(_) => None,
            };
            cursor
                .filter(|(run, _)| run.agent_id == agent.id && user_id.is_none_or(|user_id| run.user_id == *user_id))
                .ok_or_else(|| invalid_query("before", "must be the run_id of a run of this agent"))?;
        }
        let filter = Filter {
            before: query.before.as_deref().unwrap_or(store::runs::AFTER_ALL),
            trigger_id: query.trigger_id.as_deref(),
            status,
            user_id,
            limit: i64::from(limit),
        };
        store::runs::list(&mut conn, sandbox_id, &agent.id, &filter).await
    }

    /// One run with its steps.
    pub(crate) async fn get(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        run_id: &RunId,
    ) -> Result<(Run, Vec<Step>)> {
        let access = context.principal.require(sandbox_id, AccessClass::Read)?;
        let mut conn = self.db.read().await?;
        let (run, _) = store::runs::find(&mut conn, sandbox_id, run_id)
            .await?
            .filter(|(run, kind)| match visible_to(*kind, &context.principal, access) {
                Visible::All => true,
                Visible::Of(user_id) => run.user_id == *user_id,
                Visible::Nothing => false,
            })
            .ok_or_else(|| Error::not_found("run"))?;
        let steps = store::steps::list(&mut conn, sandbox_id, run_id).await?;
        Ok((run, steps))
    }
}

enum Visible<'a> {
    All,
    Of(&'a UserId),
    Nothing,
}

fn visible_to<'a>(kind: AgentKind, principal: &'a Principal, access: &SandboxAccess) -> Visible<'a> {
    match (kind, access.role, &principal.user_id) {
        // People's agents belong to the whole sandbox, so a grant that is limited to one project does not show them.
        (AgentKind::User, _, _) if access.project_id.is_some() => Visible::Nothing,
        (AgentKind::User, _, _) | (AgentKind::System, Role::Owner, _) => Visible::All,
        (AgentKind::System, _, Some(user_id)) => Visible::Of(user_id),
        (AgentKind::System, _, None) => Visible::Nothing,
    }
}

fn invalid_query(field: &str, message: &str) -> Error {
    Error::invalid(vec![FieldProblem::query(field, message)])
}
