//! Tools behind a real HTTP server that does everything wrong.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use copass_agent_runner::tool_sources::HttpToolSource;
use copass_runtime::egress::Egress;
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::support::{Builder, Fixture};

on_both_databases! {
    a_server_lists_and_calls
    a_list_that_is_none_costs_the_source_its_place
    what_goes_wrong_in_a_call_is_told_as_it_is
}

/// What the server does with a request.
#[derive(Debug, Clone)]
enum Reply {
    Json(u16, Value),
    Raw(&'static str),
    /// So many bytes of an endless string, then nothing more for ever.
    Long(usize),
    Hangs,
    /// Closes the connection.
    Cut,
}

/// A server on a socket of its own; it ends with the test.
struct ToolServer {
    url: String,
    requests: Arc<Mutex<Vec<Value>>>,
    stop: CancellationToken,
}

impl Drop for ToolServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(list: Reply, calls: fn(&str) -> Reply) -> ToolServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = ToolServer {
        url: format!("http://{}/tools", listener.local_addr().unwrap()),
        requests: Arc::default(),
        stop: CancellationToken::new(),
    };
    let (stop, requests) = (server.stop.clone(), server.requests.clone());
    let tracker = TaskTracker::new();
    let connections = tracker.clone();
    tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer(socket, list.clone(), calls, requests.clone());
            connections.spawn(stop.clone().run_until_cancelled_owned(answer));
        }
    }));
    server
}

async fn answer(mut socket: TcpStream, list: Reply, calls: fn(&str) -> Reply, requests: Arc<Mutex<Vec<Value>>>) {
    let mut head = Vec::new();
    let mut body = Vec::new();
    let mut chunk = [0; 4096];
    // One request per connection is all these tests need.
    loop {
        let text = String::from_utf8_lossy(&head).into_owned();
        if let Some((before, after)) = text.split_once("\r\n\r\n") {
            let length = before
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(str::to_owned));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if after.len() >= length {
                body.extend_from_slice(after.as_bytes());
                break;
            }
        }
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&chunk[..read]),
        }
    }
    let reply = if head.starts_with(b"GET /tools?token=hunter2 ") {
        list
    } else {
        assert!(head.starts_with(b"POST /tools/call?token=hunter2 "));
        let request: Value = serde_json::from_slice(&body).unwrap();
        requests.lock().unwrap().push(request.clone());
        calls(request["name"].as_str().unwrap())
    };
    let (status, text) = match reply {
        Reply::Json(status, value) => (status, value.to_string()),
        Reply::Raw(text) => (200, text.to_owned()),
        Reply::Hangs => std::future::pending().await,
        Reply::Cut => return,
        Reply::Long(bytes) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"x\":\"";
            let mut sent = socket.write_all(head.as_bytes()).await;
            let piece = "x".repeat(64 * 1024);
            for _ in 0..bytes / piece.len() {
                if sent.is_err() {
                    return;
                }
                sent = socket.write_all(piece.as_bytes()).await;
            }
            std::future::pending().await
        }
    };
    let reply = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    let _ = socket.write_all(reply.as_bytes()).await;
}

fn listing() -> Reply {
    let tool =
        |name: &str, read_only| json!({"name": name, "input_schema": {"type": "object"}, "read_only": read_only});
    Reply::Json(
        200,
        json!({"tools": [tool("look", true), tool("make", false), tool("send", false)]}),
    )
}

fn source(server: &ToolServer, timeout: Duration) -> Arc<HttpToolSource> {
    // What the operator has put there is nobody else's.
    let url: url::Url = format!("{}?token=hunter2", server.url).parse().unwrap();
    let client = Egress::new().unwrap().operator(&url);
    Arc::new(HttpToolSource::new("http", url, client, timeout).unwrap())
}

async fn fixture(database: TestDatabase, server: &ToolServer, script: Value) -> Fixture {
    let fixture = Builder::new(database, Wiring::Local)
        .script(script)
        .tool_source(source(server, Duration::from_millis(200)))
        .config(|config| config.source_patience = Duration::from_millis(500))
        .build()
        .await;
    fixture.make_agent().await;
    fixture
}

/// One answer that calls each of these, then a last word.
fn calling(names: &[&str]) -> Value {
    let calls: Vec<Value> = names
        .iter()
        .map(|name| json!({"tool_call": {"name": name, "arguments": {"n": 1}}}))
        .collect();
    json!({"turns": [{"events": calls}, {"events": [{"text": "Done."}]}]})
}

