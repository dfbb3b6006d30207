//! Bodies, queries, path parameters and keys of requests; every problem is named by its place (`rest.md` 0.3).

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request},
};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, NaiveDate, Utc};
use copass_errors::{Error, ErrorCode, FieldProblem, Result};
use copass_types::api::object_only;
use http::{HeaderMap, header, request::Parts};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::{error::ApiError, state::App};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// A JSON object as body. An empty body counts as `{}`: clients send the JSON content type on calls without a body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> std::result::Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = tokio::time::timeout(app.config.body_timeout, read(body, app.config.body_limit_bytes))
            .await
            .map_err(|_| Error::new(ErrorCode::BodyTimeout, "the body did not arrive in time; send it again"))??;
        if bytes.is_empty() {
            return Ok(Self(parse("{}")?));
        }
        if !is_json(&parts.headers) {
            return Err(Error::new(
                ErrorCode::UnsupportedMediaType,
                "the body must be JSON: send the header `Content-Type: application/json`",
            )
            .into());
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| problem(vec!["body".to_owned()], "must be UTF-8 text", "json_invalid"))?;
        Ok(Self(parse(text)?))
    }
}

/// How much of a body that is too large is read and thrown away.
const DRAIN_BYTES: usize = 8 * 1024 * 1024;

/// Reads the body up to the limit. What is too large is still read, up to a bound, and thrown away: a client that is
/// cut off while it sends sees a broken connection instead of the answer that tells it why.
async fn read(mut body: Body, limit: usize) -> Result<Bytes> {
    let mut kept = BytesMut::new();
    let mut read = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Error::new(
                ErrorCode::InvalidRequest,
                "the body ended before it was complete; send it again",
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        read = read.saturating_add(data.len());
        if read > limit {
            kept.clear();
        } else {
            kept.extend_from_slice(&data);
        }
        if read > limit.saturating_add(DRAIN_BYTES) {
            break;
        }
    }
    if read > limit {
        return Err(Error::new(
            ErrorCode::PayloadTooLarge,
            format!("the body is larger than {limit} bytes; send less at once"),
        ));
    }
    Ok(kept.freeze())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media_type = text.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
        || media_type
            .get(media_type.len().saturating_sub(5)..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let value = object_only::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let path = track.path();
    let value = value.map_err(|error: serde_json::Error| describe(&error, &path))?;
    json.end().map_err(|error| describe(&error, &path))?;
    Ok(value)
}

/// One 422 problem from what serde says.
fn describe(error: &serde_json::Error, path: &serde_path_to_error::Path) -> Error {
    use serde_path_to_error::Segment;
    let mut loc = vec!["body".to_owned()];
    if !error.is_data() {
        let place = format!("line {} column {}", error.line(), error.column());
        // The parser's own limit, which keeps it from running out of stack.
        if error.to_string().starts_with("recursion limit exceeded") {
            let message = format!("nested too deeply at {place}; at most 127 levels are read");
            return problem(loc, &message, "json_too_deep");
        }
        return problem(loc, &format!("not valid JSON at {place}"), "json_invalid");
    }
    loc.extend(path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    }));
    let text = error.to_string();
    // serde appends the position, which says nothing beside the path.
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    if let Some(field) = text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
    {
        loc.push(field.to_owned());
        return problem(loc, "field required", "missing");
    }
    let kind = if text.starts_with("invalid type") {
        "type_error"
    } else {
        "value_error"
    };
    problem(loc, text, kind)
}

fn problem(loc: Vec<String>, message: &str, kind: &str) -> Error {
    Error::invalid(vec![FieldProblem {
        loc,
        msg: message.to_owned(),
        kind: kind.to_owned(),
    }])
}

/// The parameters of the path.
pub(crate) struct PathParams(Vec<(String, String)>);

impl FromRequestParts<App> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> std::result::Result<Self, ApiError> {
        Ok(match RawPathParams::from_request_parts(parts, app).await {
            Ok(params) => Self(
                params
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            ),
            Err(_) => Self::as_sent(parts),
        })
    }
}

