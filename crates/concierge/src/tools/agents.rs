//! Agent tools.

use async_trait::async_trait;
use copass_errors::{Error, Result};
use copass_proto::agent::{Agent, CreateAgentRequest, GetAgentRequest, ListAgentsRequest, ModelSettings};
use serde_json::{Value, json};

use super::{Tool, ToolContext, instant, small_number, text};

pub(crate) struct ListAgents;
pub(crate) struct GetAgent;
pub(crate) struct CreateAgent;

fn row(agent: &Agent) -> Value {
    json!({
        "agent_id": agent.agent_id,
        "slug": agent.slug,
        "name": agent.name,
        "status": agent.status,
        "description": agent.description,
        "version": agent.version,
        "created_at": instant(agent.created_at.as_ref()),
        "updated_at": instant(agent.updated_at.as_ref()),
    })
}

fn model_settings(settings: Option<&ModelSettings>) -> Value {
    let settings = settings.cloned().unwrap_or_default();
    json!({
        "backend": settings.backend,
        "model": settings.model,
        "compute_provider": settings.compute_provider,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "max_turns": settings.max_turns,
        "timeout_s": settings.timeout_s,
    })
}

#[async_trait]
impl Tool for ListAgents {
    fn name(&self) -> &'static str {
        "list_agents"
    }

    fn description(&self) -> &'static str {
        "Lists the agents of this sandbox."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({ "status": { "type": "string", "enum": ["active", "archived"], "description": "Only these; all when absent." } })
    }

    fn tells_errors(&self) -> bool {
        false
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let request = ListAgentsRequest {
            sandbox_id: context.sandbox_id.to_string(),
            status: text(&arguments, "status"),
        };
        let mut agents = context.clients.agents.clone();
        let list = agents
            .list_agents(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        let rows: Vec<Value> = list.agents.iter().map(row).collect();
        Ok(json!({ "count": rows.len(), "agents": rows }))
    }
}

#[async_trait]
impl Tool for GetAgent {
    fn name(&self) -> &'static str {
        "get_agent"
    }

    fn description(&self) -> &'static str {
        "Shows one agent: prompt, model settings, tool allowlist."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({ "slug": { "type": "string", "minLength": 1, "description": "The agent's slug." } })
    }

    fn required(&self) -> &'static [&'static str] {
        &["slug"]
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let request = GetAgentRequest {
            sandbox_id: context.sandbox_id.to_string(),
            slug: text(&arguments, "slug").unwrap_or_default(),
        };
        let mut agents = context.clients.agents.clone();
        let agent = agents
            .get_agent(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        let mut value = row(&agent);
        value["system_prompt"] = json!(agent.system_prompt);
        value["tool_allowlist"] = json!(agent.tool_allowlist);
        value["model_settings"] = model_settings(agent.model_settings.as_ref());
        Ok(json!({ "agent": value }))
    }
}

#[async_trait]
impl Tool for CreateAgent {
    fn name(&self) -> &'static str {
        "create_agent"
    }

    fn description(&self) -> &'static str {
        "Creates an agent. The slug cannot change later. Confirm slug and prompt with the person first."
    }

    fn read_only(&self) -> bool {
        false
    }

    fn properties(&self) -> Value {
        json!({
            "slug": { "type": "string", "pattern": "^[a-z0-9-]+$", "description": "Lowercase letters, digits, hyphens." },
            "name": { "type": "string", "minLength": 1, "description": "The name people see." },
            "system_prompt": { "type": "string", "minLength": 1, "description": "What the agent is told to do." },
            "description": { "type": "string", "description": "For people." },
            "tool_allowlist": {
                "type": "array", "items": { "type": "string" },
                "description": "Exact tool names; empty allows every tool."
            },
            "backend": { "type": "string", "enum": ["anthropic", "google", "hermes"], "description": "anthropic when absent." },
            "model": { "type": "string", "minLength": 1, "description": "The backend's default when absent." },
            "compute_provider": { "type": "string", "enum": ["e2b"], "description": "Goes with hermes only." },
            "temperature": { "type": "number", "minimum": 0, "maximum": 2 },
            "max_tokens": { "type": "integer", "minimum": 1 },
            "max_turns": { "type": "integer", "minimum": 1 },
            "timeout_s": { "type": "integer", "minimum": 1 }
        })
    }

    fn required(&self) -> &'static [&'static str] {
        &["slug", "name", "system_prompt"]
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let allowlist = arguments
            .get("tool_allowlist")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        let request = CreateAgentRequest {
            sandbox_id: context.sandbox_id.to_string(),
            slug: text(&arguments, "slug").unwrap_or_default(),
            name: text(&arguments, "name").unwrap_or_default(),
            system_prompt: text(&arguments, "system_prompt").unwrap_or_default(),
            description: text(&arguments, "description"),
            tool_allowlist: allowlist,
            model_settings: Some(ModelSettings {
                backend: text(&arguments, "backend").unwrap_or_default(),
                model: text(&arguments, "model").unwrap_or_default(),
                temperature: arguments.get("temperature").and_then(Value::as_f64),
                max_tokens: small_number(&arguments, "max_tokens")?,
                max_turns: small_number(&arguments, "max_turns")?,
                timeout_s: small_number(&arguments, "timeout_s")?,
                compute_provider: text(&arguments, "compute_provider"),
            }),
            idempotency_key: None,
        };
        let mut agents = context.clients.agents.clone();
        let agent = agents
            .create_agent(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        Ok(json!({ "agent": {
            "agent_id": agent.agent_id,
            "slug": agent.slug,
            "name": agent.name,
            "status": agent.status,
            "version": agent.version,
            "created_at": instant(agent.created_at.as_ref()),
        } }))
    }
}
