//! Text of models and tools, made fit to be kept: PostgreSQL stores no NUL character, and no reader wants one; JSON that is
//! nested without end is written by everybody and read by nobody.

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

/// Levels of JSON that are kept; what is kept stands inside of other objects, and parsers stop at 128.
pub(super) const MAX_DEPTH: usize = 64;

/// Whether the value is nested more deeply than is kept.
pub(super) fn is_too_deep(value: &Value) -> bool {
    fn exceeds(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(items) => levels == 0 || items.iter().any(|item| exceeds(item, levels - 1)),
            Value::Object(fields) => levels == 0 || fields.values().any(|field| exceeds(field, levels - 1)),
            _ => false,
        }
    }
    exceeds(value, MAX_DEPTH)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_is_counted_in_objects_and_lists() {
        let mut value = json!("x");
        for level in 0..MAX_DEPTH {
            assert!(!is_too_deep(&value), "{level}");
            value = if level % 2 == 0 {
                json!({ "a": value })
            } else {
                json!([value])
            };
        }
        assert!(!is_too_deep(&value));
        assert!(is_too_deep(&json!({ "a": value })));
    }
}
