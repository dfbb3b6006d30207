//! From what a person calls a thing to the row that is meant.
//!
//! The planner does not guess names out of grammar. It asks the tool what exists and looks whether the text names one
//! of those things; only if it names none does it look for what the person probably meant to name, so that it can say
//! "there is no such agent" and offer what is spelled alike. Names are data of somebody else: they are compared, never
//! read for meaning.

use std::collections::BTreeMap;

use serde_json::Value;

use super::catalogue::Entity;
use super::lexicon::{Class, Lexicon, Token};
use super::spelling;
use super::utterance::{Utterance, name_words};

/// What a text says about a kind of things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// These rows are named.
    Found(Vec<usize>),
    /// Something is named that does not exist; these rows are called alike.
    Near(String, Vec<usize>),
    /// Something is named that does not exist.
    Unknown(String),
    /// Nothing is named.
    None,
}

/// Looks up what the text names among the rows.
pub(super) fn link(entity: &Entity, utterance: &Utterance, rows: &[Value], lexicon: &Lexicon) -> Link {
    if let Some(id) = utterance.ids.iter().find(|id| id.starts_with(&entity.prefix)) {
        let row = rows
            .iter()
            .position(|row| row.get(&entity.id).and_then(Value::as_str) == Some(id));
        return row.map_or_else(|| Link::Unknown(id.clone()), |row| Link::Found(vec![row]));
    }
    let named = named_rows(entity, utterance, rows, lexicon);
    if !named.is_empty() {
        return Link::Found(named);
    }
    match mention(entity, utterance, lexicon) {
        Some(mention) => match near(entity, &mention, rows) {
            near if near.is_empty() => Link::Unknown(mention),
            near => Link::Near(mention, near),
        },
        None => Link::None,
    }
}

/// The rows whose slug or name stands in the text, in the order of the text. Where two names cover the same words the
/// longer one is meant, and the one under the earlier key.
fn named_rows(entity: &Entity, utterance: &Utterance, rows: &[Value], lexicon: &Lexicon) -> Vec<usize> {
    // Start in the text, length, key rank, row.
    let mut hits: Vec<(usize, usize, usize, usize)> = Vec::new();
    let text = &utterance.name_words;
    let mut by_first: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, word) in text.iter().enumerate() {
        by_first.entry(word).or_default().push(position);
    }
    for (row, value) in rows.iter().enumerate() {
        for (rank, key) in entity.keys.iter().enumerate() {
            let name = name_words(value.get(key).and_then(Value::as_str).unwrap_or_default());
            let Some(starts) = name.first().and_then(|first| by_first.get(first.as_str())) else {
                continue;
            };
            let fits = |start: &&usize| text.get(**start..**start + name.len()) == Some(&name[..]);
            let usable = |start: &&usize| name.len() > 1 || is_name_there(entity, utterance, **start, lexicon);
            hits.extend(
                starts
                    .iter()
                    .filter(fits)
                    .filter(usable)
                    .map(|start| (*start, name.len(), rank, row)),
            );
        }
    }
    hits.sort_by_key(|(start, length, rank, row)| (std::cmp::Reverse(*length), *rank, *start, *row));
    let mut taken: Vec<(usize, usize, usize, usize)> = Vec::new();
    for hit in hits {
        let overlaps = |other: &(usize, usize, usize, usize)| hit.0 < other.0 + other.1 && other.0 < hit.0 + hit.1;
        let same_words = |other: &(usize, usize, usize, usize)| (hit.0, hit.1, hit.2) == (other.0, other.1, other.2);
        if taken.iter().all(|other| !overlaps(other) || same_words(other)) {
            taken.push(hit);
        }
    }
    taken.sort_unstable();
    let mut found: Vec<usize> = Vec::new();
    for (_, _, _, row) in taken {
        if !found.contains(&row) {
            found.push(row);
        }
    }
    found
}

