//! Global behaviour: help, wrong usage, exit codes, errors, no server, a reader that leaves.

use std::process::Stdio;

use insta::assert_snapshot;
use serde_json::json;
use wiremock::{Mock, ResponseTemplate, matchers::any};

use crate::support::{KEY, Place, SANDBOX, problem, sandbox};

#[tokio::test]
async fn wrong_usage() {
    let place = Place::ready().await;
    assert_snapshot!(place.run(&["agent", "show"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          <SLUG>

        Usage: copass agent show <SLUG>

        For more information, try '--help'.
        "#);
    assert_snapshot!(place.run(&["frobnicate", "--json"]).await, @r#"
        exit 2
        --- stdout
        {"detail":"unrecognized subcommand 'frobnicate'","error":"usage","status":0}
        --- stderr
        "#);
    assert_snapshot!(place.run(&["agent", "create", "x", "--prompt", "a", "--prompt-file", "b"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the argument '--prompt <TEXT>' cannot be used with '--prompt-file <PATH>'

        Usage: copass agent create <--prompt <TEXT>|--prompt-file <PATH>> <SLUG>

        For more information, try '--help'.
        "#);
    assert_snapshot!(place.run(&["apikey", "create", "--expires-in-days", "0", "x"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: invalid value '0' for '--expires-in-days <DAYS>': 0 is not in 1..=3650

        For more information, try '--help'.
        "#);
    assert_eq!(place.calls().await, 0);
}

#[tokio::test]
async fn help_and_version_are_answers() {
    let place = Place::bare().await;
    assert_snapshot!(place.run(&["--help"]).await, @r#"
        exit 0
        --- stdout
        Agents that act on events, from one command line

        Usage: copass [OPTIONS] <COMMAND>

        Commands:
          login       Log in with a one-time code sent by e-mail
          logout      Forget the credentials stored on this machine
          setup       Create profile, sandbox and default source, and write .olane/refs.json here
          whoami      Show who you are
          status      Show login, server, sandbox and project
          apikey      API keys of your account
          handle      Your handle (Copass ID), under which others can share with you
          sandbox     Sandboxes
          connection  Share a sandbox with other people
          audit       The audit log of a sandbox
          source      Data sources
          agent       Agents, their runs, keys and triggers
          run         Run one turn without an agent, or look at a run, cancel it, repeat it
          usage       Tokens and cost, by agent, trigger, model or status
          billing     The balance of your account
          chat        Talk to the Concierge
          dev         Run the whole platform on this machine
          serve       Run chosen services, with PostgreSQL and RabbitMQ
          config      The server's configuration
          help        Print this message or the help of the given subcommand(s)

        Options:
          -h, --help
                  Print help (see a summary with '-h')

          -V, --version
                  Print version

        Global options:
              --json
                  Print JSON on stdout and nothing else there

              --api-url <URL>
                  Address of the server [env: COPASS_API_URL]

              --sandbox <ID>
                  Sandbox to work in [env: COPASS_SANDBOX_ID, else .olane/refs.json]

              --project <ID>
                  Project to work in [env: COPASS_PROJECT_ID, else .olane/refs.json]

        Start here: `copass dev` runs a server on this machine; `copass login` and `copass setup` use an
        existing one; `copass chat` talks to the Concierge.

        Environment: COPASS_API_KEY, COPASS_API_URL, COPASS_SANDBOX_ID, COPASS_PROJECT_ID, NO_COLOR.
        Files: ~/.olane/config.json (credentials), .olane/refs.json (ids of a project), .olane/config.json
        (settings of a project).
        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in, 4 forbidden, 5 not found.
        --- stderr
        "#);
    assert_snapshot!(place.run(&["sandbox", "--help", "--json"]).await, @r#"
        exit 0
        --- stdout
        Sandboxes

        Usage: copass sandbox [OPTIONS] <COMMAND>

        Commands:
          list        List your sandboxes and those shared with you
          show        Show one sandbox
          create      Create a sandbox
          use         Make a sandbox the current one of this project (.olane/refs.json)
          suspend     Refuse writes until it is reactivated
          reactivate  Make a suspended or archived sandbox active again
          archive     Take a sandbox out of use; `reactivate` brings it back
          destroy     Delete a sandbox and everything in it, for good
          help        Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Global options:
              --json           Print JSON on stdout and nothing else there
              --api-url <URL>  Address of the server [env: COPASS_API_URL]
              --sandbox <ID>   Sandbox to work in [env: COPASS_SANDBOX_ID, else .olane/refs.json]
              --project <ID>   Project to work in [env: COPASS_PROJECT_ID, else .olane/refs.json]
        --- stderr
        "#);
    let version = place.run(&["agent", "list", "--version"]).await;
    assert!(version.starts_with("exit 0\n--- stdout\ncopass"), "{version}");
}

#[tokio::test]
async fn each_status_has_its_exit_code() {
    for (status, code, exit) in [
        (400, "secret_detected", 1),
        (401, "unauthorized", 3),
        (403, "forbidden", 4),
        (404, "not_found", 5),
        (409, "conflict", 1),
        (500, "internal_error", 1),
    ] {
        let place = Place::ready().await;
        place
            .in_sandbox("GET", "/agents", status, &problem(code, "what happened"))
            .await;
        let human = place.run(&["agent", "list"]).await;
        assert!(
            human.starts_with(&format!("exit {exit}\n--- stdout\n--- stderr\nerror: what happened\n")),
            "{human}"
        );
        assert_eq!(
            place.run(&["agent", "list", "--json"]).await,
            format!(
                "exit {exit}\n--- stdout\n{{\"detail\":\"what happened\",\"error\":\"{code}\",\"status\":{status}}}\n--- stderr\n"
            )
        );
        assert_eq!(place.calls().await, 2, "an answer is never asked for twice");
    }
}

#[tokio::test]
async fn errors_have_hints() {
    let place = Place::ready().await;
    place
        .in_sandbox("GET", "/agents", 401, &problem("unauthorized", "the key was revoked"))
        .await;
    place
        .in_sandbox("GET", "/agents/a", 403, &problem("forbidden", "viewers cannot do that"))
        .await;
    let problems = json!({"error": "validation_error", "detail": [
        {"loc": ["body", "name"], "msg": "must not be empty", "type": "value_error"},
        {"loc": ["body", "slug"], "msg": "is reserved", "type": "value_error"}]});
    place.in_sandbox("POST", "/agents", 422, &problems).await;
    place
        .in_sandbox("GET", "/sources", 500, &problem("internal_error", "internal error"))
        .await;
    assert_snapshot!(place.run(&["agent", "list"]).await, @r#"
        exit 3
        --- stdout
        --- stderr
        error: the key was revoked

        hint: run `copass login`, or set COPASS_API_KEY
        "#);
    assert_snapshot!(place.run(&["agent", "show", "a"]).await, @r#"
        exit 4
        --- stdout
        --- stderr
        error: viewers cannot do that

        hint: ask the owner of the sandbox for a role that allows this
        "#);
    for detail in [
        "an agent key may run its one agent and read the runs it started, nothing else; use another credential",
        "a key of one agent can only run that agent and read the runs it started",
    ] {
        let place = Place::ready().await;
        place
            .in_sandbox("GET", "/agents", 403, &problem("forbidden", detail))
            .await;
        let shown = place.run(&["agent", "list"]).await;
        assert!(
            shown.starts_with("exit 4\n") && shown.contains("use your own login") && !shown.contains("role"),
            "{shown}"
        );
    }
    assert_snapshot!(place.run(&["agent", "create", "a", "--prompt", "x"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: name: must not be empty; slug: is reserved
        "#);
    assert_snapshot!(place.run(&["source", "list"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: internal error

        hint: request id req_1
        "#);
}

#[tokio::test]
async fn no_server() {
    let place = Place::ready().await.env("COPASS_API_URL", "http://127.0.0.1:1");
    assert_snapshot!(place.run(&["sandbox", "list"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: cannot reach http://127.0.0.1:1: Connection refused (os error 111)

        hint: is the server running? start one with `copass dev`, or set COPASS_API_URL to the address of yours
        "#);
    assert_snapshot!(place.run(&["sandbox", "list", "--json"]).await, @r#"
        exit 1
        --- stdout
        {"detail":"cannot reach http://127.0.0.1:1: Connection refused (os error 111)","error":"unreachable","status":0}
        --- stderr
        "#);
}

#[tokio::test]
async fn not_a_server_of_ours() {
    let place = Place::ready().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_raw("<html>hello</html>", "text/html"))
        .mount(&place.server)
        .await;
    assert_snapshot!(place.run(&["sandbox", "list"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: the answer of /api/v1/storage/sandboxes is not understood: expected value at line 1 column 1

        hint: is this a Copass server, and of a version this client knows?
        "#);
    assert_snapshot!(place.run(&["chat", "hello"]).await, @r#"
        exit 1
        --- stdout
        --- stderr
        error: the answer of /api/v1/storage/sandboxes/sb_01J9Z0000000000000000000AA/concierge/chat is not understood: it is 'text/html' and not an event stream

        hint: is this a Copass server, and of a version this client knows?
        "#);
    let place = place.env("COPASS_API_URL", "not an address");
    assert_snapshot!(place.run(&["sandbox", "list"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: 'not an address' is not a server address; write it like http://127.0.0.1:8484
        "#);
}

#[tokio::test]
async fn no_credential_and_no_sandbox() {
    let place = Place::bare().await;
    assert_snapshot!(place.run(&["sandbox", "list"]).await, @r#"
        exit 3
        --- stdout
        --- stderr
        error: you are not logged in

        hint: run `copass login`, or set COPASS_API_KEY
        "#);
    assert_snapshot!(place.run(&["sandbox", "list", "--json"]).await, @r#"
        exit 3
        --- stdout
        {"detail":"you are not logged in","error":"unauthorized","status":401}
        --- stderr
        "#);
    let place = place.env("COPASS_API_KEY", KEY);
    assert_snapshot!(place.run(&["agent", "list"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: no sandbox is chosen

        hint: run `copass setup` here, pass --sandbox, or set COPASS_SANDBOX_ID
        "#);
    assert_snapshot!(place.run(&["agent", "show", "..", "--sandbox", SANDBOX]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: '..' is not an id
        "#);
    assert_eq!(place.calls().await, 0);
}

#[tokio::test]
async fn the_flag_wins_and_the_key_is_sent() {
    let place = Place::ready().await;
    place
        .on(
            "GET",
            "/api/v1/storage/sandboxes/sb_flag/agents",
            200,
            &json!({"agents": [], "count": 0}),
        )
        .await;
    assert_snapshot!(place.run(&["--sandbox", "sb_flag", "agent", "list", "--status", "archived"]).await, @r#"
        exit 0
        --- stdout
        No archived agents.
        --- stderr
        "#);
    let requests = place.server.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(requests[0].url.query(), Some("status=archived"));
}

#[tokio::test]
async fn json_is_the_answer_unchanged() {
    let place = Place::ready().await;
    let body = sandbox("main");
    place.in_sandbox("GET", "", 200, &body).await;
    assert_eq!(
        place.run(&["sandbox", "show", "--json"]).await,
        format!("exit 0\n--- stdout\n{body}\n--- stderr\n")
    );
}

#[tokio::test]
async fn what_a_server_wrote_cannot_steer_the_terminal() {
    let place = Place::ready().await;
    place.in_sandbox("GET", "", 200, &sandbox("a\u{1b}[2J\u{7}b")).await;
    let shown = place.run(&["sandbox", "show"]).await;
    assert!(shown.contains("a[2Jb") && !shown.contains('\u{1b}'), "{shown}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let place = Place::ready().await;
    let many = vec![sandbox("x"); 2000];
    place
        .on(
            "GET",
            "/api/v1/storage/sandboxes",
            200,
            &json!({"sandboxes": many, "count": 2000}),
        )
        .await;
    let mut child = place
        .command(&place.work(), &["sandbox", "list"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()),
        (Some(0), "")
    );
}

#[tokio::test]
async fn servers_are_described() {
    let place = Place::bare().await;
    assert_snapshot!(place.run(&["dev", "--help"]).await, @r#"
        exit 0
        --- stdout
        Run the whole platform on this machine

        Usage: copass dev [OPTIONS]

        Options:
              --data-dir <DIR>      Directory of the data; under your data directory without it
              --listen <HOST:PORT>  Address to listen on; port 0 picks a free one
              --config <PATH>       Configuration file
          -h, --help                Print help
          -V, --version             Print version

        Global options:
              --json           Print JSON on stdout and nothing else there
              --api-url <URL>  Address of the server [env: COPASS_API_URL]
              --sandbox <ID>   Sandbox to work in [env: COPASS_SANDBOX_ID, else .olane/refs.json]
              --project <ID>   Project to work in [env: COPASS_PROJECT_ID, else .olane/refs.json]
        --- stderr
        "#);
    assert_snapshot!(place.run(&["serve", "--help"]).await, @r#"
        exit 0
        --- stdout
        Run chosen services, with PostgreSQL and RabbitMQ

        Usage: copass serve [OPTIONS] <SERVICE>...

        Arguments:
          <SERVICE>...
                  Services to run in this process

                  Possible values:
                  - gateway:            REST, streams, webhooks
                  - concierge:          Identity, sandboxes and the Concierge
                  - agent-runner:       Agents and runs
                  - trigger-dispatcher: Triggers and deliveries
                  - ingestion:          Data sources and retrieval
                  - all:                All of them

        Options:
              --config <PATH>
                  Configuration file

          -h, --help
                  Print help (see a summary with '-h')

          -V, --version
                  Print version

        Global options:
              --json
                  Print JSON on stdout and nothing else there

              --api-url <URL>
                  Address of the server [env: COPASS_API_URL]

              --sandbox <ID>
                  Sandbox to work in [env: COPASS_SANDBOX_ID, else .olane/refs.json]

              --project <ID>
                  Project to work in [env: COPASS_PROJECT_ID, else .olane/refs.json]
        --- stderr
        "#);
    assert_snapshot!(place.run(&["serve", "kitchen"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: invalid value 'kitchen' for '<SERVICE>...'
          [possible values: gateway, concierge, agent-runner, trigger-dispatcher, ingestion, all]

        For more information, try '--help'.
        "#);
    assert_snapshot!(place.run(&["serve"]).await, @r#"
        exit 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          <SERVICE>...

        Usage: copass serve <SERVICE>...

        For more information, try '--help'.
        "#);
}
