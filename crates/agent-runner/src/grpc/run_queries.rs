//! Queries over many runs: conversion, and what fits into a message.

use chrono::{DateTime, Utc};
use copass_errors::{Error, FieldProblem};
use copass_proto::{convert, run as proto};
use copass_runtime::CallContext;
use tonic::{Request, Response, Status};

use crate::app::{
    runs::{Query, Runs},
    usage::{Sums, UsageQuery},
};

/// What may be long of all runs in a page: beside it, there is room enough for what is short of them.
const MAX_PAGE_BYTES: usize = 12 * 1024 * 1024;
/// What a run shows of a long text in a page that is full.
const MAX_SHORT_BYTES: usize = 512;

/// What a list of runs is asked for.
pub(super) fn list_query(message: &proto::ListRunsRequest) -> Result<Query, Error> {
    Ok(Query {
        limit: message.limit,
        before: message.before.clone(),
        trigger_id: message.trigger_id.clone(),
        status: message.status.clone(),
        since: instant("since", message.since.as_ref().map(convert::instant))?,
        until: instant("until", message.until.as_ref().map(convert::instant))?,
        agent_version: message.agent_version,
    })
}

/// Makes a page fit into one message. Rows come with the beginnings of what may be long in them, and hardly ever are those
/// too much together; then the last ones come with less.
pub(super) fn fit(runs: &mut [proto::Run]) {
    let mut left = MAX_PAGE_BYTES;
    for run in runs {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let long =
            run.warnings_json.len() + len(&run.input_event_json) + len(&run.output_text) + len(&run.error_message);
        let Some(rest) = left.checked_sub(long) else {
            left = 0;
            run.input_event_json = None;
            run.warnings_json =
                r#"["the list has no room for the warnings of this run; the run itself has them"]"#.to_owned();
            for text in [&mut run.output_text, &mut run.error_message].into_iter().flatten() {
                text.truncate(text.floor_char_boundary(MAX_SHORT_BYTES));
            }
            continue;
        };
        left = rest;
    }
}

/// The whole of `AggregateUsage`.
pub(super) async fn aggregate_usage(
    runs: &Runs,
    request: Request<proto::AggregateUsageRequest>,
) -> Result<Response<proto::AggregateUsageResponse>, Status> {
    let context = CallContext::of(&request)?;
    let message = request.into_inner();
    let query = UsageQuery {
        sandbox_id: message.sandbox_id.map(|id| convert::id(&id, "sandbox")).transpose()?,
        since: instant("since", message.since.as_ref().map(convert::instant))?,
        until: instant("until", message.until.as_ref().map(convert::instant))?,
        group_by: message.group_by,
        agent_slug: message.agent_slug,
    };
    let usage = runs.aggregate_usage(&context, &query).await?;
    let groups = usage.groups.into_iter().map(|(keys, sums)| proto::UsageGroup {
        keys,
        sum: Some(sum_message(sums)),
    });
    Ok(Response::new(proto::AggregateUsageResponse {
        total: Some(sum_message(usage.total)),
        groups: groups.collect(),
    }))
}

/// An instant that was named and may be outside the calendar.
fn instant(field: &str, named: Option<Option<DateTime<Utc>>>) -> Result<Option<DateTime<Utc>>, Error> {
    named
        .map(|instant| {
            instant
                .ok_or_else(|| Error::invalid(vec![FieldProblem::query(field, "must be an instant of our calendar")]))
        })
        .transpose()
}

fn sum_message(sums: Sums) -> proto::UsageSum {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    proto::UsageSum {
        runs: unsigned(sums.runs),
        tokens_in: unsigned(sums.tokens_in),
        tokens_out: unsigned(sums.tokens_out),
        cost_microcents: unsigned(sums.cost_microcents),
        runs_without_price: unsigned(sums.runs_without_price),
        model_calls: unsigned(sums.model_calls),
    }
}
