//! Profile and handle (`rest.md` 2).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::JsonObject;

/// 2.1: creates or renames the profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileRequest {
    /// How the person is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Promotes an existing entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical_id: Option<String>,
}

/// A person's profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserProfile {
    /// The person.
    pub user_id: String,
    /// How the person is shown.
    pub display_name: String,
    /// The primary sandbox.
    pub sandbox_id: Option<String>,
    /// The default project.
    pub project_id: Option<String>,
    /// The entity that stands for the person.
    pub canonical_id: Option<String>,
    /// Whether the entity is the root of the person's graph.
    #[serde(default)]
    pub is_user_root: bool,
    /// Labels of the entity.
    #[serde(default)]
    pub semantic_tags: Vec<String>,
    /// Whether this very call made the profile.
    #[serde(default)]
    pub was_created: bool,
    /// When the profile was made.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// Free data.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: JsonObject,
    /// The handle, without `@`.
    pub copass_id: Option<String>,
    /// The verified address.
    pub email: Option<String>,
}

/// Claims a handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HandleRequest {
    /// With or without `@`.
    pub copass_id: String,
}

/// The handle as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Handle {
    /// Without `@`; null when none is claimed.
    pub copass_id: Option<String>,
}
