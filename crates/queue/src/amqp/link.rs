//! One connection that comes back. Whoever needs it asks for it each time; the first one who finds it gone opens the next,
//! and all who wait share one backoff, so that a broker that restarts is not stormed.

use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

pub(super) struct Link {
    uri: AMQPUri,
    name: String,
    closed: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    backoff: Backoff,
    next_attempt_at: Option<Instant>,
}

/// Growing pauses with jitter.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let pause = FIRST_BACKOFF
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(rand::random_range(0.5..1.0))
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What went wrong on the way to a working channel.
#[derive(Debug)]
pub(super) enum Failure {
    /// Will pass; try again.
    Passing(lapin::Error),
    /// Will not pass by waiting.
    Lasting(lapin::Error),
    /// The queue was closed here.
    Closed,
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        let lasting = match error.kind() {
            ErrorKind::ProtocolError(error) => matches!(
                error.kind(),
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED)
                    | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
            ),
            ErrorKind::InvalidProtocolVersion(_) | ErrorKind::AuthProviderError(_) => true,
            _ => false,
        };
        if lasting {
            Self::Lasting(error)
        } else {
            Self::Passing(error)
        }
    }
}

impl Failure {
    /// The error for the caller; a passing failure means that the time is up.
    pub(super) fn into_error(self, action: &'static str, waited: Duration) -> Error {
        match self {
            Self::Closed => Error::Closed,
            Self::Lasting(source) => Error::Refused {
                action,
                source: source.into(),
            },
            Self::Passing(source) => Error::Unavailable {
                action,
                waited,
                source: Some(source.into()),
            },
        }
    }
}

impl Link {
    pub(super) fn new(uri: AMQPUri, name: String, closed: CancellationToken) -> Self {
        Self {
            uri,
            name,
            closed,
            state: Mutex::default(),
        }
    }

    /// The live connection; opens one when there is none. One try: the caller decides how long to go on.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        // Held while connecting, so that one opens and the others wait for it.
        let mut state = self.state.lock().await;
        if self.closed.is_cancelled() {
            return Err(Failure::Closed);
        }
        if let Some(connection) = &state.connection
            && connection.status().connected()
        {
            return Ok(Arc::clone(connection));
        }
        state.connection = None;
        if let Some(instant) = state.next_attempt_at {
            tokio::select! {
                () = sleep_until(instant) => {}
                () = self.closed.cancelled() => return Err(Failure::Closed),
            }
        }
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let opened = timeout(CONNECT_TIMEOUT, Connection::connect_uri(self.uri.clone(), properties)).await;
        let opened = opened.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        match opened {
            Ok(connection) => {
                tracing::info!(connection = %self.name, "connected to the message broker");
                let connection = Arc::new(connection);
                state.connection = Some(Arc::clone(&connection));
                state.backoff.reset();
                state.next_attempt_at = None;
                Ok(connection)
            }
            Err(error) => {
                let pause = state.backoff.next();
                tracing::warn!(connection = %self.name, %error, retry_after = ?pause, "message broker is not reachable");
                state.next_attempt_at = Instant::now().checked_add(pause);
                Err(error.into())
            }
        }
    }

    /// Ends the connection in good order. The token has been cancelled before, so no new one is opened.
    pub(super) async fn close(&self) {
        let connection = self.state.lock().await.connection.take();
        if let Some(connection) = connection
            && let Ok(Err(error)) = timeout(CONNECT_TIMEOUT, connection.close(200, "closing".into())).await
        {
            tracing::debug!(connection = %self.name, %error, "message broker was gone before the connection was closed");
        }
    }
}
