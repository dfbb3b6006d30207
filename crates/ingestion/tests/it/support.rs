//! The service under test and short ways to call it.

use std::{sync::Arc, time::Duration};

use copass_errors::Error;
use copass_ingestion::{Config, Deps, Ingestion, SERVICE};
use copass_proto::{
    Transport,
    source::{
        DataSource, GetSourceRequest, ListSourcesRequest, RegisterSourceRequest,
        source_service_client::SourceServiceClient,
    },
};
use copass_queue::Queue;
use copass_runtime::{CallContext, Tasks};
use copass_store::{Db, fetch_one, outbox::Outbox};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, master_key, memory_queue};

/// Long enough for a loaded machine; only a failing test waits for it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A free tier's limit (`gaps.md` G46).
pub(crate) const MAX_DATA_SOURCES: u64 = 10;

pub(crate) struct Fixture {
    pub(crate) client: SourceServiceClient<Transport>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) tasks: Tasks,
    pub(crate) database: TestDatabase,
}

impl Fixture {
    pub(crate) async fn new(database: TestDatabase, wiring: Wiring) -> Self {
        Self::with_queue(database, wiring, memory_queue()).await
    }

    pub(crate) async fn with_queue(database: TestDatabase, wiring: Wiring, queue: Arc<dyn Queue>) -> Self {
        let tasks = Tasks::new();
        let deps = Deps {
            db: database.db(),
            queue: Arc::clone(&queue),
            outbox: Outbox::new(SERVICE),
            master_key: master_key(),
            tasks: tasks.clone(),
        };
        let service = Ingestion::create(Config::default(), deps);
        service.start();
        let client = SourceServiceClient::new(wiring.connect(service.routes(), SERVICE).await);
        Self {
            client,
            queue,
            tasks,
            database,
        }
    }

    pub(crate) async fn register(
        &self,
        caller: &CallContext,
        request: RegisterSourceRequest,
    ) -> Result<DataSource, Error> {
        Ok(self
            .client
            .clone()
            .register_source(caller.request(request))
            .await?
            .into_inner())
    }

    pub(crate) async fn list(
        &self,
        caller: &CallContext,
        request: ListSourcesRequest,
    ) -> Result<Vec<DataSource>, Error> {
        Ok(self
            .client
            .clone()
            .list_sources(caller.request(request))
            .await?
            .into_inner()
            .sources)
    }

    pub(crate) async fn get(&self, caller: &CallContext, request: GetSourceRequest) -> Result<DataSource, Error> {
        Ok(self
            .client
            .clone()
            .get_source(caller.request(request))
            .await?
            .into_inner())
    }

    /// How many sources there are in all sandboxes.
    pub(crate) async fn rows(&self) -> i64 {
        rows(&self.database).await
    }
}

pub(crate) async fn rows(db: &Db) -> i64 {
    let mut conn = db.read().await.unwrap();
    fetch_one!(conn, (i64,), "select count(*) from data_sources").unwrap().0
}

/// The smallest good registration.
pub(crate) fn registration(sandbox: &TestSandbox) -> RegisterSourceRequest {
    RegisterSourceRequest {
        sandbox_id: sandbox.id.to_string(),
        provider: "custom".to_owned(),
        name: "Notes".to_owned(),
        max_data_sources: MAX_DATA_SOURCES,
        ..RegisterSourceRequest::default()
    }
}

pub(crate) fn list_all(sandbox: &TestSandbox) -> ListSourcesRequest {
    ListSourcesRequest {
        sandbox_id: sandbox.id.to_string(),
        ..ListSourcesRequest::default()
    }
}

pub(crate) fn get_one(sandbox: &TestSandbox, data_source_id: &str) -> GetSourceRequest {
    GetSourceRequest {
        sandbox_id: sandbox.id.to_string(),
        data_source_id: data_source_id.to_owned(),
    }
}
