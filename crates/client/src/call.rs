//! One request, before it is sent.

use std::time::Duration;

use reqwest::{
    Method, Url,
    header::{HeaderName, HeaderValue},
};
use serde::Serialize;

use crate::{Client, Error, Result};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout: Option<Duration>,
}

impl Call {
    /// A call of `/api/v1/<segments>`.
    pub(crate) fn api(client: &Client, method: Method, segments: &[&str]) -> Result<Self> {
        let segments: Vec<&str> = ["api", "v1"].iter().chain(segments).copied().collect();
        Self::plain(client, method, &segments)
    }

    /// A call of `/api/v1/storage/sandboxes/<segments>`.
    pub(crate) fn sandboxes(client: &Client, method: Method, segments: &[&str]) -> Result<Self> {
        let segments: Vec<&str> = ["storage", "sandboxes"].iter().chain(segments).copied().collect();
        Self::api(client, method, &segments)
    }

    /// A call of `/<segments>`.
    pub(crate) fn plain(client: &Client, method: Method, segments: &[&str]) -> Result<Self> {
        Ok(Self {
            method,
            url: client.url(segments)?,
            headers: Vec::new(),
            body: None,
            timeout: Some(DEFAULT_TIMEOUT),
        })
    }

    pub(crate) fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// Adds the query; absent values are left out.
    pub(crate) fn query(mut self, query: &impl Serialize) -> Result<Self> {
        let pairs = serde_json::to_value(query)
            .map_err(|error| Error::Invalid(format!("the query cannot be written: {error}")))?;
        for (name, value) in pairs.as_object().into_iter().flatten() {
            match value {
                serde_json::Value::Null => {}
                serde_json::Value::String(text) => drop(self.url.query_pairs_mut().append_pair(name, text)),
                serde_json::Value::Array(items) => {
                    for item in items {
                        let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                        self.url.query_pairs_mut().append_pair(name, &text);
                    }
                }
                other => drop(self.url.query_pairs_mut().append_pair(name, &other.to_string())),
            }
        }
        Ok(self)
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::Invalid(format!("the request cannot be written as JSON: {error}")))?;
        self.body = Some(body);
        Ok(self)
    }

    /// The call creates something: a fresh `Idempotency-Key` makes a repeat of this very request harmless.
    pub(crate) fn creates(self) -> Self {
        match HeaderValue::try_from(uuid::Uuid::new_v4().to_string()) {
            Ok(key) => self.header("idempotency-key", key),
            Err(_) => self,
        }
    }

    pub(crate) fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }
}
