//! The services that tools call and turns go to: they remember who called and answer as a test says.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use copass_errors::Error;
use copass_proto::{
    agent::{
        Agent, CreateAgentRequest, GetAgentRequest, ListAgentsRequest, ListAgentsResponse, ModelSettings,
        agent_service_server::{AgentService, AgentServiceServer},
    },
    convert,
    run::{
        GetRunRequest, ListRunsRequest, ListRunsResponse, Run, RunFinished, RunFrame, RunStarted,
        StartSystemTurnRequest, TextDelta,
        run_frame::Frame,
        run_service_server::{RunService, RunServiceServer},
    },
    source::{
        DataSource, GetSourceRequest, ListSourcesRequest, ListSourcesResponse, RegisterSourceRequest,
        source_service_server::{SourceService, SourceServiceServer},
    },
    trigger::{
        GetTriggerRequest, ListTriggersRequest, ListTriggersResponse, Trigger,
        trigger_service_server::{TriggerService, TriggerServiceServer},
    },
};
use copass_runtime::{CallContext, clock};
use copass_types::AccessClass;
use futures::{Stream, StreamExt as _, stream};
use prost_types::Timestamp;
use tonic::{Request, Response, Status, service::Routes};

#[derive(Default)]
struct Inner {
    calls: Mutex<Vec<(&'static str, CallContext)>>,
    turns: Mutex<Vec<StartSystemTurnRequest>>,
    created: Mutex<Vec<CreateAgentRequest>>,
    list_limits: Mutex<Vec<u32>>,
    /// Turns whose stream is alive.
    open_turns: AtomicUsize,
    /// Turns begin and do not end.
    endless: Mutex<bool>,
}

/// All fakes. Clones share everything.
#[derive(Clone, Default)]
pub(crate) struct Fakes(Arc<Inner>);

impl Fakes {
    pub(crate) fn agent_runner(&self) -> Routes {
        Routes::new(AgentServiceServer::new(self.clone())).add_service(RunServiceServer::new(self.clone()))
    }

    pub(crate) fn trigger_dispatcher(&self) -> Routes {
        Routes::new(TriggerServiceServer::new(self.clone()))
    }

    pub(crate) fn ingestion(&self) -> Routes {
        Routes::new(SourceServiceServer::new(self.clone()))
    }

    pub(crate) fn endless_turns(&self) {
        *self.0.endless.lock().unwrap() = true;
    }

    pub(crate) fn open_turns(&self) -> usize {
        self.0.open_turns.load(Ordering::SeqCst)
    }

    pub(crate) fn turns(&self) -> Vec<StartSystemTurnRequest> {
        self.0.turns.lock().unwrap().clone()
    }

    pub(crate) fn created(&self) -> Vec<CreateAgentRequest> {
        self.0.created.lock().unwrap().clone()
    }

    pub(crate) fn list_limits(&self) -> Vec<u32> {
        self.0.list_limits.lock().unwrap().clone()
    }

    /// Methods and their callers, in order.
    pub(crate) fn calls(&self) -> Vec<(&'static str, CallContext)> {
        self.0.calls.lock().unwrap().clone()
    }

    /// Checks rights as the real services do.
    fn enter<T>(
        &self,
        method: &'static str,
        request: Request<T>,
        sandbox_id: impl FnOnce(&T) -> String,
        class: AccessClass,
    ) -> Result<T, Status> {
        let context = CallContext::of(&request)?;
        let message = request.into_inner();
        let sandbox_id = convert::id(&sandbox_id(&message), "sandbox")?;
        context.principal.require(&sandbox_id, class).map_err(Error::from)?;
        self.0.calls.lock().unwrap().push((method, context));
        Ok(message)
    }
}

fn now() -> Option<Timestamp> {
    Some(convert::timestamp(clock::now()))
}

fn agent(slug: &str) -> Agent {
    Agent {
        agent_id: "ag_01JAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        slug: slug.to_owned(),
        name: "Support".to_owned(),
        description: Some("Answers".to_owned()),
        system_prompt: "Be kind.".to_owned(),
        tool_allowlist: vec!["search".to_owned()],
        model_settings: Some(ModelSettings {
            backend: "anthropic".to_owned(),
            model: "claude-sonnet-4-6".to_owned(),
            temperature: Some(0.5),
            max_turns: Some(8),
            ..ModelSettings::default()
        }),
        status: "active".to_owned(),
        version: 3,
        created_at: now(),
        updated_at: now(),
        ..Agent::default()
    }
}

#[tonic::async_trait]
impl AgentService for Fakes {
    async fn create_agent(&self, request: Request<CreateAgentRequest>) -> Result<Response<Agent>, Status> {
        let message = self.enter("create_agent", request, |it| it.sandbox_id.clone(), AccessClass::Build)?;
        self.0.created.lock().unwrap().push(message.clone());
        Ok(Response::new(Agent {
            name: message.name,
            version: 1,
            ..agent(&message.slug)
        }))
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        self.enter("list_agents", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        let bare = Agent {
            description: None,
            updated_at: None,
            ..agent("bare")
        };
        Ok(Response::new(ListAgentsResponse {
            agents: vec![agent("support"), bare],
        }))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Result<Response<Agent>, Status> {
        let message = self.enter("get_agent", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        match message.slug.as_str() {
            "missing" => Err(Error::not_found("agent").into()),
            slug => Ok(Response::new(agent(slug))),
        }
    }
}

/// Leaves the count of open turns when it is dropped.
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_turns.fetch_sub(1, Ordering::SeqCst);
    }
}

fn run(run_id: &str) -> Run {
    Run {
        run_id: run_id.to_owned(),
        agent_id: "ag_01JAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        status: "failed".to_owned(),
        tokens_in: Some(12),
        tokens_out: Some(34),
        duration_ms: Some(56),
        error_message: Some("the model said no".to_owned()),
        started_at: now(),
        output_text: Some("text".to_owned()),
        tool_resolution_trace_json: Some(
            r#"{"sources_resolved":["copass_retrieval"],"sources_skipped":[],"tool_names_advertised":["search"],
                "allowlist_filtered_out":[],"allowlist_missing_entries":["gone"],"duration_ms":4}"#
                .to_owned(),
        ),
        ..Run::default()
    }
}

#[tonic::async_trait]
impl RunService for Fakes {
    type StartSystemTurnStream = Pin<Box<dyn Stream<Item = Result<RunFrame, Status>> + Send>>;

