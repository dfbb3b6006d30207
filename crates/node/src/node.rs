//! A node: roles wired, started and ended.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use copass_agent_runner::{
    AgentRunner,
    tool_sources::{HttpToolSource, ToolSource},
};
use copass_concierge::Concierge;
use copass_gateway::Gateway;
use copass_ingestion::Ingestion;
use copass_proto::Transport;
use copass_queue::{AmqpOptions, AmqpQueue, MemoryQueue, Message, Queue, QueueName, TopicName};
use copass_runtime::{
    Config, MasterKey, Signer, Tasks,
    egress::Egress,
    health::Readiness,
    tasks::Phase,
    telemetry::{self, Metrics},
};
use copass_store::{
    Db,
    outbox::{Broker, Outbox, OutboxMessage},
};
use copass_trigger_dispatcher::TriggerDispatcher;
use tokio::net::TcpListener;

use crate::{Failure, Role, RoleSet, grpc_server, models, probes, revocations, wiring::Wiring};

/// Name of the tool source that is a plain HTTP server.
const HTTP_TOOLS: &str = "http";
const READINESS_INTERVAL: Duration = Duration::from_secs(2);
/// Inbox rows older than any broker redelivers are dropped.
const INBOX_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Settings, already checked.
    pub config: Config,
    /// What this process is.
    pub roles: RoleSet,
    /// Whether every service is in this process: no gRPC listeners, and stale runs of the last start are ended.
    pub is_single_process: bool,
}

/// Where a node listens.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// REST and SSE, when the node is a gateway.
    pub gateway: Option<SocketAddr>,
    /// gRPC by role.
    pub grpc: BTreeMap<Role, SocketAddr>,
    /// Probes, when the node is no gateway.
    pub probes: Option<SocketAddr>,
}

/// The listeners, bound before anything else happens.
#[derive(Default)]
struct Listeners {
    gateway: Option<TcpListener>,
    grpc: Vec<(Role, TcpListener)>,
    probes: Option<TcpListener>,
}

/// Roles in one process.
pub struct Node {
    options: Options,
    addresses: Addresses,
    listeners: Listeners,
    tasks: Tasks,
    readiness: Readiness,
    metrics: Metrics,
    signer: Signer,
    db: Option<Db>,
    queue: Arc<dyn Queue>,
    broker: Broker,
    outboxes: Vec<Outbox>,
    wiring: Wiring,
    gateway: Option<Gateway>,
    concierge: Option<Concierge>,
    agent_runner: Option<AgentRunner>,
    trigger_dispatcher: Option<TriggerDispatcher>,
    ingestion: Option<Ingestion>,
}

impl Node {
    /// Binds listeners, opens dependencies and wires the roles; nothing runs yet.
    ///
    /// # Errors
    /// An address is taken, the database cannot be opened, a key is missing: one message with the next step.
    pub async fn create(options: Options) -> Result<Self, Failure> {
        // Several TLS users in one process must agree on one provider; a second call keeps the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (listeners, addresses) = bind(&options).await?;
        let config = &options.config;
        let master_key = master_key(config)?;
        let signer = Signer::new(&master_key);
        let readiness = Readiness::default();
        let metrics = telemetry::metrics();
        let db = open_store(&options).await?;
        let (queue, broker) = open_queue(config).await?;
        let tasks = Tasks::new();
        let wiring = Wiring::new(&options.roles, &config.services, &signer)?;
        let mut node = Self {
            addresses,
            listeners,
            tasks,
            readiness,
            metrics,
            signer,
            db,
            queue,
            broker,
            outboxes: Vec::new(),
            wiring,
            gateway: None,
            concierge: None,
            agent_runner: None,
            trigger_dispatcher: None,
            ingestion: None,
            options,
        };
        node.create_services(&master_key)?;
        node.add_probes();
        Ok(node)
    }

    /// Where the node listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The concierge service, when it is one of the roles.
    #[must_use]
    pub fn concierge(&self) -> Option<&Concierge> {
        self.concierge.as_ref()
    }

