//! From a credential to a caller (`design.md` 9).
//!
//! Three extractors: [`Caller`] for routes of an account, [`SandboxCaller`] for routes under a sandbox, [`AgentCaller`]
//! for the few of them that a key of one agent may call too. A handler that takes none is public, and `route_table` must
//! say so. Rights are checked by the services, which see the verified access in the principal; the gateway only refuses
//! who cannot know of the sandbox at all, and a key of one agent everywhere but where it belongs.

use std::{net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::{ConnectInfo, FromRequestParts};
use copass_errors::{Error, Result};
use copass_proto::{
    convert,
    identity::{AuthenticateRequest, AuthenticateResponse},
};
use copass_runtime::{CallContext, secret::Secret};
use copass_types::{
    ActorKind, AgentKeyKind, AgentKeyScope, Principal, ProjectId, Role, SandboxAccess, SandboxId, UserId,
};
use http::{HeaderMap, header, request::Parts};
use sha2::{Digest as _, Sha256};

use crate::{
    auth_cache::{CacheKey, Verified},
    error::ApiError,
    extract::PathParams,
    observe::RequestId,
    state::App,
};

/// Limit of the call that verifies a credential.
const AUTHENTICATE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an open stream looks whether its caller still has access when nothing says that this changed.
const ACCESS_CHECK_EVERY: Duration = Duration::from_secs(3);
/// How many looks in a row may fail for the server's own reasons before a stream counts as one without access.
const ACCESS_CHECK_FAILURES: usize = 3;
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

/// As [`SandboxCaller`]; may present a key of one agent, whose limits the services keep.
pub(crate) struct AgentCaller(pub(crate) SandboxCaller);

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> std::result::Result<Self, ApiError> {
        let context = authenticate(parts, app, None).await?;
        refuse_agent_key(&context)?;
        Ok(Self { context })
    }
}

impl FromRequestParts<App> for SandboxCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> std::result::Result<Self, ApiError> {
        let AgentCaller(caller) = AgentCaller::from_request_parts(parts, app).await?;
        refuse_agent_key(&caller.context)?;
        Ok(caller)
    }
}

impl FromRequestParts<App> for AgentCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> std::result::Result<Self, ApiError> {
        let params = PathParams::from_request_parts(parts, app).await?;
        let sandbox_id = params.text("sandbox_id").parse::<SandboxId>().ok();
        // A malformed id is an unknown sandbox, but first the caller must be somebody.
        let context = authenticate(parts, app, sandbox_id.clone()).await?;
        match sandbox_id {
            Some(sandbox_id) if context.principal.access.is_some() => Ok(Self(SandboxCaller { context, sandbox_id })),
            _ => Err(Error::not_found("sandbox").into()),
        }
    }
}

fn refuse_agent_key(context: &CallContext) -> Result<()> {
    if context.principal.agent_key.is_none() {
        return Ok(());
    }
    Err(Error::forbidden(
        "a key of one agent can only run that agent and read the runs it started; use a key of your account \
         (`copass apikey create`)",
    ))
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
        None => {
            let context = CallContext::new(Principal::service("gateway", request_id(parts)));
            verify(&with_trace(context, parts), app, credential, &key).await?
        }
    };
    app.limits.check_credential(&key.credential_hash)?;
    let mut principal = verified.principal.clone();
    request_id(parts).clone_into(&mut principal.request_id);
    principal.remote_address = remote_address(parts, app).map(|address| address.to_string());
    Ok(with_trace(CallContext::new(principal), parts).with_timeout(app.config.call_timeout))
}

