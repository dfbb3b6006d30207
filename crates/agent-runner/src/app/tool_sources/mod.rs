//! Where tools come from, behind one port.
//!
//! A source yields tools or a reason, never an error: whatever a source does wrong (it hangs, lies about its schemas,
//! answers 50 MB) costs that source its place and not the run. Resolution is the same code for a run's trace, for the
//! list of tools and for the replies to changes of agents, so none of them can tell another story than the model saw.
//!
//! To add a source: implement [`ToolSource`] and hand it to the service in `Deps::tool_sources`. What it may take is
//! bounded here (`check`), its answers are kept for a while here (`cache`).

mod cache;
mod check;
mod effort;
mod http;
mod names;
mod resolve;

use std::sync::Arc;

use async_trait::async_trait;
use copass_errors::Result;
use copass_runtime::CallContext;
use copass_types::{RunId, SandboxId, UserId};
use serde_json::{Map, Value};

pub(crate) use check::{ResolvedTool, check as checked};
pub use http::HttpToolSource;
pub(crate) use resolve::{Resolution, Resolver};

/// Name of the Concierge's tool source in traces; no other agent gets it.
pub(crate) const MANAGEMENT_SOURCE: &str = "copass_management";

/// For whom tools are looked up.
#[derive(Debug, Clone)]
pub struct Seeker {
    /// The call that wants them; rights are checked by whoever executes the tools.
    pub context: CallContext,
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// The account that holds the sandbox.
    pub owner: UserId,
    /// Whose integrations count; `None` for an invoke key without a holder (`rest.md` 14).
    pub identity: Option<UserId>,
    /// The end user of a stateless run; integrations of one are never another's.
    pub end_user_id: Option<String>,
}

/// A tool as its source describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDraft {
    /// The public name, as allowlists and traces have it (`tools.md` 8).
    pub name: String,
    /// The app it belongs to.
    pub app_slug: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub input_schema: Value,
    /// Whether a call changes nothing.
    pub is_read_only: bool,
}

/// What a source gave.
pub struct Built {
    /// The tools.
    pub tools: Vec<ToolDraft>,
    /// Executes them.
    pub caller: Arc<dyn ToolCaller>,
}

/// Why a source has no tools: a sentence for people that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped(pub String);

/// A place where tools come from.
#[async_trait]
pub trait ToolSource: Send + Sync {
    /// The name in agents' `tool_sources` and in traces.
    fn name(&self) -> &str;

    /// Whether agents that name no sources get this one.
    fn is_default(&self) -> bool {
        true
    }

    /// Finds the tools there are for the seeker. Dropping the future stops the work.
    async fn build(&self, seeker: &Seeker) -> std::result::Result<Built, Skipped>;
}

/// One call of a tool.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The run that makes it.
    pub run_id: &'a RunId,
    /// The id the model gave it; unique in the run.
    pub call_id: &'a str,
    /// The tool.
    pub name: &'a str,
    /// Valid by the tool's schema.
    pub arguments: &'a Map<String, Value>,
    /// The same for the same call however often it is sent, and for no other: for tools that take one.
    pub idempotency_key: &'a str,
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAnswer {
    /// Always an object.
    pub result: Map<String, Value>,
    /// Why it failed; `None` on success.
    pub error: Option<String>,
}

/// Executes tools for one run.
#[async_trait]
pub trait ToolCaller: Send + Sync {
    /// Makes one call. An error means that the call itself went wrong, not that the tool said no. Dropping the future
    /// stops it.
    ///
    /// # Errors
    /// The tool could not be reached, did not answer in time, or answered what is no answer.
    async fn call(&self, call: Call<'_>) -> Result<ToolAnswer>;
}
