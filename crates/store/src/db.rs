//! Pools, connections and transactions of either database.

use std::{path::Path, str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    batch::Batch,
    error::{OpenError, Result},
    migrate,
    postgres::{self, PgConn, STEP_LIMIT},
    writer::{SqliteTx, Writer},
};

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Which SQL dialect is behind a connection, for the few statements that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Db {
    /// PostgreSQL.
    Postgres {
        /// Many connections.
        pool: PgPool,
        /// How long a statement, or a transaction's begin or end, may take.
        limit: Duration,
    },
    /// SQLite allows one writer: reads have their own pool and never wait for a write (WAL).
    Sqlite {
        /// Many readers.
        read: SqlitePool,
        /// The one writer.
        write: Writer,
    },
}

impl Db {
    /// Opens the database of the URL and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`]; each variant has a hint for the operator.
    pub async fn open(url: &str, max_connections: u32) -> std::result::Result<Self, OpenError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(OpenError::InvalidUrl("it names no file".to_owned()));
            }
            Self::open_sqlite(Path::new(path)).await
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url, max_connections).await
        } else {
            Err(OpenError::InvalidUrl(
                "it begins with neither postgres:// nor sqlite:".to_owned(),
            ))
        }
    }

    /// Opens or creates a SQLite file: WAL, `synchronous=FULL`, foreign keys on, one writer.
    ///
    /// # Errors
    /// The file cannot be created or written, or its schema is newer than this program.
    pub async fn open_sqlite(path: &Path) -> std::result::Result<Self, OpenError> {
        let file_error = |cause| OpenError::File {
            path: path.to_owned(),
            cause,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // So that `insert or replace` meets the triggers that refuse a delete.
            .pragma("recursive_triggers", "on")
            .busy_timeout(BUSY_TIMEOUT);
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A file does not go away while nobody looks.
            .test_before_acquire(false)
            // What a savepoint needs to be undone is kept in memory.
            .connect_with(options.clone().pragma("temp_store", "memory"))
            .await
            .map_err(file_error)?;
        migrate::sqlite(&write).await.map_err(|error| match error {
            OpenError::Migration(sqlx::migrate::MigrateError::Execute(cause)) => file_error(cause),
            other => other,
        })?;
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(options.create_if_missing(false).read_only(true));
        Ok(Self::Sqlite {
            read,
            write: Writer::start(write).map_err(|error| file_error(error.into()))?,
        })
    }

    /// Connects to PostgreSQL.
    ///
    /// # Errors
    /// The server is unreachable or refuses, or the schema is newer than this program.
    pub async fn open_postgres(url: &str, max_connections: u32) -> std::result::Result<Self, OpenError> {
        Self::open_postgres_within(url, max_connections, STEP_LIMIT).await
    }

    /// As [`Self::open_postgres`], with another limit on each statement; for tests.
    #[doc(hidden)]
    pub async fn open_postgres_within(
        url: &str,
        max_connections: u32,
        limit: Duration,
    ) -> std::result::Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|cause| OpenError::InvalidUrl(cause.to_string()))?
            .application_name("copass");
        let location = format!(
            "{}:{}/{}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or_default()
        );
        let unreachable = |cause| OpenError::Unreachable {
            location: location.clone(),
            cause,
        };
        // A pool tries for as long as a caller may wait and then tells only that it did; the operator wants to know why.
        let mut first = connect(&options).await.map_err(unreachable)?;
        // Not one of the pool's: a migration, and waiting for another program's, may take as long as it takes.
        migrate::postgres(&mut first).await?;
        first.close().await.map_err(unreachable)?;
        let pool = postgres::pool(options, max_connections, limit)
            .await
            .map_err(unreachable)?;
        Ok(Self::Postgres { pool, limit })
    }

    /// Which dialect the database speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres { .. } => Dialect::Postgres,
            Self::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    /// A connection for reading; on SQLite it cannot write.
    ///
    /// # Errors
    /// No connection became free in time, or the database is gone.
    pub async fn read(&self) -> Result<Conn> {
        Ok(match self {
            Self::Postgres { pool, limit } => Conn::Postgres(PgConn::acquire(pool, *limit).await?),
            Self::Sqlite { read, write } => {
                write.settled().await;
                Conn::Sqlite(read.acquire().await?)
            }
        })
    }

    /// A transaction for writing. On SQLite nobody else writes meanwhile, so keep it short and wait for nothing else.
    ///
    /// # Errors
    /// No connection became free in time, or the database is gone.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(match self {
            Self::Postgres { pool, limit } => Tx::Postgres(PgConn::begin(pool, *limit).await?),
            Self::Sqlite { write, .. } => Tx::Sqlite(write.begin().await?),
        })
    }

    /// Begins a transaction with a batch; how many rows each of its statements touched. As [`Self::begin`] and
    /// [`Batch::execute`] in fewer round trips.
    ///
    /// # Errors
    /// As of those two.
    pub async fn begin_with(&self, batch: Batch) -> Result<(Tx, Vec<u64>)> {
        match self {
            Self::Postgres { pool, limit } => {
                let mut tx = PgConn::begin(pool, *limit).await?;
                let rows = batch.execute_as_parts(&mut tx, false).await?.unwrap_or_default();
                Ok((Tx::Postgres(tx), rows))
            }
            Self::Sqlite { write, .. } => {
                let (tx, rows) = write.begin_with(batch).await?;
                Ok((Tx::Sqlite(tx), rows))
            }
        }
    }

    /// Runs a batch as a transaction of its own; how many rows each of its statements touched.
    ///
    /// # Errors
    /// A statement or the commit failed; nothing was changed.
    pub async fn execute(&self, batch: Batch) -> Result<Vec<u64>> {
        Ok(self.execute_batch(batch, false).await?.unwrap_or_default())
    }

    /// As [`Self::execute`], provided that the first statement touches a row: `None`, and nothing was changed, where it does
    /// not.
    ///
    /// # Errors
    /// As of [`Self::execute`].
    pub async fn execute_fenced(&self, batch: Batch) -> Result<Option<Vec<u64>>> {
        self.execute_batch(batch, true).await
    }

    async fn execute_batch(&self, batch: Batch, is_fenced: bool) -> Result<Option<Vec<u64>>> {
        match self {
            Self::Postgres { pool, limit } => {
                let mut connection = PgConn::acquire(pool, *limit).await?;
                batch.execute_as_parts(&mut connection, is_fenced).await
            }
            Self::Sqlite { write, .. } => write.execute(batch, is_fenced).await,
        }
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// It gives none.
    pub async fn ping(&self) -> Result<()> {
        let mut conn = self.read().await?;
        crate::fetch_one!(conn, (i32,), "select 1")?;
        Ok(())
    }

    /// Closes every connection; SQLite checkpoints its log.
    pub async fn close(&self) {
        match self {
            Self::Postgres { pool, .. } => pool.close().await,
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
        }
    }
}

