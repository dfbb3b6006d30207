//! A client that goes away in the middle of a stream cancels its run within two seconds.

use std::{process::Command, time::Duration};

use copass_test_support::eventually;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Settings, Shape, Tenant,
    cluster::{DEV, INGESTION},
    on_both_shapes,
    process::Process,
};

on_both_shapes! {
    a_client_that_goes_cancels_its_run
}

/// The promise of issue 2.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn script() -> Value {
    let call = |name: &str| json!({"tool_call": {"name": name, "arguments": {}}});
    json!({
        "match": [
            {"contains": "slow", "turns": [{"events": [{"text": "Let me "}, {"repeat": {"count": 100_000, "text": "see ", "interval_ms": 20}}]}]},
            {"contains": "stall", "turns": [{"events": [{"text": "Well, "}, {"hang": true}]}]},
            {"contains": "silent", "turns": [{"events": [{"hang": true}]}]},
            {"contains": "one tool", "turns": [{"events": [call("list_sources")]}, {"events": [{"text": "Done."}]}]},
            {"contains": "many tools", "turns": [{"events": vec![call("list_agents"); 60]}, {"events": [{"hang": true}]}]},
        ],
        "turns": [{"events": [{"text": "Hello."}]}],
    })
}

async fn a_client_that_goes_cancels_its_run(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::script(script())).await else {
        return;
    };
    let person = cluster.tenant("person").await;
    let text = |frame: &crate::harness::stream::Frame| frame.event == "agent_text_delta";

    // In the middle of a text, and while the model says nothing for a long time.
    for message in ["slow", "stall"] {
        let mut chat = person.chat(message, None).await;
        chat.read_until(text).await;
        assert_eq!(person.run_status(&chat.run_id).await, "running");
        let run_id = chat.run_id.clone();
        drop(chat);
        expect_cancelled(&person, &run_id).await;
    }
    let chat = person.chat("silent", None).await;
    let run_id = chat.run_id.clone();
    drop(chat);
    expect_cancelled(&person, &run_id).await;

    // While tools run.
    let mut chat = person.chat("many tools", None).await;
    chat.read_until(|frame| frame.event == "agent_tool_call").await;
    let run_id = chat.run_id.clone();
    drop(chat);
    expect_cancelled(&person, &run_id).await;
    if shape == Shape::Separate {
        // A service that stands still keeps the tool call open.
        cluster.process(INGESTION).signal(Signal::SIGSTOP);
        let mut chat = person.chat("one tool", None).await;
        chat.read_until(|frame| frame.event == "agent_tool_call").await;
        let run_id = chat.run_id.clone();
        drop(chat);
        expect_cancelled(&person, &run_id).await;
        cluster.process(INGESTION).signal(Signal::SIGCONT);
    }

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        a_killed_curl(&person, signal).await;
    }
    // Nothing of them is left, and the system goes on.
    eventually(CANCEL_LIMIT, || async {
        cluster
            .api()
            .get("/metrics")
            .await
            .text
            .lines()
            .any(|line| line == "copass_gateway_open_streams 0")
    })
    .await;
    person.turn("hello", None).await;
    if shape == Shape::Dev {
        assert!(!cluster.process(DEV).stderr().iter().any(|line| line.contains("ERROR")));
    }
}

async fn expect_cancelled(person: &Tenant, run_id: &str) {
    eventually(CANCEL_LIMIT, || async {
        person.run_status(run_id).await == "cancelled"
    })
    .await;
    let row = person.run(run_id).await;
    assert!(row["finished_at"].is_string(), "{row}");
    let open = row["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["state"] == "intended");
    assert_eq!(open, None, "a cancelled run has no open step");
}

/// The client of the documentation, killed by its user.
async fn a_killed_curl(person: &Tenant, signal: Signal) {
    let request = person
        .api
        .request(reqwest::Method::POST, &person.path("/concierge/chat"))
        .build()
        .unwrap();
    let mut command = Command::new("curl");
    command.args([
        "--no-progress-meter",
        "-N",
        "-X",
        "POST",
        request.url().as_str(),
        "--data",
        r#"{"message": "slow"}"#,
    ]);
    for (name, value) in request.headers() {
        command.arg("-H").arg(format!("{name}: {}", value.to_str().unwrap()));
    }
    let mut curl = Process::start("curl", command);
    let limit = Duration::from_secs(20);
    let run_id = |line: &str| {
        let data: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
        data["run_id"].as_str().map(str::to_owned)
    };
    let run_id = curl.find_in_stdout(limit, run_id).await;
    curl.find_in_stdout(limit, |line| line.starts_with("event: agent_text_delta").then_some(()))
        .await;
    curl.signal(signal);
    expect_cancelled(person, &run_id).await;
}
