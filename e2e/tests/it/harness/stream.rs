//! The Concierge's stream as a client reads it, and what the contract says of every one (`sse.md` 2 to 4).

use std::{collections::BTreeMap, time::Duration};

use copass_client::sse::{Frame as RawFrame, Parser};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{api::Api, tenant::Tenant};

/// A frame that is due must come within this.
const FRAME_LIMIT: Duration = Duration::from_secs(20);

/// One frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) data: Value,
}

impl Frame {
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.event.as_str(), "agent_finish" | "agent_error")
    }
}

/// An open stream. Dropping it closes the connection.
pub(crate) struct Chat {
    response: Response,
    parser: Parser,
    pub(crate) frames: Vec<Frame>,
    pub(crate) run_id: String,
}

impl Chat {
    /// Asks, and waits for `run_started`.
    pub(crate) async fn open(api: &Api, path: &str, message: &str, session_id: Option<&str>) -> Self {
        let body = json!({"message": message, "session_id": session_id});
        let request = api
            .request(Method::POST, path)
            .header("accept", "text/event-stream")
            .body(body.to_string());
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        if status != 200 {
            panic!("{path}: {status} {}", response.text().await.unwrap_or_default());
        }
        assert!(content_type.is_some_and(|text| text.starts_with("text/event-stream")));
        assert!(response.headers().get("content-length").is_none());
        let mut chat = Self {
            response,
            parser: Parser::new(),
            frames: Vec::new(),
            run_id: String::new(),
        };
        chat.read_until(|frame| frame.event == "run_started").await;
        chat.run_id = chat.frames[0].data["run_id"].as_str().expect("the run's id").to_owned();
        chat
    }

    /// Reads until a frame fits.
    pub(crate) async fn read_until(&mut self, fits: impl Fn(&Frame) -> bool) {
        while !self.frames.iter().any(&fits) {
            assert!(self.read_more().await, "the stream ended early: {:?}", self.frames);
        }
    }

    /// Reads to the end of the body, and checks the order of everything that came.
    pub(crate) async fn finish(mut self) -> Vec<Frame> {
        while self.read_more().await {}
        check_order(&self.frames);
        self.frames
    }

    /// Whether there was more.
    async fn read_more(&mut self) -> bool {
        let chunk = tokio::time::timeout(FRAME_LIMIT, self.response.chunk())
            .await
            .unwrap_or_else(|_| panic!("no frame within {FRAME_LIMIT:?}: {:?}", self.frames))
            .unwrap_or_else(|error| panic!("the connection broke ({error:?}): {:?}", self.frames));
        let Some(chunk) = chunk else { return false };
        let mut raw = Vec::new();
        self.parser.push(&chunk, &mut raw).expect("frames of a sane size");
        self.frames.extend(raw.into_iter().map(read_frame));
        true
    }
}

fn read_frame(raw: RawFrame) -> Frame {
    let data: Value = serde_json::from_str(&raw.data).unwrap_or_else(|error| panic!("{error}: {}", raw.data));
    assert!(data.is_object(), "{}", raw.data);
    Frame { event: raw.event, data }
}

/// One `run_started`, first; results after their calls; one terminal frame, last.
fn check_order(frames: &[Frame]) {
    let names: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names.first(), Some(&"run_started"), "{names:?}");
    assert_eq!(
        names.iter().filter(|name| **name == "run_started").count(),
        1,
        "{names:?}"
    );
    assert_eq!(
        frames.iter().filter(|frame| frame.is_terminal()).count(),
        1,
        "{names:?}"
    );
    assert!(frames.last().is_some_and(Frame::is_terminal), "{names:?}");
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    for frame in frames {
        let text = |field: &str| frame.data[field].as_str().map(str::to_owned).unwrap_or_default();
        match frame.event.as_str() {
            "agent_tool_call" => {
                assert!(frame.data["arguments"].is_object(), "{frame:?}");
                assert!(open.insert(text("call_id"), text("name")).is_none(), "{frame:?}");
            }
            "agent_tool_result" => {
                assert!(frame.data["result"].is_object(), "{frame:?}");
                assert_eq!(open.remove(&text("call_id")), Some(text("name")), "{frame:?}");
            }
            "agent_text_delta" => assert!(frame.data["text"].is_string(), "{frame:?}"),
            "agent_finish" => {
                assert!(
                    frame.data["stop_reason"].is_string() && frame.data["usage"].is_object(),
                    "{frame:?}"
                );
                assert!(
                    frame.data["session_id"]
                        .as_str()
                        .is_some_and(|id| id.starts_with("sess_")),
                    "{frame:?}"
                );
                assert!(open.is_empty(), "calls without result: {open:?}");
            }
            "agent_error" => assert!(
                frame.data["message"].is_string() && frame.data["type"].is_string(),
                "{frame:?}"
            ),
            other => assert_eq!(other, "run_started"),
        }
    }
}

/// A turn that came to its end.
pub(crate) struct Turn {
    pub(crate) run_id: String,
    pub(crate) session_id: String,
    pub(crate) text: String,
    pub(crate) frames: Vec<Frame>,
}

impl Turn {
    /// The result of the one call of this tool.
    #[track_caller]
    pub(crate) fn result(&self, tool: &str) -> &Value {
        let is_it = |frame: &&Frame| frame.event == "agent_tool_result" && frame.data["name"] == tool;
        let frame = self
            .frames
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{tool} was not called: {:?}", self.frames));
        assert_eq!(frame.data["error"], Value::Null, "{frame:?}");
        &frame.data["result"]
    }
}

impl Tenant {
    /// Opens a stream in the person's sandbox.
    pub(crate) async fn chat(&self, message: &str, session_id: Option<&str>) -> Chat {
        Chat::open(&self.api, &self.path("/concierge/chat"), message, session_id).await
    }

    /// One whole successful turn; the row of its run is final when the terminal frame is here.
    pub(crate) async fn turn(&self, message: &str, session_id: Option<&str>) -> Turn {
        let chat = self.chat(message, session_id).await;
        let run_id = chat.run_id.clone();
        let frames = chat.finish().await;
        let row = self.run(&run_id).await;
        let last = frames.last().expect("a terminal frame").clone();
        assert_eq!(last.event, "agent_finish", "{last:?}");
        assert_eq!(last.data["run_id"], *run_id);
        assert_eq!(row["status"], "succeeded", "{row}");
        let texts = frames.iter().filter(|frame| frame.event == "agent_text_delta");
        let text: String = texts.filter_map(|frame| frame.data["text"].as_str()).collect();
        assert_eq!(row["output_text"], *text);
        let session_id = last.data["session_id"].as_str().expect("a session").to_owned();
        assert_eq!(row["provider_session_id"], *session_id);
        Turn {
            run_id,
            session_id,
            text,
            frames,
        }
    }

    /// The row of a run.
    pub(crate) async fn run(&self, run_id: &str) -> Value {
        self.api
            .get(&self.path(&format!("/agents/runs/{run_id}")))
            .await
            .expect(200)
    }

    pub(crate) async fn run_status(&self, run_id: &str) -> String {
        self.run(run_id).await["status"].as_str().expect("a status").to_owned()
    }
}
