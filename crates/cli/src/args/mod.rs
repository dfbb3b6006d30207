//! What a person may type. No rules here: `settings` and `commands` give the words their meaning.

mod account;
mod agents;
mod build;
mod runs;
mod sandboxes;
mod server;

use clap::{Args, Parser, Subcommand};
use copass_types::validate;

pub(crate) use account::{ApiKeyCommand, ApiKeyCreate, HandleCommand, LoginArgs, SetupArgs};
pub(crate) use agents::{
    AgentCommand, AgentCreate, AgentKeyCommand, AgentKeyMint, AgentRuns, AgentStatus, AgentTest, AgentUpdate, ModelArgs,
};
pub(crate) use build::{ChatArgs, SourceCommand, SourceRegister, TriggerCommand};
pub(crate) use runs::{BillingCommand, RunArgs, RunCommand, RunShow, RunTurn, UsageArgs, UsageBy};
pub(crate) use sandboxes::{AuditCommand, ConnectionCommand, ConnectionGrant, SandboxCommand, SandboxCreate};
pub(crate) use server::{ConfigCommand, DevArgs, ServeArgs};

/// Agents that act on events, from one command line.
#[derive(Debug, Parser)]
#[command(
    name = "copass",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Start here: `copass dev` runs a server on this machine; `copass login` and `copass setup` use an \
                  existing one; `copass chat` talks to the Concierge.",
    after_long_help = "Start here: `copass dev` runs a server on this machine; `copass login` and `copass setup` use \
                       an existing one; `copass chat` talks to the Concierge.\n\n\
                       Environment: COPASS_API_KEY, COPASS_API_URL, COPASS_SANDBOX_ID, COPASS_PROJECT_ID, NO_COLOR.\n\
                       Files: ~/.olane/config.json (credentials), .olane/refs.json (ids of a project), \
                       .olane/config.json (settings of a project).\n\
                       Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in, 4 forbidden, 5 not found."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Understood by every command.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print JSON on stdout and nothing else there
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Address of the server [env: COPASS_API_URL]
    #[arg(long, value_name = "URL", global = true, help_heading = "Global options")]
    pub(crate) api_url: Option<String>,
    /// Sandbox to work in [env: COPASS_SANDBOX_ID, else .olane/refs.json]
    #[arg(long, value_name = "ID", global = true, help_heading = "Global options")]
    pub(crate) sandbox: Option<String>,
    /// Project to work in [env: COPASS_PROJECT_ID, else .olane/refs.json]
    #[arg(long, value_name = "ID", global = true, help_heading = "Global options")]
    pub(crate) project: Option<String>,
}

/// Everything `copass` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in with a one-time code sent by e-mail
    Login(LoginArgs),
    /// Forget the credentials stored on this machine
    Logout,
    /// Create profile, sandbox and default source, and write .olane/refs.json here
    Setup(SetupArgs),
    /// Show who you are
    Whoami,
    /// Show login, server, sandbox and project
    Status,
    /// API keys of your account
    #[command(subcommand, name = "apikey")]
    ApiKey(ApiKeyCommand),
    /// Your handle (Copass ID), under which others can share with you
    #[command(subcommand)]
    Handle(HandleCommand),
    /// Sandboxes
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Share a sandbox with other people
    #[command(subcommand)]
    Connection(ConnectionCommand),
    /// The audit log of a sandbox
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Data sources
    #[command(subcommand)]
    Source(SourceCommand),
    /// Agents, their runs, keys and triggers
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Run one turn without an agent, or look at a run, cancel it, repeat it
    Run(Box<RunArgs>),
    /// Tokens and cost, by agent, trigger, model or status
    Usage(UsageArgs),
    /// The balance of your account
    #[command(subcommand)]
    Billing(BillingCommand),
    /// Talk to the Concierge
    #[command(alias = "concierge")]
    Chat(ChatArgs),
    /// Run the whole platform on this machine
    Dev(DevArgs),
    /// Run chosen services, with PostgreSQL and RabbitMQ
    Serve(ServeArgs),
    /// The server's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

impl Command {
    /// Whether the command is a server and not a client of one.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Serve(_) | Self::Config(_))
    }
}

/// The consent to something that cannot be taken back.
#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// Do not ask for confirmation
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Reads the slug of an agent. A reserved one is another route of the server, whose answer would not be understood; all
/// else the server knows better.
fn slug(text: &str) -> Result<String, String> {
    if validate::RESERVED_SLUGS.contains(&text) {
        return Err(format!(
            "no agent has one of the reserved slugs ({})",
            validate::RESERVED_SLUGS.join(", ")
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}
