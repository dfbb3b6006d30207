//! Where the broker for the tests is, and brokers of one's own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

/// The shared broker; `None` when the tests that need one are switched off.
pub(crate) fn url() -> Option<String> {
    if skipped() {
        return None;
    }
    Some(std::env::var("COPASS_TEST_AMQP_URL").expect(
        "COPASS_TEST_AMQP_URL is not set: run scripts/test, or eval \"$(scripts/services start)\" first; \
         COPASS_TEST_SKIP_SERVICES=1 leaves these tests out",
    ))
}

/// Whether tests that need services are left out, on purpose and visibly.
pub(crate) fn skipped() -> bool {
    let skipped = std::env::var("COPASS_TEST_SKIP_SERVICES").is_ok_and(|value| value == "1");
    if skipped {
        println!("skipped");
    }
    skipped
}

/// Runs rabbitmqctl on the shared broker.
pub(crate) async fn rabbitmqctl(arguments: &str) -> String {
    let command = std::env::var("COPASS_TEST_RABBITMQCTL")
        .expect("COPASS_TEST_RABBITMQCTL is not set: run scripts/test, or eval \"$(scripts/services start)\" first");
    run(Command::new("sh")
        .arg("-c")
        .arg(format!("{command} --quiet {arguments}")))
    .await
}

/// A virtual host of the shared broker, so that breaking its connections hurts no other test.
pub(crate) struct VirtualHost {
    pub(crate) name: String,
    pub(crate) url: String,
}

impl VirtualHost {
    pub(crate) async fn create(shared: &str, name: String) -> Self {
        rabbitmqctl(&format!("add_vhost {name}")).await;
        rabbitmqctl(&format!("set_permissions --vhost {name} guest '.*' '.*' '.*'")).await;
        let (address, _) = shared.rsplit_once('/').unwrap();
        Self {
            url: format!("{address}/{name}"),
            name,
        }
    }

    pub(crate) async fn break_connections(&self) {
        rabbitmqctl(&format!("close_all_connections --vhost {} broken-by-test", self.name)).await;
    }

    pub(crate) async fn delete(self) {
        rabbitmqctl(&format!("delete_vhost {}", self.name)).await;
    }
}

/// A broker of one's own, to stop and start. Restarting the shared one would fail every test that runs beside.
pub(crate) struct PrivateBroker {
    folder: TempDir,
}

impl PrivateBroker {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts it and returns its address, which is the same each time.
    pub(crate) async fn start(&self) -> String {
        let environment = run(self.services().args(["start", "rabbitmq"])).await;
        let line = environment
            .lines()
            .find_map(|line| line.strip_prefix("export COPASS_TEST_AMQP_URL="));
        line.unwrap_or_else(|| panic!("no address in: {environment}"))
            .to_owned()
    }

    pub(crate) async fn stop(&self) {
        run(self.services().arg("stop")).await;
    }

    fn services(&self) -> Command {
        let mut command = Command::new(services());
        command.env("COPASS_SERVICES_DIR", self.folder.path());
        command
    }
}

impl Drop for PrivateBroker {
    /// Also when the test failed: nothing is left running.
    fn drop(&mut self) {
        let mut command = std::process::Command::new(services());
        let _ = command
            .arg("stop")
            .env("COPASS_SERVICES_DIR", self.folder.path())
            .status();
    }
}

fn services() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services")
}

async fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{out}{err}",
        output.status
    );
    out.into_owned()
}
