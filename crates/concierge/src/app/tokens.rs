//! Access tokens: EdDSA JWTs under keys that rotate (`rest.md` 1).
//!
//! Keys live in the database, the private half sealed. The newest signs; older ones verify until the last token they
//! signed has ended, then they are retired.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use copass_errors::{Error, Result};
use copass_runtime::{MasterKey, clock, config::Auth};
use copass_store::Db;
use copass_types::UserId;
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::store::login::{self, SigningKeyRow};

const ISSUER: &str = "copass";
const SEAL_PURPOSE: &str = "signing key";
/// A token with an unknown key id makes us look for new keys, at most this often.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// What an access token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: UserId,
    pub(crate) iss: String,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    /// The login it belongs to: a family of refresh tokens.
    pub(crate) sid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
}

struct LoadedKey {
    id: String,
    created_at: DateTime<Utc>,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Default)]
struct KeySet {
    /// Newest first.
    keys: Vec<Arc<LoadedKey>>,
    loaded_at: Option<DateTime<Utc>>,
}

pub(crate) struct Tokens {
    db: Db,
    master_key: MasterKey,
    access_ttl: Duration,
    rotation: Duration,
    keys: RwLock<KeySet>,
    making: tokio::sync::Mutex<()>,
}

/// Signs tokens under one key.
pub(crate) struct TokenSigner {
    key: Arc<LoadedKey>,
    access_ttl: Duration,
}

impl TokenSigner {
    /// A token for the person's login; returns it with the instant at which it ends.
    pub(crate) fn issue(&self, user: &UserId, family: &str, email: &str) -> Result<(String, DateTime<Utc>)> {
        let now = clock::now();
        let expires_at = now + self.access_ttl;
        let claims = Claims {
            sub: user.clone(),
            iss: ISSUER.to_owned(),
            iat: now.timestamp(),
            exp: expires_at.timestamp(),
            sid: family.to_owned(),
            email: Some(email.to_owned()),
        };
        let header = Header {
            kid: Some(self.key.id.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let token = jsonwebtoken::encode(&header, &claims, &self.key.encoding).map_err(Error::internal)?;
        Ok((token, expires_at))
    }
}

impl Tokens {
    pub(crate) fn new(db: Db, master_key: MasterKey, config: &Auth) -> Self {
        Self {
            db,
            master_key,
            access_ttl: config.access_token_ttl,
            rotation: config.signing_key_rotation,
            keys: RwLock::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// What signs tokens now. Fetched before a login is written, so that nothing can fail after it was.
    pub(crate) async fn signer(&self) -> Result<TokenSigner> {
        Ok(TokenSigner {
            key: self.signing_key().await?,
            access_ttl: self.access_ttl,
        })
    }

    /// The claims of a token that one of our keys signed and that has not ended.
    pub(crate) async fn verify(&self, token: &str) -> Result<Claims> {
        let malformed =
            || Error::unauthorized("the credential is neither an API key (olk_…) nor an access token of this server");
        let header = jsonwebtoken::decode_header(token).map_err(|_| malformed())?;
        if header.alg != Algorithm::EdDSA {
            return Err(malformed());
        }
        let kid = header.kid.ok_or_else(malformed)?;
        let key = self.verifying_key(&kid).await?.ok_or_else(malformed)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "sub", "iss"]);
        // Checked below: the library takes a token for good in the very second of its end.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation)
            .map_err(|_| malformed())?
            .claims;
        if claims.exp <= clock::now().timestamp() {
            return Err(Error::unauthorized(
                "the access token has expired; refresh it or log in again",
            ));
        }
        Ok(claims)
    }

    /// Retires keys whose last token has ended, and forgets those that were retired elsewhere.
    pub(crate) async fn retire_old_keys(&self) -> Result<()> {
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        login::retire_signing_keys_before(&mut tx, now - self.rotation - self.access_ttl - self.access_ttl, now)
            .await?;
        tx.commit().await?;
        self.reload().await
    }

    async fn signing_key(&self) -> Result<Arc<LoadedKey>> {
        let now = clock::now();
        let fresh = |key: &Arc<LoadedKey>| key.created_at + self.rotation > now;
        if let Some(key) = self.keys.read().keys.first().filter(|key| fresh(key)) {
            return Ok(key.clone());
        }
        // One at a time: logins at the moment of a rotation make one key, not one each.
        let _making = self.making.lock().await;
        self.reload().await?;
        if let Some(key) = self.keys.read().keys.first().filter(|key| fresh(key)) {
            return Ok(key.clone());
        }
        self.add_key().await?;
        self.reload().await?;
        self.keys
            .read()
            .keys
            .first()
            .cloned()
            .ok_or_else(|| Error::internal("no signing key after making one"))
    }

    async fn verifying_key(&self, kid: &str) -> Result<Option<Arc<LoadedKey>>> {
        let find = |set: &KeySet| set.keys.iter().find(|key| key.id == kid).cloned();
        let (found, loaded_at) = {
            let set = self.keys.read();
            (find(&set), set.loaded_at)
        };
        if found.is_some() || loaded_at.is_some_and(|at| clock::now() < at + RELOAD_INTERVAL) {
            return Ok(found);
        }
        self.reload().await?;
        Ok(find(&self.keys.read()))
    }

    async fn add_key(&self) -> Result<()> {
        let key = SigningKey::from_bytes(&rand::random::<[u8; 32]>());
        let document = key.to_pkcs8_der().map_err(|error| Error::internal(error.to_string()))?;
        let row = SigningKeyRow {
            id: format!("sk_{}", ulid::Ulid::generate()),
            sealed_private_key: self
                .master_key
                .seal(SEAL_PURPOSE, document.as_bytes())
                .map_err(Error::internal)?,
            public_key: BASE64_URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes()),
            created_at: clock::now(),
        };
        let mut tx = self.db.begin().await?;
        login::insert_signing_key(&mut tx, &row).await?;
        tx.commit().await?;
        tracing::info!(key.id = row.id, "made a new signing key");
        Ok(())
    }

    async fn reload(&self) -> Result<()> {
        let mut conn = self.db.read().await?;
        let rows = login::list_signing_keys(&mut conn).await?;
        drop(conn);
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let private = match self.master_key.open(SEAL_PURPOSE, &row.sealed_private_key) {
                Ok(private) => private,
                Err(error) => {
                    // A key sealed under a master key that is gone cannot sign; its tokens end by themselves.
                    tracing::error!(key.id = row.id, %error, "a signing key cannot be opened");
                    continue;
                }
            };
            keys.push(Arc::new(LoadedKey {
                id: row.id,
                created_at: row.created_at,
                encoding: EncodingKey::from_ed_der(&private),
                decoding: DecodingKey::from_ed_components(&row.public_key).map_err(Error::internal)?,
            }));
        }
        *self.keys.write() = KeySet {
            keys,
            loaded_at: Some(clock::now()),
        };
        Ok(())
    }
}
