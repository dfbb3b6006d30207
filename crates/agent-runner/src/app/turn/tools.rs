//! The tools one run may use: how they were resolved, and how they are called.
//!
//! Resolution and execution are two ports on purpose. The trace comes from the same code that builds the set, so it
//! cannot tell another story than the model saw; and the engine calls a [`ToolCaller`] and never learns who executes.
//! Today there is one source, the Concierge's management tools; others plug in here.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use copass_errors::{Error, ErrorCode, Result};
use copass_llm::ToolSpec;
use copass_proto::{
    Transport,
    concierge::{CallToolRequest, concierge_service_client::ConciergeServiceClient},
};
use copass_runtime::CallContext;
use copass_types::{RunId, SandboxId};
use serde_json::{Map, Value, json};

/// Name of the Concierge's tool source in traces.
pub(crate) const MANAGEMENT_SOURCE: &str = "copass_management";
const MAX_TOOLS: usize = 512;
const MAX_NAME_CHARS: usize = 128;
/// The other side gives up this much later than this side, so that there is one answer to a call that takes too long.
const DEADLINE_MARGIN: Duration = Duration::from_millis(500);

/// A tool as its source describes it.
#[derive(Debug, Clone)]
pub(crate) struct ToolDraft {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) input_schema_json: String,
    pub(crate) is_read_only: bool,
}

/// The tools of one run and the story of how they came together.
#[derive(Debug, Clone)]
pub(crate) struct Toolset {
    specs: Vec<ToolSpec>,
    read_only_by_name: HashMap<String, bool>,
    trace: Value,
    warnings: Vec<String>,
}

impl Toolset {
    /// The management tools the concierge service offers for this turn; it has already filtered them by role.
    pub(crate) fn management(drafts: Vec<ToolDraft>) -> Result<Self> {
        let began = std::time::Instant::now();
        if drafts.len() > MAX_TOOLS {
            return Err(bad_tools(format!("there are more than {MAX_TOOLS} tools")));
        }
        let mut specs = Vec::with_capacity(drafts.len());
        let mut read_only_by_name = HashMap::with_capacity(drafts.len());
        for draft in drafts {
            copass_types::validate::name(&draft.name, MAX_NAME_CHARS)
                .map_err(|message| bad_tools(format!("a tool's name {message}")))?;
            let input_schema = serde_json::from_str(&draft.input_schema_json)
                .map_err(|_| bad_tools(format!("the schema of {} is not JSON", draft.name)))?;
            if read_only_by_name
                .insert(draft.name.clone(), draft.is_read_only)
                .is_some()
            {
                return Err(bad_tools(format!("{} is there twice", draft.name)));
            }
            specs.push(ToolSpec {
                name: draft.name,
                description: draft.description,
                input_schema,
                read_only: draft.is_read_only,
            });
        }
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let trace = json!({
            "sources_resolved": [MANAGEMENT_SOURCE],
            "sources_skipped": [],
            "tool_names_advertised": names,
            "allowlist_filtered_out": [],
            "allowlist_missing_entries": [],
            "duration_ms": duration_ms,
            "sources": [{
                "name": MANAGEMENT_SOURCE,
                "state": "resolved",
                "reason": null,
                "tool_count": names.len(),
                "duration_ms": duration_ms,
            }],
        });
        let warnings = if names.is_empty() {
            vec!["no tool was offered to the model; it can only talk".to_owned()]
        } else {
            Vec::new()
        };
        Ok(Self {
            specs,
            read_only_by_name,
            trace,
            warnings,
        })
    }

    /// What the model gets.
    pub(crate) fn specs(&self) -> &[ToolSpec] {
        &self.specs
    }

    /// Whether the tool only reads; `None` when it was not offered.
    pub(crate) fn is_read_only(&self, name: &str) -> Option<bool> {
        self.read_only_by_name.get(name).copied()
    }

    /// The tool-resolution trace.
    pub(crate) fn trace(&self) -> &Value {
        &self.trace
    }

    /// What the operator should know.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn bad_tools(detail: String) -> Error {
    Error::new(
        ErrorCode::InvalidRequest,
        format!("the tool catalogue is not usable: {detail}"),
    )
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolAnswer {
    /// Always an object.
    pub(crate) result: Map<String, Value>,
    /// Why it failed; `None` on success.
    pub(crate) error: Option<String>,
}

/// Executes tools for one run.
#[async_trait]
pub(crate) trait ToolCaller: Send + Sync {
    /// Makes one call. An error means that the call itself went wrong, not that the tool said no.
    async fn call(&self, call_id: &str, name: &str, arguments: &Map<String, Value>) -> Result<ToolAnswer>;
}

/// Calls management tools at the concierge service, as the person the run acts for.
pub(crate) struct ManagementCaller {
    client: ConciergeServiceClient<Transport>,
    context: CallContext,
    sandbox_id: SandboxId,
    run_id: RunId,
    timeout: Duration,
}

impl ManagementCaller {
    /// `context` is the one the turn was started with; the caller's rights are checked again at each call.
    pub(crate) fn new(
        client: ConciergeServiceClient<Transport>,
        mut context: CallContext,
        sandbox_id: SandboxId,
        run_id: RunId,
        timeout: Duration,
    ) -> Self {
        context.principal.run_id = Some(run_id.clone());
        Self {
            client,
            context,
            sandbox_id,
            run_id,
            timeout,
        }
    }
}

#[async_trait]
impl ToolCaller for ManagementCaller {
    async fn call(&self, call_id: &str, name: &str, arguments: &Map<String, Value>) -> Result<ToolAnswer> {
        let request = CallToolRequest {
            sandbox_id: self.sandbox_id.to_string(),
            run_id: self.run_id.to_string(),
            call_id: call_id.to_owned(),
            name: name.to_owned(),
            arguments_json: serde_json::to_string(arguments).map_err(Error::internal)?,
        };
        let context = self.context.clone().with_timeout(self.timeout + DEADLINE_MARGIN);
        let mut client = self.client.clone();
        // The deadline of the stack covers the head of the answer; this one covers all of it. Dropping the call stops it.
        let answer = tokio::time::timeout(self.timeout, client.call_tool(context.request(request)))
            .await
            .map_err(|_| timed_out(self.timeout))?
            .map_err(Error::from)?
            .into_inner();
        let result = serde_json::from_str(&answer.result_json).map_err(Error::internal)?;
        Ok(ToolAnswer {
            result: copass_types::api::concierge::object(result),
            error: answer.error.filter(|error| !error.is_empty()),
        })
    }
}

fn timed_out(timeout: Duration) -> Error {
    Error::new(
        ErrorCode::DeadlineExceeded,
        format!("the tool did not answer within {} s", timeout.as_secs_f64()),
    )
}