/// A name of one word that is also a word of the language ("list", "test") is a name only where names stand.
fn is_name_there(entity: &Entity, utterance: &Utterance, position: usize, lexicon: &Lexicon) -> bool {
    let text = &utterance.name_words;
    let word = &text[position];
    if lexicon.class_of(word) == Class::Unknown {
        return true;
    }
    if utterance.quotes.iter().any(|quote| name_words(quote) == [word.clone()]) || text.len() == 1 {
        return true;
    }
    let before = position
        .checked_sub(1)
        .and_then(|before| text.get(before))
        .map(String::as_str);
    let after = text.get(position + 1).map(String::as_str);
    let noun_after = after == Some(entity.noun.as_str());
    let article_before = before.is_some_and(|word| matches!(word, "the" | "my" | "our" | "agent"));
    let preposition = before.is_some_and(|word| lexicon.words.before_name.iter().any(|other| other == word));
    (noun_after && article_before) || (preposition && (after.is_none() || noun_after))
}

/// What the person probably meant to name, although nothing is called so.
fn mention(entity: &Entity, utterance: &Utterance, lexicon: &Lexicon) -> Option<String> {
    if let Some(quote) = utterance.quotes.first().filter(|quote| quote.chars().count() <= 80) {
        return Some(quote.clone());
    }
    utterance
        .clauses
        .iter()
        .find_map(|clause| mention_in(entity, clause, lexicon))
}

fn is_name(token: &Token, lexicon: &Lexicon) -> bool {
    let unknown = token.class == Class::Unknown || (token.corrected && !lexicon.is_noun(&token.canon));
    let is_number = token.raw.chars().all(|char| char.is_ascii_digit());
    unknown && !is_number && !token.canon.starts_with("not-")
}

/// The name in "the support agent", "agent support" or "support's", whether or not there is such a thing.
pub(super) fn names_beside_noun(entity: &Entity, clause: &[Token], lexicon: &Lexicon) -> Option<String> {
    for (position, token) in clause
        .iter()
        .enumerate()
        .filter(|(_, token)| token.canon == entity.noun)
    {
        let names = clause[..position]
            .iter()
            .rev()
            .take_while(|token| is_name(token, lexicon));
        let mut before: Vec<&str> = names.take(3).map(|token| token.raw.as_str()).collect();
        if !before.is_empty() {
            before.reverse();
            return Some(before.join(" "));
        }
        let is_plural = token.raw.ends_with('s') && token.raw != token.canon;
        if let Some(next) = clause
            .get(position + 1)
            .filter(|next| is_name(next, lexicon) && !is_plural)
        {
            return Some(next.raw.clone());
        }
    }
    None
}

fn mention_in(entity: &Entity, clause: &[Token], lexicon: &Lexicon) -> Option<String> {
    names_beside_noun(entity, clause, lexicon).or_else(|| {
        clause.iter().enumerate().find_map(|(position, token)| {
            if token.possessive && is_name(token, lexicon) {
                return Some(token.raw.clone());
            }
            let opens = lexicon.words.before_name.contains(&token.raw);
            let mut rest = clause[position + 1..]
                .iter()
                .skip_while(|next| matches!(next.raw.as_str(), "the" | "my"));
            let last = rest.next().filter(|_| opens && rest.next().is_none())?;
            is_name(last, lexicon).then(|| last.raw.clone())
        })
    })
}

/// Rows that are called nearly so, nearest first; at most three.
fn near(entity: &Entity, mention: &str, rows: &[Value]) -> Vec<usize> {
    let wanted = name_words(mention).join("-");
    let mut near: Vec<(usize, usize)> = Vec::new();
    for (row, value) in rows.iter().enumerate() {
        let distances = entity.keys.iter().filter_map(|key| {
            let name = name_words(value.get(key)?.as_str()?).join("-");
            distance(&wanted, &name)
        });
        if let Some(distance) = distances.min() {
            near.push((distance, row));
        }
    }
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, row)| row).collect()
}

fn distance(wanted: &str, name: &str) -> Option<usize> {
    if wanted.is_empty() || name.is_empty() {
        return None;
    }
    let limit = spelling::tolerance(wanted.chars().count()).max(1) + usize::from(wanted.len() >= 5);
    let spelled = spelling::distance_within(wanted, name, limit.min(wanted.chars().count() / 2));
    let shares_word = wanted
        .split('-')
        .any(|part| part.len() >= 3 && name.split('-').any(|other| other == part));
    spelled.or_else(|| (shares_word || name.starts_with(wanted)).then_some(3))
}