    /// How the concierge service is reached from this process.
    #[must_use]
    pub fn concierge_transport(&self) -> Transport {
        self.wiring.concierge.clone()
    }

    /// Spawns consumers, reconcilers and servers.
    ///
    /// # Errors
    /// Stale runs of a single process cannot be ended, or a server cannot start.
    pub async fn start(&mut self) -> Result<(), Failure> {
        if self.options.is_single_process
            && let Some(agent_runner) = &self.agent_runner
        {
            let (ended, taken_up) = agent_runner.recover_all_at_start().await?;
            if ended + taken_up > 0 {
                tracing::warn!(
                    ended,
                    taken_up,
                    "looked after runs that the last process left unfinished"
                );
            }
        }
        if let Some(concierge) = &self.concierge {
            concierge.start();
        }
        if let Some(agent_runner) = &self.agent_runner {
            agent_runner.start();
        }
        if let Some(trigger_dispatcher) = &self.trigger_dispatcher {
            trigger_dispatcher.start();
        }
        if let Some(ingestion) = &self.ingestion {
            ingestion.start();
        }
        self.start_relays();
        self.start_servers()?;
        self.readiness.check().await;
        let readiness = self.readiness.clone();
        self.tasks.spawn(Phase::Serve, "readiness", move |stop| {
            readiness.watch(READINESS_INTERVAL, stop)
        });
        if let Some(gateway) = self.gateway.clone() {
            let cache = gateway.auth_cache();
            let queue = self.queue.clone();
            self.tasks.spawn(Phase::Serve, "revocations", move |stop| {
                revocations::follow(queue, cache, stop)
            });
            if let Some(listener) = self.listeners.gateway.take() {
                self.tasks.spawn(Phase::Serve, "gateway", move |stop| async move {
                    gateway.serve(listener, stop).await;
                });
            }
        }
        Ok(())
    }

