//! A place to run the binary in: an own home, an own working directory, an own server.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

pub(crate) const KEY: &str = "olk_test_key_0123456789";
pub(crate) const SANDBOX: &str = "sb_01J9Z0000000000000000000AA";

pub(crate) struct Place {
    directory: TempDir,
    pub(crate) server: MockServer,
    env: Vec<(String, String)>,
}

impl Place {
    /// With a server, without any credential.
    pub(crate) async fn bare() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "work"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let server = MockServer::start().await;
        let url = server.uri();
        Self {
            directory,
            server,
            env: Vec::new(),
        }
        .env("COPASS_API_URL", &url)
    }

    /// With a key and a sandbox in the environment.
    pub(crate) async fn ready() -> Self {
        Self::bare()
            .await
            .env("COPASS_API_KEY", KEY)
            .env("COPASS_SANDBOX_ID", SANDBOX)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.env.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home().join(".olane/config.json")
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.work().join(".olane/refs.json")
    }

    /// Answers a call with a body.
    pub(crate) async fn on(&self, verb: &str, route: &str, status: u16, body: &Value) {
        Mock::given(method(verb))
            .and(path(route))
            .respond_with(ResponseTemplate::new(status).set_body_raw(body.to_string(), "application/json"))
            .mount(&self.server)
            .await;
    }

    /// Answers a call inside the sandbox with a body.
    pub(crate) async fn in_sandbox(&self, verb: &str, route: &str, status: u16, body: &Value) {
        self.on(
            verb,
            &format!("/api/v1/storage/sandboxes/{SANDBOX}{route}"),
            status,
            body,
        )
        .await;
    }

    /// Takes a call inside the sandbox and does not answer it while a test lasts.
    pub(crate) async fn never(&self, verb: &str, route: &str) {
        Mock::given(method(verb))
            .and(path(format!("/api/v1/storage/sandboxes/{SANDBOX}{route}")))
            .respond_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(600)))
            .mount(&self.server)
            .await;
    }

    /// Waits until this was called.
    pub(crate) async fn until_sent(&self, verb: &str, ending: &str) {
        let sent = async {
            while self.sent(verb, ending).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), sent).await;
        assert!(waited.is_ok(), "{verb} …{ending} was never called");
    }

    /// The bodies of the calls of a route, in order.
    pub(crate) async fn sent(&self, verb: &str, ending: &str) -> Vec<Value> {
        let requests = self.server.received_requests().await.unwrap();
        requests
            .iter()
            .filter(|request| request.method.as_str() == verb && request.url.path().ends_with(ending))
            .map(|request| serde_json::from_slice(&request.body).unwrap_or_default())
            .collect()
    }

    /// How many calls were made at all.
    pub(crate) async fn calls(&self) -> usize {
        self.server.received_requests().await.unwrap().len()
    }

    pub(crate) fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_copass"));
        command
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("HOME", self.home())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the binary and shows everything it did.
    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, "").await
    }

    /// The same with something on stdin.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> String {
        self.run_in(&self.work(), arguments, input).await
    }

    pub(crate) async fn run_in(&self, directory: &Path, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .command(directory, arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read has closed its end already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            output
                .status
                .code()
                .map_or_else(|| "by signal".to_owned(), |code| code.to_string()),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        text.replace(&self.server.uri(), "[server]")
            .replace(self.home().to_str().unwrap(), "[home]")
            .replace(self.work().to_str().unwrap(), "[work]")
    }
}

pub(crate) fn write(path: &Path, value: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

pub(crate) fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn problem(code: &str, detail: &str) -> Value {
    json!({"error": code, "detail": detail, "request_id": "req_1"})
}

pub(crate) fn sandbox(name: &str) -> Value {
    json!({
        "sandbox_id": SANDBOX, "user_id": "0b8f3c52-7a1e-4c0e-9a55-0123456789ab", "owner_id": "me", "name": name,
        "tier": "free", "status": "active", "storage_provider_type": "platform_s3",
        "limits": {"max_data_sources": 10, "max_projects": 5, "max_storage_bytes": 1000, "later": 1},
        "metadata": {}, "created_at": "2026-04-30T14:25:18.000000Z", "access": "owner", "is_external": false,
        "a_later_field": true,
    })
}

pub(crate) fn profile() -> Value {
    json!({
        "user_id": "0b8f3c52-7a1e-4c0e-9a55-0123456789ab", "display_name": "Ada", "sandbox_id": SANDBOX,
        "project_id": "pj_01J9Z0000000000000000000AA", "canonical_id": null, "is_user_root": true,
        "semantic_tags": [], "was_created": false, "created_at": "2026-04-30T14:25:18.000000Z", "metadata": {},
        "copass_id": "ada", "email": "ada@example.com",
    })
}

pub(crate) fn source(name: &str) -> Value {
    json!({
        "data_source_id": "ds_01J9Z0000000000000000000AA", "user_id": "u", "sandbox_id": SANDBOX, "provider": "custom",
        "name": name, "ingestion_mode": "manual", "status": "active", "kind": "durable", "external_account_id": null,
        "adapter_config": {}, "poll_interval_seconds": null, "webhook_url": null, "last_sync_at": null,
        "created_at": "2026-04-30T14:25:18.000000Z", "updated_at": null,
    })
}

pub(crate) fn agent(slug: &str) -> Value {
    json!({
        "agent_id": "ag_01J9Z0000000000000000000AA", "user_id": "u", "sandbox_id": SANDBOX, "slug": slug,
        "name": "Support", "description": null, "system_prompt": "You help.", "tool_allowlist": ["search"],
        "tool_sources": null, "status": "active", "version": 3,
        "model_settings": {"backend": "anthropic", "model": "claude-sonnet-4-6", "temperature": 0.5,
            "max_tokens": null, "max_turns": 15, "timeout_s": null, "compute_provider": null},
        "created_at": "2026-04-30T14:25:18.000000Z", "updated_at": "2026-05-01T08:00:00.123456Z",
    })
}

pub(crate) fn run_row(status: &str) -> Value {
    json!({
        "run_id": "rn_01J9Z0000000000000000000AA", "user_id": "u", "sandbox_id": SANDBOX,
        "agent_id": "ag_01J9Z0000000000000000000AA", "agent_version": 3, "trigger_id": null, "status": status,
        "input_event": null, "output_text": "Done.\nAll well.", "tokens_in": 812, "tokens_out": 24,
        "cost_microcents": 1_250_000, "duration_ms": 420, "error_message": null,
        "started_at": "2026-04-30T14:25:18.000000Z", "finished_at": "2026-04-30T14:25:19.000000Z",
        "provider_session_id": "sess_1", "warnings": ["source github was skipped"],
        "created_at": "2026-04-30T14:25:18.000000Z", "agent_slug": "support",
    })
}
