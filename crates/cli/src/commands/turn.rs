//! A turn as it is shown: the reply on stdout, what surrounds it on stderr.
//!
//! Three commands show turns: the Concierge's, those of `copass run`, and runs that are followed from elsewhere. The
//! reply goes to stdout as it comes; tool calls go to stderr, dimly, so that `copass run … > answer.txt` holds the
//! answer. With `--json` each frame is a line on stdout, and nothing else is.

use std::{future::Future, pin::pin};

use copass_client::{ChatFrame, ChatStream, RunFollower};
use copass_types::api::Frame;
use serde_json::{Value, json};

use crate::{failure::Failure, output::Output, table};

/// Most of a tool's arguments that is shown.
const ARGUMENTS_MAX_CHARS: usize = 120;

/// Where frames come from.
pub(super) enum Frames {
    /// A turn of our own: leaving it cancels the run.
    Own(Box<ChatStream>),
    /// A run that goes on without us.
    Followed(Box<RunFollower>),
}

impl From<ChatStream> for Frames {
    fn from(stream: ChatStream) -> Self {
        Self::Own(Box::new(stream))
    }
}

impl From<RunFollower> for Frames {
    fn from(follower: RunFollower) -> Self {
        Self::Followed(Box::new(follower))
    }
}

impl Frames {
    async fn next(&mut self) -> copass_client::Result<Option<ChatFrame>> {
        match self {
            Self::Own(stream) => stream.next().await,
            Self::Followed(follower) => follower.next().await,
        }
    }
}

/// What is known when a turn is over.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) session_id: Option<String>,
    pub(super) run_id: Option<String>,
    /// Whether Ctrl-C ended the show of a run that is not ours.
    pub(super) is_left: bool,
}

/// Ctrl-C while somebody waits for a run of their own.
pub(super) fn interrupted() -> Failure {
    Failure::failed("interrupted; the run is cancelled").code("interrupted")
}

/// Shows a turn up to its end. Ctrl-C closes the stream: a turn of our own is cancelled by that, and it is an error; a
/// followed run goes on, and it is none.
pub(super) async fn show(
    output: &Output,
    open: impl Future<Output = copass_client::Result<Frames>>,
) -> Result<Shown, Failure> {
    // One listener for the whole turn: a new one for each frame would miss a signal between two of them.
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut frames = tokio::select! {
        frames = open => frames?,
        _ = &mut interrupt => return Err(interrupted()),
    };
    let mut view = View {
        output,
        is_followed: matches!(frames, Frames::Followed(_)),
        mid_line: false,
        ended: None,
        shown: Shown::default(),
    };
    let result = loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            _ = &mut interrupt => {
                view.shown.is_left = view.is_followed;
                break if view.is_followed { Ok(()) } else { Err(interrupted()) };
            }
        };
        match frame {
            Ok(Some(frame)) => {
                if let Err(failure) = view.show(&frame) {
                    break Err(failure);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) if view.is_followed => {
                let failure = Failure::from(error);
                break Err(match failure.status {
                    0 => failure.hint("the run goes on; run the command again to see the rest"),
                    _ => failure,
                });
            }
            Err(error) => break Err(error.into()),
        }
    };
    view.end_line()?;
    result?;
    view.ended.map_or(Ok(view.shown), Err)
}

struct View<'a> {
    output: &'a Output,
    is_followed: bool,
    /// Whether the reply stands in the middle of a line.
    mid_line: bool,
    ended: Option<Failure>,
    shown: Shown,
}

impl View<'_> {
    fn show(&mut self, frame: &ChatFrame) -> Result<(), Failure> {
        if self.output.is_json() {
            let mut line = json!({"data": frame.data, "event": frame.event});
            // With the id somebody else can go on from here; a turn of our own cannot be resumed.
            if let (true, Some(id), Some(fields)) = (self.is_followed, &frame.id, line.as_object_mut()) {
                fields.insert("id".to_owned(), id.as_str().into());
            }
            self.output.json_line(&line)?;
        }
        match frame.read()? {
            Some(Frame::RunStarted(started)) => self.shown.run_id = Some(started.run_id),
            Some(Frame::TextDelta(delta)) if !self.output.is_json() => {
                self.output.delta(&delta.text)?;
                match delta.text.chars().next_back() {
                    Some('\n') => self.mid_line = false,
                    Some(_) => self.mid_line = true,
                    None => {}
                }
            }
            Some(Frame::ToolCall(call)) if !self.output.is_json() => {
                let arguments = Value::Object(call.arguments).to_string();
                self.aside(&format!(
                    "→ {} {}",
                    table::one_line(&call.name),
                    table::shortened(&arguments, ARGUMENTS_MAX_CHARS)
                ))?;
            }
            Some(Frame::ToolResult(result)) if !self.output.is_json() => {
                let name = table::one_line(&result.name);
                match result.error {
                    Some(error) => self.aside(&format!("✗ {name}: {}", table::one_line(&error)))?,
                    None => self.aside(&format!("✓ {name}"))?,
                }
            }
            Some(Frame::Finish(finish)) => {
                self.shown.session_id = finish.session_id;
                if !matches!(finish.stop_reason.as_str(), "end_turn" | "unknown") && !self.output.is_json() {
                    self.end_line()?;
                    self.output
                        .note(&format!("warning: the answer ended early ({})", finish.stop_reason));
                }
            }
            Some(Frame::Error(error)) => {
                // With --json the frame itself was the answer.
                self.ended = Some(if self.output.is_json() {
                    Failure::silent(crate::failure::EXIT_FAILED)
                } else {
                    let failure = Failure::failed(error.message).code(&error.kind);
                    match error.run_id {
                        Some(run_id) => failure.hint(format!("`copass run show {run_id}` shows what happened")),
                        None => failure,
                    }
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn aside(&mut self, text: &str) -> Result<(), Failure> {
        self.end_line()?;
        self.output.dim(text);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        if self.mid_line {
            self.mid_line = false;
            self.output.delta("\n")?;
        }
        Ok(())
    }
}