/// One connection outside of the pool.
async fn connect(options: &PgConnectOptions) -> std::result::Result<PgConnection, sqlx::Error> {
    let connecting = tokio::time::timeout(ACQUIRE_TIMEOUT, options.connect()).await;
    let no_answer = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer");
    connecting.unwrap_or_else(|_| Err(no_answer().into()))
}

/// A connection for reading.
#[derive(Debug)]
pub enum Conn {
    /// To PostgreSQL.
    Postgres(PgConn),
    /// To SQLite.
    Sqlite(PoolConnection<Sqlite>),
}

/// A transaction; dropping it rolls back.
#[derive(Debug)]
pub enum Tx {
    /// On PostgreSQL.
    Postgres(PgConn),
    /// On SQLite.
    Sqlite(SqliteTx),
}

impl Tx {
    /// Makes the changes durable.
    ///
    /// # Errors
    /// The database refused; nothing was changed.
    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Postgres(tx) => Ok(tx.commit().await?),
            Self::Sqlite(tx) => tx.commit().await,
        }
    }

    /// Undoes the changes now instead of at drop.
    ///
    /// # Errors
    /// The database is gone.
    pub async fn rollback(self) -> Result<()> {
        match self {
            Self::Postgres(tx) => Ok(tx.rollback().await?),
            Self::Sqlite(tx) => tx.rollback().await,
        }
    }
}

/// A borrowed raw connection, for the query macros.
#[derive(Debug)]
pub enum ConnRef<'a> {
    /// To PostgreSQL.
    Postgres(&'a mut PgConn),
    /// To SQLite.
    Sqlite(&'a mut SqliteConnection),
}

/// What a reading store function takes: a connection or a transaction.
pub trait AsConn: Send {
    /// The raw connection.
    fn conn(&mut self) -> ConnRef<'_>;

    /// Which dialect it speaks.
    fn dialect(&self) -> Dialect;
}

impl AsConn for Conn {
    fn conn(&mut self) -> ConnRef<'_> {
        match self {
            Self::Postgres(conn) => ConnRef::Postgres(conn),
            Self::Sqlite(conn) => ConnRef::Sqlite(conn),
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }
}

impl AsConn for Tx {
    fn conn(&mut self) -> ConnRef<'_> {
        match self {
            Self::Postgres(tx) => ConnRef::Postgres(tx),
            Self::Sqlite(tx) => ConnRef::Sqlite(tx.connection()),
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }
}
