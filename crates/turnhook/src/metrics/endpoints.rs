//! What is counted of endpoints and deliveries.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::{
    counter::Counter,
    family::{Family, MetricConstructor},
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};
use turnhook_reducer::outbox::Next;

use super::families::families;
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

families! {
    /// Of endpoints. Fields are the names without `turnhook_` and `_total`.
    EndpointMetrics {
        deliveries("deliveries"): Family<OutcomeLabels, Counter>, "Attempts to deliver, by outcome";
        delivery_seconds("delivery", Seconds): Family<EndpointLabels, Histogram, RequestBuckets>
            = Family::new_with_constructor(RequestBuckets),
            "How long requests took";
        delivery_age_seconds("delivery_age", Seconds): Family<EndpointLabels, Histogram, AgeBuckets>
            = Family::new_with_constructor(AgeBuckets),
            "How old events were when they were accepted: from the decision to the receiver's 2xx";
        outbox_pending("outbox_pending"): Family<EndpointLabels, Gauge>, "Deliveries neither done nor given up";
        outbox_oldest_seconds("outbox_oldest", Seconds): Family<EndpointLabels, Gauge<f64, AtomicU64>>,
            "Age of the oldest pending delivery";
        dead_letters("dead_letters"): Family<EndpointLabels, Gauge>, "Deliveries given up";
        endpoint_paused("endpoint_paused"): Family<EndpointLabels, Gauge>,
            "1 while nothing is sent to the endpoint until it is resumed";
        endpoint_held("endpoint_held"): Family<EndpointLabels, Gauge>,
            "1 while the endpoint is left alone: it asked for that (Retry-After), or refuses everything";
        endpoint_breaker_open("endpoint_breaker_open"): Family<EndpointLabels, Gauge>,
            "1 while the endpoint fails again and again, and is only tried every few seconds";
    }
}

impl EndpointMetrics {
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
