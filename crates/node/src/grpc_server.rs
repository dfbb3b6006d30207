//! The network side of a service: gRPC with health and reflection, behind the shared layer stack.

use copass_runtime::{Signer, Tasks, grpc::server::ServerLayer, health::Readiness, tasks::Phase};
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::ServingStatus;
use tower::util::MapResponseLayer;

use crate::{Failure, Role, ending_body::EndingBody};

/// How often health is brought in line with readiness.
const HEALTH_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);

/// Serves a role's routes on a bound listener until the node's serve phase ends.
pub(crate) fn start(
    role: Role,
    routes: Routes,
    listener: TcpListener,
    signer: &Signer,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<(), Failure> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(copass_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Failure {
            message: format!("gRPC reflection cannot start: {error}"),
            hint: None,
        })?;
    let routes = routes.add_service(health).add_service(reflection);
    let layer = ServerLayer::new(role.as_str(), signer.clone());
    let readiness = readiness.clone();
    tasks.spawn(Phase::Serve, "grpc health", move |stop| async move {
        loop {
            let status = if readiness.is_ready() {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status("", status).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(HEALTH_INTERVAL) => {}
            }
        }
    });
    tasks.spawn(Phase::Serve, "grpc server", move |stop| async move {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let ending = stop.clone();
        let ending = MapResponseLayer::new(move |answer: http::Response<Body>| {
            answer.map(|body| Body::new(EndingBody::new(body, ending.clone())))
        });
        let server = Server::builder()
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(15)))
            .http2_max_pending_accept_reset_streams(Some(copass_runtime::grpc::MAX_UNSEEN_RESETS))
            .layer(ending)
            .layer(layer)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled());
        if let Err(error) = server.await {
            tracing::error!(%role, %error, "gRPC server ended");
        }
    });
    Ok(())
}

/// Asks a remote service for its health, without a principal.
pub(crate) async fn check_remote(address: String) -> Result<(), String> {
    let channel = tonic::transport::Endpoint::from_shared(address.clone())
        .map_err(|error| error.to_string())?
        .connect_timeout(std::time::Duration::from_secs(2))
        .connect()
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let answer = tonic_health::pb::health_client::HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|status| format!("{address}: {}", status.message()))?;
    if answer.into_inner().status() == tonic_health::pb::health_check_response::ServingStatus::Serving {
        Ok(())
    } else {
        Err(format!("{address}: not serving"))
    }
}
