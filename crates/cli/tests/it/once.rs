//! `copass run "<message>"`, and that nothing else is ever sent as a message.

use insta::assert_snapshot;
use serde_json::{Value, json};
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{method, path},
};

use crate::support::{Place, SANDBOX, problem};

const FRAMES: &str = "event: run_started\nid: 1\ndata: {\"run_id\":\"rn_1\"}\n\n\
    event: agent_text_delta\nid: 2.4\ndata: {\"text\":\"It is \"}\n\n\
    event: agent_tool_call\nid: 3\ndata: {\"arguments\":{\"q\":\"x\"},\"call_id\":\"c\",\"name\":\"search\"}\n\n\
    event: agent_tool_result\nid: 4\ndata: {\"call_id\":\"c\",\"error\":null,\"name\":\"search\",\"result\":{}}\n\n\
    event: agent_text_delta\nid: 5.5\ndata: {\"text\":\"sunny.\"}\n\n\
    event: agent_finish\nid: 6\ndata: {\"run_id\":\"rn_1\",\"session_id\":\"sess_1\",\"stop_reason\":\"end_turn\",\
    \"usage\":{}}\n\n";

async fn answering(frames: &str) -> Place {
    let place = Place::ready().await;
    Mock::given(method("POST"))
        .and(path(format!("/api/v1/storage/sandboxes/{SANDBOX}/agents/run")))
        .respond_with(ResponseTemplate::new(200).set_body_raw(frames.to_owned(), "text/event-stream"))
        .mount(&place.server)
        .await;
    place
}

