//! Making and reading agents (`rest.md` 12.1 to 12.3).

use copass_errors::{Error, FieldProblem, Result};
use copass_runtime::{CallContext, MasterKey, clock};
use copass_store::{
    Db,
    audit::{self, Record},
    idempotency::{Idempotency, KeyedRequest},
    outbox::Outbox,
};
use copass_types::{AccessClass, AgentId, Principal, SandboxId, UserId};

use super::{
    agent_rules::Draft,
    domain::{Agent, AgentKind, AgentStatus},
};
use serde_json::json;

use crate::store;

/// In the audit log.
const CREATE_ACTION: &str = "agent.create";

/// An `Idempotency-Key` with the content it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Keyed {
    pub(crate) key: String,
    /// The encoded request without the key.
    pub(crate) request: Vec<u8>,
}

/// The answer to a request that makes an agent, and how it is kept for a repeat; the edge knows its wire form.
pub(crate) trait AnswerCodec {
    /// The answer.
    type Answer: Send;
    /// The answer that says this.
    fn answer(agent: &Agent) -> Self::Answer;
    /// The answer as bytes.
    fn encode(answer: &Self::Answer) -> Vec<u8>;
    /// The answer that was kept.
    fn decode(bytes: &[u8]) -> Result<Self::Answer>;
}

/// The agents of all sandboxes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    db: Db,
    idempotency: Idempotency,
    outbox: Outbox,
}

impl Agents {
    pub(crate) fn new(db: Db, master_key: MasterKey, outbox: Outbox) -> Self {
        Self {
            idempotency: Idempotency::new(db.clone(), master_key),
            db,
            outbox,
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
            .map(|keyed| keyed_request(&context.principal, sandbox_id, keyed))
            .transpose()?;
        let work = async {
            let agent = agent(sandbox_id, &access.owner_user_id, draft)?;
            let answer = C::answer(&agent);
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
        let created_by = actor(&context.principal);
        store::agents::insert_version(&mut tx, agent, &created_by, agent.created_at).await?;
        let record = Record::new(context, CREATE_ACTION, &agent.id)
            .sandbox(&agent.sandbox_id)
            .after(json!({ "slug": agent.slug, "name": agent.name, "version": agent.version }));
        self.outbox.add(&mut tx, &record.into_message()).await?;
        tx.commit().await?;
        self.outbox.wake();
        Ok(())
    }

    /// People's agents of the sandbox, newest first.
    pub(crate) async fn list(
        &self,
        context: &CallContext,
        sandbox_id: &SandboxId,
        status: Option<&str>,
    ) -> Result<Vec<Agent>> {
        context.principal.require_whole(sandbox_id, AccessClass::Read)?;
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
        context.principal.require_whole(sandbox_id, AccessClass::Read)?;
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
    let scope = format!("agent-runner create_agent {sandbox_id} {}", actor(principal));
    KeyedRequest::checked(scope, keyed.key, &keyed.request)
}
