//! A server that cannot start says why and what to do next, in one message, and ends with a code that is not zero.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use futures::{StreamExt as _, stream};
use serde_json::Value;

use crate::harness::{
    Cluster, Settings, Shape,
    cluster::{AGENT_RUNNER, CONCIERGE, DEV, DISPATCHER, GATEWAY, INGESTION, MASTER_KEY},
    process::{copass, run},
    rows,
};

/// The operator does not wait longer for bad news.
const FAILURE_LIMIT: Duration = Duration::from_secs(15);
/// As if a later version had been here.
const LATER_MIGRATION: &str = "insert into _sqlx_migrations \
    (version, description, installed_on, success, checksum, execution_time) \
    select 29990101000000, 'later', installed_on, success, checksum, execution_time \
    from _sqlx_migrations order by version desc limit 1";

/// One way not to start.
struct Case<'a> {
    what: &'a str,
    arguments: Vec<&'a str>,
    environment: Vec<(&'a str, String)>,
    /// Words that the message must have.
    says: &'a [&'a str],
}

fn command(case: &Case, json: bool) -> Command {
    let mut command = copass(&case.arguments);
    command.envs(case.environment.iter().map(|(name, value)| (name, value)));
    if json {
        command.arg("--json");
    }
    command
}

/// Fails for people and for programs.
async fn expect_failure(case: Case<'_>) {
    let what = case.what;
    let ended = run(what, command(&case, false), FAILURE_LIMIT).await;
    assert_ne!(ended.code(), 0, "{what}");
    assert!(
        ended.stdout.is_empty(),
        "{what}: stdout is for data: {:?}",
        ended.stdout
    );
    let text = ended.stderr.join("\n");
    let begin = |mark: &str| ended.stderr.iter().filter(|line| line.starts_with(mark)).count();
    assert_eq!(
        (begin("error: "), begin("hint: ")),
        (1, 1),
        "{what}: one message and its next step:\n{text}"
    );
    for bad in [
        "panicked",
        "stack backtrace",
        "RUST_BACKTRACE",
        " at crates/",
        "src/",
        "Error {",
        "Err(",
    ] {
        assert!(!text.contains(bad), "{what}: {bad}:\n{text}");
    }
    assert!(
        !text.contains(MASTER_KEY) && !text.contains("s3cret"),
        "{what}: a secret came out:\n{text}"
    );
    for words in case.says {
        assert!(
            text.to_lowercase().contains(&words.to_lowercase()),
            "{what}: nothing of '{words}':\n{text}"
        );
    }

    let ended = run(what, command(&case, true), FAILURE_LIMIT).await;
    assert_ne!(ended.code(), 0, "{what}");
    assert_eq!(
        ended.stdout.len(),
        1,
        "{what}: one object and nothing else: {:?}",
        ended.stdout
    );
    let error: Value = serde_json::from_str(&ended.stdout[0]).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        error["error"].is_string() && error["detail"].is_string() && error["status"].is_u64(),
        "{what}: {error}"
    );
    assert!(!ended.stderr.iter().any(|line| line.contains("panicked")), "{what}");
}

