//! Stateless runs: agents that exist for one call.

use std::sync::Arc;

use copass_errors::ErrorCode;
use copass_llm::{AGENT_PLANNER, AgentPlanner, Message};
use copass_proto::run::run_frame::Frame;
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::{Value, json};

use crate::support::{Builder, FakeSource, assert_code, providers::Recording, scripted};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    a_stateless_run_streams_and_remembers
    }
}
on_both_databases! {
    end_users_never_meet
    what_can_be_foreseen_is_refused_before_there_is_a_run
    without_a_provider_the_planner_works_in_dev
}

async fn a_stateless_run_streams_and_remembers(database: TestDatabase, wiring: Wiring) {
    let script = json!({"match": [
        {"contains": "first", "turns": [
            {"events": [{"text": "Looking. "}, {"tool_call": {"name": "look", "arguments": {"q": 1}}}]},
            {"events": [{"text": "Found."}]}]}],
        "turns": [{"events": [{"text": "Again."}]}]});
    let provider = Recording::new(scripted(script));
    let source = FakeSource::usual();
    let fixture = Builder::new(database, wiring)
        .provider(provider.clone())
        .tool_source(source.shared())
        .build()
        .await;
    let mut request = fixture.ad_hoc("the first");
    request.messages.push("and more".to_owned());
    let first = fixture.ran_ad_hoc(request).await;
    assert!(matches!(first.seen[0], Frame::RunStarted(_)));
    assert_eq!(first.text(), "Looking. Found.");
    assert_eq!(source.names(), ["look"]);
    assert_eq!(source.seekers()[0].end_user_id.as_deref(), Some("user:1"));
    assert_eq!(provider.last().system_prompt, "Be brief.");
    let run = fixture.run_row(&first.run_id()).await;
    assert_eq!(run.agent_slug.as_deref(), Some("@run"));
    assert_eq!(
        (run.entrance.as_str(), run.end_user_id.as_deref()),
        ("ad_hoc", Some("user:1"))
    );
    let trace: Value = serde_json::from_str(&run.tool_resolution_trace_json.unwrap()).unwrap();
    assert_eq!(trace["sources_resolved"], json!(["fake"]), "every run has a trace");

    let session_id = first.session_id();
    let mut again = fixture.ad_hoc("the second");
    again.session_id = Some(session_id.clone());
    let second = fixture.ran_ad_hoc(again).await;
    assert_eq!(second.session_id(), session_id);
    let memory = provider.last().messages;
    assert_eq!(memory[0], Message::user("the first\n\nand more"));
    assert_eq!(memory.len(), 5);

    // Another provider has a session of its own with the same memory; both go on from there by themselves.
    let mut elsewhere = fixture.ad_hoc("the third");
    elsewhere.provider = "google".to_owned();
    elsewhere.session_id = Some(session_id.clone());
    let third = fixture.ran_ad_hoc(elsewhere).await;
    let with_google = third.session_id();
    assert_ne!(with_google, session_id);
    assert_eq!(provider.last().messages.len(), 7);
    let mut go_on = fixture.ad_hoc("the fourth");
    go_on.provider = "google".to_owned();
    go_on.session_id = Some(with_google.clone());
    let fourth = fixture.ran_ad_hoc(go_on).await;
    assert_eq!(fourth.session_id(), with_google);
    let texts: Vec<_> = provider
        .last()
        .messages
        .iter()
        .filter_map(|message| match message {
            Message::User { text } => Some(text.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        texts,
        ["the first\n\nand more", "the second", "the third", "the fourth"]
    );
    let mut back = fixture.ad_hoc("the fifth");
    back.session_id = Some(session_id);
    fixture.ran_ad_hoc(back).await;
    assert_eq!(
        provider.last().messages.len(),
        7,
        "what was said to one is not said to the other"
    );
}

async fn end_users_never_meet(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let session_id = fixture.ran_ad_hoc(fixture.ad_hoc("hello")).await.session_id();
    let mut request = fixture.ad_hoc("and now?");
    request.session_id = Some(session_id);
    let mut other_end_user = request.clone();
    other_end_user.end_user_id = "user:2".to_owned();
    let owner = fixture.sandbox.owner();
    for (caller, request) in [
        (&owner, other_end_user),
        (&fixture.sandbox.editor(), request.clone()),
        (&fixture.sandbox.viewer(), request.clone()),
    ] {
        assert_code(fixture.run_ad_hoc(caller, request).await, ErrorCode::NotFound);
    }
    fixture.ran_ad_hoc(request).await;
    assert_eq!(fixture.count("select cast(count(*) as bigint) from runs").await, 2);
}

async fn what_can_be_foreseen_is_refused_before_there_is_a_run(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    type Change = fn(&mut copass_proto::run::RunAdHocRequest);
    let changes: [(&str, Change); 11] = [
        ("provider", |request| request.provider = "openai".to_owned()),
        ("provider", |request| request.provider = String::new()),
        ("model", |request| request.model = String::new()),
        ("system_prompt", |request| request.system_prompt = "a\0b".to_owned()),
        ("messages", |request| request.messages.clear()),
        ("messages", |request| request.messages.push(" ".to_owned())),
        ("messages", |request| request.messages.push("a\0b".to_owned())),
        ("messages", |request| request.messages = vec!["x".repeat(300_000)]),
        ("end_user_id", |request| request.end_user_id = String::new()),
        ("end_user_id", |request| request.end_user_id = "a b".to_owned()),
        ("end_user_id", |request| request.end_user_id = "x".repeat(129)),
    ];
    for (field, change) in changes {
        let mut request = fixture.ad_hoc("hello");
        change(&mut request);
        let refused = fixture.run_ad_hoc(&owner, request).await;
        let refused = assert_code(refused, ErrorCode::ValidationError);
        assert_eq!(
            refused.problems()[0].loc.last().map(String::as_str),
            Some(field),
            "{refused}"
        );
    }
    let mut secret = fixture.ad_hoc("hello");
    secret.system_prompt = format!("Use ghp_{}.", "a1".repeat(18));
    let refused = fixture.run_ad_hoc(&owner, secret).await;
    let refused = assert_code(refused, ErrorCode::SecretDetected);
    assert!(
        refused.detail().contains("system_prompt, line 1, column 5"),
        "{refused}"
    );
    let mut unserved = fixture.ad_hoc("hello");
    unserved.model = "claude-sonnet-4-6".to_owned();
    let refused = fixture.run_ad_hoc(&owner, unserved).await;
    let refused = assert_code(refused, ErrorCode::ProviderNotConfigured);
    assert!(refused.detail().contains("ANTHROPIC_API_KEY"), "{refused}");
    let suspended = fixture.sandbox.with_status("suspended").owner();
    let refused = fixture.run_ad_hoc(&suspended, fixture.ad_hoc("hello")).await;
    assert_code(refused, ErrorCode::SandboxNotActive);
    assert_eq!(fixture.count("select cast(count(*) as bigint) from runs").await, 0);
    let viewer = fixture.sandbox.viewer();
    let mut turn = fixture.run_ad_hoc(&viewer, fixture.ad_hoc("hello")).await.unwrap();
    turn.finish_reading().await;
    assert_eq!(turn.text(), "Hello.");
}

async fn without_a_provider_the_planner_works_in_dev(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local)
        .model(AGENT_PLANNER, Arc::new(AgentPlanner))
        .config(|config| config.planner_fallback = true)
        .build()
        .await;
    let mut unserved = fixture.ad_hoc("hello");
    unserved.model = "claude-sonnet-4-6".to_owned();
    let turn = fixture.ran_ad_hoc(unserved).await;
    assert!(!turn.text().is_empty());
    let run = fixture.run_row(&turn.run_id()).await;
    assert_eq!(
        (run.status.as_str(), run.model.as_deref()),
        ("succeeded", Some("agent_planner"))
    );
    assert_eq!(run.cost_microcents, Some(0));
    assert!(
        run.warnings_json.contains("not a language model"),
        "{}",
        run.warnings_json
    );
    assert!(run.warnings_json.contains("anthropic"), "{}", run.warnings_json);
}
