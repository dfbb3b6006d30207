//! Bodies of the REST API, exactly as `contract/rest.md` names them.
//!
//! One place for both sides of the wire: the gateway serves these shapes and the client and the CLI read them, so the
//! two cannot drift apart. Three rules hold everywhere:
//!
//! - a field that may have no value is sent as `null`, because typed clients trip over a missing key; only fields that
//!   the contract says to leave out are left out;
//! - ids and closed words (`status`, `role`) are plain text here: to a client they are opaque, and a client must
//!   survive a word it does not know yet. Services check them;
//! - requests ignore fields they do not know, responses may grow.

/// `Debug` that names the type and shows nothing, for bodies that hold a secret.
macro_rules! redacted_debug {
    ($($name:ident),+ $(,)?) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(concat!(stringify!($name), " { <secret> }"))
            }
        }
    )+};
}

pub mod agent_keys;
pub mod agent_versions;
pub mod agents;
pub mod api_keys;
pub mod audit;
pub mod auth;
pub mod concierge;
pub mod connections;
pub mod errors;
pub mod health;
pub mod object_only;
pub mod present;
pub mod run_start;
pub mod runs;
pub mod sandboxes;
pub mod sources;
pub mod time;
pub mod triggers;
pub mod usage;
pub mod users;
pub mod words;

pub use agent_keys::{CreateAgentKeyRequest, CreatedAgentKey, ListAgentKeysQuery};
pub use agent_versions::{
    AgentVersion, AgentVersionDiff, AgentVersionList, DiffAgentVersionsQuery, FieldChange, ListAgentVersionsQuery,
    RollBackAgentRequest,
};
pub use agents::{
    Agent, AgentList, AgentTool, CreateAgentRequest, ListAgentsQuery, ListToolsQuery, ModelSettings,
    ModelSettingsInput, SkippedSource, ToolList, UpdateAgentRequest, UpdateToolSourcesRequest,
};
pub use api_keys::{ApiKey, CreateApiKeyRequest, CreatedApiKey, ListApiKeysQuery, RevokedApiKey};
pub use audit::{AuditList, AuditRecord, ListAuditQuery};
pub use auth::{Empty, OtpRequest, RefreshRequest, Session, SessionUser, TokenQuery, VerifyRequest};
pub use concierge::{ConciergeChatRequest, ConciergeTestRequest, ConciergeTestResponse, Frame};
pub use connections::{
    CreateConnectionRequest, ListConnectionsQuery, RevokedConnection, SandboxConnection, SpawnedConnectionKey,
};
pub use errors::{ErrorBody, ErrorDetail, FieldProblem};
pub use health::{DependencyStatus, Health, ReadinessReport};
pub use run_start::{
    AdHocMessage, InvokeAgentRequest, InvokedRun, RetriedRun, RunAdHocRequest, StepResult, TestAgentRequest,
};
pub use runs::{AgentRun, FollowAgentRunsQuery, FollowRunQuery, ListRunsQuery, RunDetail, RunList, RunStep};
pub use sandboxes::{
    CreateSandboxRequest, ListSandboxesQuery, Sandbox, SandboxLimits, SandboxList, StatusResponse, UpdateSandboxRequest,
};
pub use sources::{DataSource, DataSourceList, ListSourcesQuery, RegisterSourceRequest};
pub use triggers::{ListTriggersQuery, Trigger, TriggerList};
pub use usage::{
    CallTypeUsage, ModelUsage, SandboxUsage, SandboxUsageQuery, Usage, UsageBalance, UsageGroup, UsageQuery, UsageSum,
    UsageSummary,
};
pub use users::{Handle, HandleRequest, ProfileRequest, UserProfile};

/// A JSON object that is stored or passed on as it is.
pub type JsonObject = serde_json::Map<String, serde_json::Value>;

#[cfg(test)]
mod tests;