#[tokio::test]
async fn dev_says_why_it_does_not_start() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("file"), "").unwrap();
    fs::create_dir(path("garbage")).unwrap();
    fs::write(path("garbage/copass.db"), "this is not a database".repeat(1000)).unwrap();
    fs::write(path("bad.toml"), "[gateway]\nlisten = 5\n").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (below_a_file, good, garbage) = (path("file/data"), path("good"), path("garbage"));
    let (bad_toml, no_toml) = (path("bad.toml"), path("no.toml"));
    let dev = |data_dir, more: &[&'static str]| -> Vec<&str> {
        ["dev", "--data-dir", data_dir]
            .into_iter()
            .chain(more.iter().copied())
            .collect()
    };
    let free = &["--listen", "127.0.0.1:0"][..];
    let set = |name, value: &str| vec![(name, value.to_owned())];
    let case = |what, arguments, environment, says| Case {
        what,
        arguments,
        environment,
        says,
    };
    let mut cases = vec![
        case("below a file", dev(&below_a_file, free), vec![], &["file/data"][..]),
        case(
            "where nobody may write",
            dev("/proc/copass-data", free),
            vec![],
            &["/proc/copass-data"],
        ),
        case("no database", dev(&garbage, free), vec![], &["copass.db"]),
        case(
            "no address",
            dev(&good, &["--listen", "nonsense"]),
            vec![],
            &["nonsense"],
        ),
        case(
            "not of this machine",
            dev(&good, &["--listen", "192.0.2.1:1"]),
            vec![],
            &["192.0.2.1"],
        ),
        case(
            "unknown setting",
            dev(&good, free),
            set("COPASS__GATEWAY__LSTEN", "1"),
            &["lsten"],
        ),
        case(
            "unknown section",
            dev(&good, free),
            set("COPASS__GATEWAI__LISTEN", "1"),
            &["gatewai"],
        ),
        case(
            "wrong type",
            dev(&good, free),
            set("COPASS__GATEWAY__BODY_LIMIT_BYTES", "much"),
            &["body_limit_bytes"],
        ),
        case(
            "bad master key",
            dev(&good, free),
            set("COPASS__SECRETS__MASTER_KEYS", r#"["s3cret"]"#),
            &["master_keys"],
        ),
        case(
            "no script",
            dev(&good, free),
            set("COPASS__MODELS__CONCIERGE", "scripted"),
            &["scripted_file"],
        ),
        case(
            "unknown model",
            dev(&good, free),
            set("COPASS__MODELS__CONCIERGE", "oracle"),
            &["models.concierge"],
        ),
    ];
    for (what, file, words) in [
        ("bad file", &bad_toml, &["listen"][..]),
        ("missing file", &no_toml, &["no.toml", "does not exist"]),
    ] {
        cases.push(case(
            what,
            vec!["dev", "--data-dir", &good, "--config", file],
            vec![],
            words,
        ));
    }
    let arguments = vec!["dev", "--data-dir", &good, "--listen", &taken];
    cases.push(case("taken port", arguments, vec![], &["in use", "--listen"]));
    let closed = path("closed");
    if !nix::unistd::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt as _;
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        cases.push(case(
            "no permission",
            dev(&closed, free),
            vec![],
            &["closed", "permission"],
        ));
    }
    for case in cases {
        expect_failure(case).await;
    }
}

