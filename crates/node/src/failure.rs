//! Why a server did not start: one message and the next step, no stack trace.

use std::{fmt, net::SocketAddr};

use copass_runtime::config::ConfigError;
use copass_store::OpenError;

/// Why a server did not start or did not go on.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with its next step.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn bind(address: SocketAddr, setting: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::AddrInUse => Self::new(
                format!("the address {address} is in use by another program"),
                format!("stop that program, or choose another address with {setting}; port 0 picks a free one"),
            ),
            _ => Self::new(
                format!("cannot listen on {address}: {error}"),
                format!("choose an address of this machine with {setting}"),
            ),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self {
            hint: Some(error.hint()),
            message: error.to_string(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(
            error.to_string(),
            "correct the configuration; `copass config check` lists every problem",
        )
    }
}

impl From<copass_errors::Error> for Failure {
    fn from(error: copass_errors::Error) -> Self {
        let message = match error.cause_chain() {
            Some(cause) => format!("{}: {cause}", error.detail()),
            None => error.detail().to_owned(),
        };
        Self { message, hint: None }
    }
}
