//! The gRPC faces: conversion only. Rules live in `app`.

pub(crate) mod concierge;
pub(crate) mod identity;
pub(crate) mod sandbox;

use copass_errors::{Error, Result};
use copass_proto::convert;
use copass_runtime::CallContext;
use copass_store::idempotency::KeyedRequest;
use copass_types::{ConnectionId, UserId};
use prost::Message;
use prost_types::Timestamp;
use serde_json::Value;

/// The keyed request of a caller, when the client sent an `Idempotency-Key`. The key itself is not part of the content.
/// Callers do not share answers, nor do a person and somebody with a key of one of their grants.
fn keyed<M: Message>(
    context: &CallContext,
    operation: &str,
    key: Option<String>,
    content: &M,
) -> Result<Option<KeyedRequest>> {
    let principal = &context.principal;
    let person = principal.user_id.as_ref().map(UserId::as_str).unwrap_or_default();
    let grant = principal
        .connection_id
        .as_ref()
        .map(ConnectionId::as_str)
        .unwrap_or_default();
    let scope = format!("{operation}:{person}:{grant}");
    key.map(|key| KeyedRequest::checked(scope, key, &content.encode_to_vec()))
        .transpose()
}

/// A first answer as it was kept.
fn decode<M: Message + Default>(answer: &[u8]) -> Result<M> {
    M::decode(answer).map_err(Error::internal)
}

fn json_object(field: &str, text: Option<String>) -> Result<Option<Value>> {
    text.map(|text| serde_json::from_str(&text).map_err(|_| Error::invalid_field(field, "must be a JSON object")))
        .transpose()
}

fn optional_timestamp(at: Option<chrono::DateTime<chrono::Utc>>) -> Option<Timestamp> {
    at.map(convert::timestamp)
}
