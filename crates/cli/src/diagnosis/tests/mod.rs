//! One test a problem: what went wrong, and the line that mends it.

mod tools;

use copass_types::api::{Agent, RunDetail};
use serde_json::{Value, json};

use super::{Case, Finding, of_agent};

fn agent(changes: Value) -> Agent {
    let mut agent = json!({
        "agent_id": "ag_1", "user_id": "u", "sandbox_id": "sb_1", "slug": "support", "name": "Support",
        "description": null, "system_prompt": "Use serch to find things.", "tool_allowlist": [], "tool_sources": null,
        "status": "active", "version": 3,
        "model_settings": {"backend": "anthropic", "model": "claude-sonnet-4-6", "temperature": null,
            "max_tokens": null, "max_turns": null, "timeout_s": null, "compute_provider": null},
    });
    merge(&mut agent, changes);
    serde_json::from_value(agent).unwrap()
}

/// A run that succeeded with two tools, with changes.
fn run(changes: Value) -> RunDetail {
    let mut run = json!({
        "run_id": "rn_1", "user_id": "u", "sandbox_id": "sb_1", "agent_id": "ag_1", "agent_version": 3,
        "trigger_id": null, "status": "succeeded", "input_event": {}, "output_text": "Done.", "tokens_in": 8,
        "tokens_out": 2, "cost_microcents": 5, "duration_ms": 4, "error_message": null, "provider_session_id": null,
        "agent_slug": "support", "model": "anthropic/claude-sonnet-4-6",
        "tool_resolution_trace": {"sources_resolved": ["copass_retrieval"], "sources_skipped": [],
            "tool_names_advertised": ["search", "discover"], "allowlist_filtered_out": [],
            "allowlist_missing_entries": [], "duration_ms": 1, "sources": []},
    });
    merge(&mut run, changes);
    serde_json::from_value(run).unwrap()
}

fn merge(base: &mut Value, changes: Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, changes) => *base = changes,
    }
}

fn findings(run: &RunDetail, agent: Option<&Agent>) -> Vec<Finding> {
    Case::new(run, agent).findings()
}