impl PathParams {
    /// The parameters without decoding, for a path with bytes that are not UTF-8: one segment that is malformed says
    /// nothing about the others, and its percent sign is part of no id or slug.
    fn as_sent(parts: &Parts) -> Self {
        let Some(matched) = parts.extensions.get::<MatchedPath>() else {
            return Self(Vec::new());
        };
        let segments = matched.as_str().split('/').zip(parts.uri.path().split('/'));
        let params = segments.filter_map(|(name, value)| {
            let name = name.strip_prefix('{')?.strip_suffix('}')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Self(params.collect())
    }

    /// An id; a malformed one is an unknown one.
    pub(crate) fn id<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<T> {
        self.text(name).parse().map_err(|_| Error::not_found(what))
    }

    /// An agent's slug; a malformed one is an unknown one.
    pub(crate) fn slug(&self) -> Result<String> {
        let slug = self.text("slug");
        match copass_types::validate::agent_slug(slug) {
            Ok(()) => Ok(slug.to_owned()),
            Err(_) => Err(Error::not_found("agent")),
        }
    }

    /// A parameter as it came.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.as_str())
    }
}

/// The query, read by name. Empty values count as absent, unknown names are ignored, of repeated ones the last counts.
pub(crate) struct Query(Vec<(String, String)>);

impl FromRequestParts<App> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> std::result::Result<Self, ApiError> {
        Ok(Self(parts.uri.query().map(read_query).unwrap_or_default()))
    }
}

fn read_query(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

impl Query {
    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().rposition(|(key, _)| key == name)?;
        Some(self.0.remove(index).1)
    }

    /// All values of a repeatable name, also when they come as one list with commas.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// A yes or no.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool> {
        let Some(text) = self.text(name) else { return Ok(false) };
        match text.as_str() {
            _ if text.eq_ignore_ascii_case("true") || text == "1" => Ok(true),
            _ if text.eq_ignore_ascii_case("false") || text == "0" => Ok(false),
            _ => Err(query_problem(name, "must be true or false")),
        }
    }

    /// A number, moved into the range when it lies outside.
    pub(crate) fn clamped(&mut self, name: &str, default: u32, range: std::ops::RangeInclusive<u32>) -> Result<u32> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let number: i64 = text
            .parse()
            .map_err(|_| query_problem(name, "must be a whole number"))?;
        let number = number.clamp(i64::from(*range.start()), i64::from(*range.end()));
        Ok(u32::try_from(number).unwrap_or(default))
    }
}

impl Query {
    /// A whole number of at least 1.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u32>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(query_problem(name, "must be a whole number of at least 1")),
        }
    }

    /// An instant.
    pub(crate) fn instant(&mut self, name: &str) -> Result<Option<DateTime<Utc>>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // An offset's plus sign that was not encoded has become a space.
        let repaired = text.rsplit_once(' ').map(|(at, offset)| format!("{at}+{offset}"));
        [Some(text), repaired]
            .into_iter()
            .flatten()
            .find_map(|text| DateTime::parse_from_rfc3339(&text).ok())
            .map(|at| Some(at.to_utc()))
            .ok_or_else(|| query_problem(name, "must be an RFC 3339 instant, for example 2026-04-30T14:25:18Z"))
    }

    /// A day.
    pub(crate) fn date(&mut self, name: &str) -> Result<Option<NaiveDate>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(date) => Ok(Some(date)),
            Err(_) => Err(query_problem(
                name,
                "must be a day as YYYY-MM-DD, for example 2026-04-30",
            )),
        }
    }
}

