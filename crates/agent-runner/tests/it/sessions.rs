//! Conversations: continued, foreign, busy.

use std::collections::HashSet;

use copass_errors::ErrorCode;
use copass_llm::Message;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_both_databases};
use copass_types::{AgentKeyKind, Role};
use serde_json::json;

use crate::support::{Builder, agent_runs::with_agent_key, assert_code, is_text, providers::Recording, scripted};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! { a_conversation_is_continued_by_its_id
    }
}
on_both_databases! {
    unknown_and_foreign_ids_are_not_found
    agent_keys_have_conversations_of_their_own
    a_busy_conversation_is_refused
    one_of_many_simultaneous_turns_gets_the_conversation
    many_first_turns_share_one_system_agent
}

async fn a_conversation_is_continued_by_its_id(database: TestDatabase, wiring: Wiring) {
    let script = json!({"match": [
        {"contains": "first", "turns": [
            {"events": [{"text": "Looking. "}, {"tool_call": {"name": "list_agents", "arguments": {"a": 1}}}]},
            {"events": [{"text": "None."}]}]},
        {"contains": "second", "turns": [{"events": [{"text": "Still none."}]}]},
    ]});
    let provider = Recording::new(scripted(script));
    let fixture = Builder::new(database, wiring).provider(provider.clone()).build().await;
    let owner = fixture.sandbox.owner();
    let first = fixture.say_as(&owner, "the first", None).await;
    let second = fixture.say_as(&owner, "the second", Some(&first.session_id())).await;
    assert_eq!(
        second.session_id(),
        first.session_id(),
        "the same conversation keeps its id"
    );
    assert_eq!(second.text(), "Still none.");
    let messages = provider.last().messages;
    assert_eq!(messages.len(), 5);
    assert_eq!(messages[0], Message::user("the first"));
    assert!(
        matches!(&messages[1], Message::Assistant { text, tool_calls } if text == "Looking. " && tool_calls.len() == 1)
    );
    assert!(matches!(&messages[2], Message::Tool { name, .. } if name == "list_agents"));
    assert_eq!(messages[3], Message::assistant("None."));
    assert_eq!(messages[4], Message::user("the second"));
    // Nothing given is a new conversation; so is an empty id.
    let third = fixture.say_as(&owner, "the first", Some("")).await;
    assert_ne!(third.session_id(), first.session_id());
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 1);
}

async fn unknown_and_foreign_ids_are_not_found(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    let session_id = fixture.say_as(&owner, "hello", None).await.session_id();
    // The same person in another sandbox of theirs.
    let mut elsewhere = TestSandbox::new();
    elsewhere.owner_user_id = fixture.sandbox.owner_user_id.clone();
    let mut turn = fixture.turn("hello");
    turn.sandbox_id = elsewhere.id.to_string();
    turn.session_id = Some(session_id.clone());
    assert_code(fixture.start(&elsewhere.owner(), turn).await, ErrorCode::NotFound);
    // Others in the same sandbox, whatever their role, the owner of somebody else's conversation included.
    let viewer = fixture.sandbox.viewer();
    let of_viewer = fixture.say_as(&viewer, "hello", None).await.session_id();
    for (caller, id) in [
        (&viewer, session_id.as_str()),
        (&fixture.sandbox.editor(), session_id.as_str()),
        (&owner, of_viewer.as_str()),
        (&owner, "sess_00000000000000000000000000"),
        (&owner, "sess_1"),
        (&owner, "'; drop table runs; --"),
        (&owner, "\0"),
    ] {
        let mut turn = fixture.turn("hello");
        turn.session_id = Some(id.to_owned());
        assert_code(fixture.start(caller, turn).await, ErrorCode::NotFound);
    }
    assert_eq!(
        fixture.count("select cast(count(*) as bigint) from runs").await,
        2,
        "nothing was begun"
    );
}

