//! `Idempotency-Key` on `RegisterSource`: a repeat gets the first answer and changes nothing.

use copass_errors::ErrorCode;
use copass_proto::source::RegisterSourceRequest;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_every_setup};
use futures::future::join_all;

use crate::support::{Fixture, registration};

on_every_setup! {
    a_repeat_gets_the_first_answer
    repeats_at_the_same_time_all_get_the_first_answer
    a_repeat_at_the_limit_gets_the_first_answer
    another_request_under_the_key_is_a_conflict
    keys_of_other_people_and_sandboxes_do_not_meet
    a_refused_request_leaves_its_key_free
    an_odd_key_is_refused
}

fn keyed(sandbox: &TestSandbox, key: &str) -> RegisterSourceRequest {
    RegisterSourceRequest {
        idempotency_key: Some(key.to_owned()),
        adapter_config_json: Some("{\"ä\":[1,2.5,null]}".to_owned()),
        ..registration(sandbox)
    }
}

async fn a_repeat_gets_the_first_answer(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let owner = sandbox.owner();
    let first = fixture.register(&owner, keyed(&sandbox, "k")).await.unwrap();
    // The limit comes from the tier and not from the caller: another one is the same request.
    let repeat = RegisterSourceRequest {
        max_data_sources: 100,
        ..keyed(&sandbox, "k")
    };
    assert_eq!(fixture.register(&owner, repeat).await.unwrap(), first);
    assert_eq!(fixture.rows().await, 1);
    let other = fixture.register(&owner, keyed(&sandbox, "another")).await.unwrap();
    assert_ne!(other.data_source_id, first.data_source_id);
}

async fn repeats_at_the_same_time_all_get_the_first_answer(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let owner = sandbox.owner();
    let outcomes = join_all((0..16).map(|_| fixture.register(&owner, keyed(&sandbox, "k")))).await;
    let answers: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(fixture.rows().await, 1);
}

/// The first answer used the last place; the repeats must not hear that there is none.
async fn a_repeat_at_the_limit_gets_the_first_answer(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let owner = sandbox.owner();
    let request = RegisterSourceRequest {
        max_data_sources: 1,
        ..keyed(&sandbox, "k")
    };
    let outcomes = join_all((0..8).map(|_| fixture.register(&owner, request.clone()))).await;
    let answers: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(fixture.register(&owner, request).await.unwrap(), answers[0]);
    assert_eq!(fixture.rows().await, 1);
}

async fn another_request_under_the_key_is_a_conflict(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let owner = sandbox.owner();
    fixture.register(&owner, keyed(&sandbox, "k")).await.unwrap();
    let other = RegisterSourceRequest {
        name: "Other".to_owned(),
        ..keyed(&sandbox, "k")
    };
    let error = fixture.register(&owner, other).await.unwrap_err();
    assert_eq!(
        (error.code(), error.code().http_status().as_u16()),
        (ErrorCode::IdempotencyConflict, 409)
    );
    assert_eq!(fixture.rows().await, 1);
}

async fn keys_of_other_people_and_sandboxes_do_not_meet(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let (sandbox, other) = (TestSandbox::new(), TestSandbox::new());
    let callers = [
        (sandbox.owner(), &sandbox),
        (sandbox.editor(), &sandbox),
        (other.owner(), &other),
    ];
    for (caller, sandbox) in &callers {
        fixture.register(caller, keyed(sandbox, "k")).await.unwrap();
    }
    assert_eq!(fixture.rows().await, 3);
}

async fn a_refused_request_leaves_its_key_free(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let owner = sandbox.owner();
    let refused = RegisterSourceRequest {
        max_data_sources: 0,
        ..keyed(&sandbox, "k")
    };
    assert_eq!(
        fixture.register(&owner, refused).await.unwrap_err().code(),
        ErrorCode::TierLimit
    );
    fixture.register(&owner, keyed(&sandbox, "k")).await.unwrap();
}

async fn an_odd_key_is_refused(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    for key in ["", " ", "a\0b", &"k".repeat(256)] {
        let error = fixture
            .register(&sandbox.owner(), keyed(&sandbox, key))
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::ValidationError, "{key:?}");
        assert_eq!(error.problems()[0].loc, ["header", "Idempotency-Key"], "{key:?}");
    }
    fixture
        .register(&sandbox.owner(), keyed(&sandbox, &"k".repeat(255)))
        .await
        .unwrap();
}
