//! Plots as SVG. Nothing of a stranger's goes into one but numbers; names are in the caption, which the template escapes.

use std::fmt::Write as _;

use turnhook_reducer::time::Timestamp;

use super::{Cell, Table};
use crate::{text, zone::Zone};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;
/// Room for the axis's labels.
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 18.0;
const TOP: f64 = 8.0;

/// A plot and the table that says the same.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) svg: String,
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

/// The picture's frame: the largest value at the top, two labels below.
fn frame(most: f64, words: Words, first: &str, last: &str, inside: &str) -> String {
    let (base, right) = (HEIGHT - BOTTOM, WIDTH - 2.0);
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="xMinYMid" role="img" aria-label="The table below says the same">"#
    );
    for (y, value) in [(TOP, most), ((TOP + base) / 2.0, most / 2.0), (base, 0.0)] {
        let (label, below) = (words(value), y + 4.0);
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="currentColor"/><text x="{}" y="{below}" text-anchor="end">{label}</text>"#,
            LEFT - 6.0
        );
    }
    let y = HEIGHT - 4.0;
    let _ = write!(
        svg,
        r#"<text x="{LEFT}" y="{y}">{first}</text><text x="{right}" y="{y}" text-anchor="end">{last}</text>{inside}</svg>"#
    );
    svg
}

fn most(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(1.0, f64::max)
}

/// A bar for each day, by name.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn bars(title: String, heading: &'static str, days: &[(String, u64)]) -> Plot {
    let most = most(days.iter().map(|(_, n)| *n as f64));
    let (base, step) = (HEIGHT - BOTTOM, (WIDTH - LEFT - 2.0) / days.len().max(1) as f64);
    let mut inside = String::new();
    for (i, (day, n)) in days.iter().enumerate() {
        let height = *n as f64 / most * (base - TOP);
        let (x, y, width) = (
            LEFT + i as f64 * step + step * 0.1,
            base - height,
            (step * 0.8).min(40.0),
        );
        let _ = write!(
            inside,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="currentColor"><title>{day}: {}</title></rect>"#,
            text::bytes(*n)
        );
    }
    let label = |day: Option<&(String, u64)>| day.map(|(day, _)| day.clone()).unwrap_or_default();
    let svg = frame(most, bytes, &label(days.first()), &label(days.last()), &inside);
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
    Plot { title, svg, table }
}

/// A line over the last day; its table has a row for each of some hours.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn line(title: String, points: &[(Timestamp, f64)], words: Words, zone: &Zone) -> Option<Plot> {
    let (first, last) = (points.first()?.0, points.last()?.0);
    let most = most(points.iter().map(|(_, value)| *value));
    let (base, span) = (HEIGHT - BOTTOM, (last.0 - first.0).max(1) as f64);
    let mut path = String::new();
    for (at, value) in points {
        let x = LEFT + (at.0 - first.0) as f64 / span * (WIDTH - LEFT - 2.0);
        let y = base - value / most * (base - TOP);
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
    }
    let inside = format!(r#"<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>"#);
    let svg = frame(most, words, &zone.show(first), &zone.show(last), &inside);
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
    Some(Plot { title, svg, table })
}
