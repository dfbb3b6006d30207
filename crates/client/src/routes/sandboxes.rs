//! Sandboxes, grants and the audit log (`rest.md` 5 and 6).

use copass_types::api::{
    AuditList, CreateConnectionRequest, CreateSandboxRequest, ListAuditQuery, ListConnectionsQuery, ListSandboxesQuery,
    RevokedConnection, Sandbox, SandboxConnection, SandboxList, SpawnedConnectionKey, StatusResponse,
    UpdateSandboxRequest,
};
use reqwest::Method;

use crate::{Client, Reply, Result, call::Call};

#[allow(clippy::missing_errors_doc, reason = "the module says once how every method fails")]
impl Client {
    /// `POST /storage/sandboxes`.
    pub async fn create_sandbox(&self, body: &CreateSandboxRequest) -> Result<Reply<Sandbox>> {
        self.send(Call::sandboxes(self, Method::POST, &[])?.json(body)?.creates())
            .await
    }

    /// `GET /storage/sandboxes`.
    pub async fn list_sandboxes(&self, query: &ListSandboxesQuery) -> Result<Reply<SandboxList>> {
        self.send(Call::sandboxes(self, Method::GET, &[])?.query(query)?).await
    }

    /// `GET /storage/sandboxes/{sandbox_id}`.
    pub async fn sandbox(&self, sandbox_id: &str) -> Result<Reply<Sandbox>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id])?).await
    }

    /// `PATCH /storage/sandboxes/{sandbox_id}`.
    pub async fn update_sandbox(&self, sandbox_id: &str, body: &UpdateSandboxRequest) -> Result<Reply<Sandbox>> {
        self.send(Call::sandboxes(self, Method::PATCH, &[sandbox_id])?.json(body)?)
            .await
    }

    /// `POST …/{sandbox_id}/suspend`: writes are refused until reactivated.
    pub async fn suspend_sandbox(&self, sandbox_id: &str) -> Result<Reply<StatusResponse>> {
        self.send(Call::sandboxes(self, Method::POST, &[sandbox_id, "suspend"])?)
            .await
    }

    /// `POST …/{sandbox_id}/reactivate`.
    pub async fn reactivate_sandbox(&self, sandbox_id: &str) -> Result<Reply<StatusResponse>> {
        self.send(Call::sandboxes(self, Method::POST, &[sandbox_id, "reactivate"])?)
            .await
    }

    /// `POST …/{sandbox_id}/archive`: reversible by reactivating.
    pub async fn archive_sandbox(&self, sandbox_id: &str) -> Result<Reply<StatusResponse>> {
        self.send(Call::sandboxes(self, Method::POST, &[sandbox_id, "archive"])?)
            .await
    }

    /// `DELETE …/{sandbox_id}`: with everything in it, for good.
    pub async fn destroy_sandbox(&self, sandbox_id: &str) -> Result<Reply<StatusResponse>> {
        self.send(Call::sandboxes(self, Method::DELETE, &[sandbox_id])?).await
    }

    /// `POST …/{sandbox_id}/connections`: shares the sandbox.
    pub async fn create_connection(
        &self,
        sandbox_id: &str,
        body: &CreateConnectionRequest,
    ) -> Result<Reply<SandboxConnection>> {
        self.send(
            Call::sandboxes(self, Method::POST, &[sandbox_id, "connections"])?
                .json(body)?
                .creates(),
        )
        .await
    }

    /// `GET …/{sandbox_id}/connections`.
    pub async fn list_connections(
        &self,
        sandbox_id: &str,
        query: &ListConnectionsQuery,
    ) -> Result<Reply<Vec<SandboxConnection>>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "connections"])?.query(query)?)
            .await
    }

    /// `DELETE …/{sandbox_id}/connections/{connection_id}`: with every key of the grant.
    pub async fn revoke_connection(&self, sandbox_id: &str, connection_id: &str) -> Result<Reply<RevokedConnection>> {
        self.send(Call::sandboxes(
            self,
            Method::DELETE,
            &[sandbox_id, "connections", connection_id],
        )?)
        .await
    }

    /// `POST …/connections/{connection_id}/api-keys`: the answer holds the secret, once.
    pub async fn spawn_connection_key(
        &self,
        sandbox_id: &str,
        connection_id: &str,
    ) -> Result<Reply<SpawnedConnectionKey>> {
        let segments = [sandbox_id, "connections", connection_id, "api-keys"];
        self.send(Call::sandboxes(self, Method::POST, &segments)?.creates())
            .await
    }

    /// `GET …/{sandbox_id}/audit`: for the owner, newest first.
    pub async fn list_audit(&self, sandbox_id: &str, query: &ListAuditQuery) -> Result<Reply<AuditList>> {
        self.send(Call::sandboxes(self, Method::GET, &[sandbox_id, "audit"])?.query(query)?)
            .await
    }
}
