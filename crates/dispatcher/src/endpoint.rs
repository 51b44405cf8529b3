//! One endpoint at work: its queue driven by real time, real requests and the outbox.
//!
//! The queue stands behind a lock that is held for moments only. Each request is a task, which takes
//! the next delivery itself when it is done, so that nothing is handed from task to task while there
//! is work; one more task wakes the queue when time alone brings work.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
};
use turnhook_reducer::{
    outbox::{Delivery, DeliveryId, Next, Outcome, Pause, Sent},
    time::Timestamp,
};

mod batches;
mod log;

use crate::{
    breaker::BreakerState,
    client::{Answer, Client},
    clock::Clocks,
    config::EndpointConfig,
    outbox::Outbox,
    provider::account::Account,
    queue::{Bounds, Mark, Page, Queue, Standstill, StandstillKind, Wanted},
    queued::Queued,
    verdict::retry_after,
};

/// While a gate is closed, how soon it is looked at again.
const GATE: Duration = Duration::from_millis(500);

/// Whether requests may begin now. Asked before each of them.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

/// How an endpoint is doing. All times are the wall clock's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Why nothing is sent to it, if so.
    pub standstill: Option<Standstill>,
    /// Deliveries known in memory, those under way included.
    pub in_memory: usize,
    /// Whether there is more in the outbox than that.
    pub behind: bool,
    /// Requests under way.
    pub in_flight: usize,
    /// The circuit breaker.
    pub breaker: BreakerState,
    /// The last failure: when it began, and what it was; no secrets.
    pub last_error: Option<(Timestamp, String)>,
    /// When the last successful attempt began.
    pub last_success_at: Option<Timestamp>,
    /// Deliveries that wait until the map knows their customer.
    pub waiting_for_customers: usize,
}

/// What all endpoints work with.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) clocks: Clocks,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) reports: mpsc::Sender<Reported>,
    pub(crate) runtime: Handle,
    /// What is said of a task that panicked.
    pub(crate) failed: watch::Sender<Option<String>>,
}

/// What came of a request, and by what the queue knows each of it until it is on record.
pub(crate) struct Reported {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) marks: Vec<Mark>,
}

pub(crate) struct Endpoint {
    name: Arc<str>,
    client: Client,
    account: Option<Arc<Account>>,
    clocks: Clocks,
    outbox: Arc<dyn Outbox>,
    reports: mpsc::Sender<Reported>,
    runtime: Handle,
    state: Mutex<State>,
    /// The time to wake up at has changed.
    rescheduled: Notify,
    /// Nothing is under way.
    idle: Notify,
    /// Outcomes are on record.
    written: Notify,
    /// True when requests under way are to be given up.
    abort: watch::Sender<bool>,
    gate: OnceLock<Gate>,
    /// What is said of a task that panicked.
    failed: watch::Sender<Option<String>>,
}

/// Says so when the task that holds it panics: nobody waits for these tasks.
struct Watched {
    endpoint: Arc<str>,
    what: &'static str,
    failed: watch::Sender<Option<String>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = format!(
                "endpoint {:?}: the task that {} panicked",
                self.endpoint, self.what
            );
            self.failed.send_replace(Some(said));
        }
    }
}

struct State {
    queue: Queue,
    wake_at: Option<Timestamp>,
    last_error: Option<(Timestamp, String)>,
    last_success_at: Option<Timestamp>,
    /// What was last logged of its standing still; `None`: that it moves.
    logged: Option<StandstillKind>,
}

/// What a change of state asks to be started, once the lock is released.
#[derive(Default)]
struct Work {
    /// Deliveries that are sent together.
    requests: Vec<Vec<Queued>>,
    read: Option<Wanted>,
}

