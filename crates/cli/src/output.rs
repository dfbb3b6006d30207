//! The one way to print. Data goes to stdout, everything else to stderr; with `--json` stdout holds JSON only.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use copass_client::Reply;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Where and how to print.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    dim: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        // https://no-color.org: set and not empty.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            dim: !no_colour && !dumb && io::stderr().is_terminal(),
        }
    }

    /// Whether `--json` was given.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The answer of the server: unchanged with `--json`, else as the function writes it.
    pub(crate) fn reply<T>(&self, reply: &Reply<T>, human: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.json {
            self.stdout_line(reply.text.trim_end())
        } else {
            self.text(&human(&reply.value))
        }
    }

    /// An answer of our own: the value with `--json`, else the text.
    pub(crate) fn value(&self, value: &Value, human: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json {
            self.stdout_line(&value.to_string())
        } else {
            self.text(&human())
        }
    }

    /// Text for a person, on stdout.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        self.stdout_line(clean(text).trim_end())
    }

    /// A part of a text that is still growing, on stdout.
    pub(crate) fn delta(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(clean(text).as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// One line of JSON on stdout, flushed.
    pub(crate) fn json_line(&self, value: &Value) -> Result<(), Failure> {
        self.stdout_line(&value.to_string())
    }

    /// A remark on stderr.
    pub(crate) fn note(&self, text: &str) {
        stderr_line(&clean(text));
    }

    /// A remark on stderr that stays in the background.
    pub(crate) fn dim(&self, text: &str) {
        let text = clean(text);
        if self.dim {
            stderr_line(&format!("\u{1b}[2m{text}\u{1b}[0m"))
        } else {
            stderr_line(&text)
        }
    }

    /// A question on stderr, without a line end.
    pub(crate) fn ask(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        // When stderr is gone, nobody can read the question; the missing answer ends the command.
        let _ = write!(stderr, "{}", clean(text)).and_then(|()| stderr.flush());
    }

    /// Prints a failure and gives its exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> ExitCode {
        if !failure.silent {
            if self.json {
                let body = json!({"error": failure.code, "detail": failure.message, "status": failure.status});
                // Nobody listens: the exit code still says it.
                let _ = self.json_line(&body);
            } else {
                self.show_failure(failure);
            }
        }
        ExitCode::from(failure.exit)
    }

    /// Prints a failure for a person and goes on.
    pub(crate) fn show_failure(&self, failure: &Failure) {
        stderr_line(&format!("error: {}", clean(&failure.message)));
        if let Some(hint) = &failure.hint {
            stderr_line(&format!("\nhint: {}", clean(hint)));
        }
    }

    fn stdout_line(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(stdout.flush()?)
    }
}

fn stderr_line(text: &str) {
    // There is no better place to complain about a broken stderr.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Text without control characters: what a server or a model wrote must not be able to steer the terminal.
fn clean(text: &str) -> Cow<'_, str> {
    let harmful = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if text.contains(harmful) {
        Cow::Owned(text.replace(harmful, ""))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_sequences_lose_their_power() {
        assert_eq!(super::clean("a\u{1b}[2Jb\r\u{9b}1m\n\tc\u{7}"), "a[2Jb1m\n\tc");
    }
}
