//! Rows under headings, and what their cells hold.

use turnhook_reducer::time::Timestamp;

use crate::{answer::rfc3339, text, zone::Zone};

/// What a cell holds.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    /// From strangers.
    Name(String),
    Number(String),
    Link(String, String),
    State(&'static str, String),
    Time(String, String),
}

impl Cell {
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Cell::Number(_))
    }

    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    pub(crate) fn name(bytes: &[u8]) -> Cell {
        if bytes.is_empty() {
            Cell::Text("none".into())
        } else {
            Cell::Name(text::shown(bytes))
        }
    }

    pub(crate) fn number(n: u64) -> Cell {
        Cell::Number(text::grouped(n))
    }

    pub(crate) fn bytes(n: u64) -> Cell {
        Cell::Number(text::bytes(n))
    }

    pub(crate) fn time(at: Timestamp, zone: &Zone) -> Cell {
        Cell::Time(rfc3339(at), zone.show(at))
    }

    pub(crate) fn maybe_time(at: Option<Timestamp>, zone: &Zone) -> Cell {
        at.map_or_else(|| Cell::text("never"), |at| Cell::time(at, zone))
    }

    /// Of what may not have such a time at all.
    pub(crate) fn time_if_any(at: Option<Timestamp>, zone: &Zone) -> Cell {
        at.map_or_else(|| Cell::text("–"), |at| Cell::time(at, zone))
    }

    /// A state, with how good it is.
    pub(crate) fn state(word: &str) -> Cell {
        let class = match word {
            "delivered" | "active" | "connected" | "listening" | "exact" | "leader" | "live" => "good",
            "pending" | "failing" | "held" | "following" | "starting" | "lower_bound" | "discarded"
            | "gone" => "warn",
            "dead" | "deaf" | "paused" | "breaker_open" => "bad",
            _ => "",
        };
        Cell::State(class, word.replace('_', " "))
    }
}

/// Rows under headings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) caption: String,
    /// A heading, and whether it stands over numbers.
    pub(crate) columns: Vec<(&'static str, bool)>,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// What is said where there are none.
    pub(crate) none: &'static str,
    pub(crate) next: Option<String>,
}