/// Where a live stream goes on: the header `Last-Event-ID`, which clients send by themselves when they come again, or
/// else `?after=`.
pub(crate) struct After {
    id: Option<String>,
    loc: [&'static str; 2],
}

impl FromRequestParts<App> for After {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> std::result::Result<Self, ApiError> {
        if let Some(value) = parts.headers.get("last-event-id").filter(|value| !value.is_empty()) {
            let after = Self {
                id: value.to_str().ok().map(str::to_owned),
                loc: ["header", "Last-Event-ID"],
            };
            return if after.id.is_some() {
                Ok(after)
            } else {
                Err(after.malformed().into())
            };
        }
        Ok(Self {
            id: Query::from_request_parts(parts, app).await?.text("after"),
            loc: ["query", "after"],
        })
    }
}

impl After {
    /// The id of a frame of a run: `<number>` or `<number>.<bytes>`.
    pub(crate) fn frame(self) -> Result<Option<String>> {
        let is_number = |text: &str| (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        self.checked(|id| match id.split_once('.') {
            Some((number, bytes)) => is_number(number) && is_number(bytes),
            None => is_number(id),
        })
    }

    /// The same error, with the id's problem where the caller put the id: the service behind knows `after` only.
    pub(crate) fn placed(loc: [&'static str; 2], error: Error) -> Error {
        let is_about_it = |problem: &FieldProblem| problem.loc == ["query", "after"];
        if !error.problems().iter().any(is_about_it) {
            return error;
        }
        let mut problems = error.problems().to_vec();
        for problem in problems.iter_mut().filter(|problem| is_about_it(problem)) {
            problem.loc = loc.map(str::to_owned).to_vec();
        }
        Error::invalid(problems)
    }

    /// Where the caller put the id.
    pub(crate) fn loc(&self) -> [&'static str; 2] {
        self.loc
    }

    /// The id of a change of a run; only the owner of runs reads it.
    pub(crate) fn change(self) -> Result<Option<String>> {
        self.checked(|id| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic()))
    }

    fn checked(self, is_well_formed: impl Fn(&str) -> bool) -> Result<Option<String>> {
        if self.id.as_deref().is_none_or(is_well_formed) {
            Ok(self.id)
        } else {
            Err(self.malformed())
        }
    }

    fn malformed(&self) -> Error {
        let loc = self.loc.iter().map(ToString::to_string).collect();
        let message = "is not the id of an event of this stream; leave it out to begin anew";
        problem(loc, message, "value_error")
    }
}

fn query_problem(name: &str, message: &str) -> Error {
    problem(vec!["query".to_owned(), name.to_owned()], message, "type_error")
}

/// The caller's key for doing a thing once, if it sent one.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> std::result::Result<Self, ApiError> {
        Ok(Self(idempotency_key(&parts.headers)?))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let well_formed = |text: &&str| {
        (1..=IDEMPOTENCY_KEY_MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    value
        .to_str()
        .ok()
        .filter(well_formed)
        .map(|text| Some(text.to_owned()))
        .ok_or_else(|| {
            let loc = vec!["header".to_owned(), "Idempotency-Key".to_owned()];
            problem(
                loc,
                "must have 1 to 255 visible ASCII characters and no spaces",
                "value_error",
            )
        })
}

#[cfg(test)]
mod tests {
    use copass_types::api::{CreateAgentRequest, CreateSandboxRequest};

    use super::*;

    fn problem_of<T: DeserializeOwned>(text: &str) -> (Vec<String>, String) {
        let Err(error) = parse::<T>(text) else {
            panic!("{text} was accepted")
        };
        assert_eq!(error.code(), ErrorCode::ValidationError);
        let problem = error.problems()[0].clone();
        (problem.loc, problem.kind)
    }

    #[test]
    fn every_problem_has_its_place() {
        for (text, loc, kind) in [
            ("{", vec!["body"], "json_invalid"),
            (r#"{"name":"a","owner_id":"b"} x"#, vec!["body"], "json_invalid"),
            ("[]", vec!["body"], "type_error"),
            (r#"["a","b"]"#, vec!["body"], "type_error"),
            ("null", vec!["body"], "type_error"),
            ("{}", vec!["body", "name"], "missing"),
            (r#"{"name":1,"owner_id":"b"}"#, vec!["body", "name"], "type_error"),
            (
                r#"{"name":"a","owner_id":"b","metadata":[]}"#,
                vec!["body", "metadata"],
                "type_error",
            ),
            (r#"{"name":"a","name":"b","owner_id":"b"}"#, vec!["body"], "value_error"),
        ] {
            let (found_loc, found_kind) = problem_of::<CreateSandboxRequest>(text);
            assert_eq!(
                (found_loc, found_kind.as_str()),
                (loc.iter().map(ToString::to_string).collect(), kind),
                "{text}"
            );
        }
        let (loc, _) = problem_of::<CreateAgentRequest>(
            r#"{"slug":"a","name":"a","system_prompt":"a","model_settings":{"max_tokens":"many"}}"#,
        );
        assert_eq!(loc, ["body", "model_settings", "max_tokens"]);
        let (loc, _) =
            problem_of::<CreateAgentRequest>(r#"{"slug":"a","name":"a","system_prompt":"a","tool_allowlist":["a",1]}"#);
        assert_eq!(loc, ["body", "tool_allowlist", "1"]);
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_crash() {
        let deep = format!(
            r#"{{"name":"a","owner_id":"b","metadata":{{"a":{}"#,
            "[".repeat(100_000)
        );
        assert_eq!(problem_of::<CreateSandboxRequest>(&deep).1, "json_too_deep");
    }

    #[test]
    fn queries() {
        let mut query = Query(read_query(
            "limit=500&include_revoked=True&kinds=a,b&kinds=c&status=&before=x%20y",
        ));
        assert_eq!(query.clamped("limit", 20, 1..=100).unwrap(), 100);
        assert_eq!(query.clamped("limit", 20, 1..=100).unwrap(), 20);
        assert!(query.flag("include_revoked").unwrap());
        assert_eq!(query.all("kinds"), ["a", "b", "c"]);
        assert_eq!(query.text("status"), None);
        assert_eq!(query.text("before").unwrap(), "x y");
        let error = Query(read_query("limit=ten"))
            .clamped("limit", 20, 1..=100)
            .unwrap_err();
        assert_eq!(error.problems()[0].loc, ["query", "limit"]);
        assert_eq!(Query(read_query("limit=-4")).clamped("limit", 20, 1..=100).unwrap(), 1);
        assert!(
            Query(read_query("include_revoked=maybe"))
                .flag("include_revoked")
                .is_err()
        );
    }

    #[test]
    fn numbers_instants_and_days() {
        let mut query = Query(read_query(
            "n=7&zero=0&a=2026-04-30T14:25:18Z&b=2026-04-30T16:25:18+02:00&c=yesterday&d=2026-04-30&e=30.4.2026",
        ));
        assert_eq!(query.number("n").unwrap(), Some(7));
        assert_eq!(query.number("none").unwrap(), None);
        assert_eq!(query.number("zero").unwrap_err().problems()[0].loc, ["query", "zero"]);
        let at = query.instant("a").unwrap().unwrap();
        assert_eq!(query.instant("b").unwrap(), Some(at), "the plus sign was not encoded");
        assert!(query.instant("c").is_err());
        assert_eq!(query.date("d").unwrap(), Some(at.date_naive()));
        assert!(query.date("e").is_err());
    }

    #[test]
    fn ids_of_events() {
        let after = |id: &str| After {
            id: Some(id.to_owned()),
            loc: ["query", "after"],
        };
        for good in ["0", "17", "17.204"] {
            assert_eq!(after(good).frame().unwrap().unwrap(), good);
        }
        for bad in ["", "-1", "1.", ".1", "1.2.3", "x", "1 ", "1234567890123456789012"] {
            assert_eq!(
                after(bad).frame().unwrap_err().problems()[0].loc,
                ["query", "after"],
                "{bad}"
            );
        }
        assert!(after("2026-04-30T14:25:18Z/rn_1").change().is_ok());
        assert!(after("a b").change().is_err());
        assert!(after(&"a".repeat(129)).change().is_err());
    }

    #[test]
    fn idempotency_keys() {
        let key = |text: &str| {
            idempotency_key(&HeaderMap::from_iter([(
                http::HeaderName::from_static(IDEMPOTENCY_KEY),
                http::HeaderValue::from_bytes(text.as_bytes()).unwrap(),
            )]))
        };
        assert_eq!(key("a-1").unwrap().unwrap(), "a-1");
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        for bad in ["", "a b", "ä", &"a".repeat(256)] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }
}
