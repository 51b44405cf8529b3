//! Text from outside: usernames and realms from coturn, answers of endpoints, words of databases.
//!
//! Whoever has credentials chooses a username, and so what stands on an operator's terminal, in the log and in a
//! spreadsheet. There is one type for it, so that each place where such text is printed shows it in the same harmless way.

use std::{borrow::Cow, fmt};

/// Text from outside. What a terminal, a reader of logs or a person's eye would obey is shown escaped by its `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untrusted<'a>(&'a [u8]);

impl<'a> From<&'a [u8]> for Untrusted<'a> {
    fn from(bytes: &'a [u8]) -> Untrusted<'a> {
        Untrusted(bytes)
    }
}

impl<'a> From<&'a str> for Untrusted<'a> {
    fn from(text: &'a str) -> Untrusted<'a> {
        Untrusted(text.as_bytes())
    }
}

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    c if is_obeyed(c) => write!(f, "{}", c.escape_unicode())?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl<'a> Untrusted<'a> {
    /// As a cell of a CSV file. A spreadsheet takes what begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a
    /// formula: an apostrophe before it makes it text. `raw` leaves all of it as it is, for programs.
    #[must_use]
    pub fn cell(self, raw: bool) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(self.0);
        if raw {
            return text;
        }
        // The wide forms are formulas in spreadsheets of some languages.
        let formula = text.starts_with([
            '=', '+', '-', '@', '\t', '\r', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
        ]);
        let shown = self.to_string();
        match (formula, shown == text) {
            (true, _) => format!("'{shown}").into(),
            (false, true) => text,
            (false, false) => shown.into(),
        }
    }
}

/// A line of JSON in which everything that a terminal would obey is written as an escape: to a program it is the same.
#[must_use]
pub fn harmless_json(line: &str) -> Cow<'_, str> {
    if !line.contains(is_obeyed) {
        return line.into();
    }
    let mut harmless = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        if is_obeyed(c) {
            // It can only stand in a string.
            for unit in c.encode_utf16(&mut [0; 2]) {
                harmless.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            harmless.push(c);
        }
    }
    harmless.into()
}

/// Control characters (C0, DEL, C1), what turns the direction of writing or ends a line, and what is invisible and would
/// make two names look alike.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_obeyed_is_escaped() {
        for (bytes, shown) in [
            (&b"cust_42/eu@example.org"[..], "cust_42/eu@example.org"),
            (
                "Zo\u{eb} \u{1f600} \u{5d0}".as_bytes(),
                "Zo\u{eb} \u{1f600} \u{5d0}",
            ),
            (b"a\x1b[2Jb\x07", "a\\u{1b}[2Jb\\u{7}"),
            (b"a\r\nb\tc\x7f", "a\\r\\nb\\tc\\u{7f}"),
            ("\u{85}\u{9b}31m".as_bytes(), "\\u{85}\\u{9b}31m"),
            (
                "\u{202e}gpj.exe\u{2066}\u{feff}".as_bytes(),
                "\\u{202e}gpj.exe\\u{2066}\\u{feff}",
            ),
            (b"\xff\xfealice", "\\xff\\xfealice"),
        ] {
            assert_eq!(Untrusted(bytes).to_string(), shown);
        }
    }

    #[test]
    fn json_is_the_same_and_harmless() {
        let value = serde_json::json!({ "user": "a\u{9b}31m\u{7f}\u{202e}\u{e0041}Zo\u{eb}" });
        let line = value.to_string();
        let shown = harmless_json(&line);
        assert!(
            !shown.contains(is_obeyed) && shown.contains("Zo\u{eb}"),
            "{shown}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).ok(),
            Some(value)
        );
        assert!(matches!(harmless_json("{\"a\":1}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_cell_is_no_formula() {
        for (text, cell) in [
            ("alice", "alice"),
            ("=1+1", "'=1+1"),
            ("+49", "'+49"),
            ("-x", "'-x"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\\t=1"),
            ("\r=1", "'\\r=1"),
            ("a=1", "a=1"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("a\u{1b}", "a\\u{1b}"),
        ] {
            assert_eq!(Untrusted::from(text).cell(false), cell);
            assert_eq!(Untrusted::from(text).cell(true), text);
        }
    }
}
