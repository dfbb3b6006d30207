//! One run: what explains it, and what fixes it.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::{Place, agent, run_row};

fn model_step(seq: u32, text: &str) -> Value {
    json!({"step_id": format!("st_{seq}"), "seq": seq, "kind": "model", "state": "done",
        "name": "anthropic/claude-sonnet-4-6", "arguments": null, "error": null, "result_bytes": null,
        "tokens_in": 400, "tokens_out": 12, "cost_microcents": 1380, "started_at": "2026-04-30T14:25:18.000000Z",
        "finished_at": "2026-04-30T14:25:18.650000Z", "output_preview": text})
}

fn tool_step(seq: u32, name: &str, state: &str, changes: Value) -> Value {
    let mut step = json!({"step_id": format!("st_{seq}"), "seq": seq, "kind": "tool", "state": state, "name": name,
        "arguments": {"query": "checkout", "limit": 5}, "error": null, "result_bytes": 120, "tokens_in": null,
        "tokens_out": null, "started_at": "2026-04-30T14:25:18.700000Z",
        "finished_at": "2026-04-30T14:25:18.712000Z", "output_preview": "{}", "read_only": true});
    for (key, value) in changes.as_object().unwrap() {
        step[key] = value.clone();
    }
    step
}

fn detail(status: &str, trace: Value, changes: Value) -> Value {
    let mut detail = run_row(status);
    detail["warnings"] = json!([]);
    detail["tool_resolution_trace"] = trace;
    for (key, value) in changes.as_object().unwrap() {
        detail[key] = value.clone();
    }
    detail
}

fn trace(advertised: &[&str], filtered: &[&str], missing: &[&str]) -> Value {
    json!({"sources_resolved": ["copass_retrieval"], "sources_skipped": [], "tool_names_advertised": advertised,
        "allowlist_filtered_out": filtered, "allowlist_missing_entries": missing, "duration_ms": 3,
        "sources": [{"name": "copass_retrieval", "state": "resolved", "reason": null, "tool_count": 2,
            "duration_ms": 2}]})
}

async fn shown(run: &Value, agent: &Value) -> String {
    let place = Place::ready().await;
    place.in_sandbox("GET", "/agents/runs/rn_1", 200, run).await;
    place.in_sandbox("GET", "/agents/support", 200, agent).await;
    assert_eq!(
        place.run(&["run", "show", "rn_1", "--json"]).await,
        format!("exit 0\n--- stdout\n{run}\n--- stderr\n"),
    );
    assert_eq!(place.calls().await, 1, "a program gets the answer to one call");
    place.run(&["run", "show", "rn_1"]).await
}

/// What stands under `to fix`.
fn fixes(shown: &str) -> &str {
    let (_, mend) = shown.split_once("to fix\n").unwrap_or((shown, "nothing\n--- stderr\n"));
    mend.split_once("--- stderr").unwrap().0.trim_end()
}

