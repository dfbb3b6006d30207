//! Which tools a run gets, and what its trace tells about the others.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use copass_llm::{Error as ModelError, EventStream, Provider, Request};
use copass_proto::agent::{ListToolsRequest, ListToolsResponse};
use copass_store::{Db, Json};
use copass_test_support::{TestDatabase, Wiring, eventually, on_both_databases};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    Builder, FakeSource, Fixture, LIMIT,
    providers::Recording,
    scripted,
    sources::{Listing, tool},
};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    a_trace_tells_of_every_source_and_every_entry
    }
}
on_both_databases! {
    many_stale_entries_are_one_short_warning
    a_source_that_misbehaves_costs_its_place
    the_trace_is_there_before_the_model_is_asked
    a_source_is_asked_once_for_many_runs
    without_tools_there_is_a_warning_that_says_why
    a_runs_id_tells_when_it_was_accepted
}

fn traced(run: &copass_proto::run::Run) -> Value {
    serde_json::from_str(
        run.tool_resolution_trace_json
            .as_deref()
            .expect("every run has a trace"),
    )
    .unwrap()
}

async fn trace_and_warnings(fixture: &Fixture) -> (Value, Vec<String>) {
    let run_id = fixture.fired(&json!({})).await.run_id();
    (traced(&fixture.run_row(&run_id).await), fixture.warnings(&run_id).await)
}

async fn listed(fixture: &Fixture) -> ListToolsResponse {
    let request = ListToolsRequest {
        sandbox_id: fixture.sandbox.id.to_string(),
        app_slug: None,
    };
    let request = fixture.sandbox.owner().request(request);
    fixture.agents().list_tools(request).await.unwrap().into_inner()
}

fn source_of<'a>(trace: &'a Value, name: &str) -> &'a Value {
    let sources = trace["sources"].as_array().unwrap();
    sources
        .iter()
        .find(|source| source["name"] == name)
        .expect("the source is in the trace")
}

async fn a_trace_tells_of_every_source_and_every_entry(database: TestDatabase, wiring: Wiring) {
    let provider = Recording::new(scripted(json!({"turns": [{"events": [{"text": "Hi."}]}]})));
    let fixture = Builder::new(database, wiring)
        .provider(provider.clone())
        .tool_source(
            FakeSource::new("mine")
                .reads(&["look", "list"])
                .changes(&["make"])
                .shared(),
        )
        .tool_source(FakeSource::new("yours").reads(&["look", "find"]).shared())
        .tool_source(FakeSource::new("named").on_demand().reads(&["secretly"]).shared())
        .tool_source(
            FakeSource::new("broken")
                .lists(Listing::Skips("connect it first".to_owned()))
                .shared(),
        )
        .build()
        .await;
    let allowed = ["look", "find", "gone", "secretly", "gone"].map(str::to_owned).to_vec();
    fixture
        .make_agent_with(|request| request.tool_allowlist = allowed)
        .await;
    let (trace, warnings) = trace_and_warnings(&fixture).await;
    assert_eq!(trace["sources_resolved"], json!(["mine", "yours"]));
    assert_eq!(trace["sources_skipped"], json!(["broken"]));
    assert_eq!(trace["tool_names_advertised"], json!(["look", "find"]));
    assert_eq!(trace["allowlist_filtered_out"], json!(["list", "make"]));
    assert_eq!(trace["allowlist_missing_entries"], json!(["gone", "secretly"]));
    assert!(trace["duration_ms"].is_u64());
    assert_eq!(source_of(&trace, "mine")["tool_count"], 3);
    assert_eq!(source_of(&trace, "mine")["state"], "resolved");
    let broken = source_of(&trace, "broken");
    assert_eq!(
        (&broken["state"], &broken["reason"]),
        (&json!("skipped"), &json!("connect it first"))
    );
    assert!(broken["duration_ms"].is_u64());
    for word in [
        "the tool source broken was skipped: connect it first",
        "the allowlist entry gone matches no tool",
        "the allowlist entry secretly matches no tool",
        "the tool look of yours is left out: mine has one of that name",
    ] {
        let count = warnings.iter().filter(|warning| warning.contains(word)).count();
        assert_eq!(count, 1, "{word}: {warnings:?}");
    }
    // What the model gets is what the trace says, of the source that the trace says.
    let offered: Vec<String> = provider.last().tools.iter().map(|tool| tool.name.clone()).collect();
    assert_eq!(json!(offered), trace["tool_names_advertised"]);

    fixture
        .set_sources(&["named", "nowhere", "copass_management", "named"])
        .await;
    let (trace, _) = trace_and_warnings(&fixture).await;
    assert_eq!(trace["sources_resolved"], json!(["named"]));
    assert_eq!(trace["sources_skipped"], json!(["nowhere", "copass_management"]));
    assert_eq!(trace["tool_names_advertised"], json!(["secretly"]));
    let nowhere = source_of(&trace, "nowhere")["reason"].as_str().unwrap();
    assert!(nowhere.contains("it has mine, yours, named, broken"), "{nowhere}");
    let management = source_of(&trace, "copass_management")["reason"].as_str().unwrap();
    assert!(management.contains("only the Concierge has it"), "{management}");
}

