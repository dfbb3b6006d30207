//! API keys: shown once, kept as a hash, revoked at once.

use copass_errors::{Error, ErrorCode};
use copass_proto::{
    convert,
    identity::{ApiKey, CreateApiKeyRequest, CreatedApiKey, ListApiKeysRequest, RevokeApiKeyRequest},
};
use copass_runtime::clock;
use copass_store::Db;
use copass_test_support::{TestDatabase, Wiring, on_every_setup};
use copass_types::ApiKeyId;

use crate::support::{LIMIT, Person, Stage, ask, code};

on_every_setup! {
    a_key_is_shown_once_and_works
    what_a_key_may_be_called_and_how_long_it_lives
    lists_are_by_kind_and_without_the_revoked
    a_revoked_key_ends_at_once_and_revoking_is_idempotent
    an_expired_key_is_refused
    uses_are_counted
    a_repeat_under_one_key_shows_the_first_secret_again
    no_secret_lies_in_the_database
}

async fn create(stage: &Stage, person: &Person, name: &str, days: Option<u32>) -> Result<CreatedApiKey, Error> {
    let request = CreateApiKeyRequest {
        name: name.to_owned(),
        expires_in_days: days,
        idempotency_key: None,
    };
    ask(stage.identity().create_api_key(stage.me(person).await.request(request))).await
}

async fn list(stage: &Stage, person: &Person, kinds: &[&str], revoked: bool) -> Result<Vec<ApiKey>, Error> {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let request = ListApiKeysRequest {
        kinds,
        include_revoked: revoked,
    };
    ask(stage.identity().list_api_keys(stage.me(person).await.request(request)))
        .await
        .map(|list| list.keys)
}

async fn revoke(stage: &Stage, person: &Person, id: &str) -> Result<String, Error> {
    let request = RevokeApiKeyRequest { id: id.to_owned() };
    ask(stage.identity().revoke_api_key(stage.me(person).await.request(request)))
        .await
        .map(|answer| answer.name)
}

/// A client that lost the answer repeats the call; it must not be left with a key whose secret nobody knows.
async fn a_repeat_under_one_key_shows_the_first_secret_again(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let before = list(&stage, &person, &[], false).await.unwrap().len();
    let keyed = |name: &str| CreateApiKeyRequest {
        name: name.to_owned(),
        expires_in_days: None,
        idempotency_key: Some("lost-answer".to_owned()),
    };
    let context = stage.me(&person).await;
    let first = ask(stage.identity().create_api_key(context.request(keyed("laptop"))))
        .await
        .unwrap();
    let again = ask(stage.identity().create_api_key(context.request(keyed("laptop"))))
        .await
        .unwrap();
    assert_eq!(first, again);
    let other = ask(stage.identity().create_api_key(context.request(keyed("desktop")))).await;
    assert_eq!(code(other), Some(ErrorCode::IdempotencyConflict));
    assert_eq!(list(&stage, &person, &[], false).await.unwrap().len(), before + 1);
}

async fn a_key_is_shown_once_and_works(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let created = create(&stage, &person, "laptop", Some(7)).await.unwrap();
    let key = created.key.unwrap();
    assert!(
        created.plaintext.starts_with("olk_") && created.plaintext.len() == 47,
        "{}",
        created.plaintext
    );
    assert!(created.plaintext.starts_with(&key.key_prefix) && key.key_prefix.len() == 12);
    assert!(key.id.parse::<ApiKeyId>().is_ok());
    assert_eq!(
        (key.name.as_str(), key.kind.as_str(), key.is_expired),
        ("laptop", "general", false)
    );
    let lives =
        convert::instant(&key.expires_at.unwrap()).unwrap() - convert::instant(&key.created_at.unwrap()).unwrap();
    assert_eq!(lives.num_days(), 7);
    let answer = stage.authenticate(&created.plaintext, None).await.unwrap();
    assert_eq!((answer.kind.as_str(), &answer.user_id), ("api_key", &person.user_id));
    assert_eq!(
        (answer.api_key_id, answer.expires_at),
        (Some(key.id.clone()), key.expires_at)
    );
    let listed = list(&stage, &person, &[], false).await.unwrap();
    assert_eq!(listed, [key]);
    // The same name again is another key.
    assert_ne!(
        create(&stage, &person, "laptop", None).await.unwrap().plaintext,
        created.plaintext
    );
    for wrong in [
        "olk_",
        "olk_x",
        &created.plaintext[..46],
        &created.plaintext.to_lowercase(),
    ] {
        assert_eq!(
            code(stage.authenticate(wrong, None).await),
            Some(ErrorCode::Unauthorized),
            "{wrong}"
        );
    }
}

