//! Text as the page and the API show it. Markup is escaped by the templates.

use crate::untrusted::Untrusted;

/// Names from coturn, words of endpoints and databases.
pub(crate) fn shown(bytes: &[u8]) -> String {
    Untrusted::from(bytes).to_string()
}

/// `12,345,678`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 GB`, of 1000 bytes each step.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let (mut whole, mut tenths) = (n, 0);
    let mut unit = "B";
    for next in UNITS {
        if whole < 1000 {
            break;
        }
        (tenths, whole, unit) = (whole % 1000 / 100, whole / 1000, next);
    }
    format!("{whole}.{tenths} {unit}")
}

/// `3d 4h`, `5m 12s`, `0.4s`.
pub(crate) fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("0.{}s", ms / 100),
        1..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        for (n, text) in [
            (999, "999 B"),
            (1500, "1.5 kB"),
            (2_000_000_000, "2.0 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (ms, text) in [(420, "0.4s"), (61_000, "1m 1s"), (90_000_000, "1d 1h")] {
            assert_eq!(duration(ms), text);
        }
    }
}