async fn many_stale_entries_are_one_short_warning(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local)
        .tool_source(FakeSource::new("mine").reads(&["look"]).shared())
        .build()
        .await;
    let stale = |count: usize| -> Vec<String> { (0..count).map(|number| format!("{number:0>200}")).collect() };
    fixture
        .make_agent_with(|request| request.tool_allowlist = stale(512))
        .await;
    let (trace, warnings) = trace_and_warnings(&fixture).await;
    assert_eq!(trace["allowlist_missing_entries"], json!(stale(512)));
    let about: Vec<&String> = warnings
        .iter()
        .filter(|warning| warning.starts_with("the allowlist entr"))
        .collect();
    assert_eq!(about.len(), 1, "{warnings:?}");
    assert!(
        about[0].ends_with("… and 502 more: each matches no tool there is now"),
        "{}",
        about[0]
    );
    assert!(about[0].len() < 1000, "{}", about[0].len());
}

async fn a_source_that_misbehaves_costs_its_place(database: TestDatabase) {
    let many: Vec<String> = (0..600).map(|number| format!("tool_{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut liar = tool("lie", true);
    liar.input_schema = json!({"type": "string"});
    let mut nameless = tool("x", true);
    nameless.name = "a\u{7}b".to_owned();
    let sources = [
        FakeSource::new("good").reads(&["look"]),
        FakeSource::new("hangs").lists(Listing::Hangs),
        FakeSource::new("panics").lists(Listing::Panics),
        FakeSource::new("lies").reads(&["fine"]).tool(liar),
        FakeSource::new("nameless").tool(nameless),
        FakeSource::new("doubles").reads(&["twin", "twin"]),
        FakeSource::new("floods").reads(&many),
    ];
    let mut builder =
        Builder::new(database, Wiring::Local).config(|config| config.source_patience = Duration::from_millis(100));
    for source in &sources {
        builder = builder.tool_source(source.shared());
    }
    let fixture = builder.build().await;
    fixture.make_agent().await;
    let (trace, warnings) = trace_and_warnings(&fixture).await;
    assert_eq!(trace["sources_resolved"], json!(["good"]));
    assert_eq!(
        trace["tool_names_advertised"],
        json!(["look"]),
        "one lie costs the whole source"
    );
    for (name, word) in [
        ("hangs", "did not tell its tools within 0.1 s"),
        ("panics", "failed inside this server"),
        ("lies", "the schema of lie describes no object"),
        ("nameless", "control characters"),
        ("doubles", "two tools with the name twin"),
        ("floods", "more than 500 tools"),
    ] {
        let reason = source_of(&trace, name)["reason"].as_str().unwrap();
        assert!(reason.contains(word), "{name}: {reason}");
        assert!(
            warnings.iter().any(|warning| warning.contains(word)),
            "{word}: {warnings:?}"
        );
    }
    // The list of tools tells the same.
    let listed = listed(&fixture).await;
    let names: Vec<&str> = listed.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(json!(names), trace["tool_names_advertised"]);
    let skipped: Vec<Value> = listed
        .skipped
        .iter()
        .map(|source| json!({"name": source.name, "reason": source.reason}))
        .collect();
    let expected: Vec<Value> = trace["sources"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|source| source["state"] == "skipped")
        .map(|source| json!({"name": source["name"], "reason": source["reason"]}))
        .collect();
    assert_eq!(skipped, expected);
}

/// Looks into the database when it is asked.
struct Witness {
    db: Db,
    inner: Arc<dyn Provider>,
    seen: std::sync::Mutex<Vec<(String, String, Value)>>,
}

#[async_trait]
impl Provider for Witness {
    fn name(&self) -> &str {
        "witness"
    }

    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        let mut conn = self.db.read().await.unwrap();
        let rows = copass_store::fetch_all!(
            conn,
            (String, String, Json<Value>, i64),
            "select r.entrance, r.status, r.tool_resolution_trace, \
             (select count(*) from run_steps s where s.run_id = r.id and s.state = 'intended') from runs r \
             where r.status not in ('succeeded')"
        );
        for (entrance, status, trace, open) in rows.unwrap() {
            assert_eq!(open, 1, "the question is journaled as well");
            self.seen.lock().unwrap().push((entrance, status, trace.0));
        }
        self.inner.stream(request).await
    }
}

async fn the_trace_is_there_before_the_model_is_asked(database: TestDatabase) {
    let witness = Arc::new(Witness {
        db: database.db(),
        inner: scripted(json!({"turns": [{"events": [{"text": "Hi."}]}]})),
        seen: std::sync::Mutex::default(),
    });
    let fixture = Builder::new(database, Wiring::Local)
        .provider(witness.clone())
        .tool_source(FakeSource::usual().shared())
        .build()
        .await;
    fixture.make_agent().await;
    fixture.fired(&json!({})).await;
    fixture.ran_ad_hoc(fixture.ad_hoc("hello")).await;
    fixture.ended(&fixture.invoked("hello").await).await;
    let seen = witness.seen.lock().unwrap().clone();
    let entrances: Vec<&str> = seen.iter().map(|(entrance, ..)| entrance.as_str()).collect();
    assert_eq!(entrances, ["test", "ad_hoc", "invoke"]);
    for (entrance, status, trace) in &seen {
        assert_eq!(
            (status.as_str(), &trace["sources_resolved"]),
            ("running", &json!(["fake"])),
            "{entrance}"
        );
    }
}

async fn a_source_is_asked_once_for_many_runs(database: TestDatabase) {
    let source = FakeSource::usual();
    let fixture = Builder::new(database, Wiring::Local)
        .tool_source(source.shared())
        .build()
        .await;
    fixture.make_agent().await;
    let before = source.asked();
    let event = json!({});
    let runs: Vec<_> = join_all((0..50).map(|_| fixture.fired(&event))).await;
    assert_eq!(runs.len(), 50);
    assert_eq!(
        source.asked(),
        before,
        "the owner's tools are known since the agent was made"
    );
    let viewer = fixture.sandbox.viewer();
    for _ in 0..3 {
        let mut turn = fixture.fire(&viewer, fixture.test_fire("{}")).await.unwrap();
        turn.finish_reading().await;
    }
    assert_eq!(
        source.asked(),
        before + 1,
        "what another person has is asked for once more"
    );
    for end_user in ["a", "b", "a"] {
        let mut request = fixture.ad_hoc("hello");
        request.end_user_id = end_user.to_owned();
        fixture.ran_ad_hoc(request).await;
    }
    assert_eq!(source.asked(), before + 3, "and for each end user");
}

async fn without_tools_there_is_a_warning_that_says_why(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local)
        .tool_source(FakeSource::usual().shared())
        .build()
        .await;
    let allowed = vec!["nothing".to_owned()];
    fixture
        .make_agent_with(|request| request.tool_allowlist = allowed)
        .await;
    let (trace, warnings) = trace_and_warnings(&fixture).await;
    assert_eq!(trace["tool_names_advertised"], json!([]));
    let why = "no tool was offered to the model: the allowlist keeps every tool out";
    assert!(warnings.iter().any(|warning| warning.contains(why)), "{warnings:?}");
    fixture.set_sources(&["nowhere"]).await;
    let (_, warnings) = trace_and_warnings(&fixture).await;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.starts_with("no tool was offered")),
        "{warnings:?}"
    );
    fixture.set_sources(&[]).await;
    let (trace, warnings) = trace_and_warnings(&fixture).await;
    assert_eq!(trace["sources"], json!([]));
    let why = "because the agent has an empty list of tool sources";
    assert!(warnings.iter().any(|warning| warning.contains(why)), "{warnings:?}");
    // Who wants no tools misses none.
    let plain = |request: &mut copass_proto::agent::CreateAgentRequest| "plain".clone_into(&mut request.slug);
    fixture.make_agent_with(plain).await;
    fixture.set_sources_of("plain", &[]).await;
    let mut fire = fixture.test_fire("{}");
    fire.agent_slug = "plain".to_owned();
    let mut turn = fixture.fire(&fixture.sandbox.owner(), fire).await.unwrap();
    turn.finish_reading().await;
    let warnings = fixture.warnings(&turn.run_id()).await;
    assert!(
        !warnings.iter().any(|warning| warning.contains("no tool was offered")),
        "{warnings:?}"
    );
}

async fn a_runs_id_tells_when_it_was_accepted(database: TestDatabase) {
    let source = FakeSource::usual();
    let fixture = Builder::new(database, Wiring::Local)
        .tool_source(source.shared())
        .config(|config| config.source_patience = Duration::from_millis(300))
        .build()
        .await;
    fixture.make_agent().await;
    source.set_listing(Listing::Hangs);
    let viewer = fixture.sandbox.viewer();
    let asked = source.asked();
    // Its tools are looked for while another run is accepted and ends.
    let slow = fixture.fire(&viewer, fixture.test_fire("{}"));
    let quick = async {
        eventually(LIMIT, async || source.asked() > asked).await;
        fixture.fired(&json!({})).await.run_id()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    let mut slow = slow.unwrap();
    slow.finish_reading().await;
    assert!(
        slow.run_id() > quick,
        "whoever follows new runs by their ids does not miss it"
    );
}
