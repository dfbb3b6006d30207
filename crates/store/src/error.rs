//! Errors of the store and what they mean to a caller.

use std::{path::PathBuf, sync::Arc};

use sqlx::{error::DatabaseError, sqlite::SqliteError};

/// Beginnings of PostgreSQL's codes for what passes: the connection, resources, a restart of the server, a statement that
/// exceeded the limit (mostly because it waited for somebody else's lock), and a transaction that another one had to win
/// against.
const PASSING: [&str; 5] = ["08", "53", "57P", "57014", "40"];
/// SQLite's codes for a file that somebody else has locked; the extended codes have them in the lowest byte.
const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;

/// A statement failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused it, or is gone.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The commit that it shared with others failed.
    #[error(transparent)]
    Group(Arc<sqlx::Error>),
}

/// Result of a statement.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether a unique constraint (or primary key) refused the row.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        self.cause()
            .as_database_error()
            .is_some_and(DatabaseError::is_unique_violation)
    }

    /// Whether a foreign key refused the row.
    #[must_use]
    pub fn is_foreign_key_violation(&self) -> bool {
        self.cause()
            .as_database_error()
            .is_some_and(DatabaseError::is_foreign_key_violation)
    }

    fn cause(&self) -> &sqlx::Error {
        match self {
            Self::Database(cause) => cause,
            Self::Group(cause) => cause,
        }
    }
}

impl From<Error> for copass_errors::Error {
    fn from(error: Error) -> Self {
        match error.cause() {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::unavailable(error),
            sqlx::Error::Database(cause) if is_passing(cause.as_ref()) => Self::unavailable(error),
            _ => Self::internal(error),
        }
    }
}

/// Whether the same may work a moment later.
fn is_passing(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<SqliteError>().is_some() {
        return code
            .parse::<u32>()
            .is_ok_and(|code| [SQLITE_BUSY, SQLITE_LOCKED].contains(&(code & 0xff)));
    }
    PASSING.iter().any(|beginning| code.starts_with(beginning))
}

/// The database cannot be opened; each text tells what to do next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one this store knows.
    #[error("the database URL is not valid: {0}")]
    InvalidUrl(String),
    /// The SQLite file cannot be created or written.
    #[error("the database file {} cannot be opened: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: sqlx::Error,
    },
    /// The server does not answer or refuses.
    #[error("the database at {location} cannot be reached: {cause}")]
    Unreachable {
        /// Host, port and database, without credentials.
        location: String,
        /// Why.
        cause: sqlx::Error,
    },
    /// The database was migrated by a newer program.
    #[error("the database is newer than this program (it has migration {0}, which this program does not know)")]
    TooNew(i64),
    /// A migration failed.
    #[error("the database cannot be migrated: {0}")]
    Migration(sqlx::migrate::MigrateError),
}

impl OpenError {
    /// What the operator does next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::InvalidUrl(_) => {
                "set store.url to postgres://user:password@host/database or sqlite:<path>".to_owned()
            }
            Self::File { .. } => "check that the directory exists and that you may write to it".to_owned(),
            Self::Unreachable { .. } => {
                "check that PostgreSQL runs, and the host, credentials and database name in store.url".to_owned()
            }
            Self::TooNew(_) => {
                "start the newer program again, or restore a backup from before its first start".to_owned()
            }
            Self::Migration(_) => {
                "restore a backup if the schema was changed by hand; otherwise report this".to_owned()
            }
        }
    }
}
