//! Login (`rest.md` 1). Public; an `apikey` header is ignored.

use axum::{Json, extract::State};
use copass_errors::{Error, FieldProblem};
use copass_proto::identity::{RefreshSessionRequest, SendLoginCodeRequest, VerifyLoginCodeRequest};
use copass_types::api::{Empty, OtpRequest, RefreshRequest, Session, TokenQuery, VerifyRequest};
use http::request::Parts;

use crate::{
    auth::{anonymous, remote_address},
    error::ApiResult,
    extract::{JsonBody, Query},
    state::App,
    views,
};

/// Sends a one-time code; answers alike for known and unknown addresses.
#[utoipa::path(post, path = "/auth/v1/otp", tag = "auth", operation_id = "code_send", request_body = OtpRequest,
    responses((status = 200, description = "Sent, if the address may log in", body = Empty)))]
pub(super) async fn code_send(
    State(app): State<App>,
    parts: Parts,
    JsonBody(body): JsonBody<OtpRequest>,
) -> ApiResult<Json<Empty>> {
    app.limits.check_login(remote_address(&parts, &app))?;
    app.limits.check_code(&body.email)?;
    let request = SendLoginCodeRequest { email: body.email };
    app.identity()
        .send_login_code(anonymous(&parts, &app).request(request))
        .await?;
    Ok(Json(Empty {}))
}

/// Exchanges a code for a session.
#[utoipa::path(post, path = "/auth/v1/verify", tag = "auth", operation_id = "code_verify", request_body = VerifyRequest,
    responses((status = 200, description = "Logged in", body = Session)))]
pub(super) async fn code_verify(
    State(app): State<App>,
    parts: Parts,
    JsonBody(body): JsonBody<VerifyRequest>,
) -> ApiResult<Json<Session>> {
    app.limits.check_login(remote_address(&parts, &app))?;
    if body.kind.as_deref().is_some_and(|kind| kind != "email") {
        return Err(Error::invalid_field("type", "must be 'email', the only kind of code this server sends").into());
    }
    app.limits.check_attempt(&body.email)?;
    let request = VerifyLoginCodeRequest {
        email: body.email,
        code: body.token,
    };
    let session = app
        .identity()
        .verify_login_code(anonymous(&parts, &app).request(request))
        .await?;
    Ok(Json(views::identity::session(session.into_inner())))
}

/// Rotates the refresh token.
#[utoipa::path(post, path = "/auth/v1/token", tag = "auth", operation_id = "session_refresh", params(TokenQuery),
    request_body = RefreshRequest, responses((status = 200, description = "A new session", body = Session)))]
pub(super) async fn session_refresh(
    State(app): State<App>,
    parts: Parts,
    mut query: Query,
    JsonBody(body): JsonBody<RefreshRequest>,
) -> ApiResult<Json<Session>> {
    app.limits.check_login(remote_address(&parts, &app))?;
    if query.text("grant_type").as_deref() != Some("refresh_token") {
        let problem = FieldProblem::query("grant_type", "must be 'refresh_token'; log in with /auth/v1/otp");
        return Err(Error::invalid(vec![problem]).into());
    }
    let request = RefreshSessionRequest {
        refresh_token: body.refresh_token,
    };
    let session = app
        .identity()
        .refresh_session(anonymous(&parts, &app).request(request))
        .await?;
    Ok(Json(views::identity::session(session.into_inner())))
}
