//! What the cases share: the service with everything around it, and a reader of turns.

pub(crate) mod agent_runs;
pub(crate) mod concierge;
pub(crate) mod providers;
pub(crate) mod sources;

use std::{sync::Arc, time::Duration};

use copass_agent_runner::{AgentRunner, Config, Deps, tool_sources::ToolSource};
use copass_errors::{Error, ErrorCode};
use copass_llm::{Prices, Provider, Registry, SCRIPTED, Scripted};
use copass_proto::{
    Transport,
    agent::agent_service_client::AgentServiceClient,
    run::{
        GetRunRequest, Run, RunFrame, RunLimits, StartSystemTurnRequest, ToolSpec, run_frame::Frame,
        run_service_client::RunServiceClient,
    },
};
use copass_queue::{MemoryQueue, Message, Queue, QueueName};
use copass_runtime::{CallContext, Tasks, grpc::MAX_MESSAGE_BYTES, tasks::Phase};
use copass_store::{
    Db,
    outbox::{Broker, Outbox, OutboxMessage},
};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, eventually, master_key};
use serde_json::Value;
use tonic::Streaming;

pub(crate) use agent_runs::AGENT;
pub(crate) use concierge::FakeConcierge;
pub(crate) use sources::FakeSource;

/// Long enough that only a hang exceeds it.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// Of workers that are lost.
pub(crate) const SHORT_LEASE: Duration = Duration::from_millis(200);
/// How soon a cancelled run must be in its final state (issue 2, shows 3).
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// The service with everything around it.
pub(crate) struct Fixture {
    pub(crate) runner: AgentRunner,
    pub(crate) transport: Transport,
    pub(crate) concierge: FakeConcierge,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) tasks: Tasks,
    pub(crate) sandbox: TestSandbox,
    wiring: Wiring,
    outbox: Outbox,
    db: Db,
    database: Arc<TestDatabase>,
}

/// How a fixture is made.
pub(crate) struct Builder {
    database: Arc<TestDatabase>,
    wiring: Wiring,
    provider: Arc<dyn Provider>,
    registered_as: &'static str,
    models: Registry,
    tool_sources: Vec<Arc<dyn ToolSource>>,
    config: Config,
    sandbox: TestSandbox,
    queue: Arc<MemoryQueue>,
}

impl Builder {
    pub(crate) fn new(database: TestDatabase, wiring: Wiring) -> Self {
        Self::sharing(Arc::new(database), wiring)
    }

    /// A second process on the same database.
    pub(crate) fn sharing(database: Arc<TestDatabase>, wiring: Wiring) -> Self {
        let mut config = Config::new("worker-1", (SCRIPTED.to_owned(), SCRIPTED.to_owned()));
        config.limits.slow_reader = LIMIT;
        let provider = scripted(serde_json::json!({"turns": [{"events": [{"text": "Hello."}]}]}));
        Self {
            database,
            wiring,
            provider,
            registered_as: SCRIPTED,
            models: Registry::new(),
            tool_sources: Vec::new(),
            config,
            sandbox: TestSandbox::new(),
            queue: Arc::new(MemoryQueue::default()),
        }
    }

    /// The other fixture's database, sandbox and broker: another replica.
    pub(crate) fn replica_of(fixture: &Fixture, worker_id: &str) -> Self {
        let mut replica = Self::sharing(fixture.database.clone(), fixture.wiring).sandbox(&fixture.sandbox);
        replica.queue = fixture.queue.clone();
        replica.config(|config| config.worker_id = worker_id.to_owned())
    }

    /// Leases that end soon, for tests that lose workers.
    pub(crate) fn short_leases(self) -> Self {
        self.config(|config| {
            config.lease = SHORT_LEASE;
            config.heartbeat = SHORT_LEASE / 4;
            config.reap_interval = SHORT_LEASE / 4;
        })
    }

    pub(crate) fn script(self, script: Value) -> Self {
        self.provider(scripted(script))
    }

    pub(crate) fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.provider = provider;
        self
    }

    /// The backend's name in the registry.
    pub(crate) fn registered_as(mut self, backend: &'static str) -> Self {
        self.registered_as = backend;
        self
    }

    /// One more backend.
    pub(crate) fn model(mut self, backend: &str, provider: Arc<dyn Provider>) -> Self {
        self.models.insert(backend, provider);
        self
    }

    /// One more place where agents' tools come from.
    pub(crate) fn tool_source(mut self, source: Arc<dyn ToolSource>) -> Self {
        self.tool_sources.push(source);
        self
    }

    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn sandbox(mut self, sandbox: &TestSandbox) -> Self {
        self.sandbox = sandbox.clone();
        self
    }

    pub(crate) async fn build(self) -> Fixture {
        let concierge = FakeConcierge::default();
        let queue = self.queue;
        let tasks = Tasks::new();
        let outbox = Outbox::new(copass_agent_runner::SERVICE);
        let deps = Deps {
            db: self.database.db(),
            queue: queue.clone() as Arc<dyn Queue>,
            models: Arc::new(self.models.with(self.registered_as, self.provider)),
            prices: Arc::new(Prices::builtin().unwrap()),
            tool_sources: self.tool_sources,
            concierge: self.wiring.connect(concierge.routes(), "concierge").await,
            outbox: outbox.clone(),
            master_key: master_key(),
            tasks: tasks.clone(),
        };
        let runner = AgentRunner::create(self.config, deps);
        let transport = self.wiring.connect(runner.routes(), "agent-runner").await;
        let db = self.database.db();
        Fixture {
            runner,
            transport,
            concierge,
            queue,
            tasks,
            sandbox: self.sandbox,
            wiring: self.wiring,
            outbox,
            db,
            database: self.database,
        }
    }
}

