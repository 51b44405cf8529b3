//! What is counted of sources and sessions.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::{
    counter::Counter,
    family::{Family, MetricConstructor},
    gauge::Gauge,
    histogram::Histogram,
};
use turnhook_reducer::{
    event::{Accuracy, CloseReason},
    source::GapReason,
};
use turnhook_subscriber::{decode::Refusal, signal::TurnAwayReason};

use super::families::families;
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

families! {
    /// Of sources. Fields are the names without `turnhook_` and `_total`.
    SourceMetrics {
        events("events"): Family<EventLabels, Counter>, "Messages of coturn that were understood";
        events_ignored("events_ignored"): Family<ReasonLabels, Counter>, "Messages that were passed over";
        gaps("gaps"): Family<ReasonLabels, Counter>, "Times in which messages may have been missed";
        last_gap("last_gap_timestamp", Seconds): Family<SourceLabels, Gauge>,
            "Where the last gap ended; 0 if there was none in the last day, nor since the start";
        overcounted("overcounted"): Family<SourceLabels, Counter>,
            "Allocations of which more was counted than coturn's totals say";
        late_reports("late_reports"): Family<SourceLabels, Counter>,
            "Reports of more than 4096 packets: a TCP relay, or a flood by strangers";
        switched_realms("switched_realms"): Family<SourceLabels, Counter>,
            "Messages that bore another realm than their allocation, and were counted for its own";
        wall_clock_ahead_seconds("wall_clock_ahead", Seconds): Family<SourceLabels, Gauge<f64, AtomicU64>>,
            "By how much the wall clock is ahead of the time that never goes back (negative: it was ahead before)";
        open_allocations("open_allocations"): Family<SourceLabels, Gauge>, "Allocations that are open or closing";
        open_sessions("open_sessions"): Family<SourceLabels, Gauge>, "Sessions that have not ended";
        sessions_started("sessions_started"): Family<SourceLabels, Counter>, "Sessions that have started";
        sessions_ended("sessions_ended"): Family<EndLabels, Counter>, "Sessions that have ended";
        session_duration_seconds("session_duration", Seconds): Family<SourceLabels, Histogram, DurationBuckets>
            = Family::new_with_constructor(DurationBuckets),
            "How long sessions lasted, by their end";
        billable_bytes("billable_bytes"): Family<SourceLabels, Counter>,
            "Bytes to bill, as events have them: they rise with each event of a session";
        relayed_bytes("relayed_bytes"): Family<DirectionLabels, Counter>,
            "Bytes relayed, as events have them, whatever the rule for billing";
        unattributed_bytes("unattributed_bytes"): Family<SourceLabels, Counter>,
            "Bytes on record that no session bills";
        wedged_threads("wedged_threads"): Family<ReasonLabels, Counter>,
            "Relay threads of coturn that fell silent";
        source_up("source_up"): Family<SourceLabels, Gauge>, "Whether the source hears coturn";
        source_leads("source_leads"): Family<SourceLabels, Gauge>,
            "Whether this node leads the source, and does not just listen along";
        source_servers("source_servers"): Family<SourceLabels, Gauge>,
            "Servers that are connected to a direct source";
        source_last_message("source_last_message_timestamp", Seconds): Family<SourceLabels, Gauge>,
            "When a message of coturn was last received; 0 if none was since the start";
        logins_refused("logins_refused"): Family<ReasonLabels, Counter>,
            "Connections that a direct source turned away";
        source_longest_slice_seconds("source_longest_slice", Seconds): Family<SourceLabels, Gauge<f64, AtomicU64>>,
            "The longest time for which a source's task worked without a pause";
        event_queue_bytes("event_queue_bytes"): Family<SourceLabels, Gauge>,
            "Bytes of messages that were received and wait to be looked at";
        event_queue_capacity_bytes("event_queue_capacity_bytes"): Family<SourceLabels, Gauge>,
            "How many may wait: what comes then is given up, as a gap (overflow)";
    }
}

impl SourceMetrics {
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
            &self.event_queue_bytes,
            &self.event_queue_capacity_bytes,
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

    /// How many bytes of messages may wait.
    pub fn may_wait(&self, source: &str, bytes: usize) {
        let source = source.to_owned();
        let capacity = self
            .event_queue_capacity_bytes
            .get_or_create(&SourceLabels { source });
        capacity.set(i64::try_from(bytes).unwrap_or(i64::MAX));
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
