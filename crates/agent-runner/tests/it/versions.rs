//! Versions of agents: what they were, what changed, and the way back.

use copass_errors::{Error, ErrorCode};
use copass_proto::agent::{
    Agent, AgentVersion, Allowlist, CreateAgentRequest, DiffAgentVersionsRequest, DiffAgentVersionsResponse,
    GetAgentVersionRequest, ListAgentVersionsRequest, ModelSettings, RollBackAgentRequest, UpdateAgentRequest,
};
use copass_runtime::CallContext;
use copass_store::{Json, execute, fetch_all};
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::{Value, json};

use crate::{
    agents::{create, get, plain, request},
    changes::{archive, audit_records, patch, update, update_sources, versions, with_agent},
    support::{Fixture, assert_code},
};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    versions_are_listed_with_what_changed
    a_roll_back_is_a_new_version_with_an_old_content
    }
}
on_both_databases! {
    pages_of_versions_meet_without_gap
    a_difference_is_told_field_by_field
    a_roll_back_to_what_is_there_changes_nothing
    a_keyed_roll_back_is_made_once
    an_old_content_must_meet_the_rules_of_today
    what_is_not_there_is_not_found
    versions_are_never_changed
}

const SLUG: &str = "support";

pub(crate) async fn list(
    fixture: &Fixture,
    caller: &CallContext,
    limit: u32,
    before: Option<u32>,
) -> Result<Vec<AgentVersion>, Error> {
    let request = ListAgentVersionsRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        slug: SLUG.to_owned(),
        limit,
        before,
    };
    let answer = fixture.agents().list_agent_versions(caller.request(request)).await?;
    let answer = answer.into_inner();
    assert_eq!(answer.agent_slug, SLUG);
    Ok(answer.versions)
}

pub(crate) async fn show(fixture: &Fixture, caller: &CallContext, version: u32) -> Result<AgentVersion, Error> {
    let request = GetAgentVersionRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        slug: SLUG.to_owned(),
        version,
    };
    Ok(fixture
        .agents()
        .get_agent_version(caller.request(request))
        .await?
        .into_inner())
}

pub(crate) async fn diff(
    fixture: &Fixture,
    caller: &CallContext,
    from: u32,
    to: u32,
) -> Result<DiffAgentVersionsResponse, Error> {
    let request = DiffAgentVersionsRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        slug: SLUG.to_owned(),
        from,
        to,
    };
    Ok(fixture
        .agents()
        .diff_agent_versions(caller.request(request))
        .await?
        .into_inner())
}

fn back(fixture: &Fixture, to_version: u32) -> RollBackAgentRequest {
    RollBackAgentRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        slug: SLUG.to_owned(),
        to_version,
        idempotency_key: None,
    }
}

pub(crate) async fn roll_back(fixture: &Fixture, caller: &CallContext, to_version: u32) -> Result<Agent, Error> {
    send(fixture, caller, back(fixture, to_version)).await
}

async fn send(fixture: &Fixture, caller: &CallContext, request: RollBackAgentRequest) -> Result<Agent, Error> {
    Ok(fixture
        .agents()
        .roll_back_agent(caller.request(request))
        .await?
        .into_inner())
}

/// An agent with four versions: the first one, another prompt and temperature, no sources, archived.
async fn with_history(database: TestDatabase, wiring: Wiring) -> (Fixture, CallContext) {
    let (fixture, owner, _) = with_agent(database, wiring).await;
    let change = UpdateAgentRequest {
        system_prompt: Some("Answer in French.".to_owned()),
        tool_allowlist: Some(Allowlist {
            entries: vec!["search".to_owned()],
        }),
        model_settings: Some(ModelSettings {
            backend: "anthropic".to_owned(),
            temperature: Some(0.5),
            ..ModelSettings::default()
        }),
        ..patch(&fixture)
    };
    update(&fixture, &fixture.sandbox.editor(), change).await.unwrap();
    update_sources(&fixture, &owner, Some(&[])).await.unwrap();
    archive(&fixture, &owner, SLUG).await.unwrap();
    (fixture, owner)
}

/// What a version is about, without what belongs to the version itself.
fn content(agent: &Agent) -> CreateAgentRequest {
    CreateAgentRequest {
        name: agent.name.clone(),
        description: agent.description.clone(),
        system_prompt: agent.system_prompt.clone(),
        tool_allowlist: agent.tool_allowlist.clone(),
        model_settings: agent.model_settings.clone(),
        // A place for the sources, which a new agent cannot name.
        idempotency_key: agent.tool_sources.as_ref().map(|sources| sources.names.join(",")),
        ..CreateAgentRequest::default()
    }
}

