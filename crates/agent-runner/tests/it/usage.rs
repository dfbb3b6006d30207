//! Sums of tokens and cost over a window.

use chrono::{DateTime, Duration, Utc};
use copass_errors::{Error, ErrorCode};
use copass_proto::{
    agent::Agent,
    convert::timestamp,
    run::{AggregateUsageRequest, AggregateUsageResponse, UsageSum},
};
use copass_runtime::{CallContext, clock};
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_both_databases};
use copass_types::{ActorKind, AgentKeyKind, AgentKeyScope, ProjectId, SandboxId, TriggerId, UserId};

use crate::{
    agents::{create, request},
    changes::with_agent,
    run_rows::RunRow,
    support::{Builder, Fixture, assert_code},
};

mod wiring_tests {
    use super::*;

    copass_test_support::on_every_setup! {
    sums_are_grouped_by_whatever_is_asked_for
    }
}
on_both_databases! {
    a_window_begins_with_its_first_instant_and_ends_before_its_last
    days_are_days_of_utc
    what_has_no_price_is_counted_and_not_summed
    of_many_groups_the_largest_are_shown_and_all_are_in_the_total
    talks_with_the_system_are_counted_for_those_who_may_read_them
    an_account_is_summed_up_over_its_sandboxes
    who_may_sum_up
    what_is_refused_and_with_which_words
}

fn query(fixture: &Fixture, group_by: &[&str]) -> AggregateUsageRequest {
    AggregateUsageRequest {
        sandbox_id: Some(fixture.sandbox.id.to_string()),
        group_by: group_by.iter().map(|word| (*word).to_owned()).collect(),
        ..AggregateUsageRequest::default()
    }
}

async fn sum(
    fixture: &Fixture,
    caller: &CallContext,
    request: AggregateUsageRequest,
) -> Result<AggregateUsageResponse, Error> {
    Ok(fixture
        .runs()
        .aggregate_usage(caller.request(request))
        .await?
        .into_inner())
}

async fn total(fixture: &Fixture, caller: &CallContext) -> UsageSum {
    sum(fixture, caller, query(fixture, &[])).await.unwrap().total.unwrap()
}

/// Keys, runs, tokens in, tokens out.
fn groups(answer: &AggregateUsageResponse) -> Vec<(Vec<&str>, u64, u64, u64)> {
    let group = |group: &copass_proto::run::UsageGroup| {
        let sum = group.sum.unwrap();
        (sum.runs, sum.tokens_in, sum.tokens_out)
    };
    answer
        .groups
        .iter()
        .map(|row| {
            let (runs, tokens_in, tokens_out) = group(row);
            (
                row.keys.iter().map(String::as_str).collect(),
                runs,
                tokens_in,
                tokens_out,
            )
        })
        .collect()
}

async fn second_agent(fixture: &Fixture, owner: &CallContext) -> Agent {
    create(fixture, owner, request(fixture, "second")).await.unwrap()
}

async fn sums_are_grouped_by_whatever_is_asked_for(database: TestDatabase, wiring: Wiring) {
    let (fixture, owner, agent) = with_agent(database, wiring).await;
    let second = second_agent(&fixture, &owner).await;
    let trigger = TriggerId::generate().to_string();
    for _ in 0..3 {
        RunRow::of(&agent).insert(&fixture).await;
    }
    let fired = RunRow {
        trigger_id: Some(trigger.clone()),
        entrance: "trigger",
        status: "failed",
        model: Some("google/gemini-2.5-flash"),
        tokens_in: Some(1000),
        model_calls: 4,
        ..RunRow::of(&second)
    };
    fired.insert(&fixture).await;
    let pending = RunRow {
        status: "pending",
        model: None,
        tokens_in: None,
        tokens_out: None,
        cost_microcents: None,
        model_calls: 0,
        ..RunRow::of(&second)
    };
    pending.insert(&fixture).await;

    let viewer = fixture.sandbox.viewer();
    let answer = sum(&fixture, &viewer, query(&fixture, &[])).await.unwrap();
    assert!(answer.groups.is_empty(), "nothing is grouped by");
    let expected = UsageSum {
        runs: 5,
        tokens_in: 1030,
        tokens_out: 20,
        cost_microcents: 400,
        runs_without_price: 0,
        model_calls: 7,
    };
    assert_eq!(answer.total.unwrap(), expected);
    let by = async |words: &[&str]| sum(&fixture, &viewer, query(&fixture, words)).await.unwrap();
    let agents = by(&["agent"]).await;
    assert_eq!(
        groups(&agents),
        [(vec!["second"], 2, 1000, 5), (vec!["support"], 3, 30, 15)],
        "most tokens first"
    );
    assert_eq!(agents.total.unwrap(), expected);
    assert_eq!(
        groups(&by(&["trigger"]).await),
        [(vec![trigger.as_str()], 1, 1000, 5), (vec![""], 4, 30, 15)]
    );
    assert_eq!(
        groups(&by(&["model"]).await),
        [
            (vec!["google/gemini-2.5-flash"], 1, 1000, 5),
            (vec!["anthropic/claude-sonnet-4-6"], 3, 30, 15),
            (vec![""], 1, 0, 0),
        ]
    );
    // In the order that was asked for.
    let expected = [
        (vec!["failed", "second"], 1, 1000, 5),
        (vec!["succeeded", "support"], 3, 30, 15),
        (vec!["pending", "second"], 1, 0, 0),
    ];
    assert_eq!(groups(&by(&["status", "agent"]).await), expected);
    let turned = by(&["agent", "status"]).await;
    assert_eq!(groups(&turned)[0].0, ["second", "failed"]);
    let all = by(&["entrance", "day", "model", "trigger", "status", "agent"]).await;
    assert_eq!((all.groups.len(), all.groups[0].keys.len()), (3, 6));
    assert_eq!(all.groups[0].keys[0], "trigger");

    let mut of_agent = query(&fixture, &["status"]);
    of_agent.agent_slug = Some("second".to_owned());
    let answer = sum(&fixture, &viewer, of_agent).await.unwrap();
    assert_eq!(
        groups(&answer),
        [(vec!["failed"], 1, 1000, 5), (vec!["pending"], 1, 0, 0)]
    );
    assert_eq!(answer.total.unwrap().runs, 2);
}

