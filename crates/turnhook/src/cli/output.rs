//! What commands print: tables for people, one object a line for programs.

use std::io::{self, IsTerminal, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use jiff::{Timestamp as Instant, tz::TimeZone};
use serde::Serialize;
use turnhook_admin::Zone;
use turnhook_dispatcher::clock::wall_clock;
use turnhook_reducer::time::Timestamp;

use super::error::CliError;
use crate::text::{Untrusted, harmless_json};

/// Writes to stdout.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

/// The same of what need not be text.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::Unread),
        Err(error) => Err(CliError::failed(format!("cannot write to stdout: {error}"))),
    }
}

/// Says something on stderr, for people. Where that is closed there is nobody left to say it to.
pub(super) fn warn(what: impl std::fmt::Display) {
    let what = what.to_string();
    let _ = writeln!(io::stderr(), "warning: {}", Untrusted::from(what.as_str()));
}

/// A column: its heading, and whether it holds numbers.
pub(super) type Column = (&'static str, bool);

/// Between two columns.
const BETWEEN: usize = 2;
/// What a column that is cut keeps.
const LEAST: usize = 8;

/// Rows of text.
pub(super) struct Rows {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// What is left out first, and what is cut, where a terminal is too narrow.
    leave_out: &'static [&'static str],
    cut: &'static [&'static str],
    /// What stands in the place of UTC in the headings.
    zone: String,
}

impl Rows {
    pub(super) fn new(columns: &[Column]) -> Rows {
        Rows {
            columns: columns.to_vec(),
            rows: Vec::new(),
            leave_out: &[],
            cut: &[],
            zone: "UTC".to_owned(),
        }
    }

    /// Its times are those of a zone.
    pub(super) fn of_zone(mut self, zone: &Zone) -> Rows {
        self.zone = zone.name().to_owned();
        self
    }

    /// Where a terminal is too narrow these columns are left out, the first one first, and then these are cut.
    pub(super) fn narrow(mut self, leave_out: &'static [&'static str], cut: &'static [&'static str]) -> Rows {
        (self.leave_out, self.cut) = (leave_out, cut);
        self
    }

    pub(super) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints them, or that there are none.
    pub(super) fn print(self, none: &str) -> Result<(), CliError> {
        print(&self.text(none, columns()))
    }

    /// As lines that are no longer than `most`, if that is known.
    pub(super) fn text(mut self, none: &str, most: Option<usize>) -> String {
        if self.rows.is_empty() {
            return if none.is_empty() {
                String::new()
            } else {
                format!("{none}\n")
            };
        }
        if let Some(most) = most {
            self.fit(most);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let zone = format!("({})", self.zone);
        table.set_header(
            self.columns
                .iter()
                .map(|(heading, _)| heading.replace("(UTC)", &zone)),
        );
        for (column, (_, is_number)) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding((0, BETWEEN as u16));
            if *is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.add_rows(self.rows);
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }

    fn widths(&self) -> Vec<usize> {
        let width = |text: &str| text.chars().count();
        let of_column = |(at, (heading, _)): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
                .max(width(heading))
        };
        self.columns.iter().enumerate().map(of_column).collect()
    }

    fn too_wide_by(&self, most: usize) -> usize {
        let widths = self.widths();
        let whole: usize = widths.iter().sum::<usize>() + BETWEEN * widths.len().saturating_sub(1);
        whole.saturating_sub(most)
    }

    fn place(&self, heading: &str) -> Option<usize> {
        self.columns.iter().position(|(known, _)| *known == heading)
    }

    fn fit(&mut self, most: usize) {
        // A column that says nothing goes first.
        for at in (0..self.columns.len()).rev() {
            if self.too_wide_by(most) > 0
                && self
                    .rows
                    .iter()
                    .all(|row| row.get(at).is_none_or(String::is_empty))
            {
                self.remove(at);
            }
        }
        for heading in self.leave_out {
            let spare: usize = self.spare();
            if self.too_wide_by(most) <= spare {
                break;
            }
            if let Some(at) = self.place(heading) {
                self.remove(at);
            }
        }
        for heading in self.cut {
            let Some(at) = self.place(heading) else { continue };
            let by = self.too_wide_by(most);
            if by == 0 {
                break;
            }
            let keep = self.widths()[at].saturating_sub(by).max(LEAST);
            for row in &mut self.rows {
                if let Some(cell) = row.get_mut(at).filter(|cell| cell.chars().count() > keep) {
                    *cell = cell.chars().take(keep - 1).chain(['…']).collect();
                }
            }
        }
    }

    /// What cutting could save.
    fn spare(&self) -> usize {
        let widths = self.widths();
        let places = self.cut.iter().filter_map(|heading| self.place(heading));
        places.map(|at| widths[at].saturating_sub(LEAST)).sum()
    }

    fn remove(&mut self, at: usize) {
        self.columns.remove(at);
        for row in &mut self.rows {
            if at < row.len() {
                row.remove(at);
            }
        }
    }
}

