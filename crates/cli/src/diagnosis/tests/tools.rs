//! Tools that a model did not get, and names that are none.

use serde_json::{Value, json};

use super::{super::Finding, agent, call, findings, only, run};

#[test]
fn a_stale_allowlist_entry() {
    let trace = json!({"tool_resolution_trace": {"allowlist_missing_entries": ["serch", "weather"],
        "tool_names_advertised": ["discover"], "allowlist_filtered_out": ["search"]}});
    let finding = only(
        run(trace.clone()),
        agent(json!({"tool_allowlist": ["discover", "serch", "weather"]})),
    );
    assert_eq!(
        finding.problem,
        "the allowlist names tools that are not there: serch (the closest is search), weather"
    );
    assert_eq!(
        finding.commands,
        [
            r#"copass agent update support --tool-allowlist '["discover","search"]'"#,
            "copass agent update support --prompt-replace serch search",
        ]
    );
    // Mended since.
    assert_eq!(
        findings(&run(trace), Some(&agent(json!({"tool_allowlist": ["discover"]})))),
        []
    );
}

#[test]
fn taking_the_last_entry_out_would_open_everything() {
    let trace = json!({"tool_resolution_trace": {"allowlist_missing_entries": ["weather"],
        "tool_names_advertised": [], "allowlist_filtered_out": ["search"]}});
    let agent = agent(json!({"tool_allowlist": ["weather"]}));
    let findings = findings(&run(trace), Some(&agent));
    let [empty, stale] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert!(
        empty.advice.contains("as said below") && empty.commands.is_empty(),
        "{empty:?}"
    );
    assert!(stale.advice.contains("would allow every tool"), "{stale:?}");
    assert_eq!(
        stale.commands,
        [r#"copass agent update support --tool-allowlist '["search"]'"#]
    );
    let nothing = json!({"tool_resolution_trace": {"allowlist_missing_entries": ["weather"],
        "tool_names_advertised": [], "sources_resolved": []}});
    let findings = super::Case::new(&run(nothing), Some(&agent)).findings();
    assert_eq!(findings.last().unwrap().commands, ["copass agent tools"]);
}

#[test]
fn an_entry_of_a_skipped_source_is_not_thrown_away() {
    let trace = json!({"tool_resolution_trace": {"allowlist_missing_entries": ["pd_slack_send"],
        "sources_skipped": ["pipedream"],
        "sources": [{"name": "pipedream", "state": "skipped", "reason": "no account is connected"}]}});
    let agent = agent(json!({"tool_allowlist": ["search", "pd_slack_send"],
        "tool_sources": ["copass_retrieval", "pipedream"]}));
    let findings = findings(&run(trace), Some(&agent));
    let [skipped, stale] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(
        skipped.problem,
        "the tool source pipedream was skipped: no account is connected"
    );
    assert_eq!(
        skipped.commands,
        [r#"copass agent update support --tool-sources '["copass_retrieval"]'"#]
    );
    assert!(
        stale.commands.is_empty() && stale.advice.contains("fix that first"),
        "{stale:?}"
    );
}

#[test]
fn a_skipped_source_with_a_slip_in_its_name() {
    let trace = json!({"tool_resolution_trace": {"sources_skipped": ["user_mpc"], "sources": [{"name": "user_mpc",
        "state": "skipped", "reason": "this server has no tool source of that name; it has copass_retrieval, user_mcp"}]}});
    let finding = only(
        run(trace),
        agent(json!({"tool_sources": ["copass_retrieval", "user_mpc"]})),
    );
    assert_eq!(finding.advice, "the closest is user_mcp:");
    assert_eq!(
        finding.commands,
        [r#"copass agent update support --tool-sources '["copass_retrieval","user_mcp"]'"#]
    );
}

#[test]
fn the_only_source_was_skipped() {
    let trace = json!({"tool_resolution_trace": {"sources_resolved": [], "sources_skipped": ["user_mcp"],
        "tool_names_advertised": []}});
    let agent = agent(json!({"tool_sources": ["user_mcp"]}));
    let findings = findings(&run(trace), Some(&agent));
    let [skipped, empty] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(
        skipped.advice,
        "it is the agent's only source: set it up, or give the agent the default ones:"
    );
    assert_eq!(skipped.commands, ["copass agent update support --tool-sources default"]);
    assert_eq!(empty.problem, "no tool was offered to the model, so it could only talk");
    assert!(
        empty.commands.is_empty() && empty.advice.contains("as said above"),
        "{empty:?}"
    );
}

/// A run none of whose sources gave tools.
fn all_skipped(sources: &[(&str, &str)]) -> Vec<Finding> {
    let names: Vec<&str> = sources.iter().map(|(name, _)| *name).collect();
    let told: Vec<Value> = sources
        .iter()
        .map(|(name, reason)| json!({"name": name, "state": "skipped", "reason": reason}))
        .collect();
    let trace = json!({"tool_resolution_trace": {"sources_resolved": [], "sources_skipped": names,
        "tool_names_advertised": [], "sources": told}});
    findings(&run(trace), Some(&agent(json!({"tool_sources": names}))))
}

#[test]
fn every_source_was_skipped() {
    let management = (
        "copass_management",
        "only the Concierge has it; take it out of tool_sources",
    );
    let default = "copass agent update support --tool-sources default";
    let findings = all_skipped(&[management]);
    assert_eq!(
        findings[0].advice,
        "it is the agent's only source: give the agent the default ones:"
    );
    assert_eq!(findings[0].commands, [default]);
    let findings = all_skipped(&[("pipedream", "no account is connected"), management]);
    let [pipedream, management, _] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(
        pipedream.advice,
        "none of the agent's sources gave tools: set it up, or give the agent the default ones:"
    );
    assert_eq!(
        management.advice,
        "none of the agent's sources gave tools: give the agent the default ones:"
    );
    assert_eq!([&pipedream.commands, &management.commands], [&[default]; 2]);
}

#[test]
fn a_source_that_no_agent_has_is_not_to_be_set_up() {
    let trace = json!({"tool_resolution_trace": {"sources_skipped": ["copass_management"],
        "sources": [{"name": "copass_management", "state": "skipped",
            "reason": "only the Concierge has it; take it out of tool_sources"}]}});
    let finding = only(
        run(trace),
        agent(json!({"tool_sources": ["copass_retrieval", "copass_management"]})),
    );
    assert_eq!(finding.advice, "go without it:");
    assert_eq!(
        finding.commands,
        [r#"copass agent update support --tool-sources '["copass_retrieval"]'"#]
    );
}

#[test]
fn the_default_sources_were_all_skipped() {
    let trace = json!({"tool_resolution_trace": {"sources_resolved": [], "sources_skipped": ["user_mcp"],
        "tool_names_advertised": []}});
    let findings = findings(&run(trace), Some(&agent(json!({}))));
    // It has the default ones already.
    assert_eq!(findings[0].commands, ["copass agent tools"]);
}

#[test]
fn an_allowlist_that_keeps_everything_out() {
    let trace = json!({"tool_resolution_trace": {"tool_names_advertised": [],
        "allowlist_filtered_out": ["search", "discover"]}});
    let finding = only(run(trace), agent(json!({"tool_allowlist": ["x"]})));
    assert!(finding.advice.contains("keeps every tool out"), "{finding:?}");
    assert_eq!(
        finding.commands,
        [r#"copass agent update support --tool-allowlist '["search","discover"]'"#]
    );
}

#[test]
fn no_tools_on_purpose_are_no_problem_unless_an_allowlist_says_otherwise() {
    let trace = json!({"tool_resolution_trace": {"sources_resolved": [], "tool_names_advertised": []}});
    let without = agent(json!({"tool_sources": []}));
    assert_eq!(findings(&run(trace.clone()), Some(&without)), []);
    let mut run = run(trace);
    run.tool_resolution_trace.as_mut().unwrap()["allowlist_missing_entries"] = json!(["search"]);
    let finding = only(run, agent(json!({"tool_sources": [], "tool_allowlist": ["search"]})));
    assert_eq!(finding.commands, ["copass agent update support --tool-sources default"]);
}

#[test]
fn a_wrong_name_that_stands_in_the_prompt() {
    let steps = json!({"steps": [call("serch", "failed", Some("unknown tool")),
        call("serch", "failed", Some("unknown tool")), call("search", "failed", Some("no index"))]});
    let finding = only(run(steps), agent(json!({})));
    assert_eq!(finding.problem, "the model called serch, which it was not offered");
    assert_eq!(
        finding.advice,
        "the closest is search: write it in the prompt instead of serch"
    );
    assert_eq!(
        finding.commands,
        ["copass agent update support --prompt-replace serch search"]
    );
}

#[test]
fn a_wrong_name_that_the_allowlist_keeps_out_or_that_nobody_knows() {
    let steps = json!({"steps": [call("publish", "failed", Some("unknown tool")),
            call("weather", "failed", Some("unknown tool"))],
        "tool_resolution_trace": {"allowlist_filtered_out": ["publish"]}});
    let agent = agent(json!({"tool_allowlist": ["search", "discover"]}));
    let findings = findings(&run(steps), Some(&agent));
    let [kept_out, unknown] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(
        kept_out.commands,
        [r#"copass agent update support --tool-allowlist '["search","discover","publish"]'"#]
    );
    assert_eq!(unknown.commands, ["copass agent tools"]);
}

#[test]
fn one_line_for_stale_entries_and_for_what_is_kept_out() {
    let steps = json!({"steps": [call("bad", "failed", Some("unknown tool")), call("worse", "failed", Some("unknown tool"))],
        "tool_resolution_trace": {"allowlist_missing_entries": ["nope", "serch"], "tool_names_advertised": [],
            "allowlist_filtered_out": ["bad", "search", "worse"]}});
    let listed = |list: Value| findings(&run(steps.clone()), Some(&agent(json!({"tool_allowlist": list}))));
    let commands = |findings: &[Finding]| -> Vec<String> {
        findings.iter().flat_map(|finding| finding.commands.clone()).collect()
    };
    let wrong = listed(json!(["nope", "serch"]));
    assert_eq!(
        commands(&wrong),
        [
            r#"copass agent update support --tool-allowlist '["search","bad","worse"]'"#,
            "copass agent update support --prompt-replace serch search",
        ]
    );
    let last = wrong.last().unwrap();
    assert_eq!(last.problem, "the model called bad, worse, which it was not offered");
    assert!(last.advice.contains("as said above"), "{last:?}");
    // What was mended since is not said again, and one line lets both in.
    assert_eq!(
        commands(&listed(json!(["search"]))),
        [r#"copass agent update support --tool-allowlist '["search","bad","worse"]'"#]
    );
    assert_eq!(
        commands(&listed(json!(["search", "bad", "worse"]))),
        ["copass run retry rn_1"]
    );
}

#[test]
fn slips_are_mended_before_sources_are_left_out() {
    let reason = "this server has no tool source of that name; it has copass_retrieval, user_mcp";
    let source = |name: &str, reason: &str| json!({"name": name, "state": "skipped", "reason": reason});
    let trace = json!({"tool_resolution_trace": {"sources_resolved": [],
        "sources_skipped": ["pipedream", "user_mpc", "copass_retrievel"],
        "sources": [source("pipedream", "no account is connected"), source("user_mpc", reason),
            source("copass_retrievel", reason)]}});
    let agent = agent(json!({"tool_sources": ["copass_retrievel", "user_mpc", "pipedream"]}));
    let commands: Vec<String> = findings(&run(trace), Some(&agent))
        .into_iter()
        .flat_map(|finding| finding.commands)
        .collect();
    let mended = r#"copass agent update support --tool-sources '["copass_retrieval","user_mcp","pipedream"]'"#;
    let without = r#"copass agent update support --tool-sources '["copass_retrieval","user_mcp"]'"#;
    assert_eq!(commands, [mended, mended, without]);
}

#[test]
fn a_call_of_a_tool_while_no_source_was_switched_on() {
    let steps = json!({"steps": [call("search", "failed", Some("unknown tool"))],
        "tool_resolution_trace": {"sources_resolved": [], "tool_names_advertised": []}});
    let finding = only(run(steps.clone()), agent(json!({"tool_sources": []})));
    assert_eq!(
        finding.problem,
        "the model called search, and no tool was offered to it"
    );
    assert!(finding.advice.contains("no tool source is switched on"), "{finding:?}");
    assert_eq!(finding.commands, ["copass agent update support --tool-sources default"]);
    // The same run after that.
    let mended = agent(json!({"tool_sources": null, "version": 4}));
    let finding = only(run(steps), mended.clone());
    assert!(
        finding
            .advice
            .contains("no tool source was switched on for the agent at version 3"),
        "{finding:?}"
    );
    assert_eq!(finding.commands, ["copass run retry rn_1"]);
    let without_tools = json!({"tool_resolution_trace": {"sources_resolved": [], "tool_names_advertised": []}});
    let mut run = run(without_tools);
    assert_eq!(findings(&run, Some(&mended)), [], "it was meant so");
    // A server without any source says so.
    run.run.warnings = vec!["no tool was offered to the model; it can only talk".to_owned()];
    let finding = only(run, mended);
    assert!(finding.advice.contains("no tool source gave one"), "{finding:?}");
}

#[test]
fn a_wrong_name_whose_right_one_the_allowlist_keeps_out() {
    let unknown = Some("unknown tool");
    let steps = json!({"steps": [call("serch", "failed", unknown), call("discovr", "failed", unknown)],
        "tool_resolution_trace": {"tool_names_advertised": ["send"], "allowlist_filtered_out": ["search", "discover"]}});
    let findings_with = |list: Value| findings(&run(steps.clone()), Some(&agent(json!({"tool_allowlist": list}))));
    let findings = findings_with(json!(["send"]));
    let [serch, discovr] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(serch.problem, "the model called serch, which it was not offered");
    assert_eq!(
        serch.advice,
        "the closest is search, which the allowlist keeps out; if the agent may use it, add it, and write it in the prompt \
         instead of serch:"
    );
    assert_eq!(
        serch.commands,
        [
            r#"copass agent update support --tool-allowlist '["send","search","discover"]'"#,
            "copass agent update support --prompt-replace serch search",
        ]
    );
    assert_eq!(
        discovr.advice,
        "the closest is discover, which the allowlist keeps out; correct it as said above"
    );
    assert!(discovr.commands.is_empty(), "{discovr:?}");
    // Let in since: the names are what is left to correct.
    let findings = findings_with(json!(["send", "search", "discover"]));
    assert_eq!(
        findings[0].commands,
        ["copass agent update support --prompt-replace serch search"]
    );
    assert_eq!(
        findings[1].advice,
        "the closest is discover; say so in what the agent is told"
    );
}

#[test]
fn one_line_lets_in_what_was_called_and_what_was_meant() {
    let unknown = Some("unknown tool");
    let steps = json!({"steps": [call("serch", "failed", unknown), call("discover", "failed", unknown)],
        "tool_resolution_trace": {"tool_names_advertised": ["send"], "allowlist_filtered_out": ["search", "discover"]}});
    let agent = agent(json!({"tool_allowlist": ["send"]}));
    let commands: Vec<String> = findings(&run(steps), Some(&agent))
        .into_iter()
        .flat_map(|finding| finding.commands)
        .collect();
    assert_eq!(
        commands,
        [
            r#"copass agent update support --tool-allowlist '["send","discover","search"]'"#,
            "copass agent update support --prompt-replace serch search",
        ]
    );
}

#[test]
fn a_stale_entry_that_stands_in_the_prompt_too() {
    let trace = json!({"allowlist_missing_entries": ["serch"], "tool_names_advertised": ["discover"],
        "allowlist_filtered_out": ["search"]});
    let agent = agent(json!({"tool_allowlist": ["discover", "serch"]}));
    let expected = [
        r#"copass agent update support --tool-allowlist '["discover","search"]'"#,
        "copass agent update support --prompt-replace serch search",
    ];
    let finding = only(run(json!({"tool_resolution_trace": trace})), agent.clone());
    assert!(
        finding.advice.contains("the prompt has a wrong name too"),
        "{finding:?}"
    );
    assert_eq!(finding.commands, expected);
    // The model did as it was told.
    let steps = json!({"tool_resolution_trace": trace, "steps": [call("serch", "failed", Some("unknown tool"))]});
    let findings = findings(&run(steps), Some(&agent));
    let [stale, called] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(stale.commands, expected);
    assert_eq!(
        called.advice,
        "the closest is search, which the allowlist keeps out; correct it as said above"
    );
    assert!(called.commands.is_empty(), "{called:?}");
}

#[test]
fn a_name_that_may_belong_to_a_skipped_source() {
    let steps = json!({"steps": [call("pd_slack_send", "failed", Some("unknown tool"))],
        "tool_resolution_trace": {"sources_skipped": ["pipedream"],
            "sources": [{"name": "pipedream", "state": "skipped", "reason": "no account is connected"}]}});
    let agent = agent(json!({"tool_sources": ["copass_retrieval", "pipedream"]}));
    let findings = findings(&run(steps), Some(&agent));
    let [_, called] = findings.as_slice() else {
        panic!("{findings:#?}")
    };
    assert!(
        called
            .advice
            .contains("it may belong to the source pipedream, which was skipped")
            && called.commands.is_empty(),
        "{called:?}"
    );
}
