//! What is counted of decisions.

use std::{collections::BTreeMap, sync::Arc};

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};
use turnhook_reducer::{
    event::{EventType, SessionEvent, Unattributed},
    usage::Legs,
};

use crate::metrics::{EndLabels, Metrics, SourceLabels, TO_CLIENTS, TO_PEERS};

/// Counts decisions when they are packed: there may be very many.
#[derive(Clone)]
pub(crate) struct Decided {
    name: String,
    metrics: Arc<Metrics>,
    started: Counter,
    durations: Histogram,
    billable: Counter,
    to_peers: Counter,
    to_clients: Counter,
    unattributed: Counter,
}

impl Decided {
    pub(super) fn new(name: &str, metrics: &Arc<Metrics>) -> Decided {
        let labels = SourceLabels {
            source: name.to_owned(),
        };
        let of = &metrics.sources;
        Decided {
            name: name.to_owned(),
            started: of.sessions_started.get_or_create(&labels).clone(),
            durations: of.session_duration_seconds.get_or_create(&labels).clone(),
            billable: of.billable_bytes.get_or_create(&labels).clone(),
            to_peers: of.relayed(name, TO_PEERS),
            to_clients: of.relayed(name, TO_CLIENTS),
            unattributed: of.unattributed_bytes.get_or_create(&labels).clone(),
            metrics: Arc::clone(metrics),
        }
    }

    pub(crate) fn count(&self, events: &[SessionEvent], unattributed: &[Unattributed]) {
        let mut ends: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
        let (mut started, mut billable, mut to_peers, mut to_clients) = (0, 0_u64, 0_u64, 0_u64);
        for event in events {
            started += u64::from(event.event_type == EventType::Start);
            billable = billable.saturating_add(event.usage_delta.billable_bytes);
            let (up, down) = relayed(event);
            to_peers = to_peers.saturating_add(up);
            to_clients = to_clients.saturating_add(down);
            if let Some(end) = event.end {
                let key = (end.reason.as_str(), end.accuracy.as_str());
                *ends.entry(key).or_default() += 1;
                if let Some(duration) = event.duration_ms {
                    self.durations.observe(duration as f64 / 1000.0);
                }
            }
        }
        for ((reason, accuracy), count) in ends {
            let labels = EndLabels {
                source: self.name.clone(),
                reason,
                accuracy,
            };
            self.metrics
                .sources
                .sessions_ended
                .get_or_create(&labels)
                .inc_by(count);
        }
        let bytes = unattributed
            .iter()
            .fold(0u64, |sum, u| sum.saturating_add(u.usage.billable_bytes));
        for (counter, more) in [
            (&self.started, started),
            (&self.billable, billable),
            (&self.to_peers, to_peers),
            (&self.to_clients, to_clients),
            (&self.unattributed, bytes),
        ] {
            if more > 0 {
                counter.inc_by(more);
            }
        }
    }
}

/// To peers, and to clients. The latter at most: what peers sent, unless clients were sent less.
fn relayed(event: &SessionEvent) -> (u64, u64) {
    let Legs { client, peer } = event.usage_delta.legs;
    if event.peer_leg {
        (peer.sent_bytes, peer.received_bytes.min(client.sent_bytes))
    } else {
        (client.received_bytes, client.sent_bytes)
    }
}
