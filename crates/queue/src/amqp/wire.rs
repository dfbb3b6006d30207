//! How a [`Message`] looks on the wire: the body as JSON, id and kind as AMQP properties, headers as headers. Everything
//! is visible in the broker's own tools, and any AMQP client can write one.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};

use crate::message::is_reserved;
use crate::{DeadLetter, Message};

/// The attempt that the next delivery is, before the broker's own count of returns is added.
const ATTEMPT: &str = "x-copass-attempt";
/// What is left of a delay that was longer than the longest step.
const DELAY_LEFT_MS: &str = "x-copass-delay-left-ms";
/// Why a message is a dead letter.
const REASON: &str = "x-copass-reason";
/// Who sent a broadcast, and its number, so that a subscriber sees gaps.
const SENDER: &str = "x-copass-sender";
const SEQUENCE: &str = "x-copass-sequence";
/// Set by quorum queues: how often the message came back.
const DELIVERY_COUNT: &str = "x-delivery-count";

const PERSISTENT: u8 = 2;

/// A message as bytes and properties.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    pub(super) payload: Bytes,
    pub(super) properties: BasicProperties,
}

/// What a delivery turned out to be.
pub(super) enum Decoded {
    Message {
        message: Message,
        /// Not due yet: deliver after this.
        delay_left: Duration,
    },
    /// Not a message, and why.
    Poison(String),
}

/// Encodes a message for its next delivery.
pub(super) fn encode(message: &Message, attempt: u32, delay_left: Duration) -> Encoded {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
    }
    if attempt > 1 {
        headers.insert(ATTEMPT.into(), AMQPValue::LongLongInt(attempt.into()));
    }
    if !delay_left.is_zero() {
        let millis = i64::try_from(delay_left.as_millis()).unwrap_or(i64::MAX).max(1);
        headers.insert(DELAY_LEFT_MS.into(), AMQPValue::LongLongInt(millis));
    }
    let properties = BasicProperties::default()
        .with_message_id(message.id.as_str().into())
        .with_type(message.kind.as_str().into())
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    Encoded {
        payload: Bytes::from(message.body.to_string()),
        properties,
    }
}

/// Marks what is sent to the dead letters; also used for what is not a message, which keeps its own properties.
pub(super) fn with_reason(mut encoded: Encoded, reason: &str) -> Encoded {
    let mut headers = encoded.properties.headers().clone().unwrap_or_default();
    headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
    encoded.properties = encoded.properties.with_headers(headers).with_delivery_mode(PERSISTENT);
    encoded
}

/// Marks a broadcast with its sender and number.
pub(super) fn with_sequence(mut encoded: Encoded, sender: &str, sequence: u64) -> Encoded {
    let mut headers = encoded.properties.headers().clone().unwrap_or_default();
    headers.insert(SENDER.into(), AMQPValue::LongString(sender.into()));
    headers.insert(
        SEQUENCE.into(),
        AMQPValue::LongLongInt(i64::try_from(sequence).unwrap_or(i64::MAX)),
    );
    encoded.properties = encoded.properties.with_headers(headers);
    encoded
}

/// The sender and number of a broadcast.
pub(super) fn sequence(properties: &BasicProperties) -> Option<(String, u64)> {
    let sender = text_header(properties, SENDER)?;
    let sequence = int_header(properties, SEQUENCE)?;
    Some((sender, u64::try_from(sequence).ok()?))
}

/// Reads a delivery.
pub(super) fn decode(delivery: &Delivery) -> Decoded {
    let properties = &delivery.properties;
    match message(properties, &delivery.data) {
        Ok(mut message) => {
            let first = int_header(properties, ATTEMPT)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(1)
                .max(1);
            // Brokers that do not count returns at least say that there was one.
            let returns = int_header(properties, DELIVERY_COUNT)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0);
            message.attempt = first.saturating_add(returns.max(u32::from(delivery.redelivered)));
            let left = int_header(properties, DELAY_LEFT_MS)
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or(0);
            Decoded::Message {
                message,
                delay_left: Duration::from_millis(left),
            }
        }
        Err(reason) => Decoded::Poison(reason),
    }
}

/// Reads a dead letter, whoever put it there.
pub(super) fn dead_letter(delivery: Delivery) -> DeadLetter {
    let properties = &delivery.properties;
    let mut message = message(properties, &delivery.data).ok();
    if let Some(message) = &mut message {
        message.attempt = int_header(properties, ATTEMPT)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(1);
    }
    let reason = text_header(properties, REASON)
        .or_else(|| {
            text_header(properties, "x-first-death-reason").map(|reason| format!("the broker gave up: {reason}"))
        })
        .unwrap_or_else(|| "put here without a reason".to_owned());
    DeadLetter {
        message,
        raw: Bytes::from(delivery.data),
        reason,
    }
}

fn message(properties: &BasicProperties, payload: &[u8]) -> Result<Message, String> {
    let id = properties
        .message_id()
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    if id.is_empty() {
        return Err("not a message: it has no id".to_owned());
    }
    let kind = properties.kind().as_ref().map(ToString::to_string).unwrap_or_default();
    if kind.is_empty() {
        return Err("not a message: it has no kind".to_owned());
    }
    let body =
        serde_json::from_slice(payload).map_err(|error| format!("not a message: its body is not JSON: {error}"))?;
    let mut headers = BTreeMap::new();
    if let Some(table) = properties.headers() {
        for (name, value) in table {
            if let AMQPValue::LongString(value) = value
                && !is_reserved(name.as_str())
            {
                headers.insert(name.to_string(), value.to_string());
            }
        }
    }
    Ok(Message {
        id,
        kind,
        body,
        headers,
        attempt: 1,
    })
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn text_header(properties: &BasicProperties, name: &str) -> Option<String> {
    match header(properties, name)? {
        AMQPValue::LongString(value) => Some(value.to_string()),
        AMQPValue::ShortString(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Brokers and clients pick the width of an integer as they like.
fn int_header(properties: &BasicProperties, name: &str) -> Option<i64> {
    Some(match header(properties, name)? {
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => *value,
        _ => return None,
    })
}
