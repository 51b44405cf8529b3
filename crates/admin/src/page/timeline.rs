//! When each allocation of a session was open, and when something may have been missed meanwhile.

use std::fmt::Write as _;

use turnhook_reducer::{source::Gap, time::Timestamp};

use super::{
    plot::{Plot, WIDTH, picture},
    table::{Cell, Table},
    view::View,
};
use crate::text;

/// A row of the picture, in pixels.
const ROW: f64 = 20.0;
/// What is shorter is drawn as wide as this: it has to be seen.
const LEAST: f64 = 2.0;

/// What was open from when to when.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) from: Timestamp,
    /// `None`: it is open.
    pub(super) to: Option<Timestamp>,
}

/// The whole of it stands in the first row, and each of its allocations in one of the rest; gaps go through all of them.
#[allow(clippy::cast_precision_loss)]
pub(super) fn timeline(view: &View, whole: &Span, until: Timestamp, parts: &[Span], gaps: &[Gap]) -> Plot {
    let (first, last) = (whole.from, whole.to.unwrap_or(until));
    let length = last.since(first).max(1) as f64;
    let x = |at: Timestamp| at.since(first).min(last.since(first)) as f64 / length * WIDTH;
    let height = ROW * (parts.len() + 1) as f64;
    let mut inside = String::new();
    for gap in gaps {
        let (from, to) = (x(gap.from), x(gap.to));
        let wide = (to - from).max(LEAST);
        // Writing to a string cannot fail.
        let _ = write!(
            inside,
            r#"<rect class="gap" x="{:.1}" y="0" width="{wide:.1}" height="{height}" fill="currentColor"/>"#,
            from.min(WIDTH - wide)
        );
    }
    for (row, span) in std::iter::once(whole).chain(parts).enumerate() {
        let (from, to) = (x(span.from), x(span.to.unwrap_or(last)));
        let wide = (to - from).max(LEAST);
        let class = if row == 0 { r#" class="whole""# } else { "" };
        let _ = write!(
            inside,
            r#"<rect{class} x="{:.1}" y="{}" width="{wide:.1}" height="{}" fill="currentColor"><title>{} to {}</title></rect>"#,
            from.min(WIDTH - wide),
            ROW * row as f64 + 4.0,
            ROW - 8.0,
            view.zone.show(span.from),
            span.to.map_or_else(|| "now".to_owned(), |to| view.zone.show(to)),
        );
    }
    let row = |what: String, from: Timestamp, to: Option<Timestamp>| {
        let lasted = text::duration(to.unwrap_or(last).since(from));
        vec![
            Cell::Name(what),
            Cell::time(from, &view.zone),
            to.map_or_else(|| Cell::text("open"), |to| Cell::time(to, &view.zone)),
            Cell::Number(lasted),
        ]
    };
    let spans = std::iter::once(whole).chain(parts);
    let mut rows: Vec<Vec<Cell>> = spans
        .map(|span| row(text::shown(span.name.as_bytes()), span.from, span.to))
        .collect();
    rows.extend(gaps.iter().map(|gap| {
        let why = gap.reason.as_str().replace('_', " ");
        row(format!("gap: {why}"), gap.from, Some(gap.to))
    }));
    let title = if gaps.is_empty() {
        "When its allocations were open"
    } else {
        "When its allocations were open; in the shaded time something may have been missed"
    };
    let labels = std::iter::once(whole).chain(parts);
    Plot {
        title: title.to_owned(),
        svg: picture(height, &inside),
        labels: labels.map(|span| text::shown(span.name.as_bytes())).collect(),
        is_of_rows: true,
        ends: (view.zone.show(first), view.zone.show(last)),
        table: Table {
            caption: title.to_owned(),
            columns: vec![("What", false), ("From", false), ("To", false), ("Lasted", true)],
            rows,
            none: "",
            next: None,
        },
    }
}
