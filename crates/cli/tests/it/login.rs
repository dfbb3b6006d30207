//! Login, the session's life, and logout.

use std::time::{SystemTime, UNIX_EPOCH};

use insta::assert_snapshot;
use serde_json::{Value, json};
use wiremock::{
    Mock, ResponseTemplate,
    matchers::{body_json, method, path},
};

use crate::support::{KEY, Place, SANDBOX, problem, profile, read, write};

const USER: &str = "0b8f3c52-7a1e-4c0e-9a55-0123456789ab";

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn session(access: &str, refresh: &str) -> Value {
    json!({
        "access_token": access, "token_type": "bearer", "refresh_token": refresh, "expires_in": 3600,
        "expires_at": 4_000_000_000i64, "user": {"id": USER, "email": "ada@example.com", "phone": null},
    })
}

async fn login_server(place: &Place) {
    place.on("POST", "/auth/v1/otp", 200, &json!({})).await;
    place
        .on("POST", "/auth/v1/verify", 200, &session("access-1", "refresh-1"))
        .await;
}

#[tokio::test]
async fn login_with_a_code_at_hand_sends_no_new_one() {
    let place = Place::bare().await;
    login_server(&place).await;
    place
        .on(
            "GET",
            "/api/v1/users/me/profile",
            404,
            &problem("not_found", "no profile"),
        )
        .await;
    assert_snapshot!(place.run(&["login", "--email", "ada@example.com", "--code", "123456"]).await, @r#"
        exit 0
        --- stdout
        Logged in as ada@example.com.
        --- stderr
        Next: `copass setup` creates your profile and a sandbox.
        "#);
    assert!(place.sent("POST", "/otp").await.is_empty());
    assert_eq!(
        place.sent("POST", "/verify").await,
        [json!({"email": "ada@example.com", "token": "123456", "type": "email"})]
    );
    assert_eq!(
        read(&place.config()),
        json!({
            "access_token": "access-1", "refresh_token": "refresh-1", "expires_at": 4_000_000_000i64,
            "user_id": USER, "email": "ada@example.com", "api_url": place.server.uri(),
        })
    );
}

#[cfg(unix)]
#[tokio::test]
async fn credentials_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::bare().await;
    login_server(&place).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // A file that stood open before is closed by the next write.
    write(&place.config(), &json!({"theirs": [1]}));
    std::fs::set_permissions(place.config(), std::fs::Permissions::from_mode(0o644)).unwrap();
    place.run(&["login", "--email", "ada@example.com", "--code", "1"]).await;
    assert_eq!(mode(&place.config()), 0o600);
    assert_eq!(read(&place.config())["theirs"], json!([1]), "unknown keys are kept");
    std::fs::remove_dir_all(place.home().join(".olane")).unwrap();
    place.run(&["login", "--email", "ada@example.com", "--code", "1"]).await;
    assert_eq!(
        (mode(&place.config()), mode(&place.home().join(".olane"))),
        (0o600, 0o700)
    );
    let names: Vec<_> = std::fs::read_dir(place.home().join(".olane"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["config.json"], "no temporary file stays");
}

#[tokio::test]
async fn login_takes_the_code_from_stdin() {
    let place = Place::bare().await.env("COPASS_SANDBOX_ID", SANDBOX);
    login_server(&place).await;
    assert_snapshot!(place.run_with(&["login", "--email", "ada@example.com"], "654321\n").await, @r#"
        exit 0
        --- stdout
        Logged in as ada@example.com.
        --- stderr
        A code is on its way to ada@example.com; a server without a mail server writes it to its log.
        "#);
    assert_eq!(place.sent("POST", "/otp").await, [json!({"email": "ada@example.com"})]);
    assert_eq!(place.sent("POST", "/verify").await[0]["token"], "654321");
    let json = place
        .run_with(&["login", "--email", "ada@example.com", "--json"], "654321\n")
        .await;
    assert!(
        json.contains("\"user_id\"") && !json.contains("access-1") && !json.contains("refresh-1"),
        "{json}"
    );
}

#[tokio::test]
async fn login_cannot_ask_without_a_terminal() {
    let place = Place::bare().await;
    login_server(&place).await;
    assert_snapshot!(place.run(&["login"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: there is no terminal to ask for the e-mail address

        hint: pass --email, and --code or the code on stdin
        "#);
    assert_snapshot!(place.run(&["login", "--email", "nobody"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: 'nobody' must be an e-mail address such as name@example.com
        "#);
    assert_snapshot!(place.run(&["login", "--code", "123456"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          --email <EMAIL>

        Usage: copass login --email <EMAIL> --code <CODE>

        For more information, try '--help'.
        "#);
    assert_eq!(place.calls().await, 0);
    assert_snapshot!(place.run(&["login", "--email", "ada@example.com"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        A code is on its way to ada@example.com; a server without a mail server writes it to its log.
        error: no code was given

        hint: run `copass login --email ada@example.com --code <code>` when you have it
        "#);
    assert!(!place.config().exists());
}

#[tokio::test]
async fn a_wrong_code() {
    let place = Place::bare().await;
    place
        .on(
            "POST",
            "/auth/v1/verify",
            401,
            &problem("unauthorized", "the code is wrong or has ended"),
        )
        .await;
    assert_snapshot!(place.run(&["login", "--email", "ada@example.com", "--code", "000001"]).await, @r#"
        exit 3
        --- stdout
        --- stderr
        error: the code is wrong or has ended

        hint: check the code, or run `copass login` again for a new one
        "#);
    assert!(!place.config().exists());
}

#[tokio::test]
async fn another_person_does_not_inherit_the_key() {
    let place = Place::bare().await.env("COPASS_SANDBOX_ID", SANDBOX);
    login_server(&place).await;
    write(
        &place.config(),
        &json!({"user_id": "somebody else", "api_key": "olk_old", "api_url": place.server.uri()}),
    );
    assert_snapshot!(place.run(&["login", "--email", "ada@example.com", "--code", "1"]).await, @r#"
        exit 0
        --- stdout
        Logged in as ada@example.com.
        --- stderr
        The API key stored before belongs to another account or server and was removed.
        "#);
    assert_eq!(read(&place.config()).get("api_key"), None);
    write(&place.config(), &json!({"user_id": USER, "api_key": "olk_mine"}));
    place.run(&["login", "--email", "ada@example.com", "--code", "1"]).await;
    assert_eq!(read(&place.config())["api_key"], "olk_mine");
}

#[tokio::test]
async fn an_ended_token_is_refreshed_once_and_the_new_one_stored() {
    let place = Place::bare().await;
    write(
        &place.config(),
        &json!({"access_token": "old", "refresh_token": "refresh-0", "expires_at": now_s() + 30, "theirs": 1}),
    );
    Mock::given(method("POST"))
        .and(path("/auth/v1/token"))
        .and(body_json(json!({"refresh_token": "refresh-0"})))
        .respond_with(ResponseTemplate::new(200).set_body_json(session("access-1", "refresh-1")))
        .expect(1)
        .mount(&place.server)
        .await;
    place.on("GET", "/api/v1/users/me/profile", 200, &profile()).await;
    // Two at once: the second one waits for the first and uses what it got.
    let (one, two) = tokio::join!(place.run(&["whoami"]), place.run(&["whoami"]));
    assert_eq!(one, two);
    assert_snapshot!(one, @r#"
        exit 0
        --- stdout
        name        Ada
        handle      @ada
        e-mail      ada@example.com
        user        0b8f3c52-7a1e-4c0e-9a55-0123456789ab
        sandbox     sb_01J9Z0000000000000000000AA
        project     pj_01J9Z0000000000000000000AA
        credential  login session
        server      [server]
        --- stderr
        "#);
    let config = read(&place.config());
    assert_eq!(
        (&config["refresh_token"], &config["theirs"]),
        (&json!("refresh-1"), &json!(1))
    );
    let requests = place.server.received_requests().await.unwrap();
    let query: Vec<_> = requests.iter().filter_map(|request| request.url.query()).collect();
    assert_eq!(query, ["grant_type=refresh_token"]);
    assert!(
        requests
            .iter()
            .filter(|request| request.url.path().ends_with("profile"))
            .all(|request| request.headers["authorization"] == "Bearer access-1")
    );
}

#[tokio::test]
async fn a_login_that_has_ended() {
    let place = Place::bare().await;
    place
        .on("POST", "/auth/v1/token", 401, &problem("unauthorized", "used up"))
        .await;
    place.on("GET", "/api/v1/users/me/profile", 200, &profile()).await;
    let ended = json!({"access_token": "old", "refresh_token": "r", "expires_at": 1});
    write(&place.config(), &ended);
    assert_snapshot!(place.run(&["whoami"]).await, @r#"
        exit 3
        --- stdout
        --- stderr
        error: your login has ended

        hint: run `copass login`, or set COPASS_API_KEY
        "#);
    // A machine with a key of its own goes on with it.
    let mut with_key = ended;
    with_key["api_key"] = json!("olk_stored");
    write(&place.config(), &with_key);
    let shown = place.run(&["whoami"]).await;
    assert!(shown.contains("stored API key"), "{shown}");
}

#[tokio::test]
async fn logout_leaves_nothing_behind() {
    let place = Place::bare().await;
    assert_snapshot!(place.run(&["logout"]).await, @r#"
        exit 0
        --- stdout
        You were not logged in.
        --- stderr
        "#);
    write(
        &place.config(),
        &json!({"access_token": "a", "refresh_token": "r", "expires_at": 1, "user_id": "u", "email": "e",
            "api_key": "k", "api_url": "http://x", "theirs": 1}),
    );
    let place = place.env("COPASS_API_KEY", KEY);
    assert_snapshot!(place.run(&["logout"]).await, @r#"
        exit 0
        --- stdout
        Logged out.
        --- stderr
        The stored API key was removed from this machine; it stays valid until `copass apikey revoke`.
        COPASS_API_KEY is still set and is used.
        "#);
    assert_eq!(read(&place.config()), json!({"api_url": "http://x", "theirs": 1}));
}
