//! The gRPC faces: conversion only. Rules live in `app`.

pub(crate) mod concierge;
pub(crate) mod identity;
pub(crate) mod sandbox;

use copass_errors::{Error, Result};
use copass_proto::convert;
use copass_store::idempotency::KeyedRequest;
use copass_types::UserId;
use prost::Message;
use prost_types::Timestamp;
use serde_json::Value;

/// The keyed request of a person, when the client sent an `Idempotency-Key`. The key itself is not part of the content.
fn keyed<M: Message>(
    user_id: Option<&UserId>,
    operation: &str,
    key: Option<String>,
    content: &M,
) -> Option<KeyedRequest> {
    let scope = format!("{operation}:{}", user_id.map(UserId::as_str).unwrap_or_default());
    key.map(|key| KeyedRequest::new(scope, key, &content.encode_to_vec()))
}

fn json_object(field: &str, text: Option<String>) -> Result<Option<Value>> {
    text.map(|text| serde_json::from_str(&text).map_err(|_| Error::invalid_field(field, "must be a JSON object")))
        .transpose()
}

fn optional_timestamp(at: Option<chrono::DateTime<chrono::Utc>>) -> Option<Timestamp> {
    at.map(convert::timestamp)
}
