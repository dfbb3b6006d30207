//! Rules for values that people choose, one function each, used at every entrance.
//!
//! Each function returns the sentence to show; the caller knows the field's name.

use std::sync::LazyLock;

use regex::Regex;

/// Slugs that would collide with routes beside `{slug}` (`rest.md` 12).
pub const RESERVED_SLUGS: [&str; 4] = ["run", "runs", "tools", "triggers"];

/// Longest agent slug.
pub const SLUG_MAX_CHARS: usize = 64;
/// Longest name of anything (`rest.md` 5.1, 8.1).
pub const NAME_MAX_CHARS: usize = 255;
/// Longest API key name (`rest.md` 3.1).
pub const KEY_NAME_MAX_CHARS: usize = 128;
/// Longest system prompt, in bytes.
pub const PROMPT_MAX_BYTES: usize = 200_000;
/// Longest message to the Concierge, in characters (`rest.md` 15).
pub const MESSAGE_MAX_CHARS: usize = 4000;
/// Longest free description, in characters.
pub const DESCRIPTION_MAX_CHARS: usize = 4000;
/// Largest metadata object, in bytes of its JSON text.
pub const METADATA_MAX_BYTES: usize = 65_536;
/// Most model answers of one run that an agent may ask for.
pub const MAX_TURNS: u32 = 200;
/// Longest run that an agent may ask for, in seconds.
pub const MAX_TIMEOUT_S: u32 = 3600;

static HANDLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[a-z0-9](?:[a-z0-9]|[._-][a-z0-9])*$").ok());

/// Text that must not be empty (after trimming) nor longer than `max_chars` characters, and holds no control characters.
///
/// # Errors
/// The sentence that says what is wrong.
pub fn name(text: &str, max_chars: usize) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    length(text, max_chars)?;
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    Ok(())
}

/// Free text: at most `max_chars` characters, no NUL (PostgreSQL cannot store it).
///
/// # Errors
/// The sentence that says what is wrong.
pub fn length(text: &str, max_chars: usize) -> Result<(), String> {
    if text.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    // Characters are at least one byte, so a short text is not counted.
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(format!("must have at most {max_chars} characters"));
    }
    Ok(())
}

/// An agent's slug: `^[a-z0-9-]+$`, at most 64 characters, not reserved (`rest.md` 12.A, 12).
///
/// # Errors
/// The sentence that says what is wrong.
pub fn agent_slug(slug: &str) -> Result<(), String> {
    if slug.is_empty()
        || !slug
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        return Err("must consist of lowercase letters, digits and hyphens (^[a-z0-9-]+$)".to_owned());
    }
    if slug.len() > SLUG_MAX_CHARS {
        return Err(format!("must have at most {SLUG_MAX_CHARS} characters"));
    }
    if RESERVED_SLUGS.contains(&slug) {
        return Err(format!("'{slug}' is reserved; choose another slug"));
    }
    Ok(())
}

/// A Copass ID without its `@`: 3 to 30 of `[a-z0-9._-]`, ends alphanumeric, no two special characters in a row
/// (`rest.md` 2).
///
/// # Errors
/// The sentence that says what is wrong.
pub fn handle(handle: &str) -> Result<(), String> {
    let well_formed = (3..=30).contains(&handle.len()) && HANDLE.as_ref().is_some_and(|regex| regex.is_match(handle));
    if well_formed {
        Ok(())
    } else {
        Err(
            "must have 3 to 30 characters of a-z, 0-9, '.', '_', '-', begin and end with a letter or digit, \
             and have no two special characters in a row"
                .to_owned(),
        )
    }
}

/// An e-mail address, checked for shape only; the code that is sent to it is the real check.
///
/// # Errors
/// The sentence that says what is wrong.
pub fn email(email: &str) -> Result<(), String> {
    let bad = Err("must be an e-mail address such as name@example.com".to_owned());
    if email.len() > 254
        || email
            .chars()
            // The rest would make a mailbox or a list of an address: `x<victim@example.com>`.
            .any(|character| character.is_control() || character.is_whitespace() || "<>()[]\\,;:\"".contains(character))
    {
        return bad;
    }
    match email.rsplit_once('@') {
        Some((local, domain))
            if !local.is_empty()
                && local.len() <= 64
                && !local.contains('@')
                && !domain.is_empty()
                && !domain.starts_with('.')
                && !domain.ends_with('.') =>
        {
            Ok(())
        }
        _ => bad,
    }
}

/// Depth of nesting of a JSON value (a scalar has depth 1).
#[must_use]
pub fn json_depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(json_depth).max().unwrap_or(0),
        serde_json::Value::Object(map) => 1 + map.values().map(json_depth).max().unwrap_or(0),
        _ => 1,
    }
}

/// Whether any string of the value, keys included, holds a NUL character, which PostgreSQL's `jsonb` refuses.
#[must_use]
pub fn json_has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(json_has_nul),
        serde_json::Value::Object(map) => map.iter().any(|(key, item)| key.contains('\0') || json_has_nul(item)),
        _ => false,
    }
}

/// A caller's JSON object that is stored as it is: at most 64 KiB, at most 32 levels deep, no NUL characters.
///
/// # Errors
/// The sentence that says what is wrong.
pub fn stored_object(value: &serde_json::Value) -> Result<(), String> {
    if !value.is_object() {
        return Err("must be a JSON object".to_owned());
    }
    if value.to_string().len() > METADATA_MAX_BYTES {
        return Err(format!("must be at most {METADATA_MAX_BYTES} bytes of JSON"));
    }
    if json_depth(value) > 32 {
        return Err("must be at most 32 levels deep".to_owned());
    }
    if json_has_nul(value) {
        return Err("must not contain NUL characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        for good in ["support", "a", "0", "a-b-1"] {
            assert_eq!(agent_slug(good), Ok(()), "{good}");
        }
        for bad in [
            "", "Support", "a_b", "a b", "ä", "run", "runs", "tools", "triggers", "a/b",
        ] {
            assert!(agent_slug(bad).is_err(), "{bad}");
        }
        assert!(agent_slug(&"a".repeat(65)).is_err());
    }

    #[test]
    fn handles() {
        for good in ["abc", "a.b", "a_b-c", "alice99"] {
            assert_eq!(handle(good), Ok(()), "{good}");
        }
        for bad in ["ab", ".ab", "ab.", "a..b", "a._b", "Alice", "a b c", "ä12", "@abc"] {
            assert!(handle(bad).is_err(), "{bad}");
        }
        assert!(handle(&"a".repeat(31)).is_err());
    }

    #[test]
    fn emails() {
        for good in ["a@b", "a@b.c", "a+b@example.com"] {
            assert_eq!(email(good), Ok(()), "{good}");
        }
        for bad in [
            "", "a", "@b", "a@", "a b@c", "a@b@c", "a@.b", "a\n@b", "x<a@b.c>", "a,b@c", "\"a\"@b",
        ] {
            assert!(email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_objects() {
        assert!(name("  ", 10).is_err());
        assert!(name("a\u{0}b", 10).is_err());
        assert!(name("ääää", 4).is_ok());
        assert!(name("äääää", 4).is_err());
        assert!(stored_object(&serde_json::json!({"a": "\u{0}"})).is_err());
        assert!(stored_object(&serde_json::json!([])).is_err());
        assert!(stored_object(&serde_json::json!({"a": {"b": 1}})).is_ok());
    }
}
