//! The system agents that are known to be there: looking for them would be a statement in each turn.

use copass_types::{AgentId, SandboxId};
use moka::sync::Cache;

use super::accept::{Wanted, WantedAgent};

const MAX_KNOWN: u64 = 10_000;

/// Ids of system agents by sandbox and slug.
pub(crate) struct SystemAgents(Cache<(SandboxId, &'static str), AgentId>);

impl SystemAgents {
    pub(crate) fn new() -> Self {
        Self(Cache::new(MAX_KNOWN))
    }

    pub(super) fn find(&self, sandbox_id: &SandboxId, slug: &'static str) -> Option<AgentId> {
        self.0.get(&(sandbox_id.clone(), slug))
    }

    /// After the commit: its agent is there.
    pub(super) fn remember(&self, wanted: &Wanted, agent_id: &AgentId) {
        if let WantedAgent::System { slug, .. } = &wanted.agent
            && self.find(&wanted.sandbox_id, slug).is_none()
        {
            self.0.insert((wanted.sandbox_id.clone(), *slug), agent_id.clone());
        }
    }

    /// After a failure: what is known may be its reason.
    pub(super) fn forget(&self, wanted: &Wanted) {
        if let WantedAgent::System { slug, .. } = &wanted.agent {
            self.0.invalidate(&(wanted.sandbox_id.clone(), *slug));
        }
    }
}
