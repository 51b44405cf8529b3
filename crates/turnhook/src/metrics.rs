//! Everything that is counted. Labels are names from the configuration and words from a fixed list: no
//! username, realm or address is ever one.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};
use turnhook_reducer::message::{Kind, Leg};

/// `{source}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabels {
    /// Its name in the configuration.
    pub source: String,
}

/// `{source,kind}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EventLabels {
    /// Its name in the configuration.
    pub source: String,
    /// Which of coturn's messages.
    pub kind: MessageKind,
}

/// `{source,reason}`; the reason is one of a fixed list.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Its name in the configuration.
    pub source: String,
    /// Why.
    pub reason: &'static str,
}

/// `{source,reason,accuracy}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EndLabels {
    /// Its name in the configuration.
    pub source: String,
    /// `end_reason`.
    pub reason: &'static str,
    /// `accuracy`.
    pub accuracy: &'static str,
}

/// `{endpoint}`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EndpointLabels {
    /// Its name in the configuration.
    pub endpoint: String,
}

/// `{endpoint,outcome}`; the outcome is one of a fixed list.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// Its name in the configuration.
    pub endpoint: String,
    /// What became of an attempt.
    pub outcome: &'static str,
}

/// The kinds of coturn's messages, as `turnhook_events_total` tells them apart.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// `status`: `new …`.
    New,
    /// `status`: `refreshed …`.
    Refreshed,
    /// `status`: `deleted`.
    Deleted,
    /// `traffic`.
    Traffic,
    /// `traffic/peer`.
    TrafficPeer,
    /// `total_traffic`.
    TotalTraffic,
    /// `total_traffic/peer`.
    TotalTrafficPeer,
}

impl MessageKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [MessageKind; 7] = [
        MessageKind::New,
        MessageKind::Refreshed,
        MessageKind::Deleted,
        MessageKind::Traffic,
        MessageKind::TrafficPeer,
        MessageKind::TotalTraffic,
        MessageKind::TotalTrafficPeer,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MessageKind::New => "new",
            MessageKind::Refreshed => "refreshed",
            MessageKind::Deleted => "deleted",
            MessageKind::Traffic => "traffic",
            MessageKind::TrafficPeer => "traffic_peer",
            MessageKind::TotalTraffic => "total_traffic",
            MessageKind::TotalTrafficPeer => "total_traffic_peer",
        }
    }
}

impl From<&Kind<'_>> for MessageKind {
    fn from(kind: &Kind<'_>) -> MessageKind {
        match kind {
            Kind::New(_) => MessageKind::New,
            Kind::Refreshed(_) => MessageKind::Refreshed,
            Kind::Deleted => MessageKind::Deleted,
            Kind::Traffic(Leg::Client, _) => MessageKind::Traffic,
            Kind::Traffic(Leg::Peer, _) => MessageKind::TrafficPeer,
            Kind::TotalTraffic(Leg::Client, _) => MessageKind::TotalTraffic,
            Kind::TotalTraffic(Leg::Peer, _) => MessageKind::TotalTrafficPeer,
        }
    }
}

impl EncodeLabelValue for MessageKind {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// From a hundred microseconds to a minute: a local receiver answers in less than one, a slow one in many
/// seconds.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryBuckets;

impl MetricConstructor<Histogram> for DeliveryBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.0005, 2.0, 17))
    }
}

