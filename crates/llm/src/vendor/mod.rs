//! Real models: Anthropic, Google Gemini, and everything that speaks OpenAI's chat completions (`hermes`).
//!
//! The wire formats are the business of the library `genai`; this module stands between it and the port and sees to what
//! the port promises and the library does not:
//!
//! * [`request`] – our conversation in its words: no empty parts, every call with its result, the model's name untouched,
//! * [`names`] – tool names that every vendor takes, and back,
//! * [`meter`] – usage to the token, read from the wire, because the library loses or adds parts of it,
//! * [`calls`] – the tool calls of OpenAI's format, put together from the wire,
//! * [`answer`] – the stream: complete calls only, one finish, bounded in size,
//! * [`joined`] – text that comes fast, in fewer pieces,
//! * [`fault`] – errors with a kind, the waiting time asked for, and one sentence without anything foreign in it.
//!
//! Nothing is tried twice here: whoever runs the turn knows what has been said already, and decides.
//!
//! Two things the library does cannot be bounded from here, because it takes the HTTP client as it is and shows frames
//! only when they are whole. A server that sends one line without end is read within a single poll, and each piece copies
//! the line again: a core is lost and memory grows until the connection ends, and neither a time-out nor a cancellation
//! reaches the task. And the body of an answer with an error status is read whole before anybody sees it, as fast as the
//! server sends it. So a base address must be one the operator trusts, which only the operator can set.

mod answer;
mod calls;
mod fault;
mod joined;
mod meter;
mod names;
mod request;

use std::sync::Arc;

use async_trait::async_trait;
use copass_runtime::{Secret, egress::Egress};
use genai::{
    Headers, ModelIden, ServiceTarget,
    adapter::AdapterKind,
    resolver::{AuthData, Endpoint},
};
use url::Url;

use crate::port::{Error, ErrorKind, EventStream, Provider, Request};

use joined::Joined;
use meter::Meter;
use names::Names;

/// The Messages API version that is spoken.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Which wire format a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Anthropic's Messages API.
    Anthropic,
    /// Google's Gemini API.
    Google,
    /// OpenAI's chat completions, by whoever speaks them.
    Hermes,
}

impl Backend {
    /// All backends.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::Google, Self::Hermes];

    /// The name in agents' settings, in the configuration and in traces.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Hermes => "hermes",
        }
    }

    /// The backend of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }

    /// The environment variables that customarily hold the key, the first one that is set wins.
    pub fn key_variables(self) -> &'static [&'static str] {
        match self {
            Self::Anthropic => &["ANTHROPIC_API_KEY"],
            Self::Google => &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
            Self::Hermes => &[],
        }
    }

    fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Google => Some("https://generativelanguage.googleapis.com"),
            Self::Hermes => None,
        }
    }

    fn adapter(self) -> AdapterKind {
        match self {
            Self::Anthropic => AdapterKind::Anthropic,
            Self::Google => AdapterKind::Gemini,
            Self::Hermes => AdapterKind::OpenAI,
        }
    }

    /// The model as the vendor calls it: without our own prefix.
    fn wire_model(self, model: &str) -> &str {
        let model = model
            .strip_prefix(self.name())
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(model);
        match self {
            Self::Google => model.strip_prefix("models/").unwrap_or(model),
            Self::Anthropic | Self::Hermes => model,
        }
    }
}

