//! Live streams that go on after a break: of one run, and of the runs of an agent.
//!
//! The server numbers what it sends, so a follower that was cut off asks for what comes after the last thing it has and
//! sees everything once. Following changes nothing on the server, and a follower may leave at any time.

use std::time::Duration;

use copass_types::api::AgentRun;
use reqwest::{Method, StatusCode, header::HeaderValue};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{ChatFrame, Client, Error, Result, call::Call, stream::Events};

/// Pauses before the next attempt; each one that brings something starts the row anew.
const PAUSES_MS: [u64; 8] = [0, 100, 250, 500, 1000, 2000, 4000, 8000];

/// A stream that is opened again where it broke.
#[derive(Debug)]
struct Follower {
    client: Client,
    segments: Vec<String>,
    query: Vec<(&'static str, String)>,
    last_id: Option<String>,
    events: Option<Events>,
    failures: usize,
    /// The server said that nothing follows.
    is_over: bool,
}

impl Follower {
    async fn open(
        client: &Client,
        segments: &[&str],
        query: Vec<(&'static str, String)>,
        after: Option<&str>,
    ) -> Result<Self> {
        let mut follower = Self {
            client: client.clone(),
            segments: segments.iter().map(|segment| (*segment).to_owned()).collect(),
            query,
            last_id: after.map(str::to_owned),
            events: None,
            failures: 0,
            is_over: false,
        };
        // What is wrong with the request itself is told at once.
        follower.events = follower.connect().await?;
        follower.is_over = follower.events.is_none();
        Ok(follower)
    }

    /// `None` when nothing follows.
    async fn connect(&self) -> Result<Option<Events>> {
        let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        let mut call = Call::sandboxes(&self.client, Method::GET, &segments)?
            .header("accept", HeaderValue::from_static("text/event-stream"))
            .timeout(None);
        for (name, value) in &self.query {
            call.url.query_pairs_mut().append_pair(name, value);
        }
        if let Some(id) = &self.last_id {
            let id = HeaderValue::try_from(id.as_str())
                .map_err(|_| Error::Invalid(format!("'{id}' is not the id of an event")))?;
            call = call.header("last-event-id", id);
        }
        let response = self.client.open(call).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        Events::new(response).map(Some)
    }

    /// The next event, after as many attempts as it takes; an error is final. `None` when nothing follows.
    async fn next(&mut self) -> Result<Option<ChatFrame>> {
        while !self.is_over {
            let broken = match self.attempt().await {
                Ok(Some(frame)) => {
                    self.failures = 0;
                    if frame.id.is_some() {
                        self.last_id.clone_from(&frame.id);
                    }
                    return Ok(Some(frame));
                }
                Ok(None) if self.is_over => break,
                Ok(None) => Error::Stream("it ended and could not be taken up again".to_owned()),
                Err(error) if is_passing(&error) => error,
                Err(error) => return Err(error),
            };
            self.events = None;
            let Some(pause) = PAUSES_MS.get(self.failures) else {
                return Err(broken);
            };
            self.failures += 1;
            tokio::time::sleep(Duration::from_millis(*pause)).await;
        }
        Ok(None)
    }

    async fn attempt(&mut self) -> Result<Option<ChatFrame>> {
        if self.events.is_none() {
            self.events = self.connect().await?;
            self.is_over = self.events.is_none();
        }
        match &mut self.events {
            Some(events) => events.next().await,
            None => Ok(None),
        }
    }
}

/// Whether the same question may get another answer in a moment.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Transport { .. } | Error::Stream(_) => true,
        Error::Api(error) => error.status >= 500 || error.status == 429,
        Error::Decode { .. } | Error::Invalid(_) => false,
    }
}

/// The frames of a run: those that are stored, then those to come. Dropping it changes nothing.
#[derive(Debug)]
pub struct RunFollower {
    follower: Follower,
    finished: bool,
}

impl RunFollower {
    /// The next frame; `None` after the terminal one, also when that is where the following began.
    ///
    /// # Errors
    /// The run or the access to it is gone, or the server cannot be reached any longer.
    pub async fn next(&mut self) -> Result<Option<ChatFrame>> {
        if self.finished {
            return Ok(None);
        }
        let frame = self.follower.next().await.inspect_err(|_| self.finished = true)?;
        self.finished = frame.as_ref().is_none_or(ChatFrame::is_terminal);
        Ok(frame)
    }

    /// The id of the last frame, to go on from later.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.follower.last_id.as_deref()
    }
}

/// The runs of an agent as they begin and change; it never ends by itself. Dropping it changes nothing.
#[derive(Debug)]
pub struct AgentRunsFollower {
    follower: Follower,
}

impl AgentRunsFollower {
    /// The next run that is new or has changed.
    ///
    /// # Errors
    /// The agent or the access to it is gone, or the server cannot be reached any longer.
    pub async fn next(&mut self) -> Result<AgentRun> {
        Ok(self.next_row().await?.0)
    }

    /// The same with the row as it came, for who passes it on.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_row(&mut self) -> Result<(AgentRun, Value)> {
        loop {
            let ended = || Error::Stream("the server says that nothing follows".to_owned());
            let frame = self.follower.next().await?.ok_or_else(ended)?;
            if frame.event == "run" {
                let run = AgentRun::deserialize(&frame.data)
                    .map_err(|error| Error::Stream(format!("a run is not understood: {error}")))?;
                return Ok((run, frame.data));
            }
        }
    }

    /// The id of the last event, to go on from later.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.follower.last_id.as_deref()
    }
}

#[allow(clippy::missing_errors_doc, reason = "the errors of all calls")]
impl Client {
    /// `GET …/agents/runs/{run_id}/events`: from the frame after `after`, or from the first.
    pub async fn follow_run(&self, sandbox_id: &str, run_id: &str, after: Option<&str>) -> Result<RunFollower> {
        let segments = [sandbox_id, "agents", "runs", run_id, "events"];
        Ok(RunFollower {
            follower: Follower::open(self, &segments, Vec::new(), after).await?,
            finished: false,
        })
    }

    /// `GET …/agents/{slug}/runs/stream`: the newest `backlog` runs, or what changed after `after`, then live.
    pub async fn follow_agent_runs(
        &self,
        sandbox_id: &str,
        slug: &str,
        backlog: u32,
        after: Option<&str>,
    ) -> Result<AgentRunsFollower> {
        let segments = [sandbox_id, "agents", slug, "runs", "stream"];
        let query = vec![("backlog", backlog.to_string())];
        Ok(AgentRunsFollower {
            follower: Follower::open(self, &segments, query, after).await?,
        })
    }
}
