//! The words of a catalogue: which ones it knows, what they mean, and how much they say.
//!
//! Intents are written in canonical words. The lexicon brings what a person typed to those words: multi-word phrases,
//! synonyms, endings, and one or two typing slips. It says nothing about objects that exist: names are compared with
//! the names a tool returned (see [`super::entities`]), never corrected here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::spelling;

/// The `words` table of a catalogue.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Words {
    /// Phrases of several words, and the canonical words they stand for.
    pub(super) phrases: BTreeMap<String, String>,
    /// Canonical word to the words that mean the same.
    pub(super) synonyms: BTreeMap<String, Vec<String>>,
    /// Canonical words that say little about what is wanted.
    pub(super) weak: Vec<String>,
    /// Words without a meaning of their own.
    pub(super) stop: Vec<String>,
    /// Words for something mentioned before.
    pub(super) pronouns: Vec<String>,
    /// Words that point back only in front of a noun ("that run").
    pub(super) demonstratives: Vec<String>,
    /// Canonical words for kinds of things.
    pub(super) nouns: Vec<String>,
    /// Words that turn the next command into its opposite.
    pub(super) negations: Vec<String>,
    /// Commands that a negation in front switches off.
    pub(super) commands: Vec<String>,
    /// Answers that agree.
    pub(super) yes: Vec<String>,
    /// Answers that refuse or cancel.
    pub(super) no: Vec<String>,
    /// Beginnings that carry the last request over to something else.
    pub(super) again: Vec<String>,
    /// Positions in a list, in order.
    pub(super) ordinals: Vec<String>,
    /// Prepositions after which a name may stand.
    pub(super) before_name: Vec<String>,
}

impl Words {
    pub(super) fn merge(&mut self, other: Self) {
        self.phrases.extend(other.phrases);
        for (canonical, words) in other.synonyms {
            self.synonyms.entry(canonical).or_default().extend(words);
        }
        let lists = [
            (&mut self.weak, other.weak),
            (&mut self.stop, other.stop),
            (&mut self.pronouns, other.pronouns),
            (&mut self.demonstratives, other.demonstratives),
            (&mut self.nouns, other.nouns),
            (&mut self.negations, other.negations),
            (&mut self.commands, other.commands),
            (&mut self.yes, other.yes),
            (&mut self.no, other.no),
            (&mut self.again, other.again),
            (&mut self.ordinals, other.ordinals),
            (&mut self.before_name, other.before_name),
        ];
        for (list, more) in lists {
            list.extend(more);
        }
    }
}

/// What a word is to the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Says what is wanted.
    Strong,
    /// Helps to say it.
    Weak,
    /// Grammar.
    Stop,
    /// Not in the vocabulary: maybe a name.
    Unknown,
}

/// One word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// As typed, in lower case.
    pub(super) raw: String,
    /// The canonical word, or the word itself.
    pub(super) canon: String,
    /// What it is.
    pub(super) class: Class,
    /// Only the tolerance for typing slips led to the canonical word.
    pub(super) corrected: bool,
    /// Stood in the possessive.
    pub(super) possessive: bool,
}

/// The compiled words.
#[derive(Debug, Clone)]
pub(super) struct Lexicon {
    canonical: HashMap<String, String>,
    phrases: Vec<(Vec<String>, Vec<String>)>,
    classes: HashMap<String, Class>,
    by_initial: HashMap<char, Vec<String>>,
    pub(super) words: Words,
    pronouns: BTreeSet<String>,
}

impl Lexicon {
    /// Compiles the words; `vocabulary` holds the canonical words that the intents use.
    pub(super) fn new(words: Words, vocabulary: &BTreeSet<String>) -> Self {
        let mut classes: HashMap<String, Class> = HashMap::new();
        let mut canonical: HashMap<String, String> = HashMap::new();
        let known = vocabulary.iter().chain(words.synonyms.keys()).chain(&words.nouns);
        for word in known {
            classes.insert(word.clone(), Class::Strong);
        }
        for word in &words.weak {
            classes.insert(word.clone(), Class::Weak);
        }
        for word in words
            .stop
            .iter()
            .chain(&words.pronouns)
            .chain(&words.negations)
            .chain(&words.ordinals)
        {
            classes.entry(word.clone()).or_insert(Class::Stop);
        }
        for (target, variants) in &words.synonyms {
            for variant in variants {
                canonical.insert(variant.clone(), target.clone());
            }
        }
        let mut phrases: Vec<(Vec<String>, Vec<String>)> = words
            .phrases
            .iter()
            .map(|(phrase, target)| (split(phrase), split(target)))
            .collect();
        for (_, target) in &phrases {
            for word in target {
                classes.entry(word.clone()).or_insert(Class::Strong);
            }
        }
        phrases.sort_by_key(|(phrase, _)| std::cmp::Reverse(phrase.len()));
        let mut by_initial: HashMap<char, Vec<String>> = HashMap::new();
        let correctable = classes
            .iter()
            .filter(|(_, class)| matches!(class, Class::Strong | Class::Weak));
        let targets: BTreeSet<&String> = correctable.map(|(word, _)| word).chain(canonical.keys()).collect();
        for word in targets {
            if let (true, Some(initial)) = (word.chars().count() >= 4, word.chars().next()) {
                by_initial.entry(initial).or_default().push(word.clone());
            }
        }
        let pronouns = words.pronouns.iter().cloned().collect();
        Self {
            canonical,
            phrases,
            classes,
            by_initial,
            words,
            pronouns,
        }
    }

