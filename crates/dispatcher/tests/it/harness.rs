//! A dispatcher with a store in memory behind it, which serves its reads and keeps its outcomes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::Semaphore};
use turnhook_dispatcher::{
    clock::Clocks,
    config::EndpointConfig,
    dispatcher::Dispatcher,
    endpoint::EndpointStatus,
    outbox::{Asked, Outbox},
    queue::Wanted,
    schedule::Retry,
    signature::Secret,
};
use turnhook_reducer::{
    event::{EventType, SessionId},
    outbox::{Delivery, DeliveryId, EndpointId, Next, Outcome, Pause},
    time::Timestamp,
};

use crate::receiver::wait_for;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An endpoint whose retries come soon.
pub(crate) fn config(name: &str, url: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(name, url.parse().unwrap(), vec![Secret::parse(SECRET).unwrap()]);
    config.retry = Retry {
        initial: Duration::from_millis(20),
        max: Duration::from_millis(200),
        ..Retry::default()
    };
    config
}

pub(crate) fn delivery(id: i64, session: u8, sequence: u32) -> Delivery {
    Delivery {
        id: DeliveryId(id),
        endpoint: EndpointId(1),
        event_id: format!("evt_{id:026}").parse().unwrap(),
        session_id: SessionId([session; 16]),
        sequence,
        event_type: EventType::Usage,
        body: Bytes::from(format!(r#"{{"session":{session},"sequence":{sequence}}}"#)),
        timestamp: Timestamp::default(),
        sent: None,
        attempts: 0,
        first_attempt_at: None,
        next_attempt_at: Timestamp::default(),
    }
}

/// The deliveries of some sessions, in the order in which they would be committed.
pub(crate) fn deliveries(sessions: u8, each: u32) -> Vec<Delivery> {
    let mut ids = 1..;
    let mut all = Vec::new();
    for sequence in 0..each {
        all.extend(
            (0..sessions)
                .zip(&mut ids)
                .map(|(session, id)| delivery(id, session, sequence)),
        );
    }
    all
}

#[derive(Default)]
struct Rows {
    /// By endpoint and id: the row, and whether it is pending.
    rows: BTreeMap<(String, DeliveryId), (Delivery, bool)>,
    outcomes: Vec<Outcome>,
}

/// A store in memory.
pub(crate) struct Store {
    rows: Mutex<Rows>,
    clocks: Clocks,
    /// While it is closed, outcomes wait to be recorded.
    pub(crate) records: Semaphore,
}

impl Store {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    /// Puts rows into it that nobody is offered.
    pub(crate) fn insert(&self, endpoint: &str, deliveries: &[Delivery]) {
        let rows = deliveries
            .iter()
            .map(|d| ((endpoint.to_owned(), d.id), (d.clone(), true)));
        self.rows().rows.extend(rows);
    }
}

/// [`Store`] as the dispatcher has it.
struct Port(Arc<Store>);

impl Outbox for Port {
    fn read(&self, endpoint: &Arc<str>, wanted: Wanted) -> Asked<Option<Vec<Delivery>>> {
        let page = self.0.rows().page(endpoint, &wanted, self.0.clocks.wall());
        Box::pin(std::future::ready(Some(page)))
    }

    fn begin(&self, _: Vec<(DeliveryId, Bytes)>) -> Asked<bool> {
        panic!("endpoints of billing products have tests of their own")
    }

    fn record(&self, outcomes: Vec<Outcome>) -> Asked<()> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            let _open = store.records.acquire().await;
            let mut rows = store.rows();
            outcomes.into_iter().for_each(|outcome| rows.record(outcome));
        })
    }
}

pub(crate) struct Harness {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) store: Arc<Store>,
}

impl Harness {
    pub(crate) fn start(endpoints: Vec<EndpointConfig>) -> Harness {
        Harness::start_paused(endpoints.into_iter().map(|config| (config, Vec::new())).collect())
    }

    pub(crate) fn start_paused(endpoints: Vec<(EndpointConfig, Vec<Pause>)>) -> Harness {
        Harness::start_by(Clocks::system(), endpoints)
    }

    pub(crate) fn start_by(clocks: Clocks, endpoints: Vec<(EndpointConfig, Vec<Pause>)>) -> Harness {
        let store = Arc::new(Store {
            rows: Mutex::default(),
            clocks: clocks.clone(),
            records: Semaphore::new(1),
        });
        let port = Arc::new(Port(Arc::clone(&store)));
        let (dispatcher, writer) = Dispatcher::start(endpoints, &clocks, port, &Handle::current()).unwrap();
        tokio::spawn(writer.run());
        Harness { dispatcher, store }
    }

    /// Commits deliveries, and offers them.
    pub(crate) fn commit(&self, endpoint: &str, deliveries: Vec<Delivery>) {
        self.store.insert(endpoint, &deliveries);
        assert!(self.dispatcher.offer(endpoint, deliveries));
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.store.rows().outcomes.clone()
    }

    pub(crate) fn pending(&self, endpoint: &str) -> usize {
        self.store
            .rows()
            .rows
            .iter()
            .filter(|((name, _), (_, pending))| name == endpoint && *pending)
            .count()
    }

    /// Waits until nothing is pending.
    pub(crate) async fn drained(&self, endpoint: &str) {
        wait_for(|| (self.pending(endpoint) == 0).then_some(())).await;
    }

    /// Waits for the first outcome that fits.
    pub(crate) async fn outcome(&self, fits: impl Fn(&Outcome) -> bool) -> Outcome {
        wait_for(|| {
            self.store
                .rows()
                .outcomes
                .iter()
                .find(|outcome| fits(outcome))
                .cloned()
        })
        .await
    }

    pub(crate) fn status(&self, endpoint: &str) -> EndpointStatus {
        self.dispatcher
            .status()
            .into_iter()
            .find(|status| &*status.name == endpoint)
            .unwrap()
    }
}

impl Rows {
    fn record(&mut self, outcome: Outcome) {
        let key = (outcome.endpoint.to_string(), outcome.delivery);
        if let Some((row, pending)) = self.rows.get_mut(&key) {
            row.attempts = outcome.attempt;
            row.first_attempt_at.get_or_insert(outcome.at);
            match outcome.next {
                Next::Retry(at) => row.next_attempt_at = at,
                Next::Paused | Next::Waits => {}
                Next::Done | Next::Dead(_) => *pending = false,
            }
        }
        self.outcomes.push(outcome);
    }

    fn page(&self, endpoint: &str, wanted: &Wanted, now: Timestamp) -> Vec<Delivery> {
        let pending: Vec<&Delivery> = (self.rows.iter())
            .filter(|((name, _), (_, pending))| name == endpoint && *pending)
            .map(|(_, (row, _))| row)
            .collect();
        let first = |row: &Delivery| {
            !pending
                .iter()
                .any(|o| o.session_id == row.session_id && o.sequence < row.sequence)
        };
        let due = |row: &Delivery| row.next_attempt_at <= now;
        let take = |rows: &mut dyn Iterator<Item = &Delivery>, limit: usize| -> Vec<Delivery> {
            rows.take(limit).cloned().collect()
        };
        match wanted {
            Wanted::Oldest { after, limit } => {
                take(&mut pending.iter().copied().filter(|row| row.id > *after), *limit)
            }
            Wanted::Newest { limit } => take(
                &mut pending.iter().rev().copied().filter(|row| due(row) && first(row)),
                *limit,
            ),
            Wanted::Rows(ids) => take(
                &mut pending.iter().copied().filter(|row| ids.contains(&row.id)),
                usize::MAX,
            ),
        }
    }
}
