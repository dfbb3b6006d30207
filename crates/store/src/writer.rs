//! The one writer of a SQLite file, and how its commits are shared.
//!
//! A commit makes SQLite flush the disk, and while it does nobody else can write: one flush for each transaction would
//! bound the writes of the whole process by the disk's latency. So transactions that wait in line share a commit: the
//! first opens a transaction of SQLite's, the group, and the others are savepoints in it. The group is committed as soon
//! as those that waited when its first member was complete have had their turn; nobody is told that a transaction is
//! complete before its group is on the disk.
//!
//! A transaction sees what the others of its group have written. It cannot be told apart from having come after them:
//! its end is told only when the whole group is durable, also where it is rolled back; and where it is dropped, which
//! cannot wait, reads wait instead, so that whoever dropped it sees what it saw.

mod batches;

use std::{
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, OwnedMutexGuard, oneshot},
    time::timeout,
};

use self::batches::Batches;
use crate::{
    batch::Batch,
    db::ACQUIRE_TIMEOUT,
    error::{Error, Result},
};

type Committed = std::result::Result<(), Arc<sqlx::Error>>;

/// Transactions that are committed together.
#[derive(Debug)]
struct Group {
    connection: PoolConnection<Sqlite>,
    is_open: bool,
    /// Whom to tell.
    members: Vec<oneshot::Sender<Committed>>,
}

/// Where transactions wait for their turn.
#[derive(Debug, Default)]
struct Line {
    /// The group that the next one joins or opens; absent where there is no connection.
    head: Arc<Mutex<Option<Group>>>,
    waiting: AtomicUsize,
    /// Dropped transactions that are not undone yet.
    dropped: AtomicUsize,
    undone: Notify,
}

impl Line {
    /// Whether nobody waits.
    fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }
}

/// One that waits, however its wait ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    pool: SqlitePool,
    line: Arc<Line>,
    batches: Batches,
}

impl Writer {
    /// The pool has one connection.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(crate) fn start(pool: SqlitePool) -> io::Result<Self> {
        let line = Arc::default();
        let batches = Batches::start(pool.clone(), Arc::clone(&line))?;
        Ok(Self { pool, line, batches })
    }

    pub(crate) async fn begin(&self) -> Result<SqliteTx> {
        let mut tx = self.enter().await?;
        let opening = tx.opening();
        run(tx.connection(), opening).await?;
        Ok(tx)
    }

    /// Begins a transaction with a batch, in one round trip.
    pub(crate) async fn begin_with(&self, batch: Batch) -> Result<(SqliteTx, Vec<u64>)> {
        let mut tx = self.enter().await?;
        let opening = tx.opening();
        let rows = batch.execute_between(&[opening], tx.connection(), "", false).await?;
        Ok((tx, rows))
    }

    /// Runs a batch as a transaction of its own; `None`, and nothing was done, where the first statement had to touch a row
    /// and did not.
    pub(crate) async fn execute(&self, batch: Batch, is_fenced: bool) -> Result<Option<Vec<u64>>> {
        self.batches.execute(batch, is_fenced).await
    }

    /// Waits for a turn. What the transaction's drop finds half done from here on it settles.
    async fn enter(&self) -> Result<SqliteTx> {
        Ok(SqliteTx {
            turn: Some(enter(&self.pool, &self.line).await?),
            line: Arc::clone(&self.line),
        })
    }

    /// Waits until what dropped transactions saw can be read.
    pub(crate) async fn settled(&self) {
        loop {
            let undone = self.line.undone.notified();
            if self.line.dropped.load(Ordering::Acquire) == 0 {
                return;
            }
            undone.await;
        }
    }

    /// Waits until what is complete is on the disk, and closes the connection. Whoever waits in line behind this is
    /// refused.
    pub(crate) async fn close(&self) {
        loop {
            let mut head = Arc::clone(&self.line.head).lock_owned().await;
            match head.take() {
                Some(group) if group.is_open => {
                    let is_first = false;
                    Turn { head, group, is_first }.commit().await;
                }
                group => {
                    // Closed before anybody else has the turn: a group of theirs would keep its connection for ever.
                    let closing = self.pool.close();
                    drop(group);
                    drop(head);
                    return closing.await;
                }
            }
        }
    }
}

/// Waits for a turn.
async fn enter(pool: &SqlitePool, line: &Line) -> Result<Turn> {
    let waiting = Waiting::new(&line.waiting);
    let head = timeout(ACQUIRE_TIMEOUT, Arc::clone(&line.head).lock_owned()).await;
    drop(waiting);
    let mut head = head.map_err(|_| sqlx::Error::PoolTimedOut)?;
    let mut group = match head.take() {
        Some(group) => group,
        None => Group {
            connection: pool.acquire().await?,
            is_open: false,
            members: Vec::new(),
        },
    };
    let is_first = !mem::replace(&mut group.is_open, true);
    Ok(Turn { head, group, is_first })
}

/// Whoever has it writes, and nobody else.
#[derive(Debug)]
struct Turn {
    head: OwnedMutexGuard<Option<Group>>,
    group: Group,
    /// The present transaction opened the group; all others are savepoints.
    is_first: bool,
}

