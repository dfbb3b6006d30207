//! From a credential to a caller (`design.md` 9).
//!
//! Two extractors: [`Caller`] for routes of an account, [`SandboxCaller`] for routes under a sandbox. A handler that
//! takes neither is public, and `route_table` must say so. Rights are checked by the services, which see the
//! verified access in the principal; the gateway only refuses who cannot know of the sandbox at all.

use std::{net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::{ConnectInfo, FromRequestParts, RawPathParams};
use copass_errors::{Error, Result};
use copass_proto::{
    convert,
    identity::{AuthenticateRequest, AuthenticateResponse},
};
use copass_runtime::CallContext;
use copass_types::{ActorKind, Principal, SandboxAccess, SandboxId};
use http::{HeaderMap, header, request::Parts};
use sha2::{Digest as _, Sha256};

use crate::{
    auth_cache::{CacheKey, Verified},
    error::ApiError,
    observe::RequestId,
    state::App,
};

/// Limit of the call that verifies a credential.
const AUTHENTICATE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest credential; access tokens are the longest ones and stay far below.
const CREDENTIAL_MAX_BYTES: usize = 4096;
const HOW_TO_AUTHENTICATE: &str =
    "send `Authorization: Bearer <API key or access token>`; make a key with `copass apikey create`";

/// A verified caller.
pub(crate) struct Caller {
    pub(crate) context: CallContext,
}

/// A verified caller who may know of the sandbox in the path.
pub(crate) struct SandboxCaller {
    pub(crate) context: CallContext,
    pub(crate) sandbox_id: SandboxId,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> std::result::Result<Self, ApiError> {
        let context = authenticate(parts, app, None).await?;
        Ok(Self { context })
    }
}

impl FromRequestParts<App> for SandboxCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> std::result::Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, app).await.ok();
        let sandbox_id = params
            .as_ref()
            .and_then(|params| params.iter().find(|(name, _)| *name == "sandbox_id"))
            .and_then(|(_, text)| text.parse::<SandboxId>().ok());
        // A malformed id is an unknown sandbox, but first the caller must be somebody.
        let context = authenticate(parts, app, sandbox_id.clone()).await?;
        match sandbox_id {
            Some(sandbox_id) if context.principal.access.is_some() => Ok(Self { context, sandbox_id }),
            _ => Err(Error::not_found("sandbox").into()),
        }
    }
}

impl Caller {
    /// The caller's own id; every credential that a client can present belongs to a person.
    pub(crate) fn user_id(&self) -> &str {
        self.context.principal.user_id.as_ref().map_or("", |id| id.as_str())
    }
}

/// The context of a call that nobody is authenticated for: login.
pub(crate) fn anonymous(parts: &Parts, app: &App) -> CallContext {
    let mut principal = Principal::service("gateway", request_id(parts));
    principal.remote_address = remote_address(parts, app).map(|address| address.to_string());
    with_trace(CallContext::new(principal), parts).with_timeout(app.config.call_timeout)
}

/// Where the request came from: the peer, or what the trusted proxies in front say.
pub(crate) fn remote_address(parts: &Parts, app: &App) -> Option<IpAddr> {
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let hops = app.config.trusted_proxy_hops;
    if hops == 0 {
        return peer;
    }
    // Each proxy appends the address it saw, so counting from the right reaches what a trusted one wrote.
    parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .rev()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.rsplit(','))
        .nth(hops - 1)
        .and_then(|text| text.trim().parse().ok())
        .or(peer)
}

async fn authenticate(parts: &Parts, app: &App, sandbox_id: Option<SandboxId>) -> Result<CallContext> {
    let credential = bearer(&parts.headers)?;
    let key = CacheKey {
        credential_hash: Sha256::digest(credential).into(),
        sandbox_id,
    };
    let verified = match app.auth_cache.get(&key) {
        Some(verified) => verified,
        None => verify(parts, app, credential, &key).await?,
    };
    app.limits.check_credential(&key.credential_hash)?;
    let mut principal = verified.principal.clone();
    request_id(parts).clone_into(&mut principal.request_id);
    principal.remote_address = remote_address(parts, app).map(|address| address.to_string());
    Ok(with_trace(CallContext::new(principal), parts).with_timeout(app.config.call_timeout))
}

async fn verify(parts: &Parts, app: &App, credential: &str, key: &CacheKey) -> Result<Arc<Verified>> {
    let context = CallContext::new(Principal::service("gateway", request_id(parts)));
    let context = with_trace(context, parts).with_timeout(AUTHENTICATE_TIMEOUT);
    let question = AuthenticateRequest {
        credential: credential.to_owned(),
        sandbox_id: key.sandbox_id.as_ref().map(ToString::to_string),
    };
    let asked_at = app.auth_cache.now();
    let answer = app
        .identity()
        .authenticate(context.request(question))
        .await?
        .into_inner();
    let verified = Arc::new(convert_answer(answer, key.sandbox_id.as_ref())?);
    // Access that is not there may be there in a moment (a grant, a new sandbox): refusals are not remembered.
    if key.sandbox_id.is_none() || verified.principal.access.is_some() {
        app.auth_cache.put(key.clone(), verified.clone(), asked_at);
    }
    Ok(verified)
}

