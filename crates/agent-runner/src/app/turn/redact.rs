//! Keeps secrets out of what is stored (`tools.md` 1): a tool result may show a new key once, to the person; the journal,
//! the history and the stored reply never hold it.
//!
//! Three nets: fields that by name carry a secret lose their value; so does text that has the form of a well-known
//! credential; and what was found in a result in either way is taken out of every other text of the run, because models
//! repeat what they read. Names that as often carry something else (the `key` of a file, the `token` of a next page) are
//! left alone: what is taken out of an answer is missing in it.

use std::collections::HashSet;

use aho_corasick::{AhoCorasick, MatchKind};
use copass_llm::{Message, ToolCall};
use serde_json::Value;

use crate::app::secrets_scan;

/// In small letters, without anything between them.
const SECRET_FIELDS: [&str; 20] = [
    "plaintextkey",
    "webhooksigningsecret",
    "webhooksecret",
    "signingsecret",
    "secret",
    "clientsecret",
    "secretkey",
    "secretaccesskey",
    "apikey",
    "xapikey",
    "apitoken",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "bearertoken",
    "sessiontoken",
    "password",
    "passwd",
    "privatekey",
    "authorization",
];
/// Shorter values are words that other texts contain by chance.
const MIN_REMEMBERED_BYTES: usize = 12;
/// What one run remembers; a tool that shows more than that means to keep this process busy. What it shows beyond is
/// still taken out of the fields it stands in.
const MAX_REMEMBERED: usize = 1000;
const MAX_REMEMBERED_BYTES: usize = 64 * 1024;
/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "<redacted>";

/// The secrets one run has seen.
#[derive(Default)]
pub(crate) struct Redactor {
    seen: HashSet<String>,
    bytes: usize,
    /// Finds all of them in one pass.
    finder: Option<AhoCorasick>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Redactor({} secrets)", self.seen.len())
    }
}

impl Redactor {
    /// Remembers the secrets in a tool's result.
    pub(crate) fn learn(&mut self, value: &Value) {
        let known = self.seen.len();
        self.collect(value);
        if self.seen.len() > known {
            self.finder = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(&self.seen)
                .inspect_err(|error| tracing::error!(%error, "secrets cannot be looked for"))
                .ok();
        }
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        Value::String(secret) if is_secret(name) => self.remember(secret),
                        other => self.collect(other),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::String(text) => secrets_scan::all(text)
                .into_iter()
                .for_each(|place| self.remember(&text[place])),
            _ => {}
        }
    }

    fn remember(&mut self, secret: &str) {
        let fits = self.seen.len() < MAX_REMEMBERED && self.bytes + secret.len() <= MAX_REMEMBERED_BYTES;
        if fits && secret.len() >= MIN_REMEMBERED_BYTES && self.seen.insert(secret.to_owned()) {
            self.bytes += secret.len();
        }
    }

    /// The text without the secrets seen so far.
    pub(crate) fn text(&self, text: &str) -> String {
        match &self.finder {
            Some(finder) if finder.is_match(text) => {
                let mut redacted = String::with_capacity(text.len());
                finder.replace_all_with(text, &mut redacted, |_, _, redacted| {
                    redacted.push_str(REDACTED);
                    true
                });
                redacted
            }
            _ => text.to_owned(),
        }
    }

    /// The value without secret fields and without the secrets seen so far.
    pub(crate) fn value(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(name, field)| {
                    let field = match field {
                        Value::String(secret) if is_secret(name) && !secret.is_empty() => REDACTED.into(),
                        other => self.value(other),
                    };
                    (name.clone(), field)
                })
                .collect(),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::String(text) => without_credentials(self.text(text)).into(),
            other => other.clone(),
        }
    }

    /// The call as it is kept.
    pub(crate) fn call(&self, call: &ToolCall) -> ToolCall {
        // Providers sign what belongs to a call, so it is whole or it is not there.
        let is_clean = |continuation: &&Value| self.finder.as_ref().is_none_or(|finder| !finds(finder, continuation));
        ToolCall {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            arguments: self.value(&call.arguments),
            continuation: call.continuation.as_ref().filter(is_clean).cloned(),
        }
    }

    /// The message as the history keeps it.
    pub(crate) fn message(&self, message: &Message) -> Message {
        match message {
            Message::User { text } => Message::User { text: text.clone() },
            Message::Assistant { text, tool_calls } => Message::Assistant {
                text: self.text(text),
                tool_calls: tool_calls.iter().map(|call| self.call(call)).collect(),
            },
            Message::Tool {
                call_id,
                name,
                result,
                error,
            } => Message::Tool {
                call_id: call_id.clone(),
                name: name.clone(),
                result: self.value(result),
                error: error.as_deref().map(|error| self.text(error)),
            },
        }
    }
}

