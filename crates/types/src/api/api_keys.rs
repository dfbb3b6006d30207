//! API keys of an account (`rest.md` 3).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::words;

/// 3.1: makes a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateApiKeyRequest {
    /// 1 to 128 characters.
    #[schema(min_length = 1, max_length = 128)]
    pub name: String,
    /// 1 to 3650; null for a key that never ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_in_days: Option<u32>,
}

/// A new key with its secret, which is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedApiKey {
    /// The key's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The secret.
    pub key: String,
    /// The first characters of the secret.
    pub key_prefix: String,
    /// When it was made.
    #[serde(with = "super::time")]
    pub created_at: DateTime<Utc>,
    /// When it ends.
    #[serde(with = "super::time::option", default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Always null: keys of this server wrap no JWT.
    #[serde(with = "super::time::option", default)]
    pub jwt_expires_at: Option<DateTime<Utc>>,
    /// Says that the secret is not shown again.
    #[serde(default)]
    pub warning: String,
    /// The same as `id`, for older clients.
    #[serde(default)]
    pub key_id: String,
}

redacted_debug!(CreatedApiKey);

/// One row of the key list; never holds the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// The key's id.
    pub id: String,
    /// The same as `id`.
    #[serde(default)]
    pub api_key_id: String,
    /// Its name.
    pub name: String,
    /// The same as `name`.
    #[serde(default)]
    pub label: String,
    /// `general`, `agent_invoke` or `agent_delegate`.
    #[serde(default)]
    #[schema(value_type = words::KeyKind)]
    pub kind: String,
    /// The one agent that the key is good for.
    pub agent_id: Option<String>,
    /// The first characters of the secret.
    pub key_prefix: String,
    /// When it was made.
    #[serde(with = "super::time")]
    pub created_at: DateTime<Utc>,
    /// When it ends.
    #[serde(with = "super::time::option", default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Always null.
    #[serde(with = "super::time::option", default)]
    pub jwt_expires_at: Option<DateTime<Utc>>,
    /// When it was last presented.
    #[serde(with = "super::time::option", default)]
    pub last_used_at: Option<DateTime<Utc>>,
    /// How often it was presented.
    #[serde(default)]
    pub use_count: u64,
    /// Whether it has ended by time.
    #[serde(default)]
    pub is_expired: bool,
    /// Always false.
    #[serde(default)]
    pub jwt_needs_refresh: bool,
    /// When it was revoked.
    #[serde(with = "super::time::option", default)]
    pub revoked_at: Option<DateTime<Utc>>,
}

/// 3.2: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListApiKeysQuery {
    /// Only these kinds; may be repeated, or hold several separated by commas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[param(value_type = Vec<words::KeyKind>, inline)]
    pub kinds: Vec<String>,
    /// Also keys that were revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_revoked: Option<bool>,
}

/// 3.3: the key is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedApiKey {
    /// Always true.
    pub revoked: bool,
    /// The key's id.
    pub id: String,
    /// Its name.
    pub name: String,
}
