//! Agent tools.

use async_trait::async_trait;
use copass_errors::{Error, Result};
use copass_proto::agent::{Agent, CreateAgentRequest, GetAgentRequest, ListToolsRequest, ModelSettings};
use copass_runtime::listing;
use serde_json::{Map, Value, json};

use super::{Tool, ToolContext, instant, small_number, text, texts};

pub(crate) struct ListAgents;
pub(crate) struct GetAgent;
pub(crate) struct CreateAgent;
pub(crate) struct ListAgentTools;

fn row(agent: &Agent) -> Value {
    let mut row = json!({
        "agent_id": agent.agent_id,
        "slug": agent.slug,
        "name": agent.name,
        "status": agent.status,
        "description": agent.description,
        "version": agent.version,
        "created_at": instant(agent.created_at.as_ref()),
        "updated_at": instant(agent.updated_at.as_ref()),
    });
    if !agent.warnings.is_empty() {
        row["warnings"] = json!(agent.warnings);
    }
    row
}

pub(super) fn model_settings(settings: Option<&ModelSettings>) -> Value {
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
        let status = text(&arguments, "status");
        let mut client = context.clients.agents.clone();
        let agents = listing::agents(&mut client, context.call, context.sandbox_id.as_str(), status)
            .await
            .map_err(Error::from)?;
        let rows: Vec<Value> = agents.iter().map(row).collect();
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
        value["tool_sources"] = json!(agent.tool_sources.map(|sources| sources.names));
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
        let request = CreateAgentRequest {
            sandbox_id: context.sandbox_id.to_string(),
            slug: text(&arguments, "slug").unwrap_or_default(),
            name: text(&arguments, "name").unwrap_or_default(),
            system_prompt: text(&arguments, "system_prompt").unwrap_or_default(),
            description: text(&arguments, "description"),
            tool_allowlist: texts(&arguments, "tool_allowlist").unwrap_or_default(),
            model_settings: Some(ModelSettings {
                backend: text(&arguments, "backend").unwrap_or_default(),
                model: text(&arguments, "model").unwrap_or_default(),
                temperature: arguments.get("temperature").and_then(Value::as_f64),
                max_tokens: small_number(&arguments, "max_tokens")?,
                max_turns: small_number(&arguments, "max_turns")?,
                timeout_s: small_number(&arguments, "timeout_s")?,
                compute_provider: text(&arguments, "compute_provider"),
            }),
            idempotency_key: context.idempotency_key.clone(),
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
            "warnings": agent.warnings,
            "allowlist_missing_entries": agent.allowlist_missing_entries,
        } }))
    }
}

#[async_trait]
impl Tool for ListAgentTools {
    fn name(&self) -> &'static str {
        "list_agent_tools"
    }

    fn description(&self) -> &'static str {
        "Lists the tools that agents would be offered right now, under the exact names that allowlists use. Call it \
         before you write an allowlist."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({ "app_slug": { "type": "string", "description": "Only tools of this app, for example slack_v2." } })
    }

    fn tells_errors(&self) -> bool {
        false
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let request = ListToolsRequest {
            sandbox_id: context.sandbox_id.to_string(),
            app_slug: text(&arguments, "app_slug"),
        };
        let mut agents = context.clients.agents.clone();
        let answer = agents.list_tools(context.call.request(request)).await;
        let tools = answer.map_err(Error::from)?.into_inner().tools;
        let mut by_app = Map::new();
        let mut rows = Vec::with_capacity(tools.len());
        for tool in tools {
            let of_app = by_app.entry(tool.app_slug.clone()).or_insert_with(|| json!([]));
            if let Value::Array(of_app) = of_app {
                of_app.push(json!({ "name": tool.name, "description": tool.description }));
            }
            rows.push(json!({
                "name": tool.name,
                "app_slug": tool.app_slug,
                "description": tool.description,
                "source": tool.source,
                "read_only": tool.read_only,
            }));
        }
        Ok(json!({ "count": rows.len(), "tools": rows, "by_app": by_app }))
    }
}
