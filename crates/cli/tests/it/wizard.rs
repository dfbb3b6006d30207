//! `copass agent setup`, question by question.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{
    screen::Screen,
    support::{Place, agent, problem, run_row},
};

fn tools() -> Value {
    json!({"count": 3, "skipped": [{"name": "user_mcp", "reason": "none is registered\u{1b}[2J"}], "tools": [
        {"name": "search", "app_slug": "copass", "description": "Searches.", "source": "copass_retrieval",
            "read_only": true},
        {"name": "discover", "app_slug": "copass", "description": "Looks around.", "source": "copass_retrieval",
            "read_only": true},
        {"name": "pd_slack_send", "app_slug": "slack", "description": "Sends\u{1b}[2J.", "source": "pipedream",
            "read_only": false}]})
}

async fn place() -> Place {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/tools", 200, &tools()).await;
    place.in_sandbox("GET", "/agents/taken", 200, &agent("taken")).await;
    place
        .in_sandbox("GET", "/agents/triage", 404, &problem("not_found", "agent not found"))
        .await;
    place.in_sandbox("POST", "/agents", 201, &agent("triage")).await;
    let mut changed = agent("triage");
    changed["tool_sources"] = json!(["pipedream"]);
    changed["warnings"] = json!([]);
    place
        .in_sandbox("PATCH", "/agents/triage/tool-sources", 200, &changed)
        .await;
    place
        .in_sandbox("POST", "/agents/triage/test", 200, &run_row("succeeded"))
        .await;
    place
}

fn start(place: &Place, arguments: &[&str]) -> Screen {
    Screen::start(place.command(&place.work(), arguments), 60, 120, true)
}

const DOWN: &str = "\u{1b}[B";

