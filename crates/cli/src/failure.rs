//! How a command fails: what is said, what the reader can do, and the exit code (`cli.md` 1).

use std::io;

/// A request or a run failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command was used wrongly, or refuses to act without a confirmation.
pub(crate) const EXIT_USAGE: u8 = 2;
const EXIT_NOT_LOGGED_IN: u8 = 3;
const EXIT_FORBIDDEN: u8 = 4;
/// The thing is not there.
pub(crate) const EXIT_NOT_FOUND: u8 = 5;

/// The end of a command that did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The machine word for `--json`.
    pub(crate) code: String,
    /// What happened.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The HTTP status, 0 when no server was involved.
    pub(crate) status: u16,
    /// The exit code.
    pub(crate) exit: u8,
    /// Everything was said already (or nobody listens); only the exit code is left.
    pub(crate) silent: bool,
}

impl Failure {
    fn new(code: &str, message: impl Into<String>, exit: u8) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            status: 0,
            exit,
            silent: false,
        }
    }

    /// Something went wrong.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new("failed", message, EXIT_FAILED)
    }

    /// The command was used wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message, EXIT_USAGE)
    }

    /// There is no usable credential.
    pub(crate) fn not_logged_in(message: impl Into<String>) -> Self {
        Self {
            status: 401,
            ..Self::new("unauthorized", message, EXIT_NOT_LOGGED_IN)
        }
        .hint("run `copass login`, or set COPASS_API_KEY")
    }

    /// Ends with an exit code and says no more.
    pub(crate) fn silent(exit: u8) -> Self {
        Self {
            silent: true,
            ..Self::new("silent", "", exit)
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn code(mut self, code: &str) -> Self {
        code.clone_into(&mut self.code);
        self
    }

    /// The exit code of a command whose answer has this HTTP status.
    pub(crate) fn exit_of_status(status: u16) -> u8 {
        match status {
            401 => EXIT_NOT_LOGGED_IN,
            403 => EXIT_FORBIDDEN,
            404 => EXIT_NOT_FOUND,
            _ => EXIT_FAILED,
        }
    }
}

impl From<copass_client::Error> for Failure {
    fn from(error: copass_client::Error) -> Self {
        use copass_client::Error;
        let hint = error.hint();
        let mut failure = match &error {
            Error::Api(api) => Self {
                code: api.code.clone(),
                status: api.status,
                exit: Self::exit_of_status(api.status),
                ..Self::failed(api.detail.clone())
            },
            Error::Transport { .. } => Self::failed(error.to_string()).code("unreachable"),
            Error::Decode { .. } => Self::failed(error.to_string()).code("bad_answer"),
            Error::Stream(_) => Self::failed(error.to_string()).code("stream_broken"),
            Error::Invalid(_) => Self::usage(error.to_string()),
        };
        failure.hint = hint.or_else(|| match failure.status {
            401 => Some("run `copass login`, or set COPASS_API_KEY".to_owned()),
            // No role helps a key that is made for one agent.
            403 if ["agent key", "key of one agent"].iter().any(|name| failure.message.contains(name)) => Some(
                "an agent key can only run its agent and read those runs; use your own login (`copass login`) or an API \
                 key of your account"
                    .to_owned(),
            ),
            403 => Some("ask the owner of the sandbox for a role that allows this".to_owned()),
            _ => None,
        });
        failure
    }
}

impl From<copass_node::Failure> for Failure {
    fn from(failure: copass_node::Failure) -> Self {
        Self {
            hint: failure.hint,
            ..Self::failed(failure.message)
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // `copass … | head`: the reader has what it wanted.
            Self::silent(0)
        } else {
            Self::failed(format!("cannot write the output: {error}"))
        }
    }
}