    /// Whether every dependency is usable.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    /// Ends in order: intake, work, servers and relays, then the queue and the database; within the grace limit.
    pub async fn shut_down(self) {
        let in_time = self.tasks.shut_down(self.options.config.shutdown.grace).await;
        if !in_time {
            tracing::warn!("some work did not end within the grace limit; it is taken up at the next start");
        }
        let close = async {
            self.queue.close().await;
            if let Some(db) = &self.db {
                db.close().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(1), close).await.is_err() {
            tracing::warn!("the database or the queue did not close in time");
        }
    }

    fn create_services(&mut self, master_key: &MasterKey) -> Result<(), Failure> {
        if let Some(db) = self.db.clone() {
            if self.options.roles.contains(Role::Ingestion) {
                let outbox = Outbox::new(copass_ingestion::SERVICE);
                let ingestion = Ingestion::create(
                    copass_ingestion::Config::default(),
                    copass_ingestion::Deps {
                        db: db.clone(),
                        queue: self.queue.clone(),
                        outbox: outbox.clone(),
                        master_key: master_key.clone(),
                        tasks: self.tasks.clone(),
                    },
                );
                self.outboxes.push(outbox);
                self.wiring.ingestion_slot.fill(ingestion.routes());
                self.ingestion = Some(ingestion);
            }
            if self.options.roles.contains(Role::TriggerDispatcher) {
                let dispatcher = TriggerDispatcher::create(
                    copass_trigger_dispatcher::Config::default(),
                    copass_trigger_dispatcher::Deps {
                        db: db.clone(),
                        queue: self.queue.clone(),
                        master_key: master_key.clone(),
                        tasks: self.tasks.clone(),
                    },
                );
                self.wiring.trigger_dispatcher_slot.fill(dispatcher.routes());
                self.trigger_dispatcher = Some(dispatcher);
            }
            if self.options.roles.contains(Role::AgentRunner) {
                self.create_agent_runner(&db, master_key)?;
            }
            if self.options.roles.contains(Role::Concierge) {
                self.create_concierge(&db, master_key)?;
            }
        }
        if self.options.roles.contains(Role::Gateway) {
            self.create_gateway();
        }
        Ok(())
    }

    fn create_agent_runner(&mut self, db: &Db, master_key: &MasterKey) -> Result<(), Failure> {
        let settings = &self.options.config.models;
        let (backend, model) = settings.concierge_backend_and_model();
        let egress = Egress::new().map_err(|error| Failure {
            message: error.to_string(),
            hint: None,
        })?;
        let worker_id = format!("worker_{}", ulid::Ulid::generate());
        let outbox = Outbox::new(copass_agent_runner::SERVICE);
        let runs = &self.options.config.runs;
        let mut config = copass_agent_runner::Config::new(worker_id, (backend.to_owned(), model.to_owned()));
        config.lease = runs.lease;
        config.heartbeat = runs.heartbeat;
        config.reap_interval = runs.reap_interval;
        config.background_runs = runs.background;
        config.background_runs_per_sandbox = runs.background_per_sandbox.unwrap_or(runs.background / 2);
        config.planner_fallback = settings.planner_fallback;
        config.limits.tool_timeout = runs.tool_timeout;
        config.limits.model_silence = runs.model_silence;
        let runner = AgentRunner::create(
            config,
            copass_agent_runner::Deps {
                db: db.clone(),
                queue: self.queue.clone(),
                models: Arc::new(models::registry(settings, &egress)?),
                prices: Arc::new(models::prices(settings)?),
                tool_sources: tool_sources(&self.options.config, &egress)?,
                concierge: self.wiring.concierge.clone(),
                outbox: outbox.clone(),
                master_key: master_key.clone(),
                tasks: self.tasks.clone(),
            },
        );
        self.wiring.agent_runner_slot.fill(runner.routes());
        self.agent_runner = Some(runner);
        self.outboxes.push(outbox);
        Ok(())
    }

    fn create_concierge(&mut self, db: &Db, master_key: &MasterKey) -> Result<(), Failure> {
        let config = &self.options.config;
        let outbox = Outbox::new(copass_concierge::SERVICE);
        let concierge = Concierge::create(
            copass_concierge::Config {
                auth: config.auth.clone(),
                smtp: config.smtp.clone(),
                accept_dev_code: self.accepts_dev_code(),
            },
            copass_concierge::Deps {
                db: db.clone(),
                queue: self.queue.clone(),
                outbox: outbox.clone(),
                master_key: master_key.clone(),
                tasks: self.tasks.clone(),
                agent_runner: self.wiring.agent_runner.clone(),
                trigger_dispatcher: self.wiring.trigger_dispatcher.clone(),
                ingestion: self.wiring.ingestion.clone(),
            },
        )
        .map_err(|error| Failure::new(error.to_string(), "correct the [smtp] section of the configuration"))?;
        self.wiring.concierge_slot.fill(concierge.routes());
        self.concierge = Some(concierge);
        self.outboxes.push(outbox);
        Ok(())
    }

    /// `dev`, reachable from this machine only.
    fn accepts_dev_code(&self) -> bool {
        let is_loopback = self.addresses.gateway.is_some_and(|address| address.ip().is_loopback());
        self.options.is_single_process && is_loopback
    }

    fn create_gateway(&mut self) {
        let config = &self.options.config;
        let metrics = self.metrics.clone();
        self.gateway = Some(copass_gateway::create(
            copass_gateway::Config {
                body_limit_bytes: config.gateway.body_limit_bytes,
                auth_cache_ttl: config.gateway.auth_cache_ttl,
                requests_per_minute: config.gateway.requests_per_minute,
                logins_per_minute: config.gateway.logins_per_minute,
                codes_per_ten_minutes: config.auth.codes_per_ten_minutes,
                shutdown_grace: config.shutdown.grace,
                public_url: config.gateway.public_url.as_ref().map(ToString::to_string),
                // The code 000000 is good here, so who can reach the port is whom we trust.
                only_local_hosts: self.accepts_dev_code(),
                ..copass_gateway::Config::default()
            },
            copass_gateway::Deps {
                concierge: self.wiring.concierge.clone(),
                agent_runner: self.wiring.agent_runner.clone(),
                trigger_dispatcher: self.wiring.trigger_dispatcher.clone(),
                ingestion: self.wiring.ingestion.clone(),
                readiness: self.readiness.clone(),
                metrics: Arc::new(move || metrics.render()),
            },
        ));
    }

    /// Readiness follows what each role needs.
    fn add_probes(&self) {
        if let Some(db) = self.db.clone() {
            self.readiness.add("database", move || {
                let db = db.clone();
                async move { db.ping().await.map_err(|error| error.to_string()) }
            });
        }
        let queue = self.queue.clone();
        self.readiness.add("queue", move || {
            let queue = queue.clone();
            async move { queue.health().await.map_err(|error| error.to_string()) }
        });
        // Only the gateway waits for the others: services that waited for each other would never become ready.
        if !self.options.roles.contains(Role::Gateway) {
            return;
        }
        let services = &self.options.config.services;
        for (role, address) in [
            (Role::Concierge, &services.concierge.address),
            (Role::AgentRunner, &services.agent_runner.address),
            (Role::TriggerDispatcher, &services.trigger_dispatcher.address),
            (Role::Ingestion, &services.ingestion.address),
        ] {
            if !self.options.roles.contains(role) {
                let address = address.clone();
                self.readiness
                    .add(role.as_str(), move || grpc_server::check_remote(address.clone()));
            }
        }
    }

    fn start_relays(&self) {
        let Some(db) = &self.db else { return };
        for outbox in &self.outboxes {
            let (outbox, db, broker, queue) = (outbox.clone(), db.clone(), self.broker, self.queue.clone());
            self.tasks.spawn(Phase::Serve, "outbox relay", move |stop| {
                outbox.relay(db, broker, move |message| publish(queue.clone(), message), stop)
            });
        }
        let db = db.clone();
        self.tasks.spawn(Phase::Intake, "retention", move |stop| async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(3600)) => {}
                }
                if let Err(error) = forget_what_ended(&db).await {
                    tracing::warn!(%error, "old inbox rows and idempotency keys could not be removed");
                }
            }
        });
    }

    fn start_servers(&mut self) -> Result<(), Failure> {
        for (role, listener) in std::mem::take(&mut self.listeners.grpc) {
            let routes = match role {
                Role::Concierge => self.concierge.as_ref().map(Concierge::routes),
                Role::AgentRunner => self.agent_runner.as_ref().map(AgentRunner::routes),
                Role::TriggerDispatcher => self.trigger_dispatcher.as_ref().map(TriggerDispatcher::routes),
                Role::Ingestion => self.ingestion.as_ref().map(Ingestion::routes),
                Role::Gateway => None,
            };
            if let Some(routes) = routes {
                grpc_server::start(role, routes, listener, &self.signer, &self.readiness, &self.tasks)?;
            }
        }
        if let Some(listener) = self.listeners.probes.take() {
            probes::start(listener, self.readiness.clone(), self.metrics.clone(), &self.tasks);
        }
        Ok(())
    }
}

