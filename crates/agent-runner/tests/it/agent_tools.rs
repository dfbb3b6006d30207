//! What is told about an agent's tools: in the list of tools and in the replies to changes.

use std::sync::Arc;

use async_trait::async_trait;
use copass_agent_runner::tool_sources::{Built, Call, Seeker, Skipped, ToolAnswer, ToolCaller, ToolDraft, ToolSource};
use copass_errors::{Error, ErrorCode};
use copass_proto::agent::{Allowlist, ListAgentsRequest, ListToolsRequest, ListToolsResponse};
use copass_runtime::CallContext;
use copass_test_support::{TestDatabase, Wiring, on_both_databases};
use serde_json::json;

use crate::{
    agents::{create, request},
    changes::{patch, update, update_sources},
    support::{Builder, Fixture, assert_code},
};

on_both_databases! {
    tools_are_listed_by_app_and_name
    a_change_tells_what_the_allowlist_misses
    a_change_tells_why_there_are_no_tools
    tools_are_those_of_the_caller
}

struct Nobody;

#[async_trait]
impl ToolCaller for Nobody {
    async fn call(&self, _: Call<'_>) -> Result<ToolAnswer, Error> {
        Err(Error::unavailable("not called in these tests"))
    }
}

/// A source with tools, given as `app/name`, or with a reason to have none.
struct Source {
    name: &'static str,
    tools: Result<&'static [&'static str], &'static str>,
    /// Adds a tool that is named for the person.
    is_personal: bool,
}

impl Source {
    fn of(name: &'static str, tools: Result<&'static [&'static str], &'static str>) -> Arc<dyn ToolSource> {
        Arc::new(Self {
            name,
            tools,
            is_personal: false,
        })
    }
}

fn tool(app_slug: &str, name: &str) -> ToolDraft {
    ToolDraft {
        name: name.to_owned(),
        app_slug: app_slug.to_owned(),
        description: format!("does {name}"),
        input_schema: json!({"type": "object"}),
        is_read_only: name.starts_with("get"),
    }
}

#[async_trait]
impl ToolSource for Source {
    fn name(&self) -> &str {
        self.name
    }

    async fn build(&self, seeker: &Seeker) -> Result<Built, Skipped> {
        let tools = self.tools.map_err(|reason| Skipped(reason.to_owned()))?;
        let mut tools: Vec<ToolDraft> = tools
            .iter()
            .map(|path| path.split_once('/').map(|(app, name)| tool(app, name)).unwrap())
            .collect();
        if self.is_personal
            && let Some(user_id) = &seeker.identity
        {
            tools.push(tool("personal", &format!("mail_{user_id}")));
        }
        Ok(Built {
            tools,
            caller: Arc::new(Nobody),
        })
    }
}

async fn with_sources(database: TestDatabase) -> Fixture {
    Builder::new(database, Wiring::Local)
        .tool_source(Source::of(
            "pipedream",
            Ok(&["slack/post", "github/get_issue", "github/comment"]),
        ))
        .tool_source(Source::of("mine", Ok(&["crm/get_lead", "other/post"])))
        .tool_source(Source::of(
            "broken",
            Err("nobody has connected it yet; run `copass source connect`"),
        ))
        .build()
        .await
}

async fn tools(fixture: &Fixture, caller: &CallContext, app_slug: Option<&str>) -> Result<ListToolsResponse, Error> {
    let request = ListToolsRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        app_slug: app_slug.map(str::to_owned),
    };
    Ok(fixture.agents().list_tools(caller.request(request)).await?.into_inner())
}

async fn tools_are_listed_by_app_and_name(database: TestDatabase) {
    let fixture = with_sources(database).await;
    let viewer = fixture.sandbox.viewer();
    let listed = tools(&fixture, &viewer, None).await.unwrap();
    let names: Vec<(&str, &str)> = listed
        .tools
        .iter()
        .map(|tool| (tool.app_slug.as_str(), tool.name.as_str()))
        .collect();
    // Of two tools with one name the first stays, because a model could not tell them apart.
    assert_eq!(
        names,
        [
            ("crm", "get_lead"),
            ("github", "comment"),
            ("github", "get_issue"),
            ("slack", "post")
        ]
    );
    let lead = &listed.tools[0];
    assert_eq!(
        (lead.source.as_str(), lead.description.as_str(), lead.read_only),
        ("mine", "does get_lead", true)
    );
    assert!(!listed.tools[3].read_only);
    assert_eq!(listed.skipped.len(), 1);
    assert_eq!(listed.skipped[0].name, "broken");
    assert!(listed.skipped[0].reason.contains("connect"));

    let github = tools(&fixture, &viewer, Some("github")).await.unwrap();
    assert_eq!(github.tools.len(), 2);
    assert!(
        tools(&fixture, &viewer, Some("nothing"))
            .await
            .unwrap()
            .tools
            .is_empty()
    );
    assert_code(
        tools(&fixture, &fixture.sandbox.foreign(), None).await,
        ErrorCode::NotFound,
    );
}

