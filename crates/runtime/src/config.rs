//! Configuration: defaults → file → environment (`COPASS__SECTION__KEY`) → flags; validated once, every problem listed
//! (`design.md` 10). Nothing else in the program reads the environment for settings.

mod models;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::secret::{MasterKey, Secret};

pub use models::{ModelEndpoint, Models};

/// Prefix of every environment variable that is a setting.
pub const ENV_PREFIX: &str = "COPASS__";

/// All settings of one process.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// REST, SSE and everything else that clients talk to.
    pub gateway: Gateway,
    /// Addresses of the internal services.
    pub services: Services,
    /// The database.
    pub store: Store,
    /// The message broker.
    pub queue: Queue,
    /// Keys that seal secrets and sign tokens.
    pub secrets: Secrets,
    /// Login and tokens.
    pub auth: Auth,
    /// Outgoing mail for login codes.
    pub smtp: Smtp,
    /// Model providers.
    pub models: Models,
    /// Tools of agents.
    pub tools: Tools,
    /// How runs are worked on.
    pub runs: Runs,
    /// Logs.
    pub telemetry: Telemetry,
    /// Ending the process.
    pub shutdown: Shutdown,
}

/// The gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The URL under which clients reach the server, when it differs from `listen`.
    pub public_url: Option<Url>,
    /// Largest request body in bytes.
    pub body_limit_bytes: usize,
    /// How long a verified credential is remembered while the revocation feed is connected.
    #[serde(with = "humantime_serde")]
    pub auth_cache_ttl: Duration,
    /// Requests per minute that one credential may make.
    pub requests_per_minute: u32,
    /// Login attempts per minute from one network address.
    pub logins_per_minute: u32,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8484)),
            public_url: None,
            body_limit_bytes: 1024 * 1024,
            auth_cache_ttl: Duration::from_secs(5),
            requests_per_minute: 600_000,
            logins_per_minute: 30,
        }
    }
}

/// One internal service: where it listens when it runs here, where it is when it runs elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// The gRPC listener of `copass serve <service>`.
    pub listen: SocketAddr,
    /// The address others use, `http://host:port`.
    pub address: String,
}

impl Service {
    fn at(port: u16) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            address: format!("http://127.0.0.1:{port}"),
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self::at(0)
    }
}

/// The internal services.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// Identity, tenancy and the Concierge.
    pub concierge: Service,
    /// Agents and runs.
    pub agent_runner: Service,
    /// Triggers.
    pub trigger_dispatcher: Service,
    /// Data sources.
    pub ingestion: Service,
    /// HTTP listener for `/healthz`, `/readyz` and `/metrics` of a process without the gateway; off when absent.
    pub probes_listen: Option<SocketAddr>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            concierge: Service::at(8501),
            agent_runner: Service::at(8502),
            trigger_dispatcher: Service::at(8503),
            ingestion: Service::at(8504),
            probes_listen: None,
        }
    }
}

/// The database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `postgres://user:password@host/database`, or `sqlite:<path>`. Required by `copass serve`.
    pub url: String,
    /// Connections per process.
    pub max_connections: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: String::new(),
            max_connections: 10,
        }
    }
}

/// The message broker.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// `amqp://user:password@host:port/vhost`, or `memory` (one process only). Required by `copass serve`.
    pub url: String,
    /// Put before queue and exchange names, for several deployments on one broker; empty for none.
    pub prefix: String,
}

/// Keys.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// 32 random bytes each, base64, newest first; the same list on every service. `openssl rand -base64 32`
    #[serde(skip_serializing)]
    pub master_keys: Vec<Secret>,
}

/// Login and tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Life of an access token.
    #[serde(with = "humantime_serde")]
    pub access_token_ttl: Duration,
    /// Life of a refresh token.
    #[serde(with = "humantime_serde")]
    pub refresh_token_ttl: Duration,
    /// Life of a one-time code.
    #[serde(with = "humantime_serde")]
    pub code_ttl: Duration,
    /// Codes that one e-mail address may ask for in ten minutes.
    pub codes_per_ten_minutes: u32,
    /// Age at which a new signing key is made; old keys verify until the tokens they signed have ended.
    #[serde(with = "humantime_serde")]
    pub signing_key_rotation: Duration,
    /// Write login codes to the log instead of failing when no mail server is configured.
    pub log_codes: bool,
    /// Whether anybody may make an account by logging in; otherwise only known addresses get codes.
    pub open_registration: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            access_token_ttl: Duration::from_secs(3600),
            refresh_token_ttl: Duration::from_secs(30 * 24 * 3600),
            code_ttl: Duration::from_secs(600),
            codes_per_ten_minutes: 5,
            signing_key_rotation: Duration::from_secs(30 * 24 * 3600),
            log_codes: true,
            open_registration: true,
        }
    }
}

/// Outgoing mail.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Smtp {
    /// `smtps://user:password@host:465`, `smtp://user:password@host:587?tls=required`, or `smtp://host:25`.
    #[serde(skip_serializing)]
    pub url: Option<Secret>,
    /// The sender, for example `Copass <no-reply@example.com>`.
    pub from: Option<String>,
}

/// Where agents' tools come from, beside what people connect.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// A plain HTTP tool server of the operator's, as the tool source `http`: `GET <url>` lists, `POST <url>/call` calls.
    pub http_url: Option<Url>,
}

