//! On a terminal of some width: rows that change in place, tables that fit, colours.

use insta::assert_snapshot;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    screen::Screen,
    streams::StreamServer,
    support::{KEY, Place, SANDBOX, agent, run_row},
};

fn command(place: &Place, url: &str, arguments: &[&str]) -> Command {
    let mut command = place.command(&place.work(), arguments);
    command
        .env("COPASS_API_KEY", KEY)
        .env("COPASS_SANDBOX_ID", SANDBOX)
        .env("COPASS_API_URL", url);
    command
}

fn row(id: &str, status: &str) -> Value {
    let mut row = run_row(status);
    row["run_id"] = json!(format!("rn_01J9Z00000000000000000000{id}"));
    if status == "pending" {
        for field in [
            "output_text",
            "tokens_in",
            "tokens_out",
            "cost_microcents",
            "duration_ms",
            "started_at",
        ] {
            row[field] = Value::Null;
        }
    }
    row
}

#[tokio::test]
async fn rows_change_in_place() {
    let (place, server) = (Place::bare().await, StreamServer::start().await);
    let follow = command(&place, &server.url, &["agent", "runs", "support", "--follow"]);
    let mut screen = Screen::start(follow, 24, 100, false);
    let mut stream = server.request().await;
    stream.begin().await;
    stream.event("a", "run", &row("A", "pending")).await;
    stream.event("b", "run", &row("B", "succeeded")).await;
    screen
        .shows(|shown| shown.contains("pending") && shown.contains("succeeded"))
        .await;
    stream.event("a", "run", &row("A", "failed")).await;
    let shown = screen.shows(|shown| shown.contains("failed")).await;
    assert_snapshot!(shown, @r#"
        ID                             STATUS     STARTED    TOOK      TOKENS        COST        RESULT
        rn_01J9Z00000000000000000000A  failed     14:25:18Z  420 ms    812 + 24      $1.25       Done. All …
        rn_01J9Z00000000000000000000B  succeeded  14:25:18Z  420 ms    812 + 24      $1.25       Done. All …
        "#);
    screen.interrupt();
    stream.closed().await;
    let (_, exit, _) = screen.end().await;
    assert_eq!(exit, Some(0));
}

#[tokio::test]
async fn rows_that_are_over_make_room() {
    let (place, server) = (Place::bare().await, StreamServer::start().await);
    let follow = command(&place, &server.url, &["agent", "runs", "support", "--follow"]);
    let mut screen = Screen::start(follow, 40, 100, false);
    let mut stream = server.request().await;
    stream.begin().await;
    stream.event("x", "run", &row("!", "pending")).await;
    for letter in 'A'..='Z' {
        stream.event("x", "run", &row(&letter.to_string(), "succeeded")).await;
    }
    let shown = screen
        .shows(|shown| shown.matches("succeeded").count() == 26 && shown.matches("pending").count() == 1)
        .await;
    let letters: String = shown
        .lines()
        .filter_map(|line| line.strip_prefix("rn_01J9Z00000000000000000000")?.chars().next())
        .filter(|letter| letter.is_ascii_uppercase())
        .collect();
    assert_eq!(letters, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "{shown}");
    screen.interrupt();
    assert_eq!(screen.end().await.1, Some(0));
}

#[tokio::test]
async fn tables_fit_their_terminal() {
    let place = Place::ready().await;
    let mut long = run_row("failed");
    long["error_message"] = json!("a story\nthat goes on and on ".repeat(6));
    long["trigger_id"] = json!("tr_01J9Z0000000000000000000AA");
    let runs = json!({"agent_slug": "support", "runs": [long, run_row("succeeded")], "count": 2});
    place.in_sandbox("GET", "/agents/support/runs", 200, &runs).await;
    for columns in [120, 80, 50] {
        let list = place.command(&place.work(), &["agent", "runs", "support"]);
        let screen = Screen::start(list, 10, columns, false);
        let (written, exit, _) = screen.end().await;
        assert_eq!(exit, Some(0));
        let widest = written.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= usize::from(columns), "{columns}: {written}");
        match columns {
            120 => assert_snapshot!(written, @r#"
                ID                             STATUS     STARTED               TOOK    TOKENS    COST   RESULT
                rn_01J9Z0000000000000000000AA  failed     2026-04-30 14:25:18Z  420 ms  812 + 24  $1.25  a story that goes on and on a …
                rn_01J9Z0000000000000000000AA  succeeded  2026-04-30 14:25:18Z  420 ms  812 + 24  $1.25  Done. All well.
                "#),
            80 => assert_snapshot!(written, @r#"
                ID                             STATUS     TOOK    COST   RESULT
                rn_01J9Z0000000000000000000AA  failed     420 ms  $1.25  a story that goes on a…
                rn_01J9Z0000000000000000000AA  succeeded  420 ms  $1.25  Done. All well.
                "#),
            _ => assert_snapshot!(written, @r#"
                ID                             STATUS     RESULT
                rn_01J9Z0000000000000000000AA  failed     a story…
                rn_01J9Z0000000000000000000AA  succeeded  Done. A…
                "#),
        }
    }
    // A pipe gets everything, whatever stderr is.
    let list = place.command(&place.work(), &["agent", "runs", "support"]);
    let (_, _, piped) = Screen::start(list, 10, 50, true).end().await;
    assert!(
        piped.contains("tr_01J9Z0000000000000000000AA") && piped.contains("goes on and on a story"),
        "{piped}"
    );
}

#[tokio::test]
async fn differences_have_colours_unless_they_are_unwanted() {
    let place = Place::ready().await;
    let diff = json!({"agent_slug": "support", "from": 2, "to": 4, "changes": [
        {"field": "system_prompt", "before": "a\n", "after": "b\u{1b}[2J\n"}]});
    place
        .in_sandbox("GET", "/agents/support/versions/diff", 200, &diff)
        .await;
    let command = || place.command(&place.work(), &["agent", "diff", "support", "2"]);
    let (written, ..) = Screen::start(command(), 24, 80, false).end().await;
    assert!(
        written.contains("\u{1b}[31m-a\u{1b}[0m\n\u{1b}[32m+b[2J\u{1b}[0m\n"),
        "{written:?}"
    );
    let mut plain = command();
    plain.env("NO_COLOR", "1");
    let (written, ..) = Screen::start(plain, 24, 80, false).end().await;
    assert!(
        written.contains("-a\n+b[2J\n") && !written.contains('\u{1b}'),
        "{written:?}"
    );
}

#[tokio::test]
async fn archiving_asks_yes_or_no() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    place.in_sandbox("DELETE", "/agents/support", 204, &Value::Null).await;
    let by_update = ["agent", "update", "support", "--status", "archived"];
    for (arguments, typed, exit) in [
        (&["agent", "archive", "support"][..], "\n", Some(2)),
        (&by_update, "n\n", Some(2)),
        (&["agent", "archive", "support"], "y\n", Some(0)),
    ] {
        let archive = place.command(&place.work(), arguments);
        let mut screen = Screen::start(archive, 24, 80, true);
        screen.expect("Archive the agent support (Support)?").await;
        screen.expect("[y/N]").await;
        screen.type_text(typed);
        assert_eq!(screen.end().await.1, exit);
    }
    assert_eq!(place.sent("DELETE", "/agents/support").await.len(), 1);
    assert!(place.sent("PATCH", "/agents/support").await.is_empty());
    let refused = place.run(&by_update).await;
    assert!(
        refused.starts_with("exit 2\n") && refused.contains("refusing to archive an agent without confirmation"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_person_sees_that_something_is_waited_for() {
    let (place, server) = (Place::bare().await, StreamServer::start().await);
    let test = command(&place, &server.url, &["agent", "test", "support"]);
    let mut screen = Screen::start(test, 24, 100, true);
    let request = server.request().await;
    screen.shows(|shown| shown.contains("support works")).await;
    request.json(200, &run_row("succeeded")).await;
    // And that it is over, without a trace.
    screen.shows(|shown| !shown.contains("support works")).await;
    let (_, exit, stdout) = screen.end().await;
    assert_eq!(exit, Some(0));
    assert!(stdout.starts_with("run       rn_"), "{stdout}");
}

#[tokio::test]
async fn whoever_leaves_a_test_closes_its_connection() {
    let (place, server) = (Place::bare().await, StreamServer::start().await);
    let test = command(&place, &server.url, &["agent", "test", "support"]);
    let screen = Screen::start(test, 24, 100, true);
    let mut request = server.request().await;
    screen.interrupt();
    request.closed().await;
    let (terminal, exit, stdout) = screen.end().await;
    assert_eq!((exit, stdout.as_str()), (Some(1), ""));
    assert!(
        terminal.contains("error: interrupted; the run is cancelled"),
        "{terminal}"
    );
    let test = command(&place, &server.url, &["agent", "test", "support", "--json"]);
    let screen = Screen::start(test, 24, 100, true);
    let mut request = server.request().await;
    screen.interrupt();
    request.closed().await;
    let (_, exit, stdout) = screen.end().await;
    assert_eq!(
        (exit, stdout.as_str()),
        (
            Some(1),
            "{\"detail\":\"interrupted; the run is cancelled\",\"error\":\"interrupted\",\"status\":0}\n"
        )
    );
}

#[tokio::test]
async fn usage_on_a_narrow_terminal_says_whose_it_is() {
    let place = Place::ready().await;
    let sum = json!({"runs": 11, "tokens_in": 100_000, "tokens_out": 2_000, "cost_microcents": 1_250_000,
        "runs_without_price": 3, "model_calls": 26});
    let group = |agent: &str| {
        let mut group = sum.clone();
        group["keys"] = json!({"agent": agent, "status": "succeeded"});
        group
    };
    let usage = json!({"since": "2026-04-01T00:00:00Z", "until": "2026-05-01T00:00:00Z", "count": 2, "total": sum,
        "groups": [group("customer-support"), group("issue-triage")]});
    place.in_sandbox("GET", "/usage", 200, &usage).await;
    for by in ["agent", "agent,status"] {
        for columns in [80, 40, 32] {
            let command = place.command(&place.work(), &["usage", "--by", by]);
            let (written, exit, _) = Screen::start(command, 20, columns, false).end().await;
            assert_eq!(exit, Some(0));
            let widest = written.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(columns), "{columns}: {written}");
            assert!(written.contains("AGENT"), "{written}");
            assert!(written.contains("\nis") && written.contains("\ncu"), "{written}");
            if (by, columns) == ("agent", 40) {
                assert_snapshot!(written, @r#"
                    Usage from 2026-04-01 00:00:00Z
                    to 2026-05-01 00:00:00Z

                    AGENT         RUNS  COST
                    customer-su…  11    $1.25 + 3 runs of u…
                    issue-triage  11    $1.25 + 3 runs of u…
                    all           11    $1.25 + 3 runs of u…
                    "#);
            }
        }
    }
}
