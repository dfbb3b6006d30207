//! Making and reading agents (`rest.md` 12.1 to 12.3), and the tools they could use (12.13).

use std::sync::Arc;

use copass_errors::{Error, FieldProblem, Result};
use copass_runtime::{CallContext, MasterKey, clock};
use copass_store::{
    Db,
    audit::{self, Record},
    idempotency::{Idempotency, KeyedRequest},
    outbox::Outbox,
};
use copass_types::{AccessClass, AgentId, Principal, SandboxAccess, SandboxId, UserId};
use futures::future::join_all;
use serde_json::json;

use super::{
    agent_rules::{self, Draft},
    domain::{Agent, AgentKind, AgentStatus},
    tool_sources::{Resolution, Resolver, Seeker},
};
use crate::store;

/// In the audit log.
const CREATE_ACTION: &str = "agent.create";

/// Agents on a page of their list: with the longest prompts, allowlists and descriptions that an agent may have, all of
/// them fit into one message.
const PAGE: usize = 10;

/// An `Idempotency-Key` with the content it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(crate) key: String,
    /// The encoded request without the key.
    pub(crate) request: Vec<u8>,
}

/// What whoever changed an agent should know about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Notes {
    /// Sentences.
    pub(crate) warnings: Vec<String>,
    /// Allowlist entries that match no tool there is now.
    pub(crate) missing_entries: Vec<String>,
}

/// The answer to a request that makes or changes an agent, and how it is kept for a repeat; the edge knows its wire form.
pub(crate) trait AnswerCodec {
    /// The answer.
    type Answer: Send;
    /// The answer that says this.
    fn answer(agent: &Agent, notes: &Notes) -> Self::Answer;
    /// The answer as bytes.
    fn encode(answer: &Self::Answer) -> Vec<u8>;
    /// The answer that was kept.
    fn decode(bytes: &[u8]) -> Result<Self::Answer>;
}

/// The agents of all sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    pub(super) db: Db,
    pub(super) idempotency: Idempotency,
    pub(super) outbox: Outbox,
    resolver: Arc<Resolver>,
}

impl Agents {
    pub(crate) fn new(db: Db, master_key: MasterKey, outbox: Outbox, resolver: Arc<Resolver>) -> Self {
        Self {
            idempotency: Idempotency::new(db.clone(), master_key),
            db,
            outbox,
            resolver,
        }
    }

    /// Makes an agent with its version 1, or gives the first answer again when the key was used before.
    pub(crate) async fn create<C: AnswerCodec>(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        draft: Draft,
        keyed: Option<Keyed>,
    ) -> Result<C::Answer> {
        let target = draft.slug.clone();
        // Boxed: the insert's statements make it too large for the stack of every caller.
        let outcome = Box::pin(self.try_create::<C>(context, sandbox_id, draft, keyed)).await;
        let record = Record::new(context, CREATE_ACTION, target).sandbox(sandbox_id);
        audit::note_denial(&self.db, &self.outbox, record, outcome).await
    }

    async fn try_create<C: AnswerCodec>(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        draft: Draft,
        keyed: Option<Keyed>,
    ) -> Result<C::Answer> {
        let access = context.principal.require_whole(sandbox_id, AccessClass::Build)?;
        let keyed = keyed
            .map(|keyed| keyed_request("create_agent", &context.principal, sandbox_id, keyed))
            .transpose()?;
        let work = async {
            let agent = agent(sandbox_id, &access.owner_user_id, draft)?;
            let notes = self.notes(&seeker(context, access), &agent).await;
            let answer = C::answer(&agent, &notes);
            let kept = keyed.as_ref().map(|request| (request, C::encode(&answer)));
            self.insert(context, &agent, kept).await?;
            Ok(answer)
        };
        self.idempotency.once(keyed.as_ref(), C::decode, work).await
    }

    async fn insert(&self, context: &CallContext, agent: &Agent, kept: Option<(&KeyedRequest, Vec<u8>)>) -> Result<()> {
        let mut tx = self.db.begin().await?;
        // The key first: of two equal requests the second one waits here until the first is committed.
        if let Some((request, answer)) = kept {
            self.idempotency.remember(&mut tx, request, &answer).await?;
        }
        if !store::agents::insert(&mut tx, agent).await? {
            let holder = store::agents::find(&mut tx, &agent.sandbox_id, &agent.slug).await?;
            return Err(slug_taken(&agent.slug, holder.as_ref()));
        }
        store::agent_versions::insert(&mut tx, agent, &actor(&context.principal), None).await?;
        let record = Record::new(context, CREATE_ACTION, &agent.id)
            .sandbox(&agent.sandbox_id)
            .after(json!({ "slug": agent.slug, "name": agent.name, "version": agent.version }));
        self.outbox.add(&mut tx, &record.into_message()).await?;
        tx.commit().await?;
        self.outbox.wake();
        Ok(())
    }

    /// A page of people's agents of the sandbox, newest first, and what to ask for the next one with.
    pub(crate) async fn list(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        status: Option<&str>,
        before: Option<&AgentId>,
    ) -> Result<(Vec<(Agent, Notes)>, Option<AgentId>)> {
        let access = context.principal.require_whole(sandbox_id, AccessClass::Read)?;
        let status = status
            .map(|text| {
                AgentStatus::from_text(text)
                    .ok_or_else(|| Error::invalid(vec![FieldProblem::query("status", "must be active or archived")]))
            })
            .transpose()?;
        let mut conn = self.db.read().await?;
        let mut agents = store::agents::list(&mut conn, sandbox_id, status, before, PAGE + 1).await?;
        let next = if agents.len() > PAGE {
            agents.truncate(PAGE);
            agents.last().map(|last| last.id.clone())
        } else {
            None
        };
        drop(conn);
        let seeker = seeker(context, access);
        let notes = join_all(agents.iter().map(|agent| self.notes(&seeker, agent))).await;
        Ok((agents.into_iter().zip(notes).collect(), next))
    }

