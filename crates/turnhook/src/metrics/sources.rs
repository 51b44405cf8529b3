//! What is counted of sources and sessions.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use turnhook_reducer::{
    event::{Accuracy, CloseReason},
    source::GapReason,
};
use turnhook_subscriber::{decode::Refusal, signal::TurnAwayReason};

use super::labels::{DirectionLabels, EndLabels, EventLabels, MessageKind, ReasonLabels, SourceLabels};

/// From a second to a day: calls take minutes, and a session that is never ended by anybody is cut after a day.
const DURATIONS: [f64; 13] = [
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 86_400.0,
];

/// What is passed over besides what cannot be decoded.
pub const IGNORED: [&str; 3] = ["bad_key", "realm", "too_many_allocations"];

/// What becomes of a relay thread of coturn that fell silent.
pub const WEDGES: [&str; 5] = ["silent", "closed", "none_fits", "ambiguous", "unavailable"];

/// How long sessions lasted.
#[derive(Clone, Copy, Debug)]
pub struct DurationBuckets;

impl MetricConstructor<Histogram> for DurationBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(DURATIONS)
    }
}

/// Of sources. Fields are the names without `turnhook_` and `_total`.
#[derive(Debug)]
pub struct SourceMetrics {
    /// coturn's messages that were understood.
    pub events: Family<EventLabels, Counter>,
    /// Messages that were not: foreign, or not as coturn writes them.
    pub events_ignored: Family<ReasonLabels, Counter>,
    /// Times in which messages may have been missed.
    pub gaps: Family<ReasonLabels, Counter>,
    /// Where the last gap ended, in seconds since the epoch; 0 if none is on record.
    pub last_gap: Family<SourceLabels, Gauge>,
    /// Allocations of which more was counted than their totals say.
    pub overcounted: Family<SourceLabels, Counter>,
    /// Reports of more than 4096 packets.
    pub late_reports: Family<SourceLabels, Counter>,
    /// Messages that bore another realm than their allocation.
    pub switched_realms: Family<SourceLabels, Counter>,
    /// By how much the wall clock is ahead of the time that never goes back.
    pub wall_clock_ahead_seconds: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    /// Allocations that are open or closing.
    pub open_allocations: Family<SourceLabels, Gauge>,
    /// Sessions that have not ended.
    pub open_sessions: Family<SourceLabels, Gauge>,
    /// Sessions told as begun.
    pub sessions_started: Family<SourceLabels, Counter>,
    /// Sessions told as ended.
    pub sessions_ended: Family<EndLabels, Counter>,
    /// How long the ended ones lasted.
    pub session_duration_seconds: Family<SourceLabels, Histogram, DurationBuckets>,
    /// Bytes to bill that were told.
    pub billable_bytes: Family<SourceLabels, Counter>,
    /// Bytes that were told as relayed, whatever the rule for billing.
    pub relayed_bytes: Family<DirectionLabels, Counter>,
    /// Bytes that were heard of and are told in no session.
    pub unattributed_bytes: Family<SourceLabels, Counter>,
    /// Relay threads of coturn that fell silent, and what was done.
    pub wedged_threads: Family<ReasonLabels, Counter>,
    /// Whether the source hears: 1 or 0.
    pub source_up: Family<SourceLabels, Gauge>,
    /// Whether this node leads a source.
    pub source_leads: Family<SourceLabels, Gauge>,
    /// Servers of a `direct` source that are connected.
    pub source_servers: Family<SourceLabels, Gauge>,
    /// When a source last received a message, in seconds since the epoch; 0 if it has not.
    pub source_last_message: Family<SourceLabels, Gauge>,
    /// Connections that a `direct` source turned away.
    pub logins_refused: Family<ReasonLabels, Counter>,
    /// The longest time for which a source's task worked without giving others their turn.
    pub source_longest_slice_seconds: Family<SourceLabels, Gauge<f64, AtomicU64>>,
}

