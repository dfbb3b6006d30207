//! Sources, triggers and the Concierge.

use clap::{Args, Subcommand};

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
pub(crate) enum TriggerCommand {
    /// List the triggers of an agent
    List {
        /// Slug of the agent
        #[arg(value_parser = super::slug)]
        slug: String,
        /// Only triggers in this status: active, paused or disabled
        #[arg(long)]
        status: Option<String>,
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
