//! Making and reading agents.

use copass_errors::{Error, ErrorCode};
use copass_proto::agent::{Agent, CreateAgentRequest, GetAgentRequest};
use copass_runtime::{CallContext, listing};
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use copass_types::validate;

use crate::{
    changes::archive,
    support::{Builder, Fixture, assert_code},
};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    an_agent_is_made_read_and_listed
    rights_on_agents
    fifty_equal_requests_make_one_agent
    agents_beyond_one_message_are_listed
    }
}
on_both_databases! {
    secrets_in_prompts_are_refused_by_place
    a_taken_slug_is_a_conflict_with_a_hint
    a_key_with_another_body_is_a_conflict
    the_system_agent_is_nobodys_to_see
}

pub(crate) fn request(fixture: &Fixture, slug: &str) -> CreateAgentRequest {
    CreateAgentRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        slug: slug.to_owned(),
        name: "Support".to_owned(),
        system_prompt: "Answer kindly.".to_owned(),
        ..CreateAgentRequest::default()
    }
}

pub(crate) async fn create(
    fixture: &Fixture,
    caller: &CallContext,
    request: CreateAgentRequest,
) -> Result<Agent, Error> {
    Ok(fixture
        .agents()
        .create_agent(caller.request(request))
        .await?
        .into_inner())
}

pub(crate) async fn get(fixture: &Fixture, caller: &CallContext, slug: &str) -> Result<Agent, Error> {
    let request = GetAgentRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        slug: slug.to_owned(),
    };
    Ok(fixture.agents().get_agent(caller.request(request)).await?.into_inner())
}

async fn list(fixture: &Fixture, caller: &CallContext, status: Option<&str>) -> Result<Vec<Agent>, Error> {
    let sandbox_id = fixture.sandbox.id.as_str();
    Ok(listing::agents(&mut fixture.agents(), caller, sandbox_id, status.map(str::to_owned)).await?)
}

/// The agent without what there is to say about it, as a version has it.
pub(crate) fn plain(agent: &Agent) -> Agent {
    Agent {
        warnings: Vec::new(),
        allowlist_missing_entries: Vec::new(),
        ..agent.clone()
    }
}

async fn an_agent_is_made_read_and_listed(database: TestDatabase, wiring: Wiring) {
    let fixture = Builder::new(database, wiring).build().await;
    let owner = fixture.sandbox.owner();
    let made = create(&fixture, &owner, request(&fixture, "support")).await.unwrap();
    assert!(made.agent_id.starts_with("ag_"));
    assert_eq!((made.version, made.status.as_str()), (1, "active"));
    assert_eq!(made.user_id, fixture.sandbox.owner_user_id.to_string());
    let settings = made.model_settings.clone().unwrap();
    assert_eq!(
        (settings.backend.as_str(), settings.model.as_str()),
        ("anthropic", "claude-sonnet-4-6")
    );
    assert!(made.tool_sources.is_none() && made.tool_allowlist.is_empty());
    assert_eq!(get(&fixture, &owner, "support").await.unwrap(), made);

    create(&fixture, &owner, request(&fixture, "second")).await.unwrap();
    archive(&fixture, &owner, "second").await.unwrap();
    let slugs = |agents: Vec<Agent>| agents.into_iter().map(|agent| agent.slug).collect::<Vec<_>>();
    assert_eq!(
        slugs(list(&fixture, &owner, None).await.unwrap()),
        ["second", "support"]
    );
    assert_eq!(
        slugs(list(&fixture, &owner, Some("active")).await.unwrap()),
        ["support"]
    );
    assert_eq!(
        slugs(list(&fixture, &owner, Some("archived")).await.unwrap()),
        ["second"]
    );
    let error = assert_code(
        list(&fixture, &owner, Some("deleted")).await,
        ErrorCode::ValidationError,
    );
    assert_eq!(error.problems()[0].loc, ["query", "status"]);
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from agent_versions where version = 1")
            .await,
        2
    );
}