#[tokio::test]
async fn a_directory_belongs_to_one_dev_and_not_to_an_older_one() {
    let mut cluster = Cluster::start(Shape::Dev, Settings::default()).await.unwrap();
    let data_dir = cluster.data_dir().to_str().unwrap().to_owned();
    let arguments = vec!["dev", "--data-dir", &data_dir, "--listen", "127.0.0.1:0"];
    let says = &["in use by process", "--data-dir"];
    expect_failure(Case {
        what: "second instance",
        arguments: arguments.clone(),
        environment: vec![],
        says,
    })
    .await;
    // The first one did not notice.
    cluster.wait_ready().await;
    cluster.stop(DEV).await;
    rows::execute(&cluster.database_url(), LATER_MIGRATION).await;
    let says = &["newer than this program", "29990101000000"];
    expect_failure(Case {
        what: "newer database",
        arguments,
        environment: vec![],
        says,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_says_why_it_does_not_start() {
    let Some(cluster) = Cluster::prepare(Shape::Separate, Settings::default()).await else {
        return;
    };
    let mut good: Vec<(String, String)> = cluster.environment().to_vec();
    // Cases run side by side: no port is theirs.
    for (_, address) in good.iter_mut().filter(|(name, _)| name.ends_with("__LISTEN")) {
        "127.0.0.1:0".clone_into(address);
    }
    let good = good;
    // The good settings with one changed; an empty value takes a setting away.
    let with = |name: &'static str, value: &str| -> Vec<(&str, String)> {
        let kept = good
            .iter()
            .filter(|(kept, _)| kept != name)
            .map(|(kept, value)| (kept.as_str(), value.clone()));
        let set = (!value.is_empty()).then(|| (name, value.to_owned()));
        kept.chain(set).collect()
    };
    let (store, queue, keys) = (
        "COPASS__STORE__URL",
        "COPASS__QUEUE__URL",
        "COPASS__SECRETS__MASTER_KEYS",
    );
    // Nobody listens; and somebody takes the connection and never says a word.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().unwrap();
    let no_database = cluster.database_url().replace("copass_t_", "copass_none_");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    let (no_postgres, no_rabbit) = (
        format!("postgres://me:s3cret@{closed}/x"),
        format!("amqp://me:s3cret@{closed}/%2f"),
    );
    let mute_postgres = format!("postgres://me:s3cret@{mute}/x");
    let mute_rabbit = format!("amqp://me:s3cret@{mute}/%2f");
    let wrong_password = good
        .iter()
        .find(|(name, _)| name == queue)
        .unwrap()
        .1
        .replace("guest:guest@", "guest:s3cret@");
    let cases = [
        (
            "no master key",
            CONCIERGE,
            with(keys, ""),
            &["master key", "openssl rand"][..],
        ),
        (
            "no master key for the gateway",
            GATEWAY,
            with(keys, ""),
            &["master key"],
        ),
        (
            "short master key",
            CONCIERGE,
            with(keys, r#"["s3cret"]"#),
            &["master_keys"],
        ),
        (
            "no database",
            AGENT_RUNNER,
            with(store, ""),
            &["no database", "store.url"],
        ),
        (
            "no PostgreSQL",
            CONCIERGE,
            with(store, &no_postgres),
            &["cannot be reached", "store.url"],
        ),
        (
            "mute PostgreSQL",
            CONCIERGE,
            with(store, &mute_postgres),
            &["cannot be reached"],
        ),
        (
            "unknown database",
            INGESTION,
            with(store, &no_database),
            &["cannot be reached", "copass_none_"],
        ),
        (
            "another database",
            CONCIERGE,
            with(store, "mysql://me:s3cret@host/x"),
            &["store.url"],
        ),
        (
            "no broker",
            GATEWAY,
            with(queue, ""),
            &["no message broker", "queue.url"],
        ),
        (
            "no RabbitMQ",
            DISPATCHER,
            with(queue, &no_rabbit),
            &["broker", "queue.url"],
        ),
        ("mute RabbitMQ", GATEWAY, with(queue, &mute_rabbit), &["broker"]),
        (
            "wrong password",
            CONCIERGE,
            with(queue, &wrong_password),
            &["broker", "credentials"],
        ),
        (
            "memory queue",
            CONCIERGE,
            with(queue, "memory"),
            &["memory queue", "RabbitMQ"],
        ),
        (
            "taken port",
            GATEWAY,
            with("COPASS__GATEWAY__LISTEN", &taken_address),
            &["in use", "gateway.listen"],
        ),
        (
            "taken gRPC port",
            CONCIERGE,
            with("COPASS__SERVICES__CONCIERGE__LISTEN", &taken_address),
            &["in use", "services.concierge.listen"],
        ),
        (
            "bad address",
            GATEWAY,
            with("COPASS__SERVICES__INGESTION__ADDRESS", "host:1"),
            &["services.ingestion.address"],
        ),
        ("unknown setting", CONCIERGE, with("COPASS__STORE__ULR", "x"), &["ulr"]),
    ];
    // Some of them wait for somebody who never answers: side by side.
    stream::iter(cases)
        .for_each_concurrent(6, |(what, role, environment, says)| {
            expect_failure(Case {
                what,
                arguments: vec!["serve", role],
                environment,
                says,
            })
        })
        .await;
    roles_are_checked().await;
}

/// Wrong usage: the words of the command line's parser, and its exit code.
async fn roles_are_checked() {
    for arguments in [
        &["serve", "gatewy"][..],
        &["serve"],
        &["serve", "gateway", "--frobnicate"],
    ] {
        let ended = run("bad role", copass(arguments), FAILURE_LIMIT).await;
        assert_eq!(ended.code(), 2, "{arguments:?}");
        assert!(ended.stdout.is_empty());
        assert_eq!(
            ended.stderr.iter().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{:?}",
            ended.stderr
        );
        let ended = run("bad role", copass(&[arguments, &["--json"]].concat()), FAILURE_LIMIT).await;
        assert_eq!(
            (ended.code(), ended.stdout.len()),
            (2, 1),
            "{arguments:?}: {:?}",
            ended.stdout
        );
        serde_json::from_str::<Value>(&ended.stdout[0]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_services_start_in_any_order_and_not_on_a_newer_database() {
    let Some(mut cluster) = Cluster::prepare(Shape::Separate, Settings::default()).await else {
        return;
    };
    // All at once, on a database without a table: one of them makes the tables.
    for name in [GATEWAY, CONCIERGE, AGENT_RUNNER, DISPATCHER, INGESTION] {
        cluster.spawn(name);
    }
    cluster.wait_started(GATEWAY).await;
    cluster
        .tenant("first")
        .await
        .turn("What sandboxes do I have?", None)
        .await;

    // Readiness follows what the gateway needs; it comes back by itself.
    cluster.kill_9(INGESTION);
    copass_test_support::eventually(Duration::from_secs(15), || async {
        let ready = cluster.api().get("/readyz").await;
        ready.status == 503 && ready.body["status"] != "ready"
    })
    .await;
    cluster.api().get("/healthz").await.expect(200);
    cluster.start_process(INGESTION).await;
    cluster.wait_ready().await;

    rows::execute(&cluster.database_url(), LATER_MIGRATION).await;
    let environment = cluster.environment().to_vec();
    let mut environment: Vec<(&str, String)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    // The listener is not what stops it.
    environment.push(("COPASS__SERVICES__CONCIERGE__LISTEN", "127.0.0.1:0".to_owned()));
    let says = &["newer than this program", "29990101000000"];
    expect_failure(Case {
        what: "newer database",
        arguments: vec!["serve", CONCIERGE],
        environment,
        says,
    })
    .await;
}
