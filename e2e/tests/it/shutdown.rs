//! SIGTERM and SIGINT: an orderly end within five seconds, also while a stream is open, and nothing is lost.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    cancel::script,
    harness::{
        Cluster, Settings, Shape, Tenant,
        cluster::{AGENT_RUNNER, CONCIERGE, DEV, DISPATCHER, GATEWAY, INGESTION, STOP_LIMIT},
        process::Ended,
        stream::Chat,
    },
};

async fn slow(person: &Tenant) -> Chat {
    let mut chat = person.chat("slow", None).await;
    chat.read_until(|frame| frame.event == "agent_text_delta").await;
    chat
}

#[track_caller]
fn expect_clean(ended: &Ended, what: &str) {
    assert_eq!(ended.code(), 0, "{what}: {}", ended.stderr.join("\n"));
    let bad = ended
        .stderr
        .iter()
        .find(|line| line.contains("panicked") || line.contains(" ERROR ") || line.contains("grace limit"));
    assert_eq!(bad, None, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_ends_in_order_and_keeps_everything() {
    let mut cluster = Cluster::start(Shape::Dev, Settings::script(script())).await.unwrap();
    let first_ready = cluster.ready.clone();
    let person = cluster.tenant("person").await;
    let agent = person.agent("kept").await;

    let chat = slow(&person).await;
    let run_id = chat.run_id.clone();
    let (frames, ended) = tokio::join!(chat.finish(), cluster.stop(DEV));
    assert_eq!(frames.last().unwrap().event, "agent_error");
    assert_eq!(frames.last().unwrap().data["type"], "Cancelled");
    expect_clean(&ended, "dev");
    // One line, and nothing else, for the program that started it.
    assert_eq!(ended.stdout.len(), 1, "{:?}", ended.stdout);
    let ready: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let mut fields: Vec<&String> = ready.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["api_key", "elapsed_ms", "email", "event", "sandbox_id", "url"]);
    assert!(ready["elapsed_ms"].is_u64() && ready["event"] == "ready");

    cluster.start_process(DEV).await;
    for field in ["api_key", "email", "sandbox_id"] {
        assert_eq!(cluster.ready[field], first_ready[field], "{field}");
    }
    let person = Tenant {
        api: person.api.at(&cluster.url),
        ..person
    };
    assert_eq!(person.api.get(&person.path("/agents/kept")).await.expect(200), agent);
    assert_eq!(person.run_status(&run_id).await, "cancelled");

    // Ctrl-C, with nothing going on.
    cluster.process(DEV).signal(Signal::SIGINT);
    expect_clean(&cluster.stop(DEV).await, "dev after SIGINT and SIGTERM");
    cluster.start_process(DEV).await;
    // A model that says nothing does not keep the process.
    let person = Tenant {
        api: person.api.at(&cluster.url),
        ..person
    };
    let chat = person.chat("silent", None).await;
    let (frames, ended) = tokio::join!(chat.finish(), cluster.stop(DEV));
    assert!(frames.last().unwrap().is_terminal());
    expect_clean(&ended, "dev with a silent model");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_ends_in_order_while_a_stream_is_open() {
    let Some(mut cluster) = Cluster::start(Shape::Separate, Settings::script(script())).await else {
        return;
    };
    let person = cluster.tenant("person").await;
    person.agent("kept").await;
    for name in [DISPATCHER, INGESTION, AGENT_RUNNER, CONCIERGE, GATEWAY] {
        let chat = slow(&person).await;
        let run_id = chat.run_id.clone();
        if [DISPATCHER, INGESTION].contains(&name) {
            // Not on the way of this stream: it goes on.
            expect_clean(&cluster.stop(name).await, name);
            assert_eq!(person.run_status(&run_id).await, "running", "{name}");
            drop(chat);
        } else {
            let (frames, ended) = tokio::join!(chat.finish(), cluster.stop(name));
            assert_eq!(frames.last().unwrap().event, "agent_error", "{name}");
            assert_eq!(
                frames.last().unwrap().data["type"],
                "Cancelled",
                "{name}: {:?}",
                frames.last()
            );
            expect_clean(&ended, name);
            assert!(ended.stdout.is_empty(), "{name}: {:?}", ended.stdout);
        }
        cluster.start_process(name).await;
        cluster.wait_ready().await;
        copass_test_support::eventually(STOP_LIMIT, || async {
            let row = person.api.get(&person.path(&format!("/agents/runs/{run_id}"))).await;
            row.status == 200 && row.body["status"] == "cancelled"
        })
        .await;
        copass_test_support::eventually(STOP_LIMIT, || async {
            person.api.get(&person.path("/agents/kept")).await.status == 200
        })
        .await;
    }
    person.turn("hello", None).await;
    for name in [GATEWAY, CONCIERGE, AGENT_RUNNER, DISPATCHER, INGESTION] {
        expect_clean(&cluster.stop(name).await, name);
    }
}