async fn agents_beyond_one_message_are_listed(database: TestDatabase, wiring: Wiring) {
    let fixture = Builder::new(database, wiring).build().await;
    let owner = fixture.sandbox.owner();
    // Everything at its bound: these make about 21 MiB, and a message has 16.
    let longest = CreateAgentRequest {
        system_prompt: "p".repeat(validate::PROMPT_MAX_BYTES),
        description: Some("\u{1f99c}".repeat(validate::DESCRIPTION_MAX_CHARS)),
        tool_allowlist: (0..512).map(|n| format!("{n:03}{}", "\u{1f99c}".repeat(253))).collect(),
        ..request(&fixture, "")
    };
    let mut made = Vec::new();
    for number in 0..31 {
        let slug = format!("agent-{number}");
        let request = CreateAgentRequest {
            slug: slug.clone(),
            ..longest.clone()
        };
        made.push(create(&fixture, &owner, request).await.unwrap());
    }
    archive(&fixture, &owner, "agent-7").await.unwrap();
    made.reverse();
    let ids = |agents: &[Agent]| agents.iter().map(|agent| agent.agent_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&list(&fixture, &owner, None).await.unwrap()), ids(&made));
    made.retain(|agent| agent.slug != "agent-7");
    assert_eq!(ids(&list(&fixture, &owner, Some("active")).await.unwrap()), ids(&made));
}

async fn rights_on_agents(database: TestDatabase, wiring: Wiring) {
    let fixture = Builder::new(database, wiring).build().await;
    let sandbox = &fixture.sandbox;
    let made = create(&fixture, &sandbox.editor(), request(&fixture, "by-editor"))
        .await
        .unwrap();
    assert_eq!(
        made.user_id,
        sandbox.owner_user_id.to_string(),
        "it belongs to the account that holds the sandbox"
    );
    assert_code(
        create(&fixture, &sandbox.viewer(), request(&fixture, "by-viewer")).await,
        ErrorCode::Forbidden,
    );
    for reader in [sandbox.owner(), sandbox.editor(), sandbox.viewer()] {
        assert_eq!(list(&fixture, &reader, None).await.unwrap().len(), 1);
        assert!(get(&fixture, &reader, "by-editor").await.is_ok());
        assert_code(get(&fixture, &reader, "nobody").await, ErrorCode::NotFound);
    }
    for stranger in [
        sandbox.foreign(),
        sandbox.nobody(),
        sandbox.owner_with_key_of_another_sandbox(),
    ] {
        assert_code(
            create(&fixture, &stranger, request(&fixture, "foreign")).await,
            ErrorCode::NotFound,
        );
        assert_code(list(&fixture, &stranger, None).await, ErrorCode::NotFound);
        assert_code(get(&fixture, &stranger, "by-editor").await, ErrorCode::NotFound);
    }
    for status in ["suspended", "archived"] {
        let owner = sandbox.with_status(status).owner();
        assert_code(
            create(&fixture, &owner, request(&fixture, "late")).await,
            ErrorCode::SandboxNotActive,
        );
        assert!(get(&fixture, &owner, "by-editor").await.is_ok());
    }
    let unsigned = fixture
        .agents()
        .create_agent(tonic::Request::new(request(&fixture, "x")))
        .await;
    assert_code(unsigned.map_err(Error::from).map(|_| ()), ErrorCode::Unauthorized);
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 1);
}

