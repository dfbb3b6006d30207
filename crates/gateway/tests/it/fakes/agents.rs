//! Agents, their versions and tools.

use copass_errors::Error;
use copass_proto::agent;
use tonic::{Request, Response, Status};

use super::{AGENT, Answer, Fakes, SANDBOX, USER, at};

#[tonic::async_trait]
impl agent::agent_service_server::AgentService for Fakes {
    async fn create_agent(&self, request: Request<agent::CreateAgentRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        Ok(Response::new(agent_row()))
    }
    async fn list_agents(&self, request: Request<agent::ListAgentsRequest>) -> Answer<agent::ListAgentsResponse> {
        self.saw(&request);
        Ok(Response::new(agent::ListAgentsResponse {
            agents: vec![noted_row()],
            next_before: None,
        }))
    }
    async fn get_agent(&self, request: Request<agent::GetAgentRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        known(&request.get_ref().slug)?;
        Ok(Response::new(noted_row()))
    }
    async fn update_agent(&self, request: Request<agent::UpdateAgentRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        known(&request.get_ref().slug)?;
        Ok(Response::new(changed_row()))
    }
    async fn update_model_settings(&self, request: Request<agent::UpdateModelSettingsRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        known(&request.get_ref().slug)?;
        Ok(Response::new(changed_row()))
    }
    async fn update_tool_sources(&self, request: Request<agent::UpdateToolSourcesRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        known(&request.get_ref().slug)?;
        Ok(Response::new(changed_row()))
    }
    async fn archive_agent(&self, request: Request<agent::ArchiveAgentRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        known(&request.get_ref().slug)?;
        Ok(Response::new(agent_row()))
    }
    async fn list_agent_versions(
        &self,
        request: Request<agent::ListAgentVersionsRequest>,
    ) -> Answer<agent::ListAgentVersionsResponse> {
        self.saw(&request);
        Ok(Response::new(agent::ListAgentVersionsResponse {
            agent_slug: "helper".into(),
            versions: vec![version_row()],
        }))
    }
    async fn get_agent_version(&self, request: Request<agent::GetAgentVersionRequest>) -> Answer<agent::AgentVersion> {
        self.saw(&request);
        if request.get_ref().version != 2 {
            return Err(Error::not_found("agent version").into());
        }
        Ok(Response::new(agent::AgentVersion {
            agent: Some(agent_row()),
            ..version_row()
        }))
    }
    async fn diff_agent_versions(
        &self,
        request: Request<agent::DiffAgentVersionsRequest>,
    ) -> Answer<agent::DiffAgentVersionsResponse> {
        self.saw(&request);
        Ok(Response::new(agent::DiffAgentVersionsResponse {
            agent_slug: "helper".into(),
            from: 1,
            to: 2,
            changes: vec![agent::FieldChange {
                field: "model_settings.temperature".into(),
                before_json: "null".into(),
                after_json: "0.5".into(),
            }],
        }))
    }
    async fn roll_back_agent(&self, request: Request<agent::RollBackAgentRequest>) -> Answer<agent::Agent> {
        self.saw(&request);
        known(&request.get_ref().slug)?;
        Ok(Response::new(changed_row()))
    }
    async fn list_tools(&self, request: Request<agent::ListToolsRequest>) -> Answer<agent::ListToolsResponse> {
        self.saw(&request);
        Ok(Response::new(agent::ListToolsResponse {
            tools: vec![agent::Tool {
                name: "search".into(),
                app_slug: "copass".into(),
                description: String::new(),
                source: "copass_retrieval".into(),
                read_only: true,
            }],
            skipped: vec![agent::SkippedSource {
                name: "pipedream".into(),
                reason: "it is not on this server yet".into(),
            }],
        }))
    }
}

fn known(slug: &str) -> Result<(), Status> {
    if slug != "helper" {
        return Err(Error::not_found("agent").into());
    }
    Ok(())
}

fn agent_row() -> agent::Agent {
    agent::Agent {
        agent_id: AGENT.into(),
        user_id: USER.into(),
        sandbox_id: SANDBOX.into(),
        slug: "helper".into(),
        name: "Helper".into(),
        system_prompt: "Help.".into(),
        tool_sources: Some(agent::ToolSources { names: vec![] }),
        model_settings: Some(agent::ModelSettings {
            backend: "anthropic".into(),
            model: "claude-sonnet-4-6".into(),
            ..Default::default()
        }),
        status: "active".into(),
        version: 1,
        created_at: at(),
        updated_at: at(),
        ..Default::default()
    }
}

/// With what there is to say about it.
fn noted_row() -> agent::Agent {
    agent::Agent {
        warnings: vec!["an entry of the allowlist matches no tool".into()],
        allowlist_missing_entries: vec!["pd_slack_gone".into()],
        ..agent_row()
    }
}

fn changed_row() -> agent::Agent {
    agent::Agent {
        version: 2,
        ..noted_row()
    }
}

fn version_row() -> agent::AgentVersion {
    agent::AgentVersion {
        version: 2,
        created_by: USER.into(),
        created_at: at(),
        changed: vec!["system_prompt".into()],
        agent: None,
        rolled_back_to: Some(1),
    }
}
