//! What commands print: tables for people, one object a line for programs.

use std::io::{self, IsTerminal};

use comfy_table::{CellAlignment, Table, presets};
use jiff::{Timestamp as Instant, tz::TimeZone};
use serde::Serialize;
use turnhook_reducer::time::Timestamp;

use super::{CliError, print};

/// A column: its heading, and whether it holds numbers.
pub(super) type Column = (&'static str, bool);

/// Rows of text.
pub(super) struct Rows {
    table: Table,
    empty: bool,
}

impl Rows {
    /// With lines on a terminal, in plain aligned columns elsewhere.
    pub(super) fn new(columns: &[Column]) -> Rows {
        let mut table = Table::new();
        table.load_style(if io::stdout().is_terminal() {
            presets::UTF8_HORIZONTAL_ONLY
        } else {
            presets::NOTHING
        });
        table.set_header(columns.iter().map(|(heading, _)| *heading));
        for (column, (_, is_number)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if *is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Rows { table, empty: true }
    }

    pub(super) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells);
        self.empty = false;
    }

    /// Prints them, or that there are none.
    pub(super) fn print(&self, none: &str) -> Result<(), CliError> {
        if self.empty {
            return print(&format!("{none}\n"));
        }
        let lines: Vec<String> = self
            .table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        print(&(lines.join("\n") + "\n"))
    }
}

/// One object, on one line.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(value).map_err(CliError::failed)?;
    print(&(line + "\n"))
}

/// A name from coturn, without what a terminal would obey.
pub(super) fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
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
        return Ok(Timestamp(super::store::now().0.saturating_sub(millis)));
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
        let now = super::super::store::now().0;
        let ago = parse_time("2h").unwrap().0;
        assert!(ago <= now - 7_199_000 && ago >= now - 7_300_000, "{ago} {now}");
        for wrong in ["", "yesterday", "2026-13-01", "1969-12-31"] {
            parse_time(wrong).unwrap_err();
        }
        assert_eq!(time(Timestamp(1_795_327_257_624)), "2026-11-22 06:00:57");
    }

    #[test]
    fn names_cannot_write_to_the_terminal() {
        assert_eq!(name(b"a\x1b[2J\xff/b"), "a\u{fffd}[2J\u{fffd}/b");
        assert_eq!(user(None), "-");
    }
}