#[tokio::test]
async fn an_agent_step_by_step() {
    let place = place().await;
    let mut screen = start(&place, &["agent", "setup"]);
    screen.expect("Slug").await;
    screen.type_text("Not A Slug\n");
    screen.expect("lowercase letters, digits and hyphens").await;
    screen.press(&"\u{7f}".repeat(10)).await;
    screen.type_text("taken\n");
    screen.expect("There is an agent taken already (active)").await;
    screen.type_text("triage\n");
    screen.expect("Name").await;
    screen.expect("[Triage]").await;
    screen.type_text("\n");
    screen.expect("What it is for").await;
    screen.type_text("Sorts issues.\n");
    screen.expect("System prompt").await;
    screen.type_text("You sort.\n\n  - by label\n.\n");
    screen.expect("Model provider").await;
    screen.press(&format!("{DOWN}\n")).await;
    screen.expect("[gemini-2.5-flash]").await;
    screen.type_text("\n");
    screen.expect("all there are, now and later (now 3)").await;
    screen.press(&format!("{DOWN}\n")).await;
    screen.expect("Tools it may use").await;
    screen.expect("pd_slack_send (changes)").await;
    // Nothing picked would allow everything.
    screen.type_text("\n");
    screen.expect("Pick at least one").await;
    screen.expect("pd_slack_send (changes)").await;
    screen.press(&format!(" {DOWN}{DOWN} \n")).await;
    screen.expect("The same without questions").await;
    screen.expect("Create it?").await;
    screen.type_text("y");
    screen.expect("Fire it once").await;
    screen.type_text("y");
    screen.expect("Event (a JSON object)").await;
    screen.type_text("{\"title\":\"x\"}\n");
    let (terminal, exit, stdout) = screen.end().await;
    assert_eq!(exit, Some(0), "{terminal}");
    assert_snapshot!(stdout, @r#"
        Created agent triage (ag_01J9Z0000000000000000000AA, anthropic/claude-sonnet-4-6).
        run       rn_01J9Z0000000000000000000AA
        status    succeeded
        duration  420 ms
        tokens    812 in, 24 out
        cost      $1.25

        Done.
        All well.
        "#);
    assert_eq!(
        place.sent("POST", "/agents").await,
        [
            json!({"slug": "triage", "name": "Triage", "system_prompt": "You sort.\n\n  - by label",
            "description": "Sorts issues.", "tool_allowlist": ["search", "pd_slack_send"],
            "model_settings": {"backend": "google", "model": "gemini-2.5-flash"}})
        ]
    );
    assert_eq!(
        place.sent("POST", "/test").await,
        [json!({"event_payload": {"title": "x"}})]
    );
    assert!(
        terminal.contains("copass agent create triage --name Triage --description 'Sorts issues.' --prompt 'You sort."),
        "{terminal}"
    );
    assert!(
        terminal.contains("skipped user_mcp: none is registered[2J"),
        "{terminal}"
    );
    assert!(!terminal.contains("\u{1b}[2J"), "a server's text steers nothing");
}

#[tokio::test]
async fn the_prompt_from_a_file_and_the_sources_by_choice() {
    let place = place().await;
    std::fs::write(place.work().join("prompt.txt"), "From a file.\n").unwrap();
    let mut screen = start(&place, &["agent", "setup", "triage"]);
    screen.expect("Name").await;
    screen.type_text("\n");
    screen.expect("What it is for").await;
    screen.type_text("\n");
    screen.expect("System prompt").await;
    screen.type_text("@missing.txt\n.\n");
    screen.expect("cannot read missing.txt").await;
    screen.expect("System prompt").await;
    screen.type_text("@prompt.txt\n.\n");
    screen.expect("Model provider").await;
    screen.type_text("\n");
    screen.expect("[claude-sonnet-4-6]").await;
    screen.type_text("\n");
    screen.expect("only some sources").await;
    screen.press(&format!("{DOWN}{DOWN}\n")).await;
    screen.expect("Sources it gets tools from").await;
    screen.expect("pipedream").await;
    screen.press(&format!("{DOWN} \n")).await;
    screen.expect("Create it?").await;
    screen.type_text("y");
    screen.expect("Fire it once").await;
    screen.type_text("n");
    let (terminal, exit, stdout) = screen.end().await;
    assert_eq!(exit, Some(0), "{terminal}");
    assert!(stdout.starts_with("Created agent triage"), "{stdout}");
    let sent = place.sent("POST", "/agents").await;
    assert_eq!(sent[0]["system_prompt"], "From a file.\n");
    assert_eq!(
        place.sent("PATCH", "/tool-sources").await,
        [json!({"tool_sources": ["pipedream"]})]
    );
}

/// Answers with what is proposed, up to the question for the model's provider.
async fn up_to_the_model(screen: &mut Screen) {
    screen.expect("Name").await;
    screen.type_text("\n");
    screen.expect("What it is for").await;
    screen.type_text("\n");
    screen.expect("System prompt").await;
    screen.type_text("x\n.\n");
    screen.expect("Model provider").await;
}

#[tokio::test]
async fn leaving_creates_nothing_and_gives_the_cursor_back() {
    let place = place().await;
    let mut screen = start(&place, &["agent", "setup", "triage"]);
    up_to_the_model(&mut screen).await;
    screen.expect("hermes").await;
    screen.press("\u{3}").await;
    let (terminal, exit, stdout) = screen.end().await;
    assert_eq!((exit, stdout.as_str()), (Some(1), ""), "{terminal}");
    assert!(terminal.contains("interrupted; nothing was created"), "{terminal}");
    let (_, after) = terminal.rsplit_once("\u{1b}[?25l").unwrap();
    assert!(after.contains("\u{1b}[?25h"), "{after:?}");
    assert!(place.sent("POST", "/agents").await.is_empty());
}

/// Answers everything with what is proposed, up to the question whether to create it.
async fn up_to_the_last_question(screen: &mut Screen) {
    up_to_the_model(screen).await;
    screen.type_text("\n");
    screen.expect("[claude-sonnet-4-6]").await;
    screen.type_text("\n");
    screen.expect("all there are").await;
    screen.type_text("\n");
    screen.expect("Create it?").await;
}

#[tokio::test]
async fn leaving_between_two_questions() {
    let place = place().await;
    // Nothing answers, and no question is open: Ctrl-C is heard all the same.
    place.never("GET", "/agents/slow").await;
    let mut screen = start(&place, &["agent", "setup"]);
    screen.expect("Slug").await;
    screen.type_text("slow\n");
    place.until_sent("GET", "/agents/slow").await;
    screen.interrupt();
    let (terminal, exit, stdout) = screen.end().await;
    assert_eq!((exit, stdout.as_str()), (Some(1), ""), "{terminal}");
    assert!(terminal.contains("interrupted; nothing was created"), "{terminal}");
}

#[tokio::test]
async fn leaving_while_it_is_created_claims_nothing() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/tools", 200, &tools()).await;
    place
        .in_sandbox("GET", "/agents/triage", 404, &problem("not_found", "agent not found"))
        .await;
    place.never("POST", "/agents").await;
    let mut screen = start(&place, &["agent", "setup", "triage"]);
    up_to_the_last_question(&mut screen).await;
    screen.type_text("y");
    place.until_sent("POST", "/agents").await;
    screen.interrupt();
    let (terminal, exit, stdout) = screen.end().await;
    assert_eq!((exit, stdout.as_str()), (Some(1), ""), "{terminal}");
    assert!(
        terminal.contains("the agent triage may have been created"),
        "{terminal}"
    );
    assert!(terminal.contains("copass agent show triage"), "{terminal}");
}

#[tokio::test]
async fn leaving_during_the_test_is_no_failure() {
    let place = place().await;
    let mut screen = start(&place, &["agent", "setup", "triage"]);
    up_to_the_last_question(&mut screen).await;
    screen.type_text("y");
    screen.expect("Fire it once").await;
    screen.interrupt();
    let (terminal, exit, stdout) = screen.end().await;
    assert_eq!(exit, Some(0), "{terminal}");
    assert!(stdout.starts_with("Created agent triage"), "{stdout}");
    assert!(terminal.contains("copass agent runs triage"), "{terminal}");
}

#[tokio::test]
async fn without_a_terminal_it_asks_nothing() {
    let place = place().await;
    assert_snapshot!(place.run(&["agent", "setup"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: agent setup asks questions, and there is no terminal to ask them on

        hint: without questions: copass agent create <slug> --name <name> --prompt-file <path> --backend anthropic --model claude-sonnet-4-6 --tool-allowlist '["<tool>"]'; `copass agent tools` lists the tools
        "#);
    assert_eq!(place.calls().await, 0);
}
