//! The numbered states of an agent; routes of our own.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Agent;

/// The query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListAgentVersionsQuery {
    /// 1 to 100, 20 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only versions older than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1)]
    pub before: Option<u32>,
}

/// Who changed what, when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentVersion {
    /// Its number.
    pub version: u32,
    /// The person or service that made it.
    pub created_by: String,
    /// When it was made.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// The fields that differ from the version before; all of them for version 1.
    #[serde(default)]
    pub changed: Vec<String>,
    /// The version whose content a roll-back gave it.
    #[serde(default)]
    pub rolled_back_to: Option<u32>,
    /// The agent as it was; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
}

/// Newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentVersionList {
    /// The agent's name in paths.
    #[serde(default)]
    pub agent_slug: String,
    /// The versions.
    pub versions: Vec<AgentVersion>,
    /// How many rows there are.
    pub count: usize,
}

/// The query of the comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffAgentVersionsQuery {
    /// The version to begin with.
    #[param(minimum = 1)]
    pub from: u32,
    /// The version to end with; the present one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1)]
    pub to: Option<u32>,
}

/// What differs between two versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentVersionDiff {
    /// The agent's name in paths.
    #[serde(default)]
    pub agent_slug: String,
    /// The version to begin with.
    pub from: u32,
    /// The version to end with.
    pub to: u32,
    /// The fields that differ.
    pub changes: Vec<FieldChange>,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// For example `system_prompt` or `model_settings.temperature`.
    pub field: String,
    /// Its value in `from`.
    #[schema(value_type = Option<Object>)]
    pub before: Value,
    /// Its value in `to`.
    #[schema(value_type = Option<Object>)]
    pub after: Value,
}

/// Makes a new version with the content of an old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RollBackAgentRequest {
    /// The old one.
    #[schema(minimum = 1)]
    pub to_version: u32,
}
