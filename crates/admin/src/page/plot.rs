//! Plots as SVG, which stretches to any width; what is written beside it is HTML, and stays readable. Nothing of a stranger's
//! goes into a picture but numbers; names are in captions and labels, which the template escapes.

use std::fmt::Write as _;

use turnhook_reducer::time::Timestamp;

use super::table::{Cell, Table};
use crate::{text, zone::Zone};

pub(super) const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 130.0;

/// A plot and the table that says the same.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) svg: String,
    /// To its left, from the top to the bottom.
    pub(crate) labels: Vec<String>,
    /// Each label is of a row, not of a height.
    pub(crate) is_of_rows: bool,
    /// Under its left and its right end.
    pub(crate) ends: (String, String),
    pub(crate) table: Table,
}

/// How a value is written.
pub(crate) type Words = fn(f64) -> String;

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // what is drawn is small and not negative
pub(crate) fn whole(value: f64) -> String {
    if value.fract() > 0.05 && value < 10.0 {
        return format!("{value:.1}");
    }
    text::grouped(value.round() as u64)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn bytes(value: f64) -> String {
    text::bytes(value as u64)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn seconds(value: f64) -> String {
    text::duration((value * 1000.0) as u64)
}

/// A picture of that height.
pub(super) fn picture(height: f64, inside: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" height="{height}" preserveAspectRatio="none" role="img" aria-label="The table below says the same">{inside}</svg>"#
    )
}

/// With the largest value at the top, and lines at it, at half of it and at nothing.
fn against_heights(most: f64, words: Words, inside: &str) -> (String, Vec<String>) {
    let mut svg = String::new();
    for y in [0.5, HEIGHT / 2.0, HEIGHT - 0.5] {
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            r#"<line class="grid" x1="0" y1="{y}" x2="{WIDTH}" y2="{y}" stroke="currentColor"/>"#
        );
    }
    svg += inside;
    let labels = [most, most / 2.0, 0.0].map(words);
    (picture(HEIGHT, &svg), labels.into())
}

fn most(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(1.0, f64::max)
}

/// A bar for each day, by name.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn bars(title: String, heading: &'static str, days: &[(String, u64)]) -> Plot {
    let most = most(days.iter().map(|(_, n)| *n as f64));
    let step = WIDTH / days.len().max(1) as f64;
    let mut inside = String::new();
    for (i, (day, n)) in days.iter().enumerate() {
        let height = *n as f64 / most * HEIGHT;
        let (x, y, width) = (i as f64 * step + step * 0.1, HEIGHT - height, step * 0.8);
        let _ = write!(
            inside,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="currentColor"><title>{day}: {}</title></rect>"#,
            text::bytes(*n)
        );
    }
    let label = |day: Option<&(String, u64)>| day.map(|(day, _)| day.clone()).unwrap_or_default();
    let (svg, labels) = against_heights(most, bytes, &inside);
    let rows = days
        .iter()
        .map(|(day, n)| vec![Cell::text(day.clone()), Cell::number(*n)]);
    let table = Table {
        caption: title.clone(),
        columns: vec![("Day", false), (heading, true)],
        rows: rows.collect(),
        none: "Nothing.",
        next: None,
    };
    Plot {
        title,
        svg,
        labels,
        is_of_rows: false,
        ends: (label(days.first()), label(days.last())),
        table,
    }
}

/// A line over the last day; its table has a row for each of some hours. Of one point there is no line.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn line(title: String, points: &[(Timestamp, f64)], words: Words, zone: &Zone) -> Option<Plot> {
    let (first, last) = (points.first()?.0, points.last()?.0);
    if first >= last {
        return None;
    }
    let most = most(points.iter().map(|(_, value)| *value));
    let span = (last.0 - first.0) as f64;
    let mut path = String::new();
    for (at, value) in points {
        let x = (at.0.saturating_sub(first.0)) as f64 / span * WIDTH;
        let y = HEIGHT - value / most * HEIGHT;
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
    }
    let inside = format!(r#"<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>"#);
    let (svg, labels) = against_heights(most, words, &inside);
    // A row for each hour, and the last.
    let step = points.len().div_ceil(24).max(1);
    let rows = points.iter().rev().step_by(step);
    let rows = rows.map(|(at, value)| vec![Cell::time(*at, zone), Cell::Number(words(*value))]);
    let table = Table {
        caption: title.clone(),
        columns: vec![("Time", false), ("Value", true)],
        rows: rows.collect(),
        none: "Nothing.",
        next: None,
    };
    Some(Plot {
        title,
        svg,
        labels,
        is_of_rows: false,
        ends: (zone.show(first), zone.show(last)),
        table,
    })
}
