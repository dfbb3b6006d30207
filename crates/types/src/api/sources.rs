//! Data sources (`rest.md` 8).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::JsonObject;

/// 8.1: registers a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegisterSourceRequest {
    /// Open set: slack, github, linear, custom, manual …
    pub provider: String,
    /// 1 to 255 characters, not unique.
    pub name: String,
    /// `manual` (default), `polling`, `realtime` or `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingestion_mode: Option<String>,
    /// `durable` (default) or `ephemeral`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The account at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account_id: Option<String>,
    /// Settings of the adapter; never secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub adapter_config: Option<JsonObject>,
    /// At least 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_interval_seconds: Option<u32>,
}

/// 8.2: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListSourcesQuery {
    /// Only of this provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// `active`, `paused`, `disconnected`, `error` or `archived`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// A data source.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DataSource {
    /// Its id.
    pub data_source_id: String,
    /// The account that holds it.
    pub user_id: String,
    /// The sandbox; never changes.
    pub sandbox_id: String,
    /// Where events come from.
    pub provider: String,
    /// Its name.
    pub name: String,
    /// `manual`, `polling`, `realtime` or `batch`.
    pub ingestion_mode: String,
    /// `active`, `paused`, `disconnected`, `error` or `archived`.
    pub status: String,
    /// `durable` or `ephemeral`.
    pub kind: String,
    /// The account at the provider.
    pub external_account_id: Option<String>,
    /// Settings of the adapter.
    #[schema(value_type = Object)]
    pub adapter_config: JsonObject,
    /// Seconds between polls.
    pub poll_interval_seconds: Option<u32>,
    /// Where the provider delivers to; set for realtime.
    pub webhook_url: Option<String>,
    /// Shown once, when it is made or rotated; left out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_signing_secret: Option<String>,
    /// Why the upstream trigger could not be deployed; left out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_deploy_error: Option<String>,
    /// When something last came in.
    #[serde(with = "super::time::option", default)]
    pub last_sync_at: Option<DateTime<Utc>>,
    /// When it was made.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// When it last changed.
    #[serde(with = "super::time::option", default)]
    pub updated_at: Option<DateTime<Utc>>,
}

redacted_debug!(DataSource);

/// 8.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DataSourceList {
    /// The sources.
    pub sources: Vec<DataSource>,
    /// How many rows there are.
    pub count: usize,
}
