//! Agents, their runs and triggers (`rest.md` 12 and 13).

use copass_types::api::{
    Agent, AgentList, CreateAgentRequest, ListAgentsQuery, ListRunsQuery, ListTriggersQuery, RunDetail, RunList,
    TriggerList,
};
use reqwest::Method;

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

    /// `GET …/agents/{slug}/runs`: newest first.
    pub async fn list_runs(&self, sandbox_id: &str, slug: &str, query: &ListRunsQuery) -> Result<Reply<RunList>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "agents", slug, "runs"])?.query(query)?)
            .await
    }

    /// `GET …/agents/runs/{run_id}`: with its trace.
    pub async fn run(&self, sandbox_id: &str, run_id: &str) -> Result<Reply<RunDetail>> {
        self.send(Call::sandboxes(
            self,
            Method::GET,
            &[sandbox_id, "agents", "runs", run_id],
        )?)
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