/// How wide the terminal is; `COLUMNS` goes before. `None` where nobody looks: then nothing is left out.
pub(super) fn columns() -> Option<usize> {
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let terminal = || {
        let out = io::stdout();
        if !out.is_terminal() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(out).ok()?;
        Some(usize::from(size.ws_col))
    };
    given.or_else(terminal).filter(|columns| *columns > 0)
}

/// One object, on one line.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(value).map_err(CliError::failed)?;
    print(&(harmless_json(&line).into_owned() + "\n"))
}

/// A name from coturn, without what a terminal would obey.
pub(super) fn name(bytes: &[u8]) -> String {
    Untrusted::from(bytes).to_string()
}

/// A user, for people.
pub(super) fn user(user: Option<&[u8]>) -> String {
    user.map_or_else(|| "-".to_owned(), name)
}

/// A time, for people: `2026-11-22 06:00:57`, in UTC as in payloads.
pub(super) fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let instant = Instant::from_millisecond(millis).unwrap_or(Instant::MAX);
    instant
        .to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// A time on the command line: `2026-11-22T06:00:00Z`, `2026-11-22` (its midnight, UTC), or `2h` (so long ago).
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let millis = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(Timestamp(wall_clock().0.saturating_sub(millis)));
    }
    let instant = text
        .parse::<Instant>()
        .or_else(|_| {
            text.parse::<jiff::civil::Date>()?
                .to_zoned(TimeZone::UTC)
                .map(|zoned| zoned.timestamp())
        })
        .map_err(|_| {
            "write a time like 2026-11-22T06:00:00Z, a day like 2026-11-22, or so long ago, like 2h"
                .to_owned()
        })?;
    u64::try_from(instant.as_millisecond())
        .map(Timestamp)
        .map_err(|_| "before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_as_people_give_them() {
        assert_eq!(
            parse_time("2026-11-22T06:00:57.624Z"),
            Ok(Timestamp(1_795_327_257_624))
        );
        assert_eq!(
            parse_time("2026-11-22T08:00:57.624+02:00"),
            Ok(Timestamp(1_795_327_257_624))
        );
        assert_eq!(parse_time("1970-01-02"), Ok(Timestamp(86_400_000)));
        let now = wall_clock().0;
        let ago = parse_time("2h").unwrap().0;
        assert!(ago <= now - 7_199_000 && ago >= now - 7_300_000, "{ago} {now}");
        for wrong in ["", "yesterday", "2026-13-01", "1969-12-31"] {
            parse_time(wrong).unwrap_err();
        }
        assert_eq!(time(Timestamp(1_795_327_257_624)), "2026-11-22 06:00:57");
    }

    #[test]
    fn names_cannot_write_to_the_terminal() {
        assert_eq!(name(b"a\x1b[2J\xff/b"), "a\\u{1b}[2J\\xff/b");
        assert_eq!(user(None), "-");
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let rows = || {
            let mut rows = Rows::new(&[("ID", false), ("USER", false), ("SENT", true), ("NOTE", false)])
                .narrow(&["SENT"], &["USER"]);
            rows.push(["ses_1", "a-user-with-a-long-name", "12.0 kB", ""].map(str::to_owned));
            rows.push(["ses_2", "b", "1 B", ""].map(str::to_owned));
            rows
        };
        let wide = rows().text("none", None);
        assert_eq!(
            wide.lines().next(),
            Some("ID     USER                        SENT  NOTE"),
            "{wide}"
        );
        let narrow = rows().text("none", Some(30));
        assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
        assert!(narrow.contains("a-user-with-a…"), "{narrow}");
        let cut = rows().text("none", Some(20));
        assert_eq!(cut, "ID     USER\nses_1  a-user-with-…\nses_2  b\n");
    }
}
