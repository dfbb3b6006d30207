//! Agents, runs and the turn engine: the agent-runner service (`design.md` 2, 7).
//!
//! One engine runs every turn, the Concierge's included, so streaming, limits, cancellation, traces and usage have one
//! implementation. Three promises shape it:
//!
//! * **Every run ends.** A run row is final before its terminal frame; a lost worker's runs are ended by the reaper, and
//!   its late writes are refused by the fence.
//! * **Nothing is done twice.** A changing tool call is journaled before it is made; where its outcome is not known the
//!   run says so and nothing repeats it.
//! * **The person is never left out.** A tool call carries the person the run acts for, and is checked again where it is
//!   executed.
//!
//! Inside: `grpc` converts, `app` holds the rules, `store` the SQL, `worker` what runs without being asked.

mod app;
mod grpc;
mod store;
mod worker;

use std::{sync::Arc, time::Duration};

use copass_errors::Result;
use copass_proto::{
    Transport, agent::agent_service_server::AgentServiceServer,
    concierge::concierge_service_client::ConciergeServiceClient, run::run_service_server::RunServiceServer,
};
use copass_queue::Queue;
use copass_runtime::{MasterKey, Tasks, grpc::MAX_MESSAGE_BYTES, tasks::Phase};
use copass_store::{Db, outbox::Outbox};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tonic::service::Routes;

pub use app::{secrets_scan, tool_sources};

/// The name of the service, as logs, metrics and outboxes carry it.
pub const SERVICE: &str = "agent-runner";

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Backend and model of the system agents, for example `("planner", "planner")`.
    pub concierge_backend_model: (String, String),
    /// Names this process in leases; unique among the replicas.
    pub worker_id: String,
    /// How long a run stays this worker's after the last sign of life.
    pub lease: Duration,
    /// How often the leases of live runs are extended.
    pub heartbeat: Duration,
    /// How often expired leases are looked for.
    pub reap_interval: Duration,
    /// What one run may use.
    pub limits: Limits,
    /// Runs without a reader that this process works on at once.
    pub background_runs: usize,
    /// How many of them one sandbox may have.
    pub background_runs_per_sandbox: usize,
    /// How long one tool source may take to tell its tools.
    pub source_patience: Duration,
    /// Whether the built-in planner works for agents whose provider is not set up (`dev`).
    pub planner_fallback: bool,
}

/// What one run may use; enforced by the engine, never by the prompt.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Model answers per run where the caller names no number.
    pub max_turns: u32,
    /// The largest number a caller may ask for.
    pub max_turns_cap: u32,
    /// Longest run where the caller names no time.
    pub run_timeout: Duration,
    /// The longest time a caller may ask for.
    pub run_timeout_cap: Duration,
    /// Longest single tool call.
    pub tool_timeout: Duration,
    /// How long a model may be silent within one answer.
    pub model_silence: Duration,
    /// How long frames may wait for a reader that takes none.
    pub slow_reader: Duration,
    /// Reading tool calls of one answer that run at once.
    pub parallel_reads: usize,
    /// Tries of one model answer, the first included.
    pub model_attempts: u32,
    /// Longest pause before another try, whatever the provider asks for.
    pub retry_pause_cap: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_turns: 25,
            max_turns_cap: copass_types::validate::MAX_TURNS,
            run_timeout: Duration::from_secs(600),
            run_timeout_cap: Duration::from_secs(copass_types::validate::MAX_TIMEOUT_S.into()),
            tool_timeout: Duration::from_secs(60),
            model_silence: Duration::from_secs(120),
            slow_reader: Duration::from_secs(30),
            parallel_reads: 8,
            model_attempts: 3,
            retry_pause_cap: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// The defaults (lease 30 s, heartbeat 10 s) for a worker and the model of its system agents.
    #[must_use]
    pub fn new(worker_id: impl Into<String>, concierge_backend_model: (String, String)) -> Self {
        Self {
            concierge_backend_model,
            worker_id: worker_id.into(),
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            reap_interval: Duration::from_secs(15),
            background_runs: 64,
            background_runs_per_sandbox: 32,
            source_patience: Duration::from_secs(10),
            planner_fallback: false,
            limits: Limits::default(),
        }
    }
}

