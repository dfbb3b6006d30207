//! The way to the rest of a list that showed its newest rows only: the command that was typed, one page further.

use crate::{output::Output, shell};

/// A list as it was asked for.
pub(crate) struct Listed<'a> {
    /// What its rows are, for a sentence.
    pub(crate) rows: &'a str,
    /// The command without options.
    pub(crate) command: &'a [&'a str],
    /// What was asked for; `--before` is not one of them.
    pub(crate) options: &'a [(&'a str, Option<String>)],
}

impl Listed<'_> {
    /// Names the command for the rows behind this one; nothing for programs, who know their cursor.
    pub(crate) fn tell_older(&self, output: &Output, before: &str) {
        if output.is_json() {
            return;
        }
        let mut words = [self.command, &["--before", before]].concat();
        for (name, value) in self.options {
            if let Some(value) = value {
                words.extend([name, value.as_str()]);
            }
        }
        output.note(&format!("Older {}: `{}`.", self.rows, shell::copass(&words)));
    }
}
