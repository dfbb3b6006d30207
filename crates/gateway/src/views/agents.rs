//! Agents.

use copass_errors::{Error, Result};
use copass_proto::agent as proto;
use copass_types::api;

use super::instant;

pub(crate) fn agent(agent: proto::Agent) -> Result<api::Agent> {
    let settings = agent
        .model_settings
        .ok_or_else(|| Error::internal("an agent came without model settings"))?;
    Ok(api::Agent {
        agent_id: agent.agent_id,
        user_id: agent.user_id,
        sandbox_id: agent.sandbox_id,
        slug: agent.slug,
        name: agent.name,
        description: agent.description,
        system_prompt: agent.system_prompt,
        tool_allowlist: agent.tool_allowlist,
        tool_sources: agent.tool_sources.map(|sources| sources.names),
        model_settings: api::ModelSettings {
            backend: settings.backend,
            model: settings.model,
            temperature: settings.temperature,
            max_tokens: settings.max_tokens,
            max_turns: settings.max_turns,
            timeout_s: settings.timeout_s,
            compute_provider: settings.compute_provider,
        },
        status: agent.status,
        version: agent.version,
        created_at: instant(agent.created_at),
        updated_at: instant(agent.updated_at),
    })
}

pub(crate) fn list(list: proto::ListAgentsResponse) -> Result<api::AgentList> {
    let agents = super::each(list.agents, agent)?;
    Ok(api::AgentList {
        count: agents.len(),
        agents,
    })
}

/// What a caller gave, for the owner to complete and check.
pub(crate) fn model_settings(input: api::ModelSettingsInput) -> proto::ModelSettings {
    proto::ModelSettings {
        backend: input.backend.unwrap_or_default(),
        model: input.model.unwrap_or_default(),
        temperature: input.temperature,
        max_tokens: input.max_tokens,
        max_turns: input.max_turns,
        timeout_s: input.timeout_s,
        compute_provider: input.compute_provider,
    }
}
