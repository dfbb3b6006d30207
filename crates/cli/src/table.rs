//! Plain columns: what the commands print for a person.
//!
//! On a terminal a table fits its width: what matters least is cut first, and left out where even that is too much.
//! Anywhere else nothing is cut, because somebody may read the columns with a program.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::output::{clean, columns};

/// Blanks between two columns.
const GAP: usize = 2;
/// A column is not cut below this; narrower ones say nothing.
const LEAST: usize = 6;
/// What tells rows apart is cut below this only when all else was cut.
const KEY_LEAST: usize = 12;

/// What a narrow terminal can do without, by its heading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spare {
    /// A text whose beginning says something.
    Cut(&'static str),
    /// The same of what tells the rows apart: it is never left out.
    Shorten(&'static str),
    /// Something that is of no use unless it is whole.
    Omit(&'static str),
}

/// Rows under headings; a sentence when there are none. `spares`: those that matter least first.
pub(crate) fn rows<const N: usize>(
    headings: [&str; N],
    spares: &[Spare],
    rows: impl IntoIterator<Item = [String; N]>,
    none: &str,
) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    sheet(&headings, spares, &rows, none)
}

/// The same with a number of columns that is known at run time only.
pub(crate) fn sheet(headings: &[&str], spares: &[Spare], rows: &[Vec<String>], none: &str) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    laid_out(headings, spares, rows, columns())
}

fn laid_out(headings: &[&str], spares: &[Spare], rows: &[Vec<String>], limit: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| one_line(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.width()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let widths = fitted(headings, &widths, spares, limit);
    let line = |cells: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        cells
            .zip(&widths)
            .filter_map(|(cell, width)| width.map(|width| cut(cell, width)))
            .collect()
    };
    let mut table = plain();
    table.set_header(line(&mut headings.iter().copied()));
    for row in &rows {
        table.add_row(line(&mut row.iter().map(String::as_str)));
    }
    trimmed(&table)
}

/// The widths with which the columns fit into the limit; `None` for a column that is left out.
fn fitted(headings: &[&str], natural: &[usize], spares: &[Spare], limit: Option<usize>) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
    let Some(limit) = limit else { return widths };
    let sum = |widths: &[Option<usize>]| -> usize {
        let shown = widths.iter().flatten().count();
        widths.iter().flatten().sum::<usize>() + GAP * shown.saturating_sub(1)
    };
    let place = |name: &str| headings.iter().position(|heading| *heading == name);
    let (mut cut, mut keys) = (Vec::new(), Vec::new());
    for spare in spares {
        match spare {
            Spare::Cut(name) => cut.extend(place(name)),
            Spare::Shorten(name) => keys.extend(place(name)),
            Spare::Omit(_) => {}
        }
    }
    for spare in spares {
        let excess = sum(&widths).saturating_sub(limit);
        let (name, least) = match spare {
            Spare::Cut(name) => (name, Some(LEAST)),
            Spare::Shorten(name) => (name, Some(KEY_LEAST)),
            Spare::Omit(name) => (name, None),
        };
        let Some(width) = place(name).and_then(|place| widths.get_mut(place)) else {
            continue;
        };
        match (least, &width) {
            (Some(least), Some(present)) => *width = Some((*present).min(present.saturating_sub(excess).max(least))),
            (None, _) if excess > 0 => *width = None,
            _ => {}
        }
    }
    shrink(&mut widths, &keys, LEAST, |widths| sum(widths) > limit);
    for place in &cut {
        if sum(&widths) > limit
            && let Some(width) = widths.get_mut(*place)
        {
            *width = None;
        }
    }
    shrink(&mut widths, &keys, 1, |widths| sum(widths) > limit);
    // What was left out may have made more room than was needed.
    for place in keys.into_iter().chain(cut) {
        let room = limit.saturating_sub(sum(&widths));
        if let (Some(Some(width)), Some(natural)) = (widths.get_mut(place), natural.get(place)) {
            *width = (*width + room).min(*natural);
        }
    }
    widths
}

