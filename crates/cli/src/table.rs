//! Plain columns: what the commands print for a person.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};

/// Longest text of a cell; the whole of it is in `show` and in `--json`.
const CELL_MAX_CHARS: usize = 80;

/// Rows under headings; a sentence when there are none.
pub(crate) fn rows<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    none: &str,
) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    if rows.is_empty() {
        return none.to_owned();
    }
    let mut table = plain();
    table.set_header(headings);
    for row in rows {
        table.add_row(row.map(|cell| one_line(&cell)));
    }
    trimmed(&table)
}

/// One property a line; absent ones are left out.
pub(crate) fn properties(properties: &[(&str, Option<String>)]) -> String {
    let mut table = plain();
    for (name, value) in properties {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            table.add_row([(*name).to_owned(), value.clone()]);
        }
    }
    trimmed(&table)
}

/// An instant, to the second.
pub(crate) fn time(at: &DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// An instant that may be missing.
pub(crate) fn time_or_dash(at: Option<&DateTime<Utc>>) -> String {
    at.map_or_else(|| "-".to_owned(), time)
}

/// Text that may be missing.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map(|text| text.to_string())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "-".to_owned())
}

/// Text cut to a length, on one line.
pub(crate) fn shortened(text: &str, max_chars: usize) -> String {
    let line: String = text
        .chars()
        .map(|character| if character.is_whitespace() { ' ' } else { character })
        .collect();
    let line = line.trim();
    if line.chars().count() <= max_chars {
        return line.to_owned();
    }
    let head: String = line.chars().take(max_chars.saturating_sub(1)).collect();
    format!("{head}…")
}

fn one_line(text: &str) -> String {
    shortened(text, CELL_MAX_CHARS)
}

fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The library pads every cell, the first and the last too.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{properties, rows, shortened};

    #[test]
    fn columns_have_no_frame_and_no_trailing_blanks() {
        assert_eq!(
            rows(
                ["ID", "NAME"],
                [["sb_1".to_owned(), "a\nb".to_owned()], ["s".to_owned(), String::new()]],
                "none"
            ),
            "ID    NAME\nsb_1  a b\ns"
        );
        assert_eq!(rows(["ID"], [], "nothing here"), "nothing here");
        assert_eq!(properties(&[("name", Some("x".to_owned())), ("gone", None)]), "name  x");
    }

    #[test]
    fn long_cells_are_cut_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }
}