impl Turn {
    fn join(&mut self) -> oneshot::Receiver<Committed> {
        let (tell, told) = oneshot::channel();
        self.group.members.push(tell);
        told
    }

    /// Lets the next one have it, in the same group.
    fn pass_on(mut self) {
        *self.head = Some(self.group);
    }

    /// Lets the next one have it, in a group of its own.
    fn rest(mut self) {
        self.group.is_open = false;
        self.pass_on();
    }

    /// Commits the group and tells everybody. Must not be abandoned.
    async fn commit(mut self) {
        let members = mem::take(&mut self.group.members);
        let statement = if members.is_empty() { "rollback" } else { "commit" };
        let committed = run(&mut self.group.connection, statement).await;
        if committed.is_ok() {
            self.rest();
        } else if let Err(error) = self.group.connection.close().await {
            // It may still have been in the transaction, so it is not used again.
            tracing::warn!(%error, "a connection that could not commit did not close in good order");
        }
        let committed = committed.map_err(Arc::new);
        for member in members {
            // Who went away does not want to know.
            let _ = member.send(committed.clone());
        }
    }

    /// Undoes the present transaction and lets nobody join any more: what made it fail may have taken the whole group
    /// with it, and then the commit finds that out. Must not be abandoned.
    async fn undo(mut self) {
        // A savepoint that is gone was released already, in a commit that was abandoned, and is a part of the group.
        if !self.is_first && run(&mut self.group.connection, "rollback to tx").await.is_ok() {
            let _ = run(&mut self.group.connection, "release tx").await;
        }
        self.commit().await;
    }
}

/// Commits the group that is there when its turn comes.
async fn commit_next(line: Arc<Line>) {
    let mut head = Arc::clone(&line.head).lock_owned().await;
    match head.take() {
        Some(group) if group.is_open => {
            let is_first = false;
            Turn { head, group, is_first }.commit().await;
        }
        // Another one has done it.
        group => *head = group,
    }
}

/// A transaction on SQLite; dropping it rolls back.
#[derive(Debug)]
pub struct SqliteTx {
    /// Gone when the end is decided.
    turn: Option<Turn>,
    line: Arc<Line>,
}

impl SqliteTx {
    /// The connection, which is in the transaction.
    #[expect(
        clippy::expect_used,
        reason = "only what owns the transaction, and so ends it, takes its turn away"
    )]
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.turn.as_mut().expect("a transaction in its turn").group.connection
    }

    fn is_first(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.is_first)
    }

    /// Whether nobody would share its commit.
    fn is_alone(&self) -> bool {
        self.is_first() && self.line.is_empty()
    }

    fn opening(&self) -> &'static str {
        if self.is_first() {
            "begin immediate"
        } else {
            "savepoint tx"
        }
    }

    fn closing(&self) -> Option<&'static str> {
        (!self.is_first()).then_some("release tx")
    }

    pub(crate) async fn commit(mut self) -> Result<()> {
        if let Some(closing) = self.closing() {
            run(self.connection(), closing).await?;
        }
        self.complete().await
    }

    /// Leaves the transaction to its group, and waits until that is on the disk.
    async fn complete(mut self) -> Result<()> {
        let is_alone = self.is_alone();
        let Some(mut turn) = self.turn.take() else {
            return Ok(());
        };
        let told = turn.join();
        // A task of its own commits: everybody is told, whatever becomes of the first member. The line is served in
        // order, so those that wait now come before it.
        if is_alone {
            detach(&Handle::current(), turn.commit());
        } else {
            let is_due = turn.group.members.len() == 1;
            turn.pass_on();
            if is_due {
                detach(&Handle::current(), commit_next(Arc::clone(&self.line)));
            }
        }
        committed(told).await
    }

    pub(crate) async fn rollback(mut self) -> Result<()> {
        let Some(mut turn) = self.turn.take() else {
            return Ok(());
        };
        // What was read may be the work of members that are not on the disk yet.
        let told = (!turn.group.members.is_empty()).then(|| turn.join());
        detach(&Handle::current(), turn.undo());
        match told {
            Some(told) => committed(told).await,
            None => Ok(()),
        }
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        // Without a runtime the process is at its end, and the database undoes what was not committed.
        let Ok(runtime) = Handle::try_current() else { return };
        let line = Arc::clone(&self.line);
        line.dropped.fetch_add(1, Ordering::AcqRel);
        detach(&runtime, async move {
            turn.undo().await;
            line.dropped.fetch_sub(1, Ordering::AcqRel);
            line.undone.notify_waiters();
        });
    }
}

/// Runs what must not be abandoned in a task of its own. It has a place in the line, so [`Writer::close`] waits for it.
fn detach(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
    runtime.spawn(work);
}

async fn committed(told: oneshot::Receiver<Committed>) -> Result<()> {
    match told.await {
        Ok(committed) => committed.map_err(Error::Group),
        // The task that commits ended with the runtime.
        Err(_) => Err(sqlx::Error::WorkerCrashed.into()),
    }
}

async fn run(connection: &mut SqliteConnection, statement: &'static str) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await?;
    Ok(())
}
