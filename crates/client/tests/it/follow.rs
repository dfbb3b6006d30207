//! Live streams that are cut and go on.

use copass_client::{Client, Error};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const RUN_EVENTS: &str = "/api/v1/storage/sandboxes/sb/agents/runs/rn_1/events";

async fn listen() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
    (listener, client)
}

/// Takes one request and gives its head.
async fn request(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        let count = socket.read(&mut bytes).await.unwrap();
        assert!(count > 0);
        head.extend_from_slice(&bytes[..count]);
    }
    (socket, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

/// Sends events; whole answers end as they should, others are cut.
async fn answer(mut socket: TcpStream, body: &str, is_whole: bool) {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let end = if is_whole { "0\r\n\r\n" } else { "" };
    let text = format!("{head}{:x}\r\n{body}\r\n{end}", body.len());
    socket.write_all(text.as_bytes()).await.unwrap();
}

async fn refuse(mut socket: TcpStream, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    socket.write_all(text.as_bytes()).await.unwrap();
}

fn delta(id: &str, text: &str) -> String {
    format!("id: {id}\nevent: agent_text_delta\ndata: {{\"text\":\"{text}\"}}\n\n")
}

#[tokio::test]
async fn a_follower_goes_on_after_the_last_frame_it_has() {
    let (listener, client) = listen().await;
    let server = async {
        let (socket, head) = request(&listener).await;
        assert!(
            head.starts_with(&format!("get {RUN_EVENTS} ")) && !head.contains("last-event-id"),
            "{head}"
        );
        // A frame that is not whole does not count.
        answer(
            socket,
            &format!("{}{}id: 4\nevent: agent_te", delta("2.2", "He"), delta("2.4", "y ")),
            false,
        )
        .await;
        let (socket, head) = request(&listener).await;
        assert!(head.contains("last-event-id: 2.4\r\n"), "{head}");
        refuse(socket, "503 Service Unavailable").await;
        // A server that stops ends the stream as it should, and says so in a comment.
        let (socket, head) = request(&listener).await;
        assert!(head.contains("last-event-id: 2.4\r\n"), "{head}");
        answer(
            socket,
            &format!("{}: the server is stopping\n\n", delta("3", "you")),
            true,
        )
        .await;
        let (socket, head) = request(&listener).await;
        assert!(head.contains("last-event-id: 3\r\n"), "{head}");
        answer(
            socket,
            "id: 4\nevent: agent_finish\ndata: {\"stop_reason\":\"end_turn\"}\n\n",
            true,
        )
        .await;
    };
    let reader = async {
        let mut follower = client.follow_run("sb", "rn_1", None).await.unwrap();
        let mut ids = Vec::new();
        while let Some(frame) = follower.next().await.unwrap() {
            ids.push(frame.id.unwrap());
        }
        assert_eq!(follower.last_id(), Some("4"));
        assert!(follower.next().await.unwrap().is_none());
        ids
    };
    let ((), ids) = tokio::join!(server, reader);
    assert_eq!(ids, ["2.2", "2.4", "3", "4"]);
}

#[tokio::test]
async fn a_follower_begins_where_it_is_told_and_gives_up_when_access_is_gone() {
    let (listener, client) = listen().await;
    let server = async {
        let (socket, head) = request(&listener).await;
        assert!(head.contains("last-event-id: 7\r\n"), "{head}");
        answer(socket, ": open\n\n", true).await;
        let (socket, _) = request(&listener).await;
        refuse(socket, "404 Not Found").await;
    };
    let reader = async {
        let mut follower = client.follow_run("sb", "rn_1", Some("7")).await.unwrap();
        let error = follower.next().await.unwrap_err();
        assert_eq!(error.status(), Some(404));
        assert!(follower.next().await.unwrap().is_none());
    };
    tokio::join!(server, reader);
}

#[tokio::test]
async fn a_follower_that_has_everything_does_not_come_again() {
    let (listener, client) = listen().await;
    let server = async {
        let (socket, _) = request(&listener).await;
        answer(
            socket,
            "id: 1\nevent: run_started\ndata: {\"run_id\":\"rn_1\"}\n\n",
            false,
        )
        .await;
        // A connection that is open no longer and a server that says so; nobody may ask once more.
        for _ in 0..2 {
            let (socket, _) = request(&listener).await;
            refuse(socket, "204 No Content").await;
        }
    };
    let reader = async {
        let mut follower = client.follow_run("sb", "rn_1", None).await.unwrap();
        assert_eq!(follower.next().await.unwrap().unwrap().event, "run_started");
        assert_eq!(follower.next().await.unwrap(), None);
        assert_eq!(follower.next().await.unwrap(), None);
        let mut complete = client.follow_run("sb", "rn_1", Some("9")).await.unwrap();
        assert_eq!(complete.next().await.unwrap(), None);
    };
    tokio::join!(server, reader);
}

#[tokio::test]
async fn a_first_request_that_is_refused_is_told_at_once() {
    let (listener, client) = listen().await;
    let server = async {
        let (socket, _) = request(&listener).await;
        refuse(socket, "422 Unprocessable Entity").await;
    };
    let (refused, ()) = tokio::join!(client.follow_run("sb", "rn_1", Some("x")), server);
    assert_eq!(refused.unwrap_err().status(), Some(422));
    let malformed = client.follow_run("sb", "rn_1", Some("a\nb")).await;
    assert!(matches!(malformed, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn runs_of_an_agent_are_read_as_rows() {
    let (listener, client) = listen().await;
    let row = |status: &str| {
        format!(
            "{{\"run_id\":\"rn_1\",\"user_id\":\"u\",\"sandbox_id\":\"sb\",\"agent_id\":\"ag\",\
             \"agent_version\":1,\"status\":\"{status}\"}}"
        )
    };
    let server = async {
        let (socket, head) = request(&listener).await;
        assert!(
            head.starts_with("get /api/v1/storage/sandboxes/sb/agents/helper/runs/stream?backlog=5 "),
            "{head}"
        );
        let body = format!(
            "id: c1\nevent: run\ndata: {}\n\nevent: later\ndata: 1\n\n",
            row("running")
        );
        answer(socket, &body, false).await;
        let (socket, head) = request(&listener).await;
        assert!(head.contains("last-event-id: c1\r\n"), "{head}");
        answer(
            socket,
            &format!("id: c2\nevent: run\ndata: {}\n\n", row("succeeded")),
            true,
        )
        .await;
    };
    let reader = async {
        let mut follower = client.follow_agent_runs("sb", "helper", 5, None).await.unwrap();
        let first = follower.next().await.unwrap();
        let second = follower.next().await.unwrap();
        (first.status, second.status, follower.last_id().unwrap().to_owned())
    };
    let ((), seen) = tokio::join!(server, reader);
    assert_eq!(seen, ("running".to_owned(), "succeeded".to_owned(), "c2".to_owned()));
}
