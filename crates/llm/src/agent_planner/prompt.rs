//! Which tools an agent's instructions name.

use std::collections::HashMap;

use crate::port::ToolSpec;

/// Words before a name, in its sentence, that say the opposite.
const NEGATIONS: &[&str] = &[
    "not",
    "never",
    "don't",
    "dont",
    "cannot",
    "can't",
    "mustn't",
    "without",
    "avoid",
    "except",
    "no",
    "nor",
    "instead",
    "unless",
    "forbidden",
    "refuse",
];

/// What is read of a prompt. Names beyond are not looked for, and the answer says so.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// The offered tools whose exact names the prompt holds, in the order in which it names them first. A name that only
/// stands in sentences that forbid it does not count.
pub(super) fn named_tools<'a>(prompt: &str, tools: &'a [ToolSpec]) -> Vec<&'a ToolSpec> {
    let prompt = beginning(prompt);
    let negations = Negations::read(prompt);
    let mut by_name: HashMap<&str, &ToolSpec> = HashMap::new();
    for tool in tools.iter().filter(|tool| !tool.name.is_empty()) {
        by_name.entry(&tool.name).or_insert(tool);
    }
    let mut named: Vec<(usize, &ToolSpec)> = Vec::new();
    for (position, name) in names(prompt) {
        if by_name.contains_key(name)
            && !negations.hold_at(prompt, position)
            && let Some(tool) = by_name.remove(name)
        {
            named.push((position, tool));
        }
    }
    // Names that are not written like names, with a space for example, are no words of the prompt.
    by_name.retain(|name, _| !is_name(name));
    named.extend(by_name.into_values().filter_map(|tool| {
        let mut mentions = prompt.match_indices(&tool.name).map(|(position, _)| position);
        let is_mention =
            |position: &usize| is_whole(prompt, *position, tool.name.len()) && !negations.hold_at(prompt, *position);
        Some((mentions.find(is_mention)?, tool))
    }));
    named.sort_by_key(|(position, _)| *position);
    named.into_iter().map(|(_, tool)| tool).collect()
}

/// As much of a prompt as is read, up to the end of a word.
fn beginning(prompt: &str) -> &str {
    if prompt.len() <= MAX_BYTES {
        return prompt;
    }
    let beginning = &prompt[..prompt.floor_char_boundary(MAX_BYTES)];
    let end = beginning.rfind(char::is_whitespace).unwrap_or_default();
    &beginning[..end]
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '-'
}

/// Between two parts of a name, and after a sentence.
fn joins(character: char) -> bool {
    matches!(character, '.' | '/' | ':')
}

/// Everything that is written like a name, and stands alone: words, and words joined by one sign.
fn names(prompt: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + prompt[rest..].find(is_word)?;
        let mut end = start;
        let mut characters = prompt[start..].char_indices().peekable();
        while let Some((offset, character)) = characters.next() {
            let goes_on = joins(character) && characters.peek().is_some_and(|(_, next)| is_word(*next));
            if !is_word(character) && !goes_on {
                break;
            }
            end = start + offset + character.len_utf8();
        }
        rest = end;
        Some((start, &prompt[start..end]))
    })
}

fn is_name(text: &str) -> bool {
    names(text).next() == Some((0, text))
}

/// Whether the name stands alone, and not as a part of a longer one (`search` in `web.search` or `search_all`).
fn is_whole(prompt: &str, position: usize, length: usize) -> bool {
    let mut before = prompt[..position].chars().rev();
    let mut after = prompt[position + length..].chars();
    let stands_off = |next: Option<char>, second: Option<char>| match next {
        None => true,
        Some(character) if joins(character) => second.is_none_or(|second| !is_word(second)),
        Some(character) => !is_word(character),
    };
    stands_off(before.next(), before.next()) && stands_off(after.next(), after.next())
}

/// Where a prompt says not to, found in one pass: prompts are long, and a name may stand in them many thousand times.
struct Negations {
    /// From where on it does, or does not any more, in order.
    changes: Vec<(usize, bool)>,
}

