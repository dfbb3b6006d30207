//! What the service keeps: agents, runs and steps, as the rules see them.

use chrono::{DateTime, Utc};
use copass_types::{AgentId, RunId, SandboxId, SessionId, StepId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Slug of the one system agent. No person can choose it, because `@` is not allowed in slugs.
pub(crate) const CONCIERGE_SLUG: &str = "@concierge";
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
    pub(crate) error_type: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) tool_resolution_trace: Option<Value>,
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
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}
