//! Values out of a text: what was stated, what is only proposed, and what a short answer to a question fills.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::catalogue::{Bare, How, Intent, Slot, SlotKind};
use super::lexicon::{Class, Lexicon};
use super::utterance::Utterance;

/// A filled slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filled {
    pub(super) value: Value,
    /// The person said exactly this; otherwise it is a proposal that needs a yes.
    pub(super) stated: bool,
}

/// Slot name to value.
pub(super) type Values = BTreeMap<String, Filled>;

/// What this text says for the slots of an intent.
pub(super) fn extract(intent: &Intent, utterance: &Utterance, lexicon: &Lexicon) -> Values {
    let mut values = Values::new();
    for slot in &intent.slots {
        if let Some(filled) = extract_one(slot, utterance, lexicon) {
            values.insert(slot.name.clone(), filled);
        }
    }
    values
}

fn extract_one(slot: &Slot, utterance: &Utterance, lexicon: &Lexicon) -> Option<Filled> {
    let stated = |value: Value| Some(Filled { value, stated: true });
    let text = &utterance.spoken;
    match slot.kind {
        SlotKind::Entity | SlotKind::Id => None,
        SlotKind::Flag => {
            let said = utterance.tokens().any(|token| slot.words.contains(&token.canon))
                || slot.patterns.iter().any(|pattern| pattern.is_match(text));
            if said { stated(Value::Bool(true)) } else { None }
        }
        SlotKind::Choice => {
            let choice = slot
                .choices
                .iter()
                .find(|(_, patterns)| patterns.iter().any(|pattern| pattern.is_match(text)));
            choice.and_then(|(value, _)| stated(json!(value)))
        }
        SlotKind::Integer | SlotKind::Number => number(slot, text).and_then(stated),
        SlotKind::Text | SlotKind::Slug => {
            let dictated = slot.dictated.as_ref().and_then(|name| utterance.dictated.get(name));
            if let Some(dictated) = dictated {
                return stated(json!(dictated));
            }
            if let Some(found) = slot.patterns.iter().find_map(|pattern| capture(pattern, text)) {
                return Some(as_text(slot, found));
            }
            let proposals = slot.proposals.iter().filter_map(|pattern| capture(pattern, text));
            let mut usable = proposals
                .map(|found| content_words(found, lexicon))
                .filter(|found| !found.is_empty());
            usable.next().map(|found| Filled {
                stated: false,
                ..as_text(slot, &found)
            })
        }
    }
}

/// Drops the words of the language at both ends: of "a new slack" only "slack" is a name.
fn content_words(found: &str, lexicon: &Lexicon) -> String {
    let is_content = |word: &&str| lexicon.class_of(&word.to_lowercase()) == Class::Unknown;
    let words = found
        .split_whitespace()
        .skip_while(|word| !is_content(word))
        .take_while(is_content);
    words.collect::<Vec<_>>().join(" ")
}

fn as_text(slot: &Slot, found: &str) -> Filled {
    let found = found.trim().trim_end_matches(['.', ',', ';', ':', '!', '?']);
    if slot.kind == SlotKind::Slug && !is_slug(found) {
        return Filled {
            value: json!(slugify(found)),
            stated: false,
        };
    }
    Filled {
        value: json!(found),
        stated: true,
    }
}

fn capture<'t>(pattern: &Regex, text: &'t str) -> Option<&'t str> {
    let captures = pattern.captures(text)?;
    let found = captures.iter().skip(1).flatten().next()?;
    Some(found.as_str()).filter(|found| !found.trim().is_empty())
}

fn number(slot: &Slot, text: &str) -> Option<Value> {
    let plain = slot.patterns.iter().map(|pattern| (pattern, 1.0));
    let scaled = slot.scaled.iter().map(|(pattern, factor)| (pattern, *factor));
    let found = plain.chain(scaled).find_map(|(pattern, factor)| {
        let number: f64 = capture(pattern, text)?.replace([',', '_'], "").parse().ok()?;
        Some(number * factor)
    })?;
    let found = found
        .max(slot.min.unwrap_or(f64::MIN))
        .min(slot.max.unwrap_or(f64::MAX));
    if slot.kind == SlotKind::Number {
        return Some(json!(found));
    }
    let whole = (found.is_finite() && found.abs() < 9e15).then(|| found.round());
    whole
        .and_then(|whole| format!("{whole:.0}").parse::<i64>().ok())
        .map(|whole| json!(whole))
}

