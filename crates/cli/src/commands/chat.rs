//! `copass chat`: one turn, or a conversation, with the Concierge.
//!
//! The reply goes to stdout as it comes; what surrounds it (tool calls, the session's id) goes to stderr, dimly, so
//! that `copass chat … > answer.txt` holds the answer. Ctrl-C drops the stream, which cancels the run on the server;
//! in a conversation it ends the turn only.

use std::pin::pin;

use copass_client::{ChatFrame, Client};
use copass_types::api::{ConciergeChatRequest, Frame};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{args::ChatArgs, context::Context, failure::Failure, output::Output, prompt, table};

/// Most of a tool's arguments that is shown.
const ARGUMENTS_MAX_CHARS: usize = 120;

pub(crate) async fn run(context: &Context, args: ChatArgs) -> Result<(), Failure> {
    let piped = match &args.message {
        Some(message) => message == "-",
        None => !context.settings.interactive,
    };
    let message = if piped {
        Some(prompt::piped_text()?)
    } else {
        args.message
    };
    if message.as_ref().is_some_and(|message| message.trim().is_empty()) {
        return Err(
            Failure::usage("the message is empty").hint("say something: copass chat \"What agents do I have?\"")
        );
    }
    let (client, sandbox_id) = context.in_sandbox().await?;
    let mut chat = Chat {
        output: &context.output,
        client,
        sandbox_id,
        session_id: args.session,
    };
    match message {
        Some(message) => chat.once(message).await,
        None => chat.converse().await,
    }
}

struct Chat<'a> {
    output: &'a Output,
    client: Client,
    sandbox_id: String,
    session_id: Option<String>,
}

impl Chat<'_> {
    async fn once(&mut self, message: String) -> Result<(), Failure> {
        self.turn(message).await?;
        if let Some(session_id) = self.session_id.as_ref().filter(|_| !self.output.is_json()) {
            self.output
                .dim(&format!("session {session_id} (continue with --session {session_id})"));
        }
        Ok(())
    }

    async fn converse(&mut self) -> Result<(), Failure> {
        self.output
            .dim("Talk to the Concierge. /new starts over, /exit or Ctrl-D ends.");
        let mut lines = keyboard();
        loop {
            self.output.ask("> ");
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = tokio::signal::ctrl_c() => None,
            };
            let Some(line) = line else {
                self.output.note("");
                return Ok(());
            };
            match line.trim() {
                "" => {}
                "/exit" | "/quit" => return Ok(()),
                "/new" => {
                    self.session_id = None;
                    self.output.dim("New conversation.");
                }
                message => match self.turn(message.to_owned()).await {
                    Ok(()) => {}
                    // Nobody reads any more, or the next turn would fail alike.
                    Err(failure) if failure.silent && failure.exit == 0 => return Err(failure),
                    Err(failure) if matches!(failure.status, 401 | 403 | 404) => return Err(failure),
                    Err(failure) if failure.silent => {}
                    Err(failure) => self.output.show_failure(&failure),
                },
            }
        }
    }

    async fn turn(&mut self, message: String) -> Result<(), Failure> {
        let interrupted = || Failure::failed("interrupted; the run is cancelled").code("interrupted");
        let body = ConciergeChatRequest {
            message,
            session_id: self.session_id.clone(),
        };
        // One listener for the whole turn: a new one for each frame would miss a signal between two of them.
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        let mut stream = tokio::select! {
            stream = self.client.concierge_chat(&self.sandbox_id, &body) => stream?,
            _ = &mut interrupt => return Err(interrupted()),
        };
        let mut view = View {
            output: self.output,
            mid_line: false,
            ended: None,
            session_id: None,
        };
        let result = loop {
            let frame = tokio::select! {
                frame = stream.next() => frame,
                _ = &mut interrupt => break Err(interrupted()),
            };
            match frame {
                Ok(Some(frame)) => {
                    if let Err(failure) = view.show(&frame) {
                        break Err(failure);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        view.end_line()?;
        result?;
        if let Some(session_id) = view.session_id {
            self.session_id = Some(session_id);
        }
        view.ended.map_or(Ok(()), Err)
    }
}

/// Lines from the keyboard. A thread of its own: reading cannot be cancelled, and the process must not wait for it.
fn keyboard() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What one turn looks like.
struct View<'a> {
    output: &'a Output,
    /// Whether the reply stands in the middle of a line.
    mid_line: bool,
    ended: Option<Failure>,
    session_id: Option<String>,
}

impl View<'_> {
    fn show(&mut self, frame: &ChatFrame) -> Result<(), Failure> {
        if self.output.is_json() {
            self.output
                .json_line(&json!({"event": frame.event, "data": frame.data}))?;
        }
        match frame.read()? {
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
                    call.name,
                    table::shortened(&arguments, ARGUMENTS_MAX_CHARS)
                ))?;
            }
            Some(Frame::ToolResult(result)) if !self.output.is_json() => match result.error {
                Some(error) => self.aside(&format!("✗ {}: {error}", result.name))?,
                None => self.aside(&format!("✓ {}", result.name))?,
            },
            Some(Frame::Finish(finish)) => {
                self.session_id = finish.session_id;
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
