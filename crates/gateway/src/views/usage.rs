//! Tokens and cost.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use copass_proto::run as proto;
use copass_types::api;

/// What [`account`] reads the sums grouped by, in this order.
pub(crate) const ACCOUNT_GROUPS: [&str; 2] = ["model", "entrance"];
/// Stands for what a run does not have.
const UNKNOWN: &str = "unknown";

/// Usage of an account, from sums grouped by [`ACCOUNT_GROUPS`].
pub(crate) fn account(sums: proto::AggregateUsageResponse, start_date: NaiveDate, end_date: NaiveDate) -> api::Usage {
    let total = sums.total.unwrap_or_default();
    let mut models: BTreeMap<(String, String), api::ModelUsage> = BTreeMap::new();
    let mut call_types: BTreeMap<String, api::CallTypeUsage> = BTreeMap::new();
    for group in sums.groups {
        let sum = group.sum.unwrap_or_default();
        let mut keys = group.keys.into_iter();
        // `backend/model`; a run that called no model has neither.
        let model = keys.next().unwrap_or_default();
        let (provider, model) = model.split_once('/').unwrap_or((UNKNOWN, &model));
        if !model.is_empty() {
            let row = models.entry((provider.to_owned(), model.to_owned())).or_default();
            provider.clone_into(&mut row.provider);
            model.clone_into(&mut row.model);
            row.prompt_tokens += sum.tokens_in;
            row.completion_tokens += sum.tokens_out;
            row.total_tokens += sum.tokens_in + sum.tokens_out;
            row.cost_usd = added(row.cost_usd, sum.cost_microcents);
            row.calls += sum.model_calls;
            row.runs_without_price += sum.runs_without_price;
        }
        let call_type = keys
            .next()
            .filter(|key| !key.is_empty())
            .unwrap_or_else(|| UNKNOWN.to_owned());
        let row = call_types.entry(call_type.clone()).or_default();
        row.call_type = call_type;
        row.prompt_tokens += sum.tokens_in;
        row.completion_tokens += sum.tokens_out;
        row.total_tokens += sum.tokens_in + sum.tokens_out;
        row.cost_usd = added(row.cost_usd, sum.cost_microcents);
        row.calls += sum.model_calls;
        row.runs_without_price += sum.runs_without_price;
    }
    let mut by_model: Vec<_> = models.into_values().collect();
    by_model.sort_by_key(|row| std::cmp::Reverse(row.total_tokens));
    let mut by_call_type: Vec<_> = call_types.into_values().collect();
    by_call_type.sort_by_key(|row| std::cmp::Reverse(row.total_tokens));
    api::Usage {
        summary: api::UsageSummary {
            total_prompt_tokens: total.tokens_in,
            total_completion_tokens: total.tokens_out,
            total_tokens: total.tokens_in + total.tokens_out,
            total_cost_usd: usd(total.cost_microcents),
            total_calls: total.model_calls,
        },
        by_model,
        by_call_type,
        start_date: Some(start_date),
        end_date: Some(end_date),
        runs_without_price: total.runs_without_price,
    }
}

/// Nothing is sold here, so nothing was bought, nothing remains, and nobody is stopped for it.
pub(crate) fn balance(sums: proto::AggregateUsageResponse) -> api::UsageBalance {
    api::UsageBalance {
        credits_purchased: 0,
        credits_used: sums.total.unwrap_or_default().cost_microcents,
        credits_remaining: 0,
        balance_credits: 0,
        currency: "USD_microcents".to_owned(),
    }
}

pub(crate) fn sandbox(
    sums: proto::AggregateUsageResponse,
    group_by: Vec<String>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> api::SandboxUsage {
    let groups: Vec<_> = sums
        .groups
        .into_iter()
        .map(|group| api::UsageGroup {
            keys: group_by
                .iter()
                .cloned()
                .zip(
                    group
                        .keys
                        .into_iter()
                        .map(|key| Some(key).filter(|key| !key.is_empty())),
                )
                .collect(),
            sum: sum(group.sum.unwrap_or_default()),
        })
        .collect();
    api::SandboxUsage {
        total: sum(sums.total.unwrap_or_default()),
        count: groups.len(),
        groups,
        group_by,
        since,
        until,
    }
}

/// Sums of binary fractions are a little off; what is meant are whole microcents.
fn added(cost_usd: f64, microcents: u64) -> f64 {
    ((cost_usd + usd(microcents)) * 1e6).round() / 1e6
}

fn sum(sum: proto::UsageSum) -> api::UsageSum {
    api::UsageSum {
        runs: sum.runs,
        tokens_in: sum.tokens_in,
        tokens_out: sum.tokens_out,
        // Not known is not nothing.
        cost_microcents: (sum.runs == 0 || sum.runs_without_price < sum.runs).then_some(sum.cost_microcents),
        runs_without_price: sum.runs_without_price,
        model_calls: sum.model_calls,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the contract wants a number of USD; exact below 9 billion USD"
)]
fn usd(microcents: u64) -> f64 {
    microcents as f64 / 1e6
}