async fn bind(options: &Options) -> Result<(Listeners, Addresses), Failure> {
    let mut listeners = Listeners::default();
    let mut addresses = Addresses::default();
    let config = &options.config;
    if options.roles.contains(Role::Gateway) {
        let (listener, address) = listen(config.gateway.listen, "--listen or gateway.listen").await?;
        listeners.gateway = Some(listener);
        addresses.gateway = Some(address);
    } else if let Some(address) = config.services.probes_listen {
        let (listener, address) = listen(address, "services.probes_listen").await?;
        listeners.probes = Some(listener);
        addresses.probes = Some(address);
    }
    if !options.is_single_process {
        for (role, service) in [
            (Role::Concierge, &config.services.concierge),
            (Role::AgentRunner, &config.services.agent_runner),
            (Role::TriggerDispatcher, &config.services.trigger_dispatcher),
            (Role::Ingestion, &config.services.ingestion),
        ] {
            if options.roles.contains(role) {
                let setting = format!("services.{}.listen", role.as_str().replace('-', "_"));
                let (listener, address) = listen(service.listen, &setting).await?;
                listeners.grpc.push((role, listener));
                addresses.grpc.insert(role, address);
            }
        }
    }
    Ok((listeners, addresses))
}

async fn listen(address: SocketAddr, setting: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::bind(address, setting, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::bind(address, setting, &error))?;
    Ok((listener, address))
}