/// All metrics. Fields are the names without `turnhook_` and `_total`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// coturn's messages that were understood.
    pub events: Family<EventLabels, Counter>,
    /// Messages that were not: foreign, or not as coturn writes them.
    pub events_ignored: Family<ReasonLabels, Counter>,
    /// Times in which messages may have been missed.
    pub gaps: Family<ReasonLabels, Counter>,
    /// Allocations that are open or closing.
    pub open_allocations: Family<SourceLabels, Gauge>,
    /// Sessions that have not ended.
    pub open_sessions: Family<SourceLabels, Gauge>,
    /// Sessions told as ended.
    pub sessions_ended: Family<EndLabels, Counter>,
    /// Bytes that were heard of and are told in no session.
    pub unattributed_bytes: Family<SourceLabels, Counter>,
    /// Relay threads of coturn that fell silent (COTURN.md, trap 11), and what was done.
    pub wedged_threads: Family<ReasonLabels, Counter>,
    /// Whether the source hears: 1 or 0.
    pub source_up: Family<SourceLabels, Gauge>,
    /// Whether this node leads a source.
    pub source_leads: Family<SourceLabels, Gauge>,
    /// Attempts, by what became of them.
    pub deliveries: Family<OutcomeLabels, Counter>,
    /// How long requests took.
    pub delivery_seconds: Family<EndpointLabels, Histogram, DeliveryBuckets>,
    /// Deliveries that are neither done nor given up.
    pub outbox_pending: Family<EndpointLabels, Gauge>,
    /// The age of the oldest of them; 0 if there is none.
    pub outbox_oldest_seconds: Family<EndpointLabels, Gauge<f64, AtomicU64>>,
    /// Deliveries that were given up, until replayed or discarded.
    pub dead_letters: Family<EndpointLabels, Gauge>,
    /// How long commits took, sync to disk included.
    pub commit_seconds: Histogram,
    /// Commits that failed.
    pub commit_errors: Counter,
    /// Whether the store can be used: 1 or 0.
    pub store_up: Gauge,
    /// Broken invariants of our own.
    pub internal_errors: Counter,
    /// The longest time for which a source's task worked without giving others their turn.
    pub source_longest_slice_seconds: Family<SourceLabels, Gauge<f64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("turnhook"),
            events: Family::default(),
            events_ignored: Family::default(),
            gaps: Family::default(),
            open_allocations: Family::default(),
            open_sessions: Family::default(),
            sessions_ended: Family::default(),
            unattributed_bytes: Family::default(),
            wedged_threads: Family::default(),
            source_up: Family::default(),
            source_leads: Family::default(),
            deliveries: Family::default(),
            delivery_seconds: Family::new_with_constructor(DeliveryBuckets),
            outbox_pending: Family::default(),
            outbox_oldest_seconds: Family::default(),
            dead_letters: Family::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            commit_errors: Counter::default(),
            store_up: Gauge::default(),
            internal_errors: Counter::default(),
            source_longest_slice_seconds: Family::default(),
        };
        let r = &mut metrics.registry;
        r.register(
            "events",
            "Messages of coturn that were understood",
            metrics.events.clone(),
        );
        r.register(
            "events_ignored",
            "Messages that were passed over",
            metrics.events_ignored.clone(),
        );
        r.register(
            "gaps",
            "Times in which messages may have been missed",
            metrics.gaps.clone(),
        );
        r.register(
            "open_allocations",
            "Allocations that are open or closing",
            metrics.open_allocations.clone(),
        );
        r.register(
            "open_sessions",
            "Sessions that have not ended",
            metrics.open_sessions.clone(),
        );
        r.register(
            "sessions_ended",
            "Sessions told as ended",
            metrics.sessions_ended.clone(),
        );
        r.register(
            "unattributed_bytes",
            "Bytes on record that no session tells of",
            metrics.unattributed_bytes.clone(),
        );
        r.register(
            "wedged_threads",
            "Relay threads of coturn that fell silent",
            metrics.wedged_threads.clone(),
        );
        r.register(
            "source_up",
            "Whether the source hears coturn",
            metrics.source_up.clone(),
        );
        r.register(
            "source_leads",
            "Whether this node tells of the source, and does not just listen along",
            metrics.source_leads.clone(),
        );
        r.register(
            "deliveries",
            "Attempts to deliver, by outcome",
            metrics.deliveries.clone(),
        );
        r.register_with_unit(
            "delivery",
            "How long requests took",
            Unit::Seconds,
            metrics.delivery_seconds.clone(),
        );
        r.register(
            "outbox_pending",
            "Deliveries neither done nor given up",
            metrics.outbox_pending.clone(),
        );
        r.register_with_unit(
            "outbox_oldest",
            "Age of the oldest pending delivery",
            Unit::Seconds,
            metrics.outbox_oldest_seconds.clone(),
        );
        r.register(
            "dead_letters",
            "Deliveries given up",
            metrics.dead_letters.clone(),
        );
        r.register_with_unit(
            "commit",
            "How long commits to the store took",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        r.register(
            "commit_errors",
            "Commits to the store that failed",
            metrics.commit_errors.clone(),
        );
        r.register(
            "store_up",
            "Whether the store can be used",
            metrics.store_up.clone(),
        );
        r.register(
            "internal_errors",
            "Broken invariants of turnhook's own: see the log",
            metrics.internal_errors.clone(),
        );
        r.register_with_unit(
            "source_longest_slice",
            "The longest time for which a source's task worked without a pause",
            Unit::Seconds,
            metrics.source_longest_slice_seconds.clone(),
        );
        r.register(
            "build",
            "The running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        metrics
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

    /// In the OpenMetrics text format, which Prometheus reads.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.registry) {
            turnhook_reducer::internal_error!("the metrics cannot be written: {error}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are part of the contract.
    #[test]
    fn every_metric_has_its_name() {
        let metrics = Metrics::new();
        let source = || "eu-1".to_owned();
        let endpoint = EndpointLabels {
            endpoint: "billing".to_owned(),
        };
        metrics.events_of("eu-1")[MessageKind::Deleted as usize].inc();
        metrics
            .events_ignored
            .get_or_create(&ReasonLabels {
                source: source(),
                reason: "foreign",
            })
            .inc();
        metrics
            .gaps
            .get_or_create(&ReasonLabels {
                source: source(),
                reason: "reconnect",
            })
            .inc();
        metrics
            .open_allocations
            .get_or_create(&SourceLabels { source: source() })
            .set(3);
        metrics
            .open_sessions
            .get_or_create(&SourceLabels { source: source() })
            .set(2);
        metrics
            .sessions_ended
            .get_or_create(&EndLabels {
                source: source(),
                reason: "closed",
                accuracy: "exact",
            })
            .inc();
        metrics
            .unattributed_bytes
            .get_or_create(&SourceLabels { source: source() })
            .inc_by(7);
        metrics
            .deliveries
            .get_or_create(&OutcomeLabels {
                endpoint: "billing".to_owned(),
                outcome: "delivered",
            })
            .inc();
        metrics.delivery_seconds.get_or_create(&endpoint).observe(0.01);
        metrics.outbox_pending.get_or_create(&endpoint).set(4);
        metrics.outbox_oldest_seconds.get_or_create(&endpoint).set(1.5);
        metrics.dead_letters.get_or_create(&endpoint).set(1);
        metrics.commit_seconds.observe(0.002);
        metrics.store_up.set(1);
        let text = metrics.encode();
        for line in [
            "turnhook_events_total{source=\"eu-1\",kind=\"deleted\"} 1",
            "turnhook_events_ignored_total{source=\"eu-1\",reason=\"foreign\"} 1",
            "turnhook_gaps_total{source=\"eu-1\",reason=\"reconnect\"} 1",
            "turnhook_open_allocations{source=\"eu-1\"} 3",
            "turnhook_open_sessions{source=\"eu-1\"} 2",
            "turnhook_sessions_ended_total{source=\"eu-1\",reason=\"closed\",accuracy=\"exact\"} 1",
            "turnhook_unattributed_bytes_total{source=\"eu-1\"} 7",
            "turnhook_deliveries_total{endpoint=\"billing\",outcome=\"delivered\"} 1",
            "turnhook_delivery_seconds_count{endpoint=\"billing\"} 1",
            "turnhook_outbox_pending{endpoint=\"billing\"} 4",
            "turnhook_outbox_oldest_seconds{endpoint=\"billing\"} 1.5",
            "turnhook_dead_letters{endpoint=\"billing\"} 1",
            "turnhook_commit_seconds_count 1",
            "turnhook_store_up 1",
            "turnhook_internal_errors_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
    }
}
