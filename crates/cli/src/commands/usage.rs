//! `copass usage`: tokens and cost over a window.

use chrono::{DateTime, TimeDelta, Utc};
use copass_types::api::{SandboxUsage, SandboxUsageQuery, Usage, UsageQuery, UsageSum};

use crate::{
    args::{UsageArgs, UsageBy},
    context::Context,
    failure::Failure,
    money,
    output::columns,
    table::{
        self, Spare,
        Spare::{Cut, Omit, Shorten},
    },
};

/// Headings of the sums.
const SUMS: [&str; 5] = ["RUNS", "MODEL CALLS", "TOKENS IN", "TOKENS OUT", "COST"];

pub(crate) async fn run(context: &Context, args: UsageArgs) -> Result<(), Failure> {
    if args.account {
        return account(context, &args).await;
    }
    let by = if args.by.is_empty() {
        vec![UsageBy::Agent]
    } else {
        args.by
    };
    let (client, sandbox_id) = context.in_sandbox().await?;
    let query = SandboxUsageQuery {
        group_by: by.iter().map(|by| by.as_str().to_owned()).collect(),
        since: args.since,
        until: args.until,
        agent: args.agent,
    };
    let reply = client.sandbox_usage(&sandbox_id, &query).await?;
    context.output.reply(&reply, |usage| describe(usage, &by))
}

fn describe(usage: &SandboxUsage, by: &[UsageBy]) -> String {
    let window = window(usage.since.as_ref(), usage.until.as_ref());
    if usage.total.runs == 0 {
        return format!("No runs{window}.");
    }
    let keys: Vec<String> = by.iter().map(|by| by.as_str().to_uppercase()).collect();
    let headings: Vec<&str> = keys.iter().map(String::as_str).chain(SUMS).collect();
    let mut rows: Vec<Vec<String>> = usage
        .groups
        .iter()
        .map(|group| {
            let keys = by.iter().map(|by| {
                let key = group.keys.get(by.as_str()).cloned().flatten();
                table::or_dash(key)
            });
            keys.chain(sums(&group.sum)).collect()
        })
        .collect();
    let blanks = (1..by.len()).map(|_| String::new());
    rows.push(
        ["all".to_owned()]
            .into_iter()
            .chain(blanks)
            .chain(sums(&usage.total))
            .collect(),
    );
    // Names first, then figures, and what the rows are about to the last.
    let names = [Shorten("MODEL"), Shorten("TRIGGER"), Shorten("AGENT")];
    let figures = [Omit("TOKENS IN"), Omit("TOKENS OUT")];
    let words = [Shorten("ENTRANCE"), Shorten("STATUS"), Shorten("DAY"), Cut("COST")];
    let spares: Vec<Spare> = [Omit("MODEL CALLS")]
        .into_iter()
        .chain(names)
        .chain(figures)
        .chain(words)
        .collect();
    let sheet = table::sheet(&headings, &spares, &rows, "");
    let mut title = format!("Usage{window}");
    if columns().is_some_and(|columns| columns < title.len()) {
        title = title.replacen(" to ", "\nto ", 1);
    }
    format!("{title}\n\n{sheet}")
}

fn sums(sum: &UsageSum) -> [String; 5] {
    [
        sum.runs.to_string(),
        sum.model_calls.to_string(),
        sum.tokens_in.to_string(),
        sum.tokens_out.to_string(),
        money::dollars_of_runs(
            sum.cost_microcents.unwrap_or_default(),
            sum.runs,
            sum.runs_without_price,
        ),
    ]
}

fn window(since: Option<&DateTime<Utc>>, until: Option<&DateTime<Utc>>) -> String {
    match (since, until) {
        (Some(since), Some(until)) => format!(" from {} to {}", table::time(since), table::time(until)),
        (Some(since), None) => format!(" since {}", table::time(since)),
        (None, Some(until)) => format!(" before {}", table::time(until)),
        (None, None) => String::new(),
    }
}

/// Of every sandbox the caller owns; this route of the contract counts whole days.
async fn account(context: &Context, args: &UsageArgs) -> Result<(), Failure> {
    let query = UsageQuery {
        start_date: args.since.map(|since| since.date_naive()),
        // The day that the moment before ends in.
        end_date: args
            .until
            .map(|until| (until - TimeDelta::microseconds(1)).date_naive()),
    };
    let reply = context.client().await?.usage(&query).await?;
    context.output.reply(&reply, describe_account)
}

fn describe_account(usage: &Usage) -> String {
    let summary = &usage.summary;
    let day = |date: chrono::NaiveDate| date.to_string();
    let mut parts = vec![table::properties(&[
        ("from", usage.start_date.map(day)),
        ("to", usage.end_date.map(day)),
        ("model calls", Some(summary.total_calls.to_string())),
        ("tokens in", Some(summary.total_prompt_tokens.to_string())),
        ("tokens out", Some(summary.total_completion_tokens.to_string())),
        ("cost", Some(cost(summary.total_cost_usd, usage.runs_without_price))),
    ])];
    if !usage.by_model.is_empty() {
        let rows = usage.by_model.iter().map(|row| {
            [
                row.model.clone(),
                row.provider.clone(),
                row.calls.to_string(),
                row.prompt_tokens.to_string(),
                row.completion_tokens.to_string(),
                cost(row.cost_usd, row.runs_without_price),
            ]
        });
        let headings = ["MODEL", "PROVIDER", "CALLS", "TOKENS IN", "TOKENS OUT", "COST"];
        parts.push(table::rows(
            headings,
            &[Omit("PROVIDER"), Omit("CALLS"), Shorten("MODEL"), Omit("TOKENS IN")],
            rows,
            "",
        ));
    }
    if !usage.by_call_type.is_empty() {
        let rows = usage.by_call_type.iter().map(|row| {
            [
                row.call_type.clone(),
                row.calls.to_string(),
                row.prompt_tokens.to_string(),
                row.completion_tokens.to_string(),
                cost(row.cost_usd, row.runs_without_price),
            ]
        });
        let headings = ["STARTED BY", "CALLS", "TOKENS IN", "TOKENS OUT", "COST"];
        parts.push(table::rows(headings, &[Omit("CALLS"), Shorten("STARTED BY")], rows, ""));
    }
    parts.join("\n\n")
}

/// What is not known is not nothing.
fn cost(amount: f64, runs_without_price: u64) -> String {
    if runs_without_price > 0 && amount == 0.0 {
        return "unknown".to_owned();
    }
    money::beside_unknown(usd(amount), runs_without_price)
}

/// This route speaks of dollars.
fn usd(amount: f64) -> String {
    let text = format!("{:.6}", amount.max(0.0));
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let kept = decimals.trim_end_matches('0').len().max(2);
    format!("${whole}.{}", decimals.get(..kept).unwrap_or(decimals))
}
