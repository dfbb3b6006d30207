//! Login by one-time code, refresh tokens, and the limits on both (`rest.md` 1, issue 2 "Identity").

use std::time::Duration;

use copass_test_support::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Cluster, Settings, Shape, new_email, on_both_shapes};

on_both_shapes! {
    a_login_lasts_until_its_refresh_token_is_used_twice
    codes_are_good_once_and_attempts_are_few
    calls_are_limited
}

async fn refresh(cluster: &Cluster, token: &str) -> Answer {
    cluster
        .api()
        .post(
            "/auth/v1/token?grant_type=refresh_token",
            json!({"refresh_token": token}),
        )
        .await
}

fn session_of(answer: Answer) -> Value {
    let session = answer.expect(200);
    assert!(
        session["expires_in"].as_i64().unwrap() > 0 && session["expires_at"].is_i64(),
        "{session}"
    );
    assert_eq!(session["token_type"], "bearer");
    assert!(session["user"]["id"].is_string());
    session
}

fn text(value: &Value, field: &str) -> String {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field}: {value}"))
        .to_owned()
}

async fn a_login_lasts_until_its_refresh_token_is_used_twice(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::default()).await else {
        return;
    };
    let email = new_email("login");
    let code = cluster.login_code(&email).await;
    let first = session_of(cluster.verify(&email.to_uppercase(), &code).await);
    let api = cluster.api();
    let by = |session: &Value| api.with(&text(session, "access_token"));
    by(&first).get("/users/me/profile").await.expect_error(404);
    by(&first)
        .post("/users/me/profile", json!({"display_name": "L"}))
        .await
        .expect(201);

    let second = session_of(refresh(&cluster, &text(&first, "refresh_token")).await);
    assert_ne!(text(&second, "refresh_token"), text(&first, "refresh_token"));
    assert_eq!(second["user"], first["user"]);
    by(&second).get("/users/me/profile").await.expect(200);
    // Another login of the same person is another family.
    let code = cluster.login_code(&email).await;
    let other = session_of(cluster.verify(&email, &code).await);

    // The old token again: somebody has a copy, so the whole login ends, at once.
    assert_eq!(
        refresh(&cluster, &text(&first, "refresh_token"))
            .await
            .expect_error(401),
        "unauthorized"
    );
    refresh(&cluster, &text(&second, "refresh_token"))
        .await
        .expect_error(401);
    for session in [&first, &second] {
        eventually(Duration::from_secs(1), || async {
            by(session).get("/users/me/profile").await.status == 401
        })
        .await;
    }
    by(&other).get("/users/me/profile").await.expect(200);
    session_of(refresh(&cluster, &text(&other, "refresh_token")).await);
    for (path, body) in [
        (
            "/auth/v1/token?grant_type=refresh_token",
            json!({"refresh_token": "nonsense"}),
        ),
        (
            "/auth/v1/token?grant_type=refresh_token",
            json!({"refresh_token": text(&first, "access_token")}),
        ),
    ] {
        cluster.api().post(path, body).await.expect_error(401);
    }
    cluster
        .api()
        .post("/auth/v1/token?grant_type=password", json!({"refresh_token": "a"}))
        .await
        .expect_error(422);
}

async fn codes_are_good_once_and_attempts_are_few(shape: Shape) {
    let Some(mut cluster) = Cluster::start(shape, Settings::default()).await else {
        return;
    };
    let email = new_email("codes");
    let code = cluster.login_code(&email).await;
    let stranger = new_email("stranger");
    cluster.verify(&stranger, &code).await.expect_error(401);
    cluster.verify(&email, &code).await.expect(200);
    cluster.verify(&email, &code).await.expect_error(401);

    // The code that `dev` accepts on loopback is no code anywhere else.
    let dev_code = cluster.verify(&new_email("dev"), "000000").await;
    assert_eq!(
        dev_code.status,
        if shape == Shape::Dev { 200 } else { 401 },
        "{}",
        dev_code.text
    );

    // Five wrong ones use the code up.
    let email = new_email("guessed");
    let code = cluster.login_code(&email).await;
    let wrong = if code == "123456" { "654321" } else { "123456" };
    for _ in 0..5 {
        cluster.verify(&email, wrong).await.expect_error(401);
    }
    cluster.verify(&email, &code).await.expect_error(401);
    // A new one works; the one before it does not any more.
    let old = cluster.login_code(&email).await;
    let mut new = cluster.login_code(&email).await;
    while new == old {
        new = cluster.login_code(&email).await;
    }
    cluster.verify(&email, &old).await.expect_error(401);
    cluster.verify(&email, &new).await.expect(200);
}

/// 429, with the sentence and the header that say how long to wait.
#[track_caller]
fn expect_limited(answer: &Answer) {
    assert_eq!(answer.expect_error(429), "rate_limited");
    let wait = answer
        .headers
        .get("retry-after")
        .expect("Retry-After")
        .to_str()
        .unwrap();
    assert!((1..=600).contains(&wait.parse::<u64>().unwrap()), "{wait}");
}

async fn calls_are_limited(shape: Shape) {
    let settings = Settings::default()
        .set("GATEWAY__LOGINS_PER_MINUTE", 30)
        .set("GATEWAY__REQUESTS_PER_MINUTE", 60);
    let Some(mut cluster) = Cluster::start(shape, settings).await else {
        return;
    };
    let person = cluster.tenant("person").await;
    let neighbour = cluster.tenant("neighbour").await;

    // Codes of one address; another address is served.
    let email = new_email("impatient");
    let otp = |email: String| {
        cluster
            .api()
            .request(Method::POST, "/auth/v1/otp")
            .body(json!({"email": email}).to_string())
    };
    for _ in 0..5 {
        Answer::read("otp".to_owned(), otp(email.clone()))
            .await
            .unwrap()
            .expect(200);
    }
    expect_limited(&Answer::read("otp".to_owned(), otp(email.to_uppercase())).await.unwrap());
    Answer::read("otp".to_owned(), otp(new_email("patient")))
        .await
        .unwrap()
        .expect(200);

    // Login calls from one network address, whatever they ask for.
    let mut last = None;
    for _ in 0..30 {
        let answer = refresh(&cluster, "nonsense").await;
        if answer.status == 429 {
            last = Some(answer);
            break;
        }
        answer.expect_error(401);
    }
    expect_limited(&last.expect("a limit on login calls"));

    // Requests of one credential; the neighbour does not notice.
    let mut last = None;
    for _ in 0..90 {
        let answer = person.api.get("/users/me/profile").await;
        if answer.status == 429 {
            last = Some(answer);
            break;
        }
        answer.expect(200);
    }
    expect_limited(&last.expect("a limit on requests"));
    neighbour.api.get("/users/me/profile").await.expect(200);
}