/// Narrows the widest of these columns, one by one, while it is too much and none has reached the least width.
fn shrink(
    widths: &mut [Option<usize>],
    places: &[usize],
    least: usize,
    is_too_much: impl Fn(&[Option<usize>]) -> bool,
) {
    while is_too_much(widths) {
        let widest = places
            .iter()
            .copied()
            .max_by_key(|place| widths.get(*place).copied().flatten());
        match widest.and_then(|place| widths.get_mut(place)) {
            Some(Some(width)) if *width > least => *width -= 1,
            _ => return,
        }
    }
}

/// One property a line; absent ones are left out.
pub(crate) fn properties(properties: &[(&str, Option<String>)]) -> String {
    let mut table = plain();
    for (name, value) in properties {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            table.add_row([(*name).to_owned(), clean(value).into_owned()]);
        }
    }
    trimmed(&table)
}

/// Columns of a list that grows: each line is written when it is known, so the widths are set beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<const N: usize> {
    pub(crate) headings: [&'static str; N],
    /// Of the last one it does not matter.
    pub(crate) widths: [usize; N],
    pub(crate) spares: &'static [Spare],
}

impl<const N: usize> Lines<N> {
    /// The line of headings.
    pub(crate) fn head(&self, limit: Option<usize>) -> String {
        self.line(&self.headings.map(str::to_owned), limit)
    }

    /// The line of a row. A cell that is wider than its column pushes the others, and is never cut unless the limit
    /// asks for it.
    pub(crate) fn line(&self, cells: &[String; N], limit: Option<usize>) -> String {
        let cells: Vec<String> = cells.iter().map(|cell| one_line(cell)).collect();
        let mut natural: Vec<usize> = self.widths.to_vec();
        for (place, (width, cell)) in natural.iter_mut().zip(&cells).enumerate() {
            let is_last = place + 1 == N;
            *width = if is_last {
                cell.width()
            } else {
                (*width).max(cell.width())
            };
        }
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(fitted(&self.headings, &natural, self.spares, limit)) {
            let Some(width) = width else { continue };
            let cell = cut(cell, width);
            let blanks = width.saturating_sub(cell.width()) + GAP;
            line.push_str(&cell);
            line.push_str(&" ".repeat(blanks));
        }
        line.trim_end().to_owned()
    }
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

/// Text on one line and without what steers a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|character| if character.is_whitespace() { ' ' } else { character })
        .collect();
    clean(line.trim()).into_owned()
}

/// Text on one line, cut to a number of columns.
pub(crate) fn shortened(text: &str, max_columns: usize) -> String {
    cut(&one_line(text), max_columns)
}

/// Text on one line that fits behind `used` columns of a terminal; whole where there is none.
pub(crate) fn rest_of_line(text: &str, used: usize) -> String {
    match columns() {
        Some(limit) => shortened(text, limit.saturating_sub(used).max(LEAST)),
        None => one_line(text),
    }
}

