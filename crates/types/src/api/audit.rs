//! The audit log of a sandbox; a route of our own, for its owner.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::JsonObject;

/// The query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListAuditQuery {
    /// 1 to 500, 100 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only records older than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Who did what, when, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// Its id.
    pub id: String,
    /// When.
    #[serde(with = "super::time")]
    pub at: DateTime<Utc>,
    /// The sandbox it was about.
    pub sandbox_id: Option<String>,
    /// The full chain of who: person, key, grant, run, services passed.
    #[schema(value_type = Object)]
    pub actor: JsonObject,
    /// For example `sandbox.archive`.
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// The state before.
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// The state after.
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
    /// `ok` or the error's code.
    pub result: String,
    /// The request that did it.
    pub request_id: String,
}

/// Newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// How many rows there are.
    pub count: usize,
}
