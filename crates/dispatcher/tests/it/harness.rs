//! A dispatcher with a store in memory behind it, which serves its reads and keeps its outcomes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc};
use turnhook_dispatcher::{
    clock::Clocks,
    config::EndpointConfig,
    dispatcher::Dispatcher,
    endpoint::{EndpointStatus, Outcome, Report},
    queue::{Delivery, Next, Page, Wanted},
    schedule::{Pause, Retry},
    signature::Secret,
};
use turnhook_reducer::{
    event::{EventType, SessionId},
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
        id,
        event_id: Arc::from(format!("evt_{id:026}")),
        session: SessionId([session; 16]),
        lane: SessionId([session; 16]),
        sequence,
        event_type: EventType::Usage,
        body: Bytes::from(format!(r#"{{"session":{session},"sequence":{sequence}}}"#)),
        decided_at: Timestamp::default(),
        sent: None,
        attempts: 0,
        first_attempt_at: None,
        next_attempt_at: None,
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
struct Store {
    /// By endpoint and id: the row, and whether it is pending.
    rows: BTreeMap<(String, i64), (Delivery, bool)>,
    outcomes: Vec<Outcome>,
}

pub(crate) struct Harness {
    pub(crate) dispatcher: Dispatcher,
    store: Arc<Mutex<Store>>,
}

impl Harness {
    pub(crate) fn start(endpoints: Vec<EndpointConfig>) -> Harness {
        Harness::start_paused(endpoints.into_iter().map(|config| (config, Vec::new())).collect())
    }

    pub(crate) fn start_paused(endpoints: Vec<(EndpointConfig, Vec<Pause>)>) -> Harness {
        Harness::start_by(Clocks::system(), endpoints)
    }

    pub(crate) fn start_by(clocks: Clocks, endpoints: Vec<(EndpointConfig, Vec<Pause>)>) -> Harness {
        let store = Arc::new(Mutex::new(Store::default()));
        // Small, so that requests have to wait for the store.
        let (reports, inbox) = mpsc::channel(4);
        let dispatcher = Dispatcher::start(endpoints, &clocks, &reports, &Handle::current()).unwrap();
        tokio::spawn(keep(clocks, Arc::clone(&store), inbox));
        Harness { dispatcher, store }
    }

    /// Commits deliveries, and offers them.
    pub(crate) fn commit(&self, endpoint: &str, deliveries: Vec<Delivery>) {
        let rows = deliveries
            .iter()
            .map(|d| ((endpoint.to_owned(), d.id), (d.clone(), true)));
        self.store().rows.extend(rows);
        assert!(self.dispatcher.offer(endpoint, deliveries));
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.store().outcomes.clone()
    }

    pub(crate) fn pending(&self, endpoint: &str) -> usize {
        self.store()
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
            self.store()
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

async fn keep(clocks: Clocks, store: Arc<Mutex<Store>>, mut inbox: mpsc::Receiver<Report>) {
    while let Some(report) = inbox.recv().await {
        match report {
            Report::Outcome(outcome) => {
                let mut store = store.lock().unwrap();
                if let Some((row, pending)) = store
                    .rows
                    .get_mut(&(outcome.endpoint.to_string(), outcome.delivery))
                {
                    row.attempts = outcome.attempt;
                    let tried_for = u64::try_from(outcome.tried_for.as_millis()).unwrap();
                    row.first_attempt_at = Some(Timestamp(clocks.steady().0 - tried_for));
                    match outcome.next {
                        Next::Retry(at) => row.next_attempt_at = Some(clocks.to_steady(at)),
                        Next::Paused | Next::Waits => {}
                        Next::Done | Next::Rejected | Next::GaveUp | Next::Dead => *pending = false,
                    }
                }
                store.outcomes.push(*outcome);
            }
            // Endpoints of billing products have tests of their own.
            Report::Outcomes(_) | Report::Begin(_) => panic!("a webhook has no batches"),
            Report::Read(read) => {
                let page = store
                    .lock()
                    .unwrap()
                    .page(&read.endpoint, &read.wanted, clocks.steady());
                // Nobody listens any longer at the end.
                let _ = read.reply.send(page);
            }
        }
    }
}

impl Store {
    fn page(&self, endpoint: &str, wanted: &Wanted, now: Timestamp) -> Page {
        let pending: Vec<&Delivery> = (self.rows.iter())
            .filter(|((name, _), (_, pending))| name == endpoint && *pending)
            .map(|(_, (row, _))| row)
            .collect();
        let first = |row: &Delivery| {
            !pending
                .iter()
                .any(|o| o.session == row.session && o.sequence < row.sequence)
        };
        let due = |row: &Delivery| row.next_attempt_at.is_none_or(|at| at <= now);
        let take = |rows: &mut dyn Iterator<Item = &Delivery>, limit: usize| -> Page {
            let deliveries: Vec<_> = rows.take(limit).cloned().collect();
            Page {
                end: deliveries.len() < limit,
                deliveries,
            }
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