impl SourceMetrics {
    pub(super) fn new(registry: &mut Registry) -> SourceMetrics {
        let metrics = SourceMetrics {
            events: Family::default(),
            events_ignored: Family::default(),
            gaps: Family::default(),
            last_gap: Family::default(),
            overcounted: Family::default(),
            late_reports: Family::default(),
            switched_realms: Family::default(),
            wall_clock_ahead_seconds: Family::default(),
            open_allocations: Family::default(),
            open_sessions: Family::default(),
            sessions_started: Family::default(),
            sessions_ended: Family::default(),
            session_duration_seconds: Family::new_with_constructor(DurationBuckets),
            billable_bytes: Family::default(),
            relayed_bytes: Family::default(),
            unattributed_bytes: Family::default(),
            wedged_threads: Family::default(),
            source_up: Family::default(),
            source_leads: Family::default(),
            source_servers: Family::default(),
            source_last_message: Family::default(),
            logins_refused: Family::default(),
            source_longest_slice_seconds: Family::default(),
        };
        metrics.register_counters(registry);
        metrics.register_gauges(registry);
        metrics
    }

    fn register_counters(&self, registry: &mut Registry) {
        let by_source = [
            (
                "overcounted",
                "Allocations of which more was counted than coturn's totals say",
                &self.overcounted,
            ),
            (
                "late_reports",
                "Reports of more than 4096 packets: a TCP relay, or a flood by strangers",
                &self.late_reports,
            ),
            (
                "switched_realms",
                "Messages that bore another realm than their allocation, and were counted for its own",
                &self.switched_realms,
            ),
            (
                "sessions_started",
                "Sessions told as begun",
                &self.sessions_started,
            ),
            (
                "billable_bytes",
                "Bytes to bill, as events tell them: they rise with each event of a session",
                &self.billable_bytes,
            ),
            (
                "unattributed_bytes",
                "Bytes on record that no session tells of",
                &self.unattributed_bytes,
            ),
        ];
        for (name, help, family) in by_source {
            registry.register(name, help, family.clone());
        }
        let by_reason = [
            (
                "events_ignored",
                "Messages that were passed over",
                &self.events_ignored,
            ),
            ("gaps", "Times in which messages may have been missed", &self.gaps),
            (
                "wedged_threads",
                "Relay threads of coturn that fell silent",
                &self.wedged_threads,
            ),
            (
                "logins_refused",
                "Connections that a direct source turned away",
                &self.logins_refused,
            ),
        ];
        for (name, help, family) in by_reason {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "events",
            "Messages of coturn that were understood",
            self.events.clone(),
        );
        registry.register(
            "sessions_ended",
            "Sessions told as ended",
            self.sessions_ended.clone(),
        );
        registry.register_with_unit(
            "session_duration",
            "How long sessions lasted, by their end",
            Unit::Seconds,
            self.session_duration_seconds.clone(),
        );
        registry.register(
            "relayed_bytes",
            "Bytes relayed, as events tell them, whatever the rule for billing",
            self.relayed_bytes.clone(),
        );
    }

    fn register_gauges(&self, registry: &mut Registry) {
        let plain = [
            (
                "open_allocations",
                "Allocations that are open or closing",
                &self.open_allocations,
            ),
            (
                "open_sessions",
                "Sessions that have not ended",
                &self.open_sessions,
            ),
            ("source_up", "Whether the source hears coturn", &self.source_up),
            (
                "source_leads",
                "Whether this node tells of the source, and does not just listen along",
                &self.source_leads,
            ),
            (
                "source_servers",
                "Servers that are connected to a direct source",
                &self.source_servers,
            ),
        ];
        for (name, help, family) in plain {
            registry.register(name, help, family.clone());
        }
        let times = [
            (
                "source_last_message_timestamp",
                "When a message of coturn was last received; 0 if none was since the start",
                &self.source_last_message,
            ),
            (
                "last_gap_timestamp",
                "Where the last gap ended; 0 if there was none in the last day, nor since the start",
                &self.last_gap,
            ),
        ];
        for (name, help, family) in times {
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        }
        let seconds = [
            (
                "wall_clock_ahead",
                "By how much the wall clock is ahead of the time that never goes back (negative: it was ahead before)",
                &self.wall_clock_ahead_seconds,
            ),
            (
                "source_longest_slice",
                "The longest time for which a source's task worked without a pause",
                &self.source_longest_slice_seconds,
            ),
        ];
        for (name, help, family) in seconds {
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        }
    }