#[tokio::test]
async fn one_turn() {
    let place = answering(FRAMES).await;
    assert_snapshot!(place.run(&["run", "How is the weather?"]).await, @r#"
        exit 0
        --- stdout
        It is 
        sunny.
        --- stderr
        → search {"q":"x"}
        ✓ search
        session sess_1 (continue with --session sess_1)
        "#);
    assert_snapshot!(
        place.run(&["run", "And now?", "--provider", "google", "--model", "m", "--system", "Be brief.",
            "--session", "sess_1", "--end-user", "ada"]).await,
        @r#"
        exit 0
        --- stdout
        It is 
        sunny.
        --- stderr
        → search {"q":"x"}
        ✓ search
        session sess_1 (continue with --session sess_1 --end-user ada)
        "#
    );
    place.run_with(&["run", "-"], "show").await;
    place.run_with(&["run"], "from a\npipe").await;
    let sent = place.sent("POST", "/agents/run").await;
    let said = |body: &Value| body["messages"][0]["content"].as_str().unwrap().to_owned();
    assert_eq!(
        sent.iter().map(said).collect::<Vec<_>>(),
        ["How is the weather?", "And now?", "show", "from a\npipe"]
    );
    assert_eq!(
        (&sent[0]["provider"], &sent[0]["model"], &sent[0]["end_user_id"]),
        (&json!("anthropic"), &json!("claude-sonnet-4-6"), &json!("cli"))
    );
    assert_eq!(
        sent[1],
        json!({"provider": "google", "model": "m", "system_prompt": "Be brief.",
            "messages": [{"role": "user", "content": "And now?"}], "end_user_id": "ada", "session_id": "sess_1",
            "reasoning_engine_id": "default"})
    );
}

#[tokio::test]
async fn one_event_object_per_line() {
    let place = answering(FRAMES).await;
    assert_snapshot!(place.run(&["run", "How is the weather?", "--json"]).await, @r#"
        exit 0
        --- stdout
        {"data":{"run_id":"rn_1"},"event":"run_started"}
        {"data":{"text":"It is "},"event":"agent_text_delta"}
        {"data":{"arguments":{"q":"x"},"call_id":"c","name":"search"},"event":"agent_tool_call"}
        {"data":{"call_id":"c","error":null,"name":"search","result":{}},"event":"agent_tool_result"}
        {"data":{"text":"sunny."},"event":"agent_text_delta"}
        {"data":{"run_id":"rn_1","session_id":"sess_1","stop_reason":"end_turn","usage":{}},"event":"agent_finish"}
        --- stderr
        "#);
}

#[tokio::test]
async fn a_turn_that_failed_or_was_refused() {
    let error = "event: agent_error\ndata: {\"message\":\"the model is away\",\"run_id\":\"rn_1\",\"type\":\"ProviderError\"}\n\n";
    let place = answering(error).await;
    assert_snapshot!(place.run(&["run", "hello there"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: the model is away

        hint: `copass run show rn_1` shows what happened
        "#);
    let place = Place::ready().await;
    let refusal = problem(
        "provider_not_configured",
        "no model provider is set up for `anthropic`: set models.anthropic.api_key",
    );
    place.in_sandbox("POST", "/agents/run", 503, &refusal).await;
    assert_snapshot!(place.run(&["run", "hello there"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: no model provider is set up for `anthropic`: set models.anthropic.api_key

        hint: request id req_1
        "#);
    assert_snapshot!(place.run(&["run", "hello there", "--json"]).await, @r#"
        exit 1
        --- stdout
        {"detail":"no model provider is set up for `anthropic`: set models.anthropic.api_key","error":"provider_not_configured","status":503}
        --- stderr
        "#);
}

#[tokio::test]
async fn behind_two_hyphens_a_message_is_taken_as_it_is() {
    let place = answering(FRAMES).await;
    let words = [
        "slow",
        "snow",
        "show",
        "help",
        "--json",
        "-",
        "rn_01J9Z0000000000000000000AA",
    ];
    for word in words {
        let shown = place.run(&["run", "--model", "m", "--", word]).await;
        assert!(shown.starts_with("exit 0\n--- stdout\nIt is "), "{word}: {shown}");
    }
    let sent = place.sent("POST", "/agents/run").await;
    let said: Vec<&str> = sent
        .iter()
        .map(|body| body["messages"][0]["content"].as_str().unwrap())
        .collect();
    assert_eq!(said, words);
}

#[tokio::test]
async fn commands_are_never_messages() {
    let place = answering(FRAMES).await;
    for arguments in [
        &["run", "show"][..],
        &["run", "--json", "show"],
        &["run", "cancel"],
        &["run", "shwo"],
        &["run", "shwo", "rn_1"],
        &["run", "Show"],
        &["run", "--", "show", "rn_1"],
        &["run", "hello", "--", "show"],
        &["run", "--", "  "],
        &["run", "rn_01J9Z0000000000000000000AA"],
        &["run", "hello", "show", "rn_1"],
        &["run", "--model", "m", "show", "rn_1"],
        &["run", "hello", "there"],
        &["run"],
        &["run", "  "],
    ] {
        let shown = place.run(arguments).await;
        assert!(shown.starts_with("exit 2\n"), "{arguments:?}: {shown}");
    }
    assert_eq!(place.calls().await, 0);
    assert_snapshot!(place.run(&["run", "shwo"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: 'shwo' was not sent: it looks like a command, not like a message

        hint: did you mean `copass run show`? To send it as a message: `copass run -- shwo`
        "#);
    assert_snapshot!(place.run(&["run", "rn_01J9Z0000000000000000000AA", "--json"]).await, @r#"
        exit 2
        --- stdout
        {"detail":"'rn_01J9Z0000000000000000000AA' was not sent: it looks like a command, not like a message","error":"usage","status":0}
        --- stderr
        "#);
    assert_snapshot!(place.run(&["run", "hello", "show", "rn_1"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: a message does not go with a command of `copass run`

        hint: put a message of several words in quotes: copass run "show me the agents"
        "#);
    assert_snapshot!(place.run(&["run", "show"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          <RUN_ID>

        Usage: copass run show <RUN_ID>

        For more information, try '--help'.
        "#);
    // What is meant as a command stays one, wherever the global flags stand.
    place
        .in_sandbox(
            "POST",
            "/agents/runs/rn_1/cancel",
            200,
            &crate::support::run_row("cancelled"),
        )
        .await;
    for arguments in [
        &["run", "--json", "cancel", "rn_1"][..],
        &["run", "cancel", "--json", "rn_1"],
        &["--json", "run", "cancel", "rn_1"],
    ] {
        assert!(place.run(arguments).await.starts_with("exit 0\n"), "{arguments:?}");
    }
    assert!(place.sent("POST", "/agents/run").await.is_empty());
}
