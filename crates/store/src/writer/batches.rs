//! Batches that are whole transactions, on a thread of their own.
//!
//! A task that has the turn waits in its scheduler's line after each round trip, and where the process is busy everybody
//! who wants to write waits with it. A batch needs nothing of its caller while it runs, so this thread runs those that
//! wait one after the other, as savepoints of one group, and has nothing else to do. It ends when the writer is gone.

use std::{io, sync::Arc, thread};

use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};

use super::{Line, Turn, commit_next, enter, run};
use crate::{
    batch::Batch,
    db::Dialect,
    error::{Error, Result},
};

/// Callers behind these wait for room.
const MAX_WAITING: usize = 256;
/// Others who wait for a turn wait no longer than for so many.
const MAX_TOGETHER: usize = 64;

/// How many rows each statement touched; `None` where the first one had to touch a row and did not.
pub(super) type Outcome = Result<Option<Vec<u64>>>;

#[derive(Debug)]
struct Job {
    batch: Batch,
    /// The first statement has to touch a row.
    is_fenced: bool,
    tell: oneshot::Sender<Outcome>,
}

/// The way to the thread. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Batches(mpsc::Sender<Job>);

impl Batches {
    pub(super) fn start(pool: SqlitePool, line: Arc<Line>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (sender, jobs) = mpsc::channel(MAX_WAITING);
        thread::Builder::new()
            .name("sqlite-batches".to_owned())
            // All of it is dropped inside of the runtime, which a connection wants that goes back.
            .spawn(move || runtime.block_on(serve(pool, line, jobs)))?;
        Ok(Self(sender))
    }

    /// Runs a batch as a transaction of its own. Whoever no longer waits when its turn comes wants nothing.
    pub(super) async fn execute(&self, batch: Batch, is_fenced: bool) -> Outcome {
        // What fails before its first statement would be undone to the beginning of the batch before.
        let batch = batch.whole(Dialect::Sqlite)?;
        let (tell, told) = oneshot::channel();
        let job = Job { batch, is_fenced, tell };
        // The thread ends with the process or with a panic.
        let gone = || Error::from(sqlx::Error::WorkerCrashed);
        self.0.send(job).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

async fn serve(pool: SqlitePool, line: Arc<Line>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.recv().await {
        let turn = match enter(&pool, &line).await {
            Ok(turn) => turn,
            Err(error) => {
                first.answer(Err(error));
                continue;
            }
        };
        if turn.is_first && !first.is_fenced && jobs.is_empty() && line.is_empty() {
            alone(turn, first).await;
        } else {
            together(turn, &line, first, &mut jobs).await;
        }
    }
}

impl Job {
    fn answer(self, outcome: Outcome) {
        // Who went away does not want to know.
        let _ = self.tell.send(outcome);
    }
}

/// One round trip, its commit included.
async fn alone(mut turn: Turn, job: Job) {
    if job.tell.is_closed() {
        return turn.rest();
    }
    let connection = &mut turn.group.connection;
    let done = job
        .batch
        .execute_between(&["begin immediate"], connection, "commit", false)
        .await;
    match &done {
        Ok(_) => turn.rest(),
        // Nobody has joined: it rolls back.
        Err(_) => turn.commit().await,
    }
    let _ = job.tell.send(done.map(Some));
}

/// Those that wait, up to their common commit.
async fn together(mut turn: Turn, line: &Arc<Line>, first: Job, jobs: &mut mpsc::Receiver<Job>) {
    let mut done = Vec::new();
    let mut next = Some(first);
    let mut place = if turn.is_first { Place::Begin } else { Place::Join };
    while let Some(job) = next.take() {
        if !job.tell.is_closed() {
            let (outcome, reached) = turn.run(job.batch, job.is_fenced, place).await;
            done.push((job.tell, outcome));
            place = reached;
        }
        if done.len() < MAX_TOGETHER && place != Place::Lost {
            next = jobs.try_recv().ok();
        }
    }
    if done.is_empty() {
        return if turn.is_first { turn.rest() } else { turn.pass_on() };
    }
    let told = turn.join();
    if place == Place::Lost || line.is_empty() {
        // It releases what is open.
        turn.commit().await;
    } else {
        if place == Place::Inside {
            // Where it fails, the commit fails too.
            let _ = run(&mut turn.group.connection, "release tx").await;
        }
        let is_due = turn.group.members.len() == 1;
        turn.pass_on();
        if is_due {
            commit_next(Arc::clone(line)).await;
        }
    }
    let committed = super::committed(told).await;
    let last = done.len() - 1;
    for (index, (tell, outcome)) in done.into_iter().enumerate() {
        let outcome = match &committed {
            // The group was lost with this one, so its own error is the cause.
            Err(_) if place == Place::Lost && index == last => outcome,
            Err(Error::Group(error)) => Err(Error::Group(Arc::clone(error))),
            Err(_) => Err(sqlx::Error::WorkerCrashed.into()),
            Ok(()) => outcome,
        };
        let _ = tell.send(outcome);
    }
}

/// Where the connection is between two batches.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// In no transaction.
    Begin,
    /// In the group's transaction.
    Join,
    /// In the savepoint of the batch before, which is good.
    Inside,
    /// What failed took the group with it.
    Lost,
}

impl Turn {
    async fn run(&mut self, batch: Batch, is_fenced: bool, place: Place) -> (Outcome, Place) {
        let opening: &[&str] = match place {
            Place::Begin => &["begin immediate", "savepoint tx"],
            Place::Join | Place::Lost => &["savepoint tx"],
            Place::Inside => &["release tx", "savepoint tx"],
        };
        let connection = &mut self.group.connection;
        let outcome = match batch.execute_between(opening, connection, "", is_fenced).await {
            Ok(rows) if is_fenced && rows.first() == Some(&0) => Ok(None),
            Ok(rows) => return (Ok(Some(rows)), Place::Inside),
            Err(error) => Err(error),
        };
        let is_undone = run(connection, "rollback to tx").await.is_ok() && run(connection, "release tx").await.is_ok();
        (outcome, if is_undone { Place::Join } else { Place::Lost })
    }
}