async fn secrets_in_prompts_are_refused_by_place(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    let secret = "ghp_c4n4ryc4n4ryc4n4ryc4n4ryc4n4ry123456";
    let mut in_prompt = request(&fixture, "leaky");
    in_prompt.system_prompt = format!("Be kind.\n  Use {secret} for GitHub.");
    let error = assert_code(create(&fixture, &owner, in_prompt).await, ErrorCode::SecretDetected);
    assert!(error.detail().contains("system_prompt, line 2, column 7"), "{error}");
    assert!(
        !format!("{error:?}").contains(secret) && error.detail().contains("GitHub token"),
        "{error:?}"
    );
    let mut in_description = request(&fixture, "leaky");
    in_description.description = Some(format!("uses {secret}"));
    assert_code(
        create(&fixture, &owner, in_description).await,
        ErrorCode::SecretDetected,
    );
    let mut in_allowlist = request(&fixture, "leaky");
    in_allowlist.tool_allowlist = vec!["search".to_owned(), secret.to_owned()];
    let error = assert_code(create(&fixture, &owner, in_allowlist).await, ErrorCode::SecretDetected);
    assert!(error.detail().contains("tool_allowlist, entry 2"), "{error}");
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 0);
}

async fn a_taken_slug_is_a_conflict_with_a_hint(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    create(&fixture, &owner, request(&fixture, "support")).await.unwrap();
    let error = assert_code(
        create(&fixture, &owner, request(&fixture, "support")).await,
        ErrorCode::Conflict,
    );
    assert!(!error.detail().contains("archived"), "{error}");
    archive(&fixture, &owner, "support").await.unwrap();
    let mut keyed = request(&fixture, "support");
    keyed.idempotency_key = Some("other".to_owned());
    let error = assert_code(create(&fixture, &owner, keyed.clone()).await, ErrorCode::Conflict);
    assert!(
        error.detail().contains("archived") && error.detail().contains("active"),
        "{error}"
    );
    // A refused request leaves nothing behind under its key.
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from idempotency_keys")
            .await,
        0
    );
    assert_code(create(&fixture, &owner, keyed).await, ErrorCode::Conflict);
    // In another sandbox the slug is free.
    let elsewhere = copass_test_support::TestSandbox::new();
    let mut there = request(&fixture, "support");
    there.sandbox_id = elsewhere.id.to_string();
    create(&fixture, &elsewhere.owner(), there).await.unwrap();
}

async fn fifty_equal_requests_make_one_agent(database: TestDatabase, wiring: Wiring) {
    let fixture = Builder::new(database, wiring).build().await;
    let owner = fixture.sandbox.owner();
    let mut keyed = request(&fixture, "support");
    keyed.idempotency_key = Some("once".to_owned());
    let answers = futures::future::join_all((0..50).map(|_| create(&fixture, &owner, keyed.clone()))).await;
    let first = create(&fixture, &owner, keyed).await.unwrap();
    for answer in answers {
        assert_eq!(answer.unwrap(), first);
    }
    assert_eq!(fixture.count("select cast(count(*) as bigint) from agents").await, 1);
    assert_eq!(
        fixture
            .count("select cast(count(*) as bigint) from agent_versions")
            .await,
        1
    );
    // Without a key the slug is what makes a repeat safe.
    let answers = (0..10).map(|_| create(&fixture, &owner, request(&fixture, "unkeyed")));
    let made = futures::future::join_all(answers)
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    assert_eq!(made, 1);
}

async fn a_key_with_another_body_is_a_conflict(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    let mut keyed = request(&fixture, "support");
    keyed.idempotency_key = Some("once".to_owned());
    create(&fixture, &owner, keyed.clone()).await.unwrap();
    keyed.name = "Another name".to_owned();
    assert_code(
        create(&fixture, &owner, keyed.clone()).await,
        ErrorCode::IdempotencyConflict,
    );
    // Keys of other people are other keys.
    keyed.slug = "other".to_owned();
    create(&fixture, &fixture.sandbox.editor(), keyed).await.unwrap();
}

async fn the_system_agent_is_nobodys_to_see(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    fixture.say("hello").await;
    assert!(list(&fixture, &owner, None).await.unwrap().is_empty());
    assert_code(get(&fixture, &owner, "@concierge").await, ErrorCode::NotFound);
}