    /// The class of a word as typed, without correcting it.
    pub(super) fn class_of(&self, raw: &str) -> Class {
        self.look_up(raw).map_or(Class::Unknown, |(_, class)| class)
    }

    pub(super) fn is_pronoun(&self, raw: &str) -> bool {
        self.pronouns.contains(raw)
    }

    pub(super) fn is_noun(&self, canon: &str) -> bool {
        self.words.nouns.iter().any(|noun| noun == canon)
    }

    /// Brings typed words (lower case) to tokens: phrases first, then each word.
    pub(super) fn tokens(&self, typed: &[(String, bool)]) -> Vec<Token> {
        let mut tokens: Vec<Token> = Vec::with_capacity(typed.len());
        let mut position = 0;
        while let Some((raw, possessive)) = typed.get(position) {
            if let Some((length, target)) = self.phrase_at(typed, position) {
                let raw = typed[position..position + length].iter().map(|(word, _)| word.as_str());
                let raw = raw.collect::<Vec<_>>().join(" ");
                for word in target {
                    let class = self.classes.get(word).copied().unwrap_or(Class::Strong);
                    let (raw, canon) = (raw.clone(), word.clone());
                    tokens.push(Token {
                        raw,
                        canon,
                        class,
                        corrected: false,
                        possessive: false,
                    });
                }
                position += length;
                continue;
            }
            tokens.push(self.token(raw, *possessive));
            position += 1;
        }
        self.switch_off_negated(&mut tokens);
        tokens
    }

    fn phrase_at(&self, typed: &[(String, bool)], position: usize) -> Option<(usize, &[String])> {
        let fits = |phrase: &[String]| {
            phrase.iter().enumerate().all(|(offset, word)| {
                typed.get(position + offset).is_some_and(|(raw, _)| {
                    raw == word || self.canonical.get(raw) == Some(word) || raw.strip_suffix('s') == Some(word)
                })
            })
        };
        let (phrase, target) = self.phrases.iter().find(|(phrase, _)| fits(phrase))?;
        Some((phrase.len(), target))
    }

    fn token(&self, raw: &str, possessive: bool) -> Token {
        let (canon, class, corrected) = match self.look_up(raw) {
            Some((canon, class)) => (canon, class, false),
            None => match self.correct(raw) {
                Some((canon, class)) => (canon, class, true),
                None => (raw.to_owned(), Class::Unknown, false),
            },
        };
        Token {
            raw: raw.to_owned(),
            canon,
            class,
            corrected,
            possessive,
        }
    }

    /// "do not delete …" must not read as "delete …".
    fn switch_off_negated(&self, tokens: &mut [Token]) {
        for position in 1..tokens.len() {
            let negated = self.words.negations.contains(&tokens[position - 1].canon)
                && self.words.commands.contains(&tokens[position].canon);
            if negated {
                tokens[position].canon = format!("not-{}", tokens[position].canon);
                tokens[position].class = Class::Unknown;
            }
        }
    }

    fn look_up(&self, raw: &str) -> Option<(String, Class)> {
        self.exact(raw)
            .or_else(|| endings(raw).iter().find_map(|stem| self.exact(stem)))
    }

    fn exact(&self, word: &str) -> Option<(String, Class)> {
        let canon = self.canonical.get(word).map_or(word, String::as_str);
        self.classes.get(canon).map(|class| (canon.to_owned(), *class))
    }

    fn correct(&self, raw: &str) -> Option<(String, Class)> {
        let length = raw.chars().count();
        let limit = spelling::tolerance(length);
        if limit == 0 || length > 24 || !raw.chars().all(char::is_alphabetic) {
            return None;
        }
        let candidates = self.by_initial.get(&raw.chars().next()?)?;
        let near = candidates
            .iter()
            .filter_map(|word| Some((spelling::distance_within(raw, word, limit)?, word)));
        let (_, word) = near.min()?;
        self.exact(word)
    }
}

/// The stems a word may have without its English ending.
fn endings(word: &str) -> Vec<String> {
    let mut stems = Vec::new();
    if word.len() < 4 || !word.is_ascii() {
        return stems;
    }
    if let Some(stem) = word.strip_suffix("ies") {
        stems.push(format!("{stem}y"));
    }
    for ending in ["s", "es", "ing", "ed", "d"] {
        if let Some(stem) = word.strip_suffix(ending) {
            stems.push(stem.to_owned());
        }
    }
    if let Some(stem) = word.strip_suffix("ing") {
        stems.push(format!("{stem}e"));
    }
    stems
}

fn split(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}
