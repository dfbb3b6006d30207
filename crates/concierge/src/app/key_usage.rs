//! Counts the use of keys in memory and writes it in batches, so that a read with a key does not cost a write.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_runtime::clock;
use parking_lot::Mutex;

use super::App;
use crate::store;

/// Uses since the last flush.
#[derive(Debug, Default)]
pub(crate) struct KeyUsage {
    pending: Mutex<HashMap<String, (i64, DateTime<Utc>)>>,
}

impl KeyUsage {
    pub(crate) fn record(&self, key_id: &str) {
        let now = clock::now();
        let mut pending = self.pending.lock();
        if let Some((count, last)) = pending.get_mut(key_id) {
            *count += 1;
            *last = now;
        } else {
            pending.insert(key_id.to_owned(), (1, now));
        }
    }
}

impl App {
    /// Writes the counted uses.
    pub(crate) async fn flush_key_usage(&self) -> Result<()> {
        let pending = std::mem::take(&mut *self.key_usage.pending.lock());
        if pending.is_empty() {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        for (id, (count, last)) in &pending {
            store::api_keys::add_usage(&mut tx, id, *count, *last).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
