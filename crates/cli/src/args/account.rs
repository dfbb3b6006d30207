//! Login, set-up, keys and handle.

use clap::{Args, Subcommand};

use super::Consent;

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// E-mail address; asked for on a terminal
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// One-time code you already have; no new one is sent. Without it the code is asked for, or read from stdin
    #[arg(long, requires = "email")]
    pub(crate) code: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Name to show for you
    #[arg(long, value_name = "NAME")]
    pub(crate) display_name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Create a key; it is printed once, and stored for this machine
    Create(ApiKeyCreate),
    /// List your keys, without their secrets
    List {
        /// Also list revoked keys
        #[arg(long)]
        all: bool,
    },
    /// Revoke a key at once and for good
    Revoke {
        /// Id of the key
        key_id: String,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ApiKeyCreate {
    /// Name of the key
    #[arg(required_unless_present = "name_flag")]
    pub(crate) name: Option<String>,
    /// The same as the argument
    #[arg(long = "name", id = "name_flag", value_name = "NAME", conflicts_with = "name")]
    pub(crate) name_flag: Option<String>,
    /// Days until the key ends; never without it
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) expires_in_days: Option<u32>,
    /// Print the key only, do not store it for this machine
    #[arg(long)]
    pub(crate) no_store: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HandleCommand {
    /// Show your handle
    Show,
    /// Claim or change your handle
    Set {
        /// The handle, with or without @
        handle: String,
    },
    /// Give your handle back
    Clear,
}
