//! `copass serve`: chosen services in one process, on PostgreSQL and RabbitMQ.

use std::path::PathBuf;

use copass_runtime::telemetry;

use crate::{Failure, Node, Options as NodeOptions, RoleSet, config, signals};

/// What to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Service names; `all` stands for all of them.
    pub roles: Vec<String>,
    /// The configuration file.
    pub config_file: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The configuration, an address, the database or the broker cannot be used.
pub async fn run(options: Options) -> Result<(), Failure> {
    let roles = RoleSet::parse(options.roles.iter().map(String::as_str))?;
    let config = config::load(options.config_file.as_deref())?;
    telemetry::init_logs(&config.telemetry);
    if config.queue.url == "memory" && roles != RoleSet::all() {
        return Err(Failure::new(
            "the memory queue connects services of one process only",
            "set queue.url to a RabbitMQ server, or serve all services in one process",
        ));
    }
    let names: Vec<_> = roles.iter().map(crate::Role::as_str).collect();
    let mut node = Node::create(NodeOptions {
        config,
        roles,
        is_single_process: false,
    })
    .await?;
    let addresses = node.addresses().clone();
    node.start().await?;
    tracing::info!(
        services = names.join(","),
        gateway = addresses.gateway.map(|address| address.to_string()),
        grpc = ?addresses.grpc,
        probes = addresses.probes.map(|address| address.to_string()),
        "serving"
    );
    signals::run_until_signal(node).await
}
