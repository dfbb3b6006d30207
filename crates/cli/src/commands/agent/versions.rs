//! `copass agent versions` and `diff`.

use copass_types::api::{
    Agent, AgentVersionDiff, DiffAgentVersionsQuery, ListAgentVersionsQuery, agent_versions::FieldChange,
};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::{
    context::Context,
    failure::Failure,
    older::Listed,
    output::Tint,
    table::{self, Spare::Cut},
};

/// Lines around a change.
const CONTEXT_LINES: usize = 3;
/// What differs between any two versions, or is not a part of one.
const UNINTERESTING: [&str; 5] = [
    "version",
    "created_at",
    "updated_at",
    "warnings",
    "allowlist_missing_entries",
];
/// Longest value in the brief form.
const BRIEF_MAX_CHARS: usize = 60;

pub(super) async fn list(
    context: &Context,
    slug: &str,
    limit: Option<u32>,
    before: Option<u32>,
) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let query = ListAgentVersionsQuery { limit, before };
    let reply = client.list_agent_versions(&sandbox_id, slug, &query).await?;
    context.output.reply(&reply, |list| {
        let rows = list.versions.iter().map(|version| {
            let changed = match version.rolled_back_to {
                Some(old) => format!("rolled back to {old}: {}", version.changed.join(", ")),
                None if version.version == 1 => "created".to_owned(),
                None => version.changed.join(", "),
            };
            [
                version.version.to_string(),
                table::time_or_dash(version.created_at.as_ref()),
                version.created_by.clone(),
                changed,
            ]
        });
        table::rows(
            ["VERSION", "MADE", "BY", "CHANGED"],
            &[Cut("CHANGED"), Cut("BY")],
            rows,
            if before.is_some() {
                "No older versions."
            } else {
                "No versions."
            },
        )
    })?;
    let oldest = reply.value.versions.last().map(|version| version.version);
    if let Some(oldest) = oldest.filter(|oldest| *oldest > 1) {
        let listed = Listed {
            rows: "versions",
            command: &["agent", "versions", slug],
            options: &[("--limit", limit.map(|limit| limit.to_string()))],
        };
        listed.tell_older(&context.output, &oldest.to_string());
    }
    Ok(())
}

pub(super) async fn diff(context: &Context, slug: &str, from: u32, to: Option<u32>) -> Result<(), Failure> {
    let (client, sandbox_id) = context.in_sandbox().await?;
    let query = DiffAgentVersionsQuery { from, to };
    let reply = client.diff_agent_versions(&sandbox_id, slug, &query).await?;
    if context.output.is_json() {
        return context.output.reply(&reply, |_| String::new());
    }
    context.output.tinted(&lines(&reply.value))
}

fn lines(diff: &AgentVersionDiff) -> Vec<(Tint, String)> {
    let (from, to) = (diff.from, diff.to);
    if diff.changes.is_empty() {
        return vec![(
            Tint::Plain,
            format!("Versions {from} and {to} of {} are the same.", diff.agent_slug),
        )];
    }
    let mut lines = Vec::new();
    for change in &diff.changes {
        if !lines.is_empty() {
            lines.push((Tint::Plain, String::new()));
        }
        lines.extend(field(change, from, to));
    }
    lines
}

/// One field: a text as a unified difference, a list by its entries, anything else as before and after.
fn field(change: &FieldChange, from: u32, to: u32) -> Vec<(Tint, String)> {
    let name = table::one_line(&change.field);
    let mut lines = vec![
        (Tint::Removed, format!("--- {name} (version {from})")),
        (Tint::Added, format!("+++ {name} (version {to})")),
    ];
    match (texts(change), &change.before, &change.after) {
        (Some((before, after)), ..) => lines.extend(unified(before, after)),
        (None, Value::Array(before), Value::Array(after)) => {
            let gone = before.iter().filter(|entry| !after.contains(entry));
            lines.extend(gone.map(|entry| (Tint::Removed, format!("-{}", words(entry)))));
            let new = after.iter().filter(|entry| !before.contains(entry));
            lines.extend(new.map(|entry| (Tint::Added, format!("+{}", words(entry)))));
            if lines.len() == 2 {
                lines.push((Tint::Plain, " the order changed".to_owned()));
            }
        }
        (None, before, after) => {
            lines.push((Tint::Removed, format!("-{}", words(before))));
            lines.push((Tint::Added, format!("+{}", words(after))));
        }
    }
    lines
}

/// Both sides of a field that may hold several lines.
fn texts(change: &FieldChange) -> Option<(&str, &str)> {
    let is_text = |value: &Value| matches!(value, Value::String(text) if text.contains('\n'));
    if change.field != "system_prompt" && !is_text(&change.before) && !is_text(&change.after) {
        return None;
    }
    let text = |value| match value {
        &Value::Null => Some(""),
        value => value.as_str(),
    };
    text(&change.before).zip(text(&change.after))
}

