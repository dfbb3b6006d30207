//! Changing agents: what is sent, what is said about it, versions, their differences, and the way back.

use insta::assert_snapshot;
use serde_json::{Value, json};
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{method, path},
};

use crate::support::{Place, SANDBOX, agent, problem};

/// The agent after a change.
fn changed(version: u32, changes: Value) -> Value {
    let mut changed = agent("support");
    changed["version"] = version.into();
    changed["warnings"] = json!([]);
    changed["allowlist_missing_entries"] = json!([]);
    for (key, value) in changes.as_object().unwrap() {
        changed[key] = value.clone();
    }
    changed
}

#[tokio::test]
async fn each_group_is_its_own_request() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    let fields = json!({"name": "Help desk", "system_prompt": "You help.\nBe brief.", "description": null});
    place
        .in_sandbox("PATCH", "/agents/support", 200, &changed(4, fields.clone()))
        .await;
    place
        .in_sandbox(
            "PATCH",
            "/agents/support/model-settings",
            200,
            &changed(5, fields.clone()),
        )
        .await;
    let mut last = fields;
    last["tool_sources"] = json!([]);
    last["tool_allowlist"] = json!(["search", "discover"]);
    last["model_settings"] = json!({"backend": "anthropic", "model": "claude-sonnet-4-6", "temperature": 0.2,
        "max_tokens": null, "max_turns": 30, "timeout_s": null, "compute_provider": null});
    let last = changed(6, last);
    place
        .in_sandbox("PATCH", "/agents/support/tool-sources", 200, &last)
        .await;
    let update = [
        "agent",
        "update",
        "support",
        "--name",
        "Help desk",
        "--prompt",
        "You help.\nBe brief.",
        "--description",
        "",
        "--tool-allowlist",
        r#"["search","discover"]"#,
        "--status",
        "active",
        "--temperature",
        "0.2",
        "--max-turns",
        "30",
        "--tool-sources",
        "none",
    ];
    assert_snapshot!(place.run(&update).await, @r#"
        exit 0
        --- stdout
        Changed agent support: version 3 -> 6.
          name: Support -> Help desk
          system_prompt: 2 lines added, 1 removed
          tool_allowlist: search -> search, discover
          tool_sources: (not set) -> (empty)
          model_settings.temperature: 0.5 -> 0.2
          model_settings.max_turns: 15 -> 30
        `copass agent diff support 3 6` shows the difference.
        --- stderr
        "#);
    assert_eq!(
        place.sent("PATCH", "/agents/support").await,
        [
            json!({"name": "Help desk", "description": null, "system_prompt": "You help.\nBe brief.",
            "tool_allowlist": ["search", "discover"], "status": "active"})
        ]
    );
    assert_eq!(
        place.sent("PATCH", "/model-settings").await,
        [json!({"temperature": 0.2, "max_turns": 30})]
    );
    assert_eq!(
        place.sent("PATCH", "/tool-sources").await,
        [json!({"tool_sources": []})]
    );
    let json: Vec<&str> = update.into_iter().chain(["--json"]).collect();
    assert_eq!(
        place.run(&json).await,
        format!("exit 0\n--- stdout\n{last}\n--- stderr\n")
    );
}

#[tokio::test]
async fn every_warning_comes_with_the_line_that_mends_it() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    let answer = changed(
        4,
        json!({"tool_allowlist": ["serch", "weather"], "warnings": [
            "the tool source pipedream was skipped: no account is connected",
            "the allowlist entry serch matches no tool there is now",
            "the allowlist entry weather matches no tool there is now",
            "no tool was offered to the model: the allowlist keeps every tool out; it can only talk"],
            "allowlist_missing_entries": ["serch", "weather"]}),
    );
    place.in_sandbox("PATCH", "/agents/support", 200, &answer).await;
    let tools = json!({"tools": [{"name": "search", "app_slug": "copass", "description": null}], "count": 1});
    place.in_sandbox("GET", "/agents/tools", 200, &tools).await;
    assert_snapshot!(
        place.run(&["agent", "update", "support", "--tool-allowlist", "serch,weather"]).await,
        @r#"
        exit 0
        --- stdout
        Changed agent support: version 3 -> 4.
          tool_allowlist: search -> serch, weather
        `copass agent diff support 3 4` shows the difference.
        --- stderr
        warning: the tool source pipedream was skipped: no account is connected
          set it up; what there is now:
            copass agent tools
        warning: the allowlist names tools that are not there: serch (the closest is search), weather
          correct those that are wrong; the others may belong to the source that was skipped:
            copass agent update support --tool-allowlist '["search","weather"]'
        warning: no tool was offered to the model: the allowlist keeps every tool out; it can only talk
          correct the allowlist as said above
        "#
    );
}

