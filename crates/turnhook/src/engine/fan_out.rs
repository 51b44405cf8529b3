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
    body, clock::Clocks, config::EndpointConfig, dispatcher::Dispatcher, filter::Filter, include::included,
    provider::account::Account,
};
use turnhook_reducer::{
    event::{EventType, SessionEvent},
    outbox::{Delivery, DeliveryId, EndpointId, Include},
    time::Timestamp,
};
use turnhook_store::{Commit, Included, Lanes, NewEvent};

use super::{enforce::QuotaTap, handed::Handed};

/// What stands in the place of a payload that could not be written.
const UNWRITTEN: &[u8] = br#"{"error":"the payload could not be written: see the log"}"#;

/// Who is sent what, and by which clocks. The table is changed as a whole.
#[derive(Clone)]
pub(crate) struct Routes {
    table: Arc<RwLock<Arc<Table>>>,
    clocks: Clocks,
}

struct Table {
    /// Who wants what, in the order of [`EventType::ALL`].
    wanting: [Arc<[EndpointId]>; EventType::ALL.len()],
    /// Those of them who do not hear of everything.
    choosy: HashMap<EndpointId, (Filter, Option<Arc<Account>>)>,
    /// How much of an event each is sent.
    included: Arc<Included>,
    names: HashMap<EndpointId, Arc<str>>,
}

impl Table {
    fn new(endpoints: &[EndpointConfig], ids: &[EndpointId], included: Arc<Included>) -> Table {
        let wanting = EventType::ALL.map(|event_type| {
            let takes = |e: &EndpointConfig| {
                let account = e.account.as_ref();
                event_type.is_of_session() || account.is_none_or(|a| a.product.takes_user_events())
            };
            let all = endpoints.iter().zip(ids);
            all.filter(|(e, _)| e.events.contains(&event_type) && takes(e))
                .map(|(_, id)| *id)
                .collect()
        });
        let names = ids
            .iter()
            .copied()
            .zip(endpoints.iter().map(|e| Arc::from(e.name.as_str())))
            .collect();
        let choosy = endpoints.iter().zip(ids);
        let choosy = choosy.filter(|(e, _)| e.filter != Filter::default() || e.account.is_some());
        Table {
            wanting,
            choosy: choosy
                .map(|(e, id)| (*id, (e.filter.clone(), e.account.clone())))
                .collect(),
            included,
            names,
        }
    }
}

impl Table {
    fn wanting(&self, event_type: EventType) -> Option<&Arc<[EndpointId]>> {
        let place = EventType::ALL.iter().position(|known| *known == event_type)?;
        self.wanting.get(place)
    }

    fn who_hears(&self, event: &SessionEvent, wanting: &Arc<[EndpointId]>) -> Arc<[EndpointId]> {
        let hears = |id: &EndpointId| {
            self.choosy.get(id).is_none_or(|(filter, account)| {
                filter.lets_through(event)
                    && account.as_ref().is_none_or(|account| !account.never_bills(event))
            })
        };
        if self.choosy.is_empty() || wanting.iter().all(hears) {
            return Arc::clone(wanting);
        }
        wanting.iter().copied().filter(|id| hears(id)).collect()
    }
}

/// Who hears of users, as it is configured at one moment.
pub(crate) struct OfUsers(Arc<Table>);

impl OfUsers {
    /// Whether nobody wants events of users.
    pub(crate) fn is_nobody(&self) -> bool {
        EventType::OF_USERS.iter().all(|of| self.wanting(*of).is_empty())
    }

    /// Who wants events of a type.
    pub(crate) fn wanting(&self, event_type: EventType) -> &[EndpointId] {
        self.0.wanting(event_type).map_or(&[], |ids| ids)
    }

    /// Which users an endpoint hears of; `None`: of all.
    pub(crate) fn filter(&self, endpoint: EndpointId) -> Option<&Filter> {
        self.0.choosy.get(&endpoint).map(|(filter, _)| filter)
    }
}

impl Routes {
    /// `ids` are the endpoints' numbers in the store, in the same order.
    pub(crate) fn new(
        endpoints: &[EndpointConfig],
        ids: &[EndpointId],
        included: Arc<Included>,
        clocks: Clocks,
    ) -> Routes {
        let table = Arc::new(Table::new(endpoints, ids, included));
        Routes {
            table: Arc::new(RwLock::new(table)),
            clocks,
        }
    }

