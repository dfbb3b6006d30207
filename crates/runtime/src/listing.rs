//! Lists whose service answers page by page, put together for callers that answer with the whole.
//!
//! A message between services has an end ([`crate::grpc::MAX_MESSAGE_BYTES`]); a list that users see whole has none.

use copass_proto::{
    Transport,
    agent::{Agent, ListAgentsRequest, agent_service_client::AgentServiceClient},
};
use tonic::Status;

use crate::CallContext;

/// The agents of a sandbox, newest first; all of them, or those in one status.
///
/// # Errors
/// What agent-runner answers; the call's time limit is for all pages together.
pub async fn agents(
    client: &mut AgentServiceClient<Transport>,
    context: &CallContext,
    sandbox_id: &str,
    status: Option<String>,
) -> Result<Vec<Agent>, Status> {
    let mut agents = Vec::new();
    let mut before = None;
    loop {
        let request = ListAgentsRequest {
            sandbox_id: sandbox_id.to_owned(),
            status: status.clone(),
            before,
        };
        let page = client.list_agents(context.request(request)).await?.into_inner();
        agents.extend(page.agents);
        before = page.next_before;
        if before.is_none() {
            return Ok(agents);
        }
    }
}