    /// Makes all series of a source, at 0: what is not there before it first counts cannot be seen to rise. `direct`
    /// and `redis` sources have some of their own.
    pub fn make(&self, source: &str, direct: bool) {
        let labels = SourceLabels {
            source: source.to_owned(),
        };
        let _ = self.events_of(source);
        for family in [
            &self.overcounted,
            &self.late_reports,
            &self.switched_realms,
            &self.sessions_started,
            &self.billable_bytes,
            &self.unattributed_bytes,
        ] {
            let _ = family.get_or_create(&labels);
        }
        for family in [
            &self.open_allocations,
            &self.open_sessions,
            &self.source_up,
            &self.source_leads,
            &self.source_last_message,
            &self.last_gap,
        ] {
            let _ = family.get_or_create(&labels);
        }
        let _ = self.wall_clock_ahead_seconds.get_or_create(&labels);
        let _ = self.source_longest_slice_seconds.get_or_create(&labels);
        let _ = self.session_duration_seconds.get_or_create(&labels);
        for direction in [TO_PEERS, TO_CLIENTS] {
            let _ = self.relayed(source, direction);
        }
        for reason in CloseReason::ALL.iter().copied() {
            for accuracy in Accuracy::ALL {
                let _ = self.sessions_ended.get_or_create(&EndLabels {
                    source: source.to_owned(),
                    reason: reason.as_str(),
                    accuracy: accuracy.as_str(),
                });
            }
        }
        let by_reason = |family: &Family<ReasonLabels, Counter>,
                         reasons: &mut dyn Iterator<Item = &'static str>| {
            for reason in reasons {
                let _ = family.get_or_create(&ReasonLabels {
                    source: source.to_owned(),
                    reason,
                });
            }
        };
        by_reason(
            &self.gaps,
            &mut GapReason::ALL.iter().map(|reason| reason.as_str()),
        );
        let refusals = Refusal::ALL.iter().map(|refusal| refusal.as_str());
        by_reason(&self.events_ignored, &mut refusals.chain(IGNORED));
        if direct {
            let _ = self.source_servers.get_or_create(&labels);
            let reasons = &mut TurnAwayReason::ALL.iter().map(|reason| reason.as_str());
            by_reason(&self.logins_refused, reasons);
        } else {
            by_reason(&self.wedged_threads, &mut WEDGES.into_iter());
        }
    }

    /// A source's counters by kind, looked up once: the reading of messages does not look up labels.
    #[must_use]
    pub fn events_of(&self, source: &str) -> [Counter; MessageKind::ALL.len()] {
        MessageKind::ALL.map(|kind| {
            self.events
                .get_or_create(&EventLabels {
                    source: source.to_owned(),
                    kind,
                })
                .clone()
        })
    }

    /// A source's counter of bytes that went there.
    #[must_use]
    pub fn relayed(&self, source: &str, direction: &'static str) -> Counter {
        self.relayed_bytes
            .get_or_create(&DirectionLabels {
                source: source.to_owned(),
                direction,
            })
            .clone()
    }
}

/// What clients sent, and peers were sent.
pub const TO_PEERS: &str = "to_peers";
/// What peers sent, and went on to clients.
pub const TO_CLIENTS: &str = "to_clients";
