//! Live streams: a run's frames and the runs of an agent.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    agents::{both_forms, problem_at},
    fakes::{CUT_RUN, FAILING_RUN, LIVE_RUN, RUN, SANDBOX, USER},
    support::{TestGateway, eventually, expect_error},
};

const OPEN: &str = ": open\n\n";

/// Reads until the text says what is expected.
async fn read_until<B: AsRef<[u8]>, E: std::fmt::Debug>(
    chunks: &mut (impl Stream<Item = Result<B, E>> + Unpin),
    expected: &str,
) -> String {
    let mut text = String::new();
    while !text.contains(expected) {
        let chunk = chunks
            .next()
            .await
            .unwrap_or_else(|| panic!("it ended with {text:?}"))
            .unwrap();
        text.push_str(std::str::from_utf8(chunk.as_ref()).unwrap());
    }
    text
}

fn ids(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
}

#[tokio::test]
async fn a_run_is_followed_from_the_first_frame_or_from_any_other() {
    let gateway = TestGateway::start().await;
    for path in both_forms(&format!("/runs/{RUN}/events")) {
        let answer = gateway.get(&path).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let text = answer.text().await.unwrap();
        assert!(text.starts_with(&format!(
            "{OPEN}id: 1\nevent: run_started\ndata: {{\"run_id\":\"{RUN}\"}}\n\nid: 2.3\nevent: agent_text_delta\n"
        )));
        assert_eq!(ids(&text), ["1", "2.3", "2.5", "3"]);
        assert_eq!(text.matches("event: agent_finish").count(), 1);
        assert!(text.ends_with("\n\n") && text.matches(": ").count() > 4);

        for (after, expected) in [
            ("1", vec!["2.3", "2.5", "3"]),
            ("2.3", vec!["2.5", "3"]),
            ("2.5", vec!["3"]),
        ] {
            let by_query = gateway
                .get(&format!("{path}?after={after}"))
                .await
                .text()
                .await
                .unwrap();
            assert_eq!(ids(&by_query), expected);
            let request = gateway.request(Method::GET, &format!("{path}?after=1"));
            let by_header = request.header("last-event-id", after).send().await.unwrap();
            assert_eq!(
                by_header.text().await.unwrap(),
                by_query,
                "the header is newer than the address"
            );
        }
        let request = gateway.request(Method::GET, &path).header("last-event-id", "");
        assert_eq!(ids(&request.send().await.unwrap().text().await.unwrap()).len(), 4);

        // Browsers come again after every other answer.
        let complete = gateway.request(Method::GET, &path).header("last-event-id", "3");
        let complete = complete.send().await.unwrap();
        assert_eq!(
            (complete.status().as_u16(), complete.text().await.unwrap()),
            (204, String::new())
        );
    }
}

#[tokio::test]
async fn malformed_places_are_422_and_foreign_things_404() {
    let gateway = TestGateway::start().await;
    let path = &both_forms(&format!("/runs/{RUN}/events"))[0];
    for bad in ["x", "-1", "1.2.3", "1.", "99999999999999999999"] {
        let by_query = gateway.get(&format!("{path}?after={bad}")).await;
        assert_eq!(problem_at(by_query).await, json!(["query", "after"]), "{bad}");
        let by_header = gateway.request(Method::GET, path).header("last-event-id", bad);
        let loc = problem_at(by_header.send().await.unwrap()).await;
        assert_eq!(loc, json!(["header", "Last-Event-ID"]), "{bad}");
    }
    let unreadable = gateway.request(Method::GET, path).header("last-event-id", &b"\xff"[..]);
    assert_eq!(
        problem_at(unreadable.send().await.unwrap()).await,
        json!(["header", "Last-Event-ID"])
    );
    let runs = &both_forms("/helper/runs/stream")[0];
    assert_eq!(
        problem_at(gateway.get(&format!("{runs}?after=a%20b")).await).await,
        json!(["query", "after"])
    );
    // Only the service behind can read it, and does not know how it came.
    assert_eq!(
        problem_at(gateway.get(&format!("{runs}?after=unreadable")).await).await,
        json!(["query", "after"])
    );
    let by_header = gateway.request(Method::GET, runs).header("last-event-id", "unreadable");
    assert_eq!(
        problem_at(by_header.send().await.unwrap()).await,
        json!(["header", "Last-Event-ID"])
    );
    assert_eq!(
        problem_at(gateway.get(&format!("{runs}?backlog=all")).await).await,
        json!(["query", "backlog"])
    );
    for slug in ["unknown", "Not-a-slug", "runs"] {
        let answer = gateway.get(&both_forms(&format!("/{slug}/runs/stream"))[1]).await;
        expect_error(answer, 404, "not_found").await;
    }
}

