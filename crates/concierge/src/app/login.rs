//! Login by one-time code, and refresh tokens (`rest.md` 1).
//!
//! A code is six digits, good for one login, a few minutes and five attempts; only a keyed hash is stored. A refresh
//! token is good once: one that comes back a second time was stolen or replayed, so its whole login ends.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Duration, Utc};
use copass_errors::{Error, ErrorCode, Result};
use copass_runtime::{CallContext, Secret, clock};
use copass_store::{Tx, audit::Record};
use copass_types::{UserId, validate};
use rand::RngExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{App, tokens::TokenSigner};
use crate::store;

const MAX_ATTEMPTS: i64 = 5;
/// In which the codes of one address are counted.
const WINDOW: Duration = Duration::minutes(10);
/// Accepted in `dev` on loopback only.
const DEV_CODE: &str = "000000";

/// A login. No `Debug`: it holds tokens.
pub(crate) struct Session {
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) user_id: String,
    pub(crate) email: String,
}

impl App {
    /// Sends a code. Known and unknown addresses are answered alike, in words and in time.
    pub(crate) async fn send_login_code(&self, email: &str) -> Result<()> {
        let email = normalise(email)?;
        let outgoing = self.mail.prepare(&email)?;
        let now = clock::now();
        let code = Secret::new(format!("{:06}", rand::rng().random_range(0..1_000_000_u32)));
        let code_hash = self.hash_code(&email, code.expose());
        let mut tx = self.db.begin().await?;
        store::login::lock_address(&mut tx, &email).await?;
        let recent = store::login::count_codes_since(&mut tx, &email, now - WINDOW).await?;
        if recent >= i64::from(self.auth.codes_per_ten_minutes) {
            return Err(Error::new(
                ErrorCode::RateLimited,
                "too many codes were sent to this address; use the newest one, or wait ten minutes",
            )
            .with_retry_after_s(u64::try_from(WINDOW.num_seconds()).unwrap_or(600)));
        }
        let known = store::users::find_by_email(&mut tx, &email).await?.is_some();
        let id = format!("lc_{}", ulid::Ulid::generate());
        store::login::insert_code(&mut tx, &id, &email, &code_hash, now, now + self.auth.code_ttl).await?;
        tx.commit().await?;
        if known || self.auth.open_registration {
            self.mail.send_code(outgoing, code);
        }
        Ok(())
    }

    /// Exchanges a code for a login; the first one makes the account.
    pub(crate) async fn verify_login_code(&self, context: &CallContext, email: &str, code: &str) -> Result<Session> {
        let email = normalise(email)?;
        let signer = self.tokens.signer().await?;
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        let refused = if !self.code_is_right(&mut tx, &email, code.trim(), now).await? {
            Some(Error::unauthorized(
                "the code is wrong, used or expired; ask for a new one with `copass login`",
            ))
        } else if !self.auth.open_registration && store::users::find_by_email(&mut tx, &email).await?.is_none() {
            Some(Error::forbidden(
                "this server does not take new accounts; ask its operator",
            ))
        } else {
            None
        };
        if let Some(error) = refused {
            // Committed, because the attempt counts.
            self.audit(&mut tx, Record::new(context, "login", &email).denied(error.code()))
                .await?;
            tx.commit().await?;
            return Err(error);
        }
        store::users::insert_if_absent(&mut tx, &UserId::generate(), &email, now).await?;
        let user = store::users::find_by_email(&mut tx, &email)
            .await?
            .ok_or_else(|| Error::internal("the account vanished while logging in"))?;
        let user_id: UserId = user.id.parse().map_err(Error::internal)?;
        let family = format!("lg_{}", ulid::Ulid::generate());
        let session = self
            .add_session(&mut tx, &signer, &user_id, &family, email, now)
            .await?;
        let record = Record::new(context, "login", &session.email)
            .user(&user_id)
            .after(json!({ "login": family }));
        self.audit(&mut tx, record).await?;
        tx.commit().await?;
        Ok(session)
    }

