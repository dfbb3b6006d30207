//! Keys of one agent (`rest.md` 14). Rows of the list are those of the account's keys.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::words;

/// Makes a key that can run one agent and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateAgentKeyRequest {
    /// `invoke`: runs have the identity of the key's holder. `delegate`: they have the owner's.
    #[schema(value_type = words::NewAgentKeyKind)]
    pub kind: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The holder of an invoke key, with or without `@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copass_id: Option<String>,
    /// 1 to 3650; null for a key that never ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_in_days: Option<u32>,
}

/// A new key with its secret, which is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedAgentKey {
    /// The key's id.
    pub api_key_id: String,
    /// The same as `api_key_id`.
    pub id: String,
    /// The secret.
    pub key: String,
    /// The same as `key`.
    pub plaintext_key: String,
    /// The first characters of the secret.
    pub key_prefix: String,
    /// `agent_invoke` or `agent_delegate`.
    #[schema(value_type = words::AgentKeyKind)]
    pub kind: String,
    /// What it is for.
    pub label: Option<String>,
    /// The one agent that the key is good for.
    pub agent_id: String,
    /// When it ends.
    #[serde(with = "super::time::option", default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Says that the secret is not shown again.
    #[serde(default)]
    pub warning: String,
}

redacted_debug!(CreatedAgentKey);

/// The query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListAgentKeysQuery {
    /// Also keys that were revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_revoked: Option<bool>,
}
