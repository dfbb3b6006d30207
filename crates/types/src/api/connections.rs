//! Grants on a sandbox (`rest.md` 6).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::words;

/// 6.1: shares the sandbox; exactly one of `copass_id`, `user_id`, `email`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateConnectionRequest {
    /// The grantee's handle, with or without `@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copass_id: Option<String>,
    /// The grantee's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Not offered: 501.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// `viewer` or `editor`.
    #[schema(value_type = words::GrantRole)]
    pub role: String,
    /// Limits the grant to one project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// How the owner calls the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When the grant ends.
    #[serde(with = "super::time::option", default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// 6.2: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListConnectionsQuery {
    /// Also revoked and expired grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_revoked: Option<bool>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxConnection {
    /// Its id.
    pub connection_id: String,
    /// The sandbox that is shared.
    pub sandbox_id: String,
    /// The grantee.
    pub user_id: String,
    /// The grantee's handle now, without `@`.
    pub copass_id: Option<String>,
    /// `viewer` or `editor`.
    #[schema(value_type = words::GrantRole)]
    pub role: String,
    /// The one project that the grant covers.
    pub project_id: Option<String>,
    /// How the owner calls the grant.
    pub label: Option<String>,
    /// When it ends.
    #[serde(with = "super::time::option", default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    #[serde(with = "super::time::option", default)]
    pub revoked_at: Option<DateTime<Utc>>,
    /// Who shared.
    pub created_by: String,
    /// When.
    #[serde(with = "super::time")]
    pub created_at: DateTime<Utc>,
    /// `active`, `revoked` or `expired`.
    #[schema(value_type = words::ConnectionStatus)]
    pub status: String,
    /// What to do next; only on a grant that was just made.
    pub next_step: Option<String>,
}

/// 6.3: the grant and its keys are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedConnection {
    /// Always true.
    pub success: bool,
    /// What happened.
    pub message: String,
    /// The grant.
    pub connection_id: String,
    /// Always true.
    pub revoked: bool,
    /// How many keys ended with it.
    pub cascaded_keys: u64,
}

/// 6.4: a key that acts as the grantee inside this sandbox; the secret is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpawnedConnectionKey {
    /// The key's id.
    pub api_key_id: String,
    /// The same, for older clients.
    #[serde(default)]
    pub key_id: String,
    /// The secret.
    pub plaintext_key: String,
    /// The same, for older clients.
    #[serde(default)]
    pub key: String,
    /// The first characters of the secret.
    pub key_prefix: String,
    /// When it ends: with the grant.
    #[serde(with = "super::time::option", default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Says that the secret is not shown again.
    pub warning: Option<String>,
}

redacted_debug!(SpawnedConnectionKey);
