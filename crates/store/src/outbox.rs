//! The outbox: a state change and its message are one transaction; a relay woken by signal and timer publishes.
//!
//! At least once on the wire: the relay publishes, then deletes the row; a crash between the two publishes again, and
//! the consumer's inbox makes the second delivery harmless.

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use copass_runtime::clock;
use copass_types::MessageId;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesOrdered};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{AsConn as _, Batch, Db, Dialect, Json, Result, Tx, add_to, fetch_all, fetch_optional};

const BATCH: i64 = 100;
/// Rows looked at together for a volatile broker: those that wait for their consumer are among them.
const VOLATILE_BATCH: i64 = 1000;
/// Messages that wait for the broker's word together: each is begun after the one before, and on a disk only once the
/// broker has flushed it.
const PUBLISHED_AT_ONCE: usize = 32;
/// Rows deleted in one round trip.
const FORGOTTEN_AT_ONCE: usize = 100;
/// The safety net behind the signal: rows that a crashed or foreign writer left are found this often.
const TIMER: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// A message that leaves with its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxMessage {
    /// The message id; the consumer's inbox knows it by this.
    pub id: MessageId,
    /// Queue or topic name.
    pub destination: String,
    /// Whether the destination is a topic (every subscriber) or a queue (one consumer).
    pub is_broadcast: bool,
    /// What the body is, with its version: `sandbox.destroyed.v1`.
    pub kind: String,
    /// The body.
    pub body: Value,
    /// Trace context and the like.
    pub headers: BTreeMap<String, String>,
}

impl OutboxMessage {
    /// A message to one queue.
    #[must_use]
    pub fn to_queue(queue: &str, kind: &str, body: Value) -> Self {
        Self::new(queue, false, kind, body)
    }

    /// A message to every subscriber of a topic.
    #[must_use]
    pub fn to_topic(topic: &str, kind: &str, body: Value) -> Self {
        Self::new(topic, true, kind, body)
    }

    fn new(destination: &str, is_broadcast: bool, kind: &str, body: Value) -> Self {
        Self {
            id: MessageId::generate(),
            destination: destination.to_owned(),
            is_broadcast,
            kind: kind.to_owned(),
            body,
            headers: BTreeMap::new(),
        }
    }
}

/// The outbox of one service.
#[derive(Debug, Clone)]
pub struct Outbox {
    owner: &'static str,
    wake: Arc<Notify>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    destination: String,
    is_broadcast: bool,
    kind: String,
    body: Json<Value>,
    headers: Json<BTreeMap<String, String>>,
}

impl Row {
    fn into_message(self) -> Option<OutboxMessage> {
        let Ok(id) = self.id.parse::<MessageId>() else {
            tracing::error!(message.id = self.id, "outbox row with a malformed id");
            return None;
        };
        Some(OutboxMessage {
            id,
            destination: self.destination,
            is_broadcast: self.is_broadcast,
            kind: self.kind,
            body: self.body.0,
            headers: self.headers.0,
        })
    }
}

/// What a published message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// The broker keeps what it confirmed: the row goes when the message left.
    Durable,
    /// The broker lives in this process and dies with it: the row stays until a consumer's inbox has recorded the
    /// message, and what is left is published again at the next start. One process only.
    Volatile,
}

const HANDLED: &str = "select o.id from outbox o join inbox i on i.message_id = o.id where o.owner = $1";
const IDS: &str = "select id from outbox where owner = $1 and id > $2 order by id limit $3";
const ONE: &str = "select id, destination, is_broadcast, kind, body, headers from outbox where id = $1";
const CLAIM_POSTGRES: &str = "select id, destination, is_broadcast, kind, body, headers from outbox where owner = $1 \
     order by id limit $2 for update skip locked";
const CLAIM_SQLITE: &str = "select id, destination, is_broadcast, kind, body, headers from outbox where owner = $1 \
     order by id limit $2";

impl Outbox {
    /// The outbox of the named service.
    #[must_use]
    pub fn new(owner: &'static str) -> Self {
        Self {
            owner,
            wake: Arc::new(Notify::new()),
        }
    }

