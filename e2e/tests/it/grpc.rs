//! The internal interfaces of separate services: health and reflection for everybody, everything else for signed
//! callers only.

use copass_proto::{
    agent::{ListAgentsRequest, agent_service_client::AgentServiceClient},
    concierge::{ChatRequest, concierge_service_client::ConciergeServiceClient},
    identity::{AuthenticateRequest, identity_service_client::IdentityServiceClient},
    run::{GetRunRequest, run_service_client::RunServiceClient},
    sandbox::{ListSandboxesRequest, sandbox_service_client::SandboxServiceClient},
    source::{ListSourcesRequest, source_service_client::SourceServiceClient},
    trigger::{ListTriggersRequest, trigger_service_client::TriggerServiceClient},
};
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{
    Cluster, Settings, Shape,
    cluster::{AGENT_RUNNER, CONCIERGE, DISPATCHER, INGESTION, SERVICES},
};

async fn channel(cluster: &Cluster, service: &str) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(cluster.grpc_url(service)).unwrap();
    endpoint
        .connect()
        .await
        .unwrap_or_else(|error| panic!("{service}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer_and_nothing_else_does() {
    let Some(cluster) = Cluster::start(Shape::Separate, Settings::default()).await else {
        return;
    };
    for service in SERVICES {
        let channel = channel(&cluster, service).await;
        let health = HealthClient::new(channel.clone())
            .check(HealthCheckRequest::default())
            .await
            .unwrap();
        assert_eq!(health.into_inner().status, ServingStatus::Serving as i32, "{service}");
        let listed = reflected_services(channel).await;
        for name in [
            "grpc.health.v1.Health",
            "copass.agent.v1.AgentService",
            "copass.identity.v1.IdentityService",
        ] {
            assert!(
                listed.iter().any(|listed| listed == name),
                "{service} does not list {name}: {listed:?}"
            );
        }
    }
    // Without a principal, and with one that nobody signed.
    for principal in [None, Some("nonsense"), Some("e30.AAAA"), Some("")] {
        for (what, status) in calls(&cluster, principal).await {
            assert_eq!(
                status.code(),
                Code::Unauthenticated,
                "{what} with {principal:?}: {status:?}"
            );
            assert!(!status.message().is_empty(), "{what}");
        }
    }
}

async fn reflected_services(channel: Channel) -> Vec<String> {
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = ServerReflectionClient::new(channel)
        .server_reflection_info(futures::stream::iter([question]))
        .await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => list.service.into_iter().map(|row| row.name).collect(),
        other => panic!("{other:?}"),
    }
}

fn request<T>(message: T, principal: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(principal) = principal {
        request
            .metadata_mut()
            .insert("copass-principal", principal.parse().unwrap());
    }
    request
}

/// A call of each interface that holds data, and how it was refused.
async fn calls(cluster: &Cluster, principal: Option<&str>) -> Vec<(&'static str, Status)> {
    let concierge = channel(cluster, CONCIERGE).await;
    let runner = channel(cluster, AGENT_RUNNER).await;
    let dispatcher = channel(cluster, DISPATCHER).await;
    let ingestion = channel(cluster, INGESTION).await;
    macro_rules! refused {
        ($($client:ident($channel:expr).$method:ident($message:ident))*) => {
            vec![$((stringify!($method), {
                let mut client = $client::new($channel.clone());
                match client.$method(request($message::default(), principal)).await {
                    Ok(_) => panic!("{} was answered", stringify!($method)),
                    Err(status) => status,
                }
            })),*]
        };
    }
    refused! {
        IdentityServiceClient(concierge).authenticate(AuthenticateRequest)
        SandboxServiceClient(concierge).list_sandboxes(ListSandboxesRequest)
        ConciergeServiceClient(concierge).chat(ChatRequest)
        AgentServiceClient(runner).list_agents(ListAgentsRequest)
        RunServiceClient(runner).get_run(GetRunRequest)
        TriggerServiceClient(dispatcher).list_triggers(ListTriggersRequest)
        SourceServiceClient(ingestion).list_sources(ListSourcesRequest)
    }
}
