//! Login (`rest.md` 1) and the two health routes.

use copass_types::api::{Health, OtpRequest, ReadinessReport, RefreshRequest, Session, TokenQuery, VerifyRequest};
use reqwest::{Method, header::HeaderValue};
use serde_json::Value;

use crate::{Client, Reply, Result, call::Call};

/// The login routes ask for the key of a hosted service's anonymous client; ours takes any.
const ANONYMOUS_KEY: HeaderValue = HeaderValue::from_static("copass-cli");

#[allow(clippy::missing_errors_doc, reason = "the module says once how every method fails")]
impl Client {
    /// `POST /auth/v1/otp`: sends a one-time code to the address.
    pub async fn request_code(&self, email: &str) -> Result<Reply<Value>> {
        let body = OtpRequest {
            email: email.to_owned(),
        };
        let call = Call::plain(self, Method::POST, &["auth", "v1", "otp"])?.header("apikey", ANONYMOUS_KEY);
        self.send(call.json(&body)?).await
    }

    /// `POST /auth/v1/verify`: exchanges the code for a session.
    pub async fn verify_code(&self, email: &str, code: &str) -> Result<Reply<Session>> {
        let body = VerifyRequest {
            email: email.to_owned(),
            token: code.to_owned(),
            kind: Some("email".to_owned()),
        };
        let call = Call::plain(self, Method::POST, &["auth", "v1", "verify"])?.header("apikey", ANONYMOUS_KEY);
        self.send(call.json(&body)?).await
    }

    /// `POST /auth/v1/token?grant_type=refresh_token`: a new session; the old refresh token is used up.
    pub async fn refresh_session(&self, refresh_token: &str) -> Result<Reply<Session>> {
        let body = RefreshRequest {
            refresh_token: refresh_token.to_owned(),
        };
        let call = Call::plain(self, Method::POST, &["auth", "v1", "token"])?
            .header("apikey", ANONYMOUS_KEY)
            .query(&TokenQuery {
                grant_type: Some("refresh_token".to_owned()),
            })?;
        self.send(call.json(&body)?).await
    }

    /// `GET /healthz`: the process answers.
    pub async fn health(&self) -> Result<Reply<Health>> {
        self.send(Call::plain(self, Method::GET, &["healthz"])?).await
    }

    /// `GET /readyz`: every dependency is usable; not ready is an error with status 503.
    pub async fn readiness(&self) -> Result<Reply<ReadinessReport>> {
        self.send(Call::plain(self, Method::GET, &["readyz"])?).await
    }
}