#[tokio::test]
async fn what_breaks_ends_without_a_made_up_frame() {
    let gateway = TestGateway::start().await;
    for run_id in [CUT_RUN, FAILING_RUN] {
        let text = gateway
            .get(&both_forms(&format!("/runs/{run_id}/events"))[0])
            .await
            .text()
            .await
            .unwrap();
        assert_eq!(ids(&text), ["1", "2.3"]);
        assert!(
            !text.contains("agent_error") && !text.contains("runner is gone"),
            "{text}"
        );
        assert!(text.ends_with("go on with Last-Event-ID\n\n"), "{text}");
    }
}

#[tokio::test]
async fn a_follower_hears_that_the_stream_lives_and_may_leave() {
    let gateway = TestGateway::with(|config| config.sse_keep_alive = Duration::from_millis(20)).await;
    for path in [
        both_forms(&format!("/runs/{LIVE_RUN}/events"))[0].clone(),
        both_forms("/helper/runs/stream")[0].clone(),
    ] {
        gateway.fakes.0.stream_dropped.store(false, Ordering::SeqCst);
        let mut chunks = gateway.get(&path).await.bytes_stream();
        read_until(&mut chunks, ": ping\n\n").await;
        read_until(&mut chunks, ": ping\n\n").await;
        assert!(!gateway.fakes.0.stream_dropped.load(Ordering::SeqCst));
        drop(chunks);
        eventually("the stream behind it is dropped", || {
            gateway.fakes.0.stream_dropped.load(Ordering::SeqCst)
        })
        .await;
    }
    let cancelled = gateway
        .fakes
        .0
        .messages
        .lock()
        .iter()
        .any(|message| message.contains("Cancel"));
    assert!(!cancelled, "leaving changes nothing");
}

