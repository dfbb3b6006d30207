//! `copass.sandbox.v1`.

use std::sync::Arc;

use copass_errors::{Error, FieldProblem};
use copass_proto::{
    convert,
    sandbox::{self as pb, sandbox_service_server::SandboxService},
};
use copass_runtime::{CallContext, clock};
use copass_types::SandboxId;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode, json_object, keyed, optional_timestamp};
use crate::{
    app::{
        App,
        api_keys::{Keyed, NewKey},
        connections::NewConnection,
        sandboxes::{Limits, NewSandbox, SandboxView},
    },
    store::{audit::AuditRow, connections::ConnectionRow},
};

pub(crate) struct Sandboxes {
    app: Arc<App>,
}

impl Sandboxes {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

fn sandbox_id(text: &str) -> Result<SandboxId, Error> {
    convert::id(text, "sandbox")
}

#[tonic::async_trait]
impl SandboxService for Sandboxes {
    async fn create_sandbox(
        &self,
        request: Request<pb::CreateSandboxRequest>,
    ) -> Result<Response<pb::Sandbox>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let key = message.idempotency_key.take();
        let keyed = keyed(&context, "sandbox.create", key, &message)?;
        let new = NewSandbox {
            name: message.name,
            owner_id: message.owner_id,
            tier: message.tier,
            metadata: json_object("metadata", message.metadata_json)?,
        };
        let encode = |view: &SandboxView| pb::Sandbox::from(view.clone()).encode_to_vec();
        let work = async {
            Ok(self
                .app
                .create_sandbox(&context, new, keyed.as_ref(), encode)
                .await?
                .into())
        };
        let outcome = self
            .app
            .idempotency
            .once(keyed.as_ref(), decode::<pb::Sandbox>, work)
            .await;
        Ok(Response::new(
            self.app.audit_own(&context, "sandbox.create", outcome).await?,
        ))
    }

    async fn list_sandboxes(
        &self,
        request: Request<pb::ListSandboxesRequest>,
    ) -> Result<Response<pb::ListSandboxesResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.get_ref();
        let outcome = self
            .app
            .list_sandboxes(&context, message.status.as_deref(), message.owner_id.as_deref())
            .await;
        let views = self.app.audit_own(&context, "sandbox.list", outcome).await?;
        Ok(Response::new(pb::ListSandboxesResponse {
            sandboxes: views.into_iter().map(Into::into).collect(),
        }))
    }

    async fn get_sandbox(&self, request: Request<pb::GetSandboxRequest>) -> Result<Response<pb::Sandbox>, Status> {
        let context = CallContext::of(&request)?;
        let id = sandbox_id(&request.get_ref().sandbox_id)?;
        let outcome = self.app.get_sandbox(&context, &id).await;
        let view = self
            .app
            .audit_denial(&context, "sandbox.get", id.as_str(), Some(&id), outcome)
            .await?;
        Ok(Response::new(view.into()))
    }

    async fn update_sandbox(
        &self,
        request: Request<pb::UpdateSandboxRequest>,
    ) -> Result<Response<pb::Sandbox>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let id = sandbox_id(&message.sandbox_id)?;
        let metadata = json_object("metadata", message.metadata_json)?;
        let outcome = self
            .app
            .update_sandbox(&context, &id, message.name.as_deref(), metadata)
            .await;
        let view = self
            .app
            .audit_denial(&context, "sandbox.update", id.as_str(), Some(&id), outcome)
            .await?;
        Ok(Response::new(view.into()))
    }

    async fn change_sandbox_status(
        &self,
        request: Request<pb::ChangeSandboxStatusRequest>,
    ) -> Result<Response<pb::Sandbox>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.get_ref();
        let id = sandbox_id(&message.sandbox_id)?;
        let outcome = self.app.change_sandbox_status(&context, &id, &message.status).await;
        let view = self
            .app
            .audit_denial(&context, "sandbox.change_status", id.as_str(), Some(&id), outcome)
            .await?;
        Ok(Response::new(view.into()))
    }

    async fn destroy_sandbox(
        &self,
        request: Request<pb::DestroySandboxRequest>,
    ) -> Result<Response<pb::DestroySandboxResponse>, Status> {
        let context = CallContext::of(&request)?;
        let id = sandbox_id(&request.get_ref().sandbox_id)?;
        let outcome = self.app.destroy_sandbox(&context, &id).await;
        self.app
            .audit_denial(&context, "sandbox.destroy", id.as_str(), Some(&id), outcome)
            .await?;
        Ok(Response::new(pb::DestroySandboxResponse {}))
    }

    async fn create_connection(
        &self,
        request: Request<pb::CreateConnectionRequest>,
    ) -> Result<Response<pb::Connection>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let key = message.idempotency_key.take();
        let keyed = keyed(&context, "connection.create", key, &message)?;
        let id = sandbox_id(&message.sandbox_id)?;
        let expires_at = message
            .expires_at
            .as_ref()
            .map(|at| convert::instant(at).ok_or_else(|| Error::invalid_field("expires_at", "is outside the calendar")))
            .transpose()?;
        let new = NewConnection {
            copass_id: message.copass_id,
            user_id: message.user_id,
            email: message.email,
            role: message.role,
            project_id: message.project_id,
            label: message.label,
            expires_at,
        };
        let encode = |row: &ConnectionRow| pb::Connection::from(row.clone()).encode_to_vec();
        let work = async {
            Ok(self
                .app
                .create_connection(&context, &id, new, keyed.as_ref(), encode)
                .await?
                .into())
        };
        let outcome = self
            .app
            .idempotency
            .once(keyed.as_ref(), decode::<pb::Connection>, work)
            .await;
        let target = id.as_str();
        Ok(Response::new(
            self.app
                .audit_denial(&context, "connection.create", target, Some(&id), outcome)
                .await?,
        ))
    }

    async fn list_connections(
        &self,
        request: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<pb::ListConnectionsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.get_ref();
        let id = sandbox_id(&message.sandbox_id)?;
        let outcome = self.app.list_connections(&context, &id, message.include_revoked).await;
        let rows = self
            .app
            .audit_denial(&context, "connection.list", id.as_str(), Some(&id), outcome)
            .await?;
        Ok(Response::new(pb::ListConnectionsResponse {
            connections: rows.into_iter().map(Into::into).collect(),
        }))
    }

    async fn revoke_connection(
        &self,
        request: Request<pb::RevokeConnectionRequest>,
    ) -> Result<Response<pb::RevokeConnectionResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let id = sandbox_id(&message.sandbox_id)?;
        let outcome = match convert::id(&message.connection_id, "connection") {
            Ok(connection_id) => self.app.revoke_connection(&context, &id, &connection_id).await,
            Err(error) => Err(error),
        };
        let target = &message.connection_id;
        let cascaded_keys = self
            .app
            .audit_denial(&context, "connection.revoke", target, Some(&id), outcome)
            .await?;
        Ok(Response::new(pb::RevokeConnectionResponse {
            connection_id: message.connection_id,
            cascaded_keys,
        }))
    }

    async fn spawn_connection_key(
        &self,
        request: Request<pb::SpawnConnectionKeyRequest>,
    ) -> Result<Response<pb::SpawnedConnectionKey>, Status> {
        let context = CallContext::of(&request)?;
        let mut message = request.into_inner();
        let key = message.idempotency_key.take();
        let request = keyed(&context, "connection.key_create", key, &message)?;
        let id = sandbox_id(&message.sandbox_id)?;
        let encode = |key: &NewKey| pb::SpawnedConnectionKey::from(key).encode_to_vec();
        let work = async {
            let connection_id = convert::id(&message.connection_id, "connection")?;
            let keyed = request.as_ref().map(|request| Keyed { request, encode });
            let key = self
                .app
                .spawn_connection_key(&context, &id, &connection_id, keyed)
                .await?;
            Ok(pb::SpawnedConnectionKey::from(&key))
        };
        let outcome = self.app.idempotency.once(request.as_ref(), decode, work).await;
        let target = &message.connection_id;
        let key = self
            .app
            .audit_denial(&context, "connection.key_create", target, Some(&id), outcome)
            .await?;
        Ok(Response::new(key))
    }

    async fn list_audit_records(
        &self,
        request: Request<pb::ListAuditRecordsRequest>,
    ) -> Result<Response<pb::ListAuditRecordsResponse>, Status> {
        let context = CallContext::of(&request)?;
        let message = request.get_ref();
        let id = sandbox_id(&message.sandbox_id)?;
        let before = message.before.as_deref().map(|before| {
            let unknown = || FieldProblem::query("before", "must be the id of a record, au_…");
            before.parse().map_err(|_| Error::invalid(vec![unknown()]))
        });
        let outcome = match before.transpose() {
            Ok(before) => {
                self.app
                    .list_audit_records(&context, &id, before.as_ref(), message.limit)
                    .await
            }
            Err(error) => Err(error),
        };
        let rows = self
            .app
            .audit_denial(&context, "audit.list", id.as_str(), Some(&id), outcome)
            .await?;
        Ok(Response::new(pb::ListAuditRecordsResponse {
            records: rows.into_iter().map(Into::into).collect(),
        }))
    }
}

