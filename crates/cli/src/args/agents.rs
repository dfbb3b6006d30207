//! Agents, what they are made of, and their runs and keys.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{Consent, TriggerCommand, slug};
use crate::when::moment;

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Build an agent step by step; asks on the terminal
    Setup {
        /// Slug of the agent; asked for without it
        #[arg(value_parser = slug)]
        slug: Option<String>,
    },
    /// Create an agent
    Create(Box<AgentCreate>),
    /// List the agents
    List {
        /// Only agents in this status: active or archived
        #[arg(long)]
        status: Option<String>,
    },
    /// Show one agent
    Show {
        /// Slug of the agent
        #[arg(value_parser = slug)]
        slug: String,
        /// Print the system prompt and nothing else
        #[arg(long)]
        prompt: bool,
    },
    /// Change an agent; each group of settings is a version of its own
    Update(Box<AgentUpdate>),
    /// Take an agent out of use; `agent update --status active` brings it back
    Archive {
        /// Slug of the agent
        #[arg(value_parser = slug)]
        slug: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// List the versions of an agent, newest first
    Versions {
        /// Slug of the agent
        #[arg(value_parser = slug)]
        slug: String,
        /// Most rows
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: Option<u32>,
        /// Only versions older than this one
        #[arg(long, value_name = "VERSION")]
        before: Option<u32>,
    },
    /// Show what differs between two versions of an agent
    Diff {
        /// Slug of the agent
        #[arg(value_parser = slug)]
        slug: String,
        /// Version to begin with
        from: u32,
        /// Version to end with; the present one without it
        to: Option<u32>,
    },
    /// Make a new version with the content of an old one
    Rollback {
        /// Slug of the agent
        #[arg(value_parser = slug)]
        slug: String,
        /// The old version
        #[arg(value_name = "VERSION")]
        to_version: u32,
    },
    /// List the runs of an agent, newest first, or follow them live
    Runs(Box<AgentRuns>),
    /// Fire an agent with an event and wait for the result
    Test(AgentTest),
    /// List the tools that agents can use, by their exact names
    Tools {
        /// Only tools of this app
        #[arg(long, value_name = "SLUG")]
        app: Option<String>,
    },
    /// Keys that run one agent and can do nothing else
    #[command(subcommand, alias = "keys")]
    Key(AgentKeyCommand),
    /// Triggers of an agent
    #[command(subcommand)]
    Trigger(TriggerCommand),
}

/// The model of an agent and its limits.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model provider: anthropic, google or hermes
    #[arg(long)]
    pub(crate) backend: Option<String>,
    /// Name of the model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Temperature, 0 to 2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Most tokens a run may write
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Most model answers of one run
    #[arg(long, value_name = "N")]
    pub(crate) max_turns: Option<u32>,
    /// Longest run, in seconds
    #[arg(long, value_name = "N")]
    pub(crate) timeout_s: Option<u32>,
}

/// Which tools an agent gets.
#[derive(Debug, Args)]
pub(crate) struct ToolArgs {
    /// Tools the agent may use: a JSON list, or names separated by commas; [] allows all
    #[arg(long, value_name = "TOOLS")]
    pub(crate) tool_allowlist: Option<String>,
    /// Where tools come from: a JSON list, names separated by commas, `default`, or `none` for no tools
    #[arg(long, value_name = "SOURCES")]
    pub(crate) tool_sources: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("prompt_source").args(["prompt", "prompt_file"]).required(true))]
pub(crate) struct AgentCreate {
    /// Slug of the agent: lowercase letters, digits and hyphens
    #[arg(value_parser = slug)]
    pub(crate) slug: String,
    /// Name of the agent; the slug without it
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// System prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// File with the system prompt; - reads stdin
    #[arg(long, value_name = "PATH")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// What the agent is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) tools: ToolArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AgentUpdate {
    /// Slug of the agent
    #[arg(value_parser = slug)]
    pub(crate) slug: String,
    /// Name of the agent
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// System prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    pub(crate) prompt: Option<String>,
    /// File with the system prompt; - reads stdin
    #[arg(long, value_name = "PATH")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Write another word for one wherever it stands in the system prompt
    #[arg(
        long,
        num_args = 2,
        value_names = ["OLD", "NEW"],
        allow_hyphen_values = true,
        conflicts_with_all = ["prompt", "prompt_file"]
    )]
    pub(crate) prompt_replace: Option<Vec<String>>,
    /// What the agent is for; empty takes the description away
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Whether the agent runs; `archived` asks for confirmation
    #[arg(long, value_enum)]
    pub(crate) status: Option<AgentStatus>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) tools: ToolArgs,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// Whether an agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AgentStatus {
    /// It runs
    Active,
    /// It stays readable and does not run
    Archived,
}

impl AgentStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archived => "archived",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AgentRuns {
    /// Slug of the agent
    #[arg(value_parser = slug)]
    pub(crate) slug: String,
    /// Most rows; with --follow the newest runs to begin with (10 without it)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) limit: Option<u32>,
    /// Only runs older than this one
    #[arg(long, value_name = "RUN_ID", conflicts_with = "follow")]
    pub(crate) before: Option<String>,
    /// Only runs in this status
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only runs of this trigger
    #[arg(long, visible_alias = "trigger-id", value_name = "ID")]
    pub(crate) trigger: Option<String>,
    /// Only runs from then on: a time, a day, or how long ago (90m, 7d)
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Only runs before then
    #[arg(long, value_name = "WHEN", value_parser = moment, conflicts_with = "follow")]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Only runs of this version of the agent
    #[arg(long, value_name = "N")]
    pub(crate) agent_version: Option<u32>,
    /// Go on with runs as they begin and change, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("event").args(["event_payload", "event_file", "stdin"]))]
pub(crate) struct AgentTest {
    /// Slug of the agent
    #[arg(value_parser = slug)]
    pub(crate) slug: String,
    /// - reads the event from stdin
    #[arg(value_name = "-", value_parser = ["-"], hide_possible_values = true)]
    pub(crate) stdin: Option<String>,
    /// The event, a JSON object; {} without it
    #[arg(long, value_name = "JSON")]
    pub(crate) event_payload: Option<String>,
    /// File with the event; - reads stdin
    #[arg(long, value_name = "PATH")]
    pub(crate) event_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentKeyCommand {
    /// Create a key; it is printed once
    Mint(AgentKeyMint),
    /// List the keys of an agent, without their secrets; `apikey revoke` ends one
    List {
        /// Slug of the agent
        #[arg(value_parser = slug)]
        slug: String,
        /// Also list revoked keys
        #[arg(long)]
        all: bool,
    },
}

/// Under whose identity a key runs its agent.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AgentKeyKind {
    /// Runs have the identity and the integrations of the key's holder; without one, no integrations
    Invoke,
    /// Runs have those of the sandbox's owner, whoever mints the key
    Delegate,
}

impl AgentKeyKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Delegate => "delegate",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct AgentKeyMint {
    /// Slug of the agent
    #[arg(value_parser = slug)]
    pub(crate) slug: String,
    /// Under whose identity the key runs the agent
    #[arg(long, value_enum)]
    pub(crate) kind: AgentKeyKind,
    /// What the key is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// Who holds an invoke key
    #[arg(long, value_name = "@HANDLE")]
    pub(crate) holder: Option<String>,
    /// Days until the key ends; never without it
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) expires_in_days: Option<u32>,
}
