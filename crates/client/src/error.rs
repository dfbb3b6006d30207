//! What can go wrong with a call, in the terms a caller can act on.

use serde::Deserialize;
use serde_json::Value;

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server was not reached, or the connection broke.
    #[error("cannot reach {url}: {reason}")]
    Transport {
        /// The server's address.
        url: String,
        /// The innermost cause, in words.
        reason: String,
        /// Whether not even a connection came about, so that nothing can have happened on the server.
        connect: bool,
    },
    /// The server answered with an error status.
    #[error("{}", .0.detail)]
    Api(Box<ApiError>),
    /// The answer is not what the contract says.
    #[error("the answer of {path} is not understood: {reason}")]
    Decode {
        /// The path of the call.
        path: String,
        /// What did not fit.
        reason: String,
    },
    /// A stream broke off or broke the protocol.
    #[error("the stream broke: {0}")]
    Stream(String),
    /// The call cannot be sent as it is: a malformed address, credential or id.
    #[error("{0}")]
    Invalid(String),
}

/// An error answer (`rest.md` 0.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The machine word of the body, or a word made from the status when the body has none.
    pub code: String,
    /// The sentence for the user; for 422 the problems in one line.
    pub detail: String,
    /// The id to name when the problem is reported.
    pub request_id: Option<String>,
    /// The problems of a 422, one for each field.
    pub problems: Vec<Problem>,
    /// Seconds to wait before the next try.
    pub retry_after_s: Option<u64>,
}

/// One problem of a request, in the contract's 422 shape.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// Where: `["body", "name"]`. List positions come as numbers and are kept as text.
    #[serde(default, deserialize_with = "loc")]
    pub loc: Vec<String>,
    /// What is wrong.
    #[serde(default)]
    pub msg: String,
    /// The machine word.
    #[serde(default, rename = "type")]
    pub kind: String,
}

impl Error {
    /// The HTTP status, when the server answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api(error) => Some(error.status),
            _ => None,
        }
    }

    /// What the user can do next, when the error itself does not say it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Transport { connect: true, .. } => Some(
                "is the server running? start one with `copass dev`, or set COPASS_API_URL to the address of yours"
                    .to_owned(),
            ),
            Self::Transport { .. } => Some("the connection broke; check the network and try again".to_owned()),
            Self::Api(error) => match (error.retry_after_s, &error.request_id) {
                (Some(seconds), _) => Some(format!("try again in {seconds} s")),
                (None, Some(id)) if error.status >= 500 => Some(format!("request id {id}")),
                _ => None,
            },
            Self::Decode { .. } => Some("is this a Copass server, and of a version this client knows?".to_owned()),
            Self::Stream(_) => Some("nothing is resumed by itself; send the message again".to_owned()),
            Self::Invalid(_) => None,
        }
    }
}

/// Text of a foreign page is cut here: the readable part of an error stands at its beginning.
const FOREIGN_TEXT_CHARS: usize = 300;

impl ApiError {
    /// Reads an error answer; a body that is not the contract's still gives a usable error.
    pub(crate) fn read(status: u16, reason: &str, headers: &reqwest::header::HeaderMap, body: &str) -> Self {
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        let problems: Vec<Problem> = json
            .get("detail")
            .filter(|detail| detail.is_array())
            .and_then(|detail| Vec::deserialize(detail).ok())
            .unwrap_or_default();
        let detail = if problems.is_empty() {
            ["detail", "message", "msg", "error_description"]
                .iter()
                .find_map(|key| text(key))
        } else {
            Some(problems.iter().map(Problem::to_line).collect::<Vec<_>>().join("; "))
        };
        let detail = detail.unwrap_or_else(|| {
            let foreign: String = body.trim().chars().take(FOREIGN_TEXT_CHARS).collect();
            if foreign.is_empty() || json.is_object() || foreign.starts_with('<') {
                format!("the server answered {status} {reason}")
            } else {
                format!("the server answered {status} {reason}: {foreign}")
            }
        });
        Self {
            status,
            code: text("error").unwrap_or_else(|| code_of_status(status).to_owned()),
            detail,
            request_id: text("request_id").or_else(|| header("x-request-id")),
            problems,
            retry_after_s: header("retry-after").and_then(|seconds| seconds.parse().ok()),
        }
    }
}

impl Problem {
    fn to_line(&self) -> String {
        let place = match self.loc.split_first() {
            Some((first, rest)) if first == "body" && !rest.is_empty() => rest.join("."),
            _ => self.loc.join("."),
        };
        if place.is_empty() {
            self.msg.clone()
        } else {
            format!("{place}: {}", self.msg)
        }
    }
}

fn code_of_status(status: u16) -> &'static str {
    match status {
        400 => "invalid_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        422 => "validation_error",
        429 => "rate_limited",
        500.. => "server_error",
        _ => "request_failed",
    }
}

fn loc<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let parts = Vec::<Value>::deserialize(deserializer)?;
    Ok(parts
        .into_iter()
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect())
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::ApiError;

    fn read(status: u16, body: &str) -> ApiError {
        ApiError::read(status, "Reason", &HeaderMap::new(), body)
    }

    #[test]
    fn the_contracts_body() {
        let error = read(
            404,
            r#"{"error":"not_found","detail":"sandbox not found","request_id":"r1"}"#,
        );
        assert_eq!(
            (error.code.as_str(), error.detail.as_str()),
            ("not_found", "sandbox not found")
        );
        assert_eq!(error.request_id.as_deref(), Some("r1"));
    }

    #[test]
    fn validation_problems_become_one_line() {
        let error = read(
            422,
            r#"{"error":"validation_error","detail":[
                {"loc":["body","name"],"msg":"must not be empty","type":"value_error"},
                {"loc":["body","items",0],"msg":"must be text","type":"type_error","input":1},
                {"loc":["query"],"msg":"too long"}]}"#,
        );
        assert_eq!(
            error.detail,
            "name: must not be empty; items.0: must be text; query: too long"
        );
        assert_eq!(error.problems[1].loc, ["body", "items", "0"]);
    }

    #[test]
    fn foreign_bodies() {
        assert_eq!(read(400, r#"{"detail":"bad"}"#).code, "invalid_request");
        assert_eq!(read(502, "<html>…").detail, "the server answered 502 Reason");
        assert_eq!(
            read(502, "upstream gone").detail,
            "the server answered 502 Reason: upstream gone"
        );
        assert_eq!(read(500, "").code, "server_error");
        assert_eq!(
            read(400, r#"{"error":{"a":1},"detail":7}"#).detail,
            "the server answered 400 Reason"
        );
    }

    #[test]
    fn headers_are_the_fallback() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("from-header"));
        headers.insert("retry-after", HeaderValue::from_static("7"));
        let error = ApiError::read(429, "Too Many Requests", &headers, "{}");
        assert_eq!(
            (error.request_id.as_deref(), error.retry_after_s),
            (Some("from-header"), Some(7))
        );
    }
}