/// The only finding of a run.
#[track_caller]
fn only(run: RunDetail, agent: Agent) -> Finding {
    let mut findings = findings(&run, Some(&agent));
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

fn call(name: &str, state: &str, error: Option<&str>) -> Value {
    json!({"step_id": "st_1", "seq": 2, "kind": "tool", "state": state, "name": name, "arguments": {"q": "it's"},
        "error": error, "result_bytes": null, "tokens_in": null, "tokens_out": null})
}

#[test]
fn a_good_run_needs_nothing() {
    assert_eq!(findings(&run(json!({})), Some(&agent(json!({})))), []);
    assert_eq!(findings(&run(json!({"tool_resolution_trace": null})), None), []);
}

#[test]
fn an_archived_agent() {
    let archived = agent(json!({"status": "archived"}));
    let finding = only(run(json!({})), archived);
    assert_eq!(finding.problem, "the agent support is archived and does not run");
    assert_eq!(finding.commands, ["copass agent update support --status active"]);
}

#[test]
fn a_provider_that_is_not_set_up() {
    let failed = json!({"status": "failed", "error_type": "ProviderError", "error_message":
        "no model provider is set up for `anthropic`: set models.anthropic.api_key"});
    let finding = only(run(failed), agent(json!({})));
    assert!(finding.advice.contains("models.anthropic.api_key"), "{finding:?}");
    assert_eq!(finding.commands, ["export COPASS__MODELS__ANTHROPIC__API_KEY=…"]);
    let stood_in = json!({"warnings": ["the built-in planner, which is not a language model, worked instead of x: no \
        model provider is set up for `hermes`: set models.hermes.base_url"]});
    let finding = only(run(stood_in), agent(json!({})));
    assert!(finding.problem.contains("worked instead"), "{finding:?}");
    assert_eq!(finding.commands, ["export COPASS__MODELS__HERMES__BASE_URL=…"]);
    let unknown = json!({"status": "failed", "error_message": "no model provider is set up for `openai`: use one of"});
    let finding = only(run(unknown), agent(json!({})));
    assert_eq!(
        finding.commands,
        ["copass agent update support --backend anthropic --model claude-sonnet-4-6"]
    );
}

#[test]
fn a_provider_that_failed() {
    let failed =
        |message: &str| run(json!({"status": "failed", "error_type": "ProviderError", "error_message": message}));
    let finding = only(failed("overloaded, try later"), agent(json!({})));
    assert!(finding.advice.contains("passing failure"), "{finding:?}");
    assert_eq!(finding.commands, ["copass run retry rn_1"]);
    let finding = only(failed("401: invalid x-api-key"), agent(json!({})));
    assert!(finding.advice.contains("check models.anthropic.api_key"), "{finding:?}");
}

#[test]
fn what_came_before_a_failure_of_the_provider_is_told_as_it_is() {
    let failed = |changes: Value| {
        let mut detail = json!({"status": "failed", "error_type": "ProviderError", "error_message": "overloaded",
            "output_text": null});
        merge(&mut detail, changes);
        only(run(detail), agent(json!({}))).advice
    };
    let nothing = "nothing of the answer was used; if it was a passing failure, run it again:";
    assert_eq!(failed(json!({})), nothing);
    assert_eq!(failed(json!({"output_text": ""})), nothing);
    let partial = failed(json!({"output_text": "The first half"}));
    assert!(partial.starts_with("what was written before is kept"), "{partial}");
    let called = failed(json!({"steps": [call("search", "done", None)]}));
    assert!(called.starts_with("the calls that were made before"), "{called}");
}

#[test]
fn a_request_that_the_provider_refuses_for_good() {
    let refused = |facts: &str| {
        let message = format!("Anthropic refuses the request (HTTP {facts}): check the agent's model and its settings");
        run(
            json!({"status": "failed", "error_type": "ProviderError", "error_message": message,
            "model": "anthropic/claude-sonet"}),
        )
    };
    let with = |model: &str, version: u32| agent(json!({"version": version, "model_settings": {"model": model}}));
    let finding = only(refused("404, not_found_error"), with("claude-sonet", 3));
    assert_eq!(
        finding.advice,
        "most likely the provider has no model of the name anthropic/claude-sonet; name one that it has (its usual one is \
         claude-sonnet-4-6), then run it again:"
    );
    assert_eq!(
        finding.commands,
        ["copass agent update support --model <model>", "copass run retry rn_1"]
    );
    let finding = only(refused("400, invalid_request_error"), with("claude-sonet", 3));
    assert!(finding.advice.contains("one of the settings"), "{finding:?}");
    assert_eq!(
        finding.commands,
        [
            "copass agent show support",
            "copass agent update support --model <model>",
            "copass run retry rn_1"
        ]
    );
    // Another model since.
    let finding = only(refused("404, not_found_error"), with("claude-sonnet-4-6", 4));
    assert!(finding.advice.contains("the agent has another by now"), "{finding:?}");
    assert_eq!(finding.commands, ["copass run retry rn_1"]);
    // The prompt is no matter of the model's name, and the same again would be in vain.
    let prompt = json!({"status": "failed", "error_type": "ProviderError",
        "error_message": "Google refuses this prompt (safety); change what is asked"});
    assert_eq!(only(run(prompt), agent(json!({}))).commands, [""; 0]);
    // Nor is a key, whatever the number is that it is refused with.
    let key = json!({"status": "failed", "error_type": "ProviderError", "error_message":
        "Anthropic does not accept the key (HTTP 402, billing_error): check the key and its account"});
    let finding = only(run(key), agent(json!({})));
    assert!(finding.advice.contains("check models.anthropic.api_key"), "{finding:?}");
}

#[test]
fn what_the_server_does_not_repeat_is_never_told_to_be_repeated() {
    let lost = "the process that worked on this run was lost, and the run was not finished";
    let refused = "Anthropic refuses the request (HTTP 404): check the agent's model and its settings";
    for (slug, again) in [
        ("@run", "send the request to agents/run"),
        ("@concierge", "ask the Concierge again"),
    ] {
        for changes in [
            json!({"error_message": lost}),
            json!({"error_message": lost, "steps": [call("send", "unknown", None)]}),
            json!({"error_type": "ProviderError", "error_message": "overloaded"}),
            json!({"error_type": "ProviderError", "error_message": "HTTP 401"}),
            json!({"error_type": "ProviderError", "error_message": refused}),
        ] {
            let mut detail = json!({"agent_slug": slug, "status": "failed"});
            merge(&mut detail, changes);
            let findings = findings(&run(detail), None);
            let [finding] = findings.as_slice() else {
                panic!("{findings:#?}")
            };
            assert!(
                finding.advice.contains(again) && finding.commands.is_empty(),
                "{slug}: {finding:?}"
            );
        }
    }
}

#[test]
fn a_call_whose_outcome_nobody_knows() {
    let lost = json!({"status": "failed", "error_type": "UncertainToolCall", "error_message":
        "the process that worked on this run was lost, and the run was not finished", "steps":
        [call("search", "done", None), call("send", "unknown", None)]});
    let finding = only(run(lost), agent(json!({})));
    assert_eq!(
        finding.problem,
        r#"nobody knows whether the call send {"q":"it's"} took effect"#
    );
    assert!(finding.advice.contains("look at the other side"), "{finding:?}");
    assert_eq!(finding.commands, ["copass run retry rn_1"]);
}

#[test]
fn a_worker_that_was_lost_between_calls() {
    let lost = json!({"status": "failed", "error_message":
        "the process that worked on this run was lost, and the run was not finished"});
    let finding = only(run(lost), agent(json!({})));
    assert_eq!(finding.commands, ["copass run retry rn_1"]);
}

#[test]
fn the_limits() {
    let turns =
        json!({"warnings": ["stopped after 25 model answers, the most this run may use; the model wanted to go on"]});
    assert_eq!(
        only(run(turns), agent(json!({}))).commands,
        ["copass agent update support --max-turns 50", "copass run retry rn_1"]
    );
    let tokens = json!({"warnings": ["stopped after 1000 written tokens, the most this run may use; the model wanted to go on"]});
    assert_eq!(
        only(run(tokens), agent(json!({}))).commands,
        ["copass agent update support --max-tokens 2000", "copass run retry rn_1"]
    );
    let time = json!({"status": "timeout", "error_type": "Timeout",
        "error_message": "the run took longer than 2.5 s and was stopped"});
    assert_eq!(
        only(run(time), agent(json!({}))).commands,
        ["copass agent update support --timeout-s 4", "copass run retry rn_1"]
    );
}

#[test]
fn the_limit_of_tokens_is_what_the_agent_may_write_and_not_what_it_wrote() {
    let stopped = |rest: &str| {
        let warning = format!("stopped after 1203 written tokens; this run may write 1000{rest}");
        only(
            run(json!({"warnings": [warning]})),
            agent(json!({"model_settings": {"max_tokens": 1000}})),
        )
    };
    for rest in ["", "; the model wanted to go on", " of them"] {
        let finding = stopped(rest);
        assert_eq!(finding.problem, "the run stopped at its limit of written tokens (1000)");
        assert_eq!(
            finding.commands,
            ["copass agent update support --max-tokens 2000", "copass run retry rn_1"]
        );
    }
}

#[test]
fn more_is_never_less_than_there_is_nor_more_than_is_allowed() {
    let turns = |turns: u32| {
        run(json!({"warnings": [format!("stopped after {turns} model answers, the most this run may use")]}))
    };
    let with = |changes: Value| agent(json!({"model_settings": changes}));
    let finding = only(turns(150), with(json!({"max_turns": 150})));
    assert_eq!(finding.commands[0], "copass agent update support --max-turns 200");
    // From the time when more was taken.
    for own in [200, 600] {
        let finding = only(turns(200), with(json!({"max_turns": own})));
        assert!(
            finding.commands.is_empty()
                && finding
                    .advice
                    .starts_with("200 is the most that --max-turns takes; ask less"),
            "{finding:?}"
        );
    }
    let mut changed = with(json!({"max_turns": 180}));
    changed.version = 4;
    let finding = only(turns(25), changed);
    assert!(finding.advice.contains("the agent has 180 by now"), "{finding:?}");
    assert_eq!(finding.commands, ["copass run retry rn_1"]);
    let late = |seconds: u32| {
        run(
            json!({"status": "timeout", "error_message": format!("the run took longer than {seconds} s and was stopped")}),
        )
    };
    let finding = only(late(2000), with(json!({"timeout_s": 2000})));
    assert_eq!(finding.commands[0], "copass agent update support --timeout-s 3600");
    let finding = only(late(600), with(json!({"timeout_s": 1200})));
    assert!(
        finding.commands.is_empty() && finding.advice.contains("this server grants no more"),
        "{finding:?}"
    );
    assert!(only(late(3600), with(json!({}))).commands.is_empty());
}

#[test]
fn an_answer_that_was_cut_off() {
    let warning = "the model's answer was cut off: it reached max_tokens";
    let cut = || run(json!({"warnings": [warning]}));
    let finding = only(cut(), agent(json!({"model_settings": {"max_tokens": 500}})));
    assert_eq!(finding.problem, warning);
    assert_eq!(
        finding.commands,
        ["copass agent update support --max-tokens 1000", "copass run retry rn_1"]
    );
    let finding = only(cut(), agent(json!({})));
    assert!(
        finding.commands.is_empty() && finding.advice.contains("ask for shorter answers"),
        "{finding:?}"
    );
    // The limit of the run says the same and more.
    let both = json!({"warnings": [warning, "stopped after 500 written tokens, the most this run may use"]});
    let finding = only(run(both), agent(json!({"model_settings": {"max_tokens": 500}})));
    assert!(finding.problem.contains("its limit of written tokens"), "{finding:?}");
}

#[test]
fn a_provider_that_tells_no_usage() {
    let warning =
        "the cost is not known: the provider told no usage for at least one answer of anthropic/claude-sonnet-4-6";
    for tokens in [0, 8] {
        let silent = run(json!({"cost_microcents": null, "tokens_in": tokens, "tokens_out": 0, "warnings": [warning]}));
        let finding = only(silent, agent(json!({})));
        assert!(
            finding.problem.contains("did not tell what an answer used"),
            "{finding:?}"
        );
    }
}

#[test]
fn a_model_without_a_price() {
    let finding = only(run(json!({"cost_microcents": null})), agent(json!({})));
    assert!(
        finding.problem.contains("no price for anthropic/claude-sonnet-4-6")
            && finding.advice.contains("models.prices_file"),
        "{finding:?}"
    );
    // A run that goes on has no cost yet, and one that called no model never has.
    for unknown in [
        json!({"cost_microcents": null, "status": "running"}),
        json!({"cost_microcents": null, "status": "failed", "tokens_in": 0, "tokens_out": 0}),
    ] {
        assert_eq!(findings(&run(unknown), None), []);
    }
}

#[test]
fn a_change_is_answered_with_what_is_wrong_now() {
    let mut changed = serde_json::to_value(agent(
        json!({"tool_allowlist": ["serch", "discover"], "status": "archived",
        "tool_sources": ["a", "copass_retrieval"]}),
    ))
    .unwrap();
    merge(
        &mut changed,
        json!({"warnings": ["the agent is archived and does not run; set its status to active to get it back",
            "the tool source a was skipped: it is away", "the allowlist entry serch matches no tool there is now",
            "the allowlist entries a, b and 502 more: each matches no tool there is now", "something new"], "allowlist_missing_entries": ["serch"]}),
    );
    let changed: Agent = serde_json::from_value(changed).unwrap();
    let commands: Vec<String> = of_agent(&changed, &["search", "discover"])
        .into_iter()
        .map(|finding| finding.commands.first().cloned().unwrap_or(finding.problem))
        .collect();
    assert_eq!(
        commands,
        [
            "copass agent update support --status active",
            r#"copass agent update support --tool-sources '["copass_retrieval"]'"#,
            r#"copass agent update support --tool-allowlist '["search","discover"]'"#,
            "something new",
        ]
    );
}

#[test]
fn a_change_that_leaves_no_source_says_how_to_have_one() {
    let mut changed = serde_json::to_value(agent(json!({"tool_sources": ["copass_management"]}))).unwrap();
    merge(
        &mut changed,
        json!({"allowlist_missing_entries": [], "warnings": ["the tool source copass_management was skipped: only the \
            Concierge has it; take it out of tool_sources", "no tool was offered to the model; it can only talk"]}),
    );
    let findings = of_agent(&serde_json::from_value(changed).unwrap(), &[]);
    let [skipped, none] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(skipped.commands, ["copass agent update support --tool-sources default"]);
    assert!(
        none.commands.is_empty() && none.advice.contains("as said above"),
        "{none:?}"
    );
}

#[test]
fn foreign_names_cannot_forge_a_line() {
    let steps = json!({"steps": [call("x\n    copass sandbox destroy\u{1b}[8m", "failed", Some("unknown tool"))]});
    let finding = only(run(steps), agent(json!({})));
    let shown = finding.describe("- ");
    assert!(
        shown.starts_with("- the model called x     copass sandbox destroy[8m, which"),
        "{shown}"
    );
    let trace = json!({"tool_resolution_trace": {"allowlist_missing_entries": ["a'; rm -rf ~; '"]}});
    let finding = only(
        run(trace),
        agent(json!({"tool_allowlist": ["a'; rm -rf ~; '", "b'$(id)"]})),
    );
    let words = shell_words::split(&finding.commands[0]).unwrap();
    assert_eq!(
        words,
        [
            "copass",
            "agent",
            "update",
            "support",
            "--tool-allowlist",
            r#"["b'$(id)"]"#
        ]
    );
}
