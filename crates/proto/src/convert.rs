//! Small conversions between wire values and Rust values, shared by every service.

use chrono::{DateTime, Utc};
use copass_errors::{Error, Result};
use prost_types::Timestamp;
use serde_json::Value;

/// An instant for the wire.
#[must_use]
pub fn timestamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

/// An instant from the wire; `None` when it is outside the calendar.
#[must_use]
pub fn instant(timestamp: &Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(timestamp.seconds, u32::try_from(timestamp.nanos).ok()?)
}

/// JSON text of a field that another service wrote.
///
/// # Errors
/// `internal_error` when the text is not JSON: the other service broke its contract.
pub fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(Error::internal)
}

/// Parses an id from a request; a malformed id is treated as unknown.
///
/// # Errors
/// `not_found`, with `what` as the name of the thing.
pub fn id<T: std::str::FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| Error::not_found(what))
}
