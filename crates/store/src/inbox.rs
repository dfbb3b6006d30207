//! The inbox: a consumer records a message in the transaction of its effect (`design.md` 6).

use chrono::{DateTime, Utc};

use crate::{Result, Tx, execute};

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

/// Forgets messages received before the instant; brokers do not redeliver that late.
///
/// # Errors
/// The statement failed.
pub async fn forget_before(tx: &mut Tx, before: DateTime<Utc>) -> Result<u64> {
    execute!(*tx, "delete from inbox where received_at < $1", before)
}