    /// Counts an attempt on the newest code of the address, and uses it up when the code is right.
    async fn code_is_right(&self, tx: &mut Tx, email: &str, code: &str, now: DateTime<Utc>) -> Result<bool> {
        if self.accept_dev_code && code == DEV_CODE {
            return Ok(true);
        }
        let newest = store::login::try_newest_code(tx, email, MAX_ATTEMPTS, now).await?;
        let expected = self.hash_code(email, code);
        match newest {
            // Both are keyed hashes of equal length, so comparing them tells an attacker nothing about the code.
            Some(row) if row.code_hash == expected => Ok(store::login::consume_code(tx, &row.id, now).await?),
            _ => Ok(false),
        }
    }

    /// Rotates a refresh token.
    pub(crate) async fn refresh_session(&self, context: &CallContext, refresh_token: &str) -> Result<Session> {
        let signer = self.tokens.signer().await?;
        let token_hash = hash(refresh_token);
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        let unknown = || Error::unauthorized("the refresh token is unknown or expired; log in again");
        let found = store::login::find_refresh_token(&mut tx, &token_hash)
            .await?
            .ok_or_else(unknown)?;
        let user_id: UserId = found.user_id.parse().map_err(Error::internal)?;
        // A rotation and a revocation of one family never overlap, so a revoked family gets no new token; what counts
        // is what stands there after waiting for the lock.
        store::users::lock(&mut tx, &user_id).await?;
        let row = store::login::find_refresh_token(&mut tx, &token_hash)
            .await?
            .ok_or_else(unknown)?;
        if row.revoked_at.is_some() {
            return Err(Error::unauthorized("this login was revoked; log in again"));
        }
        if row.expires_at <= now {
            return Err(unknown());
        }
        if !store::login::use_refresh_token(&mut tx, &row.id, now).await? {
            store::login::revoke_family(&mut tx, &row.family_id, now).await?;
            self.announce_revocation(&mut tx, Some(user_id.as_str()), None).await?;
            let record = Record::new(context, "login.refresh_reused", &row.family_id)
                .user(&user_id)
                .denied(ErrorCode::Unauthorized);
            self.audit(&mut tx, record).await?;
            tx.commit().await?;
            self.outbox.wake();
            return Err(Error::unauthorized(
                "this refresh token was used before, so the login was ended for safety; log in again",
            ));
        }
        let email = store::users::find(&mut tx, &user_id)
            .await?
            .and_then(|user| user.email)
            .unwrap_or_default();
        let session = self
            .add_session(&mut tx, &signer, &user_id, &row.family_id, email, now)
            .await?;
        tx.commit().await?;
        Ok(session)
    }

    /// The next refresh token of a login, with an access token.
    async fn add_session(
        &self,
        tx: &mut Tx,
        signer: &TokenSigner,
        user_id: &UserId,
        family: &str,
        email: String,
        now: DateTime<Utc>,
    ) -> Result<Session> {
        let refresh_token = self.add_refresh_token(tx, user_id, family, now).await?;
        let (access_token, expires_at) = signer.issue(user_id, family, &email)?;
        Ok(Session {
            access_token,
            refresh_token,
            expires_at,
            user_id: user_id.to_string(),
            email,
        })
    }

    async fn add_refresh_token(
        &self,
        tx: &mut Tx,
        user_id: &UserId,
        family: &str,
        now: DateTime<Utc>,
    ) -> Result<String> {
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let id = format!("rt_{}", ulid::Ulid::generate());
        store::login::insert_refresh_token(
            tx,
            &id,
            user_id,
            family,
            &hash(&token),
            now,
            now + self.auth.refresh_token_ttl,
        )
        .await?;
        Ok(token)
    }

    /// Removes codes and refresh tokens that ended long ago.
    pub(crate) async fn delete_ended_logins(&self) -> Result<()> {
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        store::login::delete_codes_before(&mut tx, now - Duration::days(1)).await?;
        store::login::delete_refresh_tokens_before(&mut tx, now - Duration::days(30)).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Addresses are compared without case.
pub(crate) fn normalise(email: &str) -> Result<String> {
    let email = email.trim().to_lowercase();
    validate::email(&email).map_err(|problem| Error::invalid_field("email", problem))?;
    Ok(email)
}

/// SHA-256 of a secret with 256 random bits; no salt is needed for those.
pub(crate) fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}
