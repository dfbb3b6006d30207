//! A name in a text, replaced by another.

/// The text with one name instead of another wherever it stands as a word of its own; `None` where it does not.
pub(crate) fn replaced(text: &str, name: &str, by: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let mut new = String::with_capacity(text.len());
    // What was copied, and what was looked at.
    let (mut copied, mut from) = (0, 0);
    while let Some(place) = text.get(from..).and_then(|rest| rest.find(name)) {
        let start = from + place;
        let end = start + name.len();
        let before = text.get(..start).and_then(|head| head.chars().next_back());
        let after = text.get(end..).and_then(|rest| rest.chars().next());
        if before.is_some_and(continues) || after.is_some_and(continues) {
            from = start + name.chars().next().map_or(1, char::len_utf8);
            continue;
        }
        new.push_str(text.get(copied..start).unwrap_or_default());
        new.push_str(by);
        (copied, from) = (end, end);
    }
    if copied == 0 {
        return None;
    }
    new.push_str(text.get(copied..).unwrap_or_default());
    Some(new)
}

/// What makes another name of a name that stands before or behind it. A full stop ends a sentence.
fn continues(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn whole_names_only() {
        for (text, expected) in [
            ("Call serch.", Some("Call search.")),
            ("serch, then `serch`", Some("search, then `search`")),
            ("serch", Some("search")),
            ("deserch serching serch_all pre-serch", None),
            ("serchserch serch", Some("serchserch search")),
            ("äserch (serch)", Some("äserch (search)")),
            ("", None),
        ] {
            assert_eq!(replaced(text, "serch", "search").as_deref(), expected, "{text}");
        }
        assert_eq!(replaced("text", "", "x"), None);
        assert_eq!(replaced("a.b b", "b", "b"), Some("a.b b".to_owned()));
    }
}
