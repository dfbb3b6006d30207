//! Counts the use of keys in memory and writes it in batches, so that a read with a key does not cost a write.

use std::collections::{BTreeMap, HashMap};

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
        self.add(key_id, 1, clock::now());
    }

    fn add(&self, key_id: &str, uses: i64, at: DateTime<Utc>) {
        let mut pending = self.pending.lock();
        if let Some((count, last)) = pending.get_mut(key_id) {
            *count += uses;
            *last = at.max(*last);
        } else {
            pending.insert(key_id.to_owned(), (uses, at));
        }
    }

    /// What was counted, in the order of ids, so that two replicas never wait for each other's rows in a circle.
    fn take(&self) -> BTreeMap<String, (i64, DateTime<Utc>)> {
        std::mem::take(&mut *self.pending.lock()).into_iter().collect()
    }
}

impl App {
    /// Writes the counted uses; what cannot be written is kept for the next time.
    pub(crate) async fn flush_key_usage(&self) -> Result<()> {
        let counted = self.key_usage.take();
        if counted.is_empty() {
            return Ok(());
        }
        let written = self.write_key_usage(&counted).await;
        if written.is_err() {
            for (id, (uses, at)) in counted {
                self.key_usage.add(&id, uses, at);
            }
        }
        written
    }

    async fn write_key_usage(&self, counted: &BTreeMap<String, (i64, DateTime<Utc>)>) -> Result<()> {
        let mut tx = self.db.begin().await?;
        for (id, (uses, at)) in counted {
            store::api_keys::add_usage(&mut tx, id, *uses, *at).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
