//! What went wrong, in the terms a run loop decides on.
//!
//! A message names the provider, the status and the next step. Nothing that came over the wire is repeated but words of
//! the vendor's own vocabulary (`overloaded_error`): error texts quote keys and requests.

use std::error::Error as _;
use std::time::Duration;

use chrono::DateTime;
use copass_runtime::clock;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::port::{Error, ErrorKind};

use super::Backend;

/// Longer waits are not waited for anyway.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);
const MAX_WORD_CHARS: usize = 40;

/// An error of the library.
pub(super) fn of_stream(backend: Backend, error: &genai::Error) -> Error {
    match error {
        genai::Error::WebStream { error, .. } => {
            if let Some(error) = error.downcast_ref::<genai::Error>() {
                return of_stream(backend, error);
            }
            if let Some(error) = error.downcast_ref::<reqwest::Error>() {
                return of_connection(backend, error);
            }
            let is_text = error.is::<std::string::FromUtf8Error>() || error.is::<std::str::Utf8Error>();
            let what = if is_text {
                "sent bytes that are not text"
            } else {
                "sent a stream that cannot be read"
            };
            protocol(backend, what)
        }
        genai::Error::HttpError {
            status, body, headers, ..
        } => {
            let body = serde_json::from_str(body).unwrap_or(Value::Null);
            of_status(backend, *status, &body, headers).refused()
        }
        genai::Error::ChatResponse { body, .. } => of_event(backend, body),
        genai::Error::StreamParse { .. } => protocol(backend, "sent an event that is not JSON"),
        genai::Error::WebModelCall { .. } | genai::Error::WebAdapterCall { .. } => Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "no request can be made to {}: check {}",
                display(backend),
                settings(backend)
            ),
        )
        .refused(),
        genai::Error::JsonValueExt(_) => protocol(backend, "sent an event that lacks what it should hold"),
        _ => protocol(backend, "sent what cannot be understood"),
    }
}

/// The answer ended without a finish.
pub(super) fn ended_early(backend: Backend, has_data: bool) -> Error {
    if has_data {
        let message = format!(
            "{} ended its answer before it was complete; try again",
            display(backend)
        );
        Error::new(ErrorKind::Retryable, message)
    } else {
        protocol(
            backend,
            &format!(
                "answered without a stream of events; check models.{}.base_url",
                backend.name()
            ),
        )
    }
}

/// The vendor broke its own protocol.
pub(super) fn protocol(backend: Backend, what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("{} {what}", display(backend)))
}

/// The vendor's safety rules refuse the prompt.
pub(super) fn refused(backend: Backend, reason: &str) -> Error {
    let reason = word(reason).unwrap_or_else(|| "no reason given".to_owned());
    let message = format!(
        "{} refuses this prompt ({reason}); change what is asked",
        display(backend)
    );
    Error::new(ErrorKind::InvalidRequest, message)
}

/// The vendor itself noticed that the model wrote a call nobody can read; the next answer usually is a better one.
pub(super) fn broken_call(backend: Backend, reason: &str) -> Error {
    let reason = word(reason).unwrap_or_default();
    let message = format!(
        "{}: the model wrote a tool call that cannot be read ({reason}); try again",
        display(backend)
    );
    Error::new(ErrorKind::Retryable, message)
}

/// A word of the vendor's vocabulary, fit for messages and traces; nothing else passes.
pub(super) fn word(text: &str) -> Option<String> {
    let is_word = |character: char| character.is_ascii_alphabetic() || character == '_';
    let fits = !text.is_empty() && text.len() <= MAX_WORD_CHARS && text.chars().all(is_word);
    fits.then(|| text.to_ascii_lowercase())
}

fn display(backend: Backend) -> &'static str {
    match backend {
        Backend::Anthropic => "Anthropic",
        Backend::Google => "Google",
        Backend::Hermes => "the hermes endpoint",
    }
}

fn settings(backend: Backend) -> String {
    let name = backend.name();
    let variables: Vec<String> = backend
        .key_variables()
        .iter()
        .map(|variable| format!(" or {variable}"))
        .collect();
    format!("models.{name}.base_url and models.{name}.api_key{}", variables.concat())
}

fn of_connection(backend: Backend, error: &reqwest::Error) -> Error {
    let name = display(backend);
    if error.is_builder() {
        let message = format!("no request can be made to {name}: check {}", settings(backend));
        return Error::new(ErrorKind::InvalidRequest, message).refused();
    }
    let what = if error.is_connect() {
        let cause = if is_certificate(error) {
            "its certificate is not trusted"
        } else {
            "there is no connection"
        };
        format!(
            "{name} cannot be reached ({cause}); check the network and models.{}.base_url",
            backend.name()
        )
    } else if error.is_timeout() {
        format!("{name} did not answer in time; try again")
    } else {
        format!("the connection to {name} broke; try again")
    };
    Error {
        is_refused: error.is_connect(),
        ..Error::new(ErrorKind::Retryable, what)
    }
}

fn is_certificate(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.to_string().contains("certificate") {
            return true;
        }
        source = cause.source();
    }
    false
}

