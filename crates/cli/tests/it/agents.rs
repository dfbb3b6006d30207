//! Agents: making, listing, showing and archiving them, their tools and their keys.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Place, agent, problem};

#[tokio::test]
async fn listed_and_shown() {
    let place = Place::ready().await;
    let mut hermes = agent("local");
    hermes["model_settings"]["backend"] = json!("hermes");
    hermes["model_settings"]["model"] = json!("hermes/anthropic/claude-sonnet-4-5");
    let list = json!({"agents": [agent("support"), hermes], "count": 2});
    place.in_sandbox("GET", "/agents", 200, &list).await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    assert_snapshot!(place.run(&["agent", "list"]).await, @r#"
        exit 0
        --- stdout
        SLUG     NAME     STATUS  MODEL                               VERSION  CHANGED
        support  Support  active  anthropic/claude-sonnet-4-6         3        2026-05-01 08:00:00Z
        local    Support  active  hermes/anthropic/claude-sonnet-4-5  3        2026-05-01 08:00:00Z
        --- stderr
        "#);
    assert_snapshot!(place.run(&["agent", "show", "support"]).await, @r#"
        exit 0
        --- stdout
        slug          support
        id            ag_01J9Z0000000000000000000AA
        name          Support
        status        active
        version       3
        model         anthropic/claude-sonnet-4-6
        temperature   0.5
        max turns     15
        tools         search
        tool sources  default
        created       2026-04-30 14:25:18Z
        changed       2026-05-01 08:00:00Z

        You help.
        --- stderr
        "#);
    assert_eq!(
        place.run(&["agent", "show", "support", "--json"]).await,
        format!("exit 0\n--- stdout\n{}\n--- stderr\n", agent("support"))
    );
}

#[tokio::test]
async fn a_prompt_comes_back_as_it_went() {
    let place = Place::ready().await;
    for prompt in ["You help.", " You help.\n\n", "Zeile\r\n\tmit \u{1b}[0m"] {
        let mut support = agent("support");
        support["system_prompt"] = json!(prompt);
        place.server.reset().await;
        place.in_sandbox("GET", "/agents/support", 200, &support).await;
        place.in_sandbox("PATCH", "/agents/support", 200, &support).await;
        let shown = place.run(&["agent", "show", "support", "--prompt"]).await;
        assert_eq!(shown, format!("exit 0\n--- stdout\n{prompt}--- stderr\n"));
        std::fs::write(place.work().join("prompt.txt"), prompt).unwrap();
        place
            .run(&["agent", "update", "support", "--prompt-file", "prompt.txt"])
            .await;
        assert_eq!(
            place.sent("PATCH", "/agents/support").await,
            [json!({"system_prompt": prompt})]
        );
    }
}

#[tokio::test]
async fn reserved_slugs_are_refused_before_anything_is_asked() {
    let place = Place::ready().await;
    assert_snapshot!(place.run(&["agent", "show", "tools"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: invalid value 'tools' for '<SLUG>': no agent has one of the reserved slugs (run, runs, tools, triggers)

        For more information, try '--help'.
        "#);
    for arguments in [
        &["agent", "create", "run", "--prompt", "p"][..],
        &["agent", "setup", "run"],
        &["agent", "update", "runs", "--name", "x"],
        &["agent", "archive", "triggers", "--yes"],
        &["agent", "versions", "runs"],
        &["agent", "diff", "runs", "1"],
        &["agent", "rollback", "runs", "1"],
        &["agent", "runs", "run"],
        &["agent", "test", "tools"],
        &["agent", "key", "mint", "tools", "--kind", "delegate"],
        &["agent", "key", "list", "tools"],
        &["agent", "trigger", "list", "tools"],
        &["run", "list", "tools"],
        &["usage", "--agent", "tools"],
    ] {
        let shown = place.run(arguments).await;
        assert!(
            shown.starts_with("exit 2\n") && shown.contains("reserved"),
            "{arguments:?}: {shown}"
        );
    }
    assert_eq!(place.calls().await, 0);
}

#[tokio::test]
async fn a_list_names_the_agents_with_warnings_and_one_tells_them() {
    let place = Place::ready().await;
    let noted = |slug: &str, status: &str| {
        let mut row = agent(slug);
        row["status"] = status.into();
        row["warnings"] = json!(["something is wrong"]);
        row
    };
    let rows = [
        agent("fine"),
        noted("gone", "archived"),
        noted("triage", "active"),
        noted("other", "active"),
    ];
    place
        .in_sandbox("GET", "/agents", 200, &json!({"agents": rows, "count": 4}))
        .await;
    let shown = place.run(&["agent", "list"]).await;
    let note = "--- stderr\nWith warnings: triage, other. `copass agent show triage` tells them, and what to do.\n";
    assert!(shown.ends_with(note), "{shown}");
    assert!(place.run(&["agent", "list", "--json"]).await.ends_with("--- stderr\n"));
    place
        .in_sandbox("GET", "/agents/triage", 200, &noted("triage", "active"))
        .await;
    let shown = place.run(&["agent", "show", "triage"]).await;
    assert!(shown.ends_with("--- stderr\nwarning: something is wrong\n"), "{shown}");
}

#[tokio::test]
async fn what_is_wrong_with_a_new_agent_is_said() {
    let place = Place::ready().await;
    let mut created = agent("support");
    created["tool_allowlist"] = json!(["nope", "serch"]);
    created["warnings"] = json!([
        "the allowlist entry nope matches no tool there is now",
        "the allowlist entry serch matches no tool there is now"
    ]);
    created["allowlist_missing_entries"] = json!(["nope", "serch"]);
    place.in_sandbox("POST", "/agents", 201, &created).await;
    let tools = json!({"tools": [{"name": "search", "app_slug": "copass", "description": null}], "count": 1,
        "skipped": []});
    place.in_sandbox("GET", "/agents/tools", 200, &tools).await;
    let create = [
        "agent",
        "create",
        "support",
        "--prompt",
        "p",
        "--tool-allowlist",
        "nope,serch",
    ];
    assert_snapshot!(place.run(&create).await, @r#"
        exit 0
        --- stdout
        Created agent support (ag_01J9Z0000000000000000000AA, anthropic/claude-sonnet-4-6).
        --- stderr
        warning: the allowlist names tools that are not there: nope, serch (the closest is search)
          correct the allowlist:
            copass agent update support --tool-allowlist '["search"]'
        Try it with `copass agent test support`.
        "#);
    created["tool_sources"] = json!([]);
    created["warnings"] = json!(["tool_sources is empty, which means no tools", "something else"]);
    created["allowlist_missing_entries"] = json!(["nope", "serch"]);
    place
        .in_sandbox("PATCH", "/agents/support/tool-sources", 200, &created)
        .await;
    let create: Vec<&str> = create.into_iter().chain(["--tool-sources", "none"]).collect();
    assert_snapshot!(place.run(&create).await, @r#"
        exit 0
        --- stdout
        Created agent support (ag_01J9Z0000000000000000000AA, anthropic/claude-sonnet-4-6).
        --- stderr
        warning: tool_sources is empty, which means no tools
          no tool source is switched on for the agent; give it the default ones:
            copass agent update support --tool-sources default
        warning: something else
        Try it with `copass agent test support`.
        "#);
}

#[tokio::test]
async fn a_list_of_tools_is_a_list() {
    let place = Place::ready().await;
    assert_snapshot!(place.run(&["agent", "update", "support", "--tool-allowlist", "null"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: --tool-allowlist is not a JSON list of names: it is null

        hint: a list is --tool-allowlist '["search"]', or names separated by commas: --tool-allowlist search,discover
        "#);
    for (flag, text) in [
        ("--tool-allowlist", r#"{"a":1}"#),
        ("--tool-allowlist", r#""search""#),
        ("--tool-sources", "{}"),
    ] {
        let shown = place.run(&["agent", "update", "support", flag, text]).await;
        assert!(shown.starts_with("exit 2\n"), "{text}: {shown}");
    }
    assert_eq!(place.calls().await, 0);
}

#[tokio::test]
async fn created_with_everything_that_can_be_said() {
    let place = Place::ready().await;
    place.in_sandbox("POST", "/agents", 201, &agent("support")).await;
    assert_snapshot!(place.run(&["agent", "create", "support", "--prompt", "You help."]).await, @r#"
        exit 0
        --- stdout
        Created agent support (ag_01J9Z0000000000000000000AA, anthropic/claude-sonnet-4-6).
        --- stderr
        Try it with `copass agent test support`.
        "#);
    std::fs::write(place.work().join("prompt.txt"), "You help\nmore.").unwrap();
    let all = [
        "agent",
        "create",
        "s2",
        "--name",
        "S 2",
        "--prompt-file",
        "prompt.txt",
        "--model",
        "m",
        "--backend",
        "google",
        "--description",
        "d",
        "--temperature",
        "0.2",
        "--max-turns",
        "15",
        "--max-tokens",
        "1000",
        "--timeout-s",
        "60",
        "--tool-allowlist",
        "a,b",
    ];
    place.run(&all).await;
    place
        .run_with(&["agent", "create", "s3", "--prompt-file", "-"], "From stdin")
        .await;
    assert_eq!(
        place.sent("POST", "/agents").await,
        [
            json!({"slug": "support", "name": "support", "system_prompt": "You help."}),
            json!({"slug": "s2", "name": "S 2", "system_prompt": "You help\nmore.", "description": "d",
                "tool_allowlist": ["a", "b"],
                "model_settings": {"backend": "google", "model": "m", "temperature": 0.2, "max_turns": 15,
                    "max_tokens": 1000, "timeout_s": 60}}),
            json!({"slug": "s3", "name": "s3", "system_prompt": "From stdin"}),
        ]
    );
}

#[tokio::test]
async fn tool_sources_are_a_request_of_their_own() {
    let place = Place::ready().await;
    place.in_sandbox("POST", "/agents", 201, &agent("support")).await;
    let mut changed = agent("support");
    changed["tool_sources"] = json!(["a"]);
    changed["warnings"] = json!([]);
    place
        .in_sandbox("PATCH", "/agents/support/tool-sources", 200, &changed)
        .await;
    let create = |sources| {
        [
            "agent",
            "create",
            "support",
            "--prompt",
            "p",
            "--json",
            "--tool-sources",
            sources,
        ]
    };
    assert_eq!(
        place.run(&create("a")).await,
        format!("exit 0\n--- stdout\n{changed}\n--- stderr\n")
    );
    place.run(&create("default")).await;
    place.run(&create("none")).await;
    assert_eq!(
        place.sent("PATCH", "/tool-sources").await,
        [
            json!({"tool_sources": ["a"]}),
            json!({"tool_sources": null}),
            json!({"tool_sources": []})
        ]
    );
}

#[tokio::test]
async fn an_agent_without_its_tool_sources_is_not_kept_secret() {
    let place = Place::ready().await;
    place.in_sandbox("POST", "/agents", 201, &agent("support")).await;
    place
        .in_sandbox(
            "PATCH",
            "/agents/support/tool-sources",
            503,
            &problem("unavailable", "try later"),
        )
        .await;
    assert_snapshot!(
        place.run(&["agent", "create", "support", "--prompt", "p", "--tool-sources", "a,b"]).await,
        @r#"
        exit 1
        --- stdout
        --- stderr
        error: the agent support was created, but without its tool sources: try later

        hint: set them with `copass agent update support --tool-sources '["a","b"]'`
        "#
    );
}

#[tokio::test]
async fn what_cannot_be_created_is_not_sent() {
    let place = Place::ready().await;
    assert_snapshot!(place.run(&["agent", "create", "x"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          <--prompt <TEXT>|--prompt-file <PATH>>

        Usage: copass agent create <--prompt <TEXT>|--prompt-file <PATH>> <SLUG>

        For more information, try '--help'.
        "#);
    assert_snapshot!(place.run(&["agent", "create", "x", "--prompt-file", "missing.txt"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: cannot read missing.txt: No such file or directory (os error 2)
        "#);
    // An unset variable of a script must not open every tool.
    assert_snapshot!(place.run(&["agent", "create", "x", "--prompt", "p", "--tool-allowlist", ""]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: --tool-allowlist is empty

        hint: `[]` allows every tool
        "#);
    assert_snapshot!(place.run(&["agent", "create", "x", "--prompt", "p", "--tool-sources", "[1]"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: --tool-sources is not a JSON list of names: invalid type: integer `1`, expected a string at line 1 column 2

        hint: a list is --tool-sources '["search"]', or names separated by commas: --tool-sources search,discover
        "#);
    assert_eq!(place.calls().await, 0);
}

#[tokio::test]
async fn archiving_asks_first() {
    let place = Place::ready().await;
    place.in_sandbox("DELETE", "/agents/support", 204, &Value::Null).await;
    assert_snapshot!(place.run(&["agent", "archive", "support"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: refusing to archive an agent without confirmation

        hint: pass --yes to confirm
        "#);
    assert_eq!(place.calls().await, 0);
    assert_snapshot!(place.run(&["agent", "archive", "support", "--yes"]).await, @r#"
        exit 0
        --- stdout
        Archived agent support. `copass agent update support --status active` brings it back.
        --- stderr
        "#);
    assert_eq!(
        place.run(&["agent", "archive", "support", "--yes", "--json"]).await,
        "exit 0\n--- stdout\nnull\n--- stderr\n"
    );
}

#[tokio::test]
async fn tools_and_why_there_are_not_more() {
    let place = Place::ready().await;
    let tools = json!({"tools": [
            {"name": "search", "app_slug": "copass", "description": "Searches\nthe graph.",
                "source": "copass_retrieval", "read_only": true},
            {"name": "pd_slack_v2_send-message", "app_slug": "slack_v2", "description": null, "source": "pipedream",
                "read_only": false}],
        "count": 2, "skipped": [{"name": "user_mcp", "reason": "https://x did not tell its tools within 10 s"}]});
    place.in_sandbox("GET", "/agents/tools", 200, &tools).await;
    assert_snapshot!(place.run(&["agent", "tools", "--app", "slack_v2"]).await, @r#"
        exit 0
        --- stdout
        NAME                      APP       SOURCE            EFFECT   DESCRIPTION
        search                    copass    copass_retrieval  reads    Searches the graph.
        pd_slack_v2_send-message  slack_v2  pipedream         changes

        skipped user_mcp: https://x did not tell its tools within 10 s
        --- stderr
        "#);
    assert_eq!(
        place.run(&["agent", "tools", "--json"]).await,
        format!("exit 0\n--- stdout\n{tools}\n--- stderr\n")
    );
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(
        (requests[0].url.query(), requests[1].url.query()),
        (Some("app=slack_v2"), None)
    );
    let place = Place::ready().await;
    let none = json!({"tools": [], "count": 0, "skipped": [{"name": "a", "reason": "it is away"}]});
    place.in_sandbox("GET", "/agents/tools", 200, &none).await;
    assert_snapshot!(place.run(&["agent", "tools"]).await, @r#"
        exit 0
        --- stdout
        No tools.

        skipped a: it is away
        --- stderr
        "#);
}

#[tokio::test]
async fn keys_that_run_one_agent() {
    let place = Place::ready().await;
    let minted = json!({"api_key_id": "ak_1", "id": "ak_1", "key": "olk_secret", "plaintext_key": "olk_secret",
        "key_prefix": "olk_secr", "kind": "agent_invoke", "label": "ci", "agent_id": "ag_1",
        "expires_at": "2026-12-31T00:00:00Z", "warning": "not shown again"});
    place.in_sandbox("POST", "/agents/support/keys", 201, &minted).await;
    let key = json!({"id": "ak_1", "api_key_id": "ak_1", "name": "ci", "label": "ci", "kind": "agent_invoke",
        "agent_id": "ag_1", "key_prefix": "olk_secr", "created_at": "2026-04-30T14:25:18Z", "expires_at": null,
        "last_used_at": null, "is_expired": false, "revoked_at": null});
    place
        .in_sandbox("GET", "/agents/support/keys", 200, &json!([key]))
        .await;
    let mint = [
        "agent",
        "key",
        "mint",
        "support",
        "--kind",
        "invoke",
        "--label",
        "ci",
        "--holder",
        "@ada",
        "--expires-in-days",
        "30",
    ];
    assert_snapshot!(place.run(&mint).await, @r#"
        exit 0
        --- stdout
        olk_secret
        --- stderr
        Key ak_1 for support (agent_invoke, valid until 2026-12-31 00:00:00Z). Keep it safe: it is not shown again. `copass apikey revoke ak_1` ends it.
        "#);
    // The other spelling, and nothing but the answer on stdout.
    assert_eq!(
        place
            .run(&["agent", "keys", "mint", "support", "--kind", "delegate", "--json"])
            .await,
        format!("exit 0\n--- stdout\n{minted}\n--- stderr\n")
    );
    assert_eq!(
        place.sent("POST", "/keys").await,
        [
            json!({"kind": "invoke", "label": "ci", "copass_id": "@ada", "expires_in_days": 30}),
            json!({"kind": "delegate"}),
        ]
    );
    assert_snapshot!(place.run(&["agent", "keys", "list", "support", "--all"]).await, @r#"
        exit 0
        --- stdout
        ID    NAME  KEY        KIND          CREATED               LAST USED  STATE
        ak_1  ci    olk_secr…  agent_invoke  2026-04-30 14:25:18Z  -          active
        --- stderr
        "#);
    assert_snapshot!(place.run(&["agent", "key", "mint", "support"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          --kind <KIND>

        Usage: copass agent key mint --kind <KIND> <SLUG>

        For more information, try '--help'.
        "#);
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(requests[2].url.query(), Some("include_revoked=true"));
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/support/keys", 200, &json!([])).await;
    assert_snapshot!(place.run(&["agent", "key", "list", "support"]).await, @r#"
        exit 0
        --- stdout
        No keys. Create one with `copass agent key mint support --kind delegate`.
        --- stderr
        "#);
}
