//! Outgoing mail: one-time codes by SMTP when a server is configured, else into the log (`gaps.md` G40).
//!
//! A code is stored first and mailed in the background. So the answer never fails after the code was stored, and it
//! takes the same time whether the address is known, unknown or refused by its mail server.

use std::{sync::Arc, time::Duration};

use copass_errors::{Error, ErrorCode, Result};
use copass_runtime::{Secret, Tasks, config::Smtp, tasks::Phase};
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Mails on their way at once; more are refused before anything is stored.
const MAX_IN_FLIGHT: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 3;

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

/// The mail server and the sender.
#[derive(Clone)]
pub(crate) struct Server {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

enum Way {
    Smtp { server: Box<Server>, slots: Arc<Semaphore> },
    Log,
    Off,
}

/// How codes reach people.
pub(crate) struct Mail {
    way: Way,
    tasks: Tasks,
}

/// A code's way to one address, checked before anything is stored.
pub(crate) enum Outgoing {
    /// By SMTP.
    Mail {
        server: Box<Server>,
        to: Address,
        slot: OwnedSemaphorePermit,
    },
    /// Into the log, with the address.
    Log(String),
}

impl Mail {
    pub(crate) fn new(config: &Smtp, log_codes: bool, tasks: Tasks) -> std::result::Result<Self, MailError> {
        let way = match config.url.as_ref() {
            None if log_codes => Way::Log,
            None => Way::Off,
            Some(url) => {
                let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose())
                    .map_err(|error| MailError::Url(error.to_string()))?
                    .timeout(Some(TIMEOUT))
                    .build();
                let from = config
                    .from
                    .as_deref()
                    .unwrap_or_default()
                    .parse()
                    .map_err(|_| MailError::From)?;
                let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
                Way::Smtp {
                    server: Box::new(Server { transport, from }),
                    slots,
                }
            }
        };
        Ok(Self { way, tasks })
    }

    /// Whether a code can be on its way to the address.
    pub(crate) fn prepare(&self, email: &str) -> Result<Outgoing> {
        match &self.way {
            Way::Off => Err(Error::new(
                ErrorCode::Unavailable,
                "login by e-mail is not set up on this server; its operator sets smtp.url, or auth.log_codes for local use",
            )),
            Way::Log => Ok(Outgoing::Log(email.to_owned())),
            Way::Smtp { server, slots } => {
                // An address and nothing around it: `x<victim@example.com>` would be a mailbox.
                let to: Address = email
                    .parse()
                    .map_err(|_| Error::invalid_field("email", "must be an e-mail address that mail can be sent to"))?;
                let slot = slots.clone().try_acquire_owned().map_err(|_| {
                    Error::new(
                        ErrorCode::RateLimited,
                        "too many login codes are being sent right now; try again shortly",
                    )
                    .with_retry_after_s(10)
                })?;
                Ok(Outgoing::Mail {
                    server: server.clone(),
                    to,
                    slot,
                })
            }
        }
    }

    /// Sends the code; what goes wrong is for the log.
    pub(crate) fn send_code(&self, outgoing: Outgoing, code: Secret) {
        match outgoing {
            Outgoing::Log(email) => {
                tracing::info!(email, code = code.expose(), "login code (no mail server is configured)");
            }
            Outgoing::Mail { server, to, slot } => {
                self.tasks.spawn(Phase::Work, "login mail", move |_| async move {
                    if let Err(error) = deliver(&server, to, &code).await {
                        tracing::error!(%error, cause = error.cause_chain(), "a login code could not be mailed");
                    }
                    drop(slot);
                });
            }
        }
    }
}

async fn deliver(server: &Server, to: Address, code: &Secret) -> Result<()> {
    let message = Message::builder()
        .from(server.from.clone())
        .to(Mailbox::new(None, to))
        .subject("Your Copass login code")
        .header(ContentType::TEXT_PLAIN)
        .body(format!(
            "Your login code is {}.\n\nIt is good for a few minutes and for one login. \
             If you did not ask for it, ignore this message.\n",
            code.expose()
        ))
        .map_err(Error::internal)?;
    let mut attempt = 1;
    loop {
        match server.transport.send(message.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_permanent() || attempt >= ATTEMPTS => return Err(Error::unavailable(error)),
            Err(_) => tokio::time::sleep(Duration::from_secs(attempt.into())).await,
        }
        attempt += 1;
    }
}
