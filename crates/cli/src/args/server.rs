//! Running a server, and its configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Directory of the data; under your data directory without it
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
}

/// The services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceRole {
    /// REST, streams, webhooks
    Gateway,
    /// Identity, sandboxes and the Concierge
    Concierge,
    /// Agents and runs
    AgentRunner,
    /// Triggers and deliveries
    TriggerDispatcher,
    /// Data sources and retrieval
    Ingestion,
    /// All of them
    All,
}

impl ServiceRole {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Concierge => "concierge",
            Self::AgentRunner => "agent-runner",
            Self::TriggerDispatcher => "trigger-dispatcher",
            Self::Ingestion => "ingestion",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Services to run in this process
    #[arg(value_enum, required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<ServiceRole>,
    /// Configuration file
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and list every problem
    Check {
        /// Configuration file
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
    },
    /// Print the configuration that is in effect, without secrets
    Show {
        /// Configuration file
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
    },
}