async fn a_window_begins_with_its_first_instant_and_ends_before_its_last(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    let first: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
    let second = Duration::seconds(1);
    for at in [first - second, first, first + second, first + second * 2] {
        RunRow {
            at,
            ..RunRow::of(&agent)
        }
        .insert(&fixture)
        .await;
    }
    let between = async |since, until| {
        let mut request = query(&fixture, &[]);
        request.since = Some(timestamp(since));
        request.until = Some(timestamp(until));
        sum(&fixture, &owner, request).await.unwrap().total.unwrap().runs
    };
    assert_eq!(between(first, first + second * 2).await, 2);
    assert_eq!(between(first, first + second * 2 + Duration::milliseconds(1)).await, 3);
    assert_eq!(between(first - second, first).await, 1);

    // Without a window: the last thirty days.
    let now = clock::now();
    for days in [29, 31] {
        let at = now - Duration::days(days);
        RunRow {
            at,
            ..RunRow::of(&agent)
        }
        .insert(&fixture)
        .await;
    }
    assert_eq!(total(&fixture, &owner).await.runs, 1);
    let mut until = query(&fixture, &[]);
    until.until = Some(timestamp(first + second));
    let answer = sum(&fixture, &owner, until).await.unwrap();
    assert_eq!(answer.total.unwrap().runs, 2, "thirty days before the end");
}

async fn days_are_days_of_utc(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    for at in [
        "2026-03-01T23:59:59.999Z",
        "2026-03-02T00:00:00Z",
        "2026-03-02T12:00:00.5Z",
    ] {
        let at: DateTime<Utc> = at.parse().unwrap();
        RunRow {
            at,
            ..RunRow::of(&agent)
        }
        .insert(&fixture)
        .await;
    }
    let mut request = query(&fixture, &["day"]);
    request.until = Some(timestamp("2026-03-10T00:00:00Z".parse().unwrap()));
    let answer = sum(&fixture, &owner, request).await.unwrap();
    assert_eq!(
        groups(&answer),
        [(vec!["2026-03-02"], 2, 20, 10), (vec!["2026-03-01"], 1, 10, 5)]
    );
}

async fn what_has_no_price_is_counted_and_not_summed(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    RunRow::of(&agent).insert(&fixture).await;
    let unpriced = RunRow {
        cost_microcents: None,
        ..RunRow::of(&agent)
    };
    unpriced.insert(&fixture).await;
    let free = RunRow {
        cost_microcents: Some(0),
        ..RunRow::of(&agent)
    };
    free.insert(&fixture).await;
    // One whose only answer broke off, and nobody told what it used.
    let untold = RunRow {
        tokens_in: Some(0),
        tokens_out: Some(0),
        model_calls: 0,
        status: "failed",
        ..unpriced.clone()
    };
    untold.insert(&fixture).await;
    // A run that never asked a model lacks no price, nor does one that goes on.
    let unasked = RunRow {
        tokens_in: None,
        tokens_out: None,
        status: "cancelled",
        is_begun: false,
        ..untold.clone()
    };
    unasked.insert(&fixture).await;
    let running = RunRow {
        status: "running",
        ..untold
    };
    running.insert(&fixture).await;
    let total = total(&fixture, &owner).await;
    assert_eq!(
        (total.runs, total.cost_microcents, total.runs_without_price),
        (6, 100, 2)
    );
}

