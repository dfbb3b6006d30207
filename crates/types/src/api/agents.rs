//! Agents (`rest.md` 12.A) and their tools (12.13).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::words;

/// 12.1: makes an agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateAgentRequest {
    /// `^[a-z0-9-]+$`, unique in the sandbox, never changes.
    #[schema(pattern = "^[a-z0-9-]+$", min_length = 1, max_length = 64)]
    pub slug: String,
    /// Its name.
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// What it is told to be.
    #[schema(min_length = 1)]
    pub system_prompt: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tools it may use; empty allows every tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_allowlist: Option<Vec<String>>,
    /// The model and its limits; anthropic and its default model when left out.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::object_only::option::deserialize"
    )]
    pub model_settings: Option<ModelSettingsInput>,
}

/// Model settings as a caller gives them; what is left out gets its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelSettingsInput {
    /// `anthropic`, `google` or `hermes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<words::Backend>)]
    pub backend: Option<String>,
    /// The model's name at the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub max_tokens: Option<u32>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 200)]
    pub max_turns: Option<u32>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_s: Option<u32>,
    /// `e2b`; goes with hermes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<words::ComputeProvider>)]
    pub compute_provider: Option<String>,
}

/// The model and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelSettings {
    /// `anthropic`, `google` or `hermes`.
    #[schema(value_type = words::Backend)]
    pub backend: String,
    /// The model's name at the backend.
    pub model: String,
    /// 0 to 2.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Most tokens of one answer.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub max_tokens: Option<u32>,
    /// Most model calls of one run.
    #[schema(minimum = 1, maximum = 200)]
    pub max_turns: Option<u32>,
    /// Longest run.
    #[schema(minimum = 1, maximum = 3600)]
    pub timeout_s: Option<u32>,
    /// Goes with hermes.
    #[schema(value_type = Option<words::ComputeProvider>)]
    pub compute_provider: Option<String>,
}

/// 12.4: changes an agent; what is left out, or null, stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UpdateAgentRequest {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub name: Option<String>,
    /// What it is for; null takes the description away.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::present::deserialize"
    )]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// What it is told to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub system_prompt: Option<String>,
    /// Tools it may use; empty allows every tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_allowlist: Option<Vec<String>>,
    /// Replaces all settings.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::object_only::option::deserialize"
    )]
    pub model_settings: Option<ModelSettingsInput>,
    /// `active` or `archived`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<words::AgentStatus>)]
    pub status: Option<String>,
}

/// 12.7: replaces the tool sources. The field must be there: null is the caller's default set, empty is no tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdateToolSourcesRequest {
    /// Names of tool sources.
    #[serde(deserialize_with = "super::present::required")]
    #[schema(required = true)]
    pub tool_sources: Option<Vec<String>>,
}

/// 12.2: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListAgentsQuery {
    /// `active` or `archived`; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<words::AgentStatus>, inline)]
    pub status: Option<String>,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its id.
    pub agent_id: String,
    /// The account that holds it.
    pub user_id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// Its name in paths.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What it is told to be.
    pub system_prompt: String,
    /// Tools it may use; empty allows every tool.
    pub tool_allowlist: Vec<String>,
    /// Where tools come from; null is the caller's default set, empty is no tools.
    pub tool_sources: Option<Vec<String>>,
    /// The model and its limits.
    pub model_settings: ModelSettings,
    /// `active` or `archived`.
    #[schema(value_type = words::AgentStatus)]
    pub status: String,
    /// Starts at 1 and grows with each change.
    #[schema(minimum = 1)]
    pub version: u32,
    /// When it was made.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// When it last changed.
    #[serde(with = "super::time::option", default)]
    pub updated_at: Option<DateTime<Utc>>,
    /// What its operator should know, as sentences: skipped tool sources, allowlist entries that match no tool, no tools.
    /// A version, which is the agent as it was, has none.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Entries of the allowlist that match no tool there is now; none in a version.
    #[serde(default)]
    pub allowlist_missing_entries: Vec<String>,
}

/// 12.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    /// The agents.
    pub agents: Vec<Agent>,
    /// How many rows there are.
    pub count: usize,
}

/// 12.13: the query of the tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListToolsQuery {
    /// Only tools of this app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

/// A tool that the caller's runs could use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentTool {
    /// The name that models and allowlists use.
    pub name: String,
    /// The app it belongs to.
    pub app_slug: String,
    /// What it does.
    pub description: Option<String>,
    /// The tool source it comes from.
    #[serde(default)]
    pub source: String,
    /// Whether it only reads.
    #[serde(default)]
    pub read_only: bool,
}

/// 12.13.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolList {
    /// The tools.
    pub tools: Vec<AgentTool>,
    /// How many rows there are.
    pub count: usize,
    /// Why tools may be missing.
    #[serde(default)]
    pub skipped: Vec<SkippedSource>,
}

/// A tool source that gave no tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkippedSource {
    /// The tool source.
    pub name: String,
    /// A sentence.
    pub reason: String,
}
