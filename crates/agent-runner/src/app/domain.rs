//! What the service keeps: agents, runs and steps, as the rules see them.

use chrono::{DateTime, Utc};
use copass_llm::Usage;
use copass_types::{AgentId, ApiKeyId, Principal, RunId, SandboxId, SessionId, StepId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Slug of the system agent that talks. No person can choose it, because `@` is not allowed in slugs.
pub(crate) const CONCIERGE_SLUG: &str = "@concierge";
/// Slug of the system agent that stands for stateless runs (`rest.md` 12.15), which have no agent of their own.
pub(crate) const AD_HOC_SLUG: &str = "@run";
/// The version of a system agent: its prompt is not stored here but comes with each turn.
pub(crate) const SYSTEM_AGENT_VERSION: i64 = 1;

/// A word that is stored as text and closed in the program.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            pub(crate) fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// Where a run is (`design.md` 7).
    RunStatus {
        Pending = "pending",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Timeout = "timeout",
        Cancelled = "cancelled",
    }
}

words! {
    /// Whether an agent may be run.
    AgentStatus { Active = "active", Archived = "archived" }
}

words! {
    /// Whose agent it is: a person's, or part of the system.
    AgentKind { User = "user", System = "system" }
}

words! {
    /// How a run came about.
    Entrance {
        /// A turn of the Concierge.
        Chat = "chat",
        /// Fired with an event by somebody who waits for the end.
        Test = "test",
        /// An agent that exists for this run only.
        AdHoc = "ad_hoc",
        /// Accepted for somebody who does not wait.
        Invoke = "invoke",
        /// Fired by a trigger.
        Trigger = "trigger",
        /// A run once more.
        Retry = "retry",
    }
}

impl RunStatus {
    /// Whether the run is over.
    pub(crate) fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

impl Entrance {
    /// Whether the run goes on without a reader, and so also after the loss of its worker (`design.md` 12.4).
    pub(crate) fn is_background(self) -> bool {
        matches!(self, Self::Invoke | Self::Trigger | Self::Retry)
    }
}

words! {
    /// What ended a run that did not succeed: the stable set of `sse.md` 3.3, and ours. `docs/errors.md` explains each.
    ErrorType {
        /// The model provider failed, or the model misbehaved.
        Provider = "ProviderError",
        /// No provider is set up for the agent's model.
        ProviderNotConfigured = "ProviderNotConfigured",
        /// The agent was archived before the run began.
        AgentArchived = "AgentArchived",
        /// The run took longer than it may.
        Timeout = "Timeout",
        /// Somebody or something stopped it.
        Cancelled = "Cancelled",
        /// A worker was lost during a changing tool call.
        UncertainToolCall = "UncertainToolCall",
        /// A worker was lost, and the run does not go on without it.
        WorkerLost = "WorkerLost",
        /// Something of ours failed.
        Internal = "InternalError",
    }
}

words! {
    /// What a step is.
    StepKind { Model = "model", Tool = "tool" }
}

words! {
    /// How far a step got. `Unknown`: it was begun and nobody can tell whether it took effect.
    StepState { Intended = "intended", Done = "done", Failed = "failed", Unknown = "unknown" }
}

/// The model of an agent and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelSettings {
    pub(crate) backend: String,
    pub(crate) model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_turns: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compute_provider: Option<String>,
}

/// An agent; its serialised form is the snapshot of a version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) sandbox_id: SandboxId,
    /// The account that holds the sandbox.
    pub(crate) user_id: UserId,
    pub(crate) slug: String,
    pub(crate) kind: AgentKind,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) system_prompt: String,
    pub(crate) tool_allowlist: Vec<String>,
    pub(crate) tool_sources: Option<Vec<String>>,
    pub(crate) model_settings: ModelSettings,
    pub(crate) status: AgentStatus,
    pub(crate) version: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl Agent {
    /// What a version keeps: everything that a change can change.
    pub(crate) fn snapshot(&self) -> Value {
        serde_json::json!({
            "slug": self.slug,
            "name": self.name,
            "description": self.description,
            "system_prompt": self.system_prompt,
            "tool_allowlist": self.tool_allowlist,
            "tool_sources": self.tool_sources,
            "model_settings": self.model_settings,
            "status": self.status.as_str(),
        })
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) sandbox_id: SandboxId,
    /// The person the run acts for.
    pub(crate) user_id: UserId,
    pub(crate) agent_id: AgentId,
    pub(crate) agent_slug: String,
    pub(crate) agent_version: i64,
    pub(crate) trigger_id: Option<String>,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) status: RunStatus,
    pub(crate) input_event: Option<Value>,
    pub(crate) output_text: Option<String>,
    pub(crate) tokens_in: Option<i64>,
    pub(crate) tokens_out: Option<i64>,
    /// 1e-6 USD; absent where the price is not known.
    pub(crate) cost_microcents: Option<i64>,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) error_type: Option<ErrorType>,
    pub(crate) error_message: Option<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) tool_resolution_trace: Option<Value>,
    pub(crate) entrance: Entrance,
    pub(crate) retry_of: Option<RunId>,
    /// The model that works, as `backend/model`.
    pub(crate) model: Option<String>,
    pub(crate) api_key_id: Option<ApiKeyId>,
    pub(crate) end_user_id: Option<String>,
    /// As the terminal frame tells it (`sse.md` 3.2).
    pub(crate) usage: Option<Value>,
    pub(crate) cost_breakdown: Option<Value>,
    pub(crate) model_calls: i64,
    pub(crate) stop_reason: Option<String>,
    /// The number of the terminal frame.
    pub(crate) last_frame: Option<i64>,
    /// How often a lost worker's run was taken up again.
    pub(crate) continuations: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}

