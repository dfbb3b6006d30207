//! Sandboxes (`rest.md` 5) and the answer that all state changes share.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{JsonObject, words};

/// 5.1: makes a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateSandboxRequest {
    /// 1 to 255 characters; unique together with `owner_id`.
    pub name: String,
    /// The caller's own opaque key, echoed.
    pub owner_id: String,
    /// `free` (default), `pro` or `enterprise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<words::Tier>)]
    pub tier: Option<String>,
    /// Free data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<JsonObject>,
}

/// 5.2: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListSandboxesQuery {
    /// `active`, `suspended` or `archived`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<words::SandboxStatus>, inline)]
    pub status: Option<String>,
    /// Only those made with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<String>,
}

/// 5.4: changes only the named fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UpdateSandboxRequest {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Replaces the whole of the free data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<JsonObject>,
}

/// A sandbox as the caller may see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sandbox {
    /// Its id.
    pub sandbox_id: String,
    /// The account that holds it.
    pub user_id: String,
    /// The key that the maker gave.
    pub owner_id: String,
    /// Its name.
    pub name: String,
    /// `free`, `pro` or `enterprise`.
    #[schema(value_type = words::Tier)]
    pub tier: String,
    /// `active`, `suspended` or `archived`.
    #[schema(value_type = words::SandboxStatus)]
    pub status: String,
    /// `platform_s3` or `custom_s3`.
    pub storage_provider_type: String,
    /// What the tier allows.
    pub limits: SandboxLimits,
    /// Free data.
    #[schema(value_type = Object)]
    pub metadata: JsonObject,
    /// When it was made.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// `owner`, `editor` or `viewer`: what the caller is there.
    pub access: Option<String>,
    /// Whether the caller comes in through a grant.
    #[serde(default)]
    pub is_external: bool,
}

/// What a tier allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxLimits {
    /// Sources at most.
    pub max_data_sources: u64,
    /// Projects at most.
    pub max_projects: u64,
    /// Bytes at most.
    pub max_storage_bytes: u64,
}

/// 5.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SandboxList {
    /// Own ones and those that were shared.
    pub sandboxes: Vec<Sandbox>,
    /// How many rows there are.
    pub count: usize,
}

/// The union of all shapes that the clients' fixtures show for a change of state; ids that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusResponse {
    /// Always true.
    pub success: bool,
    /// What happened.
    pub message: Option<String>,
    /// The sandbox that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// The source that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_source_id: Option<String>,
    /// The project that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The status it has now.
    pub status: Option<String>,
    /// Only of things that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
}