    /// Adds a message to the transaction. Call [`Self::wake`] after the commit.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn add(&self, tx: &mut Tx, message: &OutboxMessage) -> Result<()> {
        let mut batch = Batch::new(tx.dialect());
        self.add_to(&mut batch, message);
        batch.execute(tx).await?;
        Ok(())
    }

    /// Adds a message to what is written together. Call [`Self::wake`] after the commit.
    pub fn add_to(&self, batch: &mut Batch, message: &OutboxMessage) {
        add_to!(
            *batch,
            "insert into outbox (id, owner, destination, is_broadcast, kind, body, headers, created_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            message.id.as_str(),
            self.owner,
            &message.destination,
            message.is_broadcast,
            &message.kind,
            Json(&message.body),
            Json(&message.headers),
            clock::now(),
        );
    }

    /// Tells the relay that there is something to publish.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Publishes what waits, one batch; returns how many messages left.
    ///
    /// # Errors
    /// The database or the publisher failed; what was not published stays.
    pub async fn relay_batch<P, Fut>(&self, db: &Db, publish: &P) -> std::result::Result<usize, RelayError>
    where
        P: Fn(OutboxMessage) -> Fut,
        Fut: Future<Output = std::result::Result<(), String>> + Send,
    {
        // On SQLite an idle look must not take the write lock.
        if db.dialect() == Dialect::Sqlite {
            let mut conn = db.read().await?;
            if fetch_all!(conn, Row, CLAIM_SQLITE, self.owner, 1_i64)?.is_empty() {
                return Ok(0);
            }
        }
        let mut tx = db.begin().await?;
        let claim = match db.dialect() {
            Dialect::Postgres => CLAIM_POSTGRES,
            Dialect::Sqlite => CLAIM_SQLITE,
        };
        let rows = fetch_all!(tx, Row, claim, self.owner, BATCH)?;
        let mut sent = Batch::new(db.dialect());
        let mut failure = None;
        let mut rows = rows.into_iter();
        let mut publishing = FuturesOrdered::new();
        loop {
            while failure.is_none()
                && publishing.len() < PUBLISHED_AT_ONCE
                && let Some(row) = rows.next()
            {
                let id = row.id.clone();
                if let Some(message) = row.into_message() {
                    publishing.push_back(publish(message).map(|outcome| (id, outcome)));
                }
            }
            match publishing.next().await {
                Some((id, Ok(()))) => forget(&mut sent, &id),
                Some((_, Err(error))) => failure = failure.or(Some(error)),
                None => break,
            }
        }
        let sent = sent.execute(&mut tx).await?.len();
        tx.commit().await?;
        failure.map_or(Ok(sent), |error| Err(RelayError::Publish(error)))
    }

    /// One look for a broker that dies with the process: forgets what was handled, publishes what `published` does not
    /// hold yet.
    ///
    /// # Errors
    /// The database or the publisher failed; what was not published stays.
    pub async fn relay_volatile_batch<P, Fut>(
        &self,
        db: &Db,
        publish: &P,
        published: &mut HashSet<String>,
    ) -> std::result::Result<usize, RelayError>
    where
        P: Fn(OutboxMessage) -> Fut,
        Fut: Future<Output = std::result::Result<(), String>> + Send,
    {
        let mut conn = db.read().await?;
        let handled = fetch_all!(conn, (String,), HANDLED, self.owner)?;
        let mut gone: HashSet<String> = handled.into_iter().map(|(id,)| id).collect();
        // Every id, page by page: what waits for its consumer must not hide what nobody has published. A row that was
        // written late may have an early id, so there is no place before which all is published.
        let mut unpublished = Vec::new();
        let mut last = String::new();
        loop {
            let ids = fetch_all!(conn, (String,), IDS, self.owner, &last, VOLATILE_BATCH)?;
            let is_last = ids.len() < usize::try_from(VOLATILE_BATCH).unwrap_or(usize::MAX);
            if let Some((id,)) = ids.last() {
                last.clone_from(id);
            }
            let is_new = |id: &String| !published.contains(id) && !gone.contains(id);
            unpublished.extend(ids.into_iter().map(|(id,)| id).filter(is_new));
            if is_last {
                break;
            }
        }
        let mut sent = 0;
        let mut failure = None;
        for id in unpublished {
            let Some(row) = fetch_optional!(conn, Row, ONE, &id)? else {
                continue;
            };
            let is_broadcast = row.is_broadcast;
            let Some(message) = row.into_message() else { continue };
            if let Err(error) = publish(message).await {
                failure = Some(error);
                break;
            }
            sent += 1;
            // Nobody records a broadcast; it has done its work when it was sent.
            if is_broadcast {
                gone.insert(id);
            } else {
                published.insert(id);
            }
        }
        drop(conn);
        if !gone.is_empty() {
            let gone: Vec<String> = gone.into_iter().collect();
            let mut tx = db.begin().await?;
            for some in gone.chunks(FORGOTTEN_AT_ONCE) {
                let mut batch = Batch::new(db.dialect());
                for id in some {
                    forget(&mut batch, id);
                }
                batch.execute(&mut tx).await?;
                for id in some {
                    published.remove(id);
                }
            }
            tx.commit().await?;
        }
        failure.map_or(Ok(sent), |error| Err(RelayError::Publish(error)))
    }

    /// Publishes until asked to stop: woken by [`Self::wake`] and by a timer, with backoff while the broker is away.
    pub async fn relay<P, Fut>(self, db: Db, broker: Broker, publish: P, stop: CancellationToken)
    where
        P: Fn(OutboxMessage) -> Fut + Send + Sync,
        Fut: Future<Output = std::result::Result<(), String>> + Send,
    {
        let mut retry = FIRST_RETRY;
        let mut published = HashSet::new();
        loop {
            // Read before the look, so that the last look comes after the request to stop.
            let stopping = stop.is_cancelled();
            let outcome = match broker {
                Broker::Durable => self.relay_batch(&db, &publish).await,
                Broker::Volatile => self.relay_volatile_batch(&db, &publish, &mut published).await,
            };
            let wait = match outcome {
                Ok(sent) if sent >= usize::try_from(BATCH).unwrap_or(usize::MAX) => Duration::ZERO,
                Ok(_) => {
                    retry = FIRST_RETRY;
                    TIMER
                }
                Err(error) => {
                    tracing::warn!(owner = self.owner, %error, retry_in_ms = retry.as_millis(), "outbox relay is held up");
                    let wait = retry;
                    retry = (retry * 2).min(TIMER);
                    wait
                }
            };
            if stopping {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

fn forget(batch: &mut Batch, id: &str) {
    add_to!(*batch, "delete from outbox where id = $1", id);
}

/// Why a batch did not leave.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The database failed.
    #[error("database: {0}")]
    Store(#[from] crate::Error),
    /// The broker failed.
    #[error("broker: {0}")]
    Publish(String),
}
