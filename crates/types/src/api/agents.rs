//! Agents (`rest.md` 12.A).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// 12.1: makes an agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateAgentRequest {
    /// `^[a-z0-9-]+$`, unique in the sandbox, never changes.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// What it is told to be.
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
    pub backend: Option<String>,
    /// The model's name at the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// `e2b`; goes with hermes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_provider: Option<String>,
}

/// The model and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelSettings {
    /// `anthropic`, `google` or `hermes`.
    pub backend: String,
    /// The model's name at the backend.
    pub model: String,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// Most tokens of one answer.
    pub max_tokens: Option<u32>,
    /// Most model calls of one run.
    pub max_turns: Option<u32>,
    /// Longest run.
    pub timeout_s: Option<u32>,
    /// Goes with hermes.
    pub compute_provider: Option<String>,
}

/// 12.2: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListAgentsQuery {
    /// `active` or `archived`; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    pub status: String,
    /// Starts at 1 and grows with each change.
    pub version: u32,
    /// When it was made.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// When it last changed.
    #[serde(with = "super::time::option", default)]
    pub updated_at: Option<DateTime<Utc>>,
}

/// 12.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    /// The agents.
    pub agents: Vec<Agent>,
    /// How many rows there are.
    pub count: usize,
}
