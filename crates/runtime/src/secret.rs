//! Secrets that cannot be logged, and their sealing at rest (`design.md` 9).

use std::fmt;

use aes_gcm::{
    Aes256Gcm, Key, Nonce,
    aead::{Aead, KeyInit, Payload},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Text that never appears in `Debug` output or logs; reading it is explicit.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself. Use it at the point of use only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<secret>")
    }
}

/// The sealed text is damaged, or sealed under a key that is not configured, or for another purpose.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// No configured key has this id.
    #[error("sealed under the key {0}, which is not configured")]
    UnknownKey(String),
    /// The text is not what `seal` made.
    #[error("sealed text is damaged or was sealed for another purpose")]
    Damaged,
}

/// A master key is malformed.
#[derive(Debug, thiserror::Error)]
#[error("a master key must be 32 bytes in base64 (make one with `openssl rand -base64 32`)")]
pub struct InvalidMasterKey;

/// The keys that seal secrets at rest, AES-256-GCM: the first one seals, all of them open, so a key can be rotated.
#[derive(Clone)]
pub struct MasterKey {
    keys: Vec<(String, Zeroizing<[u8; 32]>)>,
}

impl MasterKey {
    /// Reads keys from base64 text, newest first.
    ///
    /// # Errors
    /// A key is not 32 bytes of base64, or there is none.
    pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidMasterKey> {
        let keys = keys
            .into_iter()
            .map(|text| {
                let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim()).map_err(|_| InvalidMasterKey)?);
                let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| InvalidMasterKey)?;
                Ok((key_id(&key), Zeroizing::new(key)))
            })
            .collect::<Result<Vec<_>, InvalidMasterKey>>()?;
        if keys.is_empty() {
            Err(InvalidMasterKey)
        } else {
            Ok(Self { keys })
        }
    }

    /// New random key as base64 text, for a first start.
    #[must_use]
    pub fn generate_text() -> String {
        BASE64_STANDARD.encode(rand::random::<[u8; 32]>())
    }

    /// Seals bytes for a purpose (bound as additional data): `<key id>.<base64 of nonce and ciphertext>`.
    ///
    /// # Errors
    /// The cipher refuses (only for inputs of many gigabytes).
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<String, UnsealError> {
        let (id, key) = self.keys.first().ok_or(UnsealError::Damaged)?;
        let nonce: [u8; 12] = rand::random();
        let sealed = cipher(key)
            .encrypt(
                &Nonce::from(nonce),
                Payload {
                    msg: plain,
                    aad: purpose.as_bytes(),
                },
            )
            .map_err(|_| UnsealError::Damaged)?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        Ok(format!("{id}.{}", BASE64_STANDARD.encode(bytes)))
    }

    /// Opens what [`Self::seal`] made for the same purpose.
    ///
    /// # Errors
    /// Unknown key id, damage, or another purpose.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let (id, text) = sealed.split_once('.').ok_or(UnsealError::Damaged)?;
        let (_, key) = self
            .keys
            .iter()
            .find(|(key_id, _)| key_id == id)
            .ok_or_else(|| UnsealError::UnknownKey(id.to_owned()))?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| UnsealError::Damaged)?;
        let (nonce, sealed) = bytes.split_first_chunk::<12>().ok_or(UnsealError::Damaged)?;
        cipher(key)
            .decrypt(
                &Nonce::from(*nonce),
                Payload {
                    msg: sealed,
                    aad: purpose.as_bytes(),
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| UnsealError::Damaged)
    }

    /// A key derived from the newest master key for one purpose, for example to sign internal tokens.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        derive(purpose, self.keys.first().map_or(&[], |(_, key)| key.as_slice()))
    }

    /// The key derived from each master key, newest first: what one of them signed is still good while keys rotate.
    pub fn derive_all(&self, purpose: &str) -> impl Iterator<Item = Zeroizing<[u8; 32]>> + '_ {
        let purpose = purpose.to_owned();
        self.keys.iter().map(move |(_, key)| derive(&purpose, key.as_slice()))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.keys.iter().map(|(id, _)| id))
            .finish()
    }
}

fn derive(purpose: &str, key: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut hasher = Sha256::new();
    hasher.update(b"copass derive v1\0");
    hasher.update(purpose.as_bytes());
    hasher.update([0]);
    hasher.update(key);
    Zeroizing::new(hasher.finalize().into())
}

fn cipher(key: &Zeroizing<[u8; 32]>) -> Aes256Gcm {
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(**key))
}

fn key_id(key: &[u8; 32]) -> String {
    hex::encode(&Sha256::digest(key)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_text_opens_with_the_same_key_and_purpose_only() {
        let (old, new) = (MasterKey::generate_text(), MasterKey::generate_text());
        let before = MasterKey::parse([old.as_str()]).unwrap();
        let sealed = before.seal("mcp", b"token").unwrap();
        let rotated = MasterKey::parse([new.as_str(), old.as_str()]).unwrap();
        assert_eq!(rotated.open("mcp", &sealed).unwrap().as_slice(), b"token");
        assert!(rotated.open("other", &sealed).is_err());
        assert!(matches!(
            MasterKey::parse([new.as_str()]).unwrap().open("mcp", &sealed),
            Err(UnsealError::UnknownKey(_))
        ));
        let mut damaged = sealed.clone();
        damaged.replace_range(damaged.len() - 6..damaged.len() - 5, "A");
        let damaged_differs = damaged != sealed;
        assert!(!damaged_differs || before.open("mcp", &damaged).is_err());
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        let key = MasterKey::generate_text();
        assert!(!format!("{:?}", MasterKey::parse([key.as_str()]).unwrap()).contains(&key));
    }

    #[test]
    fn bad_master_keys_are_refused() {
        assert!(MasterKey::parse(["short"]).is_err());
        assert!(MasterKey::parse([]).is_err());
    }
}