impl Negations {
    fn read(prompt: &str) -> Self {
        let mut changes: Vec<(usize, bool)> = Vec::new();
        let mut change = |position, is_negated| {
            if changes.last().is_some_and(|(_, before)| *before) != is_negated {
                changes.push((position, is_negated));
            }
        };
        let mut word = String::new();
        // What stands before the present word, and before the next one, within its sentence.
        let (mut before_word, mut last) = (None, None);
        let mut characters = prompt.char_indices().peekable();
        while let Some((position, character)) = characters.next() {
            let letter = if character == '’' { '\'' } else { character };
            if letter.is_alphanumeric() || letter == '\'' || letter == '_' {
                if word.is_empty() {
                    before_word = last;
                }
                word.extend(letter.to_lowercase());
            } else {
                if NEGATIONS.contains(&word.as_str()) {
                    change(position, true);
                }
                // What follows a "but" is meant again: "do not guess, but call x".
                if word == "but" && before_word == Some(' ') && character == ' ' {
                    change(position + 1, false);
                }
                word.clear();
            }
            last = Some(character);
            let ends = ends_sentence(character) && characters.peek().is_none_or(|(_, next)| next.is_whitespace());
            if ends || character == '\n' {
                change(position + character.len_utf8(), false);
                last = None;
            }
        }
        Self { changes }
    }

    /// Whether the sentence that leads to this position says not to.
    fn hold_at(&self, prompt: &str, position: usize) -> bool {
        // A sentence may end right before a name.
        if prompt[..position].ends_with(ends_sentence) {
            return false;
        }
        let passed = self.changes.partition_point(|(from, _)| *from <= position);
        passed
            .checked_sub(1)
            .and_then(|last| self.changes.get(last))
            .is_some_and(|(_, is_negated)| *is_negated)
    }
}

fn ends_sentence(character: char) -> bool {
    matches!(character, '.' | '!' | '?' | ';')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tools(names: &[&str]) -> Vec<ToolSpec> {
        let tool = |name: &&str| ToolSpec {
            name: (*name).to_owned(),
            description: String::new(),
            input_schema: json!({}),
            read_only: true,
        };
        names.iter().map(tool).collect()
    }

    #[test]
    fn a_name_that_is_forbidden_many_thousand_times_holds_nobody_up() {
        let tools = tools(&["search", "x", "two words"]);
        let began = std::time::Instant::now();
        for name in ["search ", "x ", "two words ", "not. ", "never but "] {
            let prompt = format!("never {}", name.repeat(200_000 / name.len()));
            assert!(named_tools(&prompt, &tools).is_empty());
        }
        // Read from its start for each mention, one of them took most of a minute.
        assert!(
            began.elapsed() < std::time::Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn a_long_prompt_is_read_up_to_the_end_of_a_word() {
        let tools = tools(&["search"]);
        let prompt = "x".repeat(MAX_BYTES - 7) + " search";
        assert_eq!(named_tools(&prompt, &tools).len(), 1);
        assert!(named_tools(&(prompt.clone() + "_all"), &tools).is_empty());
        assert!(named_tools(&("ä".repeat(MAX_BYTES) + " search"), &tools).is_empty());
    }

    #[test]
    fn names_count_whole_in_their_order_and_not_where_they_are_forbidden() {
        let tools = tools(&[
            "search",
            "search_all",
            "web.search",
            "delete_issue",
            "close-issue",
            "two words",
        ]);
        let named = |prompt: &str| {
            let names: Vec<&str> = named_tools(prompt, &tools)
                .iter()
                .map(|tool| tool.name.as_str())
                .collect();
            names.join(" ")
        };
        for (prompt, expected) in [
            ("Call `close-issue`, then search.", "close-issue search"),
            ("Use web.search for it", "web.search"),
            ("use search_all", "search_all"),
            ("Search everything", ""),
            ("Never call delete_issue. Use search.", "search"),
            ("Do not call delete_issue or close-issue", ""),
            ("Don’t use search\nsearch_all is better", "search_all"),
            ("Do not guess, but call search", "search"),
            ("search, and search again", "search"),
            ("Do not call search. search_all", "search_all"),
            ("Avoid!search", "search"),
            ("never (search)", ""),
            ("NEVER search; search", "search"),
            ("never guess\nbut search", "search"),
            ("never, but\tsearch", ""),
            ("nevermore search", "search"),
            ("see web.search. And search.", "web.search search"),
            ("ask two words and search", "two words search"),
            ("never two words", ""),
            ("x.two words", ""),
            ("(search)/search_all", "search search_all"),
            ("", ""),
        ] {
            assert_eq!(named(prompt), expected, "{prompt}");
        }
    }
}
