//! Login by one-time code, the code read from the log as `copass dev` prints it.

use copass_concierge::Config;
use copass_errors::ErrorCode;
use copass_proto::identity::SendLoginCodeRequest;
use copass_runtime::config::Auth;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};
use std::time::Duration;

use crate::support::{DEV_CODE, Stage, address, ask, code, codes, config, gateway};

on_every_setup! {
    a_code_from_the_log_logs_in_once
    a_new_code_replaces_the_older_one_for_good
    after_five_wrong_attempts_the_right_code_is_refused
    an_expired_code_is_refused
    codes_per_address_are_limited_also_side_by_side
    of_logins_with_one_code_at_the_same_time_one_wins
    the_code_of_dev_is_a_setting
    a_closed_server_answers_unknown_addresses_alike
    what_is_no_address_is_refused
    without_mail_and_log_nobody_waits_for_a_code
}

fn strict() -> Config {
    codes::watch();
    Config {
        accept_dev_code: false,
        ..config()
    }
}

fn auth(change: impl FnOnce(&mut Auth)) -> Config {
    let mut config = strict();
    change(&mut config.auth);
    config
}

async fn send(stage: &Stage, email: &str) -> Result<(), copass_errors::Error> {
    let request = SendLoginCodeRequest {
        email: email.to_owned(),
    };
    ask(stage.identity().send_login_code(gateway().request(request)))
        .await
        .map(|_| ())
}

async fn sent(stage: &Stage, email: &str) -> String {
    send(stage, email).await.unwrap();
    codes::of(email).pop().unwrap()
}

fn another(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}

async fn a_code_from_the_log_logs_in_once(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, strict()).await;
    let email = address();
    let code_text = sent(&stage, &email).await;
    assert_eq!(code_text.len(), 6);
    let first = stage
        .log_in(&format!(" {} ", email.to_uppercase()), &format!(" {code_text}\n"))
        .await
        .unwrap();
    assert_eq!(first.email, email);
    let answer = stage.authenticate(&first.access_token, None).await.unwrap();
    assert_eq!(
        (answer.kind.as_str(), answer.user_id),
        ("session", first.user_id.clone())
    );
    assert_eq!(
        code(stage.log_in(&email, &code_text).await),
        Some(ErrorCode::Unauthorized)
    );
    let next_code = sent(&stage, &email).await;
    assert_eq!(stage.log_in(&email, &next_code).await.unwrap().user_id, first.user_id);
    assert_eq!(stage.count("select count(*) from users").await, 1);
    let ok = || ("login".to_owned(), "ok".to_owned());
    let denied = ("login".to_owned(), "unauthorized".to_owned());
    assert_eq!(stage.log().await, [ok(), denied, ok()]);
}

async fn a_new_code_replaces_the_older_one_for_good(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, strict()).await;
    let email = address();
    let older = sent(&stage, &email).await;
    let mut newer = sent(&stage, &email).await;
    while newer == older {
        newer = sent(&stage, &email).await;
    }
    assert_eq!(code(stage.log_in(&email, &older).await), Some(ErrorCode::Unauthorized));
    stage.log_in(&email, &newer).await.unwrap();
    // Using the newer one up does not bring the older one back.
    assert_eq!(code(stage.log_in(&email, &older).await), Some(ErrorCode::Unauthorized));
}

async fn after_five_wrong_attempts_the_right_code_is_refused(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, strict()).await;
    let (email, patient) = (address(), address());
    let right = sent(&stage, &email).await;
    for _ in 0..5 {
        assert_eq!(
            code(stage.log_in(&email, &another(&right)).await),
            Some(ErrorCode::Unauthorized)
        );
    }
    assert_eq!(code(stage.log_in(&email, &right).await), Some(ErrorCode::Unauthorized));
    let right = sent(&stage, &patient).await;
    for _ in 0..4 {
        assert_eq!(
            code(stage.log_in(&patient, &another(&right)).await),
            Some(ErrorCode::Unauthorized)
        );
    }
    stage.log_in(&patient, &right).await.unwrap();
    // A new code begins anew.
    let right = sent(&stage, &email).await;
    stage.log_in(&email, &right).await.unwrap();
}

