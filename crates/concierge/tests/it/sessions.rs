//! Refresh tokens: good once; one that comes back ends its login for good.

use copass_errors::{Error, ErrorCode};
use copass_proto::identity::RefreshSessionRequest;
use copass_runtime::clock;
use copass_test_support::{TestDatabase, Wiring, eventually, on_every_setup};

use crate::support::{LIMIT, Person, Stage, ask, code, config, gateway};

on_every_setup! {
    a_refresh_token_is_exchanged_for_the_next_one
    a_token_that_comes_back_ends_its_login_and_no_other
    of_rotations_at_the_same_time_none_survives_a_reuse
    a_rotation_beside_a_reuse_does_not_escape
    an_ended_login_stays_ended_after_clean_up
    unknown_and_expired_tokens_are_refused
}

async fn refresh(stage: &Stage, token: &str) -> Result<Person, Error> {
    let request = RefreshSessionRequest {
        refresh_token: token.to_owned(),
    };
    ask(stage.identity().refresh_session(gateway().request(request)))
        .await
        .map(Into::into)
}

async fn is_good(stage: &Stage, person: &Person) -> bool {
    stage.authenticate(&person.access_token, None).await.is_ok()
}

async fn a_refresh_token_is_exchanged_for_the_next_one(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let first = stage.person().await;
    let mut last = first.clone();
    for _ in 0..3 {
        let next = refresh(&stage, &last.refresh_token).await.unwrap();
        assert_eq!((&next.user_id, &next.email), (&first.user_id, &first.email));
        assert_ne!(next.refresh_token, last.refresh_token);
        last = next;
    }
    // An access token lives to its own end.
    assert!(is_good(&stage, &first).await && is_good(&stage, &last).await);
}

async fn a_token_that_comes_back_ends_its_login_and_no_other(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let stolen = stage.person().await;
    let other_login = stage.log_in(&stolen.email, crate::support::DEV_CODE).await.unwrap();
    let next = refresh(&stage, &stolen.refresh_token).await.unwrap();
    assert_eq!(
        code(refresh(&stage, &stolen.refresh_token).await),
        Some(ErrorCode::Unauthorized)
    );
    for dead in [&stolen, &next] {
        assert_eq!(
            code(stage.authenticate(&dead.access_token, None).await),
            Some(ErrorCode::Unauthorized)
        );
        assert_eq!(
            code(refresh(&stage, &dead.refresh_token).await),
            Some(ErrorCode::Unauthorized)
        );
    }
    assert!(is_good(&stage, &other_login).await);
    refresh(&stage, &other_login.refresh_token).await.unwrap();
    let told: Vec<_> = stage
        .outbox()
        .await
        .into_iter()
        .map(|(to, body)| (to, body["user_id"].clone()))
        .collect();
    assert_eq!(told, [("copass.identity.revoked".to_owned(), stolen.user_id.into())]);
    let reuse = ("login.refresh_reused".to_owned(), "unauthorized".to_owned());
    assert_eq!(stage.log().await.into_iter().filter(|entry| *entry == reuse).count(), 1);
}

async fn of_rotations_at_the_same_time_none_survives_a_reuse(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    for _ in 0..5 {
        let person = stage.person().await;
        let outcomes = futures::future::join_all((0..6).map(|_| refresh(&stage, &person.refresh_token))).await;
        let winners: Vec<Person> = outcomes.into_iter().filter_map(Result::ok).collect();
        assert_eq!(winners.len(), 1);
        // The second one revoked the login, the winner's new token too, whichever order they came in.
        assert!(!is_good(&stage, &winners[0]).await && !is_good(&stage, &person).await);
        assert_eq!(
            code(refresh(&stage, &winners[0].refresh_token).await),
            Some(ErrorCode::Unauthorized)
        );
    }
}

async fn a_rotation_beside_a_reuse_does_not_escape(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    for round in 0..12 {
        let person = stage.person().await;
        let current = refresh(&stage, &person.refresh_token).await.unwrap();
        // The thief comes with the old token in the moment in which the person takes the next one.
        let (next, reuse) = match round % 2 {
            0 => tokio::join!(
                refresh(&stage, &current.refresh_token),
                refresh(&stage, &person.refresh_token)
            ),
            _ => {
                let (reuse, next) = tokio::join!(
                    refresh(&stage, &person.refresh_token),
                    refresh(&stage, &current.refresh_token)
                );
                (next, reuse)
            }
        };
        assert_eq!(code(reuse), Some(ErrorCode::Unauthorized));
        if let Ok(next) = next {
            assert!(!is_good(&stage, &next).await);
            assert_eq!(
                code(refresh(&stage, &next.refresh_token).await),
                Some(ErrorCode::Unauthorized)
            );
        }
    }
}

async fn an_ended_login_stays_ended_after_clean_up(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let next = refresh(&stage, &person.refresh_token).await.unwrap();
    let _ = refresh(&stage, &person.refresh_token).await.unwrap_err();
    // The older, revoked token is long over; the newer one is not.
    let long_ago = clock::now() - chrono::Duration::days(31);
    stage
        .sql(
            "update refresh_tokens set expires_at = $2 where user_id = $1 and used_at is not null",
            &person.user_id,
            Some(long_ago),
        )
        .await;
    stage.concierge.start();
    eventually(LIMIT, || async {
        stage.count("select count(*) from refresh_tokens").await == 1
    })
    .await;
    assert_eq!(
        code(refresh(&stage, &next.refresh_token).await),
        Some(ErrorCode::Unauthorized)
    );
    assert!(!is_good(&stage, &next).await);
    assert!(stage.tasks.shut_down(LIMIT).await);
}

async fn unknown_and_expired_tokens_are_refused(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, config()).await;
    for token in ["", "nonsense", "\0"] {
        assert_eq!(code(refresh(&stage, token).await), Some(ErrorCode::Unauthorized));
    }
    let person = stage.person().await;
    stage
        .sql(
            "update refresh_tokens set expires_at = $2 where user_id = $1",
            &person.user_id,
            Some(clock::now()),
        )
        .await;
    assert_eq!(
        code(refresh(&stage, &person.refresh_token).await),
        Some(ErrorCode::Unauthorized)
    );
}
