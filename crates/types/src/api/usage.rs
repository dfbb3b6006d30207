//! Tokens and cost: of an account (`rest.md` 4) and, a route of our own, of a sandbox.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::words;

/// 4.1: the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// The first day (UTC) that counts; 30 days in all when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<NaiveDate>,
    /// The last day (UTC) that counts, at most 366 days in all; today when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_date: Option<NaiveDate>,
}

/// 4.1: what the account's sandboxes used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Everything.
    pub summary: UsageSummary,
    /// For each model.
    pub by_model: Vec<ModelUsage>,
    /// For each way in which runs come about: `chat`, `test`, `ad_hoc`, `invoke`, `trigger` or `retry`.
    pub by_call_type: Vec<CallTypeUsage>,
    /// The first day that counts.
    pub start_date: Option<NaiveDate>,
    /// The last day that counts.
    pub end_date: Option<NaiveDate>,
    /// Runs whose cost is not known; the sums of cost leave them out.
    #[serde(default)]
    pub runs_without_price: u64,
}

/// 4.1: everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageSummary {
    /// Tokens read.
    pub total_prompt_tokens: u64,
    /// Tokens written.
    pub total_completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// USD.
    pub total_cost_usd: f64,
    /// Calls of a model.
    pub total_calls: u64,
}

/// 4.1: one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelUsage {
    /// The model.
    pub model: String,
    /// Its provider.
    pub provider: String,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// USD.
    pub cost_usd: f64,
    /// Calls of the model.
    pub calls: u64,
    /// Runs whose cost is not known; `cost_usd` leaves them out.
    #[serde(default)]
    pub runs_without_price: u64,
}

/// 4.1: one way in which runs come about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CallTypeUsage {
    /// `chat`, `test`, `ad_hoc`, `invoke`, `trigger` or `retry`.
    #[schema(value_type = words::CallType)]
    pub call_type: String,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// USD.
    pub cost_usd: f64,
    /// Calls of a model.
    pub calls: u64,
    /// Runs whose cost is not known; `cost_usd` leaves them out.
    #[serde(default)]
    pub runs_without_price: u64,
}

/// 4.2. This server sells nothing: nothing was bought and nothing remains, and use is not stopped by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageBalance {
    /// Always 0.
    pub credits_purchased: u64,
    /// What the account's sandboxes cost in the last 366 days.
    pub credits_used: u64,
    /// Always 0.
    pub credits_remaining: u64,
    /// The same as `credits_remaining`.
    pub balance_credits: u64,
    /// Always `USD_microcents`: 1e-6 USD.
    #[schema(value_type = words::BalanceUnit)]
    pub currency: String,
}

/// The query of a sandbox's usage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SandboxUsageQuery {
    /// Any of `agent`, `trigger`, `model`, `status`, `entrance`, `day`; may be repeated, or hold several separated by
    /// commas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[param(value_type = Vec<words::UsageDimension>, inline)]
    pub group_by: Vec<String>,
    /// Only runs accepted at or after this instant (RFC 3339); 30 days before `until` when it is left out.
    #[serde(with = "super::time::option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Only runs accepted before this instant (RFC 3339); now when it is left out.
    #[serde(with = "super::time::option", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Only runs of this agent, by its slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

/// What a sandbox used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxUsage {
    /// What the groups are made of, in this order.
    #[serde(default)]
    #[schema(value_type = Vec<words::UsageDimension>)]
    pub group_by: Vec<String>,
    /// Everything.
    pub total: UsageSum,
    /// Most tokens first; empty when nothing is grouped by.
    pub groups: Vec<UsageGroup>,
    /// How many groups there are.
    pub count: usize,
    /// The beginning of the window.
    #[serde(with = "super::time::option", default)]
    pub since: Option<DateTime<Utc>>,
    /// The end of the window.
    #[serde(with = "super::time::option", default)]
    pub until: Option<DateTime<Utc>>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageGroup {
    /// What its runs have in common, by the words of `group_by`; null where they have none.
    pub keys: BTreeMap<String, Option<String>>,
    /// Its sums.
    #[serde(flatten)]
    pub sum: UsageSum,
}

/// Sums over runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageSum {
    /// How many runs.
    pub runs: u64,
    /// Tokens read.
    pub tokens_in: u64,
    /// Tokens written.
    pub tokens_out: u64,
    /// 1e-6 USD, of the runs whose cost is known; null where that is none of them.
    pub cost_microcents: Option<u64>,
    /// Runs whose cost is not known; `cost_microcents` leaves them out.
    #[serde(default)]
    pub runs_without_price: u64,
    /// Calls of a model.
    #[serde(default)]
    pub model_calls: u64,
}