    fn now(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How much of an event each endpoint is sent.
    pub(crate) fn included(&self) -> Arc<Included> {
        Arc::clone(&self.now().included)
    }

    /// By which deliveries are made.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// What the wall clock says.
    pub(crate) fn wall(&self) -> Timestamp {
        self.clocks.wall()
    }

    /// The number of a configured endpoint.
    pub(crate) fn id_of(&self, endpoint: &str) -> Option<EndpointId> {
        let table = self.now();
        let found = table.names.iter().find(|(_, name)| &***name == endpoint);
        found.map(|(id, _)| *id)
    }
}

pub(crate) struct FanOut {
    routes: Routes,
    dispatcher: Arc<Dispatcher>,
    /// Where several nodes share the outbox: whose deliveries this one makes, and what it was handed.
    lanes: AtomicU64,
    handed: Option<Handed>,
    /// By which quotas are kept.
    counted: Option<QuotaTap>,
}

impl FanOut {
    /// Where the outbox is `shared`, other nodes have parts in it.
    pub(crate) fn new(routes: Routes, dispatcher: Arc<Dispatcher>, shared: bool) -> FanOut {
        FanOut {
            routes,
            dispatcher,
            lanes: AtomicU64::new(if shared { Lanes::NONE } else { Lanes::ALL }.0),
            handed: shared.then(Handed::default),
            counted: None,
        }
    }

    /// What is committed is counted, too.
    pub(crate) fn counting(mut self, by: QuotaTap) -> FanOut {
        self.counted = Some(by);
        self
    }

    /// A commit is on the disk.
    pub(crate) fn committed(&self, commit: &Arc<Commit>) {
        if let Some(by) = &self.counted {
            by.committed(commit);
        }
    }

    /// From now on these are sent events, and no others.
    pub(crate) fn reroute(&self, endpoints: &[EndpointConfig], ids: &[EndpointId], included: Arc<Included>) {
        let table = Arc::new(Table::new(endpoints, ids, included));
        *self.routes.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// From now on this node makes the deliveries of these lanes.
    pub(crate) fn set_lanes(&self, lanes: Lanes) {
        self.lanes.store(lanes.0, Ordering::Release);
    }

    pub(crate) fn new_event(&self, event: SessionEvent) -> NewEvent {
        let routes = self.routes.now();
        let endpoints = routes.wanting(event.event_type);
        let body = body::body(&event);
        let (body, endpoints) = if body.is_empty() {
            // It is in the ledger, and nobody is sent something that is signed and says nothing.
            tracing::error!(session = %event.session_id, sequence = event.sequence,
                "an event whose payload could not be written is delivered to nobody");
            (Bytes::from_static(UNWRITTEN), Arc::from([]))
        } else {
            let endpoints = endpoints.map(|wanting| routes.who_hears(&event, wanting));
            (body, endpoints.unwrap_or_default())
        };
        NewEvent {
            body,
            endpoints,
            event,
        }
    }

    pub(crate) fn of_users(&self) -> OfUsers {
        OfUsers(self.routes.now())
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
        let mut by_endpoint: HashMap<EndpointId, Vec<Delivery>> = HashMap::new();
        for mut delivery in deliveries {
            delivery.body = sent_body(&delivery.body, routes.included.of(delivery.id));
            by_endpoint.entry(delivery.endpoint).or_default().push(delivery);
        }
        for (endpoint, deliveries) in by_endpoint {
            if let Some(name) = routes.names.get(&endpoint) {
                self.dispatcher.offer(name, deliveries);
            }
        }
    }

    /// Those that were not handed on here yet.
    pub(crate) fn not_handed(&self, ids: Vec<DeliveryId>) -> Vec<DeliveryId> {
        match &self.handed {
            Some(handed) => handed.not_yet(ids),
            None => ids,
        }
    }

    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// By which deliveries are made.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.routes.clocks
    }

    /// The configured endpoints.
    pub(crate) fn endpoints(&self) -> Vec<(EndpointId, Arc<str>)> {
        let routes = self.routes.now();
        let names = routes.names.iter();
        names.map(|(id, name)| (*id, Arc::clone(name))).collect()
    }
}

/// How much of an event each endpoint is to be sent, for the store.
pub(crate) fn includes(endpoints: &[EndpointConfig], ids: &[EndpointId]) -> Vec<(EndpointId, Include)> {
    let all = endpoints.iter().zip(ids);
    all.map(|(endpoint, id)| (*id, endpoint.include)).collect()
}

/// As much of an event as the endpoint is sent.
pub(crate) fn sent_body(body: &Bytes, include: Option<Include>) -> Bytes {
    include.map_or_else(|| body.clone(), |include| included(body, include))
}
