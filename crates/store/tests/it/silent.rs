//! Connections that went silent, as after a failover: nobody waits for them longer than the limit, and they do not come
//! back. Between the store and PostgreSQL is something that swallows what the connections of before say.

use std::{str::FromStr as _, time::Duration};

use copass_errors::{Error, ErrorCode};
use copass_runtime::clock;
use copass_store::{
    AsConn as _, Batch, Db, Tx, add_to, execute, fetch_one,
    sqlx::{ConnectOptions as _, postgres::PgConnectOptions},
};
use copass_test_support::TestDatabase;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{LIMIT, transactions::rows};

/// Short; only its end is waited for.
const STEP: Duration = Duration::from_secs(1);
const CONNECTIONS: u32 = 3;

struct Proxy {
    url: String,
    silenced: watch::Sender<usize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn to(database: &TestDatabase) -> Self {
        let server = PgConnectOptions::from_str(database.url()).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = server.clone().host("127.0.0.1").port(port).to_url_lossy().to_string();
        let (silenced, times) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pumps = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect((server.get_host(), server.get_port()))
                    .await
                    .unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                pumps.spawn(pump(from_client, to_server, times.clone()));
                pumps.spawn(pump(from_server, to_client, times.clone()));
            }
        });
        Self {
            url,
            silenced,
            _tasks: tasks,
        }
    }

    /// From now on the connections that there are say nothing; new ones work.
    fn silence(&self) {
        self.silenced.send_modify(|times| *times += 1);
    }

    async fn open(&self) -> Db {
        Db::open_postgres_within(&self.url, CONNECTIONS, STEP).await.unwrap()
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, silenced: watch::Receiver<usize>) {
    let begun = *silenced.borrow();
    let mut bytes = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if *silenced.borrow() == begun && to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
    // Nobody hears of a silent one that the other end has gone.
    if *silenced.borrow() != begun {
        std::future::pending::<()>().await;
    }
}

async fn write(tx: &mut Tx, message_id: &str) -> copass_store::Result<u64> {
    execute!(
        *tx,
        "insert into inbox (consumer, message_id, received_at) values ('c', $1, $2)",
        message_id,
        clock::now(),
    )
}

/// Every connection of the pool, in a transaction and alive.
async fn all_connections(db: &Db) -> Vec<Tx> {
    let mut all = Vec::new();
    for number in 0..CONNECTIONS {
        let mut tx = db.begin().await.unwrap();
        write(&mut tx, &format!("lost {number}")).await.unwrap();
        all.push(tx);
    }
    all
}

/// Works without anybody's help, and only what it does itself is there.
async fn assert_works(db: &Db, database: &TestDatabase) {
    let work = async {
        let mut tx = db.begin().await.unwrap();
        write(&mut tx, "after").await.unwrap();
        tx.commit().await.unwrap();
    };
    timeout(LIMIT, work).await.unwrap();
    assert_eq!(rows(database).await, 1);
}

fn assert_unavailable<T: std::fmt::Debug>(outcome: copass_store::Result<T>) {
    let error = Error::from(outcome.unwrap_err());
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error:?}");
}

#[tokio::test]
async fn statements_on_silent_connections_fail_and_the_pool_recovers() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let proxy = Proxy::to(&database).await;
    let db = proxy.open().await;
    let all = all_connections(&db).await;
    proxy.silence();
    let statements = async {
        let mut refused = JoinSet::new();
        for (number, mut tx) in all.into_iter().enumerate() {
            refused.spawn(async move {
                match number {
                    0 => assert_unavailable(tx.commit().await),
                    1 => {
                        let mut batch = Batch::new(tx.dialect());
                        add_to!(batch, "delete from inbox");
                        assert_unavailable(batch.execute(&mut tx).await);
                    }
                    _ => {
                        assert_unavailable(write(&mut tx, "again").await);
                        assert_unavailable(fetch_one!(tx, (i32,), "select 1"));
                    }
                }
            });
        }
        timeout(LIMIT, refused.join_all()).await.expect("an end of each");
    };
    // This one waits for a place in the pool.
    tokio::join!(statements, assert_works(&db, &database));
}

#[tokio::test]
async fn abandoned_silent_connections_do_not_keep_their_places() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let proxy = Proxy::to(&database).await;
    let db = proxy.open().await;
    let mut all = all_connections(&db).await;
    proxy.silence();
    // One in the middle of a statement, the others between two.
    let statement = write(&mut all[0], "abandoned");
    assert!(timeout(Duration::from_millis(10), statement).await.is_err());
    drop(all);
    assert_works(&db, &database).await;
}

/// Also those that worked a moment ago, which are not asked whether they are alive.
#[tokio::test]
async fn idle_connections_that_went_silent_are_replaced() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let proxy = Proxy::to(&database).await;
    let db = proxy.open().await;
    for tx in all_connections(&db).await {
        tx.rollback().await.unwrap();
    }
    proxy.silence();
    let work = async {
        for _ in 0..CONNECTIONS {
            let mut batch = Batch::new(db.dialect());
            add_to!(batch, "delete from inbox");
            if let Err(error) = db.execute(batch).await {
                assert_eq!(Error::from(error).code(), ErrorCode::Unavailable);
            }
        }
    };
    timeout(LIMIT, work).await.expect("an end of each");
    assert_works(&db, &database).await;
}

/// So that what is merely slow fails in good order.
#[tokio::test]
async fn the_server_has_a_lower_limit() {
    let Some(database) = TestDatabase::postgres().await else {
        return;
    };
    let mut conn = database.read().await.unwrap();
    let (limit,) = fetch_one!(conn, (String,), "show statement_timeout").unwrap();
    assert_eq!(limit, "12s");
    // The operator's own stays where it is lower still.
    for (set, expected) in [
        (
            "do 'begin execute format(''alter database %I set statement_timeout = 3000'', current_database()); end'",
            "3s",
        ),
        (
            "do 'begin execute format(''alter database %I set statement_timeout = 60000'', current_database()); end'",
            "12s",
        ),
    ] {
        let mut tx = database.begin().await.unwrap();
        execute!(tx, set).unwrap();
        tx.commit().await.unwrap();
        let again = Db::open(database.url(), 1).await.unwrap();
        let mut conn = again.read().await.unwrap();
        let (limit,) = fetch_one!(conn, (String,), "show statement_timeout").unwrap();
        assert_eq!(limit, expected);
        drop(conn);
        again.close().await;
    }
}