/// What the service needs from the node.
#[derive(Clone)]
pub struct Deps {
    /// The database.
    pub db: Db,
    /// The message broker.
    pub queue: Arc<dyn Queue>,
    /// Model providers.
    pub models: Arc<copass_llm::Registry>,
    /// What models cost.
    pub prices: Arc<copass_llm::Prices>,
    /// Where agents' tools come from.
    pub tool_sources: Vec<Arc<dyn tool_sources::ToolSource>>,
    /// The concierge service, which executes management tools.
    pub concierge: Transport,
    /// Carries audit records; the node runs its relay.
    pub outbox: Outbox,
    /// Seals first answers of requests with an `Idempotency-Key`.
    pub master_key: MasterKey,
    /// The node's tasks.
    pub tasks: Tasks,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Deps")
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct AgentRunner {
    agents: app::agents::Agents,
    runs: app::runs::Runs,
    turns: app::turn::Turns,
    queue: Arc<dyn Queue>,
    /// Taken by the task that broadcasts them.
    outgoing_news: Arc<Mutex<Option<mpsc::Receiver<app::news::Outgoing>>>>,
    tasks: Tasks,
}

impl AgentRunner {
    /// Wires the service; nothing runs yet.
    #[must_use]
    pub fn create(config: Config, deps: Deps) -> Self {
        let concierge = ConciergeServiceClient::new(deps.concierge)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let resolver = Arc::new(app::tool_sources::Resolver::new(
            deps.tool_sources,
            config.source_patience,
        ));
        let (news, outgoing_news) = app::news::News::new();
        let worker = Arc::new(app::turn::Worker {
            slots: Arc::new(Semaphore::new(config.background_runs.max(1))),
            shares: app::turn::Shares::new(config.background_runs_per_sandbox),
            config,
            db: deps.db.clone(),
            models: deps.models,
            prices: deps.prices,
            concierge,
            resolver: resolver.clone(),
            outbox: deps.outbox.clone(),
            news,
            active: app::active::ActiveRuns::default(),
            system_agents: app::turn::SystemAgents::new(),
        });
        Self {
            agents: app::agents::Agents::new(deps.db.clone(), deps.master_key, deps.outbox, resolver),
            runs: app::runs::Runs::new(deps.db),
            turns: app::turn::Turns::new(worker, deps.tasks.clone()),
            queue: deps.queue,
            outgoing_news: Arc::new(Mutex::new(Some(outgoing_news))),
            tasks: deps.tasks,
        }
    }

    /// The gRPC services, for a network server or for [`copass_runtime::grpc::local`].
    #[must_use]
    pub fn routes(&self) -> Routes {
        let agents = AgentServiceServer::new(grpc::AgentsFace(self.agents.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let runs = RunServiceServer::new(grpc::RunsFace {
            runs: self.runs.clone(),
            turns: self.turns.clone(),
        })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Routes::new(agents).add_service(runs)
    }

    /// Spawns consumers, heartbeat and reaper into the node's tasks.
    pub fn start(&self) {
        let worker = self.turns.worker();
        let tenancy = worker::tenancy::Tenancy::new(worker.clone());
        let queue = self.queue.clone();
        self.tasks
            .spawn(Phase::Intake, "agent-runner tenancy", |stop| tenancy.run(queue, stop));
        let requests = worker::requests::Requests::new(self.turns.clone());
        let queue = self.queue.clone();
        self.tasks
            .spawn(Phase::Intake, "agent-runner runs", |stop| requests.run(queue, stop));
        let (reaper, background) = (worker.clone(), self.turns.background());
        self.tasks.spawn(Phase::Intake, "agent-runner reaper", |stop| {
            worker::reaper::run(reaper, background, stop)
        });
        // Followers are served until the end, so news travel until then.
        if let Some(outgoing) = self.outgoing_news.lock().take() {
            let (sender, queue) = (worker.clone(), self.queue.clone());
            self.tasks.spawn(Phase::Serve, "agent-runner news out", |stop| {
                worker::news::send(sender, queue, outgoing, stop)
            });
        }
        let (receiver, queue) = (worker.clone(), self.queue.clone());
        self.tasks.spawn(Phase::Serve, "agent-runner news in", |stop| {
            worker::news::receive(receiver, queue, stop)
        });
        // Lives as long as runs do: they are still being brought to an end when the intake has stopped.
        let heartbeat = worker.clone();
        self.tasks.spawn(Phase::Serve, "agent-runner heartbeat", |stop| {
            worker::heartbeat::run(heartbeat, stop)
        });
    }

    /// Looks after every run that is not over, whatever its lease says: for a node that is the only worker of its database
    /// (`dev`), where every such run was left by an earlier process. Runs in the background go on, the others are ended.
    /// Call it once, before serving.
    ///
    /// Returns how many runs were ended and how many go on.
    ///
    /// # Errors
    /// The database failed.
    pub async fn recover_all_at_start(&self) -> Result<(usize, usize)> {
        let background = self.turns.background();
        let recovered = worker::reaper::look_after_all(&self.turns.worker(), &background).await?;
        Ok((recovered.ended, recovered.taken_up))
    }
}

impl std::fmt::Debug for AgentRunner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AgentRunner")
    }
}