/// How runs are worked on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runs {
    /// Runs without a reader that one process works on at once; more of them wait for their turn.
    pub background: usize,
    /// How many of them one sandbox may have, so that the others' runs do not wait for the end of all of its own; half of
    /// them when it is left out.
    pub background_per_sandbox: Option<usize>,
    /// How long a run stays a worker's after its last sign of life.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How often the leases of live runs are extended.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How often runs of lost workers are looked for.
    #[serde(with = "humantime_serde")]
    pub reap_interval: Duration,
    /// Longest single tool call.
    #[serde(with = "humantime_serde")]
    pub tool_timeout: Duration,
    /// How long a model may be silent within one answer.
    #[serde(with = "humantime_serde")]
    pub model_silence: Duration,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            background: 64,
            background_per_sandbox: None,
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            reap_interval: Duration::from_secs(15),
            tool_timeout: Duration::from_secs(60),
            model_silence: Duration::from_secs(120),
        }
    }
}

impl Runs {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.background == 0 {
            problems.push("runs.background: must be at least 1".to_owned());
        }
        if self.background_per_sandbox == Some(0) {
            problems.push("runs.background_per_sandbox: must be at least 1".to_owned());
        }
        // A worker that misses one beat must not lose its runs.
        if self.heartbeat.is_zero() || self.lease < self.heartbeat * 2 {
            problems.push("runs.lease: must be at least twice runs.heartbeat, which must not be zero".to_owned());
        }
        for (name, duration) in [
            ("reap_interval", self.reap_interval),
            ("tool_timeout", self.tool_timeout),
            ("model_silence", self.model_silence),
        ] {
            if duration.is_zero() {
                problems.push(format!("runs.{name}: must not be zero"));
            }
        }
        problems
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Filter, for example `info,copass_gateway=debug`.
    pub log: String,
    /// Text or JSON.
    pub log_format: LogFormat,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// Ending the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long work in progress may take to end.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(4),
        }
    }
}

/// The configuration cannot be read, or holds values that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist.
    #[error("the configuration file {0} does not exist")]
    FileMissing(PathBuf),
    /// A file or variable is malformed or unknown.
    #[error("{}", .0.join("\n"))]
    Problems(Vec<String>),
}

impl Config {
    /// Reads defaults, then the file if one is named, then the environment.
    ///
    /// # Errors
    /// The file is missing, or a key is unknown or has the wrong type; each problem names its key and origin.
    pub fn load(file: Option<&std::path::Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.is_file() {
                return Err(ConfigError::FileMissing(file.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        figment
            .merge(Env::prefixed(ENV_PREFIX).split("__"))
            .extract()
            .map_err(|errors| ConfigError::Problems(errors.into_iter().map(|error| error.to_string()).collect()))
    }

    /// Checks values that only make sense together; lists every problem.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.secrets.master_keys.is_empty()
            && MasterKey::parse(self.secrets.master_keys.iter().map(Secret::expose)).is_err()
        {
            problems.push(
                "secrets.master_keys: each key must be 32 bytes in base64; make one with `openssl rand -base64 32`"
                    .to_owned(),
            );
        }
        let store = self.store.url.as_str();
        if !(store.is_empty()
            || store.starts_with("postgres://")
            || store.starts_with("postgresql://")
            || store.starts_with("sqlite:"))
        {
            problems.push("store.url: must begin with postgres:// or sqlite:".to_owned());
        }
        let queue = self.queue.url.as_str();
        if !(queue.is_empty() || queue == "memory" || queue.starts_with("amqp://") || queue.starts_with("amqps://")) {
            problems.push("queue.url: must begin with amqp:// or amqps://, or be `memory`".to_owned());
        }
        if self.store.max_connections == 0 {
            problems.push("store.max_connections: must be at least 1".to_owned());
        }
        if self.smtp.url.is_some() && self.smtp.from.is_none() {
            problems
                .push("smtp.from: is needed beside smtp.url, for example `Copass <no-reply@example.com>`".to_owned());
        }
        problems.extend(self.models.problems());
        problems.extend(self.runs.problems());
        if let Some(url) = &self.tools.http_url
            && !(["http", "https"].contains(&url.scheme()) && url.has_host())
        {
            problems.push("tools.http_url: must begin with http:// or https://".to_owned());
        }
        for (name, service) in [
            ("concierge", &self.services.concierge),
            ("agent_runner", &self.services.agent_runner),
            ("trigger_dispatcher", &self.services.trigger_dispatcher),
            ("ingestion", &self.services.ingestion),
        ] {
            if !service.address.starts_with("http://") && !service.address.starts_with("https://") {
                problems.push(format!("services.{name}.address: must begin with http:// or https://"));
            }
        }
        if self.gateway.body_limit_bytes == 0 {
            problems.push("gateway.body_limit_bytes: must be at least 1".to_owned());
        }
        if self.gateway.requests_per_minute == 0 || self.gateway.logins_per_minute == 0 {
            problems.push("gateway.requests_per_minute and gateway.logins_per_minute: must be at least 1".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        let directory = std::env::temp_dir().join(format!("copass-config-{}", ulid::Ulid::generate()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("copass.toml");
        std::fs::write(&file, "[gateway]\nlisten = \"nonsense\"\n").unwrap();
        let text = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(text.contains("listen"), "{text}");
        std::fs::write(&file, "[gateway]\nlsten = \"127.0.0.1:1\"\n").unwrap();
        let text = Config::load(Some(&file)).unwrap_err().to_string();
        assert!(text.contains("lsten"), "{text}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn every_problem_is_listed_at_once() {
        let mut config = Config::default();
        config.store.url = "mysql://x".to_owned();
        config.queue.url = "kafka".to_owned();
        config.secrets.master_keys = vec![Secret::new("short")];
        assert_eq!(config.problems().len(), 3);
        assert!(Config::default().problems().is_empty());
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(matches!(
            Config::load(Some(std::path::Path::new("/nonexistent/copass.toml"))),
            Err(ConfigError::FileMissing(_))
        ));
    }
}