async fn of_many_groups_the_largest_are_shown_and_all_are_in_the_total(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    for number in 1..=205 {
        let row = RunRow {
            trigger_id: Some(TriggerId::generate().to_string()),
            tokens_in: Some(number),
            tokens_out: Some(0),
            ..RunRow::of(&agent)
        };
        row.insert(&fixture).await;
    }
    let answer = sum(&fixture, &owner, query(&fixture, &["trigger"])).await.unwrap();
    let tokens: Vec<u64> = groups(&answer).iter().map(|group| group.2).collect();
    assert_eq!(tokens, (6..=205).rev().collect::<Vec<_>>());
    let total = answer.total.unwrap();
    assert_eq!((total.runs, total.tokens_in), (205, 205 * 206 / 2));
}

async fn talks_with_the_system_are_counted_for_those_who_may_read_them(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    let (viewer, other) = (fixture.sandbox.viewer(), fixture.sandbox.viewer());
    RunRow::of(&agent).insert(&fixture).await;
    fixture.say_as(&viewer, "hello", None).await;
    fixture.say_as(&other, "hello", None).await;
    fixture.say_as(&other, "hello", None).await;
    let mut of_project = viewer.clone();
    of_project.principal.access.as_mut().unwrap().project_id = Some(ProjectId::generate());
    for (who, caller, runs) in [
        ("owner", &owner, 4),
        ("viewer", &viewer, 2),
        ("another one", &other, 3),
        ("an editor", &fixture.sandbox.editor(), 1),
        ("of one project", &of_project, 1),
    ] {
        assert_eq!(total(&fixture, caller).await.runs, runs, "{who}");
    }
    let mut of_system = query(&fixture, &["agent"]);
    of_system.agent_slug = Some("@concierge".to_owned());
    let answer = sum(&fixture, &viewer, of_system.clone()).await.unwrap();
    assert_eq!(groups(&answer)[0].0, ["@concierge"]);
    assert_eq!(answer.total.unwrap().runs, 1);
    // The system's agents are always there, also before their first run.
    of_system.agent_slug = Some("@run".to_owned());
    assert_eq!(sum(&fixture, &owner, of_system).await.unwrap().total.unwrap().runs, 0);
    let mut of_agent = query(&fixture, &[]);
    of_agent.agent_slug = Some("support".to_owned());
    assert_code(sum(&fixture, &of_project, of_agent).await, ErrorCode::NotFound);
}

async fn an_account_is_summed_up_over_its_sandboxes(database: TestDatabase) {
    let (fixture, owner, agent) = with_agent(database, Wiring::Local).await;
    let mut second = TestSandbox::new();
    second.owner_user_id = fixture.sandbox.owner_user_id.clone();
    let mut there = request(&fixture, "support");
    there.sandbox_id = second.id.to_string();
    let of_second = create(&fixture, &second.owner(), there).await.unwrap();
    let stranger = TestSandbox::new();
    let mut foreign = request(&fixture, "support");
    foreign.sandbox_id = stranger.id.to_string();
    let of_stranger = create(&fixture, &stranger.owner(), foreign).await.unwrap();
    RunRow::of(&agent).insert(&fixture).await;
    RunRow::of(&of_second).insert(&fixture).await;
    RunRow::of(&of_stranger).insert(&fixture).await;
    fixture.say_as(&fixture.sandbox.viewer(), "hello", None).await;

    // No sandbox is named, so no access comes with the call.
    let mut account = owner.clone();
    account.principal.access = None;
    let mut request = query(&fixture, &["agent"]);
    request.sandbox_id = None;
    let answer = sum(&fixture, &account, request.clone()).await.unwrap();
    assert_eq!(
        answer.total.unwrap().runs,
        3,
        "both sandboxes, and what others did at the owner's expense"
    );
    assert_eq!(
        answer.groups.iter().map(|group| group.sum.unwrap().runs).sum::<u64>(),
        3
    );
    assert!(
        answer
            .groups
            .iter()
            .any(|group| group.keys == ["support"] && group.sum.unwrap().runs == 2)
    );
    request.agent_slug = Some("support".to_owned());
    assert_eq!(
        sum(&fixture, &account, request.clone())
            .await
            .unwrap()
            .total
            .unwrap()
            .runs,
        2
    );
    request.agent_slug = Some("nobody".to_owned());
    assert_eq!(
        sum(&fixture, &account, request.clone())
            .await
            .unwrap()
            .total
            .unwrap()
            .runs,
        0
    );
    request.agent_slug = Some("a\0b".to_owned());
    assert_code(sum(&fixture, &account, request.clone()).await, ErrorCode::NotFound);
    request.agent_slug = None;
    account.principal.kind = ActorKind::ApiKey;
    assert_eq!(
        sum(&fixture, &account, request.clone())
            .await
            .unwrap()
            .total
            .unwrap()
            .runs,
        3
    );
    // Nobody else's sandboxes, whatever role one has there.
    let viewer = fixture.sandbox.viewer();
    assert_eq!(sum(&fixture, &viewer, request).await.unwrap().total.unwrap().runs, 0);
}

