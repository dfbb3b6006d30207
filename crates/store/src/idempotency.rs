//! `Idempotency-Key`: same key and same body give the first answer, same key and another body give 409.
//!
//! The answer is written in the transaction of its effect, sealed under the master key, because some answers hold a
//! secret that is shown once.

use chrono::{DateTime, Utc};
use copass_errors::{Error as ApiError, ErrorCode};
use copass_runtime::{MasterKey, clock};
use sha2::{Digest as _, Sha256};

use crate::{Db, Tx, execute, fetch_optional};

/// How long first answers are kept.
pub const RETENTION: chrono::Duration = chrono::Duration::hours(24);

/// One keyed request: whose, under which key, with which content.
#[derive(Debug, Clone)]
pub struct KeyedRequest {
    scope: String,
    key: String,
    request_hash: String,
}

impl KeyedRequest {
    /// A request under a key. `scope` names caller and operation, so that keys of others never meet; `request` is the
    /// encoded content.
    #[must_use]
    pub fn new(scope: String, key: String, request: &[u8]) -> Self {
        Self { scope, key, request_hash: hex::encode(Sha256::digest(request)) }
    }
}

/// Keeps first answers.
#[derive(Debug, Clone)]
pub struct Idempotency {
    db: Db,
    master_key: MasterKey,
}

impl Idempotency {
    /// Keeps answers in the database, sealed under the key.
    #[must_use]
    pub fn new(db: Db, master_key: MasterKey) -> Self {
        Self { db, master_key }
    }

    /// The first answer, if the request was answered before.
    ///
    /// # Errors
    /// `idempotency_conflict` when the key was used with other content.
    pub async fn replay(&self, request: &KeyedRequest) -> Result<Option<Vec<u8>>, ApiError> {
        let mut conn = self.db.read().await?;
        let row = fetch_optional!(
            conn,
            (String, String, DateTime<Utc>),
            "select request_hash, sealed_response, created_at from idempotency_keys \
             where scope = $1 and idempotency_key = $2",
            &request.scope,
            &request.key,
        )?;
        let Some((request_hash, sealed, created_at)) = row else { return Ok(None) };
        if created_at < clock::now() - RETENTION {
            return Ok(None);
        }
        if request_hash != request.request_hash {
            return Err(ApiError::new(
                ErrorCode::IdempotencyConflict,
                "this Idempotency-Key was used with another request body; use a new key for a new request",
            ));
        }
        let answer = self.master_key.open(&request.scope, &sealed).map_err(ApiError::internal)?;
        Ok(Some(answer.to_vec()))
    }

    /// Keeps the answer in the transaction of the effect.
    ///
    /// # Errors
    /// `idempotency_conflict` when another request with the key has just been answered: roll back, then replay.
    pub async fn remember(&self, tx: &mut Tx, request: &KeyedRequest, answer: &[u8]) -> Result<(), ApiError> {
        let sealed = self.master_key.seal(&request.scope, answer).map_err(ApiError::internal)?;
        let now = clock::now();
        execute!(
            *tx,
            "delete from idempotency_keys where scope = $1 and idempotency_key = $2 and created_at < $3",
            &request.scope,
            &request.key,
            now - RETENTION,
        )?;
        execute!(
            *tx,
            "insert into idempotency_keys (scope, idempotency_key, request_hash, sealed_response, created_at) \
             values ($1, $2, $3, $4, $5)",
            &request.scope,
            &request.key,
            &request.request_hash,
            sealed,
            now,
        )
        .map_err(|error| {
            if error.is_unique_violation() {
                ApiError::new(
                    ErrorCode::IdempotencyConflict,
                    "the first request with this Idempotency-Key is being answered right now; repeat it in a second",
                )
            } else {
                error.into()
            }
        })?;
        Ok(())
    }
}