impl From<SandboxView> for pb::Sandbox {
    fn from(view: SandboxView) -> Self {
        let row = view.row;
        let limits = Limits::of_tier(&row.tier);
        Self {
            sandbox_id: row.id,
            user_id: row.user_id,
            owner_id: row.owner_id,
            name: row.name,
            tier: row.tier,
            status: row.status,
            storage_provider_type: row.storage_provider_type,
            limits: Some(pb::SandboxLimits {
                max_data_sources: limits.max_data_sources,
                max_projects: limits.max_projects,
                max_storage_bytes: limits.max_storage_bytes,
            }),
            metadata_json: row.metadata.0.to_string(),
            created_at: Some(convert::timestamp(row.created_at)),
            access: view.role.as_str().to_owned(),
            is_external: view.role != copass_types::Role::Owner,
        }
    }
}

impl From<&NewKey> for pb::SpawnedConnectionKey {
    fn from(key: &NewKey) -> Self {
        Self {
            api_key_id: key.row.id.clone(),
            plaintext: key.secret.expose().to_owned(),
            key_prefix: key.row.key_prefix.clone(),
            expires_at: optional_timestamp(key.row.expires_at),
        }
    }
}

impl From<ConnectionRow> for pb::Connection {
    fn from(row: ConnectionRow) -> Self {
        let status = row.status(clock::now()).to_owned();
        Self {
            connection_id: row.id,
            sandbox_id: row.sandbox_id,
            user_id: row.user_id,
            copass_id: row.copass_id,
            role: row.role,
            project_id: row.project_id,
            label: row.label,
            expires_at: optional_timestamp(row.expires_at),
            revoked_at: optional_timestamp(row.revoked_at),
            created_by: row.created_by,
            created_at: Some(convert::timestamp(row.created_at)),
            status,
        }
    }
}

impl From<AuditRow> for pb::AuditRecord {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id,
            at: Some(convert::timestamp(row.at)),
            sandbox_id: row.sandbox_id,
            actor_json: row.actor.0.to_string(),
            action: row.action,
            target: row.target,
            before_json: row.before.map(|value| value.0.to_string()),
            after_json: row.after.map(|value| value.0.to_string()),
            result: row.result,
            request_id: row.request_id,
        }
    }
}