async fn what_a_key_may_be_called_and_how_long_it_lives(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let long = "x".repeat(128);
    for (name, days) in [("x", Some(1)), (long.as_str(), Some(3650)), ("ä", None)] {
        create(&stage, &person, name, days).await.unwrap();
    }
    let too_long = "x".repeat(129);
    for (name, days) in [
        ("", None),
        (" ", None),
        (too_long.as_str(), None),
        ("a\0b", None),
        ("x", Some(0)),
        ("x", Some(3651)),
        ("x", Some(u32::MAX)),
    ] {
        assert_eq!(
            code(create(&stage, &person, name, days).await),
            Some(ErrorCode::ValidationError),
            "{name} {days:?}"
        );
    }
    let error = create(&stage, &person, "", Some(0)).await.unwrap_err();
    assert_eq!(error.problems().len(), 2);
    assert_eq!(list(&stage, &person, &[], false).await.unwrap().len(), 3);
}

async fn lists_are_by_kind_and_without_the_revoked(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, other) = (stage.person().await, stage.person().await);
    let first = create(&stage, &person, "first", None).await.unwrap().key.unwrap();
    let second = create(&stage, &person, "second", None).await.unwrap().key.unwrap();
    let third = create(&stage, &person, "third", None).await.unwrap().key.unwrap();
    create(&stage, &other, "foreign", None).await.unwrap();
    stage
        .sql(
            "update api_keys set kind = 'agent_invoke' where id = $1 and $2 is null",
            &second.id,
            None,
        )
        .await;
    revoke(&stage, &person, &third.id).await.unwrap();
    let names = async |kinds: &[&str], revoked| -> Vec<String> {
        list(&stage, &person, kinds, revoked)
            .await
            .unwrap()
            .into_iter()
            .map(|key| key.name)
            .collect()
    };
    assert_eq!(names(&[], false).await, ["second", "first"]);
    assert_eq!(names(&[], true).await, ["third", "second", "first"]);
    assert_eq!(names(&["general"], false).await, ["first"]);
    assert_eq!(names(&["agent_invoke", "agent_delegate"], false).await, ["second"]);
    assert_eq!(names(&["agent_delegate"], true).await, Vec::<String>::new());
    for kinds in [["connection"], ["nonsense"]] {
        assert_eq!(
            code(list(&stage, &person, &kinds, false).await),
            Some(ErrorCode::ValidationError)
        );
    }
    // A key of a grant is nobody's to list, not even the grantee's.
    let sandbox = stage.sandbox(&other, "shared").await;
    let connection = stage.grant(&other, &sandbox, &person, "viewer").await;
    stage.spawn_key(&other, &connection).await;
    assert_eq!(names(&[], true).await, ["third", "second", "first"]);
    assert_eq!(first.name, "first");
}

