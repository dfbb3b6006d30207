//! Agents, their versions, tools, keys and triggers (`rest.md` 12 to 14).

use copass_types::api::{
    Agent, AgentList, AgentVersion, AgentVersionDiff, AgentVersionList, ApiKey, CreateAgentKeyRequest,
    CreateAgentRequest, CreatedAgentKey, DiffAgentVersionsQuery, ListAgentKeysQuery, ListAgentVersionsQuery,
    ListAgentsQuery, ListToolsQuery, ListTriggersQuery, ModelSettingsInput, RollBackAgentRequest, ToolList,
    TriggerList, UpdateAgentRequest, UpdateToolSourcesRequest,
};
use reqwest::Method;
use serde_json::Value;

use crate::{Client, Reply, Result, call::Call};

#[allow(clippy::missing_errors_doc, reason = "the module says once how every method fails")]
impl Client {
    /// `POST …/agents`.
    pub async fn create_agent(&self, sandbox_id: &str, body: &CreateAgentRequest) -> Result<Reply<Agent>> {
        self.send(
            Call::sandboxes(self, Method::POST, &[sandbox_id, "agents"])?
                .json(body)?
                .creates(),
        )
        .await
    }

    /// `GET …/agents`.
    pub async fn list_agents(&self, sandbox_id: &str, query: &ListAgentsQuery) -> Result<Reply<AgentList>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "agents"])?.query(query)?)
            .await
    }

    /// `GET …/agents/{slug}`.
    pub async fn agent(&self, sandbox_id: &str, slug: &str) -> Result<Reply<Agent>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "agents", slug])?)
            .await
    }

    /// `PATCH …/agents/{slug}`: one new version when something changed.
    pub async fn update_agent(&self, sandbox_id: &str, slug: &str, body: &UpdateAgentRequest) -> Result<Reply<Agent>> {
        let call = Call::sandboxes(self, Method::PATCH, &[sandbox_id, "agents", slug])?;
        self.send(call.json(body)?.creates()).await
    }

    /// `PATCH …/agents/{slug}/model-settings`: changes what is given and keeps the rest.
    pub async fn update_model_settings(
        &self,
        sandbox_id: &str,
        slug: &str,
        body: &ModelSettingsInput,
    ) -> Result<Reply<Agent>> {
        let call = Call::sandboxes(self, Method::PATCH, &[sandbox_id, "agents", slug, "model-settings"])?;
        self.send(call.json(body)?.creates()).await
    }

    /// `PATCH …/agents/{slug}/tool-sources`: `None` is the caller's default set, an empty list is no tools.
    pub async fn update_tool_sources(
        &self,
        sandbox_id: &str,
        slug: &str,
        tool_sources: Option<Vec<String>>,
    ) -> Result<Reply<Agent>> {
        let call = Call::sandboxes(self, Method::PATCH, &[sandbox_id, "agents", slug, "tool-sources"])?;
        let body = UpdateToolSourcesRequest { tool_sources };
        self.send(call.json(&body)?.creates()).await
    }

    /// `DELETE …/agents/{slug}`: archives it; a repeat answers alike.
    pub async fn archive_agent(&self, sandbox_id: &str, slug: &str) -> Result<Reply<Value>> {
        self.send(Call::sandboxes(self, Method::DELETE, &[sandbox_id, "agents", slug])?)
            .await
    }

    /// `GET …/agents/{slug}/versions`: newest first.
    pub async fn list_agent_versions(
        &self,
        sandbox_id: &str,
        slug: &str,
        query: &ListAgentVersionsQuery,
    ) -> Result<Reply<AgentVersionList>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "agents", slug, "versions"])?.query(query)?)
            .await
    }

    /// `GET …/agents/{slug}/versions/{version}`: with the agent as it was.
    pub async fn agent_version(&self, sandbox_id: &str, slug: &str, version: u32) -> Result<Reply<AgentVersion>> {
        let version = version.to_string();
        let segments = [sandbox_id, "agents", slug, "versions", &version];
        self.send(Call::sandboxes(self, Method::GET, &segments)?).await
    }

    /// `GET …/agents/{slug}/versions/diff`: `to` is the present version when it is left out.
    pub async fn diff_agent_versions(
        &self,
        sandbox_id: &str,
        slug: &str,
        query: &DiffAgentVersionsQuery,
    ) -> Result<Reply<AgentVersionDiff>> {
        let segments = [sandbox_id, "agents", slug, "versions", "diff"];
        self.send(Call::sandboxes(self, Method::GET, &segments)?.query(query)?)
            .await
    }

    /// `POST …/agents/{slug}/rollback`: a new version with the content of an old one.
    pub async fn roll_back_agent(&self, sandbox_id: &str, slug: &str, to_version: u32) -> Result<Reply<Agent>> {
        let call = Call::sandboxes(self, Method::POST, &[sandbox_id, "agents", slug, "rollback"])?;
        let body = RollBackAgentRequest { to_version };
        self.send(call.json(&body)?.creates()).await
    }

    /// `GET …/agents/tools`: the tools that the caller's runs could use.
    pub async fn list_tools(&self, sandbox_id: &str, query: &ListToolsQuery) -> Result<Reply<ToolList>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "agents", "tools"])?.query(query)?)
            .await
    }

    /// `POST …/agents/{slug}/keys`: the answer holds the secret, once.
    pub async fn create_agent_key(
        &self,
        sandbox_id: &str,
        slug: &str,
        body: &CreateAgentKeyRequest,
    ) -> Result<Reply<CreatedAgentKey>> {
        let call = Call::sandboxes(self, Method::POST, &[sandbox_id, "agents", slug, "keys"])?;
        self.send(call.json(body)?.creates()).await
    }

    /// `GET …/agents/{slug}/keys`. They are revoked like all keys of the account.
    pub async fn list_agent_keys(
        &self,
        sandbox_id: &str,
        slug: &str,
        query: &ListAgentKeysQuery,
    ) -> Result<Reply<Vec<ApiKey>>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "agents", slug, "keys"])?.query(query)?)
            .await
    }

    /// `GET …/agents/{slug}/triggers`.
    pub async fn list_triggers(
        &self,
        sandbox_id: &str,
        slug: &str,
        query: &ListTriggersQuery,
    ) -> Result<Reply<TriggerList>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "agents", slug, "triggers"])?.query(query)?)
            .await
    }
}
