//! On a terminal: questions, the conversation, and colours.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::Stdio,
};

use nix::pty::openpty;
use serde_json::json;
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{method, path},
};

use crate::support::{Place, SANDBOX, profile, read, sandbox};

struct Session {
    exit: Option<i32>,
    stdout: String,
    terminal: String,
}

/// Runs the binary with stdin and stderr on a terminal on which everything is typed ahead.
async fn on_terminal(place: &Place, arguments: &[&str], typed: &str) -> Session {
    let pty = openpty(None, None).unwrap();
    let mut master = File::from(pty.master);
    master.write_all(typed.as_bytes()).unwrap();
    let mut command = place.command(&place.work(), arguments);
    command
        .env("TERM", "xterm")
        .stdin(Stdio::from(pty.slave.try_clone().unwrap()))
        .stderr(Stdio::from(pty.slave));
    let child = command.spawn().unwrap();
    // It holds the other end of the terminal, which must close with the child.
    drop(command);
    let reader = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut buffer = [0u8; 4096];
        // Linux reports the closed terminal as an error.
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            text.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8(text).unwrap()
    });
    let output = child.wait_with_output().await.unwrap();
    let terminal = reader.await.unwrap().replace("\r\n", "\n");
    Session {
        exit: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        terminal,
    }
}

async fn destroyable() -> Place {
    let place = Place::ready().await;
    place.in_sandbox("GET", "", 200, &sandbox("main")).await;
    place
        .in_sandbox(
            "DELETE",
            "",
            200,
            &json!({"success": true, "message": "gone", "deleted": true}),
        )
        .await;
    place
}

#[tokio::test]
async fn destroying_asks_for_the_name() {
    let place = destroyable().await;
    for typed in ["yes\n", "Main\n", "\n", "\u{4}"] {
        let session = on_terminal(&place, &["sandbox", "destroy", SANDBOX], typed).await;
        assert_eq!((session.exit, session.stdout.as_str()), (Some(2), ""));
        assert!(
            session.terminal.contains("Type the name (main) to confirm"),
            "{}",
            session.terminal
        );
        assert!(
            session.terminal.contains("not confirmed; nothing was changed"),
            "{}",
            session.terminal
        );
    }
    assert!(place.sent("DELETE", SANDBOX).await.is_empty());
    let session = on_terminal(&place, &["sandbox", "destroy", SANDBOX], "main\n").await;
    assert_eq!(
        (session.exit, session.stdout),
        (Some(0), format!("Sandbox {SANDBOX}: destroyed.\n"))
    );
}

#[tokio::test]
async fn revoking_asks_yes_or_no() {
    let place = Place::ready().await;
    place.on("GET", "/api/v1/api-keys", 200, &json!([])).await;
    place
        .on(
            "DELETE",
            "/api/v1/api-keys/ak_1",
            200,
            &json!({"revoked": true, "id": "ak_1", "name": "x"}),
        )
        .await;
    assert_eq!(
        on_terminal(&place, &["apikey", "revoke", "ak_1"], "\n").await.exit,
        Some(2)
    );
    assert!(place.sent("DELETE", "ak_1").await.is_empty());
    assert_eq!(
        on_terminal(&place, &["apikey", "revoke", "ak_1"], "y\n").await.exit,
        Some(0)
    );
}

#[tokio::test]
async fn login_asks_for_both() {
    let place = Place::bare().await;
    place.on("POST", "/auth/v1/otp", 200, &json!({})).await;
    let session = json!({"access_token": "a", "refresh_token": "r", "expires_in": 3600, "user": {"id": "u"}});
    place.on("POST", "/auth/v1/verify", 200, &session).await;
    place.on("GET", "/api/v1/users/me/profile", 200, &profile()).await;
    let session = on_terminal(&place, &["login"], "ada@example.com\n123456\n").await;
    assert_eq!(
        (session.exit, session.stdout.as_str()),
        (Some(0), "Logged in as ada@example.com.\n")
    );
    assert!(
        session.terminal.contains("E-mail: ") && session.terminal.contains("Code: "),
        "{}",
        session.terminal
    );
    let config = read(&place.config());
    assert_eq!(config["email"], "ada@example.com");
    assert!(config["expires_at"].as_i64().is_some(), "made from expires_in");
}

async fn chatty() -> Place {
    let place = Place::ready().await;
    let frames = "event: agent_tool_call\ndata: {\"call_id\":\"c\",\"name\":\"list_agents\",\"arguments\":{}}\n\n\
                  event: agent_text_delta\ndata: {\"text\":\"Hello\"}\n\n\
                  event: agent_finish\ndata: {\"stop_reason\":\"end_turn\",\"session_id\":\"sess_1\",\"usage\":{}}\n\n";
    Mock::given(method("POST"))
        .and(path(format!("/api/v1/storage/sandboxes/{SANDBOX}/concierge/chat")))
        .respond_with(ResponseTemplate::new(200).set_body_raw(frames, "text/event-stream"))
        .mount(&place.server)
        .await;
    place
}

#[tokio::test]
async fn tool_calls_are_dim_unless_colours_are_unwanted() {
    let place = chatty().await;
    let session = on_terminal(&place, &["chat", "x"], "").await;
    assert_eq!(session.stdout, "Hello\n");
    assert!(
        session.terminal.contains("\u{1b}[2m→ list_agents {}\u{1b}[0m"),
        "{:?}",
        session.terminal
    );
    let place = place.env("NO_COLOR", "1");
    let session = on_terminal(&place, &["chat", "x"], "").await;
    assert!(session.terminal.contains("→ list_agents {}"));
    assert!(!session.terminal.contains('\u{1b}'), "{:?}", session.terminal);
}

#[tokio::test]
async fn a_conversation_continues_starts_over_and_ends() {
    let place = chatty().await;
    let session = on_terminal(&place, &["chat"], "one\n\ntwo\n/new\nthree\n/exit\n").await;
    assert_eq!(
        (session.exit, session.stdout.as_str()),
        (Some(0), "Hello\nHello\nHello\n")
    );
    assert_eq!(
        place.sent("POST", "/chat").await,
        [
            json!({"message": "one"}),
            json!({"message": "two", "session_id": "sess_1"}),
            json!({"message": "three"}),
        ]
    );
    assert_eq!(
        on_terminal(&place, &["chat"], "\u{4}").await.exit,
        Some(0),
        "Ctrl-D ends it"
    );
}

#[tokio::test]
async fn a_failed_turn_does_not_end_the_conversation() {
    let place = Place::ready().await;
    place
        .in_sandbox(
            "POST",
            "/concierge/chat",
            409,
            &json!({"error": "session_busy", "detail": "a turn runs"}),
        )
        .await;
    let session = on_terminal(&place, &["chat"], "one\ntwo\n/exit\n").await;
    assert_eq!(session.exit, Some(0));
    assert_eq!(session.terminal.matches("error: a turn runs").count(), 2);
}