async fn a_server_lists_and_calls(database: TestDatabase) {
    let server = serve(listing(), |name| match name {
        "look" => Reply::Json(200, json!({"result": ["a", "b"]})),
        "make" => Reply::Json(200, json!({"result": {"id": 7}, "error": ""})),
        _ => Reply::Json(200, json!({"result": {"code": "taken"}, "error": "the name is taken"})),
    })
    .await;
    let fixture = fixture(database, &server, calling(&["look", "make", "send"])).await;
    let turn = fixture.fired(&json!({})).await;
    assert_eq!(turn.text(), "Done.");
    let results: Vec<_> = turn
        .results()
        .iter()
        .map(|result| (result.result_json.as_str(), result.error.as_deref()))
        .collect();
    assert_eq!(
        results,
        [
            (r#"{"result":["a","b"]}"#, None),
            (r#"{"id":7}"#, None),
            (r#"{"code":"taken"}"#, Some("the name is taken"))
        ]
    );
    let requests = server.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 3);
    let mut keys = Vec::new();
    for request in &requests {
        assert_eq!(request["arguments"], json!({"n": 1}));
        assert_eq!(request["run_id"], json!(turn.run_id()));
        keys.push(request["idempotency_key"].as_str().unwrap().to_owned());
        assert!(keys.last().unwrap().is_ascii() && keys.last().unwrap().starts_with(&turn.run_id()));
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3, "each call has a key of its own");
    let run = fixture.run_row(&turn.run_id()).await;
    let states: Vec<&str> = run.steps.iter().map(|step| step.state.as_str()).collect();
    assert_eq!(states, ["done", "done", "done", "failed", "done"]);
}

async fn a_list_that_is_none_costs_the_source_its_place(database: TestDatabase) {
    let database = Arc::new(database);
    for (list, word) in [
        (Reply::Hangs, "did not tell its tools within 0.5 s"),
        (Reply::Long(50 * 1024 * 1024), "is longer than 4194304 bytes"),
        // Within the bound, and then nothing more: it never ends.
        (Reply::Long(1024 * 1024), "did not tell its tools within 0.5 s"),
        (
            Reply::Raw("<html>not found</html>"),
            "is not what a tool server answers",
        ),
        (Reply::Raw("[]"), "is not what a tool server answers"),
        (
            Reply::Json(500, json!({"tools": []})),
            "its server answered 500 Internal Server Error",
        ),
        (Reply::Json(302, json!({"tools": []})), "its server answered 302 Found"),
        (Reply::Cut, "its server does not answer: "),
        (
            Reply::Json(200, json!({"tools": [{"name": "a"}]})),
            "the schema of a is no JSON object",
        ),
    ] {
        let server = serve(list.clone(), |_| Reply::Hangs).await;
        let fixture = Builder::sharing(database.clone(), Wiring::Local)
            .tool_source(source(&server, Duration::from_secs(5)))
            .config(|config| config.source_patience = Duration::from_millis(500))
            .build()
            .await;
        let turn = fixture.ran_ad_hoc(fixture.ad_hoc("hello")).await;
        assert_eq!(turn.text(), "Hello.", "the run goes on");
        let warnings = fixture.warnings(&turn.run_id()).await;
        assert!(
            warnings.iter().any(|warning| warning.contains(word)),
            "{list:?}: {warnings:?}"
        );
        let run = format!("{:?}", fixture.run_row(&turn.run_id()).await);
        assert!(!run.contains("hunter2") && !run.contains("http://"), "{list:?}: {run}");
    }
}

async fn what_goes_wrong_in_a_call_is_told_as_it_is(database: TestDatabase) {
    let database = Arc::new(database);
    // What a server refuses was not done; of everything else nobody knows whether a change took effect.
    for (reply, state, word) in [
        (Reply::Json(400, json!({"error": "no"})), "failed", "400"),
        (Reply::Json(404, json!({})), "failed", "404"),
        (Reply::Json(500, json!({})), "unknown", "500"),
        (Reply::Json(302, json!({})), "unknown", "302"),
        (Reply::Hangs, "unknown", "did not answer within 0.2 s"),
        (Reply::Raw("not json"), "unknown", "not the JSON of an answer"),
        (Reply::Raw(""), "unknown", "not the JSON of an answer"),
        (Reply::Long(9 * 1024 * 1024), "unknown", "is longer than 8388608 bytes"),
    ] {
        static REPLY: Mutex<Option<Reply>> = Mutex::new(None);
        *REPLY.lock().unwrap() = Some(reply.clone());
        let server = serve(listing(), |_| REPLY.lock().unwrap().clone().unwrap()).await;
        let timeout = if matches!(reply, Reply::Long(_)) { 5000 } else { 200 };
        let fixture = Builder::sharing(database.clone(), Wiring::Local)
            .script(calling(&["make"]))
            .tool_source(source(&server, Duration::from_millis(timeout)))
            .build()
            .await;
        let turn = fixture.ran_ad_hoc(fixture.ad_hoc("go")).await;
        assert_eq!(turn.text(), "Done.");
        let error = turn.results()[0].error.clone().unwrap();
        assert!(error.contains(word), "{reply:?}: {error}");
        let run = fixture.run_row(&turn.run_id()).await;
        assert_eq!(run.steps[1].state, state, "{reply:?}");
        assert_eq!(
            run.warnings_json.contains("the outcome of make"),
            state == "unknown",
            "{reply:?}"
        );
        assert_eq!(
            server.requests.lock().unwrap().len(),
            1,
            "nothing is repeated by itself"
        );
    }
}
