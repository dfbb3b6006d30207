//! `Idempotency-Key`: same key and same body give the first answer, same key and another body give 409.
//!
//! The answer is written in the transaction of its effect, sealed under the master key, because some answers hold a
//! secret that is shown once.

use chrono::{DateTime, Utc};
use copass_errors::{Error as ApiError, ErrorCode, FieldProblem};
use copass_runtime::{MasterKey, clock};
use copass_types::validate;
use sha2::{Digest as _, Sha256};

use crate::{Db, Tx, execute, fetch_optional, inbox::FORGOTTEN_AT_ONCE};

/// How long first answers are kept.
pub const RETENTION: chrono::Duration = chrono::Duration::hours(24);
/// Longest key that a client may choose.
const KEY_MAX_CHARS: usize = 255;

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
        Self {
            scope,
            key,
            request_hash: hex::encode(Sha256::digest(request)),
        }
    }

    /// As [`Self::new`], for a key as a client sent it.
    ///
    /// # Errors
    /// `validation_error` when the key is empty, too long or not text that can be stored.
    pub fn checked(scope: String, key: String, request: &[u8]) -> Result<Self, ApiError> {
        validate::name(&key, KEY_MAX_CHARS).map_err(|msg| {
            let loc = vec!["header".to_owned(), "Idempotency-Key".to_owned()];
            ApiError::invalid(vec![FieldProblem {
                loc,
                msg,
                kind: "value_error".to_owned(),
            }])
        })?;
        Ok(Self::new(scope, key, request))
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

    /// The whole dance around a keyed request: the first answer when there is one, else `work`, which calls
    /// [`Self::remember`] in its transaction. When `work` lost against an equal request that was faster, that one's answer
    /// is this one's too. Without a key `work` just runs. Check the caller's rights before, a replay does not.
    ///
    /// # Errors
    /// Those of `work` and of `decode`, and `idempotency_conflict` when the key was used with other content.
    pub async fn once<T>(
        &self,
        request: Option<&KeyedRequest>,
        decode: impl Fn(&[u8]) -> Result<T, ApiError> + Send,
        work: impl Future<Output = Result<T, ApiError>> + Send,
    ) -> Result<T, ApiError> {
        let Some(request) = request else { return work.await };
        if let Some(answer) = self.replay(request).await? {
            return decode(&answer);
        }
        match work.await {
            Err(error) if matches!(error.code(), ErrorCode::Conflict | ErrorCode::IdempotencyConflict) => {
                match self.replay(request).await? {
                    Some(answer) => decode(&answer),
                    None => Err(error),
                }
            }
            outcome => outcome,
        }
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
        let Some((request_hash, sealed, created_at)) = row else {
            return Ok(None);
        };
        if created_at < clock::now() - RETENTION {
            return Ok(None);
        }
        if request_hash != request.request_hash {
            return Err(ApiError::new(
                ErrorCode::IdempotencyConflict,
                "this Idempotency-Key was used with another request body; use a new key for a new request",
            ));
        }
        let answer = self
            .master_key
            .open(&request.scope, &sealed)
            .map_err(ApiError::internal)?;
        Ok(Some(answer.to_vec()))
    }

    /// Keeps the answer in the transaction of the effect.
    ///
    /// # Errors
    /// `idempotency_conflict` when another request with the key has just been answered: roll back, then replay.
    pub async fn remember(&self, tx: &mut Tx, request: &KeyedRequest, answer: &[u8]) -> Result<(), ApiError> {
        let sealed = self
            .master_key
            .seal(&request.scope, answer)
            .map_err(ApiError::internal)?;
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

/// Forgets answers that are too old to be given again, up to [`FORGOTTEN_AT_ONCE`].
///
/// # Errors
/// The statement failed.
pub async fn forget_expired(tx: &mut Tx) -> crate::Result<u64> {
    execute!(
        *tx,
        "delete from idempotency_keys where (scope, idempotency_key) in \
         (select scope, idempotency_key from idempotency_keys where created_at < $1 limit $2)",
        clock::now() - RETENTION,
        FORGOTTEN_AT_ONCE.cast_signed(),
    )
}