    async fn start_system_turn(
        &self,
        request: Request<StartSystemTurnRequest>,
    ) -> Result<Response<Self::StartSystemTurnStream>, Status> {
        let message = self.enter(
            "start_system_turn",
            request,
            |it| it.sandbox_id.clone(),
            AccessClass::Run,
        )?;
        if message.session_id.as_deref() == Some("sess_unknown") {
            return Err(Error::not_found("session").into());
        }
        self.0.turns.lock().unwrap().push(message);
        self.0.open_turns.fetch_add(1, Ordering::SeqCst);
        let open = Open(self.0.clone());
        let frame = |frame| Ok(RunFrame { frame: Some(frame) });
        let begin = [
            frame(Frame::RunStarted(RunStarted {
                run_id: "rn_1".to_owned(),
            })),
            frame(Frame::AgentTextDelta(TextDelta {
                text: "Two sand".to_owned(),
            })),
        ];
        let rest = match *self.0.endless.lock().unwrap() {
            true => stream::pending().left_stream(),
            false => stream::iter([
                frame(Frame::AgentTextDelta(TextDelta {
                    text: "boxes.".to_owned(),
                })),
                frame(Frame::AgentFinish(RunFinished {
                    run_id: "rn_1".to_owned(),
                    ..RunFinished::default()
                })),
            ])
            .right_stream(),
        };
        let frames = stream::iter(begin).chain(rest).map(move |frame| {
            let _open = &open;
            frame
        });
        Ok(Response::new(Box::pin(frames)))
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        let message = self.enter("list_runs", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        self.0.list_limits.lock().unwrap().push(message.limit);
        let bare = Run {
            run_id: "rn_2".to_owned(),
            status: "pending".to_owned(),
            ..Run::default()
        };
        Ok(Response::new(ListRunsResponse {
            agent_slug: message.agent_slug,
            runs: vec![run("rn_1"), bare],
        }))
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Result<Response<Run>, Status> {
        let message = self.enter("get_run", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        match message.run_id.as_str() {
            "rn_old" => Ok(Response::new(Run {
                tool_resolution_trace_json: None,
                ..run("rn_old")
            })),
            run_id => Ok(Response::new(run(run_id))),
        }
    }
}

#[tonic::async_trait]
impl TriggerService for Fakes {
    async fn list_triggers(
        &self,
        request: Request<ListTriggersRequest>,
    ) -> Result<Response<ListTriggersResponse>, Status> {
        self.enter("list_triggers", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        let trigger = Trigger {
            trigger_id: "tr_1".to_owned(),
            data_source_id: "ds_1".to_owned(),
            event_type_filter: "*".to_owned(),
            status: "active".to_owned(),
            fire_count: 7,
            created_at: now(),
            ..Trigger::default()
        };
        let filtered = Trigger {
            filter_config_json: Some(r#"{"channel":"ops"}"#.to_owned()),
            rate_limit_per_hour: Some(5),
            last_fired_at: now(),
            ..trigger.clone()
        };
        Ok(Response::new(ListTriggersResponse {
            triggers: vec![trigger, filtered],
        }))
    }

    async fn get_trigger(&self, _: Request<GetTriggerRequest>) -> Result<Response<Trigger>, Status> {
        Err(Error::not_found("trigger").into())
    }
}

#[tonic::async_trait]
impl SourceService for Fakes {
    async fn register_source(&self, _: Request<RegisterSourceRequest>) -> Result<Response<DataSource>, Status> {
        Err(Error::not_found("source").into())
    }

    async fn list_sources(
        &self,
        request: Request<ListSourcesRequest>,
    ) -> Result<Response<ListSourcesResponse>, Status> {
        self.enter("list_sources", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        Ok(Response::new(ListSourcesResponse {
            sources: vec![source("ds_1")],
        }))
    }

    async fn get_source(&self, request: Request<GetSourceRequest>) -> Result<Response<DataSource>, Status> {
        let message = self.enter("get_source", request, |it| it.sandbox_id.clone(), AccessClass::Read)?;
        Ok(Response::new(source(&message.data_source_id)))
    }
}

fn source(id: &str) -> DataSource {
    DataSource {
        data_source_id: id.to_owned(),
        provider: "slack".to_owned(),
        name: "Slack".to_owned(),
        ingestion_mode: "manual".to_owned(),
        status: "active".to_owned(),
        kind: "durable".to_owned(),
        adapter_config_json: r#"{"channel":"ops"}"#.to_owned(),
        created_at: now(),
        ..DataSource::default()
    }
}