async fn an_expired_code_is_refused(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, auth(|auth| auth.code_ttl = Duration::ZERO)).await;
    let email = address();
    let right = sent(&stage, &email).await;
    assert_eq!(code(stage.log_in(&email, &right).await), Some(ErrorCode::Unauthorized));
    assert_eq!(stage.count("select count(*) from users").await, 0);
}

async fn codes_per_address_are_limited_also_side_by_side(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, auth(|auth| auth.codes_per_ten_minutes = 3)).await;
    let email = address();
    let loud = email.to_uppercase();
    let asked: Vec<_> = (0..20)
        .map(|turn| send(&stage, if turn % 2 == 0 { &email } else { &loud }))
        .collect();
    let outcomes = futures::future::join_all(asked).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(
            (error.code(), error.retry_after_s()),
            (ErrorCode::RateLimited, Some(600))
        );
    }
    assert_eq!(codes::of(&email).len(), 3);
    send(&stage, &address()).await.unwrap();
}

async fn of_logins_with_one_code_at_the_same_time_one_wins(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, strict()).await;
    let email = address();
    let right = sent(&stage, &email).await;
    let outcomes = futures::future::join_all((0..5).map(|_| stage.log_in(&email, &right))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(stage.count("select count(*) from refresh_tokens").await, 1);
}

async fn the_code_of_dev_is_a_setting(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, strict()).await;
    let email = address();
    assert_eq!(
        code(stage.log_in(&email, DEV_CODE).await),
        Some(ErrorCode::Unauthorized)
    );
    let dev = stage.replica(config()).await;
    dev.log_in(&email, DEV_CODE).await.unwrap();
    assert_eq!(code(dev.log_in(&email, "000001").await), Some(ErrorCode::Unauthorized));
}

async fn a_closed_server_answers_unknown_addresses_alike(database: TestDatabase, wiring: Wiring) {
    let open = Stage::with(database, wiring, config()).await;
    let known = open.person().await;
    let closed = open.replica(auth(|auth| auth.open_registration = false)).await;
    let unknown = address();
    send(&closed, &unknown).await.unwrap();
    assert_eq!(codes::of(&unknown), Vec::<String>::new());
    assert_eq!(
        code(closed.log_in(&unknown, "123456").await),
        Some(ErrorCode::Unauthorized)
    );
    let right = sent(&closed, &known.email).await;
    closed.log_in(&known.email, &right).await.unwrap();
    // Whoever has a good code all the same gets no account, and that is on record.
    let mut closed_dev = auth(|auth| auth.open_registration = false);
    closed_dev.accept_dev_code = true;
    let closed_dev = open.replica(closed_dev).await;
    assert_eq!(
        code(closed_dev.log_in(&unknown, DEV_CODE).await),
        Some(ErrorCode::Forbidden)
    );
    assert_eq!(
        open.log().await.last().unwrap(),
        &("login".to_owned(), "forbidden".to_owned())
    );
    assert_eq!(open.count("select count(*) from users").await, 1);
}

async fn what_is_no_address_is_refused(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, strict()).await;
    for email in [
        "",
        "a",
        "a@",
        "@b",
        "a b@c.de",
        "a\0@b.de",
        "x<victim@example.com>",
        "a,b@example.com",
    ] {
        assert_eq!(
            code(send(&stage, email).await),
            Some(ErrorCode::ValidationError),
            "{email:?}"
        );
        assert_eq!(
            code(stage.log_in(email, "123456").await),
            Some(ErrorCode::ValidationError),
            "{email:?}"
        );
    }
    assert_eq!(stage.count("select count(*) from login_codes").await, 0);
}

async fn without_mail_and_log_nobody_waits_for_a_code(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, auth(|auth| auth.log_codes = false)).await;
    let error = send(&stage, &address()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.detail().contains("smtp.url"), "{error}");
    assert_eq!(stage.count("select count(*) from login_codes").await, 0);
}
