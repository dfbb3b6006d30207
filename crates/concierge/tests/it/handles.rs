//! Copass IDs: one per account, unique among all.

use copass_errors::{Error, ErrorCode};
use copass_proto::identity::{DeleteHandleRequest, GetHandleRequest, SetHandleRequest};
use copass_runtime::CallContext;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};

use crate::support::{Stage, ask, code};

on_every_setup! {
    a_handle_is_claimed_changed_and_given_back
    the_format_of_the_contract
    of_claims_at_the_same_time_one_wins
}

async fn set(stage: &Stage, me: &CallContext, handle: &str) -> Result<Option<String>, Error> {
    let request = SetHandleRequest {
        copass_id: handle.to_owned(),
    };
    ask(stage.identity().set_handle(me.request(request)))
        .await
        .map(|answer| answer.copass_id)
}

async fn get(stage: &Stage, me: &CallContext) -> Option<String> {
    ask(stage.identity().get_handle(me.request(GetHandleRequest {})))
        .await
        .unwrap()
        .copass_id
}

async fn a_handle_is_claimed_changed_and_given_back(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let alice = stage.me(&stage.person().await).await;
    let bob = stage.me(&stage.person().await).await;
    assert_eq!(get(&stage, &alice).await, None);
    assert_eq!(set(&stage, &alice, "@alice").await.unwrap().as_deref(), Some("alice"));
    assert_eq!(set(&stage, &alice, "alice").await.unwrap().as_deref(), Some("alice"));
    assert_eq!(code(set(&stage, &bob, "alice").await), Some(ErrorCode::Conflict));
    set(&stage, &alice, "alice.2").await.unwrap();
    set(&stage, &bob, "alice").await.unwrap();
    assert_eq!(get(&stage, &bob).await.as_deref(), Some("alice"));
    for _ in 0..2 {
        let answer = ask(stage.identity().delete_handle(bob.request(DeleteHandleRequest {})))
            .await
            .unwrap();
        assert_eq!(answer.copass_id, None);
    }
    set(&stage, &alice, "alice").await.unwrap();
    let changes = stage
        .log()
        .await
        .into_iter()
        .filter(|(action, _)| action == "handle.set")
        .count();
    assert_eq!(changes, 5);
}

async fn the_format_of_the_contract(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let me = stage.me(&stage.person().await).await;
    let longest = "a".repeat(30);
    for good in ["abc", "a.b", "a_b-c.d", "007", "@a-b", longest.as_str()] {
        set(&stage, &me, good).await.unwrap();
    }
    let too_long = "a".repeat(31);
    for bad in [
        "",
        "@",
        "ab",
        ".ab",
        "ab.",
        "a..b",
        "a._b",
        "Alice",
        "a b",
        "ä12",
        "@@abc",
        "a\0bc",
        too_long.as_str(),
    ] {
        assert_eq!(
            code(set(&stage, &me, bad).await),
            Some(ErrorCode::ValidationError),
            "{bad:?}"
        );
    }
}

async fn of_claims_at_the_same_time_one_wins(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let mut people = Vec::new();
    for _ in 0..6 {
        people.push(stage.me(&stage.person().await).await);
    }
    let outcomes = futures::future::join_all(people.iter().map(|me| set(&stage, me, "wanted"))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(
        outcomes
            .into_iter()
            .filter_map(Result::err)
            .all(|error| error.code() == ErrorCode::Conflict)
    );
    assert_eq!(
        stage.count("select count(*) from users where handle = 'wanted'").await,
        1
    );
}
