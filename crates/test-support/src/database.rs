//! A database per test, on either server.
//!
//! On PostgreSQL a database is copied from a template that was migrated once, which takes a tenth of the time. The
//! template's name holds a hash of the migrations, and it gets that name only when it is complete, so an interrupted or
//! outdated one is never used. A test's database is dropped with its [`TestDatabase`]; those of killed tests are found
//! by the hour in their name.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use copass_runtime::clock;
use copass_store::{Db, Dialect};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use url::Url;

use crate::{background::run_to_end, environment};

/// Names of databases begin with this.
const PREFIX: &str = "copass_t";
/// Held while the template is made.
const TEMPLATE_LOCK: i64 = 0x636f_7061_7373;
/// Databases of tests that were killed are removed after this.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);
/// Enough for tests that race; the server allows few hundred for all tests together.
const MAX_CONNECTIONS: u32 = 10;
const ADMIN_URL: &str = "COPASS_TEST_POSTGRES_URL";

/// A migrated, empty database that belongs to one test. Use it as a [`Db`].
#[derive(Debug)]
pub struct TestDatabase {
    /// Before the place, so that the connections are gone when the place goes.
    db: Db,
    url: String,
    _place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(#[expect(dead_code, reason = "removes the directory when dropped")] TempDir),
    Server(#[expect(dead_code, reason = "drops the database when dropped")] ServerDatabase),
}

/// A database on each server that is available; only SQLite where `COPASS_TEST_SKIP_SERVICES=1`.
///
/// # Panics
/// PostgreSQL is neither named by `COPASS_TEST_POSTGRES_URL` nor left out on purpose, or a database cannot be made.
pub async fn databases() -> Vec<TestDatabase> {
    let mut databases = vec![TestDatabase::sqlite().await];
    databases.extend(TestDatabase::postgres().await);
    databases
}

impl TestDatabase {
    /// A SQLite file in a directory of its own.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", directory.path().join("copass.db").display());
        let db = Db::open(&url, MAX_CONNECTIONS).await.expect("a new SQLite file opens");
        Self {
            db,
            url,
            _place: Place::Directory(directory),
        }
    }

    /// A PostgreSQL database; `None` when the tests that need a service are left out.
    ///
    /// # Panics
    /// `COPASS_TEST_POSTGRES_URL` is missing, or the server does not do as told.
    pub async fn postgres() -> Option<Self> {
        let database = ServerDatabase::from_template().await?;
        let url = database.url();
        let db = Db::open(&url, MAX_CONNECTIONS)
            .await
            .expect("a copy of the template opens");
        Some(Self {
            db,
            url,
            _place: Place::Server(database),
        })
    }

    /// A PostgreSQL database without any table, as an operator makes it; for tests of the migrations themselves.
    ///
    /// # Panics
    /// As [`Self::postgres`].
    pub async fn empty_postgres() -> Option<(String, impl Sized)> {
        let database = ServerDatabase::create("template0").await?;
        Some((database.url(), database))
    }

    /// `sqlite` or `postgres`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.db.dialect() {
            Dialect::Postgres => "postgres",
            Dialect::Sqlite => "sqlite",
        }
    }

    /// The database, as services take it.
    #[must_use]
    pub fn db(&self) -> Db {
        self.db.clone()
    }

    /// The address under which the same database can be opened again.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Deref for TestDatabase {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.db
    }
}

/// A database on the PostgreSQL server of the tests; dropped from the server when this is dropped.
#[derive(Debug)]
struct ServerDatabase {
    admin: Url,
    name: String,
}

impl ServerDatabase {
    async fn from_template() -> Option<Self> {
        let admin = admin_url()?;
        let template = template(&admin).await;
        Self::create(&template).await
    }

    async fn create(template: &str) -> Option<Self> {
        let admin = admin_url()?;
        let name = format!(
            "{PREFIX}_{}_{}",
            clock::now().timestamp(),
            uuid::Uuid::now_v7().simple()
        );
        let mut connection = connect(&admin).await;
        run(&mut connection, format!("create database {name} template {template}")).await;
        let _ = connection.close().await;
        Some(Self { admin, name })
    }

    fn url(&self) -> String {
        with_database(&self.admin, &self.name)
    }
}

impl Drop for ServerDatabase {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        run_to_end(async move {
            if let Ok(mut connection) = options(&admin).connect().await {
                let _ = sqlx::raw_sql(AssertSqlSafe(format!("drop database if exists {name} with (force)")))
                    .execute(&mut connection)
                    .await;
                let _ = connection.close().await;
            }
        });
    }
}

