//! Connections to PostgreSQL that nobody waits for longer than a limit.
//!
//! After a failover, or behind a firewall that has forgotten it, a connection may be dead without anybody saying so: what
//! is written to it vanishes, and TCP gives up after a quarter of an hour. So each step, a statement or a transaction's
//! begin or end, has a limit. A connection that exceeds it is closed at once and never goes back to the pool, because the
//! pool asks what comes back whether it is alive, and would wait for that answer too. The server's own limit on a
//! statement is lower, so a statement that is merely slow fails there, with the connection in good order.

use std::{io, mem, time::Duration};

use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout, timeout_at},
};

use crate::db::ACQUIRE_TIMEOUT;

/// How long a step may take; more than any statement needs.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(15);
/// How long a connection that has nothing to do may take to say that it is alive; less than a caller waits for one.
const PING_LIMIT: Duration = Duration::from_secs(4);
/// How long an unused connection is taken to be alive.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// The pool; its connections bring the server's limit on a statement with them.
pub(crate) async fn pool(
    options: PgConnectOptions,
    max_connections: u32,
    limit: Duration,
) -> Result<PgPool, sqlx::Error> {
    // Not with the connection's options, which a pooler between here and the server refuses. One that the operator has
    // set stays where it is lower.
    let millis = server_limit(limit).as_millis();
    let limit_statements = format!(
        "select set_config('statement_timeout', '{millis}', false) from pg_settings \
         where name = 'statement_timeout' and (setting = '0' or cast(setting as bigint) > {millis})"
    );
    let ping_limit = PING_LIMIT.min(limit);
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            // Safe: put together from a number.
            let limit_statements = AssertSqlSafe(limit_statements.clone());
            Box::pin(async move {
                sqlx::raw_sql(limit_statements).execute(connection).await?;
                Ok(())
            })
        })
        // A round trip for each use would be a fifth of them all; one that worked a moment ago still does.
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    let ping = sqlx::Connection::ping(connection);
                    timeout(ping_limit, ping).await.map_err(|_| no_answer())??;
                }
                Ok(true)
            })
        })
        .connect_with(options)
        .await
}

/// Lower than the limit here by more than an answer is under way.
fn server_limit(limit: Duration) -> Duration {
    limit * 4 / 5
}

fn no_answer() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the database gives no answer").into()
}

/// A connection of the pool. Dropping it gives it back, without the transaction that it was in.
#[derive(Debug)]
pub struct PgConn {
    held: Held,
    limit: Duration,
    is_in_transaction: bool,
    progress: Progress,
}

/// How far its steps are.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// None is under way.
    Idle,
    /// One is under way, or was abandoned by whoever waited for it; its answer is due at the instant.
    Due(Instant),
    /// One exceeded the limit.
    GivenUp,
}

impl PgConn {
    pub(crate) async fn acquire(pool: &PgPool, limit: Duration) -> Result<Self, sqlx::Error> {
        Ok(Self {
            held: Held(Some(pool.acquire().await?)),
            limit,
            is_in_transaction: false,
            progress: Progress::Idle,
        })
    }

    /// One with a transaction begun.
    pub(crate) async fn begin(pool: &PgPool, limit: Duration) -> Result<Self, sqlx::Error> {
        let mut conn = Self::acquire(pool, limit).await?;
        // Before it is: where this is abandoned, it may have begun.
        conn.is_in_transaction = true;
        conn.run("begin").await?;
        Ok(conn)
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.end("commit").await
    }

    pub(crate) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.end("rollback").await
    }

    async fn end(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.run(statement).await?;
        self.is_in_transaction = false;
        Ok(())
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        let (connection, step) = self.step()?;
        step.run(sqlx::raw_sql(statement).execute(connection)).await?;
        Ok(())
    }

    /// The raw connection for one step, and what that is to be run by.
    ///
    /// # Errors
    /// It was given up.
    #[doc(hidden)]
    pub fn step(&mut self) -> Result<(&mut PgConnection, Step<'_>), sqlx::Error> {
        match (&mut self.held.0, self.progress) {
            (Some(connection), Progress::Idle | Progress::Due(_)) => {
                let due = Instant::now() + self.limit;
                self.progress = Progress::Due(due);
                let progress = &mut self.progress;
                Ok((&mut **connection, Step { due, progress }))
            }
            _ => Err(no_answer()),
        }
    }
}

impl Drop for PgConn {
    fn drop(&mut self) {
        let held = mem::replace(&mut self.held, Held(None));
        let now = Instant::now();
        let due = match self.progress {
            Progress::Idle => now,
            // The server may still be at it. As long as it is, the connection stays one of the pool's, so that those who
            // go away and come again cannot have more statements under way than there are connections.
            Progress::Due(due) => due.max(now),
            Progress::GivenUp => return,
        };
        // Without a runtime the process is at its end.
        let Ok(runtime) = Handle::try_current() else { return };
        let due = due + PING_LIMIT.min(self.limit);
        let is_in_transaction = self.is_in_transaction;
        runtime.spawn(give_back(held, is_in_transaction, due));
    }
}

/// Gives the connection back to the pool when it is at rest; closes it where it is not by the instant.
async fn give_back(mut held: Held, is_in_transaction: bool, due: Instant) {
    if is_in_transaction && let Some(connection) = &mut held.0 {
        let rollback = sqlx::raw_sql("rollback").execute(&mut **connection);
        if !matches!(timeout_at(due, rollback).await, Ok(Ok(_))) {
            return;
        }
    }
    if let Some(mut connection) = held.0.take() {
        // As its drop does, which waits for as long as it takes. Dropped halfway, this closes the connection.
        let returned = connection.return_to_pool();
        let _ = timeout_at(due, returned).await;
    }
}

/// A connection that is closed at once when it is dropped.
#[derive(Debug)]
struct Held(Option<PoolConnection<Postgres>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// One step on a connection.
#[doc(hidden)]
#[derive(Debug)]
pub struct Step<'a> {
    due: Instant,
    progress: &'a mut Progress,
}

impl Step<'_> {
    /// Runs it, for no longer than the limit.
    ///
    /// # Errors
    /// It failed, or there was no answer.
    pub async fn run<T>(self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        if let Ok(outcome) = timeout_at(self.due, work).await {
            *self.progress = Progress::Idle;
            outcome
        } else {
            *self.progress = Progress::GivenUp;
            Err(no_answer())
        }
    }
}
