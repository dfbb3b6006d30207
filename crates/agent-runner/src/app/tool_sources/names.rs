//! Names of tools, as people read them in allowlists and traces: two that look the same must be the same.

use super::{Built, Skipped};

/// Refuses a source with a name in which somebody could hide something.
pub(super) fn check(built: &Built) -> Result<(), Skipped> {
    for tool in &built.tools {
        if let Some(hidden) = tool.name.chars().find(|character| is_invisible(*character)) {
            let seen: String = tool
                .name
                .chars()
                .filter(|character| !is_invisible(*character))
                .collect();
            return Err(Skipped(format!(
                "one of its tools has a name that must not contain characters nobody sees (U+{:04X} in what looks like \
                 {seen}); rename it",
                u32::from(hidden)
            )));
        }
    }
    Ok(())
}

/// Zero width, direction marks, fillers, variation selectors, line separators, tags.
fn is_invisible(character: char) -> bool {
    matches!(u32::from(character),
        0x00ad | 0x034f | 0x061c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
        | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use serde_json::{Map, json};

    use super::*;
    use crate::tool_sources::{Call, ToolAnswer, ToolCaller, ToolDraft};

    struct Nobody;

    #[async_trait]
    impl ToolCaller for Nobody {
        async fn call(&self, _: Call<'_>) -> copass_errors::Result<ToolAnswer> {
            Ok(ToolAnswer {
                result: Map::new(),
                error: None,
            })
        }
    }

    fn built(name: &str) -> Built {
        let tool = |name: &str| ToolDraft {
            name: name.to_owned(),
            app_slug: "app".to_owned(),
            description: String::new(),
            input_schema: json!({"type": "object"}),
            is_read_only: true,
        };
        Built {
            tools: vec![tool("send"), tool(name)],
            caller: Arc::new(Nobody),
        }
    }

    #[test]
    fn what_nobody_sees_is_refused_and_named() {
        for (name, code) in [
            ("send\u{200b}", "U+200B"),
            ("\u{202e}dnes", "U+202E"),
            ("se\u{2066}nd", "U+2066"),
            ("send\u{e0041}", "U+E0041"),
            ("send\u{fe0f}", "U+FE0F"),
        ] {
            let reason = check(&built(name)).unwrap_err().0;
            assert!(reason.contains(code), "{reason}");
            assert!(!reason.chars().any(is_invisible), "{reason}");
        }
        for name in ["Senden", "отправить", "送信", "arsend-été", "pd_gmail_send"] {
            assert_eq!(check(&built(name)), Ok(()));
        }
    }
}
