//! What a run shows of its steps (`rest.md` 12.12): all of them, and of what they read and wrote as much as fits.
//!
//! A run has thousands of steps at most, and each may have read and written many times of what a list shows of it. So the
//! database gives beginnings, some steps at a time, and every run fits into one message however its steps are made.

use copass_errors::{Error, Result};
use copass_store::Conn;
use copass_types::{RunId, SandboxId};
use serde_json::Value;

use super::domain::{Step, StepKind};
use crate::store::{
    self,
    steps::{MAX_BEGINNING_CHARS, Texts},
};

/// All texts of all steps: names, ids of calls, arguments, errors and previews. What else a step has is short, and of the
/// largest message there is enough left for it and for the run's own texts.
const MAX_TEXT_BYTES: usize = 9 * 1024 * 1024;
/// Arguments in one answer; beyond that, steps come without them.
const MAX_ARGUMENT_BYTES: usize = 1024 * 1024;
/// Errors in one answer; beyond that, steps come with the beginnings of theirs.
const MAX_ERROR_BYTES: usize = 2 * 1024 * 1024;
/// Previews in one answer; beyond that, steps come with shorter ones.
const MAX_PREVIEWS_BYTES: usize = 3 * 1024 * 1024;
/// What a list of steps shows of each output.
const MAX_PREVIEW_BYTES: usize = 2 * 1024;
/// What a step shows of its error or output where there is no room for more.
const SHORT_BYTES: usize = 128;
/// The texts of so many steps are read at a time.
const PAGE: usize = 64;

/// A step as a list of them shows it: without arguments and output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShownStep {
    pub(crate) step: Step,
    pub(crate) arguments_json: Option<String>,
    /// Of a model step: what it said. Of a tool step: the beginning of the result as JSON.
    pub(crate) output_preview: Option<String>,
    /// Whether there is more of the output.
    pub(crate) is_truncated: bool,
}

/// The steps of a run as they are shown.
pub(crate) async fn steps(conn: &mut Conn, sandbox_id: &SandboxId, run_id: &RunId) -> Result<Vec<ShownStep>> {
    let steps = store::steps::list_bare(conn, sandbox_id, run_id).await?;
    let mut room = Room::beside(&steps);
    let mut shown: Vec<ShownStep> = steps.into_iter().map(ShownStep::bare).collect();
    for page in shown.chunks_mut(PAGE) {
        let seqs = match (page.first(), page.last()) {
            (Some(first), Some(last)) => (first.step.seq, last.step.seq),
            _ => break,
        };
        let wants = (room.arguments > 0, room.all > 0);
        let texts = store::steps::texts(conn, sandbox_id, run_id, seqs, wants).await?;
        let mut texts = texts.into_iter().peekable();
        for shown in page {
            // A step that has been added since is not among them, and none goes away.
            if let Some((_, texts)) = texts.next_if(|(seq, _)| *seq == shown.step.seq) {
                shown.fill(texts, &mut room)?;
            }
        }
    }
    Ok(shown)
}

impl ShownStep {
    fn bare(step: Step) -> Self {
        Self {
            // Of a tool step the size is known when there is an output; of a model step it is that of its text.
            is_truncated: step.result_bytes.is_some_and(|bytes| bytes > 0),
            step,
            arguments_json: None,
            output_preview: None,
        }
    }

    fn fill(&mut self, texts: Texts, room: &mut Room) -> Result<()> {
        self.arguments_json = match texts.arguments {
            Some(arguments) => room.arguments(compacted(&arguments)?),
            None => None,
        };
        self.step.error = texts.error.map(|error| room.error(error));
        if let Some(beginning) = texts.output {
            let is_whole = beginning.chars().count() < MAX_BEGINNING_CHARS;
            let output = match self.step.kind {
                StepKind::Model => beginning,
                StepKind::Tool if is_whole => compacted(&beginning)?,
                StepKind::Tool => without_spaces(&beginning),
            };
            let len = output.len();
            let known = self.step.result_bytes.and_then(|bytes| usize::try_from(bytes).ok());
            let preview = room.preview(output);
            self.is_truncated = !is_whole || preview.len() < len || known.is_some_and(|known| known > len);
            self.output_preview = Some(preview).filter(|preview| !preview.is_empty());
        }
        Ok(())
    }
}

