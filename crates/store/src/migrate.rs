//! The two linear lists of migrations, embedded in the program, applied at start under a lock.

use sqlx::{
    AssertSqlSafe, PgConnection, SqlSafeStr as _, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use crate::error::OpenError;

macro_rules! migrations {
    ($($version:literal $name:literal;)*) => {
        const POSTGRES: &[(i64, &str, &str)] =
            &[$(($version, $name, include_str!(concat!("../../../migrations/postgres/", $version, "_", $name, ".sql")))),*];
        const SQLITE: &[(i64, &str, &str)] =
            &[$(($version, $name, include_str!(concat!("../../../migrations/sqlite/", $version, "_", $name, ".sql")))),*];
    };
}

migrations! {
    20261121000001 "create_identity";
    20261121000002 "create_agents";
    20261121000003 "create_triggers_and_sources";
    20261121000004 "create_messaging";
    20261121000005 "extend_agents_and_runs";
    20261121000006 "add_agent_key_holders";
}

pub(crate) async fn postgres(connection: &mut PgConnection) -> Result<(), OpenError> {
    migrator(POSTGRES)
        .run_direct(None, connection, false)
        .await
        .map_err(open_error)
}

/// The library knows no lock for SQLite, so two programs that meet a new file would both make its tables. One transaction
/// around everything takes the write lock first; each migration is a savepoint in it.
pub(crate) async fn sqlite(pool: &SqlitePool) -> Result<(), OpenError> {
    let execute = |error| OpenError::Migration(MigrateError::Execute(error));
    let mut tx = pool.begin_with("begin immediate").await.map_err(execute)?;
    migrator(SQLITE)
        .run_direct(None, &mut *tx, false)
        .await
        .map_err(open_error)?;
    tx.commit().await.map_err(execute)
}

fn migrator(list: &'static [(i64, &str, &str)]) -> Migrator {
    let migrations = list
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(
                *version,
                (*name).into(),
                MigrationType::Simple,
                AssertSqlSafe(*sql).into_sql_str(),
                false,
            )
        })
        .collect();
    Migrator::with_migrations(migrations)
}

fn open_error(error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::TooNew(version),
        other => OpenError::Migration(other),
    }
}