/// Whether something was taken out of the value.
pub(super) fn is_redacted(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(REDACTED),
        Value::Array(items) => items.iter().any(is_redacted),
        Value::Object(fields) => fields.values().any(is_redacted),
        _ => false,
    }
}

fn is_secret(name: &str) -> bool {
    let letters = || {
        let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
        letters.map(|letter| letter.to_ascii_lowercase())
    };
    SECRET_FIELDS.iter().any(|field| letters().eq(field.bytes()))
}

fn finds(finder: &AhoCorasick, value: &Value) -> bool {
    match value {
        Value::String(text) => finder.is_match(text),
        Value::Array(items) => items.iter().any(|item| finds(finder, item)),
        Value::Object(fields) => fields.values().any(|field| finds(finder, field)),
        _ => false,
    }
}

fn without_credentials(mut text: String) -> String {
    for place in secrets_scan::all(&text).into_iter().rev() {
        text.replace_range(place, REDACTED);
    }
    text
}

/// What comes after the first `seen` bytes of a text of `bytes` bytes, of which `kept` is what was kept: the same, or the
/// same without secrets. What lies before or behind all of those is found exactly; a place among them begins again at the
/// first.
pub(crate) fn rest_of(kept: &str, bytes: usize, seen: usize) -> &str {
    let missing = bytes.saturating_sub(seen);
    let from = if missing == 0 {
        kept.len()
    } else if kept.len() == bytes {
        seen
    } else {
        let first = kept.find(REDACTED).unwrap_or(kept.len());
        let behind = kept.rfind(REDACTED).map_or(0, |last| last + REDACTED.len());
        if seen <= first {
            seen
        } else if missing <= kept.len() - behind {
            kept.len() - missing
        } else {
            first
        }
    };
    &kept[kept.floor_char_boundary(from)..]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secret_fields_lose_their_value_at_any_depth_and_the_rest_stays() {
        let mut redactor = Redactor::default();
        let result = json!({"keys": [{"plaintext_key": "olk_0123456789abcdef", "key_prefix": "olk_0123", "id": "ak_1"}],
            "password": null, "secret": 7, "webhook_signing_secret": ""});
        redactor.learn(&result);
        assert_eq!(
            redactor.value(&result),
            json!({"keys": [{"plaintext_key": REDACTED, "key_prefix": "olk_0123", "id": "ak_1"}],
                "password": null, "secret": 7, "webhook_signing_secret": ""})
        );
    }

    #[test]
    fn a_secret_is_taken_out_of_every_later_text() {
        let mut redactor = Redactor::default();
        redactor.learn(&json!({"source": {"webhook_signing_secret": "whsec_0123456789"}}));
        assert_eq!(redactor.text("keep whsec_0123456789 safe"), "keep <redacted> safe");
        let call = ToolCall::new("c", "t", json!({"note": "whsec_0123456789"}));
        let message = Message::Assistant {
            text: "it is whsec_0123456789".into(),
            tool_calls: vec![call],
        };
        assert!(
            !serde_json::to_string(&redactor.message(&message))
                .unwrap()
                .contains("whsec")
        );
    }

    #[test]
    fn a_tool_that_shows_secrets_without_end_keeps_nobody_busy() {
        let mut redactor = Redactor::default();
        let items: Vec<Value> = (0..20_000)
            .map(|number| json!({"api_key": format!("secret-number-{number}")}))
            .collect();
        let result = json!({ "items": items });
        let began = std::time::Instant::now();
        redactor.learn(&result);
        let text = redactor.value(&result).to_string();
        assert!(!text.contains("secret-number-"), "the fields are emptied all the same");
        assert_eq!(redactor.text("it is secret-number-7"), "it is <redacted>");
        assert!(
            began.elapsed() < std::time::Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn of_secrets_that_begin_alike_the_longest_goes() {
        let mut redactor = Redactor::default();
        redactor.learn(&json!([{"secret": "whsec_012345"}, {"secret": "whsec_0123456789"}]));
        assert_eq!(redactor.text("whsec_0123456789!"), "<redacted>!");
        assert!(is_redacted(&redactor.value(&json!({"note": ["a whsec_012345 b"]}))));
        assert!(!is_redacted(&json!({"note": ["whsec"]})));
    }

    #[test]
    fn short_values_are_not_hunted_in_other_texts() {
        let mut redactor = Redactor::default();
        redactor.learn(&json!({"secret": "status"}));
        assert_eq!(redactor.text("the status is fine"), "the status is fine");
    }

    #[test]
    fn what_only_might_be_a_secret_is_left_alone() {
        let mut redactor = Redactor::default();
        let objects = json!({"objects": [{"key": "reports/2026/q3.csv"}], "next_page_token": "abcdef0123456789",
            "token": "abcdef0123456789", "issue": {"key": "PROJ-17"}});
        redactor.learn(&objects);
        assert_eq!(redactor.value(&objects), objects);
        assert_eq!(redactor.text("it is reports/2026/q3.csv"), "it is reports/2026/q3.csv");
    }

    #[test]
    fn credentials_go_by_name_in_every_spelling_and_by_form() {
        let mut redactor = Redactor::default();
        let github = format!("ghp_{}", "a1".repeat(18));
        let call = ToolCall::new(
            "c",
            "t",
            json!({"api_key": "x", "apiKey": "x", "Access-Token": "x", "authorization": "Bearer abc", "password": "hunter2",
                "text": format!("use {github} here, and {github}"), "note": "sk-learn-based-models"}),
        );
        assert_eq!(
            redactor.call(&call).arguments,
            json!({"api_key": REDACTED, "apiKey": REDACTED, "Access-Token": REDACTED, "authorization": REDACTED,
                "password": REDACTED, "text": "use <redacted> here, and <redacted>", "note": "sk-learn-based-models"})
        );
        redactor.learn(&json!({"page": format!("token: {github}.")}));
        assert_eq!(redactor.text(&format!("It is {github}.")), "It is <redacted>.");
    }

    #[test]
    fn what_a_provider_signed_is_kept_whole_or_not_at_all() {
        let mut redactor = Redactor::default();
        let mut call = ToolCall::new("c", "t", json!({}));
        call.continuation = Some(json!([{"thinking": "the key is olk_0123456789abcdef", "signature": "s"}]));
        assert_eq!(redactor.call(&call), call);
        redactor.learn(&json!({"plaintext_key": "olk_0123456789abcdef"}));
        assert_eq!(redactor.call(&call).continuation, None);
        call.continuation = Some(json!([{"thinking": "nothing", "signature": "s"}]));
        assert_eq!(redactor.call(&call), call);
    }

    #[test]
    fn a_reader_goes_on_in_a_text_that_lost_a_secret() {
        let whole = "It is whsec_0123456789 and that is all.";
        let kept = "It is <redacted> and that is all.";
        let rest = |seen| rest_of(kept, whole.len(), seen);
        assert_eq!(rest(0), kept);
        assert_eq!(rest(3), "is <redacted> and that is all.");
        assert_eq!(rest(whole.len() - 4), "all.");
        assert_eq!(rest(10), "<redacted> and that is all.", "the place is in the secret");
        assert_eq!(rest(whole.len()), "");
        assert_eq!(rest(whole.len() + 7), "");
        assert_eq!(rest_of("löök", 6, 2), "öök", "whole characters");
    }
}