async fn who_may_sum_up(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let sandbox = &fixture.sandbox;
    let owner = sandbox.owner();
    let mut agent_key = owner.clone();
    agent_key.principal.kind = ActorKind::AgentKey;
    agent_key.principal.agent_key = Some(AgentKeyScope {
        agent_id: copass_types::AgentId::generate(),
        kind: AgentKeyKind::Delegate,
        has_holder: true,
    });
    let mut connection_key = sandbox.editor();
    connection_key.principal.kind = ActorKind::ConnectionKey;
    connection_key.principal.only_sandbox = Some(sandbox.id.clone());
    let mut limited = owner.clone();
    limited.principal.only_sandbox = Some(sandbox.id.clone());
    let service = CallContext::service("gateway");

    let of_sandbox = query(&fixture, &[]);
    for stranger in [
        sandbox.foreign(),
        sandbox.nobody(),
        sandbox.owner_with_key_of_another_sandbox(),
    ] {
        assert_code(sum(&fixture, &stranger, of_sandbox.clone()).await, ErrorCode::NotFound);
    }
    assert_code(
        sum(&fixture, &agent_key, of_sandbox.clone()).await,
        ErrorCode::Forbidden,
    );
    assert!(sum(&fixture, &connection_key, of_sandbox.clone()).await.is_ok());
    assert!(
        sum(&fixture, &sandbox.with_status("suspended").viewer(), of_sandbox)
            .await
            .is_ok()
    );

    let of_account = AggregateUsageRequest::default();
    for caller in [&agent_key, &connection_key, &limited, &service] {
        let error = assert_code(sum(&fixture, caller, of_account.clone()).await, ErrorCode::Forbidden);
        assert!(error.detail().contains("general credential"), "{error}");
    }
    let unsigned = fixture.runs().aggregate_usage(tonic::Request::new(of_account)).await;
    assert_code(unsigned.map_err(Error::from).map(|_| ()), ErrorCode::Unauthorized);
}

async fn what_is_refused_and_with_which_words(database: TestDatabase) {
    let fixture = Builder::new(database, Wiring::Local).build().await;
    let owner = fixture.sandbox.owner();
    let at = |text: &str| Some(timestamp(text.parse().unwrap()));
    let base = query(&fixture, &[]);
    let mut outside = at("2026-03-02T00:00:00Z");
    outside.as_mut().unwrap().seconds = i64::MAX;
    for (place, request) in [
        ("group_by", query(&fixture, &["colour"])),
        ("group_by", query(&fixture, &["agent", "agent"])),
        ("group_by", query(&fixture, &[""])),
        (
            "since",
            AggregateUsageRequest {
                since: at("2026-03-02T00:00:00Z"),
                until: at("2026-03-02T00:00:00Z"),
                ..base.clone()
            },
        ),
        (
            "since",
            AggregateUsageRequest {
                since: at("2025-01-01T00:00:00Z"),
                until: at("2026-03-02T00:00:00Z"),
                ..base.clone()
            },
        ),
        (
            "until",
            AggregateUsageRequest {
                until: outside,
                ..base.clone()
            },
        ),
    ] {
        let error = assert_code(sum(&fixture, &owner, request).await, ErrorCode::ValidationError);
        assert_eq!(error.problems()[0].loc, ["query", place]);
    }
    for slug in ["nobody", "", "a\0b"] {
        let request = AggregateUsageRequest {
            agent_slug: Some(slug.to_owned()),
            ..base.clone()
        };
        assert_code(sum(&fixture, &owner, request).await, ErrorCode::NotFound);
    }
    for sandbox_id in ["sb_1", "", SandboxId::generate().as_str(), UserId::generate().as_str()] {
        let request = AggregateUsageRequest {
            sandbox_id: Some(sandbox_id.to_owned()),
            ..base.clone()
        };
        assert_code(sum(&fixture, &owner, request).await, ErrorCode::NotFound);
    }
}
