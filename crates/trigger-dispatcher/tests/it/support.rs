//! The service under test, short ways to call it, and rows to read: triggers are made by a later issue.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use copass_errors::Error;
use copass_proto::{
    Transport,
    trigger::{GetTriggerRequest, ListTriggersRequest, Trigger, trigger_service_client::TriggerServiceClient},
};
use copass_queue::Queue;
use copass_runtime::{CallContext, Tasks, clock};
use copass_store::{Json, execute};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, master_key, memory_queue};
use copass_trigger_dispatcher::{Config, Deps, SERVICE, TriggerDispatcher};
use copass_types::{AgentId, DataSourceId, TriggerId};
use serde_json::Value;

/// Long enough for a loaded machine; only a failing test waits for it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Fixture {
    pub(crate) client: TriggerServiceClient<Transport>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) tasks: Tasks,
    pub(crate) database: TestDatabase,
}

/// A row, as a later issue will write it.
#[derive(Clone)]
pub(crate) struct NewTrigger {
    pub(crate) agent_id: AgentId,
    pub(crate) data_source_id: DataSourceId,
    pub(crate) event_type_filter: &'static str,
    pub(crate) filter_config: Option<Value>,
    pub(crate) status: &'static str,
    pub(crate) rate_limit_per_hour: Option<i64>,
    pub(crate) last_fired_at: Option<DateTime<Utc>>,
    pub(crate) fire_count: i64,
}

impl NewTrigger {
    pub(crate) fn of(agent_id: &AgentId) -> Self {
        Self {
            agent_id: agent_id.clone(),
            data_source_id: DataSourceId::generate(),
            event_type_filter: "*",
            filter_config: None,
            status: "active",
            rate_limit_per_hour: None,
            last_fired_at: None,
            fire_count: 0,
        }
    }
}

impl Fixture {
    pub(crate) async fn new(database: TestDatabase, wiring: Wiring) -> Self {
        let (tasks, queue) = (Tasks::new(), memory_queue());
        let deps = Deps {
            db: database.db(),
            queue: Arc::clone(&queue),
            master_key: master_key(),
            tasks: tasks.clone(),
        };
        let service = TriggerDispatcher::create(Config::default(), deps);
        service.start();
        let client = TriggerServiceClient::new(wiring.connect(service.routes(), SERVICE).await);
        Self {
            client,
            queue,
            tasks,
            database,
        }
    }

    pub(crate) async fn insert(&self, sandbox: &TestSandbox, trigger: NewTrigger) -> String {
        let id = TriggerId::generate();
        let mut tx = self.database.begin().await.unwrap();
        execute!(
            tx,
            "insert into triggers (id, sandbox_id, user_id, agent_id, data_source_id, event_type_filter, \
             filter_config, status, rate_limit_per_hour, last_fired_at, fire_count, created_at, updated_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)",
            id.as_str(),
            sandbox.id.as_str(),
            sandbox.owner_user_id.as_str(),
            trigger.agent_id.as_str(),
            trigger.data_source_id.as_str(),
            trigger.event_type_filter,
            trigger.filter_config.as_ref().map(Json),
            trigger.status,
            trigger.rate_limit_per_hour,
            trigger.last_fired_at,
            trigger.fire_count,
            clock::now(),
        )
        .unwrap();
        tx.commit().await.unwrap();
        id.to_string()
    }

    pub(crate) async fn list(&self, caller: &CallContext, request: ListTriggersRequest) -> Result<Vec<Trigger>, Error> {
        Ok(self
            .client
            .clone()
            .list_triggers(caller.request(request))
            .await?
            .into_inner()
            .triggers)
    }

    pub(crate) async fn get(&self, caller: &CallContext, request: GetTriggerRequest) -> Result<Trigger, Error> {
        Ok(self
            .client
            .clone()
            .get_trigger(caller.request(request))
            .await?
            .into_inner())
    }
}

pub(crate) fn list_of(sandbox: &TestSandbox, agent_id: &AgentId) -> ListTriggersRequest {
    ListTriggersRequest {
        sandbox_id: sandbox.id.to_string(),
        agent_id: agent_id.to_string(),
        ..ListTriggersRequest::default()
    }
}

pub(crate) fn get_one(sandbox: &TestSandbox, agent_id: &AgentId, trigger_id: &str) -> GetTriggerRequest {
    GetTriggerRequest {
        sandbox_id: sandbox.id.to_string(),
        agent_id: agent_id.to_string(),
        trigger_id: trigger_id.to_owned(),
    }
}
