//! Sources, agents, runs, triggers and the Concierge.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum SourceCommand {
    /// List the data sources
    List {
        /// Only sources of this provider
        #[arg(long)]
        provider: Option<String>,
        /// Only sources in this status
        #[arg(long)]
        status: Option<String>,
    },
    /// Show one data source
    Show {
        /// Id of the source
        source_id: String,
    },
    /// Register a data source
    Register(SourceRegister),
}

#[derive(Debug, Args)]
pub(crate) struct SourceRegister {
    /// Name of the source
    pub(crate) name: String,
    /// Where events come from: github, slack, custom …
    #[arg(long)]
    pub(crate) provider: String,
    /// How data comes in: manual, polling, realtime or batch
    #[arg(long)]
    pub(crate) mode: Option<String>,
    /// How long the source lives: durable or ephemeral
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Settings of the adapter, a JSON object
    #[arg(long, value_name = "JSON")]
    pub(crate) adapter_config: Option<String>,
    /// Seconds between polls, at least 60
    #[arg(long, value_name = "N")]
    pub(crate) poll_interval_seconds: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// List the agents
    List {
        /// Only agents in this status: active or archived
        #[arg(long)]
        status: Option<String>,
    },
    /// Show one agent
    Show {
        /// Slug of the agent
        slug: String,
    },
    /// Create an agent
    Create(Box<AgentCreate>),
    /// List the runs of an agent, newest first
    Runs(AgentRuns),
    /// Triggers of an agent
    #[command(subcommand)]
    Trigger(TriggerCommand),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("prompt_source").args(["prompt", "prompt_file"]).required(true))]
pub(crate) struct AgentCreate {
    /// Slug of the agent: lowercase letters, digits and hyphens
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
    /// Model provider: anthropic, google or hermes
    #[arg(long)]
    pub(crate) backend: Option<String>,
    /// Name of the model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Temperature, 0 to 2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Most tokens of one answer
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Most model calls of one run
    #[arg(long, value_name = "N")]
    pub(crate) max_turns: Option<u32>,
    /// Longest run, in seconds
    #[arg(long, value_name = "N")]
    pub(crate) timeout_s: Option<u32>,
    /// Tools the agent may use: a JSON list, or names separated by commas
    #[arg(long, value_name = "TOOLS")]
    pub(crate) tool_allowlist: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AgentRuns {
    /// Slug of the agent
    pub(crate) slug: String,
    /// Most rows
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: Option<u32>,
    /// Only runs older than this one
    #[arg(long, value_name = "RUN_ID")]
    pub(crate) before: Option<String>,
    /// Only runs of this trigger
    #[arg(long, value_name = "ID")]
    pub(crate) trigger_id: Option<String>,
    /// Only runs in this status
    #[arg(long)]
    pub(crate) status: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TriggerCommand {
    /// List the triggers of an agent
    List {
        /// Slug of the agent
        slug: String,
        /// Only triggers in this status: active, paused or disabled
        #[arg(long)]
        status: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// Show one run with its trace
    Show {
        /// Id of the run
        run_id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// What to say; without it the chat is interactive, or the message is read from stdin (also with -)
    pub(crate) message: Option<String>,
    /// Conversation to continue
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
}
