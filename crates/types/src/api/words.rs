//! The words of closed fields, for the OpenAPI document and for the code that checks them.
//!
//! The fields themselves stay text: a client must survive a word that a newer server says. Only the document names the
//! words, so each of these types stands for a field there and has no values.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = [$($word:literal),+ $(,)?];)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {}

        impl $name {
            /// The words there are.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some(Self::WORDS.iter().copied()))
                    .into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

words! {
    /// Whether an agent may be run.
    AgentStatus = ["active", "archived"];
    /// Where an agent's model is.
    Backend = ["anthropic", "google", "hermes"];
    /// Where a model of the backend `hermes` works.
    ComputeProvider = ["e2b"];
    /// Where a run is.
    RunStatus = ["pending", "running", "succeeded", "failed", "timeout", "cancelled"];
    /// How a run that is over ended.
    EndedRunStatus = ["succeeded", "failed", "timeout", "cancelled"];
    /// How a run came about.
    Entrance = ["chat", "test", "ad_hoc", "invoke", "trigger", "retry"];
    /// What usage of an account is counted by: the ways in which runs come about, and what cannot be told.
    CallType = ["chat", "test", "ad_hoc", "invoke", "trigger", "retry", "unknown"];
    /// What a step of a run is.
    StepKind = ["model", "tool"];
    /// How far a step of a run got.
    StepState = ["intended", "done", "failed", "unknown"];
    /// Who says a message of a stateless run.
    MessageRole = ["user"];
    /// What a key is good for.
    KeyKind = ["general", "agent_invoke", "agent_delegate"];
    /// What a key of one agent is good for, as rows of keys say it.
    AgentKeyKind = ["agent_invoke", "agent_delegate"];
    /// What a key of one agent is asked to be good for.
    NewAgentKeyKind = ["invoke", "delegate"];
    /// Whether a trigger fires.
    TriggerStatus = ["active", "paused", "disabled"];
    /// What usage of a sandbox can be grouped by.
    UsageDimension = ["agent", "trigger", "model", "status", "entrance", "day"];
    /// The unit of a balance.
    BalanceUnit = ["USD_microcents"];
    /// Where a sandbox is in its life.
    SandboxStatus = ["active", "suspended", "archived"];
    /// What a sandbox may hold.
    Tier = ["free", "pro", "enterprise"];
    /// What a grant makes of somebody.
    GrantRole = ["viewer", "editor"];
    /// Whether a grant holds.
    ConnectionStatus = ["active", "revoked", "expired"];
}