fn convert_answer(answer: AuthenticateResponse, asked_for: Option<&SandboxId>) -> Result<Verified> {
    let kind = match answer.kind.as_str() {
        "session" => ActorKind::Session,
        "api_key" => ActorKind::ApiKey,
        "connection_key" => ActorKind::ConnectionKey,
        other => return Err(Error::internal(format!("unknown kind of credential: {other}"))),
    };
    let access = answer.access.map(|access| -> Result<SandboxAccess> {
        Ok(SandboxAccess {
            sandbox_id: access.sandbox_id.parse().map_err(Error::internal)?,
            role: access.role.parse().map_err(Error::internal)?,
            status: access.status,
            owner_user_id: access.owner_user_id.parse().map_err(Error::internal)?,
            project_id: access
                .project_id
                .map(|id| id.parse().map_err(Error::internal))
                .transpose()?,
        })
    });
    let access = access
        .transpose()?
        .filter(|access| Some(&access.sandbox_id) == asked_for);
    let only_sandbox: Option<SandboxId> = answer
        .only_sandbox
        .map(|id| id.parse().map_err(Error::internal))
        .transpose()?;
    let principal = Principal {
        kind,
        user_id: Some(answer.user_id.parse().map_err(Error::internal)?),
        api_key_id: answer
            .api_key_id
            .map(|id| id.parse().map_err(Error::internal))
            .transpose()?,
        connection_id: answer
            .connection_id
            .map(|id| id.parse().map_err(Error::internal))
            .transpose()?,
        access: access.filter(|access| only_sandbox.as_ref().is_none_or(|only| *only == access.sandbox_id)),
        only_sandbox,
        run_id: None,
        via: vec!["gateway".to_owned()],
        request_id: String::new(),
        remote_address: None,
    };
    Ok(Verified {
        principal,
        expires_at: answer.expires_at.as_ref().and_then(convert::instant),
    })
}

/// The credential of the request, checked for shape only. It is never logged.
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) => return Err(Error::unauthorized(format!("no credential: {HOW_TO_AUTHENTICATE}"))),
        (Some(_), Some(_)) => {
            return Err(Error::unauthorized(format!(
                "more than one Authorization header: {HOW_TO_AUTHENTICATE}"
            )));
        }
    };
    let malformed = || Error::unauthorized(format!("malformed credential: {HOW_TO_AUTHENTICATE}"));
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, credential) = text.split_once(' ').ok_or_else(malformed)?;
    let credential = credential.trim_matches(' ');
    let known_form = credential.starts_with("olk_") || credential.bytes().filter(|byte| *byte == b'.').count() == 2;
    let well_formed = scheme.eq_ignore_ascii_case("bearer")
        && known_form
        && credential.len() <= CREDENTIAL_MAX_BYTES
        && credential.bytes().all(|byte| byte.is_ascii_graphic());
    if well_formed { Ok(credential) } else { Err(malformed()) }
}

fn request_id(parts: &Parts) -> &str {
    parts.extensions.get::<RequestId>().map_or("", RequestId::as_str)
}

/// Continues the caller's trace when the header has the form of W3C trace context.
fn with_trace(mut context: CallContext, parts: &Parts) -> CallContext {
    context.traceparent = parts
        .headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .filter(|text| is_traceparent(text))
        .map(str::to_owned);
    context
}

fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 55
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            2 | 35 | 52 => *byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (header::AUTHORIZATION, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn credentials_are_checked_for_shape() {
        assert_eq!(bearer(&headers(&["Bearer olk_abc"])).unwrap(), "olk_abc");
        assert_eq!(bearer(&headers(&["bearer  a.b.c "])).unwrap(), "a.b.c");
        let long = format!("Bearer olk_{}", "a".repeat(5000));
        let bad: [&[&str]; 8] = [
            &[],
            &["olk_abc"],
            &["Basic olk_abc"],
            &["Bearer "],
            &["Bearer abc"],
            &["Bearer olk_a b"],
            &["Bearer olk_a", "Bearer olk_a"],
            &[&long],
        ];
        for values in bad {
            let error = bearer(&headers(values)).unwrap_err();
            assert!(error.detail().contains("Authorization: Bearer"), "{values:?}");
            assert!(!error.detail().contains("olk_a"), "the credential must not come back");
        }
    }

    #[test]
    fn only_well_formed_traces_are_continued() {
        assert!(is_traceparent(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ));
        assert!(!is_traceparent(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
        ));
        assert!(!is_traceparent(
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"
        ));
    }
}