fn unified(before: &str, after: &str) -> Vec<(Tint, String)> {
    let diff = TextDiff::from_lines(before, after);
    let mut lines = Vec::new();
    for hunk in diff.unified_diff().context_radius(CONTEXT_LINES).iter_hunks() {
        lines.push((Tint::Place, hunk.header().to_string()));
        for change in hunk.iter_changes() {
            let (sign, tint) = match change.tag() {
                ChangeTag::Equal => (' ', Tint::Plain),
                ChangeTag::Delete => ('-', Tint::Removed),
                ChangeTag::Insert => ('+', Tint::Added),
            };
            let text = change.value();
            lines.push((tint, format!("{sign}{}", text.strip_suffix('\n').unwrap_or(text))));
            if change.missing_newline() && (before.ends_with('\n') || after.ends_with('\n')) {
                lines.push((Tint::Plain, "\\ no line end".to_owned()));
            }
        }
    }
    lines
}

/// What changed, a line a field.
pub(super) fn brief(before: &Agent, after: &Agent) -> Vec<String> {
    changes(before, after)
        .iter()
        .map(|change| {
            let what = match texts(change) {
                Some((before, after)) => counted(before, after),
                None => format!("{} -> {}", short(&change.before), short(&change.after)),
            };
            format!("  {}: {what}", change.field)
        })
        .collect()
}

fn counted(before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    let (new, gone) = (count(ChangeTag::Insert), count(ChangeTag::Delete));
    let lines = if new == 1 { "line" } else { "lines" };
    format!("{new} {lines} added, {gone} removed")
}

fn short(value: &Value) -> String {
    table::shortened(&words(value), BRIEF_MAX_CHARS)
}

/// The fields in which two agents differ; settings are named like `model_settings.temperature`.
fn changes(before: &Agent, after: &Agent) -> Vec<FieldChange> {
    let (before, after) = (fields(before), fields(after));
    after
        .into_iter()
        .filter_map(|(field, after)| {
            let before = before.iter().find(|(known, _)| *known == field);
            let before = before.map_or(Value::Null, |(_, value)| value.clone());
            (before != after).then_some(FieldChange { field, before, after })
        })
        .collect()
}

fn fields(agent: &Agent) -> Vec<(String, Value)> {
    let agent = serde_json::to_value(agent).unwrap_or_default();
    let mut fields = Vec::new();
    for (name, value) in agent.as_object().into_iter().flatten() {
        match value {
            Value::Object(settings) => {
                fields.extend(
                    settings
                        .iter()
                        .map(|(inner, value)| (format!("{name}.{inner}"), value.clone())),
                );
            }
            _ if UNINTERESTING.contains(&name.as_str()) => {}
            value => fields.push((name.clone(), value.clone())),
        }
    }
    fields
}

/// A value without the marks of JSON where it needs none.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "(not set)".to_owned(),
        Value::String(text) if text.is_empty() => "(empty)".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "(empty)".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use copass_types::api::agent_versions::FieldChange;
    use serde_json::{Value, json};

    use super::field;

    fn shown(name: &str, before: Value, after: Value) -> String {
        let change = FieldChange {
            field: name.to_owned(),
            before,
            after,
        };
        let lines: Vec<String> = field(&change, 3, 4).into_iter().map(|(_, line)| line).collect();
        lines.join("\n")
    }

    #[test]
    fn a_prompt_is_compared_by_its_lines() {
        let before = "You help.\nBe kind.\nOne.\nTwo.\nThree.\nFour.\nEnd.";
        let after = "You help.\nBe brief.\nOne.\nTwo.\nThree.\nFour.\nEnd.";
        assert_eq!(
            shown("system_prompt", json!(before), json!(after)),
            "--- system_prompt (version 3)\n+++ system_prompt (version 4)\n@@ -1,5 +1,5 @@\n You help.\n-Be kind.\n\
             +Be brief.\n One.\n Two.\n Three."
        );
        let one_line = shown("system_prompt", json!("a"), json!("b"));
        assert!(one_line.ends_with("@@ -1 +1 @@\n-a\n+b"), "{one_line}");
    }

    #[test]
    fn lists_by_their_entries_and_values_as_they_are() {
        let list = shown("tool_allowlist", json!(["a", "b"]), json!(["b", "c"]));
        assert!(list.ends_with("(version 4)\n-a\n+c"), "{list}");
        let order = shown("tool_allowlist", json!(["a", "b"]), json!(["b", "a"]));
        assert!(order.ends_with("\n the order changed"), "{order}");
        let sources = shown("tool_sources", json!(null), json!([]));
        assert!(sources.ends_with("\n-(not set)\n+(empty)"), "{sources}");
        let number = shown("model_settings.temperature", json!(0.5), json!(1));
        assert!(number.ends_with("\n-0.5\n+1"), "{number}");
    }
}
