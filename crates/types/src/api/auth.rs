//! Login (`rest.md` 1).

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An object without fields: `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Empty {}

/// 1.1: asks for a one-time code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OtpRequest {
    /// Where the code goes.
    pub email: String,
}

/// 1.2: exchanges the code for a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyRequest {
    /// The address that the code was sent to.
    pub email: String,
    /// The six digits.
    pub token: String,
    /// `email`; other values are not offered.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// 1.3: the query of the token route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TokenQuery {
    /// `refresh_token`.
    pub grant_type: Option<String>,
}

/// 1.3: rotates the refresh token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefreshRequest {
    /// The newest refresh token; it is used up.
    pub refresh_token: String,
}

/// A logged-in session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// A JWT whose `sub` is the user's id.
    pub access_token: String,
    /// `bearer`.
    #[serde(default)]
    pub token_type: String,
    /// Good for one refresh.
    pub refresh_token: String,
    /// Seconds until the access token ends.
    pub expires_in: u64,
    /// The same as epoch seconds.
    pub expires_at: Option<i64>,
    /// Who logged in.
    pub user: SessionUser,
}

/// The person of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionUser {
    /// The user's id.
    pub id: String,
    /// The address that was verified.
    pub email: Option<String>,
    /// Always null here.
    pub phone: Option<String>,
}

redacted_debug!(VerifyRequest, RefreshRequest, Session);
