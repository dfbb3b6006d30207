//! Names of tools, as people read them in allowlists and traces: two that look the same must be the same.

use super::check::is_unseen;

/// What is wrong with a name in which somebody could hide something, as in "the name …".
pub(super) fn check(name: &str) -> Result<(), String> {
    let Some(hidden) = name.chars().find(|character| is_invisible(*character)) else {
        return Ok(());
    };
    let seen: String = name.chars().filter(|character| !is_invisible(*character)).collect();
    Err(format!(
        "must not contain characters nobody sees (U+{:04X} in what looks like {seen}); rename it",
        u32::from(hidden)
    ))
}

/// What a text loses, and what a text may have and a name may not: fillers, variation selectors, line separators.
fn is_invisible(character: char) -> bool {
    is_unseen(character)
        || matches!(u32::from(character),
            0x034f | 0x061c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f | 0x2028 | 0x2029 | 0x3164
            | 0xfe00..=0xfe0f | 0xffa0 | 0xe0080..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_refused_and_named() {
        for (name, code) in [
            ("send\u{200b}", "U+200B"),
            ("\u{202e}dnes", "U+202E"),
            ("se\u{2066}nd", "U+2066"),
            ("send\u{e0041}", "U+E0041"),
            ("send\u{fe0f}", "U+FE0F"),
        ] {
            let reason = check(name).unwrap_err();
            assert!(reason.contains(code), "{reason}");
            assert!(!reason.chars().any(is_invisible), "{reason}");
        }
        for name in ["Senden", "отправить", "送信", "arsend-été", "pd_gmail_send"] {
            assert_eq!(check(name), Ok(()));
        }
    }
}
