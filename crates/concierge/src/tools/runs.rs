//! Run tools.

use async_trait::async_trait;
use copass_errors::{Error, Result};
use copass_proto::run::{GetRunRequest, ListRunsRequest, Run};
use serde_json::{Value, json};

use super::{Tool, ToolContext, instant, json_or_null, small_number, text};

const DEFAULT_LIMIT: u32 = 10;

pub(crate) struct ListRuns;
pub(crate) struct GetRunTrace;

fn row(run: &Run) -> Value {
    json!({
        "run_id": run.run_id,
        "status": run.status,
        "trigger_id": run.trigger_id,
        "tokens_in": run.tokens_in,
        "tokens_out": run.tokens_out,
        "duration_ms": run.duration_ms,
        "error_message": run.error_message,
        "started_at": instant(run.started_at.as_ref()),
        "finished_at": instant(run.finished_at.as_ref()),
    })
}

#[async_trait]
impl Tool for ListRuns {
    fn name(&self) -> &'static str {
        "list_runs"
    }

    fn description(&self) -> &'static str {
        "Lists the latest runs of an agent, newest first, with status, usage and error."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({
            "agent_slug": { "type": "string", "minLength": 1, "description": "The agent's slug." },
            "limit": { "type": "integer", "minimum": 1, "maximum": 50, "description": "How many; 10 when absent." }
        })
    }

    fn required(&self) -> &'static [&'static str] {
        &["agent_slug"]
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let request = ListRunsRequest {
            sandbox_id: context.sandbox_id.to_string(),
            agent_slug: text(&arguments, "agent_slug").unwrap_or_default(),
            limit: small_number(&arguments, "limit")?.unwrap_or(DEFAULT_LIMIT),
            before: None,
            trigger_id: None,
            status: None,
        };
        let mut runs = context.clients.runs.clone();
        let list = runs
            .list_runs(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        let rows: Vec<Value> = list.runs.iter().map(row).collect();
        Ok(json!({ "agent_slug": list.agent_slug, "count": rows.len(), "runs": rows }))
    }
}

#[async_trait]
impl Tool for GetRunTrace {
    fn name(&self) -> &'static str {
        "get_run_trace"
    }

    fn description(&self) -> &'static str {
        "Shows why a run saw the tools it saw: sources resolved and skipped, names offered, allowlist entries without a match."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({ "run_id": { "type": "string", "minLength": 1, "description": "The id, rn_…" } })
    }

    fn required(&self) -> &'static [&'static str] {
        &["run_id"]
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let request = GetRunRequest {
            sandbox_id: context.sandbox_id.to_string(),
            run_id: text(&arguments, "run_id").unwrap_or_default(),
        };
        let mut runs = context.clients.runs.clone();
        let run = runs
            .get_run(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        Ok(json!({
            "run_id": run.run_id,
            "agent_id": run.agent_id,
            "status": run.status,
            "started_at": instant(run.started_at.as_ref()),
            "finished_at": instant(run.finished_at.as_ref()),
            "error_message": run.error_message,
            "tool_resolution_trace": json_or_null(run.tool_resolution_trace_json.as_deref()),
        }))
    }
}
