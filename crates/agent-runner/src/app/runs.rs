//! Reading runs (`rest.md` 12.11, 12.12).
//!
//! Runs of people's agents are open to everybody who may read the sandbox. A run of a system agent is a private
//! conversation: only the person it acts for and the sandbox's owner see it; to others it does not exist.

use chrono::{DateTime, Utc};
use copass_errors::{Error, FieldProblem, Result};
use copass_runtime::CallContext;
use copass_store::{Conn, Db};
use copass_types::{
    AccessClass, AgentId, Denied, Principal, Role, RunId, SandboxAccess, SandboxId, StepId, TriggerId, UserId,
};

use super::{
    agent_versions,
    domain::{AD_HOC_SLUG, AgentKind, CONCIERGE_SLUG, Run, RunStatus},
    follow_agent::Watched,
    id_window::{self, IdWindow},
    run_detail::{self, ShownStep},
};
use crate::store::{self, run_pages::Filter};

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
    /// Only runs accepted at or after this instant.
    pub(crate) since: Option<DateTime<Utc>>,
    /// Only runs accepted before this instant.
    pub(crate) until: Option<DateTime<Utc>>,
    pub(crate) agent_version: Option<u32>,
}

/// The runs of all sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    pub(super) db: Db,
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
        if query.agent_version == Some(0) {
            return Err(invalid_query("agent_version", "must be at least 1"));
        }
        id_window::check_order(query.since, query.until)?;
        let mut conn = self.db.read().await?;
        let Some(agent) = store::agents::find(&mut conn, sandbox_id, agent_slug).await? else {
            // The system's agents are always there; their rows are made by their first runs.
            return if [CONCIERGE_SLUG, AD_HOC_SLUG].contains(&agent_slug) && query.before.is_none() {
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
        let mut window = IdWindow::new(query.since, query.until);
        if let Some(version) = query.agent_version {
            window = match agent_versions::lifetime(&mut conn, &agent, version).await? {
                Some(lifetime) => window.within(lifetime),
                None => return Ok(Vec::new()),
            };
        }
        if let Some(before) = &query.before {
            window.before = window.before.min(before.clone());
        }
        let filter = Filter {
            from: &window.from,
            before: &window.before,
            trigger_id: query.trigger_id.as_deref(),
            status,
            user_id,
            agent_version: query.agent_version.map(i64::from),
            limit: i64::from(limit),
        };
        store::run_pages::list(&mut conn, sandbox_id, &agent.id, &filter).await
    }

    /// One run with its steps as they are shown.
    pub(crate) async fn get(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        run_id: &RunId,
    ) -> Result<(Run, Vec<ShownStep>)> {
        let mut conn = self.db.read().await?;
        let run = visible_run(&mut conn, context, sandbox_id, run_id).await?;
        let steps = run_detail::steps(&mut conn, sandbox_id, run_id).await?;
        Ok((run, steps))
    }

    /// The whole result of a tool call, with the tool's name.
    pub(crate) async fn step_result(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        run_id: &RunId,
        step_id: &StepId,
    ) -> Result<(String, String)> {
        let mut conn = self.db.read().await?;
        visible_run(&mut conn, context, sandbox_id, run_id).await?;
        store::steps::result(&mut conn, sandbox_id, run_id, step_id)
            .await?
            .ok_or_else(|| Error::not_found("step with a result"))
    }

    /// A run that the caller may follow.
    pub(crate) async fn followable(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        run_id: &RunId,
    ) -> Result<Run> {
        visible_run(&mut self.db.read().await?, context, sandbox_id, run_id).await
    }

    /// The runs of an agent that the caller may follow.
    pub(crate) async fn watched(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        agent_slug: &str,
    ) -> Result<Watched> {
        let access = context.principal.require(sandbox_id, AccessClass::Read)?;
        let mut conn = self.db.read().await?;
        let agent = store::agents::find(&mut conn, sandbox_id, agent_slug)
            .await?
            .ok_or_else(|| Error::not_found("agent"))?;
        let user_id = match visible_to(agent.kind, &context.principal, access) {
            Visible::All => None,
            Visible::Of(user_id) => Some(user_id.clone()),
            Visible::Nothing => return Err(Error::not_found("agent")),
        };
        Ok(Watched {
            sandbox_id: sandbox_id.clone(),
            agent_id: agent.id,
            user_id,
        })
    }
}

/// A run that the caller may read: an agent key reads those it started.
async fn visible_run(conn: &mut Conn, context: &CallContext, sandbox_id: &SandboxId, run_id: &RunId) -> Result<Run> {
    let principal = &context.principal;
    if principal.agent_key.is_none() {
        principal.require(sandbox_id, AccessClass::Read)?;
    }
    let found = store::runs::find(conn, sandbox_id, run_id).await?;
    if principal.agent_key.is_some() {
        let agent_id = found.as_ref().map(|(run, _)| run.agent_id.clone());
        // A run that is not there, or another agent's, is told apart from no other that the key may not read.
        let agent_id = agent_id.unwrap_or_else(AgentId::generate);
        principal.require_agent(sandbox_id, AccessClass::Read, &agent_id)?;
        return found
            .map(|(run, _)| run)
            .filter(|run| run.api_key_id.is_some() && run.api_key_id == principal.api_key_id)
            .ok_or_else(|| Denied::OutsideAgentKey.into());
    }
    let access = principal.require(sandbox_id, AccessClass::Read)?;
    found
        .filter(|(run, kind)| is_visible(run, *kind, principal, access))
        .map(|(run, _)| run)
        .ok_or_else(|| Error::not_found("run"))
}

/// Whether the caller, who may read the sandbox, may know of the run.
pub(crate) fn is_visible(run: &Run, kind: AgentKind, principal: &Principal, access: &SandboxAccess) -> bool {
    match visible_to(kind, principal, access) {
        Visible::All => true,
        Visible::Of(user_id) => run.user_id == *user_id,
        Visible::Nothing => false,
    }
}

pub(super) enum Visible<'a> {
    All,
    Of(&'a UserId),
    Nothing,
}

pub(super) fn visible_to<'a>(kind: AgentKind, principal: &'a Principal, access: &SandboxAccess) -> Visible<'a> {
    match (kind, access.role, &principal.user_id) {
        // People's agents belong to the whole sandbox, so a grant that is limited to one project does not show them.
        (AgentKind::User, _, _) if access.project_id.is_some() => Visible::Nothing,
        (AgentKind::User, _, _) | (AgentKind::System, Role::Owner, _) => Visible::All,
        (AgentKind::System, _, Some(user_id)) => Visible::Of(user_id),
        (AgentKind::System, _, None) => Visible::Nothing,
    }
}

pub(super) fn invalid_query(field: &str, message: &str) -> Error {
    Error::invalid(vec![FieldProblem::query(field, message)])
}
