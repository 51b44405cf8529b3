//! From an event to its deliveries: the body, whom it goes to, and on to the dispatcher once committed.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use turnhook_dispatcher::{
    body,
    clock::Clocks,
    config::EndpointConfig,
    dispatcher::Dispatcher,
    filter::Filter,
    include::{Include, included},
    queue,
};
use turnhook_reducer::event::{EventType, SessionEvent};
use turnhook_store::{Delivery, EndpointId, Included, Lanes, NewEvent, Part};

use super::lanes::Handed;

/// What stands in the place of a payload that could not be written.
const UNWRITTEN: &[u8] = br#"{"error":"the payload could not be written: see the log"}"#;

/// Who is told what. Changed as a whole.
#[derive(Clone)]
pub(crate) struct Routes(Arc<RwLock<Arc<Table>>>);

struct Table {
    /// Who wants starts, usages and ends.
    wanting: [Arc<[EndpointId]>; 3],
    /// Those of them who do not hear of everybody.
    filters: HashMap<EndpointId, Filter>,
    /// How much of an event each is sent.
    included: Arc<Included>,
    names: HashMap<EndpointId, Arc<str>>,
}

impl Table {
    fn new(endpoints: &[EndpointConfig], ids: &[EndpointId], included: Arc<Included>) -> Table {
        let wanting = [EventType::Start, EventType::Usage, EventType::End].map(|event_type| {
            let all = endpoints.iter().zip(ids);
            all.filter(|(e, _)| e.events.contains(&event_type))
                .map(|(_, id)| *id)
                .collect()
        });
        let names = ids
            .iter()
            .copied()
            .zip(endpoints.iter().map(|e| Arc::from(e.name.as_str())))
            .collect();
        let filters = endpoints.iter().zip(ids);
        let filters = filters.filter(|(e, _)| e.filter != Filter::default());
        Table {
            wanting,
            filters: filters.map(|(e, id)| (*id, e.filter.clone())).collect(),
            included,
            names,
        }
    }
}

impl Table {
    fn who_hears(&self, event: &SessionEvent, wanting: &Arc<[EndpointId]>) -> Arc<[EndpointId]> {
        let hears = |id: &EndpointId| {
            self.filters
                .get(id)
                .is_none_or(|filter| filter.lets_through(event))
        };
        if self.filters.is_empty() || wanting.iter().all(hears) {
            return Arc::clone(wanting);
        }
        wanting.iter().copied().filter(|id| hears(id)).collect()
    }
}

impl Routes {
    fn now(&self) -> Arc<Table> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How much of an event each endpoint is sent.
    pub(crate) fn included(&self) -> Arc<Included> {
        Arc::clone(&self.now().included)
    }

    /// The number of a configured endpoint.
    pub(crate) fn id_of(&self, endpoint: &str) -> Option<EndpointId> {
        let table = self.now();
        let found = table.names.iter().find(|(_, name)| &***name == endpoint);
        found.map(|(id, _)| *id)
    }
}

pub(crate) struct Outlet {
    routes: Routes,
    dispatcher: Arc<Dispatcher>,
    clocks: Clocks,
    /// Where several nodes share the outbox: whose deliveries this one makes, and what it was handed.
    lanes: AtomicU64,
    handed: Option<Handed>,
}

impl Outlet {
    /// `ids` are the endpoints' numbers in the store, in the same order.
    pub(crate) fn new(
        endpoints: &[EndpointConfig],
        ids: &[EndpointId],
        included: Arc<Included>,
        dispatcher: Arc<Dispatcher>,
        clocks: Clocks,
        shared: bool,
    ) -> Outlet {
        let table = Arc::new(Table::new(endpoints, ids, included));
        Outlet {
            routes: Routes(Arc::new(RwLock::new(table))),
            dispatcher,
            clocks,
            lanes: AtomicU64::new(if shared { Lanes::NONE } else { Lanes::ALL }.0),
            handed: shared.then(Handed::default),
        }
    }

