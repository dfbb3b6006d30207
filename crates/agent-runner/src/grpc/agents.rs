//! The agent service's face: conversion, nothing else.

use copass_errors::Error;
use copass_proto::{agent as proto, agent::agent_service_server::AgentService, convert};
use copass_runtime::CallContext;
use prost::Message as _;
use tonic::{Request, Response, Status, async_trait};

use crate::app::{
    agent_changes::Change,
    agent_rules::{Draft, Patch, SettingsChange, SettingsDraft, SettingsMerge},
    agent_versions::{FieldChange, Listed},
    agents::{Agents, AnswerCodec, Keyed, Notes},
    domain::{Agent, ModelSettings},
};

/// The agent service.
pub(crate) struct AgentsFace(pub(crate) Agents);

struct AgentCodec;

impl AnswerCodec for AgentCodec {
    type Answer = proto::Agent;

    fn answer(agent: &Agent, notes: &Notes) -> Self::Answer {
        proto::Agent {
            warnings: notes.warnings.clone(),
            allowlist_missing_entries: notes.missing_entries.clone(),
            ..agent_message(agent.clone())
        }
    }

    fn encode(answer: &Self::Answer) -> Vec<u8> {
        answer.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self::Answer, Error> {
        proto::Agent::decode(bytes).map_err(Error::internal)
    }
}

impl AgentsFace {
    async fn change(
        &self,
        context: &CallContext,
        sandbox_id: &str,
        slug: &str,
        change: Change,
        keyed: Option<Keyed>,
    ) -> Result<Response<proto::Agent>, Status> {
        let sandbox_id = convert::id(sandbox_id, "sandbox")?;
        let agent = self
            .0
            .change::<AgentCodec>(context, &sandbox_id, slug, change, keyed)
            .await?;
        Ok(Response::new(agent))
    }
}

#[async_trait]
impl AgentService for AgentsFace {
    async fn create_agent(
        &self,
        request: Request<proto::CreateAgentRequest>,
    ) -> Result<Response<proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let key = message.idempotency_key.take();
        let keyed = keyed(key, &message);
        let agent = self
            .0
            .create::<AgentCodec>(&context, &sandbox_id, draft(message), keyed)
            .await?;
        Ok(Response::new(agent))
    }

    async fn list_agents(
        &self,
        request: Request<proto::ListAgentsRequest>,
    ) -> Result<Response<proto::ListAgentsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let before = message.before.map(|text| convert::id(&text, "agent")).transpose()?;
        let (agents, next) = self
            .0
            .list(&context, &sandbox_id, message.status.as_deref(), before.as_ref())
            .await?;
        Ok(Response::new(proto::ListAgentsResponse {
            agents: agents.into_iter().map(|(agent, notes)| noted(agent, notes)).collect(),
            next_before: next.map(|id| id.to_string()),
        }))
    }

    async fn get_agent(&self, request: Request<proto::GetAgentRequest>) -> Result<Response<proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let (agent, notes) = self.0.get_noted(&context, &sandbox_id, &message.slug).await?;
        Ok(Response::new(noted(agent, notes)))
    }

    async fn update_agent(
        &self,
        request: Request<proto::UpdateAgentRequest>,
    ) -> Result<Response<proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let key = message.idempotency_key.take();
        let keyed = keyed(key, &message);
        let (sandbox_id, slug) = (message.sandbox_id.clone(), message.slug.clone());
        self.change(&context, &sandbox_id, &slug, Change::Update(patch(message)), keyed)
            .await
    }

    async fn update_model_settings(
        &self,
        request: Request<proto::UpdateModelSettingsRequest>,
    ) -> Result<Response<proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let key = message.idempotency_key.take();
        let keyed = keyed(key, &message);
        let merge = SettingsMerge {
            backend: message.backend,
            model: message.model,
            temperature: message.temperature,
            max_tokens: message.max_tokens,
            max_turns: message.max_turns,
            timeout_s: message.timeout_s,
            compute_provider: message.compute_provider,
        };
        let change = Change::ModelSettings(merge);
        self.change(&context, &message.sandbox_id, &message.slug, change, keyed)
            .await
    }

    async fn update_tool_sources(
        &self,
        request: Request<proto::UpdateToolSourcesRequest>,
    ) -> Result<Response<proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let key = message.idempotency_key.take();
        let keyed = keyed(key, &message);
        let change = Change::ToolSources(message.tool_sources.map(|sources| sources.names));
        self.change(&context, &message.sandbox_id, &message.slug, change, keyed)
            .await
    }

    async fn archive_agent(
        &self,
        request: Request<proto::ArchiveAgentRequest>,
    ) -> Result<Response<proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        self.change(&context, &message.sandbox_id, &message.slug, Change::Archive, None)
            .await
    }

    async fn list_agent_versions(
        &self,
        request: Request<proto::ListAgentVersionsRequest>,
    ) -> Result<Response<proto::ListAgentVersionsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let versions = self
            .0
            .list_versions(&context, &sandbox_id, &message.slug, message.limit, message.before)
            .await?;
        Ok(Response::new(proto::ListAgentVersionsResponse {
            agent_slug: message.slug,
            versions: versions
                .into_iter()
                .map(|listed| version_message(listed, false))
                .collect(),
        }))
    }

    async fn get_agent_version(
        &self,
        request: Request<proto::GetAgentVersionRequest>,
    ) -> Result<Response<proto::AgentVersion>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let found = self
            .0
            .get_version(&context, &sandbox_id, &message.slug, message.version)
            .await?;
        Ok(Response::new(version_message(found, true)))
    }

    async fn diff_agent_versions(
        &self,
        request: Request<proto::DiffAgentVersionsRequest>,
    ) -> Result<Response<proto::DiffAgentVersionsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let diff = self
            .0
            .diff_versions(&context, &sandbox_id, &message.slug, message.from, message.to)
            .await?;
        Ok(Response::new(proto::DiffAgentVersionsResponse {
            agent_slug: message.slug,
            from: number(diff.from),
            to: number(diff.to),
            changes: diff.changes.into_iter().map(change_message).collect(),
        }))
    }

    async fn roll_back_agent(
        &self,
        request: Request<proto::RollBackAgentRequest>,
    ) -> Result<Response<proto::Agent>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let key = message.idempotency_key.take();
        let keyed = keyed(key, &message);
        let change = Change::RollBack(message.to_version);
        self.change(&context, &message.sandbox_id, &message.slug, change, keyed)
            .await
    }

    async fn list_tools(
        &self,
        request: Request<proto::ListToolsRequest>,
    ) -> Result<Response<proto::ListToolsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&message.sandbox_id, "sandbox")?;
        let found = self
            .0
            .list_tools(&context, &sandbox_id, message.app_slug.as_deref())
            .await?;
        let tool = |tool: &std::sync::Arc<crate::app::tool_sources::ResolvedTool>| proto::Tool {
            name: tool.spec.name.clone(),
            app_slug: tool.app_slug.clone(),
            description: tool.spec.description.clone(),
            source: tool.source.to_string(),
            read_only: tool.spec.read_only,
        };
        let skipped = found.sources.into_iter().filter_map(|source| {
            let reason = source.skipped?;
            Some(proto::SkippedSource {
                name: source.name,
                reason,
            })
        });
        Ok(Response::new(proto::ListToolsResponse {
            tools: found.tools.iter().map(tool).collect(),
            skipped: skipped.collect(),
        }))
    }
}

