//! Agents as they are now.

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_store::{AsConn, Json, Tx, execute, fetch_all, fetch_optional};
use copass_types::{AgentId, SandboxId, UserId};

use super::{stored, stored_word};
use crate::app::domain::{AD_HOC_SLUG, Agent, AgentKind, AgentStatus, ModelSettings, SYSTEM_AGENT_VERSION};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    sandbox_id: String,
    user_id: String,
    slug: String,
    kind: String,
    name: String,
    description: Option<String>,
    system_prompt: String,
    tool_allowlist: Json<Vec<String>>,
    tool_sources: Option<Json<Vec<String>>>,
    model_settings: Json<ModelSettings>,
    status: String,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    fn agent(self) -> Result<Agent> {
        Ok(Agent {
            id: stored(&self.id, "agent id")?,
            sandbox_id: stored(&self.sandbox_id, "sandbox id")?,
            user_id: stored(&self.user_id, "user id")?,
            slug: self.slug,
            kind: stored_word(AgentKind::from_text(&self.kind), &self.kind, "agent kind")?,
            name: self.name,
            description: self.description,
            system_prompt: self.system_prompt,
            tool_allowlist: self.tool_allowlist.0,
            tool_sources: self.tool_sources.map(|sources| sources.0),
            model_settings: self.model_settings.0,
            status: stored_word(AgentStatus::from_text(&self.status), &self.status, "agent status")?,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Adds an agent unless its slug is taken in the sandbox; says whether it was added.
pub(crate) async fn insert(tx: &mut Tx, agent: &Agent) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "insert into agents (id, sandbox_id, user_id, slug, kind, name, description, system_prompt, tool_allowlist, \
         tool_sources, model_settings, status, version, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         on conflict (sandbox_id, slug) do nothing",
        agent.id.as_str(),
        agent.sandbox_id.as_str(),
        agent.user_id.as_str(),
        &agent.slug,
        agent.kind.as_str(),
        &agent.name,
        agent.description.as_deref(),
        &agent.system_prompt,
        Json(&agent.tool_allowlist),
        agent.tool_sources.as_ref().map(Json),
        Json(&agent.model_settings),
        agent.status.as_str(),
        agent.version,
        agent.created_at,
        agent.updated_at,
    )?;
    Ok(rows == 1)
}

/// Writes everything that can change about an agent; `false` when it is not in the version any more that the change was
/// made for, and nothing was written.
pub(crate) async fn update(tx: &mut Tx, agent: &Agent, from_version: i64) -> copass_store::Result<bool> {
    let rows = execute!(
        *tx,
        "update agents set name = $4, description = $5, system_prompt = $6, tool_allowlist = $7, tool_sources = $8, \
         model_settings = $9, status = $10, version = $11, updated_at = $12 \
         where id = $1 and sandbox_id = $2 and version = $3",
        agent.id.as_str(),
        agent.sandbox_id.as_str(),
        from_version,
        &agent.name,
        agent.description.as_deref(),
        &agent.system_prompt,
        Json(&agent.tool_allowlist),
        agent.tool_sources.as_ref().map(Json),
        Json(&agent.model_settings),
        agent.status.as_str(),
        agent.version,
        agent.updated_at,
    )?;
    Ok(rows == 1)
}

/// The agent with the slug, system agents included.
pub(crate) async fn find<C: AsConn>(conn: &mut C, sandbox_id: &SandboxId, slug: &str) -> Result<Option<Agent>> {
    // PostgreSQL refuses to compare with such a text; no slug holds one.
    if slug.contains('\0') {
        return Ok(None);
    }
    fetch_optional!(
        *conn,
        Row,
        "select id, sandbox_id, user_id, slug, kind, name, description, system_prompt, tool_allowlist, tool_sources, \
         model_settings, status, version, created_at, updated_at from agents where sandbox_id = $1 and slug = $2",
        sandbox_id.as_str(),
        slug,
    )?
    .map(Row::agent)
    .transpose()
}

/// The agent with the id, system agents included.
pub(crate) async fn find_by_id<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    agent_id: &AgentId,
) -> Result<Option<Agent>> {
    fetch_optional!(
        *conn,
        Row,
        "select id, sandbox_id, user_id, slug, kind, name, description, system_prompt, tool_allowlist, tool_sources, \
         model_settings, status, version, created_at, updated_at from agents where sandbox_id = $1 and id = $2",
        sandbox_id.as_str(),
        agent_id.as_str(),
    )?
    .map(Row::agent)
    .transpose()
}

