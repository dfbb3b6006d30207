//! The inbox: a consumer records a message in the transaction of its effect (`design.md` 6).

use std::time::Instant;

use chrono::{DateTime, Utc};
use copass_runtime::clock;
use futures::future::BoxFuture;

use crate::{AsConn, Db, Result, Tx, execute, fetch_optional};

/// Records the message for the consumer. `false` means it was handled before: commit nothing and acknowledge.
///
/// # Errors
/// The statement failed.
pub async fn record(tx: &mut Tx, consumer: &str, message_id: &str, now: DateTime<Utc>) -> Result<bool> {
    let rows = execute!(
        *tx,
        "insert into inbox (consumer, message_id, received_at) values ($1, $2, $3) on conflict do nothing",
        consumer,
        message_id,
        now,
    )?;
    Ok(rows == 1)
}

async fn is_recorded<C: AsConn>(conn: &mut C, consumer: &str, message_id: &str) -> Result<bool> {
    let row = fetch_optional!(
        *conn,
        (i32,),
        "select 1 from inbox where consumer = $1 and message_id = $2",
        consumer,
        message_id,
    )?;
    Ok(row.is_some())
}

/// Handles a message whose effect is too much for one transaction, where others would wait for it: slice by slice, each
/// in a transaction of its own, until one finds nothing more to do. The message is recorded with that one, so a crash in
/// between loses nothing: the next delivery goes on. A slice says how many rows it touched, and may be done again. Gives
/// the number of all rows; `None` where the message was handled before.
///
/// # Errors
/// A slice failed; those before it stay done.
pub async fn record_after_slices<S>(db: &Db, consumer: &str, message_id: &str, slice: S) -> Result<Option<u64>>
where
    S: for<'tx> Fn(&'tx mut Tx) -> BoxFuture<'tx, Result<u64>> + Send + Sync,
{
    if is_recorded(&mut db.read().await?, consumer, message_id).await? {
        return Ok(None);
    }
    let mut all = 0;
    loop {
        let started = Instant::now();
        let mut tx = db.begin().await?;
        let rows = slice(&mut tx).await?;
        all += rows;
        if rows == 0 {
            let is_first = record(&mut tx, consumer, message_id, clock::now()).await?;
            tx.commit().await?;
            return Ok(is_first.then_some(all));
        }
        tx.commit().await?;
        // Half of the time is for others.
        tokio::time::sleep(started.elapsed()).await;
    }
}

/// How many rows are forgotten in one transaction.
pub const FORGOTTEN_AT_ONCE: u64 = 5000;

/// Forgets messages received before the instant, up to [`FORGOTTEN_AT_ONCE`]; brokers do not redeliver that late.
///
/// # Errors
/// The statement failed.
pub async fn forget_before(tx: &mut Tx, before: DateTime<Utc>) -> Result<u64> {
    execute!(
        *tx,
        "delete from inbox where (consumer, message_id) in \
         (select consumer, message_id from inbox where received_at < $1 limit $2)",
        before,
        FORGOTTEN_AT_ONCE.cast_signed(),
    )
}
