//! Sources, agents, runs and triggers.

use insta::assert_snapshot;
use serde_json::json;

use crate::support::{Place, agent, run_row, source};

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
async fn agents() {
    let place = Place::ready().await;
    place
        .in_sandbox(
            "GET",
            "/agents",
            200,
            &json!({"agents": [agent("support")], "count": 1}),
        )
        .await;
    place.in_sandbox("GET", "/agents/support", 200, &agent("support")).await;
    place.in_sandbox("POST", "/agents", 201, &agent("support")).await;
    assert_snapshot!(place.run(&["agent", "list"]).await, @r#"
        exit 0
        --- stdout
        SLUG     NAME     STATUS  MODEL                        VERSION  CHANGED
        support  Support  active  anthropic/claude-sonnet-4-6  3        2026-05-01 08:00:00Z
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
    assert_snapshot!(place.run(&["agent", "create", "support", "--prompt", "You help."]).await, @r#"
        exit 0
        --- stdout
        Created agent support (ag_01J9Z0000000000000000000AA, anthropic/claude-sonnet-4-6).
        --- stderr
        "#);
    std::fs::write(place.work().join("prompt.txt"), "You help\nmore.").unwrap();
    place
        .run(&[
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
            "--tool-allowlist",
            "a,b",
        ])
        .await;
    place
        .run_with(&["agent", "create", "s3", "--prompt-file", "-"], "From stdin")
        .await;
    assert_eq!(
        place.sent("POST", "/agents").await,
        [
            json!({"slug": "support", "name": "support", "system_prompt": "You help."}),
            json!({"slug": "s2", "name": "S 2", "system_prompt": "You help\nmore.", "description": "d",
                "tool_allowlist": ["a", "b"],
                "model_settings": {"backend": "google", "model": "m", "temperature": 0.2, "max_turns": 15}}),
            json!({"slug": "s3", "name": "s3", "system_prompt": "From stdin"}),
        ]
    );
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
}

#[tokio::test]
async fn runs_and_triggers() {
    let place = Place::ready().await;
    let runs = json!({"agent_slug": "support", "runs": [run_row("succeeded")], "count": 1});
    place.in_sandbox("GET", "/agents/support/runs", 200, &runs).await;
    let mut detail = run_row("succeeded");
    detail["tool_resolution_trace"] = json!({"sources_resolved": ["copass_retrieval"], "sources_skipped": [],
        "tool_names_advertised": ["search", "discover"], "duration_ms": 3});
    detail["steps"] = json!([{"step_id": "st_1", "seq": 1, "kind": "tool", "state": "done", "name": "search",
        "arguments": {"q": "x"}, "error": null, "result_bytes": 10, "tokens_in": null, "tokens_out": null,
        "started_at": null, "finished_at": null}]);
    place.in_sandbox("GET", "/agents/runs/rn_1", 200, &detail).await;
    let trigger = json!({"trigger_id": "tr_1", "user_id": "u", "sandbox_id": "s", "agent_id": "a",
        "data_source_id": "ds_1", "event_type_filter": "github.issues.*", "filter_config": null, "status": "paused",
        "rate_limit_per_hour": 5, "last_fired_at": null, "fire_count": 7, "created_at": null, "updated_at": null});
    let triggers = json!({"agent_slug": "support", "triggers": [trigger], "count": 1});
    place
        .in_sandbox("GET", "/agents/support/triggers", 200, &triggers)
        .await;
    assert_snapshot!(place.run(&["agent", "runs", "support", "--limit", "5"]).await, @r#"
        exit 0
        --- stdout
        ID                             STATUS     STARTED               TOOK    COST          TRIGGER  RESULT
        rn_01J9Z0000000000000000000AA  succeeded  2026-04-30 14:25:18Z  420 ms  1.250000 USD  -        Done. All well.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["run", "show", "rn_1"]).await, @r#"
        exit 0
        --- stdout
        id        rn_01J9Z0000000000000000000AA
        agent     support
        version   3
        status    succeeded
        session   sess_1
        started   2026-04-30 14:25:18Z
        finished  2026-04-30 14:25:19Z
        duration  420 ms
        tokens    812 in, 24 out
        cost      1.250000 USD

        warning: source github was skipped

        tool resolution
          duration_ms: 3
          sources_resolved: copass_retrieval
          sources_skipped: -
          tool_names_advertised: search, discover

        STEP  KIND  NAME    STATE  ARGUMENTS  ERROR
        1     tool  search  done   {"q":"x"}

        Done.
        All well.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["agent", "trigger", "list", "support"]).await, @r#"
        exit 0
        --- stdout
        ID    EVENT            SOURCE  STATUS  PER HOUR  FIRED  LAST FIRED
        tr_1  github.issues.*  ds_1    paused  5         7      -
        --- stderr
        "#);
    assert_eq!(
        place.run(&["run", "show", "rn_1", "--json"]).await,
        format!("exit 0\n--- stdout\n{detail}\n--- stderr\n")
    );
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.query(), Some("limit=5"));
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
        No agents. Create one with `copass agent create <slug> --prompt <text>`.
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
