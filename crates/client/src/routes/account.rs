//! Profile, handle and API keys (`rest.md` 2 and 3).

use copass_types::api::{
    ApiKey, CreateApiKeyRequest, CreatedApiKey, Handle, HandleRequest, ListApiKeysQuery, ProfileRequest, RevokedApiKey,
    UserProfile,
};
use reqwest::Method;
use serde_json::Value;

use crate::{Client, Reply, Result, call::Call};

const PROFILE: [&str; 3] = ["users", "me", "profile"];
const HANDLE: [&str; 3] = ["users", "me", "handle"];

#[allow(clippy::missing_errors_doc, reason = "the module says once how every method fails")]
impl Client {
    /// `POST /users/me/profile`: creates the profile with its sandbox and project, or renames it.
    pub async fn put_profile(&self, body: &ProfileRequest) -> Result<Reply<UserProfile>> {
        self.send(Call::api(self, Method::POST, &PROFILE)?.json(body)?.creates())
            .await
    }

    /// `GET /users/me/profile`; 404 when there is none yet.
    pub async fn profile(&self) -> Result<Reply<UserProfile>> {
        self.send(Call::api(self, Method::GET, &PROFILE)?).await
    }

    /// `GET /users/me/handle`.
    pub async fn handle(&self) -> Result<Reply<Handle>> {
        self.send(Call::api(self, Method::GET, &HANDLE)?).await
    }

    /// `PUT /users/me/handle`: claims or changes the Copass ID.
    pub async fn set_handle(&self, copass_id: &str) -> Result<Reply<Handle>> {
        let body = HandleRequest {
            copass_id: copass_id.to_owned(),
        };
        self.send(Call::api(self, Method::PUT, &HANDLE)?.json(&body)?).await
    }

    /// `DELETE /users/me/handle`: gives the Copass ID back.
    pub async fn clear_handle(&self) -> Result<Reply<Value>> {
        self.send(Call::api(self, Method::DELETE, &HANDLE)?).await
    }

    /// `POST /api-keys`: the answer holds the secret, once.
    pub async fn create_api_key(&self, body: &CreateApiKeyRequest) -> Result<Reply<CreatedApiKey>> {
        self.send(Call::api(self, Method::POST, &["api-keys"])?.json(body)?.creates())
            .await
    }

    /// `GET /api-keys`.
    pub async fn list_api_keys(&self, query: &ListApiKeysQuery) -> Result<Reply<Vec<ApiKey>>> {
        self.send(Call::api(self, Method::GET, &["api-keys"])?.query(query)?)
            .await
    }

    /// `DELETE /api-keys/{key_id}`: at once and for good.
    pub async fn revoke_api_key(&self, key_id: &str) -> Result<Reply<RevokedApiKey>> {
        self.send(Call::api(self, Method::DELETE, &["api-keys", key_id])?).await
    }
}
