//! Text of models and tools, made fit to be kept: PostgreSQL stores no NUL character, and no reader wants one.

use serde_json::Value;

const REPLACEMENT: &str = "\u{fffd}";

/// The text with every NUL replaced.
pub(super) fn text(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', REPLACEMENT)
    } else {
        text
    }
}

/// The value with every NUL in names and texts replaced.
pub(super) fn value(value: Value) -> Value {
    if copass_types::validate::json_has_nul(&value) {
        replace(value)
    } else {
        value
    }
}

fn replace(value: Value) -> Value {
    match value {
        Value::String(string) => text(string).into(),
        Value::Array(items) => items.into_iter().map(replace).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (text(name), replace(field)))
            .collect(),
        other => other,
    }
}