async fn verify(context: &CallContext, app: &App, credential: &str, key: &CacheKey) -> Result<Arc<Verified>> {
    let context = context.clone().with_timeout(AUTHENTICATE_TIMEOUT);
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

/// The credential of a request whose answer stays open, to ask about again.
pub(crate) struct Presented(Secret);

impl FromRequestParts<App> for Presented {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> std::result::Result<Self, ApiError> {
        Ok(Self(Secret::new(bearer(&parts.headers)?)))
    }
}

impl Presented {
    /// Ends when the caller's access ends or changes: whoever comes again is asked as for the first time. Looks at once
    /// when a revocation arrives, and every few seconds for what nobody tells (a grant that ends by time).
    pub(crate) fn access_ended(self, app: App, caller: &SandboxCaller) -> impl Future<Output = ()> + Send + use<> {
        let key = CacheKey {
            credential_hash: Sha256::digest(self.0.expose()).into(),
            sandbox_id: Some(caller.sandbox_id.clone()),
        };
        let principal = &caller.context.principal;
        let held = Held::of(principal);
        let context = CallContext::new(Principal::service("gateway", &principal.request_id));
        let mut news = app.auth_cache.news();
        async move {
            let mut failures = 0;
            loop {
                // The sender lives as long as `app`, so an error, which would come at once, cannot be.
                let _ = tokio::time::timeout(ACCESS_CHECK_EVERY, news.changed()).await;
                let verified = match app.auth_cache.get(&key) {
                    Some(verified) => Ok(verified),
                    // Boxed: it is there for moments of the stream's life.
                    None => Box::pin(verify(&context, &app, self.0.expose(), &key)).await,
                };
                match verified {
                    Ok(verified) if Held::of(&verified.principal) == held => failures = 0,
                    Err(error) if error.code().http_status().is_server_error() && failures < ACCESS_CHECK_FAILURES => {
                        failures += 1;
                    }
                    _ => return,
                }
            }
        }
    }
}

/// What an open stream was opened with; whether the sandbox is suspended does not matter to a reader.
#[derive(PartialEq)]
struct Held {
    user_id: Option<UserId>,
    agent_key: Option<AgentKeyScope>,
    access: Option<(Role, Option<ProjectId>)>,
}

impl Held {
    fn of(principal: &Principal) -> Self {
        Self {
            user_id: principal.user_id.clone(),
            agent_key: principal.agent_key.clone(),
            access: principal
                .access
                .as_ref()
                .map(|access| (access.role, access.project_id.clone())),
        }
    }
}

fn convert_answer(answer: AuthenticateResponse, asked_for: Option<&SandboxId>) -> Result<Verified> {
    let kind = match answer.kind.as_str() {
        "session" => ActorKind::Session,
        "api_key" => ActorKind::ApiKey,
        "connection_key" => ActorKind::ConnectionKey,
        "agent_key" => ActorKind::AgentKey,
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
    let agent_key = answer.agent_key.map(|key| -> Result<AgentKeyScope> {
        Ok(AgentKeyScope {
            agent_id: key.agent_id.parse().map_err(Error::internal)?,
            kind: match key.kind.as_str() {
                "invoke" => AgentKeyKind::Invoke,
                "delegate" => AgentKeyKind::Delegate,
                other => return Err(Error::internal(format!("unknown kind of agent key: {other}"))),
            },
            has_holder: key.has_holder,
        })
    });
    let agent_key = agent_key.transpose()?;
    let is_limited = agent_key.is_some() && only_sandbox.is_some();
    if (kind == ActorKind::AgentKey) != is_limited || agent_key.is_some() != is_limited {
        return Err(Error::internal("an agent key without its agent or sandbox"));
    }
    let principal = Principal {
        kind,
        agent_key,
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
    use copass_types::{AgentId, ApiKeyId};

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
    fn a_key_of_an_agent_comes_with_its_agent_and_its_sandbox() {
        let (sandbox_id, agent_id) = (SandboxId::generate(), AgentId::generate());
        let user_id = UserId::generate();
        let answer = || AuthenticateResponse {
            kind: "agent_key".to_owned(),
            user_id: user_id.to_string(),
            api_key_id: Some(ApiKeyId::generate().to_string()),
            only_sandbox: Some(sandbox_id.to_string()),
            access: Some(copass_proto::identity::SandboxAccess {
                sandbox_id: sandbox_id.to_string(),
                role: "viewer".to_owned(),
                status: "active".to_owned(),
                owner_user_id: user_id.to_string(),
                project_id: None,
            }),
            agent_key: Some(copass_proto::identity::AgentKeyScope {
                agent_id: agent_id.to_string(),
                kind: "invoke".to_owned(),
                has_holder: false,
            }),
            ..AuthenticateResponse::default()
        };
        let principal = convert_answer(answer(), Some(&sandbox_id)).unwrap().principal;
        let scope = AgentKeyScope {
            agent_id: agent_id.clone(),
            kind: AgentKeyKind::Invoke,
            has_holder: false,
        };
        assert_eq!(
            (principal.kind, principal.agent_key),
            (ActorKind::AgentKey, Some(scope))
        );
        let elsewhere = convert_answer(answer(), Some(&SandboxId::generate()))
            .unwrap()
            .principal;
        assert_eq!(elsewhere.access, None);
        // An answer that lost a limit on the way must not pass for one without it.
        let spoiled: [fn(&mut AuthenticateResponse); 6] = [
            |answer| answer.agent_key = None,
            |answer| answer.only_sandbox = None,
            |answer| answer.kind = "api_key".to_owned(),
            |answer| answer.kind = "agent".to_owned(),
            |answer| answer.agent_key.as_mut().unwrap().kind = "general".to_owned(),
            |answer| answer.agent_key.as_mut().unwrap().agent_id = String::new(),
        ];
        for (position, spoil) in spoiled.into_iter().enumerate() {
            let mut answer = answer();
            spoil(&mut answer);
            assert!(convert_answer(answer, Some(&sandbox_id)).is_err(), "{position}");
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
