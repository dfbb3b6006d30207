//! Sources and triggers, and lists without rows.

use insta::assert_snapshot;
use serde_json::json;

use crate::support::{Place, run_row, source};

#[tokio::test]
async fn sources() {
    let place = Place::ready().await;
    place
        .in_sandbox(
            "GET",
            "/sources",
            200,
            &json!({"sources": [source("default")], "count": 1}),
        )
        .await;
    place.in_sandbox("GET", "/sources/ds_1", 200, &source("default")).await;
    let mut realtime = source("firehose");
    realtime["webhook_url"] = json!("http://x/webhooks/abc");
    realtime["webhook_signing_secret"] = json!("whsec_1");
    place.in_sandbox("POST", "/sources", 201, &realtime).await;
    assert_snapshot!(place.run(&["source", "list"]).await, @r#"
        exit 0
        --- stdout
        ID                             NAME     PROVIDER  MODE    KIND     STATUS  LAST DATA
        ds_01J9Z0000000000000000000AA  default  custom    manual  durable  active  -
        --- stderr
        "#);
    assert_snapshot!(place.run(&["source", "show", "ds_1"]).await, @r#"
        exit 0
        --- stdout
        id        ds_01J9Z0000000000000000000AA
        name      default
        provider  custom
        mode      manual
        kind      durable
        status    active
        created   2026-04-30 14:25:18Z
        --- stderr
        "#);
    assert_snapshot!(
        place.run(&["source", "register", "firehose", "--provider", "custom", "--mode", "realtime",
            "--adapter-config", r#"{"a":1}"#]).await,
        @r#"
        exit 0
        --- stdout
        Registered source firehose (ds_01J9Z0000000000000000000AA).
        webhook  http://x/webhooks/abc
        secret   whsec_1
        --- stderr
        Keep the secret safe: it is not shown again.
        "#
    );
    assert_eq!(
        place.sent("POST", "/sources").await,
        [json!({"name": "firehose", "provider": "custom", "ingestion_mode": "realtime", "adapter_config": {"a": 1}})]
    );
    assert_snapshot!(
        place.run(&["source", "register", "x", "--provider", "custom", "--adapter-config", "[1]"]).await,
        @r#"
        exit 2
        --- stdout
        --- stderr
        error: --adapter-config is not a JSON object: invalid type: sequence, expected a map at line 1 column 0
        "#
    );
}

#[tokio::test]
async fn triggers() {
    let place = Place::ready().await;
    let trigger = json!({"trigger_id": "tr_1", "user_id": "u", "sandbox_id": "s", "agent_id": "a",
        "data_source_id": "ds_1", "event_type_filter": "github.issues.*", "filter_config": null, "status": "paused",
        "rate_limit_per_hour": 5, "last_fired_at": null, "fire_count": 7, "created_at": null, "updated_at": null});
    let triggers = json!({"agent_slug": "support", "triggers": [trigger], "count": 1});
    place
        .in_sandbox("GET", "/agents/support/triggers", 200, &triggers)
        .await;
    assert_snapshot!(place.run(&["agent", "trigger", "list", "support"]).await, @r#"
        exit 0
        --- stdout
        ID    EVENT            SOURCE  STATUS  PER HOUR  FIRED  LAST FIRED
        tr_1  github.issues.*  ds_1    paused  5         7      -
        --- stderr
        "#);
}

#[tokio::test]
async fn empty_lists_say_so() {
    let place = Place::ready().await;
    place
        .in_sandbox("GET", "/agents", 200, &json!({"agents": [], "count": 0}))
        .await;
    place
        .in_sandbox("GET", "/sources", 200, &json!({"sources": [], "count": 0}))
        .await;
    place
        .in_sandbox(
            "GET",
            "/agents/a/runs",
            200,
            &json!({"agent_slug": "a", "runs": [], "count": 0}),
        )
        .await;
    place
        .in_sandbox("GET", "/agents/a/triggers", 200, &json!({"triggers": [], "count": 0}))
        .await;
    assert_snapshot!(place.run(&["agent", "list"]).await, @r#"
        exit 0
        --- stdout
        No agents. Create one with `copass agent setup`, or with `copass agent create <slug> --prompt <text>`.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["source", "list"]).await, @r#"
        exit 0
        --- stdout
        No data sources. Register one with `copass source register <name> --provider <provider>`.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["agent", "runs", "a"]).await, @r#"
        exit 0
        --- stdout
        No runs yet.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["agent", "trigger", "list", "a"]).await, @r#"
        exit 0
        --- stdout
        No triggers.
        --- stderr
        "#);
}

#[tokio::test]
async fn an_empty_list_does_not_deny_what_a_filter_leaves_out() {
    let place = Place::ready().await;
    for (path, body) in [
        ("/agents", json!({"agents": [], "count": 0})),
        ("/agents/a/runs", json!({"agent_slug": "a", "runs": [], "count": 0})),
        (
            "/agents/a/versions",
            json!({"agent_slug": "a", "versions": [], "count": 0}),
        ),
        ("/agents/tools", json!({"tools": [], "count": 0})),
        ("/audit", json!({"records": [], "count": 0})),
    ] {
        place.in_sandbox("GET", path, 200, &body).await;
    }
    for (arguments, expected) in [
        (&["agent", "runs", "a", "--agent-version", "77"][..], "No runs match."),
        (&["agent", "runs", "a", "--status", "failed"], "No runs match."),
        (&["agent", "runs", "a", "--trigger", "tr_1"], "No runs match."),
        (&["agent", "runs", "a", "--since", "7d"], "No runs match."),
        (
            &["agent", "runs", "a", "--until", "7d", "--before", "rn_1"],
            "No runs match.",
        ),
        (&["agent", "runs", "a", "--before", "rn_1"], "No older runs."),
        (&["agent", "runs", "a", "--limit", "5"], "No runs yet."),
        (&["agent", "list", "--status", "archived"], "No archived agents."),
        (&["agent", "versions", "a", "--before", "1"], "No older versions."),
        (&["agent", "tools", "--app", "slack"], "No tools of the app slack."),
        (&["audit", "list", "--before", "au_1"], "No older records."),
    ] {
        assert_eq!(
            place.run(arguments).await,
            format!("exit 0\n--- stdout\n{expected}\n--- stderr\n"),
            "{arguments:?}"
        );
    }
}

#[tokio::test]
async fn a_full_list_of_runs_says_how_to_see_older_ones() {
    let place = Place::ready().await;
    let runs: Vec<_> = (0..20)
        .map(|n| {
            let mut row = run_row("failed");
            row["run_id"] = format!("rn_{n}").into();
            row
        })
        .collect();
    place
        .in_sandbox(
            "GET",
            "/agents/a/runs",
            200,
            &json!({"agent_slug": "a", "runs": runs, "count": 20}),
        )
        .await;
    let shown = place.run(&["agent", "runs", "a"]).await;
    assert!(
        shown.ends_with("--- stderr\nOlder runs: `copass agent runs a --before rn_19`.\n"),
        "{shown}"
    );
    let asked = [
        "agent",
        "runs",
        "a",
        "--status",
        "failed",
        "--since",
        "2026-05-01T08:00:00.5Z",
        "--limit",
        "20",
        "--before",
        "rn_99",
    ];
    let shown = place.run(&asked).await;
    let older = "copass agent runs a --before rn_19 --limit 20 --status failed --since 2026-05-01T08:00:00.500Z";
    assert!(shown.ends_with(&format!("Older runs: `{older}`.\n")), "{shown}");
    let shown = place.run(&["agent", "runs", "a", "--limit", "21"]).await;
    assert!(shown.ends_with("--- stderr\n"), "{shown}");
    let shown = place.run(&["agent", "runs", "a", "--json"]).await;
    assert!(shown.ends_with("--- stderr\n"), "{shown}");
}
