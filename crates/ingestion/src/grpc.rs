//! gRPC on one side, the application on the other; converts and nothing else.

use copass_errors::Error;
use copass_proto::{
    convert::{id, timestamp},
    source::{self as proto, source_service_server::SourceService},
};
use copass_runtime::{CallContext, grpc::failed};
use tonic::{Request, Response, Status};

use crate::app::sources::{DataSource, Filter, Registration, Sources};

/// Serves `copass.source.v1.SourceService`.
#[derive(Debug)]
pub(crate) struct SourceGrpc {
    sources: Sources,
}

impl SourceGrpc {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { sources }
    }

    async fn register(&self, request: Request<proto::RegisterSourceRequest>) -> Result<DataSource, Error> {
        let context = CallContext::of(&request)?;
        let request = request.into_inner();
        let sandbox_id = id(&request.sandbox_id, "sandbox")?;
        let registration = Registration {
            provider: request.provider,
            name: request.name,
            ingestion_mode: request.ingestion_mode,
            kind: request.kind,
            external_account_id: request.external_account_id,
            adapter_config: request.adapter_config_json,
            poll_interval_seconds: request.poll_interval_seconds,
        };
        let (key, limit) = (request.idempotency_key, request.max_data_sources);
        self.sources
            .register(&context, &sandbox_id, registration, key, limit)
            .await
    }

    async fn list(&self, request: Request<proto::ListSourcesRequest>) -> Result<Vec<DataSource>, Error> {
        let principal = CallContext::of(&request)?.principal;
        let request = request.into_inner();
        let sandbox_id = id(&request.sandbox_id, "sandbox")?;
        let filter = Filter {
            provider: request.provider,
            status: request.status,
        };
        self.sources.list(&principal, &sandbox_id, filter).await
    }

    async fn get(&self, request: Request<proto::GetSourceRequest>) -> Result<DataSource, Error> {
        let principal = CallContext::of(&request)?.principal;
        let request = request.into_inner();
        let sandbox_id = id(&request.sandbox_id, "sandbox")?;
        self.sources.get(&principal, &sandbox_id, &request.data_source_id).await
    }
}

#[tonic::async_trait]
impl SourceService for SourceGrpc {
    async fn register_source(
        &self,
        request: Request<proto::RegisterSourceRequest>,
    ) -> Result<Response<proto::DataSource>, Status> {
        self.register(request)
            .await
            .map(|source| Response::new(source.into()))
            .map_err(failed)
    }

    async fn list_sources(
        &self,
        request: Request<proto::ListSourcesRequest>,
    ) -> Result<Response<proto::ListSourcesResponse>, Status> {
        let sources = self.list(request).await.map_err(failed)?;
        let sources = sources.into_iter().map(proto::DataSource::from).collect();
        Ok(Response::new(proto::ListSourcesResponse { sources }))
    }

    async fn get_source(
        &self,
        request: Request<proto::GetSourceRequest>,
    ) -> Result<Response<proto::DataSource>, Status> {
        self.get(request)
            .await
            .map(|source| Response::new(source.into()))
            .map_err(failed)
    }
}

impl From<DataSource> for proto::DataSource {
    fn from(source: DataSource) -> Self {
        Self {
            data_source_id: source.id.into(),
            user_id: source.user_id.into(),
            sandbox_id: source.sandbox_id.into(),
            provider: source.provider,
            name: source.name,
            ingestion_mode: source.ingestion_mode,
            status: source.status.as_str().to_owned(),
            kind: source.kind.as_str().to_owned(),
            external_account_id: source.external_account_id,
            adapter_config_json: source.adapter_config.to_string(),
            poll_interval_seconds: source.poll_interval_seconds,
            webhook_url: source.webhook_url,
            last_sync_at: source.last_sync_at.map(timestamp),
            created_at: Some(timestamp(source.created_at)),
            updated_at: Some(timestamp(source.updated_at)),
        }
    }
}
