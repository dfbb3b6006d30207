//! The words of an answer. Whatever comes from outside is one bounded line of visible characters.

use serde_json::Value;

use super::{
    Outcome,
    arguments::{Missing, Reason},
    facts::Facts,
    prompt,
};

const MAX_FIELDS: usize = 12;
const MAX_VALUE_CHARS: usize = 160;
const MAX_RESULT_CHARS: usize = 600;

/// Said in every answer.
const ABOUT_ITSELF: &str = "(This is the built-in planner, not a language model: it calls the tools that the agent's \
     prompt names; to run a model, set models.anthropic.api_key, models.google.api_key or models.hermes.base_url on the \
     server.)";

/// What was done and what was not, and why.
pub(super) fn answer<'a>(
    facts: &Facts,
    outcomes: &[Outcome<'_>],
    lacking: impl Iterator<Item = (&'a str, &'a [Missing])>,
    is_prompt_cut: bool,
) -> String {
    let mut lines: Vec<String> = outcomes.iter().map(outcome).collect();
    lines.extend(lacking.map(|(name, missing)| not_called(name, missing)));
    if lines.is_empty() {
        lines.push(summary(facts));
    }
    if is_prompt_cut {
        lines.push(format!(
            "Of the agent's prompt the first {} KiB were read; tools that only stand behind them were not looked for.",
            prompt::MAX_BYTES / 1024
        ));
    }
    lines.push(String::new());
    lines.push(ABOUT_ITSELF.to_owned());
    lines.join("\n")
}

fn outcome(outcome: &Outcome<'_>) -> String {
    let name = line(outcome.name, MAX_VALUE_CHARS);
    match outcome.result {
        Ok(result) => format!("{name}: {}", line(&shown(result), MAX_RESULT_CHARS)),
        Err(error) => format!("{name} failed: {}", line(error, MAX_RESULT_CHARS)),
    }
}

fn not_called(name: &str, missing: &[Missing]) -> String {
    let reasons: Vec<String> = missing
        .iter()
        .map(|missing| {
            let name = line(&missing.name, MAX_VALUE_CHARS);
            match missing.reason {
                Reason::Absent => format!("`{name}` is missing"),
                Reason::Ambiguous => format!("`{name}` could be several things"),
                Reason::Unfit => format!("what `{name}` holds is of another type"),
            }
        })
        .collect();
    format!(
        "{} was not called: {}.",
        line(name, MAX_VALUE_CHARS),
        reasons.join(", ")
    )
}

fn summary(facts: &Facts) -> String {
    let Some(fields) = facts.fields() else {
        return match (&facts.payload, facts.text.as_str()) {
            (Some(payload), _) => format!("The event is {}.", line(&shown(payload), MAX_RESULT_CHARS)),
            (None, "") => "There is nothing to do: the message is empty.".to_owned(),
            (None, text) => format!(
                "The agent's prompt names no tool that is offered, so nothing was done about: {}",
                line(text, MAX_RESULT_CHARS)
            ),
        };
    };
    let head = match fields.len() {
        0 => return "The event is empty.".to_owned(),
        1 => "The event has one field:".to_owned(),
        count => format!("The event has {count} fields:"),
    };
    let mut lines = vec![head];
    lines.extend(fields.iter().take(MAX_FIELDS).map(|(name, value)| {
        format!(
            "- {}: {}",
            line(name, MAX_VALUE_CHARS),
            line(&shown(value), MAX_VALUE_CHARS)
        )
    }));
    if fields.len() > MAX_FIELDS {
        lines.push(format!("- and {} more", fields.len() - MAX_FIELDS));
    }
    lines.join("\n")
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// One line of visible characters, cut to a length.
fn line(text: &str, max_chars: usize) -> String {
    let is_invisible = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    let visible = text
        .chars()
        .map(|character| if is_invisible(character) { ' ' } else { character });
    let visible: String = visible.take(max_chars + 1).collect();
    match visible.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", visible[..end].trim_end()),
        None => visible.trim().to_owned(),
    }
}
