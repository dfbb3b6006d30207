//! The tier's limit of sources (`gaps.md` G46) holds, also for registrations at the same time.

use copass_errors::ErrorCode;
use copass_proto::source::RegisterSourceRequest;
use copass_store::execute;
use copass_test_support::{TestDatabase, TestSandbox, Wiring, on_every_setup};
use futures::future::join_all;

use crate::support::{Fixture, MAX_DATA_SOURCES, registration};

on_every_setup! {
    a_full_sandbox_takes_no_more
    registrations_at_the_same_time_do_not_exceed_the_limit
    an_archived_source_leaves_room
    the_limit_of_one_sandbox_is_not_that_of_another
}

async fn a_full_sandbox_takes_no_more(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    for limit in [0, 1] {
        let request = RegisterSourceRequest {
            max_data_sources: limit,
            ..registration(&sandbox)
        };
        for _ in 0..limit {
            fixture.register(&sandbox.owner(), request.clone()).await.unwrap();
        }
        let error = fixture.register(&sandbox.owner(), request).await.unwrap_err();
        assert_eq!(
            (error.code(), error.code().http_status().as_u16()),
            (ErrorCode::TierLimit, 409)
        );
        assert!(error.detail().contains(&limit.to_string()), "{}", error.detail());
    }
    assert_eq!(fixture.rows().await, 1);
}

async fn registrations_at_the_same_time_do_not_exceed_the_limit(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let (owner, editor) = (sandbox.owner(), sandbox.editor());
    let callers = [&owner, &editor].into_iter().cycle().take(30);
    let outcomes = join_all(callers.map(|caller| fixture.register(caller, registration(&sandbox)))).await;
    let refusals: Vec<_> = outcomes
        .into_iter()
        .filter_map(Result::err)
        .map(|error| error.code())
        .collect();
    assert_eq!(refusals, [ErrorCode::TierLimit; 20]);
    assert_eq!(fixture.rows().await, i64::try_from(MAX_DATA_SOURCES).unwrap());
}

async fn an_archived_source_leaves_room(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandbox = TestSandbox::new();
    let request = RegisterSourceRequest {
        max_data_sources: 1,
        ..registration(&sandbox)
    };
    fixture.register(&sandbox.owner(), request.clone()).await.unwrap();
    for (status, has_room) in [
        ("paused", false),
        ("disconnected", false),
        ("error", false),
        ("archived", true),
    ] {
        let mut tx = fixture.database.begin().await.unwrap();
        execute!(tx, "update data_sources set status = $1", status).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            fixture.register(&sandbox.owner(), request.clone()).await.is_ok(),
            has_room,
            "{status}"
        );
    }
}

async fn the_limit_of_one_sandbox_is_not_that_of_another(database: TestDatabase, wiring: Wiring) {
    let fixture = Fixture::new(database, wiring).await;
    let sandboxes = [TestSandbox::new(), TestSandbox::new(), TestSandbox::new()];
    let outcomes = join_all(sandboxes.iter().map(|sandbox| async {
        let request = RegisterSourceRequest {
            max_data_sources: 1,
            ..registration(sandbox)
        };
        fixture.register(&sandbox.owner(), request).await
    }));
    assert!(outcomes.await.iter().all(Result::is_ok));
}
