//! Single turns, runs, and what they cost.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};

use super::agents::AgentRuns;
use crate::when::moment;

/// A turn, or a command about runs. Both at once is refused in `commands::run`: clap's own way to do so would read
/// `run --json show` as the message "show".
#[derive(Debug, Args)]
#[command(
    override_usage = "copass run [OPTIONS] <MESSAGE>\n       copass run <COMMAND>",
    after_help = "A single word that looks like a command is not sent as a message, unless it stands behind --: copass run -- show"
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) turn: RunTurn,
    #[command(subcommand)]
    pub(crate) command: Option<RunCommand>,
}

#[derive(Debug, Args)]
pub(crate) struct RunTurn {
    /// What to say; - reads it from stdin
    pub(crate) message: Option<String>,
    /// What to say, whatever it looks like: all that stands behind `--`
    #[arg(last = true, hide = true)]
    pub(crate) verbatim: Option<String>,
    /// Model provider: anthropic, google or hermes [default: anthropic]
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// Name of the model; the provider's usual one without it
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// What the model is told to be
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Conversation to continue
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Whom the turn is for; each end user has conversations and connections of their own [default: cli]
    #[arg(long, value_name = "ID")]
    pub(crate) end_user: Option<String>,
    /// Reasoning engine, for google only
    #[arg(long, value_name = "ID")]
    pub(crate) reasoning_engine_id: Option<String>,
    /// Region of the provider
    #[arg(long)]
    pub(crate) location: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// List the runs of an agent, as `agent runs` does
    List(Box<AgentRuns>),
    /// Show one run: its steps, the tools it had and why, and how to fix what went wrong
    Show(RunShow),
    /// Stop a run
    Cancel {
        /// Id of the run
        run_id: String,
    },
    /// Run again with the same input, as a new run
    Retry {
        /// Id of the run
        run_id: String,
        /// Show the new run as it goes on
        #[arg(long, short)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunShow {
    /// Id of the run
    pub(crate) run_id: String,
    /// Print the whole result of this tool call: its number or its id
    #[arg(long, value_name = "STEP", conflicts_with = "follow")]
    pub(crate) step: Option<String>,
    /// Show the run as it goes on, from its beginning
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// What to group by, separated by commas [default: agent]
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "WORDS",
        conflicts_with = "account"
    )]
    pub(crate) by: Vec<UsageBy>,
    /// From then on: a time, a day, or how long ago (90m, 7d); the last 30 days without it
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Before then
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Only runs of this agent
    #[arg(long, value_name = "SLUG", conflicts_with = "account", value_parser = super::slug)]
    pub(crate) agent: Option<String>,
    /// All sandboxes you own, whole days, by model and by entrance
    #[arg(long)]
    pub(crate) account: bool,
}

/// What usage is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsageBy {
    Agent,
    Trigger,
    Model,
    Status,
    Entrance,
    Day,
}

impl UsageBy {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Trigger => "trigger",
            Self::Model => "model",
            Self::Status => "status",
            Self::Entrance => "entrance",
            Self::Day => "day",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum BillingCommand {
    /// What is left, in dollars
    Balance,
    /// What was bought, used and is left
    Status,
    /// Payments (handled by the operator of this server)
    Transactions,
    /// Set up payment (handled by the operator of this server)
    Setup,
    /// Buy credits (handled by the operator of this server)
    TopUp {
        /// How much
        usd: Option<String>,
    },
    /// Cards (handled by the operator of this server)
    Cards,
    /// Add a card (handled by the operator of this server)
    AddCard,
    /// The portal for cards (handled by the operator of this server)
    Portal,
}