async fn a_revoked_key_ends_at_once_and_revoking_is_idempotent(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, other) = (stage.person().await, stage.person().await);
    let created = create(&stage, &person, "laptop", None).await.unwrap();
    let id = created.key.unwrap().id;
    for foreign in [id.as_str(), "ak_01JAAAAAAAAAAAAAAAAAAAAAAA", "nonsense", "\0"] {
        assert_eq!(
            code(revoke(&stage, &other, foreign).await),
            Some(ErrorCode::NotFound),
            "{foreign}"
        );
    }
    stage.authenticate(&created.plaintext, None).await.unwrap();
    for _ in 0..3 {
        assert_eq!(revoke(&stage, &person, &id).await.unwrap(), "laptop");
        assert_eq!(
            code(stage.authenticate(&created.plaintext, None).await),
            Some(ErrorCode::Unauthorized)
        );
    }
    let revocations: Vec<_> = stage
        .log()
        .await
        .into_iter()
        .filter(|(action, _)| action == "api_key.revoke")
        .collect();
    let results: Vec<&str> = revocations.iter().map(|(_, result)| result.as_str()).collect();
    assert_eq!(results, ["not_found", "not_found", "not_found", "not_found", "ok"]);
    let told: Vec<_> = stage
        .outbox()
        .await
        .into_iter()
        .map(|(_, body)| body["user_id"].clone())
        .collect();
    assert_eq!(told, [serde_json::Value::from(person.user_id)]);
}

async fn an_expired_key_is_refused(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let created = create(&stage, &person, "laptop", Some(1)).await.unwrap();
    let id = created.key.unwrap().id;
    stage
        .sql(
            "update api_keys set expires_at = $2 where id = $1",
            &id,
            Some(clock::now()),
        )
        .await;
    let error = stage.authenticate(&created.plaintext, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unauthorized);
    assert!(error.detail().contains("expired"), "{error}");
    let listed = list(&stage, &person, &[], false).await.unwrap();
    assert!(listed[0].is_expired);
}

async fn uses_are_counted(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let person = stage.person().await;
    let created = create(&stage, &person, "laptop", None).await.unwrap();
    stage.concierge.start();
    for _ in 0..25 {
        stage.authenticate(&created.plaintext, None).await.unwrap();
    }
    // What was counted is written at the latest when the service ends.
    assert!(stage.tasks.shut_down(LIMIT).await);
    let listed = list(&stage, &person, &[], false).await.unwrap();
    assert_eq!(listed[0].use_count, 25);
    assert!(listed[0].last_used_at.unwrap().seconds >= listed[0].created_at.unwrap().seconds);
}

/// Everything the database holds, as text.
pub(crate) async fn everything(database: &TestDatabase) -> String {
    match database.db() {
        Db::Postgres { pool, .. } => {
            let tables: Vec<String> = sqlx::query_scalar("select tablename from pg_tables where schemaname = 'public'")
                .fetch_all(&pool)
                .await
                .unwrap();
            assert!(tables.len() > 10, "{tables:?}");
            let mut text = String::new();
            for table in tables {
                let sql = format!("select coalesce(string_agg(to_json(t)::text, ' '), '') from {table} t");
                let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                    .fetch_one(&pool)
                    .await
                    .unwrap();
                text.push_str(&rows);
            }
            text
        }
        Db::Sqlite { .. } => {
            let path = database.url().strip_prefix("sqlite:").unwrap().to_owned();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.extend(std::fs::read(format!("{path}-wal")).unwrap_or_default());
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }
}

async fn no_secret_lies_in_the_database(database: TestDatabase, wiring: Wiring) {
    let stage = Stage::new(database, wiring).await;
    let (person, other) = (stage.person().await, stage.person().await);
    let created = create(&stage, &person, "a name to be found", None).await.unwrap();
    let sandbox = stage.sandbox(&person, "shared").await;
    let connection = stage.grant(&person, &sandbox, &other, "editor").await;
    let spawned = stage.spawn_key(&person, &connection).await;
    let text = everything(&stage.database).await;
    for found in [
        "a name to be found",
        &created.key.unwrap().key_prefix,
        &spawned.key_prefix,
        &person.email,
    ] {
        assert!(text.contains(found), "the scan does not see {found}");
    }
    for secret in [
        &created.plaintext,
        &spawned.plaintext,
        &person.refresh_token,
        &person.access_token,
    ] {
        assert!(!text.contains(secret.as_str()), "{secret}");
        assert!(!text.contains(&secret[12..]), "{secret}");
    }
}
