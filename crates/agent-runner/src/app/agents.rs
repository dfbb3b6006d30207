//! Making and reading agents (`rest.md` 12.1 to 12.3).

use copass_errors::{Error, ErrorCode, FieldProblem, Result};
use copass_runtime::{CallContext, MasterKey, clock};
use copass_store::{
    Db,
    idempotency::{Idempotency, KeyedRequest},
};
use copass_types::{AccessClass, AgentId, Principal, SandboxId, UserId};

use super::{
    agent_rules::Draft,
    domain::{Agent, AgentKind, AgentStatus},
};
use crate::store;

const IDEMPOTENCY_KEY_MAX_CHARS: usize = 255;

/// An `Idempotency-Key` with the content it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(crate) key: String,
    /// The encoded request without the key.
    pub(crate) request: Vec<u8>,
}

/// How an answer is kept for a repeat; the edge knows its wire form.
pub(crate) trait AnswerCodec {
    /// The answer as bytes.
    fn encode(agent: &Agent) -> Vec<u8>;
}

/// What making an agent gives.
#[derive(Debug)]
pub(crate) enum Created {
    /// Made now.
    Now(Box<Agent>),
    /// Made by an earlier request with the same key: that request's answer.
    Before(Vec<u8>),
}

/// The agents of all sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    db: Db,
    idempotency: Idempotency,
}

impl Agents {
    pub(crate) fn new(db: Db, master_key: MasterKey) -> Self {
        Self {
            idempotency: Idempotency::new(db.clone(), master_key),
            db,
        }
    }

    /// Makes an agent with its version 1.
    pub(crate) async fn create<C: AnswerCodec>(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        draft: Draft,
        keyed: Option<Keyed>,
    ) -> Result<Created> {
        let access = context.principal.require(sandbox_id, AccessClass::Build)?;
        let keyed = keyed
            .map(|keyed| keyed_request(&context.principal, sandbox_id, keyed))
            .transpose()?;
        // A repeat gets its answer even when the rules have changed since.
        if let Some(answer) = self.replay(keyed.as_ref()).await? {
            return Ok(Created::Before(answer));
        }
        let agent = agent(sandbox_id, &access.owner_user_id, draft)?;
        let created_by = actor(&context.principal);
        match self.insert::<C>(&agent, &created_by, keyed.as_ref()).await {
            Ok(()) => Ok(Created::Now(Box::new(agent))),
            // Somebody was faster. If that was the same request, its answer is ours too.
            Err(error) if matches!(error.code(), ErrorCode::Conflict | ErrorCode::IdempotencyConflict) => {
                match self.replay(keyed.as_ref()).await? {
                    Some(answer) => Ok(Created::Before(answer)),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn replay(&self, keyed: Option<&KeyedRequest>) -> Result<Option<Vec<u8>>> {
        match keyed {
            Some(request) => self.idempotency.replay(request).await,
            None => Ok(None),
        }
    }

    async fn insert<C: AnswerCodec>(
        &self,
        agent: &Agent,
        created_by: &str,
        keyed: Option<&KeyedRequest>,
    ) -> Result<()> {
        let mut tx = self.db.begin().await?;
        // The key first: of two equal requests the second one waits here until the first is committed.
        if let Some(request) = keyed
            && let Err(error) = self.idempotency.remember(&mut tx, request, &C::encode(agent)).await
        {
            tx.rollback().await?;
            return Err(error);
        }
        if !store::agents::insert(&mut tx, agent).await? {
            let holder = store::agents::find(&mut tx, &agent.sandbox_id, &agent.slug).await?;
            tx.rollback().await?;
            return Err(slug_taken(&agent.slug, holder.as_ref()));
        }
        store::agents::insert_version(&mut tx, agent, created_by, agent.created_at).await?;
        tx.commit().await?;
        Ok(())
    }

    /// People's agents of the sandbox, newest first.
    pub(crate) async fn list(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        status: Option<&str>,
    ) -> Result<Vec<Agent>> {
        context.principal.require(sandbox_id, AccessClass::Read)?;
        let status = status
            .map(|text| {
                AgentStatus::from_text(text)
                    .ok_or_else(|| Error::invalid(vec![FieldProblem::query("status", "must be active or archived")]))
            })
            .transpose()?;
        let mut conn = self.db.read().await?;
        store::agents::list(&mut conn, sandbox_id, status).await
    }

    /// One of people's agents; the system's are nobody's to look at.
    pub(crate) async fn get(&self, context: &CallContext, sandbox_id: &SandboxId, slug: &str) -> Result<Agent> {
        context.principal.require(sandbox_id, AccessClass::Read)?;
        let mut conn = self.db.read().await?;
        store::agents::find(&mut conn, sandbox_id, slug)
            .await?
            .filter(|agent| agent.kind == AgentKind::User)
            .ok_or_else(|| Error::not_found("agent"))
    }
}

fn agent(sandbox_id: &SandboxId, owner: &UserId, draft: Draft) -> Result<Agent> {
    let model_settings = draft.check()?;
    let now = clock::now();
    Ok(Agent {
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
    })
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
fn actor(principal: &Principal) -> String {
    match &principal.user_id {
        Some(user_id) => user_id.to_string(),
        None => principal.via.first().cloned().unwrap_or_else(|| "system".to_owned()),
    }
}

fn keyed_request(principal: &Principal, sandbox_id: &SandboxId, keyed: Keyed) -> Result<KeyedRequest> {
    copass_types::validate::name(&keyed.key, IDEMPOTENCY_KEY_MAX_CHARS)
        .map_err(|message| Error::new(ErrorCode::InvalidRequest, format!("the Idempotency-Key {message}")))?;
    let scope = format!("agent-runner create_agent {sandbox_id} {}", actor(principal));
    Ok(KeyedRequest::new(scope, keyed.key, &keyed.request))
}