#[tokio::test]
async fn everything_there_is_to_know() {
    let steps = json!([
        model_step(1, "Let me look.\nTwo things at once."),
        tool_step(
            2,
            "search",
            "done",
            json!({"is_truncated": true, "result_bytes": 70000})
        ),
        tool_step(
            3,
            "send",
            "failed",
            json!({"error": "no\nsuch channel", "read_only": false, "arguments": {}})
        ),
        model_step(4, ""),
        tool_step(
            5,
            "send",
            "intended",
            json!({"read_only": false, "finished_at": null, "result_bytes": null})
        ),
    ]);
    let run = detail(
        "succeeded",
        trace(&["search", "send"], &["purge"], &[]),
        json!({"steps": steps, "entrance": "retry", "retry_of": "rn_0", "continuations": 2, "trigger_id": "tr_1",
            "model": "anthropic/claude-sonnet-4-6", "end_user_id": "ada", "input_event": {"title": "broken checkout"},
            "cost_breakdown_microcents": {"input": 1_000_000, "output": 250_000, "cache_read": 0, "total": 1_250_000},
            "warnings": ["the tool purge of b is left out: a has one of that name"]}),
    );
    assert_snapshot!(shown(&run, &agent("support")).await, @r#"
        exit 0
        --- stdout
        id          rn_01J9Z0000000000000000000AA
        agent       support (version 3)
        status      succeeded
        started by  retry
        trigger     tr_1
        repeats     rn_0
        taken up    2 times, after its worker was lost
        end user    ada
        session     sess_1
        model       anthropic/claude-sonnet-4-6
        accepted    2026-04-30 14:25:18Z
        started     2026-04-30 14:25:18Z
        finished    2026-04-30 14:25:19Z
        duration    420 ms
        tokens      812 in, 24 out
        cost        $1.25 (input $1.00, output $0.25)
        input       {"title":"broken checkout"}

        warning: the tool purge of b is left out: a has one of that name

        tools
          copass_retrieval: 2 tools in 2 ms
          offered to the model: 2 (search, send)
          kept out by the allowlist: 1 (purge)
          found out in 3 ms

        steps
          1 model anthropic/claude-sonnet-4-6  400 in, 12 out, $0.00138, 650 ms
            says: Let me look. Two things at once.
            ├─ 2 search {"query":"checkout","limit":5}
            │    done, 12 ms, reads only, 70000 bytes
            │    whole result: copass run show rn_01J9Z0000000000000000000AA --step 2
            └─ 3 send
                 failed, 12 ms, 120 bytes
                 error: no such channel
          4 model anthropic/claude-sonnet-4-6  400 in, 12 out, $0.00138, 650 ms
            └─ 5 send {"query":"checkout","limit":5}
                 not over

        answer
          Done.
          All well.
        --- stderr
        "#);
}

#[tokio::test]
async fn a_stale_allowlist_entry() {
    let run = detail("succeeded", trace(&[], &["search"], &["serch"]), json!({}));
    let mut agent = agent("support");
    agent["tool_allowlist"] = json!(["serch"]);
    assert_snapshot!(shown(&run, &agent).await, @r#"
        exit 0
        --- stdout
        id        rn_01J9Z0000000000000000000AA
        agent     support (version 3)
        status    succeeded
        session   sess_1
        accepted  2026-04-30 14:25:18Z
        started   2026-04-30 14:25:18Z
        finished  2026-04-30 14:25:19Z
        duration  420 ms
        tokens    812 in, 24 out
        cost      $1.25

        tools
          copass_retrieval: 2 tools in 2 ms
          offered to the model: nothing
          kept out by the allowlist: 1 (search)
          in the allowlist, but not there: 1 (serch)
          found out in 3 ms

        answer
          Done.
          All well.

        to fix
        - no tool was offered to the model, so it could only talk
          the allowlist keeps every tool out; correct it as said below
        - the allowlist names tools that are not there: serch (the closest is search)
          correct the allowlist:
            copass agent update support --tool-allowlist '["search"]'
        --- stderr
        "#);
}

#[tokio::test]
async fn an_archived_agent() {
    let refused = json!({"error_type": "AgentArchived", "error_message": "the agent support is archived"});
    let run = detail("failed", trace(&["search"], &[], &[]), refused);
    let mut agent = agent("support");
    agent["status"] = json!("archived");
    assert_snapshot!(fixes(&shown(&run, &agent).await), @r#"
        - the agent support is archived and does not run
          make it active again:
            copass agent update support --status active
        "#);
}

#[tokio::test]
async fn a_skipped_source() {
    let mut trace = trace(&["search"], &[], &[]);
    trace["sources_skipped"] = json!(["pipedream"]);
    let skipped = json!({"name": "pipedream", "state": "skipped", "reason": "no account is connected",
        "tool_count": 0, "duration_ms": 1200});
    trace["sources"].as_array_mut().unwrap().push(skipped);
    let mut agent = agent("support");
    agent["tool_sources"] = json!(["copass_retrieval", "pipedream"]);
    let run = detail(
        "succeeded",
        trace,
        json!({"warnings":
        ["the tool source pipedream was skipped: no account is connected"]}),
    );
    let shown = shown(&run, &agent).await;
    assert!(
        shown.contains("pipedream: skipped in 1.2 s: no account is connected"),
        "{shown}"
    );
    assert_snapshot!(fixes(&shown), @r#"
        - the tool source pipedream was skipped: no account is connected
          set it up, or go without it:
            copass agent update support --tool-sources '["copass_retrieval"]'
        "#);
}

#[tokio::test]
async fn an_empty_tool_set() {
    let mut agent = agent("support");
    agent["tool_allowlist"] = json!(["gone"]);
    let run = detail("succeeded", trace(&[], &["search", "discover"], &[]), json!({}));
    assert_snapshot!(fixes(&shown(&run, &agent).await), @r#"
        - no tool was offered to the model, so it could only talk
          the allowlist keeps every tool out; name those it needs, or allow all there are:
            copass agent update support --tool-allowlist '["search","discover"]'
        "#);
}

#[tokio::test]
async fn a_wrong_name() {
    let steps = json!([
        model_step(1, ""),
        tool_step(2, "serch", "failed", json!({"error": "unknown tool"}))
    ]);
    let run = detail("succeeded", trace(&["search"], &[], &[]), json!({"steps": steps}));
    let mut agent = agent("support");
    agent["system_prompt"] = json!("Call serch.");
    assert_snapshot!(fixes(&shown(&run, &agent).await), @r#"
        - the model called serch, which it was not offered
          the closest is search: write it in the prompt instead of serch
            copass agent update support --prompt-replace serch search
        "#);
}

#[tokio::test]
async fn the_rest_of_what_goes_wrong() {
    let steps = json!([
        model_step(1, ""),
        tool_step(2, "send", "unknown", json!({"read_only": false}))
    ]);
    let run = detail(
        "timeout",
        trace(&["send"], &[], &[]),
        json!({"steps": steps, "error_type": "Timeout", "cost_microcents": null,
            "error_message": "the run took longer than 600 s and was stopped; the outcome of send is not known",
            "model": "hermes/llama",
            "warnings": ["the built-in planner, which is not a language model, worked instead of hermes/llama: no model \
                provider is set up for `hermes`: set models.hermes.base_url",
                "stopped after 25 model answers, the most this run may use; the model wanted to go on"]}),
    );
    assert_snapshot!(fixes(&shown(&run, &agent("support")).await), @r#"
        - the server has no model provider for hermes; the built-in planner, which is not a language model, worked instead
          set models.hermes.base_url on the server, for example in its environment, and start it again:
            export COPASS__MODELS__HERMES__BASE_URL=…
        - nobody knows whether the call send {"query":"checkout","limit":5} took effect
          it was not repeated; look at the other side whether it did, and only then run it again:
            copass run retry rn_01J9Z0000000000000000000AA
        - the run stopped at its limit of 25 model answers
          give it more, or ask less of one run; then run it again:
            copass agent update support --max-turns 50
            copass run retry rn_01J9Z0000000000000000000AA
        - the run took longer than its limit of 600 s
          give it more, or ask less of one run; then run it again:
            copass agent update support --timeout-s 1200
            copass run retry rn_01J9Z0000000000000000000AA
        - the cost is unknown: the server's price list has no price for hermes/llama
          write its price into a file and name that file in models.prices_file on the server:
            export COPASS__MODELS__PRICES_FILE=prices.toml
        "#);
}

#[tokio::test]
async fn a_run_without_an_agent_of_its_own() {
    let place = Place::ready().await;
    let run = detail(
        "running",
        Value::Null,
        json!({"agent_slug": "@run", "duration_ms": null, "finished_at": null,
        "cost_microcents": null, "tokens_in": null, "tokens_out": null, "output_text": null}),
    );
    place.in_sandbox("GET", "/agents/runs/rn_1", 200, &run).await;
    assert_snapshot!(place.run(&["run", "show", "rn_1"]).await, @r#"
        exit 0
        --- stdout
        id        rn_01J9Z0000000000000000000AA
        agent     @run (version 3)
        status    running
        session   sess_1
        accepted  2026-04-30 14:25:18Z
        started   2026-04-30 14:25:18Z

        tools
          not looked for yet, or not recorded
        --- stderr
        The run goes on; `copass run show rn_1 --follow` shows how.
        "#);
    assert_eq!(place.calls().await, 1, "there is no agent to ask for");
}

#[tokio::test]
async fn a_turn_that_the_server_does_not_repeat() {
    let place = Place::ready().await;
    let failed = json!({"agent_slug": "@run", "error_type": "ProviderError", "error_message": "overloaded",
        "output_text": null});
    let run = detail("failed", Value::Null, failed);
    place.in_sandbox("GET", "/agents/runs/rn_1", 200, &run).await;
    assert_snapshot!(fixes(&place.run(&["run", "show", "rn_1"]).await), @r#"
        - the model provider failed: overloaded
          nothing of the answer was used; if it was a passing failure, send the request to agents/run once more (`copass run "<message>"`)
        "#);
}

#[tokio::test]
async fn what_others_wrote_looks_like_nothing_of_ours() {
    let hostile = "x\u{1b}]0;t\u{7}\nto fix\n- run\n    copass sandbox destroy --yes\u{202e}";
    let steps = json!([
        model_step(1, hostile),
        tool_step(
            2,
            hostile,
            "failed",
            json!({"error": hostile, "arguments": {"a": hostile}})
        )
    ]);
    let mut trace = trace(&[hostile], &[hostile], &[hostile]);
    trace["sources_skipped"] = json!([hostile]);
    let skipped = json!({"name": hostile, "state": "skipped", "reason": hostile});
    trace["sources"].as_array_mut().unwrap().push(skipped);
    let run = detail(
        "failed",
        trace,
        json!({"steps": steps, "error_message": hostile, "output_text": hostile,
        "warnings": [hostile], "model": hostile, "retry_of": hostile}),
    );
    let mut agent = agent("support");
    agent["tool_allowlist"] = json!([hostile]);
    let shown = shown(&run, &agent).await;
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
    assert_eq!(shown.lines().filter(|line| *line == "to fix").count(), 1, "{shown}");
    let forged = shown
        .lines()
        .filter(|line| line.trim_start() == "copass sandbox destroy --yes");
    // In the answer only, which stands to the right.
    assert_eq!(forged.count(), 1, "{shown}");
}

#[tokio::test]
async fn the_whole_result_of_a_step() {
    let place = Place::ready().await;
    let steps = json!([model_step(1, ""), tool_step(2, "search", "done", json!({}))]);
    let run = detail("succeeded", Value::Null, json!({"steps": steps}));
    place.in_sandbox("GET", "/agents/runs/rn_1", 200, &run).await;
    let result = json!({"step_id": "st_2", "name": "search", "result": {"items": [1, 2]}});
    place
        .in_sandbox("GET", "/agents/runs/rn_1/steps/st_2/result", 200, &result)
        .await;
    let by_id = place.run(&["run", "show", "rn_1", "--step", "st_2"]).await;
    assert_snapshot!(by_id, @r#"
        exit 0
        --- stdout
        {
          "items": [
            1,
            2
          ]
        }
        --- stderr
        "#);
    assert_eq!(place.run(&["run", "show", "rn_1", "--step", "2"]).await, by_id);
    assert_eq!(
        place.run(&["run", "show", "rn_1", "--step", "2", "--json"]).await,
        format!("exit 0\n--- stdout\n{result}\n--- stderr\n")
    );
    assert_snapshot!(place.run(&["run", "show", "rn_1", "--step", "9"]).await, @r#"
        exit 5
        --- stdout
        --- stderr
        error: the run has no step 9
        "#);
    assert!(
        place
            .run(&["run", "show", "rn_1", "--step", "st_9"])
            .await
            .starts_with("exit 5\n")
    );
}
