//! Access tokens: which ones are good, and rotation of the keys that sign them.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use copass_concierge::Config;
use copass_errors::ErrorCode;
use copass_runtime::clock;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::{Stage, code, config};

on_every_setup! {
    a_token_of_an_older_key_is_good_until_the_key_is_retired
    forged_and_damaged_tokens_are_refused
    an_expired_token_is_refused
    logins_at_the_same_time_make_one_key
}

fn rotating(rotation: Duration) -> Config {
    let mut config = config();
    config.auth.signing_key_rotation = rotation;
    config
}

async fn a_token_of_an_older_key_is_good_until_the_key_is_retired(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::with(database, wiring, rotating(Duration::ZERO)).await;
    let (first, second) = (stage.person().await, stage.person().await);
    assert_eq!(stage.count("select count(*) from signing_keys").await, 2);
    let other = stage.replica(config()).await;
    for token in [&first.access_token, &second.access_token] {
        stage.authenticate(token, None).await.unwrap();
        other.authenticate(token, None).await.unwrap();
    }
    // The key of the first token ended long ago; clean-up retires it, and the process that knew it forgets it.
    let kid = jsonwebtoken::decode_header(&first.access_token).unwrap().kid.unwrap();
    let long_ago = clock::now() - chrono::Duration::days(365);
    stage
        .sql(
            "update signing_keys set created_at = $2 where id = $1",
            &kid,
            Some(long_ago),
        )
        .await;
    stage.concierge.start();
    copass_test_support::eventually(crate::support::LIMIT, || async {
        stage.authenticate(&first.access_token, None).await.is_err()
    })
    .await;
    assert_eq!(
        code(stage.authenticate(&first.access_token, None).await),
        Some(ErrorCode::Unauthorized)
    );
    stage.authenticate(&second.access_token, None).await.unwrap();
    let fresh = stage.replica(config()).await;
    assert_eq!(
        code(fresh.authenticate(&first.access_token, None).await),
        Some(ErrorCode::Unauthorized)
    );
    fresh.authenticate(&second.access_token, None).await.unwrap();
    assert!(stage.tasks.shut_down(crate::support::LIMIT).await);
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

async fn forged_and_damaged_tokens_are_refused(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (mine, other) = (stage.person().await, stage.person().await);
    let good = &mine.access_token;
    let parts: Vec<&str> = good.split('.').collect();
    let kid = jsonwebtoken::decode_header(good).unwrap().kid.unwrap();
    let mut claims = claims_of(good);
    claims["sub"] = json!(other.user_id);

    let none = part(&json!({ "alg": "none", "typ": "JWT", "kid": kid }));
    let mut conn = stage.database.read().await.unwrap();
    let (public_key,) =
        copass_store::fetch_one!(conn, (String,), "select public_key from signing_keys limit 1").unwrap();
    drop(conn);
    let header = |algorithm, kid: &str| Header {
        kid: Some(kid.to_owned()),
        ..Header::new(algorithm)
    };
    // The public key taken for a shared secret, as text and as bytes.
    let public_bytes = BASE64_URL_SAFE_NO_PAD.decode(&public_key).unwrap();
    let hs256 = |secret: &[u8]| {
        jsonwebtoken::encode(
            &header(Algorithm::HS256, &kid),
            &claims,
            &EncodingKey::from_secret(secret),
        )
        .unwrap()
    };
    let pkcs8: Vec<u8> = [&hex::decode("302e020100300506032b657004220420").unwrap()[..], &[7; 32]].concat();
    let stranger = |kid: &str| {
        jsonwebtoken::encode(
            &header(Algorithm::EdDSA, kid),
            &claims,
            &EncodingKey::from_ed_der(&pkcs8),
        )
        .unwrap()
    };
    let forged = [
        format!("{none}.{}.", part(&claims)),
        format!("{none}.{}.{}", part(&claims), parts[2]),
        format!("{}.{}.{}", parts[0], part(&claims), parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!(
            "{}.{}.{}",
            parts[0],
            parts[1],
            other.access_token.split('.').nth(2).unwrap()
        ),
        hs256(public_key.as_bytes()),
        hs256(&public_bytes),
        stranger(&kid),
        stranger("sk_unknown"),
        stranger("'; drop table users; --"),
        String::new(),
        "olk_".to_owned(),
        "nonsense".to_owned(),
        "a.b.c".to_owned(),
        "\0".to_owned(),
        "x".repeat(100_000),
    ];
    for token in forged {
        let shown: String = token.chars().take(200).collect();
        assert_eq!(
            code(stage.authenticate(&token, None).await),
            Some(ErrorCode::Unauthorized),
            "{shown}"
        );
    }
    stage.authenticate(good, None).await.unwrap();
}

async fn an_expired_token_is_refused(database: TestDatabase, wiring: Wiring) {
    let mut config = config();
    config.auth.access_token_ttl = Duration::ZERO;
    let stage = Stage::with(database, wiring, config).await;
    let person = stage.person().await;
    let error = stage.authenticate(&person.access_token, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unauthorized);
    assert!(error.detail().contains("expired"), "{error}");
}

async fn logins_at_the_same_time_make_one_key(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    futures::future::join_all((0..10).map(|_| stage.person())).await;
    assert_eq!(stage.count("select count(*) from signing_keys").await, 1);
}