/// A backend cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum VendorError {
    /// There is no address to talk to.
    #[error("models.{0}.base_url is not set")]
    NoAddress(&'static str),
    /// The address cannot be one of an HTTP server.
    #[error("models.{0}.base_url is not an http(s) address")]
    BadAddress(&'static str),
    /// The key cannot be sent.
    #[error("the key for {0} holds characters that no key has")]
    BadKey(&'static str),
    /// The library refuses to start.
    #[error("the client for {0} cannot be made")]
    Client(&'static str),
}

/// The provider of one backend.
pub struct Vendor {
    backend: Backend,
    base_url: Url,
    key: Option<Secret>,
    client: genai::Client,
}

impl std::fmt::Debug for Vendor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Vendor")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl Vendor {
    /// The provider of a backend at an address; without one at the vendor's own.
    ///
    /// # Errors
    /// There is no address, or address or key cannot be used.
    pub fn new(
        backend: Backend,
        base_url: Option<Url>,
        key: Option<Secret>,
        egress: &Egress,
    ) -> Result<Self, VendorError> {
        let name = backend.name();
        let base_url = match base_url {
            Some(url) => url,
            None => backend
                .default_base_url()
                .ok_or(VendorError::NoAddress(name))?
                .parse()
                .map_err(|_| VendorError::BadAddress(name))?,
        };
        if base_url.cannot_be_a_base() || !["http", "https"].contains(&base_url.scheme()) {
            return Err(VendorError::BadAddress(name));
        }
        if key
            .as_ref()
            .is_some_and(|key| http::HeaderValue::try_from(key.expose()).is_err())
        {
            return Err(VendorError::BadKey(name));
        }
        let client = genai::Client::builder()
            .with_reqwest(egress.operator(&base_url))
            .build()
            .map_err(|_| VendorError::Client(name))?;
        Ok(Self {
            backend,
            base_url,
            key,
            client,
        })
    }

    /// The address and the headers of a request; the library's own guesses about them are not used.
    fn target(&self, model: &str) -> ServiceTarget {
        let url = endpoint_url(self.backend, &self.base_url, model);
        let key = self.key.as_ref().map(Secret::expose);
        let mut headers = Vec::with_capacity(2);
        match self.backend {
            Backend::Anthropic => {
                headers.push(("anthropic-version".to_owned(), ANTHROPIC_VERSION.to_owned()));
                headers.extend(key.map(|key| ("x-api-key".to_owned(), key.to_owned())));
            }
            Backend::Google => headers.extend(key.map(|key| ("x-goog-api-key".to_owned(), key.to_owned()))),
            Backend::Hermes => headers.extend(key.map(|key| ("authorization".to_owned(), format!("Bearer {key}")))),
        }
        ServiceTarget {
            // Only for the library's bookkeeping: the address of the request is the one in `auth`.
            endpoint: Endpoint::from_owned(self.base_url.as_str()),
            auth: AuthData::RequestOverride {
                url: url.into(),
                headers: Headers::from(headers),
            },
            model: ModelIden::new(self.backend.adapter(), model),
        }
    }
}

/// Where requests for a model go. A base address may end before or after the version.
fn endpoint_url(backend: Backend, base: &Url, model: &str) -> Url {
    let mut url = base.clone();
    let last = base
        .path_segments()
        .and_then(|mut segments| segments.rfind(|segment| !segment.is_empty()))
        .map(str::to_owned);
    let has_version = matches!(last.as_deref(), Some("v1" | "v1beta" | "v1alpha"));
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        match backend {
            Backend::Anthropic if has_version => path.push("messages"),
            Backend::Anthropic => path.extend(["v1", "messages"]),
            Backend::Google => {
                if !has_version {
                    path.push("v1beta");
                }
                path.push("models").push(&format!("{model}:streamGenerateContent"))
            }
            // Routers have the version anywhere in their path, so only a bare host gets one.
            Backend::Hermes if last.is_none() => path.extend(["v1", "chat", "completions"]),
            Backend::Hermes => path.extend(["chat", "completions"]),
        };
    }
    if backend == Backend::Google {
        url.query_pairs_mut().append_pair("alt", "sse");
    }
    url
}

#[async_trait]
impl Provider for Vendor {
    fn name(&self) -> &str {
        self.backend.name()
    }

    async fn stream(&self, mut request: Request) -> Result<EventStream, Error> {
        let model = self.backend.wire_model(&request.model).to_owned();
        if model.is_empty() {
            let message = format!("no model is named for {}: set the agent's model", self.backend.name());
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        let names = Names::new(&request.tools);
        let meter = Arc::new(Meter::new(self.backend));
        let options = request::options(self.backend, &model, &request).with_raw_frame_sink_arc(meter.clone());
        let used_ids = request::call_ids(&request.messages);
        let conversation = request::conversation(self.backend, &mut request, &names);
        let response = self
            .client
            .exec_chat_stream(self.target(&model), conversation, Some(&options))
            .await
            .map_err(|error| fault::of_stream(self.backend, &error))?;
        let answer = answer::Answer::new(self.backend, names, meter, used_ids);
        Ok(Box::pin(Joined::new(Box::pin(answer.events(response.stream)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_end_before_or_after_the_version() {
        let url = |backend, base: &str, model: &str| {
            let url: String = endpoint_url(backend, &base.parse().unwrap(), model).into();
            url
        };
        for (backend, base, expected) in [
            (Backend::Anthropic, "https://a.example", "https://a.example/v1/messages"),
            (
                Backend::Anthropic,
                "https://a.example/v1/",
                "https://a.example/v1/messages",
            ),
            (
                Backend::Anthropic,
                "http://h/proxy/anthropic",
                "http://h/proxy/anthropic/v1/messages",
            ),
            (
                Backend::Hermes,
                "http://127.0.0.1:1234",
                "http://127.0.0.1:1234/v1/chat/completions",
            ),
            (
                Backend::Hermes,
                "https://r.example/api/v1",
                "https://r.example/api/v1/chat/completions",
            ),
            (
                Backend::Google,
                "https://g.example/",
                "https://g.example/v1beta/models/m:streamGenerateContent?alt=sse",
            ),
            (
                Backend::Google,
                "https://g.example/v1beta",
                "https://g.example/v1beta/models/m:streamGenerateContent?alt=sse",
            ),
        ] {
            assert_eq!(url(backend, base, "m"), expected);
        }
        let hostile = url(Backend::Google, "https://g.example", "../../x?y#z");
        assert!(
            hostile.starts_with("https://g.example/v1beta/models/..%2F..%2Fx%3Fy%23z:stream"),
            "{hostile}"
        );
    }

    #[test]
    fn our_own_prefix_is_not_sent() {
        for (backend, model, expected) in [
            (
                Backend::Hermes,
                "hermes/anthropic/claude-sonnet-4-5",
                "anthropic/claude-sonnet-4-5",
            ),
            (
                Backend::Hermes,
                "anthropic/claude-sonnet-4-5",
                "anthropic/claude-sonnet-4-5",
            ),
            (Backend::Hermes, "hermes-3-llama", "hermes-3-llama"),
            (Backend::Anthropic, "anthropic/claude-sonnet-4-6", "claude-sonnet-4-6"),
            (Backend::Google, "google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ] {
            assert_eq!(backend.wire_model(model), expected);
        }
    }

    #[test]
    fn keys_do_not_appear_in_debug_output() {
        let vendor = Vendor::new(
            Backend::Hermes,
            Some("http://127.0.0.1:1".parse().unwrap()),
            Some(Secret::new("canary")),
            &Egress::new().unwrap(),
        )
        .unwrap();
        assert!(!format!("{vendor:?} {:?}", vendor.target("m")).contains("canary"));
    }
}