/// The JSON as this service writes it: databases write it as they like.
fn compacted(json: &str) -> Result<String> {
    let value: Value = serde_json::from_str(json).map_err(Error::internal)?;
    Ok(value.to_string())
}

/// The beginning of a JSON text without what stands between its parts.
fn without_spaces(beginning: &str) -> String {
    let (mut is_string, mut is_escaped) = (false, false);
    beginning
        .chars()
        .filter(|character| {
            if is_string {
                is_string = is_escaped || *character != '"';
                is_escaped = !is_escaped && *character == '\\';
                return true;
            }
            is_string = *character == '"';
            !character.is_ascii_whitespace()
        })
        .collect()
}

/// How much of the texts still fits: of all, and of each kind.
#[derive(Debug)]
struct Room {
    all: usize,
    arguments: usize,
    errors: usize,
    previews: usize,
}

impl Room {
    /// What the names of the steps leave: each step has them.
    fn beside(steps: &[Step]) -> Self {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let names: usize = steps.iter().map(|step| len(&step.name) + len(&step.call_id)).sum();
        Self {
            all: MAX_TEXT_BYTES.saturating_sub(names),
            arguments: MAX_ARGUMENT_BYTES,
            errors: MAX_ERROR_BYTES,
            previews: MAX_PREVIEWS_BYTES,
        }
    }

    /// Arguments come whole or not at all, because half an object is none; after the first that do not fit none come.
    fn arguments(&mut self, arguments: String) -> Option<String> {
        self.arguments = self.arguments.saturating_sub(arguments.len());
        if self.arguments == 0 || arguments.len() > self.all {
            return None;
        }
        self.all -= arguments.len();
        Some(arguments)
    }

    /// As much of the error as fits; that there was one always does.
    fn error(&mut self, mut error: String) -> String {
        if cut(&mut error, usize::MAX, &mut self.errors, &mut self.all) {
            error.push('…');
        }
        error
    }

    /// As much of the output as fits.
    fn preview(&mut self, mut output: String) -> String {
        cut(&mut output, MAX_PREVIEW_BYTES, &mut self.previews, &mut self.all);
        output
    }
}

/// Cuts the text to what there is room for, and takes it from there; whether it was longer.
fn cut(text: &mut String, most: usize, of_kind: &mut usize, of_all: &mut usize) -> bool {
    let len = text.len();
    let wanted = len.min(most);
    let fits = if wanted <= *of_kind { wanted } else { SHORT_BYTES };
    text.truncate(text.floor_char_boundary(fits.min(*of_all)));
    *of_kind = of_kind.saturating_sub(text.len());
    *of_all -= text.len();
    text.len() < len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_between_the_parts_of_a_beginning_are_left_out() {
        for (written, shown) in [
            (
                r#"{"a": 1, "b c": [true, "x, y: z"], "d": "#,
                r#"{"a":1,"b c":[true,"x, y: z"],"d":"#,
            ),
            (r#"{"a\"b: c": "\\", "d": "ö "#, r#"{"a\"b: c":"\\","d":"ö "#),
            (r#"{"a": "\\\" , "#, r#"{"a":"\\\" , "#),
        ] {
            assert_eq!(without_spaces(written), shown);
        }
    }

    #[test]
    fn texts_get_shorter_and_then_end() {
        let (mut of_kind, mut of_all) = (1000, 1200);
        let lens: Vec<usize> = (0..6)
            .map(|_| {
                let mut text = "ö".repeat(400);
                cut(&mut text, 601, &mut of_kind, &mut of_all);
                text.len()
            })
            .collect();
        assert_eq!((lens, of_all), (vec![600, 128, 128, 128, 128, 88], 0));
        let mut text = String::from("x");
        assert!(cut(&mut text, 601, &mut of_kind, &mut of_all) && text.is_empty());
    }
}