/// Keys without a holder have one person in common, the owner, and are in as many hands as there are keys.
async fn agent_keys_have_conversations_of_their_own(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let agent = fixture.make_agent().await;
    let owner = fixture.sandbox.owner();
    let mut callers = vec![
        owner.clone(),
        with_agent_key(owner.clone(), &agent, AgentKeyKind::Delegate),
    ];
    for _ in 0..2 {
        let mut nobodys = with_agent_key(owner.clone(), &agent, AgentKeyKind::Invoke);
        nobodys.principal.user_id = None;
        nobodys.principal.agent_key.as_mut().unwrap().has_holder = false;
        callers.push(nobodys);
    }
    let mut sessions = Vec::new();
    for caller in &callers {
        let run = fixture.invoke(caller, fixture.invocation("mine")).await.unwrap();
        fixture.ended(&run.run_id).await;
        sessions.push(fixture.stored(&run.run_id, None).await.session_id());
    }
    for (caller, own) in callers.iter().zip(&sessions) {
        for session_id in &sessions {
            let mut request = fixture.invocation("what was said?");
            request.session_id = Some(session_id.clone());
            let outcome = fixture.invoke(caller, request).await;
            if session_id == own {
                fixture.ended(&outcome.unwrap().run_id).await;
            } else {
                assert_code(outcome, ErrorCode::NotFound);
            }
        }
    }
    // Nobody comes from one id to the next.
    let random: HashSet<&str> = sessions.iter().map(|id| &id[id.len() - 16..id.len() - 4]).collect();
    assert_eq!(random.len(), sessions.len(), "{sessions:?}");
}

async fn a_busy_conversation_is_refused(database: TestDatabase) {
    let script = json!({"match": [{"contains": "wait", "turns": [{"events": [{"text": "Hm"}, {"hang": true}]}]}],
        "turns": [{"events": [{"text": "Hello."}]}]});
    let fixture = Builder::new(database, Wiring::Local).script(script).build().await;
    let owner = fixture.sandbox.owner();
    let session_id = fixture.say_as(&owner, "hello", None).await.session_id();
    let mut request = fixture.turn("wait");
    request.session_id = Some(session_id.clone());
    let mut waiting = fixture.start(&owner, request.clone()).await.unwrap();
    waiting.until(is_text).await;
    assert_code(fixture.start(&owner, request).await, ErrorCode::SessionBusy);
    let run_id = waiting.run_id();
    drop(waiting);
    fixture.run_becomes(&run_id, "cancelled", crate::support::SOON).await;
    fixture.say_as(&owner, "hello", Some(&session_id)).await;
}

async fn one_of_many_simultaneous_turns_gets_the_conversation(database: TestDatabase) {
    let script = json!({"match": [{"contains": "wait", "turns": [{"events": [{"hang": true}]}]}],
        "turns": [{"events": [{"text": "Hello."}]}]});
    let fixture = Builder::new(database, Wiring::Local).script(script).build().await;
    let owner = fixture.sandbox.owner();
    let session_id = fixture.say_as(&owner, "hello", None).await.session_id();
    let starts = (0..16).map(|_| {
        let mut turn = fixture.turn("wait");
        turn.session_id = Some(session_id.clone());
        fixture.start(&owner, turn)
    });
    let outcomes = futures::future::join_all(starts).await;
    let busy = |outcome: &Result<_, copass_errors::Error>| {
        outcome
            .as_ref()
            .is_err_and(|error| error.code() == ErrorCode::SessionBusy)
    };
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| busy(outcome)).count(), 15);
}

async fn many_first_turns_share_one_system_agent(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let callers: Vec<_> = (0..8)
        .map(|_| fixture.sandbox.caller(copass_types::UserId::generate(), Role::Viewer))
        .collect();
    let turns = callers.iter().map(|caller| fixture.say_as(caller, "hello", None));
    for turn in futures::future::join_all(turns).await {
        assert_eq!(turn.text(), "Hello.");
    }
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 1);
}
