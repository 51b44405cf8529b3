//! The two text formats, and which one is asked for. They differ in little: what counters are called in their
//! description, that the older one knows no `info` and no units, and the end.

use std::fmt::Write as _;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own, version 0.0.4: what everything reads.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` header asks for: OpenMetrics only where it is named, and liked no less.
    #[must_use]
    pub fn accepted(accept: &str) -> Format {
        let (mut open, mut plain) = (0.0, 0.0_f64);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut known) = (1.0, true);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some((name, value)) if name.trim().eq_ignore_ascii_case("q") => {
                        weight = value.trim().parse::<f64>().unwrap_or(0.0);
                    }
                    Some((name, value)) if name.trim().eq_ignore_ascii_case("version") => {
                        known = matches!(value.trim().trim_matches('"'), "1.0.0" | "0.0.1" | "0.0.4");
                    }
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if known => open = f64::max(open, weight),
                "text/plain" | "text/*" => plain = plain.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// What `Content-Type` says of it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// From OpenMetrics to Prometheus's format 0.0.4.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // Under which name it stands depends on the type, which follows.
            help = described.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"
            );
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_who_asks_for_it() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; version=9.0.0", Format::Prometheus),
            ("application/openmetrics-text;q=0, text/plain", Format::Prometheus),
            (
                "text/plain;version=0.0.4, application/openmetrics-text;q=0.1",
                Format::Prometheus,
            ),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn the_older_format() {
        let open = "# HELP turnhook_gaps Gaps.\n# TYPE turnhook_gaps counter\nturnhook_gaps_total{source=\"a # b\"} 1\n\
                    # HELP turnhook_build The program.\n# TYPE turnhook_build info\nturnhook_build_info{version=\"1\"} 1\n\
                    # HELP turnhook_commit_seconds Commits.\n# TYPE turnhook_commit_seconds histogram\n\
                    # UNIT turnhook_commit_seconds seconds\nturnhook_commit_seconds_sum 0.5\n# EOF\n";
        let plain = "# HELP turnhook_gaps_total Gaps.\n# TYPE turnhook_gaps_total counter\n\
                     turnhook_gaps_total{source=\"a # b\"} 1\n\
                     # HELP turnhook_build_info The program.\n# TYPE turnhook_build_info gauge\n\
                     turnhook_build_info{version=\"1\"} 1\n\
                     # HELP turnhook_commit_seconds Commits.\n# TYPE turnhook_commit_seconds histogram\n\
                     turnhook_commit_seconds_sum 0.5\n";
        assert_eq!(to_prometheus(open), plain);
    }
}