/// Cuts between characters, by the columns they take.
fn cut(line: &str, max_columns: usize) -> String {
    if line.width() <= max_columns {
        return line.to_owned();
    }
    let mut left = max_columns.saturating_sub(1);
    let mut head = String::new();
    for character in line.chars() {
        let width = character.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        head.push(character);
    }
    head.push('…');
    head
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
    use unicode_width::UnicodeWidthStr as _;

    use super::{
        Lines,
        Spare::{Cut, Omit, Shorten},
        laid_out, properties, rows, shortened,
    };

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_have_no_frame_and_no_trailing_blanks() {
        let sheet = |rows: &[Vec<String>]| laid_out(&["ID", "NAME"], &[], rows, None);
        assert_eq!(
            sheet(&[row(&["sb_1", "a\nb"]), row(&["s", ""])]),
            "ID    NAME\nsb_1  a b\ns"
        );
        assert_eq!(rows(["ID"], &[], [], "nothing here"), "nothing here");
        assert_eq!(properties(&[("name", Some("x".to_owned())), ("gone", None)]), "name  x");
    }

    #[test]
    fn a_terminal_cuts_what_matters_least_and_a_pipe_nothing() {
        let long = "a result that is much longer than any terminal is wide, and goes on and on ".repeat(3);
        let table = [row(&["rn_1", "succeeded", "2026-04-30 14:25:18Z", &long])];
        let headings = ["ID", "STATUS", "STARTED", "RESULT"];
        let spares = [Cut("RESULT"), Omit("STARTED")];
        let whole = laid_out(&headings, &spares, &table, None);
        assert!(whole.contains(long.trim()), "{whole}");
        for (limit, expected) in [
            (
                60,
                "ID    STATUS     STARTED               RESULT\nrn_1  succeeded  2026-04-30 14:25:18Z  a result that is muc…",
            ),
            (40, "ID    STATUS     RESULT\nrn_1  succeeded  a result that is much …"),
            (24, "ID    STATUS     RESULT\nrn_1  succeeded  a resu…"),
            (20, "ID    STATUS\nrn_1  succeeded"),
            (5, "ID    STATUS\nrn_1  succeeded"),
        ] {
            let shown = laid_out(&headings, &spares, &table, Some(limit));
            assert_eq!(shown, expected, "{limit}");
            assert!(limit < 15 || shown.lines().all(|line| line.width() <= limit), "{shown}");
        }
    }

    #[test]
    fn what_tells_rows_apart_is_never_left_out() {
        let table = [
            row(&["customer-support", "12", "100000", "$1.25 + 3 runs of unknown cost"]),
            row(&["issues", "1", "5", "$0.00"]),
        ];
        let headings = ["AGENT", "RUNS", "TOKENS IN", "COST"];
        let spares = [Omit("TOKENS IN"), Shorten("AGENT"), Cut("COST")];
        for (limit, expected) in [
            (
                60,
                "AGENT             RUNS  COST\ncustomer-support  12    $1.25 + 3 runs of unknown cost\nissues            1     $0.00",
            ),
            (
                40,
                "AGENT         RUNS  COST\ncustomer-su…  12    $1.25 + 3 runs of u…\nissues        1     $0.00",
            ),
            (20, "AGENT   RUNS  COST\ncusto…  12    $1.25…\nissues  1     $0.00"),
            (10, "AGE…  RUNS\ncus…  12\niss…  1"),
        ] {
            let shown = laid_out(&headings, &spares, &table, Some(limit));
            assert_eq!(shown, expected, "{limit}");
        }
    }

    #[test]
    fn what_steers_a_terminal_takes_no_room() {
        let table = [row(&["a\u{1b}[31mb", "x"]), row(&["ab", "y"])];
        assert_eq!(
            laid_out(&["N", "V"], &[], &table, None),
            "N       V\na[31mb  x\nab      y"
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters_by_their_columns() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("日本語", 5), "日本…");
        assert_eq!(shortened(" a\r\nb ", 9), "a  b");
    }

    #[test]
    fn lines_of_a_growing_list_stand_under_each_other() {
        let lines = Lines {
            headings: ["ID", "STATUS", "RESULT"],
            widths: [4, 9, 0],
            spares: &[Cut("RESULT")],
        };
        let cells = |id: &str, result: &str| [id.to_owned(), "failed".to_owned(), result.to_owned()];
        assert_eq!(lines.head(None), "ID    STATUS     RESULT");
        assert_eq!(lines.line(&cells("rn_1", "no\nluck"), None), "rn_1  failed     no luck");
        assert_eq!(lines.line(&cells("rn_12345", "x"), None), "rn_12345  failed     x");
        assert_eq!(
            lines.line(&cells("rn_1", "a long result"), Some(25)),
            "rn_1  failed     a long …"
        );
    }
}
