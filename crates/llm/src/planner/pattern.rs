//! When an intent is meant: small patterns over canonical words, and a score.
//!
//! A pattern is a list of groups that must all be present, in any order: `list|show sandbox ?archived`. `a|b` is a
//! choice, `?a` may be there and then counts, `delete>agent` wants that the thing the verb acts on is that noun.
//! The score of a fit is what its words say, less what the text says beyond it: so "delete the agent" is never read
//! as a request to list agents with a word too many.

use std::collections::BTreeSet;

use super::lexicon::{Class, Lexicon, Token};

const STRONG: i32 = 3;
const WEAK: i32 = 1;
const UNEXPLAINED: i32 = 2;

/// A compiled pattern.
#[derive(Debug, Clone, Default)]
pub(super) struct Pattern {
    required: Vec<Vec<Term>>,
    optional: Vec<Vec<Term>>,
}

#[derive(Debug, Clone)]
enum Term {
    Word(String),
    Acts { verb: String, noun: String },
}

/// How well something fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score(pub(super) i32);

impl Pattern {
    pub(super) fn parse(text: &str) -> Self {
        let mut pattern = Self::default();
        for group in text.split_whitespace() {
            match group.strip_prefix('?') {
                Some(group) => pattern.optional.push(terms(group)),
                None => pattern.required.push(terms(group)),
            }
        }
        pattern
    }

    /// The canonical words this pattern uses.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.required
            .iter()
            .chain(&self.optional)
            .flatten()
            .flat_map(|term| match term {
                Term::Word(word) => vec![word.as_str()],
                Term::Acts { verb, noun } => vec![verb.as_str(), noun.as_str()],
            })
    }

    /// The score over these tokens, if the pattern fits. `also` are words that the intent's slots explain.
    pub(super) fn score(&self, tokens: &[&Token], also: &[String], lexicon: &Lexicon) -> Option<Score> {
        let mut explained: BTreeSet<&str> = BTreeSet::new();
        for group in &self.required {
            let before = explained.len();
            collect(group, tokens, lexicon, &mut explained);
            if explained.len() == before && !group.iter().any(|term| fits(term, tokens, lexicon)) {
                return None;
            }
        }
        for group in &self.optional {
            collect(group, tokens, lexicon, &mut explained);
        }
        let mut seen = BTreeSet::new();
        let mut score = 0;
        for token in tokens.iter().filter(|token| seen.insert(token.canon.as_str())) {
            score += match (token.class, explained.contains(token.canon.as_str())) {
                (Class::Strong, true) => STRONG,
                (Class::Weak, true) => WEAK,
                (Class::Strong, false) if !also.contains(&token.canon) => -UNEXPLAINED,
                _ => 0,
            };
        }
        Some(Score(score))
    }
}

fn terms(group: &str) -> Vec<Term> {
    let term = |word: &str| match word.split_once('>') {
        Some((verb, noun)) => Term::Acts {
            verb: verb.to_owned(),
            noun: noun.to_owned(),
        },
        None => Term::Word(word.to_owned()),
    };
    group.split('|').map(term).collect()
}

fn collect<'a>(group: &'a [Term], tokens: &[&Token], lexicon: &Lexicon, explained: &mut BTreeSet<&'a str>) {
    for term in group.iter().filter(|term| fits(term, tokens, lexicon)) {
        match term {
            Term::Word(word) => {
                explained.insert(word);
            }
            Term::Acts { verb, noun } => {
                explained.insert(verb);
                explained.insert(noun);
            }
        }
    }
}

fn fits(term: &Term, tokens: &[&Token], lexicon: &Lexicon) -> bool {
    match term {
        Term::Word(word) => tokens.iter().any(|token| token.canon == *word),
        Term::Acts { verb, noun } => {
            let verbs = tokens.iter().enumerate().filter(|(_, token)| token.canon == *verb);
            verbs
                .map(|(position, _)| &tokens[position + 1..])
                .any(|rest| object(rest, lexicon) == Some(noun))
        }
    }
}

/// The noun a verb acts on: the first one behind it that does not merely describe the next.
fn object<'a>(rest: &[&'a Token], lexicon: &Lexicon) -> Option<&'a str> {
    let mut nouns = rest
        .iter()
        .enumerate()
        .filter(|(_, token)| lexicon.is_noun(&token.canon));
    let (_, token) = nouns.find(|(position, token)| {
        let describes_next = rest.get(position + 1).is_some_and(|next| lexicon.is_noun(&next.canon));
        !token.possessive && !describes_next
    })?;
    Some(&token.canon)
}