fn admin_url() -> Option<Url> {
    let text = environment::service(ADMIN_URL)?;
    Some(Url::parse(&text).unwrap_or_else(|error| panic!("{ADMIN_URL} is not a URL: {error}")))
}

fn with_database(admin: &Url, name: &str) -> String {
    let mut url = admin.clone();
    url.set_path(name);
    url.to_string()
}

fn options(admin: &Url) -> PgConnectOptions {
    PgConnectOptions::from_str(admin.as_str()).unwrap_or_else(|error| panic!("{ADMIN_URL} is not usable: {error}"))
}

async fn connect(admin: &Url) -> PgConnection {
    options(admin)
        .connect()
        .await
        .unwrap_or_else(|error| panic!("no PostgreSQL answers at {ADMIN_URL} (scripts/services start): {error}"))
}

async fn run(connection: &mut PgConnection, sql: String) {
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(connection).await {
        panic!("{sql}: {error}");
    }
}

/// The name of the migrated template, which is made when it is not there.
async fn template(admin: &Url) -> String {
    let name = format!("{PREFIX}emplate_{}", migrations_hash());
    let mut connection = connect(admin).await;
    if !exists(&mut connection, &name).await {
        // Tests run in many processes; the lock ends with the connection, also when the process is killed.
        sqlx::query("select pg_advisory_lock($1)")
            .bind(TEMPLATE_LOCK)
            .execute(&mut connection)
            .await
            .expect("the template's lock");
        if !exists(&mut connection, &name).await {
            make_template(&mut connection, admin, &name).await;
            remove_abandoned(&mut connection).await;
        }
    }
    let _ = connection.close().await;
    name
}

async fn make_template(connection: &mut PgConnection, admin: &Url, name: &str) {
    let unfinished = format!("{name}_new");
    run(connection, format!("drop database if exists {unfinished} with (force)")).await;
    run(connection, format!("create database {unfinished} template template0")).await;
    let db = Db::open(&with_database(admin, &unfinished), 1)
        .await
        .expect("the migrations run on an empty database");
    db.close().await;
    run(connection, format!("alter database {unfinished} rename to {name}")).await;
}

async fn exists(connection: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(connection)
        .await
        .expect("the list of databases")
}

async fn remove_abandoned(connection: &mut PgConnection) {
    let names: Vec<String> = sqlx::query_scalar("select datname from pg_database where datname like $1")
        .bind(format!("{PREFIX}\\_%"))
        .fetch_all(&mut *connection)
        .await
        .expect("the list of databases");
    let limit = clock::now().timestamp() - i64::try_from(ABANDONED_AFTER.as_secs()).unwrap_or(i64::MAX);
    for name in names {
        let made_at = name.split('_').nth(2).and_then(|second| second.parse::<i64>().ok());
        if made_at.is_some_and(|made_at| made_at < limit) {
            run(connection, format!("drop database if exists {name} with (force)")).await;
        }
    }
}

fn migrations_hash() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres");
    let entries = std::fs::read_dir(&folder).expect("the folder of migrations");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(std::fs::read(&file).expect("a readable migration"));
    }
    hex::encode(&hasher.finalize()[..8])
}

/// Makes a test per database out of each `async fn case(database: TestDatabase)` of the module.
#[macro_export]
macro_rules! on_both_databases {
    ($($case:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::TestDatabase::sqlite().await).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(database) = $crate::TestDatabase::postgres().await else { return };
                super::$case(database).await;
            })*
        }
    };
}

/// Makes four tests out of each `async fn case(database: TestDatabase, wiring: Wiring)` of the module: both databases
/// times both wirings.
#[macro_export]
macro_rules! on_every_setup {
    ($($case:ident)*) => {
        mod on_sqlite {
            $(mod $case {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn local() {
                    super::super::$case($crate::TestDatabase::sqlite().await, $crate::Wiring::Local).await;
                }
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn remote() {
                    super::super::$case($crate::TestDatabase::sqlite().await, $crate::Wiring::Remote).await;
                }
            })*
        }
        mod on_postgres {
            $(mod $case {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn local() {
                    let Some(database) = $crate::TestDatabase::postgres().await else { return };
                    super::super::$case(database, $crate::Wiring::Local).await;
                }
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn remote() {
                    let Some(database) = $crate::TestDatabase::postgres().await else { return };
                    super::super::$case(database, $crate::Wiring::Remote).await;
                }
            })*
        }
    };
}