/// Adds what follows from other slots, as proposals unless it is the same word.
pub(super) fn derive(intent: &Intent, values: &mut Values) {
    for slot in &intent.slots {
        let Some(derive) = slot.derive.as_ref().filter(|_| !values.contains_key(&slot.name)) else {
            continue;
        };
        let Some(from) = values.get(&derive.from) else { continue };
        let (Some(text), stated) = (from.value.as_str(), from.stated) else {
            continue;
        };
        let derived = match derive.how {
            How::Slugify => slugify(text),
            How::Title => title(text),
        };
        if !derived.is_empty() {
            let stated = stated && derived == text;
            values.insert(
                slot.name.clone(),
                Filled {
                    value: json!(derived),
                    stated,
                },
            );
        }
    }
}

/// What a short answer fills, given what was asked for. Returns what is new.
pub(super) fn fill_bare(intent: &Intent, utterance: &Utterance, asked: &[String]) -> Values {
    let mut values = Values::new();
    let open = |bare: Bare| {
        let mut slots = intent.slots.iter().filter(|slot| asked.contains(&slot.name));
        slots.find(|slot| slot.bare == Some(bare))
    };
    let text = utterance.text.trim();
    let proposal = |slot: &Slot, text: &str| Filled {
        stated: false,
        ..as_text(slot, text)
    };
    match (open(Bare::Word), open(Bare::Text)) {
        (Some(word), None) if text.split_whitespace().count() <= 4 => {
            let quoted = utterance.quotes.first().map_or(text, String::as_str);
            values.insert(word.name.clone(), as_text(word, quoted));
        }
        (None, Some(long)) if !text.is_empty() => {
            values.insert(
                long.name.clone(),
                Filled {
                    value: json!(text),
                    stated: false,
                },
            );
        }
        (Some(word), Some(long)) => {
            let split = text
                .split_once(['\n', ',', ';', ':'])
                .or_else(|| text.split_once(" - "));
            match split.map(|(first, rest)| (first.trim(), rest.trim())) {
                Some((first, rest)) if is_slug(first) && rest.split_whitespace().count() >= 2 => {
                    values.insert(word.name.clone(), as_text(word, first));
                    values.insert(
                        long.name.clone(),
                        Filled {
                            value: json!(rest),
                            stated: false,
                        },
                    );
                }
                _ if is_slug(text) || (utterance.quotes.len() == 1 && text.split_whitespace().count() <= 3) => {
                    let quoted = utterance.quotes.first().map_or(text, String::as_str);
                    values.insert(word.name.clone(), as_text(word, quoted));
                }
                _ if text.to_lowercase().starts_with("you ") => {
                    values.insert(long.name.clone(), proposal(long, text));
                }
                _ => {}
            }
        }
        _ => {}
    }
    values
}

/// The names of required slots of which nothing is known, things that exist apart: those are asked for by name.
pub(super) fn missing(intent: &Intent, facts: &Map<String, Value>) -> Vec<String> {
    let required = intent
        .slots
        .iter()
        .filter(|slot| slot.required && slot.kind != SlotKind::Entity);
    required
        .filter(|slot| facts.get(&slot.name).is_none_or(Value::is_null))
        .map(|slot| slot.name.clone())
        .collect()
}

fn is_slug(text: &str) -> bool {
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    !text.is_empty() && text.len() <= 64 && text.chars().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

fn slugify(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower
        .split(|char: char| !char.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let mut slug = words.collect::<Vec<_>>().join("-");
    slug.truncate(48);
    slug.trim_end_matches('-').to_owned()
}

fn title(slug: &str) -> String {
    let words = slug.split(['-', '_', ' ']).filter(|word| !word.is_empty());
    let upper = words.map(|word| {
        let mut chars = word.chars();
        chars
            .next()
            .map(|first| first.to_uppercase().chain(chars).collect::<String>())
            .unwrap_or_default()
    });
    upper.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        assert_eq!(slugify("Slack Mention Reactor!"), "slack-mention-reactor");
        assert_eq!(slugify("Überblick"), "berblick");
        assert_eq!(slugify("***"), "");
        assert_eq!(title("support-bot"), "Support Bot");
        assert!(is_slug("support-2") && !is_slug("Support") && !is_slug("-x") && !is_slug(""));
    }
}
