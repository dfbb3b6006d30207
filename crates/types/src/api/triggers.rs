//! Triggers (`rest.md` 13).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{JsonObject, words};

/// 13.2: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListTriggersQuery {
    /// `active`, `paused` or `disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<words::TriggerStatus>, inline)]
    pub status: Option<String>,
}

/// A trigger: runs an agent on events of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Trigger {
    /// Its id.
    pub trigger_id: String,
    /// The account that holds it.
    pub user_id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// The agent that runs.
    pub agent_id: String,
    /// The source whose events it watches.
    pub data_source_id: String,
    /// `*`, a dotted name, or a dotted name that ends in `.*`.
    pub event_type_filter: String,
    /// Further conditions on the event's fields.
    #[schema(value_type = Option<Object>)]
    pub filter_config: Option<JsonObject>,
    /// `active`, `paused` or `disabled`.
    #[schema(value_type = words::TriggerStatus)]
    pub status: String,
    /// Fires at most this often in an hour.
    pub rate_limit_per_hour: Option<u32>,
    /// When it last fired.
    #[serde(with = "super::time::option", default)]
    pub last_fired_at: Option<DateTime<Utc>>,
    /// How often it has fired.
    pub fire_count: u64,
    /// When it was made.
    #[serde(with = "super::time::option", default)]
    pub created_at: Option<DateTime<Utc>>,
    /// When it last changed.
    #[serde(with = "super::time::option", default)]
    pub updated_at: Option<DateTime<Utc>>,
}

/// 13.2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TriggerList {
    /// The agent's name in paths.
    #[serde(default)]
    pub agent_slug: String,
    /// The triggers.
    pub triggers: Vec<Trigger>,
    /// How many rows there are.
    pub count: usize,
}
