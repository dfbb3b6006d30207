//! What the layer stack promises on both wirings (`design.md` 3): a local call is as safe as a remote one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use copass_errors::{Error, ErrorCode, FieldProblem};
use copass_proto::{
    Transport,
    source::{
        DataSource, GetSourceRequest, ListSourcesRequest, ListSourcesResponse, RegisterSourceRequest,
        source_service_client::SourceServiceClient,
        source_service_server::{SourceService, SourceServiceServer},
    },
};
use copass_runtime::{CallContext, MasterKey, Signer, grpc::server::ServerStack};
use copass_test_support::{TestSandbox, both_wirings, eventually, signer};
use tonic::{Code, Request, Response, Status, service::Routes};

const LIMIT: Duration = Duration::from_secs(10);

/// Misbehaves in one way per method.
#[derive(Debug, Clone, Default)]
struct MisbehavingSources {
    /// Handlers of `list_sources` that have begun and not ended.
    waiting: Arc<AtomicUsize>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl SourceService for MisbehavingSources {
    /// Panics.
    async fn register_source(&self, _: Request<RegisterSourceRequest>) -> Result<Response<DataSource>, Status> {
        panic!("expected in this test")
    }

    /// Never answers.
    async fn list_sources(&self, _: Request<ListSourcesRequest>) -> Result<Response<ListSourcesResponse>, Status> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(Arc::clone(&self.waiting));
        std::future::pending().await
    }

    /// Tells who called, or fails in every detail when asked for a source.
    async fn get_source(&self, request: Request<GetSourceRequest>) -> Result<Response<DataSource>, Status> {
        let principal = CallContext::of(&request)?.principal;
        if !request.get_ref().data_source_id.is_empty() {
            let problem = FieldProblem::query("status", "ist unmöglich");
            return Err(Error::invalid(vec![problem]).with_retry_after_s(3).into());
        }
        let user_id = principal.user_id.map(String::from).unwrap_or_default();
        Ok(Response::new(DataSource {
            user_id,
            name: principal.via.join(" > "),
            ..DataSource::default()
        }))
    }
}

async fn wirings(service: &MisbehavingSources) -> Vec<(&'static str, Transport)> {
    both_wirings(Routes::new(SourceServiceServer::new(service.clone())), "ingestion").await
}

fn code(status: &Status) -> ErrorCode {
    Error::from(status.clone()).code()
}

#[tokio::test]
async fn the_deadline_is_enforced_and_ends_the_handler() {
    let service = MisbehavingSources::default();
    for (wiring, transport) in wirings(&service).await {
        let context = TestSandbox::new().owner().with_timeout(Duration::from_millis(200));
        let started = Instant::now();
        let request = context.request(ListSourcesRequest::default());
        let status = SourceServiceClient::new(transport)
            .list_sources(request)
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), code(&status)),
            (Code::DeadlineExceeded, ErrorCode::DeadlineExceeded),
            "{wiring}"
        );
        assert!(
            started.elapsed() >= Duration::from_millis(200) && started.elapsed() < LIMIT,
            "{wiring}"
        );
        eventually(LIMIT, || async { service.waiting.load(Ordering::SeqCst) == 0 }).await;
    }
}

#[tokio::test]
async fn the_server_enforces_the_deadline_by_itself() {
    // As a client of another make that waits for ever.
    let service = MisbehavingSources::default();
    let routes = Routes::new(SourceServiceServer::new(service.clone()));
    let transport = Transport::new(ServerStack::new(routes, "ingestion", signer()));
    let mut request = Request::new(ListSourcesRequest::default());
    let token = signer().sign(&TestSandbox::new().owner().principal).unwrap();
    request
        .metadata_mut()
        .insert("copass-principal", token.parse().unwrap());
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let status = SourceServiceClient::new(transport)
        .list_sources(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(service.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_handler() {
    let service = MisbehavingSources::default();
    for (wiring, transport) in wirings(&service).await {
        let request = TestSandbox::new().owner().request(ListSourcesRequest::default());
        let mut client = SourceServiceClient::new(transport);
        let begun = eventually(LIMIT, || async { service.waiting.load(Ordering::SeqCst) == 1 });
        tokio::select! {
            answer = client.list_sources(request) => panic!("{wiring} answered {answer:?}"),
            () = begun => {}
        }
        eventually(LIMIT, || async { service.waiting.load(Ordering::SeqCst) == 0 }).await;
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_next_call_works() {
    let service = MisbehavingSources::default();
    for (wiring, transport) in wirings(&service).await {
        let owner = TestSandbox::new().owner();
        let mut client = SourceServiceClient::new(transport);
        for _ in 0..2 {
            let request = owner.request(RegisterSourceRequest::default());
            let status = client.register_source(request).await.unwrap_err();
            assert_eq!(
                (status.code(), code(&status)),
                (Code::Internal, ErrorCode::InternalError),
                "{wiring}"
            );
            assert!(
                !format!("{status:?}").contains("expected in this test"),
                "{wiring} tells what panicked"
            );
            client
                .get_source(owner.request(GetSourceRequest::default()))
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_call_without_a_valid_token_is_refused() {
    let service = MisbehavingSources::default();
    let foreign_key = MasterKey::generate_text();
    let stranger = Signer::new(&MasterKey::parse([foreign_key.as_str()]).unwrap());
    let forged = stranger.sign(&TestSandbox::new().owner().principal).unwrap();
    for (wiring, transport) in wirings(&service).await {
        let mut client = SourceServiceClient::new(transport);
        for token in [None, Some(""), Some("nonsense"), Some(forged.as_str())] {
            let mut request = Request::new(GetSourceRequest::default());
            if let Some(token) = token {
                request
                    .metadata_mut()
                    .insert("copass-principal", token.parse().unwrap());
            }
            let status = client.get_source(request).await.unwrap_err();
            assert_eq!(
                (status.code(), code(&status)),
                (Code::Unauthenticated, ErrorCode::Unauthorized),
                "{wiring}"
            );
        }
    }
}

#[tokio::test]
async fn the_principal_and_the_details_of_an_error_arrive_whole() {
    let service = MisbehavingSources::default();
    for (wiring, transport) in wirings(&service).await {
        let sandbox = TestSandbox::new();
        let mut client = SourceServiceClient::new(transport);
        let answer = client
            .get_source(sandbox.owner().request(GetSourceRequest::default()))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (answer.user_id.as_str(), answer.name.as_str()),
            (sandbox.owner_user_id.as_str(), "test > ingestion")
        );
        let request = GetSourceRequest {
            data_source_id: "any".to_owned(),
            ..GetSourceRequest::default()
        };
        let error = Error::from(client.get_source(sandbox.owner().request(request)).await.unwrap_err());
        assert_eq!(
            (error.code(), error.retry_after_s()),
            (ErrorCode::ValidationError, Some(3)),
            "{wiring}"
        );
        assert_eq!(
            error.problems()[0],
            FieldProblem::query("status", "ist unmöglich"),
            "{wiring}"
        );
    }
}