/// The key with the request it came with, from which it was taken out.
fn keyed(key: Option<String>, request: &impl prost::Message) -> Option<Keyed> {
    key.filter(|key| !key.is_empty()).map(|key| Keyed {
        key,
        request: request.encode_to_vec(),
    })
}

fn draft(message: proto::CreateAgentRequest) -> Draft {
    Draft {
        slug: message.slug,
        name: message.name,
        description: message.description,
        system_prompt: message.system_prompt,
        tool_allowlist: message.tool_allowlist,
        model_settings: message.model_settings.map(settings_draft).unwrap_or_default(),
    }
}

fn patch(message: proto::UpdateAgentRequest) -> Patch {
    Patch {
        name: message.name,
        description: if message.clear_description {
            Some(None)
        } else {
            message.description.map(Some)
        },
        system_prompt: message.system_prompt,
        tool_allowlist: message.tool_allowlist.map(|allowlist| allowlist.entries),
        tool_sources: None,
        model_settings: message
            .model_settings
            .map(|settings| SettingsChange::Replace(settings_draft(settings))),
        status: message.status,
    }
}

fn settings_draft(message: proto::ModelSettings) -> SettingsDraft {
    SettingsDraft {
        backend: message.backend,
        model: message.model,
        temperature: message.temperature,
        max_tokens: message.max_tokens,
        max_turns: message.max_turns,
        timeout_s: message.timeout_s,
        compute_provider: message.compute_provider,
    }
}

fn settings_message(settings: ModelSettings) -> proto::ModelSettings {
    proto::ModelSettings {
        backend: settings.backend,
        model: settings.model,
        temperature: settings.temperature,
        max_tokens: settings.max_tokens,
        max_turns: settings.max_turns,
        timeout_s: settings.timeout_s,
        compute_provider: settings.compute_provider,
    }
}

fn agent_message(agent: Agent) -> proto::Agent {
    proto::Agent {
        agent_id: agent.id.into(),
        user_id: agent.user_id.into(),
        sandbox_id: agent.sandbox_id.into(),
        slug: agent.slug,
        name: agent.name,
        description: agent.description,
        system_prompt: agent.system_prompt,
        tool_allowlist: agent.tool_allowlist,
        tool_sources: agent.tool_sources.map(|names| proto::ToolSources { names }),
        model_settings: Some(settings_message(agent.model_settings)),
        status: agent.status.as_str().to_owned(),
        version: number(agent.version),
        created_at: Some(convert::timestamp(agent.created_at)),
        updated_at: Some(convert::timestamp(agent.updated_at)),
        warnings: Vec::new(),
        allowlist_missing_entries: Vec::new(),
    }
}

fn noted(agent: Agent, notes: Notes) -> proto::Agent {
    proto::Agent {
        warnings: notes.warnings,
        allowlist_missing_entries: notes.missing_entries,
        ..agent_message(agent)
    }
}

fn version_message(listed: Listed, with_agent: bool) -> proto::AgentVersion {
    let version = listed.version;
    proto::AgentVersion {
        version: number(version.agent.version),
        created_by: version.created_by,
        created_at: Some(convert::timestamp(version.created_at)),
        changed: listed.changed.into_iter().map(str::to_owned).collect(),
        agent: with_agent.then(|| agent_message(version.agent)),
        rolled_back_to: version.rolled_back_to.map(number),
    }
}

fn change_message(change: FieldChange) -> proto::FieldChange {
    proto::FieldChange {
        field: change.field.to_owned(),
        before_json: change.before.to_string(),
        after_json: change.after.to_string(),
    }
}

fn number(version: i64) -> u32 {
    u32::try_from(version).unwrap_or(u32::MAX)
}