#[tokio::test]
async fn runs_of_an_agent_come_as_rows() {
    let gateway = TestGateway::start().await;
    for path in both_forms("/helper/runs/stream") {
        let mut chunks = gateway.get(&format!("{path}?backlog=2")).await.bytes_stream();
        let text = read_until(&mut chunks, "id: c1\n").await;
        let events: Vec<_> = text.strip_prefix(OPEN).unwrap().trim_end().split("\n\n").collect();
        assert_eq!(events.len(), 2, "what waits comes in one piece: {text}");
        let lines: Vec<_> = events[0].split('\n').collect();
        assert_eq!(lines[..2], ["id: c0", "event: run"]);
        let row: Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&row["run_id"], &row["status"]), (&json!(RUN), &json!("succeeded")));
        assert_eq!(row["warnings"], json!(["no key: the planner answered"]));
        drop(chunks);
    }
    let request = gateway.request(
        Method::GET,
        &format!("{}?backlog=5000", both_forms("/helper/runs/stream")[0]),
    );
    drop(request.header("last-event-id", "c7").send().await.unwrap());
    let message = gateway.fakes.last_message();
    assert!(message.contains(r#"after: Some("c7"), backlog: 100"#), "{message}");
}

#[tokio::test]
async fn a_stopping_server_lets_followers_go_and_cancels_no_run() {
    let gateway = TestGateway::start().await;
    let mut streams = Vec::new();
    for path in [
        both_forms(&format!("/runs/{LIVE_RUN}/events"))[0].clone(),
        both_forms("/helper/runs/stream")[0].clone(),
    ] {
        let mut chunks = gateway.get(&path).await.bytes_stream();
        read_until(&mut chunks, OPEN).await;
        streams.push(chunks);
    }
    let started = Instant::now();
    assert!(gateway.tasks.shut_down(Duration::from_secs(10)).await);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for mut chunks in streams {
        let text = read_until(&mut chunks, "go on with Last-Event-ID\n\n").await;
        assert!(!text.contains("agent_error"), "{text}");
        assert!(chunks.next().await.is_none(), "the answer is complete");
    }
}

#[tokio::test]
async fn access_that_ends_ends_the_stream_at_once_when_it_is_told() {
    let gateway = TestGateway::start().await;
    gateway.cache.set_trusted(true);
    for path in [
        both_forms(&format!("/runs/{LIVE_RUN}/events"))[0].clone(),
        both_forms("/helper/runs/stream")[0].clone(),
    ] {
        gateway.fakes.0.revoked.store(false, Ordering::SeqCst);
        let mut chunks = gateway.get(&path).await.bytes_stream();
        read_until(&mut chunks, OPEN).await;
        // News about somebody else ends nothing.
        gateway.cache.invalidate_user("somebody-else");
        gateway.fakes.0.revoked.store(true, Ordering::SeqCst);
        let started = Instant::now();
        gateway.cache.invalidate_user(USER);
        read_until(
            &mut chunks,
            ": the access that this stream was opened with has ended\n\n",
        )
        .await;
        assert!(chunks.next().await.is_none());
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn access_that_ends_without_news_ends_the_stream_within_seconds() {
    let gateway = TestGateway::start().await;
    let path = &both_forms(&format!("/runs/{LIVE_RUN}/events"))[0];
    let mut revoked = gateway.get(path).await.bytes_stream();
    let message = json!({"provider": "anthropic", "model": "m", "system_prompt": "p", "end_user_id": "u",
                         "messages": [{"role": "user", "content": "silent"}]});
    let mut ad_hoc = gateway.post(&both_forms("/run")[0], &message).await.bytes_stream();
    // A lower role is another access: whoever comes again is asked as for the first time.
    gateway.fakes.0.is_viewer.store(true, Ordering::SeqCst);
    read_until(&mut revoked, "has ended\n\n").await;
    assert!(revoked.next().await.is_none());
    let text = read_until(&mut ad_hoc, "agent_error").await;
    assert!(text.contains(r#""type":"Cancelled""#), "{text}");
}

#[tokio::test]
async fn a_concierge_that_is_down_for_a_moment_ends_no_stream() {
    let gateway = TestGateway::with(|config| config.sse_keep_alive = Duration::from_millis(500)).await;
    gateway.cache.set_trusted(true);
    let mut chunks = gateway
        .get(&both_forms(&format!("/runs/{LIVE_RUN}/events"))[0])
        .await
        .bytes_stream();
    read_until(&mut chunks, OPEN).await;
    let asked = gateway.fakes.0.authentications.load(Ordering::SeqCst);
    gateway.fakes.0.identity_down.store(true, Ordering::SeqCst);
    gateway.cache.invalidate_user(USER);
    eventually("it asked in vain", || {
        gateway.fakes.0.authentications.load(Ordering::SeqCst) > asked
    })
    .await;
    gateway.fakes.0.identity_down.store(false, Ordering::SeqCst);
    gateway.cache.invalidate_user(USER);
    eventually("it asked again", || {
        gateway.fakes.0.authentications.load(Ordering::SeqCst) > asked + 1
    })
    .await;
    assert!(!read_until(&mut chunks, ": ping\n\n").await.contains("ended"));
}

/// Resident memory of this process.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024
}

/// What one open stream costs that waits, the fake service and the test's own end of the connection included.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_open_stream_that_waits_costs_less_than_64_kib() {
    const STREAMS: u64 = 150;
    let gateway = TestGateway::start().await;
    gateway.cache.set_trusted(true);
    let open = async |rest: String, body: &str, method: &str| {
        let head = format!(
            "{method} /storage/sandboxes/{SANDBOX}/agents{rest} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer olk_alice\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let mut bytes = [0; 1024];
        while !answer
            .windows(10)
            .any(|part| part == b"one moment" || part == b"id: 2.5\nev")
        {
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..count]);
        }
        stream
    };
    let ad_hoc = json!({"provider": "anthropic", "model": "m", "system_prompt": "p", "end_user_id": "u",
                        "messages": [{"role": "user", "content": "silent"}]})
    .to_string();
    let mut streams = Vec::new();
    for (method, rest, body) in [
        ("POST", "/run".to_owned(), ad_hoc.as_str()),
        ("GET", format!("/runs/{LIVE_RUN}/events"), ""),
    ] {
        // The first ones fill what is there once.
        for _ in 0..20 {
            streams.push(open(rest.clone(), body, method).await);
        }
        let before = resident_bytes();
        for _ in 0..STREAMS {
            streams.push(open(rest.clone(), body, method).await);
        }
        let each = resident_bytes().saturating_sub(before) / STREAMS;
        println!("{method} {rest}: {each} bytes for each open stream");
        assert!(each < 64 * 1024, "{method} {rest}: {each} bytes");
        // They stay: what they would give back, the next ones would take.
    }
}
