//! Tools behind a plain HTTP server that the operator names (`tools.http` in the configuration).
//!
//! The smallest thing that is a real tool source: `GET {url}` lists, `POST {url}/call` calls. It is for trying agents out
//! and for tests; MCP servers and integrations are sources of their own. Everything it answers is bounded while it is
//! read, so an endless body costs the call or the source its place and no memory.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use copass_errors::{Error, ErrorCode, Result};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Built, Call, Seeker, Skipped, ToolAnswer, ToolCaller, ToolDraft, ToolSource};

const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;
/// Longer results are no results.
const MAX_RESULT_BYTES: usize = 8 * 1024 * 1024;

/// A tool server of the operator's.
#[derive(Debug, Clone)]
pub struct HttpToolSource {
    name: String,
    server: Arc<Server>,
}

#[derive(Debug)]
struct Server {
    client: reqwest::Client,
    list: Url,
    call: Url,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Listing {
    tools: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    app_slug: Option<String>,
    description: Option<String>,
    #[serde(default)]
    input_schema: Value,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
struct Answered {
    #[serde(default)]
    result: Value,
    error: Option<String>,
}

impl HttpToolSource {
    /// The tools of the server at `url`, as the source `name`; `timeout` bounds one call.
    ///
    /// # Errors
    /// The URL cannot have a path put after it.
    pub fn new(name: impl Into<String>, url: Url, client: reqwest::Client, timeout: Duration) -> Result<Self> {
        let mut call = url.clone();
        call.path_segments_mut()
            .map_err(|()| {
                Error::new(
                    ErrorCode::InvalidRequest,
                    "the URL of a tool server must begin with http:// or https://",
                )
            })?
            .pop_if_empty()
            .push("call");
        Ok(Self {
            name: name.into(),
            server: Arc::new(Server {
                client,
                list: url,
                call,
                timeout,
            }),
        })
    }
}

#[async_trait]
impl ToolSource for HttpToolSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn build(&self, _: &Seeker) -> std::result::Result<Built, Skipped> {
        let answer = self
            .server
            .client
            .get(self.server.list.clone())
            .send()
            .await
            .map_err(|error| Skipped(format!("its server does not answer: {}", cause(error))))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Skipped(format!("its server answered {status}")));
        }
        let body = body(answer, MAX_LIST_BYTES)
            .await
            .map_err(|reason| Skipped(format!("its list {reason}")))?;
        let listing: Listing = serde_json::from_slice(&body)
            .map_err(|error| Skipped(format!("its list is not what a tool server answers: {error}")))?;
        let tools = listing
            .tools
            .into_iter()
            .map(|tool| ToolDraft {
                name: tool.name,
                app_slug: tool.app_slug.unwrap_or_default(),
                description: tool.description.unwrap_or_default(),
                input_schema: tool.input_schema,
                is_read_only: tool.read_only,
            })
            .collect();
        Ok(Built {
            tools,
            caller: self.server.clone(),
        })
    }
}

#[async_trait]
impl ToolCaller for Server {
    async fn call(&self, call: Call<'_>) -> Result<ToolAnswer> {
        let request = json!({
            "name": call.name,
            "arguments": call.arguments,
            "call_id": call.call_id,
            "run_id": call.run_id,
            "idempotency_key": call.idempotency_key,
        });
        let work = async {
            let answer = self
                .client
                .post(self.call.clone())
                .json(&request)
                .send()
                .await
                .map_err(|error| {
                    Error::new(
                        ErrorCode::Unavailable,
                        format!("the tool server does not answer: {}", cause(error)),
                    )
                })?;
            let status = answer.status();
            if !status.is_success() {
                // A refusal was not carried out; of a server's own failure nobody knows.
                let code = if status.is_client_error() {
                    ErrorCode::ProviderError
                } else {
                    ErrorCode::Unavailable
                };
                return Err(Error::new(code, format!("the tool server answered {status}")));
            }
            let body = body(answer, MAX_RESULT_BYTES)
                .await
                .map_err(|reason| Error::new(ErrorCode::Unavailable, format!("the tool's answer {reason}")))?;
            serde_json::from_slice::<Answered>(&body)
                .map_err(|_| Error::new(ErrorCode::Unavailable, "the tool's answer is not the JSON of an answer"))
        };
        let answer = tokio::time::timeout(self.timeout, work).await.map_err(|_| {
            let seconds = self.timeout.as_secs_f64();
            Error::new(
                ErrorCode::DeadlineExceeded,
                format!("the tool did not answer within {seconds} s"),
            )
        })??;
        Ok(ToolAnswer {
            result: copass_types::api::concierge::object(answer.result),
            error: answer.error.filter(|error| !error.is_empty()),
        })
    }
}

async fn body(answer: reqwest::Response, limit: usize) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut chunks = answer.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| format!("broke off: {}", cause(error)))?;
        if bytes.len() + chunk.len() > limit {
            return Err(format!("is longer than {limit} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The innermost cause, which is what says why. The operator's address is not for everybody who can read a run: there may
/// be a secret in it.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        "it took too long".to_owned()
    } else {
        cause.to_string()
    }
}