/// One model answer or one tool call of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) id: StepId,
    pub(crate) seq: i64,
    pub(crate) kind: StepKind,
    pub(crate) state: StepState,
    /// The model or the tool.
    pub(crate) name: Option<String>,
    pub(crate) call_id: Option<String>,
    /// Of a tool call, without secrets.
    pub(crate) arguments: Option<Value>,
    /// The answer or the result, without secrets.
    pub(crate) output: Option<Value>,
    pub(crate) error: Option<String>,
    /// Whether it may be repeated after a crash.
    pub(crate) is_read_only: bool,
    pub(crate) result_bytes: Option<i64>,
    pub(crate) tokens_in: Option<i64>,
    pub(crate) tokens_out: Option<i64>,
    pub(crate) cost_microcents: Option<i64>,
    /// Tokens by kind, of a model step.
    pub(crate) usage: Option<Usage>,
    /// Frame of the text or of the call; absent where there was none.
    pub(crate) first_frame: Option<i64>,
    /// Frame of the text or of the result.
    pub(crate) last_frame: Option<i64>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}

/// What a worker needs to begin or to go on with a run, kept with the run because its first worker may be lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRequest {
    /// What the model is told, as its user turn.
    pub(crate) message: String,
    /// Who wanted it; tools are called in this name.
    pub(crate) principal: Principal,
    /// Whose integrations count; nobody's for an invoke key without a holder.
    pub(crate) identity: Option<UserId>,
    /// Longest run.
    pub(crate) timeout_ms: u64,
    /// SHA-256 of what was asked for, to tell a repeat from another request under the same `Idempotency-Key`.
    pub(crate) fingerprint: String,
    /// The agent of a stateless run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ad_hoc: Option<AdHocAgent>,
}

/// An agent that exists for one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AdHocAgent {
    pub(crate) system_prompt: String,
    pub(crate) model_settings: ModelSettings,
}

/// Warnings that a row keeps, and the bytes of one: a page has many rows.
const MAX_WARNINGS: usize = 50;
const MAX_WARNING_BYTES: usize = 1_000;
/// The latest ones are of the run's end.
const LAST_WARNINGS: usize = 10;

/// The warnings as a row keeps them: the first ones and the last ones, each up to a length, and how many more there were.
pub(crate) fn bounded_warnings(warnings: &[String]) -> Vec<String> {
    let count_of = |warning: &str| -> Option<usize> {
        warning
            .strip_prefix("and ")?
            .strip_suffix(" more warnings")?
            .parse()
            .ok()
    };
    // A run that goes on elsewhere begins with what was kept.
    let mut more: usize = warnings.iter().filter_map(|warning| count_of(warning)).sum();
    let mut kept: Vec<String> = warnings
        .iter()
        .filter(|warning| count_of(warning).is_none())
        .map(|warning| {
            if warning.len() <= MAX_WARNING_BYTES {
                warning.clone()
            } else {
                format!("{}…", &warning[..warning.floor_char_boundary(MAX_WARNING_BYTES)])
            }
        })
        .collect();
    if kept.len() + usize::from(more > 0) > MAX_WARNINGS {
        let surplus = kept.len() + 1 - MAX_WARNINGS;
        let first = MAX_WARNINGS - 1 - LAST_WARNINGS;
        kept.drain(first..first + surplus);
        more += surplus;
    }
    if more > 0 {
        kept.push(format!("and {more} more warnings"));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{ErrorType, MAX_WARNING_BYTES, MAX_WARNINGS, bounded_warnings};

    #[test]
    fn a_row_keeps_the_first_and_the_last_warnings_and_counts_the_others() {
        let warnings = |count: usize| -> Vec<String> { (0..count).map(|number| format!("warning {number}")).collect() };
        assert_eq!(bounded_warnings(&warnings(MAX_WARNINGS)), warnings(MAX_WARNINGS));
        let kept = bounded_warnings(&warnings(200));
        assert_eq!(kept.len(), MAX_WARNINGS);
        assert_eq!((kept[0].as_str(), kept[38].as_str()), ("warning 0", "warning 38"));
        assert_eq!((kept[39].as_str(), kept[48].as_str()), ("warning 190", "warning 199"));
        assert_eq!(kept[49], "and 151 more warnings");
        assert_eq!(bounded_warnings(&kept), kept, "what was kept stays");
        let mut later = kept.clone();
        later.push("the end".to_owned());
        let later = bounded_warnings(&later);
        assert_eq!((later.len(), later[48].as_str()), (MAX_WARNINGS, "the end"));
        assert_eq!(later[49], "and 152 more warnings");
        let long = bounded_warnings(&["ü".repeat(10_000)]);
        assert!(long[0].len() <= MAX_WARNING_BYTES + "…".len() && long[0].ends_with("ü…"));
    }

    #[test]
    fn the_documentation_explains_every_type_of_error() {
        let page = include_str!("../../../../docs/errors.md");
        for kind in [
            ErrorType::Provider,
            ErrorType::ProviderNotConfigured,
            ErrorType::AgentArchived,
            ErrorType::Timeout,
            ErrorType::Cancelled,
            ErrorType::UncertainToolCall,
            ErrorType::WorkerLost,
            ErrorType::Internal,
        ] {
            let row = format!("* `{}`: ", kind.as_str());
            assert!(page.contains(&row), "docs/errors.md has no line {row}");
            assert_eq!(ErrorType::from_text(kind.as_str()), Some(kind));
        }
    }
}
