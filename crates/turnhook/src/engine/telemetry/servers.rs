//! What is kept of the servers of a `direct` source, of whom it turned away, and of when a source was last heard of.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tracing::warn;
use turnhook_reducer::time::Timestamp;
use turnhook_subscriber::signal::TurnAwayReason;

use crate::metrics::{Metrics, ReasonLabels, SourceLabels};

/// One warning a minute for each reason, in milliseconds.
pub(super) const PACE: u64 = 60_000;
/// Lines about servers that come and go, in that time: more are only counted.
const LINES: u32 = 20;
pub(super) struct Servers {
    pub(super) last_message: Gauge,
    pub(super) last_gap: Gauge,
    /// Of a `direct` source: of others nobody knows the servers.
    pub(super) connected: Option<Gauge>,
    pub(super) refused: [Counter; TurnAwayReason::ALL.len()],
    /// When a reason was last warned of, and how many it was since.
    pub(super) warned: [(Option<Timestamp>, u64); TurnAwayReason::ALL.len()],
    pub(super) lines: Pace,
    pub(super) shown: Timestamp,
}

impl Servers {
    pub(super) fn new(name: &str, direct: bool, metrics: &Metrics) -> Servers {
        let labels = SourceLabels {
            source: name.to_owned(),
        };
        let refused = TurnAwayReason::ALL.map(|reason| {
            let labels = ReasonLabels {
                source: name.to_owned(),
                reason: reason.as_str(),
            };
            metrics.sources.logins_refused.get_or_create(&labels).clone()
        });
        Servers {
            last_message: metrics.sources.source_last_message.get_or_create(&labels).clone(),
            last_gap: metrics.sources.last_gap.get_or_create(&labels).clone(),
            connected: direct.then(|| metrics.sources.source_servers.get_or_create(&labels).clone()),
            refused,
            warned: [(None, 0); TurnAwayReason::ALL.len()],
            lines: Pace::default(),
            shown: Timestamp::default(),
        }
    }

    pub(super) fn gap(&self, to: Timestamp) {
        self.last_gap.set(seconds(to));
    }
}

/// A bounded number of lines in a bounded time.
#[derive(Default)]
pub(super) struct Pace {
    since: Timestamp,
    lines: u32,
}

impl Pace {
    /// Whether one more is to be said; the last one that is says that there may be more.
    pub(super) fn allows(&mut self, at: Timestamp, source: &str) -> bool {
        if at.since(self.since) >= PACE {
            *self = Pace { since: at, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines == LINES {
            warn!(
                source,
                "many servers come and go: further ones are not shown for a minute; /status has them"
            );
        }
        self.lines < LINES
    }
}

/// Since the epoch, as Prometheus has times.
pub(super) fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1000).unwrap_or(i64::MAX)
}
