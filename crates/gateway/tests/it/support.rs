//! A gateway on a real socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use copass_gateway::{AuthCache, Config, Deps};
use copass_runtime::{Tasks, health::Readiness, tasks::Phase};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::fakes::{Fakes, SANDBOX};

pub(crate) struct TestGateway {
    pub(crate) fakes: Fakes,
    pub(crate) address: SocketAddr,
    pub(crate) cache: AuthCache,
    pub(crate) readiness: Readiness,
    pub(crate) tasks: Tasks,
    client: reqwest::Client,
}

impl TestGateway {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            logins_per_minute: 0,
            ..Config::default()
        };
        change(&mut config);
        let fakes = Fakes::default();
        let readiness = Readiness::default();
        let deps = Deps {
            concierge: fakes.transport(),
            agent_runner: fakes.transport(),
            trigger_dispatcher: fakes.transport(),
            ingestion: fakes.transport(),
            readiness: readiness.clone(),
            metrics: Arc::new(|| "up 1\n".to_owned()),
        };
        let gateway = copass_gateway::create(config, deps);
        let cache = gateway.auth_cache();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        tasks.spawn(Phase::Serve, "gateway", |stop| async move {
            gateway.serve(listener, stop).await
        });
        // Only needed because the client is built for TLS too; a second installation is refused, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            fakes,
            address,
            cache,
            readiness,
            tasks,
            client,
        }
    }

    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.address))
            .timeout(Duration::from_secs(20))
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth("olk_alice")
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    /// A Concierge route.
    pub(crate) async fn say(&self, route: &str, message: &str) -> Response {
        let path = format!("/storage/sandboxes/{SANDBOX}/concierge/{route}");
        self.post(&path, &serde_json::json!({ "message": message })).await
    }

    /// Sends bytes as they are and reads until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

/// Checks the shape of an error answer and returns its body.
pub(crate) async fn expect_error(response: Response, status: u16, code: &str) -> Value {
    let found = response.status().as_u16();
    let header = response
        .headers()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    assert_eq!((found, body["error"].as_str().unwrap()), (status, code), "{body}");
    assert_eq!(body["request_id"], header.as_str());
    let detail = &body["detail"];
    assert!(
        detail.as_str().is_some_and(|text| text.len() > 10) || detail.is_array(),
        "{body}"
    );
    body
}

/// Waits for a condition; a test never sleeps for a fixed time.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