/// People's agents, newest first, up to `limit`; of all of them or those in one status, and of those made before one of
/// them. In the order of their ids, which begin with the time.
pub(crate) async fn list<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    status: Option<AgentStatus>,
    before: Option<&AgentId>,
    limit: usize,
) -> Result<Vec<Agent>> {
    fetch_all!(
        *conn,
        Row,
        "select id, sandbox_id, user_id, slug, kind, name, description, system_prompt, tool_allowlist, tool_sources, \
         model_settings, status, version, created_at, updated_at from agents \
         where sandbox_id = $1 and kind = 'user' and (cast($2 as text) is null or status = $2) \
         and (cast($3 as text) is null or id < $3) order by id desc limit $4",
        sandbox_id.as_str(),
        status.map(AgentStatus::as_str),
        before.map(AgentId::as_str),
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?
    .into_iter()
    .map(Row::agent)
    .collect()
}

/// The sandbox's system agent with the slug, made when it is not there yet. Two turns may both want to make it; the
/// constraint lets one win and the other read.
pub(crate) async fn ensure_system(
    tx: &mut Tx,
    sandbox_id: &SandboxId,
    owner: &UserId,
    slug: &str,
    settings: &ModelSettings,
    now: DateTime<Utc>,
) -> Result<AgentId> {
    if let Some(agent_id) = system_id(tx, sandbox_id, slug).await? {
        return Ok(agent_id);
    }
    let (name, description, tool_sources) = if slug == AD_HOC_SLUG {
        ("Stateless runs", "Stands for runs that bring their own prompt.", None)
    } else {
        let sources = Some(vec!["copass_management".to_owned()]);
        ("Concierge", "Manages the sandbox in conversation.", sources)
    };
    let agent = Agent {
        id: AgentId::generate(),
        sandbox_id: sandbox_id.clone(),
        user_id: owner.clone(),
        slug: slug.to_owned(),
        kind: AgentKind::System,
        name: name.to_owned(),
        description: Some(format!("{description} Part of the system.")),
        system_prompt: String::new(),
        tool_allowlist: Vec::new(),
        tool_sources,
        model_settings: settings.clone(),
        status: AgentStatus::Active,
        version: SYSTEM_AGENT_VERSION,
        created_at: now,
        updated_at: now,
    };
    if insert(tx, &agent).await? {
        return Ok(agent.id);
    }
    system_id(tx, sandbox_id, slug)
        .await?
        .ok_or_else(|| copass_errors::Error::internal(format!("the slug {slug:?} is taken by no system agent")))
}

async fn system_id(tx: &mut Tx, sandbox_id: &SandboxId, slug: &str) -> Result<Option<AgentId>> {
    fetch_optional!(
        *tx,
        (String,),
        "select id from agents where sandbox_id = $1 and slug = $2 and kind = 'system'",
        sandbox_id.as_str(),
        slug,
    )?
    .map(|(id,)| stored(&id, "agent id"))
    .transpose()
}

/// What one slice of a sandbox's end deletes, in order and by the tables' own indexes. What hangs on a row comes before
/// it: the rows that a cascade would take cannot be counted. Only the first rows are looked at, so that a slice does not
/// search all those whose parts are gone.
const SLICES: [&str; 7] = [
    "delete from run_steps where id in (select part.id from \
     (select id from runs where sandbox_id = $1 order by id limit 500) whole \
     join run_steps part on part.run_id = whole.id limit 1000)",
    "delete from step_results where step_id in (select part.step_id from \
     (select id from runs where sandbox_id = $1 order by id limit 500) whole \
     join step_results part on part.run_id = whole.id limit 100)",
    "delete from runs where id in (select id from runs where sandbox_id = $1 order by id limit 500)",
    "delete from conversation_messages where (session_id, seq) in (select part.session_id, part.seq from \
     (select id from conversations where sandbox_id = $1 limit 100) whole \
     join conversation_messages part on part.session_id = whole.id limit 500)",
    "delete from conversations where id in (select id from conversations where sandbox_id = $1 limit 100)",
    "delete from agent_versions where (agent_id, version) in (select part.agent_id, part.version from \
     (select id from agents where sandbox_id = $1 order by slug limit 100) whole \
     join agent_versions part on part.agent_id = whole.id limit 500)",
    "delete from agents where id in (select id from agents where sandbox_id = $1 order by slug limit 100)",
];

/// Deletes a part of what the sandbox has: agents with their versions, conversations, runs and steps. How many rows; none
/// when there is nothing left.
pub(crate) async fn delete_some_of_sandbox(tx: &mut Tx, sandbox_id: &SandboxId) -> copass_store::Result<u64> {
    for slice in SLICES {
        let rows = execute!(*tx, slice, sandbox_id.as_str())?;
        if rows > 0 {
            return Ok(rows);
        }
    }
    Ok(0)
}
