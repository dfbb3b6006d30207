//! `ListTriggers` and `GetTrigger` (`rest.md` 13.2, 13.3): what is stored is what is shown.

use copass_errors::ErrorCode;
use copass_proto::{convert::instant, trigger::ListTriggersRequest};
use copass_runtime::clock;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_every_setup};
use copass_types::AgentId;
use serde_json::{Value, json};

use crate::support::{Fixture, NewTrigger, get_one, list_of};

on_every_setup! {
    a_trigger_comes_back_as_it_is_stored
    triggers_are_listed_by_agent_oldest_first
    the_status_narrows_the_list
    an_unknown_status_is_refused
}

async fn a_trigger_comes_back_as_it_is_stored(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (sandbox, agent) = (TestSandbox::new(), AgentId::generate());
    let fired_at = clock::now();
    let config = json!({ "item.channel": "C1", "mentions": ["U1", "ü"] });
    let full = NewTrigger {
        event_type_filter: "slack.message.*",
        filter_config: Some(config.clone()),
        status: "paused",
        rate_limit_per_hour: Some(30),
        last_fired_at: Some(fired_at),
        fire_count: 5_000_000_000,
        ..NewTrigger::of(&agent)
    };
    let id = fixture.insert(&sandbox, full.clone()).await;
    let trigger = fixture
        .get(&sandbox.viewer(), get_one(&sandbox, &agent, &id))
        .await
        .unwrap();
    assert_eq!(
        (trigger.trigger_id.as_str(), trigger.sandbox_id.as_str()),
        (id.as_str(), sandbox.id.as_str())
    );
    assert_eq!(
        (trigger.user_id.as_str(), trigger.agent_id.as_str()),
        (sandbox.owner_user_id.as_str(), agent.as_str())
    );
    assert_eq!(trigger.data_source_id, full.data_source_id.as_str());
    assert_eq!(
        (trigger.event_type_filter.as_str(), trigger.status.as_str()),
        ("slack.message.*", "paused")
    );
    assert_eq!(
        (trigger.rate_limit_per_hour, trigger.fire_count),
        (Some(30), 5_000_000_000)
    );
    let stored: Value = serde_json::from_str(trigger.filter_config_json.as_deref().unwrap()).unwrap();
    assert_eq!(stored, config);
    assert_eq!(instant(&trigger.last_fired_at.unwrap()).unwrap(), fired_at);
    assert_eq!(trigger.created_at, trigger.updated_at);

    let id = fixture.insert(&sandbox, NewTrigger::of(&agent)).await;
    let trigger = fixture
        .get(&sandbox.owner(), get_one(&sandbox, &agent, &id))
        .await
        .unwrap();
    assert_eq!(
        (
            trigger.filter_config_json,
            trigger.rate_limit_per_hour,
            trigger.last_fired_at
        ),
        (None, None, None)
    );
}

async fn triggers_are_listed_by_agent_oldest_first(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (sandbox, agent, another) = (TestSandbox::new(), AgentId::generate(), AgentId::generate());
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(fixture.insert(&sandbox, NewTrigger::of(&agent)).await);
        fixture.insert(&sandbox, NewTrigger::of(&another)).await;
    }
    let listed = fixture
        .list(&sandbox.viewer(), list_of(&sandbox, &agent))
        .await
        .unwrap();
    assert_eq!(
        listed.into_iter().map(|trigger| trigger.trigger_id).collect::<Vec<_>>(),
        expected
    );
    // Whether the agent exists is not known here.
    assert!(
        fixture
            .list(&sandbox.viewer(), list_of(&sandbox, &AgentId::generate()))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn the_status_narrows_the_list(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (sandbox, agent) = (TestSandbox::new(), AgentId::generate());
    for status in ["active", "paused", "active", "disabled"] {
        fixture
            .insert(
                &sandbox,
                NewTrigger {
                    status,
                    ..NewTrigger::of(&agent)
                },
            )
            .await;
    }
    for (status, expected) in [
        (None, 4),
        (Some("active"), 2),
        (Some("paused"), 1),
        (Some("disabled"), 1),
    ] {
        let request = ListTriggersRequest {
            status: status.map(str::to_owned),
            ..list_of(&sandbox, &agent)
        };
        let listed = fixture.list(&sandbox.owner(), request).await.unwrap();
        assert_eq!(listed.len(), expected, "{status:?}");
        assert!(
            listed
                .iter()
                .all(|trigger| status.is_none_or(|status| trigger.status == status))
        );
    }
}

async fn an_unknown_status_is_refused(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (sandbox, agent) = (TestSandbox::new(), AgentId::generate());
    for status in ["", "Active", "archived", "active\0"] {
        let request = ListTriggersRequest {
            status: Some(status.to_owned()),
            ..list_of(&sandbox, &agent)
        };
        let error = fixture.list(&sandbox.owner(), request).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ValidationError, "{status:?}");
        assert_eq!(error.problems()[0].loc, ["query", "status"], "{status:?}");
        assert!(
            error.problems()[0].msg.contains("disabled"),
            "{}",
            error.problems()[0].msg
        );
    }
}