impl Endpoint {
    pub(crate) fn start(
        config: &EndpointConfig,
        client: Client,
        pauses: Vec<Pause>,
        means: Means,
    ) -> Arc<Endpoint> {
        let Means {
            clocks,
            outbox,
            reports,
            runtime,
            failed,
        } = means;
        let now = clocks.steady();
        let steady = |pause: Pause| Pause {
            from: clocks.began(pause.from),
            to: pause.to.map(|at| clocks.began(at)),
            ..pause
        };
        let pauses = pauses.into_iter().map(steady).collect();
        let mut queue = Queue::new(config, pauses, Bounds::default(), now);
        if let Some(account) = &config.account {
            queue.batch(account.terms.batch, account.wait);
        }
        let state = State {
            queue,
            wake_at: None,
            last_error: None,
            last_success_at: None,
            logged: None,
        };
        let endpoint = Arc::new(Endpoint {
            name: Arc::from(config.name.as_str()),
            client,
            account: config.account.clone(),
            clocks,
            outbox,
            reports,
            written: Notify::new(),
            runtime,
            state: Mutex::new(state),
            rescheduled: Notify::new(),
            idle: Notify::new(),
            abort: watch::Sender::new(false),
            gate: OnceLock::new(),
            failed,
        });
        endpoint.spawn("keeps time", Arc::clone(&endpoint).keep_time());
        endpoint.watch_customers();
        endpoint.change(|_, _| ());
        endpoint
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Begins requests only while this says so. Whoever comes first decides.
    pub(crate) fn only_while(&self, gate: Gate) {
        let _ = self.gate.set(gate);
    }

    fn spawn(&self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let watched = Watched {
            endpoint: Arc::clone(&self.name),
            what,
            failed: self.failed.clone(),
        };
        self.runtime.spawn(async move {
            let _watched = watched;
            work.await;
        });
    }

    pub(crate) fn offer(self: &Arc<Self>, deliveries: Vec<Delivery>) {
        let deliveries = self.queued(deliveries);
        self.change(|queue, now| queue.offer(deliveries, now));
    }

    pub(crate) fn withdraw(self: &Arc<Self>, deliveries: &[DeliveryId]) {
        self.change(|queue, now| queue.withdraw(deliveries, now));
    }

    pub(crate) fn drop_read(self: &Arc<Self>) {
        self.change(|queue, _| queue.drop_read());
    }

    pub(crate) fn read_again(self: &Arc<Self>) {
        self.change(|queue, _| queue.read_again());
    }

    pub(crate) fn share(self: &Arc<Self>, nodes: usize) {
        self.change(|queue, now| queue.share(nodes, now));
    }

    /// These outcomes are on record.
    pub(crate) fn written(self: &Arc<Self>, marks: &[Mark]) {
        self.change(|queue, _| queue.written(marks));
        self.written.notify_waiters();
    }

    pub(crate) fn known(&self) -> Vec<DeliveryId> {
        self.lock().queue.known()
    }

    pub(crate) fn pause(self: &Arc<Self>, reason: &str) {
        self.change(|queue, now| queue.pause(reason, now));
    }

    pub(crate) fn resume(self: &Arc<Self>) {
        self.change(|queue, now| queue.resume(now));
    }

    pub(crate) fn stop(self: &Arc<Self>) {
        self.change(|queue, _| queue.stop());
    }

    /// Resolves when nothing is under way; to be used after [`Endpoint::stop`].
    pub(crate) async fn finished(&self) {
        loop {
            // Listening begins before looking, so that nothing falls between.
            let idle = self.idle.notified();
            if self.lock().queue.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Resolves when no outcome waits to be recorded; to be used after [`Endpoint::abort`].
    pub(crate) async fn recorded(&self) {
        loop {
            let written = self.written.notified();
            if self.lock().queue.is_written() {
                return;
            }
            written.await;
        }
    }

    /// Gives up requests under way, and ends all tasks.
    pub(crate) fn abort(&self) {
        self.abort.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and starts what may be started then.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Queue, Timestamp)) {
        let now = self.clocks.steady();
        let mut state = self.lock();
        change(&mut state.queue, now);
        let work = self.collect(&mut state, now);
        drop(state);
        self.begin(work);
    }

    /// All that may be started now.
    fn collect(&self, state: &mut State, now: Timestamp) -> Work {
        let open = self.gate.get().is_none_or(|gate| gate());
        let requests = if open {
            std::iter::from_fn(|| self.claim(&mut state.queue, now)).collect()
        } else {
            Vec::new()
        };
        let read = state.queue.wanted(now);
        self.log_standstill(state, now);
        let wake_at = if open {
            state.queue.next_wake(now)
        } else {
            Some(now.plus(GATE.as_millis() as u64))
        };
        if state.wake_at != wake_at {
            state.wake_at = wake_at;
            self.rescheduled.notify_one();
        }
        if state.queue.in_flight() == 0 {
            self.idle.notify_waiters();
        }
        Work { requests, read }
    }

    fn begin(self: &Arc<Self>, work: Work) {
        for request in work.requests {
            self.spawn("sends", Arc::clone(self).send(request));
        }
        if let Some(wanted) = work.read {
            self.spawn("reads the outbox", Arc::clone(self).read(wanted));
        }
    }

    async fn read(self: Arc<Self>, wanted: Wanted) {
        let limit = match &wanted {
            Wanted::Oldest { limit, .. } | Wanted::Newest { limit } => *limit,
            Wanted::Rows(_) => usize::MAX,
        };
        let mut abort = self.abort.subscribe();
        tokio::select! {
            read = self.outbox.read(&self.name, wanted) => {
                let page = read.map(|deliveries| Page {
                    end: deliveries.len() < limit,
                    deliveries: self.queued(deliveries),
                });
                self.change(|queue, now| queue.answer(page, now));
            }
            _ = abort.wait_for(|abort| *abort) => {}
        }
    }

    fn claim(&self, queue: &mut Queue, now: Timestamp) -> Option<Vec<Queued>> {
        match &self.account {
            Some(_) => Some(queue.claim_batch(now)).filter(|batch| !batch.is_empty()),
            None => queue.claim(now).map(|delivery| vec![delivery]),
        }
    }

    /// Sends what was claimed, and then whatever is next, for as long as there is something.
    async fn send(self: Arc<Self>, first: Vec<Queued>) {
        match &self.account {
            Some(account) => self.send_batches(account, first).await,
            None => {
                for delivery in first {
                    self.send_webhooks(delivery).await;
                }
            }
        }
    }

    async fn send_webhooks(self: &Arc<Self>, first: Queued) {
        let mut abort = self.abort.subscribe();
        let mut delivery = first;
        loop {
            let at = self.clocks.wall();
            let id = delivery.event_id.to_string();
            let attempt = self.client.send(&id, delivery.body.clone(), at);
            let answer = tokio::select! {
                answer = attempt => answer,
                // Nobody knows what became of it: it is repeated after the restart.
                _ = abort.wait_for(|abort| *abort) => return,
            };
            // Room for the outcome comes first: requests wait for a store that takes its time.
            let Ok(permit) = self.reports.reserve().await else {
                return;
            };
            let random = if answer.error.is_some() {
                getrandom::u64().unwrap_or(u64::MAX / 2)
            } else {
                0
            };
            let now = self.clocks.steady();
            let mut state = self.lock();
            let outcome = self.finish(&mut state, delivery, answer, at, now, random);
            permit.send(Reported {
                endpoint: Arc::clone(self),
                outcomes: vec![outcome],
                marks: state.queue.mark().into_iter().collect(),
            });
            let mut work = self.collect(&mut state, now);
            drop(state);
            let next = work.requests.pop().and_then(|mut next| next.pop());
            self.begin(work);
            match next {
                Some(next) => delivery = next,
                None => return,
            }
        }
    }

    fn finish(
        &self,
        state: &mut State,
        delivery: Queued,
        answer: Answer,
        at: Timestamp,
        now: Timestamp,
        random: u64,
    ) -> Outcome {
        let mut outcome = self.outcome(&delivery, at, now);
        outcome.status = answer.status.map(|status| status.as_u16());
        outcome.latency = answer.latency;
        outcome.error = answer.error;
        outcome.answer = answer.body;
        let after = answer.retry_after.as_deref();
        let after = after.and_then(|header| retry_after(header, self.clocks.wall()));
        outcome.next = self.by_the_wall(state.queue.finish(delivery, answer.status, after, now, random));
        outcome.label = outcome.next.as_str();
        match &outcome.error {
            Some(error) => state.last_error = Some((at, error.clone())),
            None => state.last_success_at = Some(at),
        }
        self.log(&outcome);
        outcome
    }

    /// Of an attempt that began `at`; what came of it is to be filled in.
    fn outcome(&self, delivery: &Queued, at: Timestamp, now: Timestamp) -> Outcome {
        Outcome {
            endpoint: Arc::clone(&self.name),
            delivery: delivery.id,
            event_id: delivery.event_id,
            session: delivery.session_id,
            event_type: delivery.event_type,
            decided_at: delivery.timestamp,
            at,
            attempt: delivery.attempts.saturating_add(1),
            tried_for: Duration::from_millis(now.since(delivery.began_at.unwrap_or(now))),
            status: None,
            latency: Duration::ZERO,
            error: None,
            answer: Default::default(),
            next: Next::Done,
            label: "",
            sent: Sent::Keep,
        }
    }

    /// The queue goes by the steady clock, and the outbox by that of the wall.
    fn by_the_wall(&self, next: Next) -> Next {
        match next {
            Next::Retry(at) => Next::Retry(self.clocks.to_wall(at)),
            next => next,
        }
    }

    /// Wakes the queue when it wants to be woken.
    async fn keep_time(self: Arc<Self>) {
        let mut abort = self.abort.subscribe();
        loop {
            let wake_at = self.lock().wake_at;
            let wake = async {
                match wake_at {
                    Some(at) => {
                        let wait = at.since(self.clocks.steady()).max(1);
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wake => self.change(|_, _| ()),
                () = self.rescheduled.notified() => {}
                _ = abort.wait_for(|abort| *abort) => return,
            }
        }
    }
}
