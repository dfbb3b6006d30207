//! Agents as the agent-runner tells them: `missing` does not exist, every other slug does.

use copass_errors::Error;
use copass_proto::agent::{
    Agent, AgentVersion, ArchiveAgentRequest, CreateAgentRequest, DiffAgentVersionsRequest, DiffAgentVersionsResponse,
    GetAgentRequest, GetAgentVersionRequest, ListAgentVersionsRequest, ListAgentVersionsResponse, ListAgentsRequest,
    ListAgentsResponse, ListToolsRequest, ListToolsResponse, ModelSettings, RollBackAgentRequest, SkippedSource, Tool,
    UpdateAgentRequest, UpdateModelSettingsRequest, UpdateToolSourcesRequest, agent_service_server::AgentService,
};
use copass_types::AccessClass;
use tonic::{Request, Response, Status};

use super::{Fakes, now, unused};

pub(crate) const AGENT_ID: &str = "ag_01JAAAAAAAAAAAAAAAAAAAAAAA";

fn agent(slug: &str) -> Agent {
    Agent {
        agent_id: AGENT_ID.to_owned(),
        slug: slug.to_owned(),
        name: "Support".to_owned(),
        description: Some("Answers".to_owned()),
        system_prompt: "Be kind.".to_owned(),
        tool_allowlist: vec!["search".to_owned()],
        model_settings: Some(ModelSettings {
            backend: "anthropic".to_owned(),
            model: "claude-sonnet-4-6".to_owned(),
            temperature: Some(0.5),
            max_turns: Some(8),
            ..ModelSettings::default()
        }),
        status: "active".to_owned(),
        version: 3,
        created_at: now(),
        updated_at: now(),
        ..Agent::default()
    }
}

fn known(slug: &str) -> Result<Agent, Status> {
    match slug {
        "missing" => Err(Error::not_found("agent").into()),
        slug => Ok(agent(slug)),
    }
}

fn tool(name: &str, app_slug: &str) -> Tool {
    Tool {
        name: name.to_owned(),
        app_slug: app_slug.to_owned(),
        description: format!("Does {name}."),
        source: "copass_retrieval".to_owned(),
        read_only: true,
    }
}

#[tonic::async_trait]
impl AgentService for Fakes {
    async fn create_agent(&self, request: Request<CreateAgentRequest>) -> Result<Response<Agent>, Status> {
        let message = self.enter("create_agent", request, |it| it.sandbox_id.clone(), AccessClass::Build)?;
        self.0.created.lock().unwrap().push(message.clone());
        Ok(Response::new(Agent {
            name: message.name,
            version: 1,
            ..agent(&message.slug)
        }))
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        self.enter("list_agents", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        let bare = Agent {
            description: None,
            updated_at: None,
            warnings: vec!["no tool was offered to the model; it can only talk".to_owned()],
            ..agent("bare")
        };
        Ok(Response::new(ListAgentsResponse {
            agents: vec![agent("support"), bare],
            next_before: None,
        }))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Result<Response<Agent>, Status> {
        let message = self.enter("get_agent", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        let mut agent = known(&message.slug)?;
        if self.0.archived.lock().unwrap().contains(&message.slug) {
            agent.status = "archived".to_owned();
        }
        Ok(Response::new(agent))
    }

    async fn update_agent(&self, request: Request<UpdateAgentRequest>) -> Result<Response<Agent>, Status> {
        let message = self.enter("update_agent", request, |it| it.sandbox_id.clone(), AccessClass::Build)?;
        let mut agent = known(&message.slug)?;
        agent.version = 4;
        if let Some(allowlist) = &message.tool_allowlist {
            agent.tool_allowlist.clone_from(&allowlist.entries);
            agent.allowlist_missing_entries = vec!["gone".to_owned()];
            agent.warnings = vec!["the allowlist entry \"gone\" matches no tool".to_owned()];
        }
        self.0.updated.lock().unwrap().push(message);
        Ok(Response::new(agent))
    }

    async fn update_model_settings(
        &self,
        request: Request<UpdateModelSettingsRequest>,
    ) -> Result<Response<Agent>, Status> {
        let message = self.enter(
            "update_model_settings",
            request,
            |it| it.sandbox_id.clone(),
            AccessClass::Build,
        )?;
        let agent = known(&message.slug)?;
        self.0.settings.lock().unwrap().push(message);
        Ok(Response::new(Agent { version: 4, ..agent }))
    }

    async fn update_tool_sources(&self, request: Request<UpdateToolSourcesRequest>) -> Result<Response<Agent>, Status> {
        let message = self.enter(
            "update_tool_sources",
            request,
            |it| it.sandbox_id.clone(),
            AccessClass::Build,
        )?;
        let agent = known(&message.slug)?;
        self.0.tool_sources.lock().unwrap().push(message.clone());
        Ok(Response::new(Agent {
            version: 4,
            tool_sources: message.tool_sources,
            ..agent
        }))
    }

    async fn list_tools(&self, request: Request<ListToolsRequest>) -> Result<Response<ListToolsResponse>, Status> {
        let message = self.enter("list_tools", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        let tools = [
            tool("discover", "copass"),
            tool("search", "copass"),
            tool("pd_slack_v2_slack_v2-add-reaction", "slack_v2"),
        ];
        let fits = |tool: &Tool| message.app_slug.as_ref().is_none_or(|app| *app == tool.app_slug);
        Ok(Response::new(ListToolsResponse {
            tools: tools.into_iter().filter(fits).collect(),
            skipped: vec![SkippedSource {
                name: "user_mcp".to_owned(),
                reason: "it hangs".to_owned(),
            }],
        }))
    }

    async fn archive_agent(&self, _: Request<ArchiveAgentRequest>) -> Result<Response<Agent>, Status> {
        unused("archive_agent")
    }

    async fn list_agent_versions(
        &self,
        _: Request<ListAgentVersionsRequest>,
    ) -> Result<Response<ListAgentVersionsResponse>, Status> {
        unused("list_agent_versions")
    }

    async fn get_agent_version(&self, _: Request<GetAgentVersionRequest>) -> Result<Response<AgentVersion>, Status> {
        unused("get_agent_version")
    }

    async fn diff_agent_versions(
        &self,
        _: Request<DiffAgentVersionsRequest>,
    ) -> Result<Response<DiffAgentVersionsResponse>, Status> {
        unused("diff_agent_versions")
    }

    async fn roll_back_agent(&self, _: Request<RollBackAgentRequest>) -> Result<Response<Agent>, Status> {
        unused("roll_back_agent")
    }
}