async fn versions_are_listed_with_what_changed(database: TestDatabase, wiring: Wiring) {
    let (fixture, owner) = with_history(database, wiring).await;
    let viewer = fixture.sandbox.viewer();
    let listed = list(&fixture, &viewer, 0, None).await.unwrap();
    let changed: Vec<(u32, Vec<&str>)> = listed
        .iter()
        .map(|version| (version.version, version.changed.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(changed[0], (4, vec!["status"]));
    assert_eq!(changed[1], (3, vec!["tool_sources"]));
    assert_eq!(
        changed[2],
        (2, vec!["system_prompt", "tool_allowlist", "model_settings.temperature"])
    );
    assert_eq!((changed[3].0, changed[3].1.len()), (1, 13), "all of them for the first");
    assert!(
        listed
            .iter()
            .all(|version| version.agent.is_none() && version.rolled_back_to.is_none())
    );
    let owner_id = fixture.sandbox.owner_user_id.to_string();
    assert_eq!((&listed[0].created_by, &listed[3].created_by), (&owner_id, &owner_id));
    assert_ne!(listed[2].created_by, owner_id);
    assert!(listed.windows(2).all(|pair| {
        let at = |version: &AgentVersion| version.created_at.map(|at| (at.seconds, at.nanos));
        at(&pair[0]) >= at(&pair[1])
    }));

    let second = show(&fixture, &viewer, 2).await.unwrap();
    assert_eq!(
        (&second.changed, &second.created_by),
        (&listed[2].changed, &listed[2].created_by)
    );
    let agent = second.agent.unwrap();
    let now = get(&fixture, &owner, SLUG).await.unwrap();
    assert_eq!((agent.version, agent.status.as_str()), (2, "active"));
    assert_eq!(agent.system_prompt, "Answer in French.");
    assert!(agent.tool_sources.is_none() && now.tool_sources.is_some());
    assert_eq!(
        (&agent.agent_id, &agent.slug, agent.created_at),
        (&now.agent_id, &now.slug, now.created_at)
    );
    assert_eq!(agent.updated_at, second.created_at);
    assert_eq!(show(&fixture, &viewer, 4).await.unwrap().agent.unwrap(), plain(&now));
}

async fn a_roll_back_is_a_new_version_with_an_old_content(database: TestDatabase, wiring: Wiring) {
    let (fixture, owner) = with_history(database, wiring).await;
    let version = async |number: u32| show(&fixture, &owner, number).await.unwrap();
    let at = async |number: u32| content(&version(number).await.agent.unwrap());
    let first = at(1).await;
    let back = roll_back(&fixture, &fixture.sandbox.editor(), 1).await.unwrap();
    assert_eq!(
        (back.version, back.status.as_str()),
        (5, "archived"),
        "archived is not content"
    );
    assert_eq!(content(&back), first);
    assert!(
        back.warnings.iter().any(|warning| warning.contains("archived")),
        "{:?}",
        back.warnings
    );
    let made = version(5).await;
    assert_eq!(made.rolled_back_to, Some(1));
    assert_eq!(
        made.changed,
        [
            "system_prompt",
            "tool_allowlist",
            "tool_sources",
            "model_settings.temperature"
        ]
    );
    let record = audit_records(&fixture).await.pop().unwrap();
    assert_eq!(
        (&record["action"], &record["result"]),
        (&json!("agent.roll_back"), &json!("ok"))
    );
    assert_eq!(record["after"]["rolled_back_to"], json!(1));
    assert_eq!(record["before"]["model_settings.temperature"], json!(0.5));
    assert!(!record.to_string().contains("French"), "{record}");

    // Back and forth: to what the roll-back took away, and to the roll-back itself.
    let forth = roll_back(&fixture, &owner, 3).await.unwrap();
    assert_eq!((forth.version, content(&forth)), (6, at(3).await));
    let again = roll_back(&fixture, &owner, 5).await.unwrap();
    assert_eq!((again.version, content(&again)), (7, first));
    assert_eq!(version(7).await.rolled_back_to, Some(5));
    // A change after a roll-back is no roll-back.
    let mut change = patch(&fixture);
    change.status = Some("active".to_owned());
    update(&fixture, &owner, change).await.unwrap();
    assert_eq!(version(8).await.rolled_back_to, None);
}

async fn pages_of_versions_meet_without_gap(database: TestDatabase) {
    let (fixture, owner, _) = with_agent(database, Wiring::Local).await;
    for number in 2..=23 {
        let mut change = patch(&fixture);
        change.name = Some(format!("name {number}"));
        update(&fixture, &owner, change).await.unwrap();
    }
    let numbers = async |limit, before| -> Vec<u32> {
        let listed = list(&fixture, &owner, limit, before).await.unwrap();
        listed.iter().map(|version| version.version).collect()
    };
    assert_eq!(
        numbers(0, None).await,
        (4..=23).rev().collect::<Vec<_>>(),
        "the default page"
    );
    assert_eq!(numbers(1000, None).await, (1..=23).rev().collect::<Vec<_>>());
    assert_eq!(numbers(10, Some(14)).await, (4..=13).rev().collect::<Vec<_>>());
    assert_eq!(numbers(10, Some(4)).await, [3, 2, 1]);
    assert!(numbers(10, Some(1)).await.is_empty() && numbers(10, Some(0)).await.is_empty());
    assert_eq!(numbers(1, Some(u32::MAX)).await, [23]);
    // The last one of a page is compared with one that is not shown.
    let listed = list(&fixture, &owner, 2, Some(4)).await.unwrap();
    assert!(listed.iter().all(|version| version.changed == ["name"]), "{listed:?}");
}

async fn a_difference_is_told_field_by_field(database: TestDatabase) {
    let (fixture, owner) = with_history(database, Wiring::Local).await;
    let changes = |diff: DiffAgentVersionsResponse| -> Vec<(String, Value, Value)> {
        let json = |text: &str| serde_json::from_str(text).unwrap();
        diff.changes
            .into_iter()
            .map(|change| (change.field, json(&change.before_json), json(&change.after_json)))
            .collect()
    };
    let viewer = fixture.sandbox.viewer();
    let forward = diff(&fixture, &viewer, 1, 3).await.unwrap();
    assert_eq!((forward.from, forward.to, forward.agent_slug.as_str()), (1, 3, SLUG));
    assert_eq!(
        changes(forward),
        [
            (
                "system_prompt".to_owned(),
                json!("Answer kindly."),
                json!("Answer in French.")
            ),
            ("tool_allowlist".to_owned(), json!([]), json!(["search"])),
            ("tool_sources".to_owned(), json!(null), json!([])),
            ("model_settings.temperature".to_owned(), json!(null), json!(0.5)),
        ]
    );
    let backward = changes(diff(&fixture, &owner, 3, 2).await.unwrap());
    assert_eq!(backward, [("tool_sources".to_owned(), json!([]), json!(null))]);
    let current = diff(&fixture, &owner, 3, 0).await.unwrap();
    assert_eq!(current.to, 4);
    assert_eq!(
        changes(current),
        [("status".to_owned(), json!("active"), json!("archived"))]
    );
    assert!(changes(diff(&fixture, &owner, 2, 2).await.unwrap()).is_empty());
}

async fn a_roll_back_to_what_is_there_changes_nothing(database: TestDatabase) {
    let (fixture, owner) = with_history(database, Wiring::Local).await;
    let records = audit_records(&fixture).await.len();
    // Version 3 differs from the current one in its status only, which is not content.
    for to_version in [4, 3] {
        assert_eq!(roll_back(&fixture, &owner, to_version).await.unwrap().version, 4);
    }
    assert_eq!(
        (versions(&fixture).await, audit_records(&fixture).await.len()),
        (4, records)
    );
}

async fn a_keyed_roll_back_is_made_once(database: TestDatabase) {
    let (fixture, owner) = with_history(database, Wiring::Local).await;
    let mut keyed = back(&fixture, 1);
    keyed.idempotency_key = Some("once".to_owned());
    let answers = futures::future::join_all((0..10).map(|_| send(&fixture, &owner, keyed.clone()))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().version == 5));
    roll_back(&fixture, &owner, 2).await.unwrap();
    assert_eq!(send(&fixture, &owner, keyed.clone()).await.unwrap().version, 5);
    keyed.to_version = 2;
    assert_code(send(&fixture, &owner, keyed).await, ErrorCode::IdempotencyConflict);
    assert_eq!(versions(&fixture).await, 6);
}

async fn tamper(fixture: &Fixture, version: i64, field: &str, value: Value) {
    let mut tx = fixture.db().begin().await.unwrap();
    let row = copass_store::fetch_one!(
        tx,
        (Json<Value>,),
        "select snapshot from agent_versions where version = $1",
        version
    );
    let mut snapshot = row.unwrap().0.0;
    snapshot[field] = value;
    execute!(
        tx,
        "update agent_versions set snapshot = $1 where version = $2",
        Json(snapshot),
        version
    )
    .unwrap();
    tx.commit().await.unwrap();
}

async fn an_old_content_must_meet_the_rules_of_today(database: TestDatabase) {
    let (fixture, owner) = with_history(database, Wiring::Local).await;
    // As if they had been saved before there was a rule.
    let secret = "ghp_c4n4ryc4n4ryc4n4ryc4n4ryc4n4ry123456";
    tamper(&fixture, 1, "system_prompt", json!(format!("Use\n{secret}"))).await;
    let error = assert_code(roll_back(&fixture, &owner, 1).await, ErrorCode::SecretDetected);
    assert!(
        error.detail().contains("version 1") && error.detail().contains("system_prompt, line 2"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains(secret));
    tamper(&fixture, 1, "system_prompt", json!(" ")).await;
    let error = assert_code(roll_back(&fixture, &owner, 1).await, ErrorCode::InvalidRequest);
    assert!(
        error.detail().contains("version 1") && error.detail().contains("system_prompt"),
        "{error}"
    );
    let settings = json!({"backend": "google", "model": "m", "compute_provider": "e2b"});
    tamper(&fixture, 2, "model_settings", settings).await;
    let error = assert_code(roll_back(&fixture, &owner, 2).await, ErrorCode::InvalidRequest);
    assert!(error.detail().contains("compute_provider"), "{error}");
    assert_eq!(
        (
            versions(&fixture).await,
            get(&fixture, &owner, SLUG).await.unwrap().version
        ),
        (4, 4)
    );
}

async fn what_is_not_there_is_not_found(database: TestDatabase) {
    let (fixture, owner) = with_history(database, Wiring::Local).await;
    create(&fixture, &owner, request(&fixture, "other")).await.unwrap();
    for version in [0, 5, u32::MAX] {
        assert_code(show(&fixture, &owner, version).await, ErrorCode::NotFound);
        assert_code(roll_back(&fixture, &owner, version).await, ErrorCode::NotFound);
        assert_code(diff(&fixture, &owner, version, 1).await, ErrorCode::NotFound);
    }
    assert_code(diff(&fixture, &owner, 1, 5).await, ErrorCode::NotFound);
    fixture.say("hello").await;
    for slug in ["nobody", "@concierge", "", "a\0b"] {
        let mut unknown = back(&fixture, 1);
        unknown.slug = slug.to_owned();
        assert_code(send(&fixture, &owner, unknown).await, ErrorCode::NotFound);
        let request = ListAgentVersionsRequest {
            sandbox_id: fixture.sandbox.id.to_string(),
            slug: slug.to_owned(),
            ..ListAgentVersionsRequest::default()
        };
        let answer = fixture.agents().list_agent_versions(owner.request(request)).await;
        assert_code(answer.map_err(Error::from).map(|_| ()), ErrorCode::NotFound);
    }
    // Another agent has versions of its own.
    let mut other = back(&fixture, 2);
    other.slug = "other".to_owned();
    assert_code(send(&fixture, &owner, other).await, ErrorCode::NotFound);
}

async fn versions_are_never_changed(database: TestDatabase) {
    let (fixture, owner) = with_history(database, Wiring::Local).await;
    let rows = async || -> Vec<(i64, Value, String)> {
        let mut conn = fixture.db().read().await.unwrap();
        let sql = "select version, snapshot, created_by from agent_versions order by version limit 4";
        let rows = fetch_all!(conn, (i64, Json<Value>, String), sql).unwrap();
        rows.into_iter()
            .map(|(version, snapshot, by)| (version, snapshot.0, by))
            .collect()
    };
    let before = rows().await;
    roll_back(&fixture, &owner, 1).await.unwrap();
    update_sources(&fixture, &owner, Some(&["mine"])).await.unwrap();
    assert_eq!(rows().await, before);
}
