//! What a request for a run may say: bounds of events, messages and keys, and what tells two requests apart.

use copass_errors::{Error, ErrorCode, FieldProblem, Result};
use copass_runtime::CallContext;
use copass_types::validate;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{AdHoc, event};
use crate::app::agent_rules::refuse_secret;

const END_USER_MAX_CHARS: usize = 128;
const AD_HOC_MAX_MESSAGES: usize = 100;
const IDEMPOTENCY_KEY_MAX_CHARS: usize = 255;

impl AdHoc {
    /// Checks everything but the model.
    pub(super) fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut check = |field: &str, outcome: std::result::Result<(), String>| {
            if let Err(message) = outcome {
                problems.push(FieldProblem::body(field, message));
            }
        };
        check("provider", not_empty(&self.provider));
        check("model", not_empty(&self.model));
        check(
            "system_prompt",
            validate::length(&self.system_prompt, validate::PROMPT_MAX_BYTES),
        );
        let is_url_safe = |character: char| character.is_ascii_alphanumeric() || "-_.~:".contains(character);
        let length = self.end_user_id.chars().count();
        check(
            "end_user_id",
            if (1..=END_USER_MAX_CHARS).contains(&length) && self.end_user_id.chars().all(is_url_safe) {
                Ok(())
            } else {
                Err(format!("must have 1 to {END_USER_MAX_CHARS} URL-safe characters"))
            },
        );
        let count = self.messages.len();
        check(
            "messages",
            if (1..=AD_HOC_MAX_MESSAGES).contains(&count) && self.messages.iter().all(|text| !text.trim().is_empty()) {
                Ok(())
            } else {
                Err(format!(
                    "must be 1 to {AD_HOC_MAX_MESSAGES} messages that say something"
                ))
            },
        );
        let bytes: usize = self.messages.iter().map(String::len).sum();
        check(
            "messages",
            if bytes <= event::MAX_EVENT_BYTES && self.messages.iter().all(|text| !text.contains('\0')) {
                Ok(())
            } else {
                Err(format!(
                    "must be at most {} bytes of text without NUL",
                    event::MAX_EVENT_BYTES
                ))
            },
        );
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        // It is stored with the run.
        refuse_secret("system_prompt", &self.system_prompt)
    }
}

/// An event, which is an object within the bounds; `{}` where there is none.
pub(super) fn payload(json: Option<&str>) -> Result<Value> {
    let Some(json) = json else {
        return Ok(Value::Object(Map::new()));
    };
    let problem = |message: &str| Error::invalid_field("event_payload", message.to_owned());
    if json.len() > event::MAX_EVENT_BYTES {
        return Err(problem(&event::too_large()));
    }
    let value: Value = serde_json::from_str(json).map_err(|_| problem("must be JSON that is not nested too deeply"))?;
    if !value.is_object() {
        return Err(problem("must be a JSON object"));
    }
    if validate::json_has_nul(&value) {
        return Err(problem("must hold no NUL character"));
    }
    Ok(value)
}

/// Checks a message to the Concierge.
pub(super) fn message_text(text: &str) -> Result<()> {
    validate::length(text, validate::MESSAGE_MAX_CHARS)
        .and_then(|()| not_empty(text.trim()))
        .map_err(|message| Error::invalid_field("message", message))
}

/// Checks a message to an agent, which may be as long as an event.
pub(super) fn agent_message(text: &str) -> Result<()> {
    let is_bounded = if text.len() > event::MAX_EVENT_BYTES || text.contains('\0') {
        Err(format!(
            "must be at most {} bytes of text without NUL",
            event::MAX_EVENT_BYTES
        ))
    } else {
        Ok(())
    };
    is_bounded
        .and_then(|()| not_empty(text.trim()))
        .map_err(|message| Error::invalid_field("message", message))
}

fn not_empty(text: &str) -> std::result::Result<(), String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(())
    }
}

/// What tells a repeat from another request under the same key.
pub(super) fn fingerprint(asked: &Value) -> String {
    hex::encode(Sha256::digest(asked.to_string()))
}

/// Keys of others, and for other agents, never meet.
pub(super) fn unique_key(context: &CallContext, slug: &str, key: Option<&str>) -> Result<Option<String>> {
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    validate::name(key, IDEMPOTENCY_KEY_MAX_CHARS)
        .map_err(|message| Error::new(ErrorCode::InvalidRequest, format!("the Idempotency-Key {message}")))?;
    let principal = &context.principal;
    let caller = principal.user_id.as_ref().map_or("", |user_id| user_id.as_str());
    let api_key = match &principal.agent_key {
        Some(_) => principal.api_key_id.as_ref().map_or("", |id| id.as_str()),
        None => "",
    };
    Ok(Some(key_hash(&["key", caller, api_key, slug, key])))
}

/// A key of bounded length that is the same for the same parts and for no others.
pub(super) fn key_hash(parts: &[&str]) -> String {
    hex::encode(Sha256::digest(json!(parts).to_string()))
}
