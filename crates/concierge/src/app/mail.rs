//! Outgoing mail: one-time codes by SMTP when a server is configured, else into the log (`gaps.md` G40).

use copass_errors::{Error, Result};
use copass_runtime::{Secret, config::Smtp};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor, message::Mailbox};

/// The mail settings cannot work.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Not an SMTP URL.
    #[error("smtp.url is not usable: {0}")]
    Url(String),
    /// Not a mailbox.
    #[error("smtp.from is not a mailbox such as `Copass <no-reply@example.com>`")]
    From,
}

pub(crate) enum Mail {
    Smtp { transport: Box<AsyncSmtpTransport<Tokio1Executor>>, from: Box<Mailbox> },
    Log,
    Off,
}

impl Mail {
    pub(crate) fn new(config: &Smtp, log_codes: bool) -> std::result::Result<Self, MailError> {
        let Some(url) = config.url.as_ref() else {
            return Ok(if log_codes { Self::Log } else { Self::Off });
        };
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose())
            .map_err(|error| MailError::Url(error.to_string()))?
            .timeout(Some(std::time::Duration::from_secs(10)))
            .build();
        let from = config.from.as_deref().unwrap_or_default().parse().map_err(|_| MailError::From)?;
        Ok(Self::Smtp { transport: Box::new(transport), from: Box::new(from) })
    }

    /// Whether codes can reach anybody.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Off => Err(Error::new(
                copass_errors::ErrorCode::Unavailable,
                "login by e-mail is not set up on this server; its operator sets smtp.url, or auth.log_codes for local use",
            )),
            Self::Smtp { .. } | Self::Log => Ok(()),
        }
    }

    pub(crate) async fn send_code(&self, email: &str, code: &Secret) -> Result<()> {
        match self {
            Self::Off => self.check(),
            Self::Log => {
                tracing::info!(email, code = code.expose(), "login code (no mail server is configured)");
                Ok(())
            }
            Self::Smtp { transport, from } => {
                let to: Mailbox = email
                    .parse()
                    .map_err(|_| Error::invalid_field("email", "must be an e-mail address that mail can be sent to"))?;
                let message = Message::builder()
                    .from((**from).clone())
                    .to(to)
                    .subject("Your Copass login code")
                    .body(format!(
                        "Your login code is {}.\n\nIt is good for a few minutes and for one login. \
                         If you did not ask for it, ignore this message.\n",
                        code.expose()
                    ))
                    .map_err(Error::internal)?;
                transport.send(message).await.map_err(Error::unavailable)?;
                Ok(())
            }
        }
    }
}
