//! What is counted of endpoints and deliveries.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use turnhook_dispatcher::queue::Next;

use super::labels::{EndpointLabels, OutcomeLabels};

/// From a tenth of a second to three days, after which a delivery is given up by default.
const AGES: [f64; 15] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0,
];

/// From a millisecond to a minute: a local receiver answers in about one, a slow one in many seconds.
#[derive(Clone, Copy, Debug)]
pub struct RequestBuckets;

impl MetricConstructor<Histogram> for RequestBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.001, 2.0, 17))
    }
}

/// How long it took from the decision to the receiver's yes.
#[derive(Clone, Copy, Debug)]
pub struct AgeBuckets;

impl MetricConstructor<Histogram> for AgeBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(AGES)
    }
}

/// Of endpoints. Fields are the names without `turnhook_` and `_total`.
#[derive(Debug)]
pub struct EndpointMetrics {
    /// Attempts, by what became of them.
    pub deliveries: Family<OutcomeLabels, Counter>,
    /// How long requests took.
    pub delivery_seconds: Family<EndpointLabels, Histogram, RequestBuckets>,
    /// How old events were when they were accepted.
    pub delivery_age_seconds: Family<EndpointLabels, Histogram, AgeBuckets>,
    /// Deliveries that are neither done nor given up.
    pub outbox_pending: Family<EndpointLabels, Gauge>,
    /// The age of the oldest of them; 0 if there is none.
    pub outbox_oldest_seconds: Family<EndpointLabels, Gauge<f64, AtomicU64>>,
    /// Deliveries that were given up, until replayed or discarded.
    pub dead_letters: Family<EndpointLabels, Gauge>,
    /// Whether an endpoint is paused: 1 or 0.
    pub endpoint_paused: Family<EndpointLabels, Gauge>,
    /// Whether an endpoint is left alone for a while: 1 or 0.
    pub endpoint_held: Family<EndpointLabels, Gauge>,
    /// Whether an endpoint's circuit breaker is open, or a probe of it under way: 1 or 0.
    pub endpoint_breaker_open: Family<EndpointLabels, Gauge>,
}

impl EndpointMetrics {
    pub(super) fn new(registry: &mut Registry) -> EndpointMetrics {
        let metrics = EndpointMetrics {
            deliveries: Family::default(),
            delivery_seconds: Family::new_with_constructor(RequestBuckets),
            delivery_age_seconds: Family::new_with_constructor(AgeBuckets),
            outbox_pending: Family::default(),
            outbox_oldest_seconds: Family::default(),
            dead_letters: Family::default(),
            endpoint_paused: Family::default(),
            endpoint_held: Family::default(),
            endpoint_breaker_open: Family::default(),
        };
        registry.register(
            "deliveries",
            "Attempts to deliver, by outcome",
            metrics.deliveries.clone(),
        );
        registry.register_with_unit(
            "delivery",
            "How long requests took",
            Unit::Seconds,
            metrics.delivery_seconds.clone(),
        );
        registry.register_with_unit(
            "delivery_age",
            "How old events were when they were accepted: from the decision to the receiver's 2xx",
            Unit::Seconds,
            metrics.delivery_age_seconds.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest",
            "Age of the oldest pending delivery",
            Unit::Seconds,
            metrics.outbox_oldest_seconds.clone(),
        );
        let gauges = [
            (
                "outbox_pending",
                "Deliveries neither done nor given up",
                &metrics.outbox_pending,
            ),
            ("dead_letters", "Deliveries given up", &metrics.dead_letters),
            (
                "endpoint_paused",
                "1 while nothing is sent to the endpoint until it is resumed",
                &metrics.endpoint_paused,
            ),
            (
                "endpoint_held",
                "1 while the endpoint is left alone: it asked for that (Retry-After), or refuses everything",
                &metrics.endpoint_held,
            ),
            (
                "endpoint_breaker_open",
                "1 while the endpoint fails again and again, and is only tried every few seconds",
                &metrics.endpoint_breaker_open,
            ),
        ];
        for (name, help, family) in gauges {
            registry.register(name, help, family.clone());
        }
        metrics
    }

    /// Makes all series of an endpoint, at 0: what is not there before it first counts cannot be seen to rise.
    pub fn make(&self, endpoint: &str) {
        let labels = EndpointLabels {
            endpoint: endpoint.to_owned(),
        };
        for outcome in Next::WORDS {
            let _ = self.deliveries.get_or_create(&OutcomeLabels {
                endpoint: endpoint.to_owned(),
                outcome,
            });
        }
        let _ = self.delivery_seconds.get_or_create(&labels);
        let _ = self.delivery_age_seconds.get_or_create(&labels);
        let _ = self.outbox_oldest_seconds.get_or_create(&labels);
        for family in [
            &self.outbox_pending,
            &self.dead_letters,
            &self.endpoint_paused,
            &self.endpoint_held,
            &self.endpoint_breaker_open,
        ] {
            let _ = family.get_or_create(&labels);
        }
    }
}
