//! Trigger tools.

use async_trait::async_trait;
use copass_errors::{Error, Result};
use copass_proto::{
    agent::GetAgentRequest,
    trigger::{ListTriggersRequest, Trigger},
};
use serde_json::{Value, json};

use super::{Tool, ToolContext, instant, json_or_null, text};

pub(crate) struct ListTriggers;

fn row(trigger: &Trigger) -> Value {
    json!({
        "trigger_id": trigger.trigger_id,
        "data_source_id": trigger.data_source_id,
        "event_type_filter": trigger.event_type_filter,
        "status": trigger.status,
        "filter_config": json_or_null(trigger.filter_config_json.as_deref()),
        "rate_limit_per_hour": trigger.rate_limit_per_hour,
        "fire_count": trigger.fire_count,
        "last_fired_at": instant(trigger.last_fired_at.as_ref()),
        "created_at": instant(trigger.created_at.as_ref()),
    })
}

#[async_trait]
impl Tool for ListTriggers {
    fn name(&self) -> &'static str {
        "list_triggers"
    }

    fn description(&self) -> &'static str {
        "Lists the triggers of an agent: what fires it, how often it fired and when it fired last."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({ "agent_slug": { "type": "string", "minLength": 1, "description": "The agent's slug." } })
    }

    fn required(&self) -> &'static [&'static str] {
        &["agent_slug"]
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let slug = text(&arguments, "agent_slug").unwrap_or_default();
        let sandbox_id = context.sandbox_id.to_string();
        let get = GetAgentRequest {
            sandbox_id: sandbox_id.clone(),
            slug: slug.clone(),
        };
        let mut agents = context.clients.agents.clone();
        let agent = agents
            .get_agent(context.call.request(get))
            .await
            .map_err(Error::from)?
            .into_inner();
        let request = ListTriggersRequest {
            sandbox_id,
            agent_id: agent.agent_id,
            status: None,
        };
        let mut triggers = context.clients.triggers.clone();
        let list = triggers
            .list_triggers(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        let rows: Vec<Value> = list.triggers.iter().map(row).collect();
        Ok(json!({ "agent_slug": slug, "count": rows.len(), "triggers": rows }))
    }
}