#[tokio::test]
async fn nothing_changed_and_nothing_to_change() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    place
        .in_sandbox("PATCH", "/agents/support", 200, &changed(3, json!({})))
        .await;
    assert_snapshot!(place.run(&["agent", "update", "support", "--name", "Support"]).await, @r#"
        exit 0
        --- stdout
        Nothing changed: support stays at version 3.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["agent", "update", "support"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: nothing to change

        hint: `copass agent update --help` lists what can be changed
        "#);
    assert_snapshot!(place.run(&["agent", "update", "support", "--status", "asleep"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: invalid value 'asleep' for '--status <STATUS>'
          [possible values: active, archived]

        For more information, try '--help'.
        "#);
}

#[tokio::test]
async fn a_half_made_update_says_so() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    place
        .in_sandbox("PATCH", "/agents/support", 200, &changed(4, json!({})))
        .await;
    let refused = problem("invalid_request", "google does not go with claude-sonnet-4-6");
    place
        .in_sandbox("PATCH", "/agents/support/model-settings", 400, &refused)
        .await;
    let update = [
        "agent",
        "update",
        "support",
        "--name",
        "x",
        "--backend",
        "google",
        "--tool-sources",
        "none",
    ];
    assert_snapshot!(place.run(&update).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: google does not go with claude-sonnet-4-6 (what comes before it was changed: support is at version 4 now)
        "#);
    assert!(place.sent("PATCH", "/tool-sources").await.is_empty());
    let json: Vec<&str> = update.into_iter().chain(["--json"]).collect();
    assert_snapshot!(place.run(&json).await, @r#"
        exit 1
        --- stdout
        {"detail":"google does not go with claude-sonnet-4-6 (what comes before it was changed: support is at version 4 now)","error":"invalid_request","status":400}
        --- stderr
        "#);
}

#[tokio::test]
async fn versions() {
    let place = Place::ready().await;
    let versions = json!({"agent_slug": "support", "count": 3, "versions": [
        {"version": 3, "created_by": "user:u", "created_at": "2026-05-01T08:00:00Z", "changed": ["system_prompt"],
            "rolled_back_to": 1},
        {"version": 2, "created_by": "user:u", "created_at": "2026-04-30T15:00:00Z",
            "changed": ["system_prompt", "model_settings.temperature"], "rolled_back_to": null},
        {"version": 1, "created_by": "user:u", "created_at": "2026-04-30T14:25:18Z", "changed": ["slug", "name"],
            "rolled_back_to": null}]});
    place
        .in_sandbox("GET", "/agents/support/versions", 200, &versions)
        .await;
    assert_snapshot!(
        place.run(&["agent", "versions", "support", "--limit", "5", "--before", "4"]).await,
        @r#"
        exit 0
        --- stdout
        VERSION  MADE                  BY      CHANGED
        3        2026-05-01 08:00:00Z  user:u  rolled back to 1: system_prompt
        2        2026-04-30 15:00:00Z  user:u  system_prompt, model_settings.temperature
        1        2026-04-30 14:25:18Z  user:u  created
        --- stderr
        "#
    );
    assert_eq!(
        place.run(&["agent", "versions", "support", "--json"]).await,
        format!("exit 0\n--- stdout\n{versions}\n--- stderr\n")
    );
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.query(), Some("limit=5&before=4"));
    let place = Place::ready().await;
    let mut some = versions.clone();
    some["versions"].as_array_mut().unwrap().pop();
    place.in_sandbox("GET", "/agents/support/versions", 200, &some).await;
    let shown = place.run(&["agent", "versions", "support"]).await;
    assert!(
        shown.ends_with("--- stderr\nOlder versions: `copass agent versions support --before 2`.\n"),
        "{shown}"
    );
    let shown = place.run(&["agent", "versions", "support", "--limit", "2"]).await;
    assert!(
        shown.ends_with("`copass agent versions support --before 2 --limit 2`.\n"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_word_of_the_prompt() {
    let place = Place::ready().await;
    let mut before = agent("support");
    before["system_prompt"] = json!("Call serch, then preserch.");
    place.in_sandbox("GET", "/agents/support", 200, &before).await;
    let answer = changed(4, json!({"system_prompt": "Call search, then preserch."}));
    place.in_sandbox("PATCH", "/agents/support", 200, &answer).await;
    let replace = ["agent", "update", "support", "--prompt-replace", "serch", "search"];
    let shown = place.run(&replace).await;
    assert!(shown.contains("Changed agent support: version 3 -> 4."), "{shown}");
    let json: Vec<&str> = replace.into_iter().chain(["--json"]).collect();
    assert_eq!(
        place.run(&json).await,
        format!("exit 0\n--- stdout\n{answer}\n--- stderr\n")
    );
    let sent = json!({"system_prompt": "Call search, then preserch."});
    assert_eq!(place.sent("PATCH", "/agents/support").await, [sent.clone(), sent]);
    assert_snapshot!(place.run(&["agent", "update", "support", "--prompt-replace", "call", "x"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the word call does not stand in the system prompt of support

        hint: it reads: copass agent show support --prompt
        "#);
    let both = [
        "agent",
        "update",
        "support",
        "--prompt-replace",
        "a",
        "b",
        "--prompt",
        "x",
    ];
    assert!(place.run(&both).await.starts_with("exit 2\n"));
    assert_eq!(place.sent("PATCH", "/agents/support").await.len(), 2);
}

#[tokio::test]
async fn differences() {
    let place = Place::ready().await;
    let diff = json!({"agent_slug": "support", "from": 2, "to": 4, "changes": [
        {"field": "system_prompt", "before": "You help.\nBe kind.\n", "after": "You help.\nBe \u{1b}[31mbrief.\n"},
        {"field": "tool_allowlist", "before": ["a", "b"], "after": ["b", "c"]},
        {"field": "model_settings.temperature", "before": null, "after": 0.5}]});
    place
        .in_sandbox("GET", "/agents/support/versions/diff", 200, &diff)
        .await;
    assert_snapshot!(place.run(&["agent", "diff", "support", "2"]).await, @r#"
        exit 0
        --- stdout
        --- system_prompt (version 2)
        +++ system_prompt (version 4)
        @@ -1,2 +1,2 @@
         You help.
        -Be kind.
        +Be [31mbrief.

        --- tool_allowlist (version 2)
        +++ tool_allowlist (version 4)
        -a
        +c

        --- model_settings.temperature (version 2)
        +++ model_settings.temperature (version 4)
        -(not set)
        +0.5
        --- stderr
        "#);
    place.run(&["agent", "diff", "support", "2", "4"]).await;
    assert_eq!(
        place.run(&["agent", "diff", "support", "2", "--json"]).await,
        format!("exit 0\n--- stdout\n{diff}\n--- stderr\n")
    );
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.query(), Some("from=2"));
    assert_eq!(requests[1].url.query(), Some("from=2&to=4"));
    let place = Place::ready().await;
    let same = json!({"agent_slug": "support", "from": 2, "to": 3, "changes": []});
    place
        .in_sandbox("GET", "/agents/support/versions/diff", 200, &same)
        .await;
    assert_snapshot!(place.run(&["agent", "diff", "support", "2"]).await, @r#"
        exit 0
        --- stdout
        Versions 2 and 3 of support are the same.
        --- stderr
        "#);
}

#[tokio::test]
async fn the_way_back_is_a_new_version() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    let answer = changed(
        4,
        json!({"system_prompt": "You help a lot.", "status": "archived",
        "warnings": ["the agent is archived and does not run; set its status to active to get it back"]}),
    );
    place.in_sandbox("POST", "/agents/support/rollback", 200, &answer).await;
    assert_snapshot!(place.run(&["agent", "rollback", "support", "1"]).await, @r#"
        exit 0
        --- stdout
        Changed agent support: version 3 -> 4.
          system_prompt: 1 line added, 1 removed
          status: active -> archived
        `copass agent diff support 3 4` shows the difference.
        --- stderr
        warning: the agent support is archived and does not run
          make it active again:
            copass agent update support --status active
        "#);
    assert_eq!(place.sent("POST", "/rollback").await, [json!({"to_version": 1})]);
}

#[tokio::test]
async fn programs_do_not_ask_for_what_only_people_read() {
    let place = Place::ready().await;
    Mock::given(method("PATCH"))
        .and(path(format!(
            "/api/v1/storage/sandboxes/{SANDBOX}/agents/support/model-settings"
        )))
        .respond_with(ResponseTemplate::new(200).set_body_raw(changed(4, json!({})).to_string(), "application/json"))
        .mount(&place.server)
        .await;
    place
        .run(&["agent", "update", "support", "--max-turns", "3", "--json"])
        .await;
    assert_eq!(place.calls().await, 1);
}