fn of_status(backend: Backend, status: StatusCode, body: &Value, headers: &HeaderMap) -> Error {
    let details = details(body);
    let kind = match status.as_u16() {
        _ if details.is_key_invalid => ErrorKind::Auth,
        401..=403 => ErrorKind::Auth,
        429 if details.has_no_credit() => ErrorKind::Auth,
        429 => ErrorKind::RateLimited,
        300..=399 => ErrorKind::NotConfigured,
        408 | 409 | 425 | 500 | 502 | 503 | 504 | 520..=599 => ErrorKind::Retryable,
        _ => ErrorKind::InvalidRequest,
    };
    let retry_after = retry_after(headers).or(details.retry_after);
    described(backend, kind, Some(status), details.word, retry_after)
}

/// An error within a stream that began well.
fn of_event(backend: Backend, body: &Value) -> Error {
    let details = details(body);
    if let Some(status) = details.status {
        return of_status(backend, status, body, &HeaderMap::new());
    }
    let kind = match details.word.as_deref() {
        Some("rate_limit_error" | "rate_limit_exceeded" | "too_many_requests" | "resource_exhausted") => {
            ErrorKind::RateLimited
        }
        Some(
            "authentication_error"
            | "permission_error"
            | "billing_error"
            | "invalid_api_key"
            | "insufficient_quota"
            | "permission_denied"
            | "unauthenticated",
        ) => ErrorKind::Auth,
        Some(
            "invalid_request_error"
            | "not_found_error"
            | "request_too_large"
            | "context_length_exceeded"
            | "invalid_argument"
            | "not_found"
            | "model_not_found"
            | "invalid_prompt",
        ) => ErrorKind::InvalidRequest,
        _ => ErrorKind::Retryable,
    };
    described(backend, kind, None, details.word, details.retry_after)
}

#[derive(Default)]
struct Details {
    word: Option<String>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    is_key_invalid: bool,
}

impl Details {
    fn has_no_credit(&self) -> bool {
        matches!(self.word.as_deref(), Some("insufficient_quota" | "billing_error"))
    }
}

/// What the vendors' shapes of errors have in common: `error` holds a type, a code or a status.
fn details(body: &Value) -> Details {
    // Google's stream may put its error into a list.
    let body = body.get(0).unwrap_or(body);
    let error = match body.get("error") {
        Some(error) if !error.is_null() => error,
        _ => body,
    };
    let text = |key: &str| error.get(key).and_then(Value::as_str).and_then(word);
    let number = error.get("code").and_then(|code| {
        let number = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
        StatusCode::from_u16(u16::try_from(number).ok()?).ok()
    });
    let entries = || error.get("details").and_then(Value::as_array).into_iter().flatten();
    let retry_after = entries().find_map(|entry| {
        let seconds = entry.get("retryDelay")?.as_str()?.strip_suffix('s')?.parse().ok()?;
        bounded_seconds(seconds)
    });
    let is_key_invalid = entries().any(|entry| entry.get("reason").is_some_and(|reason| reason == "API_KEY_INVALID"));
    Details {
        word: text("status")
            .or_else(|| text("code"))
            .or_else(|| text("type").filter(|kind| kind != "error")),
        status: number.filter(|status| status.as_u16() >= 400),
        retry_after,
        is_key_invalid,
    }
}

fn described(
    backend: Backend,
    kind: ErrorKind,
    status: Option<StatusCode>,
    word: Option<String>,
    retry_after: Option<Duration>,
) -> Error {
    let name = display(backend);
    let status = status.map(|status| format!("HTTP {}", status.as_u16()));
    let facts: Vec<String> = status.into_iter().chain(word).collect();
    let facts = if facts.is_empty() {
        String::new()
    } else {
        format!(" ({})", facts.join(", "))
    };
    let setting = backend.name();
    let sentence = match kind {
        ErrorKind::Auth => format!(
            "{name} does not accept the key{facts}: check the key and its account, {}",
            settings(backend)
        ),
        ErrorKind::RateLimited => format!("{name} limits the rate{facts}: wait, or raise the limit of the account"),
        ErrorKind::Retryable => format!("{name} has a fault of its own{facts}: try again"),
        ErrorKind::NotConfigured => {
            format!(
                "{name} redirects to another address{facts}, which is not followed: set models.{setting}.base_url to it"
            )
        }
        _ => format!("{name} refuses the request{facts}: check the agent's model and its settings"),
    };
    Error {
        retry_after: retry_after.filter(|_| kind.is_retryable()),
        ..Error::new(kind, sentence)
    }
}

/// The waiting time in seconds, in milliseconds, or until a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return bounded_seconds(milliseconds / 1000.0);
    }
    let value = text("retry-after")?;
    if let Ok(seconds) = value.parse::<f64>() {
        return bounded_seconds(seconds);
    }
    let until = DateTime::parse_from_rfc2822(value).ok()?;
    let wait = until.to_utc().signed_duration_since(clock::now());
    // A date that has passed means now.
    Some(wait.to_std().unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

fn bounded_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(|wait| wait.min(LONGEST_RETRY_AFTER))
}