pub(crate) fn scripted(script: Value) -> Arc<dyn Provider> {
    Arc::new(Scripted::from_value(script).expect("a valid script"))
}

/// The caller as the concierge service passes it on.
pub(crate) fn via_concierge(mut context: CallContext) -> CallContext {
    context.principal.via = vec!["gateway".to_owned(), "concierge".to_owned()];
    context
}

/// The tools every turn is offered: reading ones and changing ones.
pub(crate) fn tools() -> Vec<ToolSpec> {
    let tool = |name: &str, read_only| ToolSpec {
        name: name.to_owned(),
        description: format!("does {name}"),
        input_schema_json: r#"{"type":"object"}"#.to_owned(),
        read_only,
    };
    vec![
        tool("list_sandboxes", true),
        tool("list_agents", true),
        tool("list_runs", true),
        tool("create_agent", false),
        tool("create_trigger", false),
        tool("mint_key", false),
    ]
}

impl Fixture {
    pub(crate) fn runs(&self) -> RunServiceClient<Transport> {
        RunServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn agents(&self) -> AgentServiceClient<Transport> {
        AgentServiceClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) fn turn(&self, message: &str) -> StartSystemTurnRequest {
        StartSystemTurnRequest {
            sandbox_id: self.sandbox.id.to_string(),
            system_agent: "concierge".to_owned(),
            system_prompt: "You are the Concierge.".to_owned(),
            message: message.to_owned(),
            session_id: None,
            tools: tools(),
            limits: None,
        }
    }

    /// Starts a turn as the caller, through the concierge.
    pub(crate) async fn start(&self, caller: &CallContext, turn: StartSystemTurnRequest) -> Result<Turn, Error> {
        let request = via_concierge(caller.clone()).request(turn);
        let stream = self
            .runs()
            .start_system_turn(request)
            .await
            .map_err(Error::from)?
            .into_inner();
        Ok(Turn::new(stream))
    }

    /// Publishes what waits in the outbox, as the node does.
    pub(crate) fn start_relay(&self) {
        let (outbox, db, queue) = (self.outbox.clone(), self.db.clone(), self.queue.clone());
        let publish = move |message: OutboxMessage| {
            let queue = queue.clone();
            async move {
                let name = QueueName::new(message.destination).map_err(|error| error.to_string())?;
                let message = Message {
                    id: message.id.to_string(),
                    kind: message.kind,
                    body: message.body,
                    headers: message.headers,
                    attempt: 1,
                };
                queue.publish(&name, message).await.map_err(|error| error.to_string())
            }
        };
        self.tasks.spawn(Phase::Serve, "outbox relay", move |stop| {
            outbox.relay(db, Broker::Durable, publish, stop)
        });
    }

    /// Starts a turn as the owner with a limit of time.
    pub(crate) async fn start_within(&self, message: &str, timeout: Duration) -> Turn {
        let mut turn = self.turn(message);
        turn.limits = Some(RunLimits {
            max_turns: 0,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap(),
        });
        self.start(&self.sandbox.owner(), turn).await.unwrap()
    }

    /// One whole turn as the owner.
    pub(crate) async fn say(&self, message: &str) -> Turn {
        self.say_as(&self.sandbox.owner(), message, None).await
    }

    pub(crate) async fn say_as(&self, caller: &CallContext, message: &str, session_id: Option<&str>) -> Turn {
        let mut request = self.turn(message);
        request.session_id = session_id.map(str::to_owned);
        let mut turn = self.start(caller, request).await.unwrap();
        turn.finish_reading().await;
        turn
    }

    pub(crate) async fn run_row_as(&self, caller: &CallContext, run_id: &str) -> Result<Run, Error> {
        let request = GetRunRequest {
            sandbox_id: self.sandbox.id.to_string(),
            run_id: run_id.to_owned(),
        };
        let run = self
            .runs()
            .get_run(caller.request(request))
            .await
            .map_err(Error::from)?;
        Ok(run.into_inner())
    }

    pub(crate) async fn run_row(&self, run_id: &str) -> Run {
        self.run_row_as(&self.sandbox.owner(), run_id).await.unwrap()
    }

    /// Waits for the run's status; fails when another final one comes.
    pub(crate) async fn run_becomes(&self, run_id: &str, status: &str, limit: Duration) -> Run {
        eventually(limit, async || {
            let run = self.run_row(run_id).await;
            assert!(
                run.status == "running" || run.status == status,
                "{} {:?}",
                run.status,
                run.error_message
            );
            run.status == status
        })
        .await;
        self.run_row(run_id).await
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let mut conn = self.db.read().await.unwrap();
        copass_store::fetch_one!(conn, (i64,), sql).unwrap().0
    }
}

/// A turn being read. Dropping it is a client that goes away.
pub(crate) struct Turn {
    stream: Streaming<RunFrame>,
    pub(crate) seen: Vec<Frame>,
    /// The places of the frames in the run's sequence.
    pub(crate) ids: Vec<String>,
}

impl Turn {
    pub(crate) fn new(stream: Streaming<RunFrame>) -> Self {
        Self {
            stream,
            seen: Vec::new(),
            ids: Vec::new(),
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let message = tokio::time::timeout(LIMIT, self.stream.message())
            .await
            .expect("a frame in time");
        let message = message.expect("the stream does not break")?;
        let frame = message.frame.expect("a frame with content");
        self.seen.push(frame.clone());
        self.ids.push(message.id);
        Some(frame)
    }

    /// Reads until a frame fits.
    pub(crate) async fn until(&mut self, fits: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().await.expect("the stream goes on");
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// Reads to the end and checks what holds for every stream (`sse.md` 4).
    pub(crate) async fn finish_reading(&mut self) {
        while self.next().await.is_some() {}
        assert!(
            matches!(self.seen.first(), Some(Frame::RunStarted(_))),
            "{:?}",
            self.seen
        );
        let terminal = self.seen.iter().filter(|frame| is_terminal(frame)).count();
        assert!(
            terminal == 1 && self.seen.last().is_some_and(is_terminal),
            "{:?}",
            self.seen
        );
        let started = self
            .seen
            .iter()
            .filter(|frame| matches!(frame, Frame::RunStarted(_)))
            .count();
        assert_eq!(started, 1);
        for (index, frame) in self.seen.iter().enumerate() {
            if let Frame::AgentToolResult(result) = frame {
                let is_call = |frame: &Frame| matches!(frame, Frame::AgentToolCall(call) if call.call_id == result.call_id && call.name == result.name);
                assert_eq!(
                    self.seen[..index].iter().filter(|frame| is_call(frame)).count(),
                    1,
                    "{result:?}"
                );
                assert!(serde_json::from_str::<Value>(&result.result_json).unwrap().is_object());
            }
        }
    }

    pub(crate) fn run_id(&self) -> String {
        match self.seen.first() {
            Some(Frame::RunStarted(started)) => started.run_id.clone(),
            other => panic!("not a start: {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> String {
        let text = |frame: &Frame| match frame {
            Frame::AgentTextDelta(delta) => Some(delta.text.clone()),
            _ => None,
        };
        self.seen.iter().filter_map(text).collect()
    }

    pub(crate) fn session_id(&self) -> String {
        self.finish().session_id.clone().expect("a session")
    }

    pub(crate) fn finish(&self) -> &copass_proto::run::RunFinished {
        match self.seen.last() {
            Some(Frame::AgentFinish(finish)) => finish,
            other => panic!("not a finish: {other:?}"),
        }
    }

    pub(crate) fn error(&self) -> &copass_proto::run::RunFailed {
        match self.seen.last() {
            Some(Frame::AgentError(error)) => error,
            other => panic!("not an error: {other:?}"),
        }
    }

    pub(crate) fn results(&self) -> Vec<&copass_proto::run::ToolResultFrame> {
        fn result(frame: &Frame) -> Option<&copass_proto::run::ToolResultFrame> {
            if let Frame::AgentToolResult(result) = frame {
                Some(result)
            } else {
                None
            }
        }
        self.seen.iter().filter_map(result).collect()
    }
}

pub(crate) fn is_terminal(frame: &Frame) -> bool {
    matches!(frame, Frame::AgentFinish(_) | Frame::AgentError(_))
}

pub(crate) fn is_text(frame: &Frame) -> bool {
    matches!(frame, Frame::AgentTextDelta(_))
}

pub(crate) fn is_call(frame: &Frame) -> bool {
    matches!(frame, Frame::AgentToolCall(_))
}

#[track_caller]
pub(crate) fn assert_code<T: std::fmt::Debug>(outcome: Result<T, Error>, code: ErrorCode) -> Error {
    let error = outcome.expect_err("it must be refused");
    assert_eq!(error.code(), code, "{error}");
    error
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Turn").field(&self.seen).finish()
    }
}