    /// One of people's agents; the system's are nobody's to look at.
    pub(crate) async fn get(&self, context: &CallContext, sandbox_id: &SandboxId, slug: &str) -> Result<Agent> {
        context.principal.require_whole(sandbox_id, AccessClass::Read)?;
        self.present(sandbox_id, slug).await
    }

    /// As [`Self::get`], with what there is to say about it.
    pub(crate) async fn get_noted(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        slug: &str,
    ) -> Result<(Agent, Notes)> {
        let access = context.principal.require_whole(sandbox_id, AccessClass::Read)?;
        let agent = self.present(sandbox_id, slug).await?;
        let notes = self.notes(&seeker(context, access), &agent).await;
        Ok((agent, notes))
    }

    /// As [`Self::get`], for callers whose rights were checked.
    pub(super) async fn present(&self, sandbox_id: &SandboxId, slug: &str) -> Result<Agent> {
        let mut conn = self.db.read().await?;
        store::agents::find(&mut conn, sandbox_id, slug)
            .await?
            .filter(|agent| agent.kind == AgentKind::User)
            .ok_or_else(|| Error::not_found("agent"))
    }

    /// The tools that the caller's runs could use, by app and name, with what was found out about their sources.
    pub(crate) async fn list_tools(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        app_slug: Option<&str>,
    ) -> Result<Resolution> {
        let access = context.principal.require_whole(sandbox_id, AccessClass::Read)?;
        let mut resolution = self.resolver.resolve(&seeker(context, access), None, &[]).await;
        resolution
            .tools
            .retain(|tool| app_slug.is_none_or(|app_slug| tool.app_slug == app_slug));
        resolution
            .tools
            .sort_by(|one, other| (&one.app_slug, &one.spec.name).cmp(&(&other.app_slug, &other.spec.name)));
        Ok(resolution)
    }

    /// What there is to say about an agent as it is, or is about to be. From the code that builds a run's tools, so that
    /// nobody has to run an agent to learn that its allowlist is stale.
    pub(super) async fn notes(&self, seeker: &Seeker, agent: &Agent) -> Notes {
        let sources = agent.tool_sources.as_deref();
        let resolution = self.resolver.resolve(seeker, sources, &agent.tool_allowlist).await;
        let mut warnings = Vec::new();
        if agent.status == AgentStatus::Archived {
            warnings.push("the agent is archived and does not run; set its status to active to get it back".to_owned());
        }
        if sources.is_some_and(<[String]>::is_empty) && !agent.tool_allowlist.is_empty() {
            warnings.push(
                "tool_sources is empty, which means no tools, so the allowlist allows nothing; set tool_sources to null \
                 for the default set"
                    .to_owned(),
            );
        }
        warnings.extend(resolution.warnings);
        Notes {
            warnings,
            missing_entries: resolution.missing_entries,
        }
    }
}

/// Tools as the caller's own runs would get them.
pub(super) fn seeker(context: &CallContext, access: &SandboxAccess) -> Seeker {
    Seeker {
        context: context.clone(),
        sandbox_id: access.sandbox_id.clone(),
        owner: access.owner_user_id.clone(),
        identity: context.principal.user_id.clone(),
        end_user_id: None,
    }
}

fn agent(sandbox_id: &SandboxId, owner: &UserId, draft: Draft) -> Result<Agent> {
    let model_settings = draft.check()?;
    let now = clock::now();
    let agent = Agent {
        id: AgentId::generate(),
        sandbox_id: sandbox_id.clone(),
        user_id: owner.clone(),
        slug: draft.slug,
        kind: AgentKind::User,
        name: draft.name,
        description: draft.description,
        system_prompt: draft.system_prompt,
        tool_allowlist: draft.tool_allowlist,
        tool_sources: None,
        model_settings,
        status: AgentStatus::Active,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    agent_rules::refuse_new_secrets(&agent, None)?;
    Ok(agent)
}

fn slug_taken(slug: &str, holder: Option<&Agent>) -> Error {
    let hint = match holder.map(|agent| agent.status) {
        Some(AgentStatus::Archived) => {
            "it is archived: set its status to active to get it back, or choose another slug"
        }
        _ => "update that one, or choose another slug",
    };
    Error::conflict(format!(
        "an agent with the slug '{slug}' exists in this sandbox; {hint}"
    ))
}

/// Who made a version: the person, or the service that acted for itself.
pub(super) fn actor(principal: &Principal) -> String {
    match &principal.user_id {
        Some(user_id) => user_id.to_string(),
        None => principal.via.first().cloned().unwrap_or_else(|| "system".to_owned()),
    }
}

pub(super) fn keyed_request(
    operation: &str,
    principal: &Principal,
    sandbox_id: &SandboxId,
    keyed: Keyed,
) -> Result<KeyedRequest> {
    let scope = format!("agent-runner {operation} {sandbox_id} {}", actor(principal));
    KeyedRequest::checked(scope, keyed.key, &keyed.request)
}
