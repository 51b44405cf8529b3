//! Numbers as people read them.

/// `512 B`, `272.6 kB`, `1.3 GB`: decimal, as bills are.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let (mut divisor, mut unit) = (1000u64, 0);
    // Not 1000.0 kB but 1.0 MB: what rounds up to the next unit is shown in it.
    while unit + 1 < UNITS.len() && n / divisor * 1000 + n % divisor * 1000 / divisor >= 999_950 {
        divisor *= 1000;
        unit += 1;
    }
    // Nobody reads more than four digits of it.
    #[allow(clippy::cast_precision_loss)]
    let value = n as f64 / divisor as f64;
    format!("{value:.1} {}", UNITS[unit])
}

/// `350 ms`, `18.4 s`, `2m 05s`, `1h 02m 05s`.
pub(super) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", seconds, millis % 1000 / 100),
        60_000..3_600_000 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!(
            "{}h {:02}m {:02}s",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_durations() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(272_620), "272.6 kB");
        assert_eq!(bytes(999_949), "999.9 kB");
        assert_eq!(bytes(999_950), "1.0 MB");
        assert_eq!(bytes(4_938_123_828), "4.9 GB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(duration(0), "0 ms");
        assert_eq!(duration(18_351), "18.3 s");
        assert_eq!(duration(125_000), "2m 05s");
        assert_eq!(duration(3_725_999), "1h 02m 05s");
    }
}
