//! Sandboxes, grants and the audit log.

use clap::{Args, Subcommand, ValueEnum};

use super::Consent;

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// List your sandboxes and those shared with you
    List {
        /// Only sandboxes in this status
        #[arg(long)]
        status: Option<String>,
    },
    /// Show one sandbox
    Show {
        /// Id of the sandbox; the current one without it
        sandbox_id: Option<String>,
    },
    /// Create a sandbox
    Create(SandboxCreate),
    /// Make a sandbox the current one of this project (.olane/refs.json)
    Use {
        /// Id of the sandbox
        sandbox_id: String,
    },
    /// Refuse writes until it is reactivated
    Suspend {
        /// Id of the sandbox
        sandbox_id: String,
    },
    /// Make a suspended or archived sandbox active again
    Reactivate {
        /// Id of the sandbox
        sandbox_id: String,
    },
    /// Take a sandbox out of use; `reactivate` brings it back
    Archive {
        /// Id of the sandbox
        sandbox_id: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Delete a sandbox and everything in it, for good
    Destroy {
        /// Id of the sandbox
        sandbox_id: String,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SandboxCreate {
    /// Name of the sandbox
    pub(crate) name: String,
    /// Tier: free, pro or enterprise
    #[arg(long)]
    pub(crate) tier: Option<String>,
    /// Your own key for the sandbox's owner; your user id without it
    #[arg(long, value_name = "KEY")]
    pub(crate) owner_id: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// List who the sandbox is shared with
    List {
        /// Also list revoked and expired grants
        #[arg(long)]
        all: bool,
    },
    /// Share the sandbox
    Grant(ConnectionGrant),
    /// End a grant and all its keys, at once and for good
    Revoke {
        /// Id of the grant
        connection_id: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Create a key that acts as the person of a grant; it is printed once
    Key {
        /// Id of the grant
        connection_id: String,
    },
}

/// What the grant allows.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum GrantRole {
    /// Reads everything and runs agents
    Viewer,
    /// Also builds; never destroys
    Editor,
}

impl GrantRole {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConnectionGrant {
    /// Handle (@alice) or user id of the person. With --project the grant covers that project only
    #[arg(value_name = "@HANDLE")]
    pub(crate) who: String,
    /// What the grant allows
    #[arg(long, value_enum)]
    pub(crate) role: GrantRole,
    /// When the grant ends, for example 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Your own words for the grant
    #[arg(long)]
    pub(crate) label: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List who did what, newest first
    List {
        /// Most rows
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: Option<u32>,
        /// Only records older than this one
        #[arg(long, value_name = "ID")]
        before: Option<String>,
    },
}
