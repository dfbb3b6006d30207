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
    /// Whether stderr takes colours.
    dim: bool,
    /// Whether stdout takes colours.
    tint: bool,
}

/// How a line looks on a terminal with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tint {
    Plain,
    Added,
    Removed,
    Place,
}

impl Tint {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Added => Some("32"),
            Self::Removed => Some("31"),
            Self::Place => Some("36"),
        }
    }
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        // https://no-color.org: set and not empty.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colours = !no_colour && !dumb;
        Self {
            json,
            dim: colours && io::stderr().is_terminal(),
            tint: colours && io::stdout().is_terminal(),
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

    /// A text that somebody may want back as it is: exactly so into a file or a pipe, as any text on a terminal.
    pub(crate) fn exactly(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        if stdout.is_terminal() {
            drop(stdout);
            return self.text(text);
        }
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Lines for a person, on stdout, with colours where it takes them.
    pub(crate) fn tinted(&self, lines: &[(Tint, String)]) -> Result<(), Failure> {
        let mut text = String::new();
        for (tint, line) in lines {
            let line = clean(line);
            match tint.code().filter(|_| self.tint) {
                Some(code) => text.push_str(&format!("\u{1b}[{code}m{line}\u{1b}[0m\n")),
                None => text.push_str(&format!("{line}\n")),
            }
        }
        self.stdout_line(text.trim_end_matches('\n'))
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
                let body = json!({"detail": failure.message, "error": failure.code, "status": failure.status});
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

/// The columns of the terminal that stdout is; `None` where it is a file, a pipe, or a terminal that does not tell.
pub(crate) fn columns() -> Option<usize> {
    let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// Text without control characters: what a server or a model wrote must not be able to steer the terminal, nor to turn
/// the direction of what follows it.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let turns = |character: char| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let harmful = |character: char| (character.is_control() && !matches!(character, '\n' | '\t')) || turns(character);
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
        assert_eq!(super::clean("a\u{202e}txt\u{202c}\u{2066}b\u{2069}é👩‍💻"), "atxtbé👩‍💻");
    }
}
