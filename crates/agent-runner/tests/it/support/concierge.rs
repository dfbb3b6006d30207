//! A concierge service that executes tools as a test says, and remembers who called.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use copass_proto::{
    concierge::{
        CallToolRequest, CallToolResponse, ChatRequest,
        concierge_service_server::{ConciergeService, ConciergeServiceServer},
    },
    run::RunFrame,
};
use copass_runtime::CallContext;
use futures::{Stream, future::BoxFuture};
use serde_json::{Value, json};
use tonic::{Request, Response, Status, service::Routes};

/// What a tool does.
type Tool = Arc<dyn Fn(CallToolRequest) -> BoxFuture<'static, Result<CallToolResponse, Status>> + Send + Sync>;

/// One call as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) request: CallToolRequest,
    pub(crate) context: CallContext,
}

#[derive(Default)]
struct Inner {
    tools: Mutex<HashMap<String, Tool>>,
    calls: Mutex<Vec<Call>>,
    /// Begin and end of calls in order, as `+name` and `-name`.
    log: Mutex<Vec<String>>,
    running: AtomicUsize,
}

/// The fake. Clones share everything.
#[derive(Clone, Default)]
pub(crate) struct FakeConcierge(Arc<Inner>);

impl FakeConcierge {
    pub(crate) fn routes(&self) -> Routes {
        Routes::new(ConciergeServiceServer::new(self.clone()).max_encoding_message_size(64 * 1024 * 1024))
    }

    /// Says what a tool does; every other one answers `{"ok": true}`.
    pub(crate) fn on<F, Fut>(&self, name: &str, tool: F)
    where
        F: Fn(CallToolRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<CallToolResponse, Status>> + Send + 'static,
    {
        let tool: Tool = Arc::new(move |request| Box::pin(tool(request)));
        self.0.tools.lock().unwrap().insert(name.to_owned(), tool);
    }

    pub(crate) fn answers(&self, name: &str, result: Value) {
        let response = CallToolResponse {
            result_json: result.to_string(),
            error: None,
        };
        self.on(name, move |_| std::future::ready(Ok(response.clone())));
    }

    pub(crate) fn hangs(&self, name: &str) {
        self.on(name, |_| std::future::pending());
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.calls.lock().unwrap().clone()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.0.log.lock().unwrap().clone()
    }

    /// Calls whose future is alive.
    pub(crate) fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }
}

/// Counts a call until it is over or dropped.
struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl ConciergeService for FakeConcierge {
    type ChatStream = Pin<Box<dyn Stream<Item = Result<RunFrame, Status>> + Send>>;

    async fn chat(&self, _: Request<ChatRequest>) -> Result<Response<Self::ChatStream>, Status> {
        Err(Status::unimplemented("a fake does not chat"))
    }

    async fn call_tool(&self, request: Request<CallToolRequest>) -> Result<Response<CallToolResponse>, Status> {
        let context = CallContext::of(&request)?;
        let request = request.into_inner();
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(self.0.clone());
        self.0.calls.lock().unwrap().push(Call {
            request: request.clone(),
            context,
        });
        self.0.log.lock().unwrap().push(format!("+{}", request.name));
        let tool = self.0.tools.lock().unwrap().get(&request.name).cloned();
        let name = request.name.clone();
        let answer = match tool {
            Some(tool) => tool(request).await,
            None => Ok(CallToolResponse {
                result_json: json!({"ok": true}).to_string(),
                error: None,
            }),
        };
        self.0.log.lock().unwrap().push(format!("-{name}"));
        answer.map(Response::new)
    }
}