    /// From now on these are told, and no others.
    pub(crate) fn reroute(&self, endpoints: &[EndpointConfig], ids: &[EndpointId], included: Arc<Included>) {
        let table = Arc::new(Table::new(endpoints, ids, included));
        *self.routes.0.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// From now on this node makes the deliveries of these lanes.
    pub(crate) fn set_lanes(&self, lanes: Lanes) {
        self.lanes.store(lanes.0, Ordering::Release);
    }

    pub(crate) fn new_event(&self, event: SessionEvent) -> NewEvent {
        let routes = self.routes.now();
        let [starts, usages, ends] = &routes.wanting;
        let endpoints = match event.event_type {
            EventType::Start => starts,
            EventType::Usage => usages,
            EventType::End => ends,
        };
        let body = body::body(&event);
        let (body, endpoints) = if body.is_empty() {
            // It is in the ledger, and nobody is told of it by something that is signed and says nothing.
            tracing::error!(session = %event.session_id, sequence = event.sequence,
                "an event whose payload could not be written is delivered to nobody");
            (Bytes::from_static(UNWRITTEN), Arc::from([]))
        } else {
            (body, routes.who_hears(&event, endpoints))
        };
        NewEvent {
            body,
            endpoints,
            event,
        }
    }

    /// Hands committed deliveries on. Those of endpoints that are no longer configured stay in the outbox, and those
    /// of lanes that are not this node's are for others.
    pub(crate) fn deliver(&self, mut deliveries: Vec<Delivery>) {
        if let Some(handed) = &self.handed {
            let lanes = Lanes(self.lanes.load(Ordering::Acquire));
            deliveries.retain(|delivery| lanes.contains(Lanes::of(delivery.session_id)));
            handed.keep_new(&mut deliveries);
        }
        let routes = self.routes.now();
        let mut by_endpoint: HashMap<EndpointId, Vec<queue::Delivery>> = HashMap::new();
        for delivery in deliveries {
            by_endpoint.entry(delivery.endpoint).or_default().push(queued(
                delivery,
                &self.clocks,
                &routes.included,
            ));
        }
        for (endpoint, deliveries) in by_endpoint {
            if let Some(name) = routes.names.get(&endpoint) {
                self.dispatcher.offer(name, deliveries);
            }
        }
    }

    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// By which deliveries are made.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// The configured endpoints.
    pub(crate) fn endpoints(&self) -> Vec<(EndpointId, Arc<str>)> {
        let routes = self.routes.now();
        let names = routes.names.iter();
        names.map(|(id, name)| (*id, Arc::clone(name))).collect()
    }
}

/// How much of an event each endpoint is to be sent, for the store.
pub(crate) fn parts_of(endpoints: &[EndpointConfig], ids: &[EndpointId]) -> Vec<(EndpointId, Part)> {
    let part = |endpoint: &EndpointConfig| Part {
        allocations: endpoint.include.allocations,
        addresses: endpoint.include.addresses,
    };
    let all = endpoints.iter().zip(ids);
    all.map(|(endpoint, id)| (*id, part(endpoint))).collect()
}

/// A delivery of the store, as the dispatcher takes it. The store's dates are of the wall clock, which may have been
/// set since: of a retry its distance counts, and what was neither tried nor queued again is due whatever its date.
pub(crate) fn queued(delivery: Delivery, clocks: &Clocks, included: &Included) -> queue::Delivery {
    let body = sent_body(&delivery.body, included.of(delivery.id));
    let untouched = delivery.attempts == 0 && delivery.next_attempt_at <= delivery.timestamp;
    let next_attempt_at = (!untouched).then(|| clocks.to_steady(delivery.next_attempt_at));
    queue::Delivery {
        id: delivery.id.0,
        event_id: delivery.event_id.to_string().into(),
        session: delivery.session_id,
        lane: delivery.session_id,
        sequence: delivery.sequence,
        event_type: delivery.event_type,
        body,
        decided_at: delivery.timestamp,
        sent: delivery.sent,
        attempts: delivery.attempts,
        first_attempt_at: delivery.first_attempt_at.map(|at| clocks.began(at)),
        next_attempt_at,
    }
}

/// As much of an event as the endpoint is sent.
pub(crate) fn sent_body(body: &Bytes, part: Option<Part>) -> Bytes {
    match part {
        None => body.clone(),
        Some(part) => included(
            body,
            Include {
                allocations: part.allocations,
                addresses: part.addresses,
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use turnhook_reducer::{
        event::{EventId, SessionId},
        time::Timestamp,
    };
    use turnhook_store::DeliveryId;

    use super::*;

    const DAY: u64 = 86_400_000;
    const NOW: Timestamp = Timestamp(20_000 * DAY);

    fn stored(attempts: u32, first: Option<Timestamp>, next: Timestamp) -> Delivery {
        Delivery {
            id: DeliveryId(1),
            endpoint: EndpointId(1),
            event_id: EventId([0; 16]),
            event_type: EventType::Start,
            session_id: SessionId([0; 16]),
            sequence: 0,
            timestamp: Timestamp(NOW.0 + DAY),
            body: Default::default(),
            sent: None,
            attempts,
            first_attempt_at: first,
            next_attempt_at: next,
        }
    }

    /// While the wall clock was a day ahead an event was committed; it is back, and the process was started anew.
    #[test]
    fn what_was_dated_by_a_clock_that_was_ahead_is_due_now_and_young() {
        let clocks = Clocks::new(|| NOW, || Timestamp(7_000_000));
        let fresh = queued(stored(0, None, NOW.plus(DAY)), &clocks, &Included::default());
        assert_eq!((fresh.id, fresh.next_attempt_at), (DeliveryId(1).0, None));

        let clocks = clocks.with_horizon(|| NOW);
        let tried = queued(
            stored(1, Some(NOW.plus(DAY)), NOW.plus(1_000)),
            &clocks,
            &Included::default(),
        );
        assert_eq!(tried.first_attempt_at, Some(Timestamp(7_000_000)));
        assert_eq!(tried.next_attempt_at, Some(Timestamp(7_001_000)));

        let old = queued(
            stored(9, Some(Timestamp(NOW.0 - 1_000)), NOW),
            &clocks,
            &Included::default(),
        );
        assert_eq!(old.first_attempt_at, Some(Timestamp(6_999_000)));
    }

    /// A replay at a rate: not before its turn.
    #[test]
    fn what_was_queued_again_waits_for_its_turn() {
        let clocks = Clocks::new(|| NOW, || NOW);
        let replayed = queued(stored(0, None, NOW.plus(2 * DAY)), &clocks, &Included::default());
        assert_eq!(replayed.next_attempt_at, Some(NOW.plus(2 * DAY)));
    }
}
