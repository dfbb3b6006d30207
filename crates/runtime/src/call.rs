//! The context of one internal call: who, under which trace, until when; and the token that proves it (`design.md` 9).
//!
//! The gateway verifies a credential once and builds a [`CallContext`]. Each client call puts the context into the
//! request; the client layer signs it into a token that lives for seconds; the server layer verifies the token and puts
//! the context back. Services never read a header they did not verify.

use std::time::{Duration, Instant};

use copass_errors::{Error, Result};
use copass_types::Principal;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{clock, secret::MasterKey};

/// How long an internal token is good for.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// Deadline of an internal call that names none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(15);

/// Who calls, under which trace, until when.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// The verified caller.
    pub principal: Principal,
    /// The W3C `traceparent` that the call continues, when one came.
    pub traceparent: Option<String>,
    /// When the caller stops waiting for the first answer.
    pub deadline: Option<Instant>,
}

impl CallContext {
    /// A context for the principal.
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self {
            principal,
            traceparent: None,
            deadline: None,
        }
    }

    /// A service acting for itself.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self::new(Principal::service(name, &format!("req_{}", ulid::Ulid::generate())))
    }

    /// The same context with a time limit from now on.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Some(Instant::now() + timeout);
        self
    }

    /// A request that carries this context.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(self.clone());
        request
    }

    /// The context of a request that came through the server layer.
    ///
    /// # Errors
    /// `unauthorized` when the request did not come through the layer or carried no token.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::unauthorized("this internal interface needs a signed principal"))
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    exp: i64,
    #[serde(flatten)]
    principal: Principal,
}

const PURPOSE: &str = "internal principal token";

/// Signs and verifies internal tokens (HS256 under a key that all services of one deployment share).
///
/// The newest master key signs and each one verifies, so keys rotate without an outage: first `[old, new]` on every
/// service, then `[new, old]`, then `[new]`.
#[derive(Clone)]
pub struct Signer {
    encoding: EncodingKey,
    decoding: Vec<DecodingKey>,
    validation: Validation,
}

impl Signer {
    /// A signer under a key derived from the master key.
    #[must_use]
    pub fn new(master_key: &MasterKey) -> Self {
        let key = master_key.derive(PURPOSE);
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp"]);
        validation.leeway = 5;
        Self {
            encoding: EncodingKey::from_secret(key.as_slice()),
            decoding: master_key
                .derive_all(PURPOSE)
                .map(|key| DecodingKey::from_secret(key.as_slice()))
                .collect(),
            validation,
        }
    }

    /// A token for the principal.
    ///
    /// # Errors
    /// `internal_error` when the claims cannot be encoded.
    pub fn sign(&self, principal: &Principal) -> Result<String> {
        let exp = clock::now().timestamp() + i64::try_from(TOKEN_LIFETIME.as_secs()).unwrap_or(60);
        let claims = Claims {
            exp,
            principal: principal.clone(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).map_err(Error::internal)
    }

    /// The principal of a token that this deployment signed and that has not expired.
    ///
    /// # Errors
    /// `unauthorized` otherwise.
    pub fn verify(&self, token: &str) -> Result<Principal> {
        self.decoding
            .iter()
            .find_map(|key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok())
            .map(|data| data.claims.principal)
            .ok_or_else(|| Error::unauthorized("the internal token is not valid"))
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Signer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(&MasterKey::parse([MasterKey::generate_text().as_str()]).unwrap())
    }

    #[test]
    fn a_token_of_another_deployment_is_refused() {
        let principal = Principal::service("gateway", "req_1");
        let token = signer().sign(&principal).unwrap();
        assert!(signer().verify(&token).is_err());
        let mine = signer();
        assert_eq!(mine.verify(&mine.sign(&principal).unwrap()).unwrap(), principal);
    }

    #[test]
    fn keys_rotate_one_service_after_the_other() {
        let (old, new) = (MasterKey::generate_text(), MasterKey::generate_text());
        let signer = |keys: &[&str]| Signer::new(&MasterKey::parse(keys.iter().copied()).unwrap());
        let (before, between) = (signer(&[&old, &new]), signer(&[&new, &old]));
        let principal = Principal::service("gateway", "req_1");
        assert!(between.verify(&before.sign(&principal).unwrap()).is_ok());
        assert!(before.verify(&between.sign(&principal).unwrap()).is_ok());
        assert!(signer(&[&new]).verify(&before.sign(&principal).unwrap()).is_err());
    }

    #[test]
    fn an_altered_or_expired_token_is_refused() {
        let mine = signer();
        let principal = Principal::service("gateway", "req_1");
        let token = mine.sign(&principal).unwrap();
        assert!(mine.verify(&format!("{token}x")).is_err());
        let expired = Claims {
            exp: clock::now().timestamp() - 60,
            principal,
        };
        let expired = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &expired, &mine.encoding).unwrap();
        assert!(mine.verify(&expired).is_err());
        assert!(mine.verify("").is_err());
    }
}
