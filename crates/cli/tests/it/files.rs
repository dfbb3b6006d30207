//! Which file, which server, which sandbox: the order of `cli.md` 1 and 3.

use insta::assert_snapshot;
use serde_json::json;

use crate::support::{Place, SANDBOX, sandbox, write};

async fn with_agents() -> Place {
    let place = Place::bare().await;
    place
        .in_sandbox("GET", "/agents", 200, &json!({"agents": [], "count": 0}))
        .await;
    place
}

fn used_key(requests: &[wiremock::Request]) -> &str {
    requests.last().unwrap().headers["authorization"].to_str().unwrap()
}

#[tokio::test]
async fn refs_are_found_upwards() {
    let place = with_agents().await.env("COPASS_API_KEY", "olk_env");
    write(&place.refs(), &json!({"sandbox_id": SANDBOX}));
    let below = place.work().join("src/deep");
    std::fs::create_dir_all(&below).unwrap();
    let shown = place.run_in(&below, &["agent", "list"], "").await;
    assert!(shown.starts_with("exit 0"), "{shown}");
    // The nearest file wins, and the environment wins over both.
    write(&below.join(".olane/refs.json"), &json!({"sandbox_id": "sb_nearer"}));
    let shown = place.run_in(&below, &["agent", "list"], "").await;
    assert!(shown.starts_with("exit 5"), "{shown}");
    let place = place.env("COPASS_SANDBOX_ID", SANDBOX);
    let shown = place.run_in(&below, &["agent", "list"], "").await;
    assert!(shown.starts_with("exit 0"), "{shown}");
}

#[tokio::test]
async fn the_environments_key_wins_over_the_session_and_that_over_the_stored_key() {
    let place = with_agents()
        .await
        .env("COPASS_SANDBOX_ID", SANDBOX)
        .env("COPASS_API_KEY", "olk_env");
    write(
        &place.config(),
        &json!({"access_token": "jwt", "api_key": "olk_stored"}),
    );
    place.run(&["agent", "list"]).await;
    assert_eq!(
        used_key(&place.server.received_requests().await.unwrap()),
        "Bearer olk_env"
    );
    let place = place.env("COPASS_API_KEY", "");
    place.run(&["agent", "list"]).await;
    assert_eq!(used_key(&place.server.received_requests().await.unwrap()), "Bearer jwt");
    write(&place.config(), &json!({"api_key": "olk_stored"}));
    place.run(&["agent", "list"]).await;
    assert_eq!(
        used_key(&place.server.received_requests().await.unwrap()),
        "Bearer olk_stored"
    );
}

#[tokio::test]
async fn the_server_is_chosen_in_order() {
    let place = with_agents()
        .await
        .env("COPASS_SANDBOX_ID", SANDBOX)
        .env("COPASS_API_KEY", "olk_env");
    let server = place.server.uri();
    let nowhere = "http://127.0.0.1:1";
    // Flag, environment, the project's file, the user's file.
    let place = place.env("COPASS_API_URL", nowhere);
    assert!(place.run(&["agent", "list"]).await.starts_with("exit 1"));
    assert!(
        place
            .run(&["agent", "list", "--api-url", &server])
            .await
            .starts_with("exit 0")
    );
    let place = place.env("COPASS_API_URL", "");
    write(&place.config(), &json!({"api_url": server}));
    assert!(place.run(&["agent", "list"]).await.starts_with("exit 0"));
    let project = place.work().join(".olane/config.json");
    // The project's file comes before the global one, and gets no key that was not meant for its server.
    write(&project, &json!({"defaults": {"api_url": nowhere}}));
    let refused = place.run(&["agent", "list"]).await;
    assert!(
        refused.starts_with("exit 2") && refused.contains(&format!("names the server {nowhere}")),
        "{refused}"
    );
    write(&project, &json!({"defaults": {"api_url": server}}));
    assert!(place.run(&["agent", "list"]).await.starts_with("exit 0"));
    write(&place.config(), &json!({"api_url": nowhere}));
    assert!(place.run(&["agent", "list"]).await.starts_with("exit 2"));
}

#[tokio::test]
async fn a_project_cannot_collect_stored_credentials() {
    let place = with_agents()
        .await
        .env("COPASS_SANDBOX_ID", SANDBOX)
        .env("COPASS_API_URL", "");
    write(
        &place.work().join(".olane/config.json"),
        &json!({"defaults": {"api_url": place.server.uri()}}),
    );
    write(
        &place.config(),
        &json!({"api_key": "olk_stored", "api_url": "http://home.example"}),
    );
    assert_snapshot!(place.run(&["agent", "list"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: this project names the server [server], but the stored credentials belong to http://home.example

        hint: if you trust the project, run `copass login` here; else set COPASS_API_URL to your server
        "#);
    assert_eq!(place.calls().await, 0);
    write(
        &place.config(),
        &json!({"api_key": "olk_stored", "api_url": format!("{}/", place.server.uri())}),
    );
    assert!(place.run(&["agent", "list"]).await.starts_with("exit 0"));
}

#[tokio::test]
async fn damaged_files_are_named_and_never_quoted() {
    let place = Place::bare().await;
    std::fs::create_dir_all(place.home().join(".olane")).unwrap();
    std::fs::write(place.config(), "{\"api_key\": olk_secret").unwrap();
    let shown = place.run(&["sandbox", "list"]).await;
    assert!(!shown.contains("olk_secret"));
    assert_snapshot!(shown, @r#"
        exit 1
        --- stdout
        --- stderr
        error: [home]/.olane/config.json is not understood: no valid JSON at line 1, column 13

        hint: mend the file, or remove it and run the command again
        "#);
    let place = place.env("COPASS_API_KEY", "olk_env");
    std::fs::create_dir_all(place.work().join(".olane")).unwrap();
    std::fs::write(place.refs(), "[]").unwrap();
    assert_snapshot!(place.run(&["agent", "list"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: [work]/.olane/refs.json is not understood: it is not a JSON object

        hint: mend the file, or remove it and run the command again
        "#);
    // A command that names its sandbox does not need the file.
    place.in_sandbox("GET", "", 200, &sandbox("main")).await;
    assert!(place.run(&["sandbox", "show", SANDBOX]).await.starts_with("exit 0"));
}

#[tokio::test]
async fn no_home_is_fine_with_a_key() {
    let place = with_agents()
        .await
        .env("COPASS_SANDBOX_ID", SANDBOX)
        .env("COPASS_API_KEY", "olk_env");
    let output = place
        .command(&place.work(), &["agent", "list"])
        .env_remove("HOME")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}
