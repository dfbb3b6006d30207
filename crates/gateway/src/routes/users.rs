//! Profile and handle (`rest.md` 2).

use axum::{Json, extract::State};
use copass_proto::identity::{
    CreateProfileRequest, DeleteHandleRequest, GetHandleRequest, GetProfileRequest, SetHandleRequest,
};
use copass_types::api::{Handle, HandleRequest, ProfileRequest, UserProfile};
use http::StatusCode;

use crate::{auth::Caller, error::ApiResult, extract::JsonBody, state::App, views};

/// Makes the profile, or renames it.
#[utoipa::path(post, path = "/users/me/profile", tag = "users", operation_id = "profile_create",
    request_body = ProfileRequest, security(("bearer" = [])),
    responses((status = 201, description = "The profile", body = UserProfile)))]
pub(super) async fn profile_create(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<ProfileRequest>,
) -> ApiResult<(StatusCode, Json<UserProfile>)> {
    let request = CreateProfileRequest {
        display_name: body.display_name,
        canonical_id: body.canonical_id,
    };
    let profile = app.identity().create_profile(caller.context.request(request)).await?;
    // The first call makes a sandbox, which what is remembered of the caller does not know.
    app.auth_cache.invalidate_user(caller.user_id());
    Ok((
        StatusCode::CREATED,
        Json(views::identity::profile(profile.into_inner())?),
    ))
}

/// The profile; 404 when none was made yet.
#[utoipa::path(get, path = "/users/me/profile", tag = "users", operation_id = "profile_get", security(("bearer" = [])),
    responses((status = 200, description = "The profile", body = UserProfile)))]
pub(super) async fn profile_get(State(app): State<App>, caller: Caller) -> ApiResult<Json<UserProfile>> {
    let profile = app
        .identity()
        .get_profile(caller.context.request(GetProfileRequest {}))
        .await?;
    Ok(Json(views::identity::profile(profile.into_inner())?))
}

/// The handle.
#[utoipa::path(get, path = "/users/me/handle", tag = "users", operation_id = "handle_get", security(("bearer" = [])),
    responses((status = 200, description = "The handle, null when none is claimed", body = Handle)))]
pub(super) async fn handle_get(State(app): State<App>, caller: Caller) -> ApiResult<Json<Handle>> {
    let handle = app
        .identity()
        .get_handle(caller.context.request(GetHandleRequest {}))
        .await?;
    Ok(Json(views::identity::handle(handle.into_inner())))
}

/// Claims a handle.
#[utoipa::path(put, path = "/users/me/handle", tag = "users", operation_id = "handle_set", request_body = HandleRequest,
    security(("bearer" = [])), responses((status = 200, description = "The handle", body = Handle)))]
pub(super) async fn handle_set(
    State(app): State<App>,
    caller: Caller,
    JsonBody(body): JsonBody<HandleRequest>,
) -> ApiResult<Json<Handle>> {
    let request = SetHandleRequest {
        copass_id: body.copass_id,
    };
    let handle = app.identity().set_handle(caller.context.request(request)).await?;
    Ok(Json(views::identity::handle(handle.into_inner())))
}

/// Gives the handle up.
#[utoipa::path(delete, path = "/users/me/handle", tag = "users", operation_id = "handle_delete",
    security(("bearer" = [])), responses((status = 200, description = "No handle any longer", body = Handle)))]
pub(super) async fn handle_delete(State(app): State<App>, caller: Caller) -> ApiResult<Json<Handle>> {
    let handle = app
        .identity()
        .delete_handle(caller.context.request(DeleteHandleRequest {}))
        .await?;
    Ok(Json(views::identity::handle(handle.into_inner())))
}