fn master_key(config: &Config) -> Result<MasterKey, Failure> {
    MasterKey::parse(config.secrets.master_keys.iter().map(copass_runtime::Secret::expose)).map_err(|error| {
        if config.secrets.master_keys.is_empty() {
            Failure::new(
                "no master key is configured",
                "make one with `openssl rand -base64 32` and set secrets.master_keys to the same list on every service \
                 (COPASS__SECRETS__MASTER_KEYS='[\"…\"]')",
            )
        } else {
            Failure::new(error.to_string(), "correct secrets.master_keys")
        }
    })
}

async fn open_store(options: &Options) -> Result<Option<Db>, Failure> {
    if !options.roles.needs_store() {
        return Ok(None);
    }
    let store = &options.config.store;
    if store.url.is_empty() {
        return Err(Failure::new(
            "no database is configured",
            "set store.url to postgres://user:password@host/database (COPASS__STORE__URL)",
        ));
    }
    Ok(Some(Db::open(&store.url, store.max_connections).await?))
}

async fn open_queue(config: &Config) -> Result<(Arc<dyn Queue>, Broker), Failure> {
    let queue = &config.queue;
    match queue.url.as_str() {
        "" => Err(Failure::new(
            "no message broker is configured",
            "set queue.url to amqp://user:password@host:5672/%2f (COPASS__QUEUE__URL)",
        )),
        "memory" => Ok((Arc::new(MemoryQueue::default()), Broker::Volatile)),
        url => {
            let options = AmqpOptions {
                prefix: queue.prefix.clone(),
                ..AmqpOptions::new(url)
            };
            let failure = |error: copass_queue::Error| {
                Failure::new(
                    format!("the message broker cannot be used: {error}"),
                    "check that RabbitMQ runs, and the host, credentials and virtual host in queue.url",
                )
            };
            let queue = AmqpQueue::new(options).map_err(failure)?;
            queue.health().await.map_err(failure)?;
            Ok((Arc::new(queue), Broker::Durable))
        }
    }
}

/// The tool source that the operator configured, if one is.
fn tool_sources(config: &Config, egress: &Egress) -> Result<Vec<Arc<dyn ToolSource>>, Failure> {
    let Some(url) = &config.tools.http_url else {
        return Ok(Vec::new());
    };
    let source = HttpToolSource::new(HTTP_TOOLS, url.clone(), egress.operator(url), config.runs.tool_timeout)?;
    Ok(vec![Arc::new(source)])
}

async fn publish(queue: Arc<dyn Queue>, message: OutboxMessage) -> Result<(), String> {
    let outgoing = Message {
        id: message.id.to_string(),
        kind: message.kind,
        body: message.body,
        headers: message.headers,
        attempt: 1,
    };
    let outcome = if message.is_broadcast {
        let topic = TopicName::new(message.destination).map_err(|error| error.to_string())?;
        queue.broadcast(&topic, outgoing).await
    } else {
        let name = QueueName::new(message.destination).map_err(|error| error.to_string())?;
        queue.publish(&name, outgoing).await
    };
    outcome.map_err(|error| error.to_string())
}

async fn forget_what_ended(db: &Db) -> copass_store::Result<()> {
    let before = copass_runtime::clock::now() - INBOX_RETENTION;
    loop {
        let mut tx = db.begin().await?;
        let messages = copass_store::inbox::forget_before(&mut tx, before).await?;
        let answers = copass_store::idempotency::forget_expired(&mut tx).await?;
        tx.commit().await?;
        if messages.max(answers) < copass_store::inbox::FORGOTTEN_AT_ONCE {
            return Ok(());
        }
    }
}
