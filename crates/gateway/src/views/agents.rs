//! Agents, their versions and tools.

use copass_errors::{Error, Result};
use copass_proto::{agent as proto, convert};
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
        warnings: agent.warnings,
        allowlist_missing_entries: agent.allowlist_missing_entries,
    })
}

pub(crate) fn version(version: proto::AgentVersion) -> Result<api::AgentVersion> {
    Ok(api::AgentVersion {
        version: version.version,
        created_by: version.created_by,
        created_at: instant(version.created_at),
        changed: version.changed,
        rolled_back_to: version.rolled_back_to,
        agent: version.agent.map(agent).transpose()?,
    })
}

pub(crate) fn versions(list: proto::ListAgentVersionsResponse) -> Result<api::AgentVersionList> {
    let versions = super::each(list.versions, version)?;
    Ok(api::AgentVersionList {
        agent_slug: list.agent_slug,
        count: versions.len(),
        versions,
    })
}

pub(crate) fn diff(diff: proto::DiffAgentVersionsResponse) -> Result<api::AgentVersionDiff> {
    let changes = super::each(diff.changes, |change| {
        Ok(api::FieldChange {
            field: change.field,
            before: convert::json(&change.before_json)?,
            after: convert::json(&change.after_json)?,
        })
    })?;
    Ok(api::AgentVersionDiff {
        agent_slug: diff.agent_slug,
        from: diff.from,
        to: diff.to,
        changes,
    })
}

pub(crate) fn tools(list: proto::ListToolsResponse) -> api::ToolList {
    let tools: Vec<_> = list
        .tools
        .into_iter()
        .map(|tool| api::AgentTool {
            name: tool.name,
            app_slug: tool.app_slug,
            description: Some(tool.description).filter(|text| !text.is_empty()),
            source: tool.source,
            read_only: tool.read_only,
        })
        .collect();
    let skipped = list.skipped.into_iter().map(|source| api::SkippedSource {
        name: source.name,
        reason: source.reason,
    });
    api::ToolList {
        count: tools.len(),
        tools,
        skipped: skipped.collect(),
    }
}

pub(crate) fn list(agents: Vec<proto::Agent>) -> Result<api::AgentList> {
    let agents = super::each(agents, agent)?;
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