async fn a_change_tells_what_the_allowlist_misses(database: TestDatabase) {
    let fixture = with_sources(database).await;
    let owner = fixture.sandbox.owner();
    let allow = |entries: &[&str]| {
        let mut change = patch(&fixture);
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        change.tool_allowlist = Some(Allowlist { entries });
        change
    };
    let mut stale = request(&fixture, "support");
    stale.tool_allowlist = vec!["post".to_owned(), "slack_post".to_owned()];
    let made = create(&fixture, &owner, stale).await.unwrap();
    assert_eq!(
        made.allowlist_missing_entries,
        ["slack_post"],
        "already when it is made"
    );
    let changed = update(&fixture, &owner, allow(&["get_issue", "gone", "slack_post", "gone"]))
        .await
        .unwrap();
    assert_eq!(changed.allowlist_missing_entries, ["gone", "slack_post"]);
    for entry in ["gone", "slack_post"] {
        let told = changed
            .warnings
            .iter()
            .any(|warning| warning.contains(&format!("allowlist entry {entry}")));
        assert!(told, "{:?}", changed.warnings);
    }
    // Whatever is changed, and also when nothing is; and whenever it is read.
    let mut named = patch(&fixture);
    named.name = Some("Helper".to_owned());
    for change in [named.clone(), named] {
        let changed = update(&fixture, &owner, change).await.unwrap();
        assert_eq!(changed.allowlist_missing_entries, ["gone", "slack_post"]);
    }
    let read = crate::agents::get(&fixture, &owner, "support").await.unwrap();
    assert_eq!(
        (&read.allowlist_missing_entries, &read.warnings),
        (&changed.allowlist_missing_entries, &changed.warnings)
    );
    let request = ListAgentsRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        ..ListAgentsRequest::default()
    };
    let list = fixture.agents().list_agents(owner.request(request)).await.unwrap();
    assert_eq!(list.into_inner().agents, [read]);
    // The names are those of the agent's own sources.
    let elsewhere = update_sources(&fixture, &owner, Some(&["mine"])).await.unwrap();
    assert_eq!(elsewhere.allowlist_missing_entries, ["get_issue", "gone", "slack_post"]);
    let mended = update(&fixture, &owner, allow(&["get_lead"])).await.unwrap();
    assert!(
        mended.allowlist_missing_entries.is_empty() && mended.warnings.is_empty(),
        "{mended:?}"
    );
}

async fn a_change_tells_why_there_are_no_tools(database: TestDatabase) {
    let fixture = with_sources(database).await;
    let owner = fixture.sandbox.owner();
    let mut allowing = request(&fixture, "support");
    allowing.tool_allowlist = vec!["post".to_owned()];
    create(&fixture, &owner, allowing).await.unwrap();
    let warned = |warnings: &[String], word: &str| warnings.iter().any(|warning| warning.contains(word));
    let unknown = update_sources(&fixture, &owner, Some(&["pipedreams", "copass_management"]))
        .await
        .unwrap();
    assert!(
        warned(&unknown.warnings, "pipedreams") && warned(&unknown.warnings, "pipedream, mine"),
        "{unknown:?}"
    );
    assert!(warned(&unknown.warnings, "copass_management"));
    let none = update_sources(&fixture, &owner, Some(&[])).await.unwrap();
    assert!(warned(&none.warnings, "tool_sources is empty"), "{none:?}");
    assert_eq!(none.allowlist_missing_entries, ["post"]);
    let broken = update_sources(&fixture, &owner, Some(&["broken", "pipedream"]))
        .await
        .unwrap();
    assert!(warned(&broken.warnings, "nobody has connected it yet"), "{broken:?}");
    assert!(broken.allowlist_missing_entries.is_empty());
}

async fn tools_are_those_of_the_caller(database: TestDatabase) {
    let personal = Source {
        name: "personal",
        tools: Ok(&[]),
        is_personal: true,
    };
    let fixture = Builder::new(database, Wiring::Local)
        .tool_source(Arc::new(personal))
        .build()
        .await;
    for caller in [fixture.sandbox.owner(), fixture.sandbox.viewer()] {
        let listed = tools(&fixture, &caller, None).await.unwrap();
        let names: Vec<String> = listed.tools.into_iter().map(|tool| tool.name).collect();
        assert_eq!(names, [format!("mail_{}", caller.principal.user_id.unwrap())]);
    }
}
