//! What travels: one self-contained, versioned, JSON message.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

/// One message. The same value goes in and comes out, except for [`attempt`](Self::attempt), which the queue counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Unique and stable: a repeated delivery has the same id, which is what an inbox compares.
    pub id: String,
    /// What happened or is wanted, with its version: `sandbox.destroyed.v1`.
    pub kind: String,
    /// The content; its shape belongs to `kind`.
    pub body: Value,
    /// Side information that is not content: `traceparent`, `tracestate`, the tenant for logs.
    pub headers: BTreeMap<String, String>,
    /// 1 on first delivery, one more each time. Ignored by `publish`, which starts at 1 again.
    pub attempt: u32,
}

impl Message {
    /// A message with a new time-ordered id.
    pub fn new(kind: impl Into<String>, body: Value) -> Self {
        Self::with_id(uuid::Uuid::now_v7().to_string(), kind, body)
    }

    /// A message whose id is known already, as the outbox's is.
    pub fn with_id(id: impl Into<String>, kind: impl Into<String>, body: Value) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
            body,
            headers: BTreeMap::new(),
            attempt: 1,
        }
    }

    /// The message with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// The content as a Rust type. A consumer that cannot read it dead-letters the delivery.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.body)
    }

    /// Refuses what one of the implementations could not carry, so that no other one carries it by accident.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let reason = if self.id.is_empty() || self.id.len() > 255 {
            "the id must have 1 to 255 bytes".to_owned()
        } else if self.kind.is_empty() || self.kind.len() > 255 {
            "the kind must have 1 to 255 bytes".to_owned()
        } else if let Some(name) = self
            .headers
            .keys()
            .find(|name| name.is_empty() || name.len() > 128 || is_reserved(name))
        {
            format!("the header name {name:?} is empty, longer than 128 bytes or belongs to the broker")
        } else {
            return Ok(());
        };
        Err(Error::InvalidMessage { reason })
    }
}

/// Header names that brokers or this crate set, and that are therefore neither sent nor shown as the message's own.
pub(crate) fn is_reserved(name: &str) -> bool {
    [
        "x-copass-",
        "x-death",
        "x-first-death-",
        "x-last-death-",
        "x-delivery-count",
        "x-acquired-count",
        "x-opt-",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// A message that nobody could handle, kept for a person to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The message, unless what arrived was not one.
    pub message: Option<Message>,
    /// The body as it arrived, also when it was not a message.
    pub raw: Bytes,
    /// Why it is here.
    pub reason: String,
}
