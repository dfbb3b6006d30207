//! The transport: one reqwest client, one way to send a call, one way to read an answer.

use std::{net::IpAddr, time::Duration};

use reqwest::{
    Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use serde::de::DeserializeOwned;

use crate::{ApiError, Credential, Error, Result, call::Call};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before the second and third attempt to connect.
const CONNECT_RETRIES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// Largest answer that is read.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;
const ERROR_BODY_MAX_BYTES: usize = 1024 * 1024;

/// An answer: the decoded body and its text as it came.
#[derive(Debug, Clone)]
pub struct Reply<T> {
    /// The decoded body.
    pub value: T,
    /// The body as the server sent it (`null` when it sent none).
    pub text: String,
}

/// A client of one server with one credential. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    bearer: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at `base_url`; no connection is made yet.
    ///
    /// # Errors
    /// The address is not an http(s) URL, or the credential cannot stand in a header.
    pub fn new(base_url: &str, credential: Option<&Credential>) -> Result<Self> {
        let base = parse_base(base_url)?;
        let bearer = credential
            .map(|credential| {
                let mut value = HeaderValue::try_from(format!("Bearer {}", credential.expose())).map_err(|_| {
                    Error::Invalid("the API key or token contains characters that no key has; copy it again".to_owned())
                })?;
                value.set_sensitive(true);
                Ok::<_, Error>(value)
            })
            .transpose()?;
        // Another part of the process may have installed a provider already: any of them will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("copass-client/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none());
        if base.scheme() == "http" {
            // Plain http needs no roots: a minimal image without certificates must be able to use it.
            builder = builder.tls_certs_only([]);
        }
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| {
            Error::Invalid(format!(
                "cannot set up TLS ({}); are the system's CA certificates installed?",
                root(&error)
            ))
        })?;
        Ok(Self { http, base, bearer })
    }

    /// The server's address, without a trailing slash.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(crate) fn url(&self, segments: &[&str]) -> Result<Url> {
        let mut url = self.base.clone();
        for segment in segments {
            if segment.is_empty() || matches!(*segment, "." | "..") {
                return Err(Error::Invalid(format!("'{segment}' is not an id")));
            }
        }
        url.path_segments_mut()
            .map_err(|()| Error::Invalid("the server's address cannot have a path".to_owned()))?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    /// Sends a call and decodes the answer.
    pub(crate) async fn send<T: DeserializeOwned>(&self, call: Call) -> Result<Reply<T>> {
        let path = call.url.path().to_owned();
        let response = self.open(call).await?;
        let url = self.base_url();
        let bytes = read_body(response, BODY_MAX_BYTES).await.map_err(|error| match error {
            BodyError::Broken(error) => transport(url, &error),
            BodyError::TooLarge => Error::Decode {
                path: path.clone(),
                reason: format!("it is larger than {BODY_MAX_BYTES} bytes"),
            },
        })?;
        let mut text = String::from_utf8(bytes).map_err(|_| Error::Decode {
            path: path.clone(),
            reason: "not UTF-8".to_owned(),
        })?;
        if text.trim().is_empty() {
            "null".clone_into(&mut text);
        }
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Reply { value, text }),
            Err(error) => Err(Error::Decode {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Sends a call and returns the answer's head; an error status becomes an [`Error::Api`].
    pub(crate) async fn open(&self, call: Call) -> Result<Response> {
        let response = self.connect(call).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = read_body(response, ERROR_BODY_MAX_BYTES).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let mut error = ApiError::read(status.as_u16(), reason(status), &headers, &body);
        if status.is_redirection() {
            error.detail = format!("the server answered {status} and points elsewhere; set its final address");
        }
        Err(Error::Api(Box::new(error)))
    }

    async fn connect(&self, call: Call) -> Result<Response> {
        let request = self.request(call)?;
        let mut pauses = CONNECT_RETRIES.iter();
        loop {
            // The body is in memory, so a request can always be cloned.
            let attempt = request
                .try_clone()
                .ok_or_else(|| Error::Invalid("the request's body cannot be sent twice".to_owned()))?;
            match self.http.execute(attempt).await {
                Ok(response) => return Ok(response),
                Err(error) if error.is_connect() => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(transport(self.base_url(), &error)),
                },
                Err(error) => return Err(transport(self.base_url(), &error)),
            }
        }
    }

    fn request(&self, call: Call) -> Result<reqwest::Request> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(bearer) = &self.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        for (name, value) in call.headers {
            headers.insert(name, value);
        }
        let mut builder = self.http.request(call.method, call.url).headers(headers);
        if let Some(body) = call.body {
            builder = builder.body(body);
        }
        if let Some(timeout) = call.timeout {
            builder = builder.timeout(timeout);
        }
        builder.build().map_err(|error| Error::Invalid(root(&error)))
    }
}

enum BodyError {
    Broken(reqwest::Error),
    TooLarge,
}

async fn read_body(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(crate) fn transport(url: &str, error: &reqwest::Error) -> Error {
    let reason = if error.is_timeout() && !error.is_connect() {
        "no answer within the time limit".to_owned()
    } else {
        root(error)
    };
    Error::Transport {
        url: url.to_owned(),
        reason,
        connect: error.is_connect(),
    }
}

/// The innermost cause: the layers above it only say that a request was made.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("")
}

fn parse_base(text: &str) -> Result<Url> {
    let text = text.trim().trim_end_matches('/');
    let text = text.strip_suffix("/api/v1").unwrap_or(text);
    let bad = || {
        Error::Invalid(format!(
            "'{text}' is not a server address; write it like http://127.0.0.1:8484"
        ))
    };
    let url = Url::parse(text).map_err(|_| bad())?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if usable && bare && url.password().is_none() {
        Ok(url)
    } else {
        Err(bad())
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::{Client, is_loopback, parse_base};
    use crate::{Credential, Error};

    #[test]
    fn addresses() {
        for (given, base) in [
            ("http://127.0.0.1:8484", "http://127.0.0.1:8484"),
            (" https://api.example.com/ ", "https://api.example.com"),
            ("https://example.com/copass/api/v1/", "https://example.com/copass"),
        ] {
            assert_eq!(Client::new(given, None).unwrap().base_url(), base);
        }
        for bad in [
            "",
            "example.com",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x?y",
            "http://x#y",
            "localhost:80",
        ] {
            assert!(matches!(parse_base(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn path_parts_are_encoded_and_cannot_climb() {
        let client = Client::new("http://x/base", None).unwrap();
        assert_eq!(
            client.url(&["a", "b/c ?#%"]).unwrap().as_str(),
            "http://x/base/a/b%2Fc%20%3F%23%25"
        );
        for bad in ["", ".", ".."] {
            assert!(client.url(&["a", bad]).is_err());
        }
    }

    #[test]
    fn loopback_never_goes_through_a_proxy() {
        for (url, loopback) in [
            ("http://localhost:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:2", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&parse_base(url).unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn a_broken_credential_is_an_error_that_does_not_show_it() {
        let error = Client::new("http://x", Some(&Credential::new("olk_a\nb"))).unwrap_err();
        assert!(!error.to_string().contains("olk_"));
        let client = Client::new("http://x", Some(&Credential::new("olk_secret"))).unwrap();
        assert!(!format!("{client:?}").contains("olk_secret"));
    }
}
