//! One endpoint at work: its queue driven by real time, real requests and the outbox.
//!
//! The queue stands behind a lock that is held for moments only. Each request is a task, which takes
//! the next delivery itself when it is done, so that nothing is handed from task to task while there
//! is work; one more task wakes the queue when time alone brings work.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot, watch},
};
use tracing::{debug, info, warn};
use turnhook_reducer::{
    event::{EventType, SessionId},
    time::Timestamp,
};

mod batches;

use crate::{
    body::rfc3339,
    breaker::BreakerState,
    client::{Answer, Client},
    clock::Clocks,
    config::EndpointConfig,
    provider::{account::Account, batch::Record},
    queue::{Bounds, Delivery, Next, Page, Queue, Standstill, StandstillKind, Wanted},
    schedule::Pause,
    verdict::retry_after,
};

/// Standing still for less than this, in milliseconds, is not logged: a receiver that spaces requests out by a
/// `Retry-After` of a second would fill the log.
const WORTH_A_LINE: u64 = 10_000;

/// While a gate is closed, how soon it is looked at again.
const GATE: Duration = Duration::from_millis(500);

/// Whether requests may begin now. Asked before each of them.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the dispatcher has to say, in an order that matters: whoever serves a [`Read`] has written the
/// outcomes that came before it.
#[derive(Debug)]
pub enum Report {
    /// An attempt was made.
    Outcome(Box<Outcome>),
    /// A batch was sent: what came of each of its deliveries.
    Outcomes(Vec<Outcome>),
    /// Something is about to be sent that may be counted: it is to be written down first.
    Begin(Begin),
    /// Something is to be read from the outbox.
    Read(Read),
}

/// An attempt and what follows from it. To be written to the store; should that fail, or the process end
/// first, the delivery is repeated with the same id after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The delivery: its row in the outbox.
    pub delivery: i64,
    /// The `webhook-id`.
    pub event_id: Arc<str>,
    /// The session.
    pub session: SessionId,
    /// The event's type.
    pub event_type: EventType,
    /// When the event was decided, by the wall clock of then.
    pub decided_at: Timestamp,
    /// When the attempt began, by the wall clock.
    pub at: Timestamp,
    /// The attempt's number, 1 for the first.
    pub attempt: u32,
    /// How long ago the first attempt began, by the steady clock, when what follows was decided.
    pub tried_for: Duration,
    /// The status; `None` if no answer came.
    pub status: Option<u16>,
    /// From the start to the head of the answer, or to the failure.
    pub latency: Duration,
    /// What went wrong, for people; no secrets. `None` on success.
    pub error: Option<String>,
    /// The first KiB of the answer's body.
    pub answer: Bytes,
    /// What follows; the time of a next attempt is the wall clock's.
    pub next: Next,
    /// As in metrics.
    pub label: &'static str,
    /// Why it is dead, where [`Next::Dead`].
    pub reason: Option<&'static str>,
    /// What is to be written down of what was sent.
    pub record: Record,
}

/// What is about to be sent to a billing product.
#[derive(Debug)]
pub struct Begin {
    /// Rows of the outbox, and what is sent of each.
    pub rows: Vec<(i64, Bytes)>,
    /// Whether outcomes that were reported before must be written first.
    pub after_outcomes: bool,
    /// Answered when it is on the disk. If it is dropped, nothing is sent.
    pub reply: oneshot::Sender<()>,
}

/// A wish to read from the outbox.
#[derive(Debug)]
pub struct Read {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// What.
    pub wanted: Wanted,
    /// Where the answer goes. If it is dropped, the same is asked for again a second later.
    pub reply: oneshot::Sender<Page>,
}

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

pub(crate) struct Endpoint {
    name: Arc<str>,
    client: Client,
    account: Option<Arc<Account>>,
    clocks: Clocks,
    reports: mpsc::Sender<Report>,
    runtime: Handle,
    state: Mutex<State>,
    /// The time to wake up at has changed.
    rescheduled: Notify,
    /// Nothing is under way.
    idle: Notify,
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
    requests: Vec<Vec<Delivery>>,
    read: Option<Wanted>,
}

impl Endpoint {
    pub(crate) fn start(
        config: &EndpointConfig,
        client: Client,
        pauses: Vec<Pause>,
        clocks: Clocks,
        reports: mpsc::Sender<Report>,
        failed: watch::Sender<Option<String>>,
        runtime: Handle,
    ) -> Arc<Endpoint> {
        let now = clocks.steady();
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
            reports,
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

    pub(crate) fn offer(self: &Arc<Self>, mut deliveries: Vec<Delivery>) {
        self.put_in_lanes(&mut deliveries);
        self.change(|queue, now| queue.offer(deliveries, now));
    }

    pub(crate) fn withdraw(self: &Arc<Self>, deliveries: &[i64]) {
        self.change(|queue, now| queue.withdraw(deliveries, now));
    }

    pub(crate) fn read_again(self: &Arc<Self>) {
        self.change(|queue, _| queue.read_again());
    }

    pub(crate) fn share(self: &Arc<Self>, nodes: usize) {
        self.change(|queue, now| queue.share(nodes, now));
    }

    pub(crate) fn known(&self) -> Vec<i64> {
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

    /// Gives up requests under way, and ends all tasks.
    pub(crate) fn abort(&self) {
        self.abort.send_replace(true);
    }

    pub(crate) fn status(&self) -> EndpointStatus {
        let now = self.clocks.steady();
        let state = self.lock();
        EndpointStatus {
            name: Arc::clone(&self.name),
            standstill: self.standstill(&state, now),
            in_memory: state.queue.in_memory(),
            behind: state.queue.is_behind(),
            in_flight: state.queue.in_flight(),
            breaker: state.queue.breaker(),
            last_error: state.last_error.clone(),
            last_success_at: state.last_success_at,
            waiting_for_customers: state.queue.waiting_for_customers(),
        }
    }

    /// Why nothing is sent, by the wall clock and with the reason of an open breaker.
    fn standstill(&self, state: &State, now: Timestamp) -> Option<Standstill> {
        let mut standstill = state.queue.standstill(now)?;
        standstill.since = self.clocks.to_wall(standstill.since);
        standstill.until = standstill.until.map(|at| self.clocks.to_wall(at));
        if let (StandstillKind::BreakerOpen, Some((_, error))) = (standstill.kind, &state.last_error) {
            standstill.reason = error.as_str().into();
        }
        Some(standstill)
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
        let (reply, answer) = oneshot::channel();
        let read = Read {
            endpoint: Arc::clone(&self.name),
            wanted,
            reply,
        };
        let mut abort = self.abort.subscribe();
        let page = async {
            self.reports.send(Report::Read(read)).await.ok()?;
            answer.await.ok()
        };
        tokio::select! {
            page = page => {
                let page = page.map(|mut page: Page| {
                    self.put_in_lanes(&mut page.deliveries);
                    page
                });
                self.change(|queue, now| queue.answer(page, now));
            }
            _ = abort.wait_for(|abort| *abort) => {}
        }
    }

    fn claim(&self, queue: &mut Queue, now: Timestamp) -> Option<Vec<Delivery>> {
        match &self.account {
            Some(_) => Some(queue.claim_batch(now)).filter(|batch| !batch.is_empty()),
            None => queue.claim(now).map(|delivery| vec![delivery]),
        }
    }

    /// Sends what was claimed, and then whatever is next, for as long as there is something.
    async fn send(self: Arc<Self>, first: Vec<Delivery>) {
        match &self.account {
            Some(account) => self.send_batches(account, first).await,
            None => {
                for delivery in first {
                    self.send_webhooks(delivery).await;
                }
            }
        }
    }

    async fn send_webhooks(self: &Arc<Self>, first: Delivery) {
        let mut abort = self.abort.subscribe();
        let mut delivery = first;
        loop {
            let at = self.clocks.wall();
            let attempt = self.client.send(&delivery.event_id, delivery.body.clone(), at);
            let answer = tokio::select! {
                answer = attempt => answer,
                // Nobody knows what became of it: it is repeated after the restart.
                _ = abort.wait_for(|abort| *abort) => return,
            };
            // Room for the outcome comes first: a read that is asked for after this delivery has left
            // the queue must find its outcome in front of it.
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
            permit.send(Report::Outcome(Box::new(outcome)));
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
        delivery: Delivery,
        answer: Answer,
        at: Timestamp,
        now: Timestamp,
        random: u64,
    ) -> Outcome {
        let mut outcome = Outcome {
            endpoint: Arc::clone(&self.name),
            delivery: delivery.id,
            event_id: Arc::clone(&delivery.event_id),
            session: delivery.session,
            event_type: delivery.event_type,
            decided_at: delivery.decided_at,
            at,
            attempt: delivery.attempts.saturating_add(1),
            tried_for: Duration::from_millis(now.since(delivery.first_attempt_at.unwrap_or(now))),
            status: answer.status.map(|status| status.as_u16()),
            latency: answer.latency,
            error: answer.error,
            answer: answer.body,
            next: Next::Done,
            label: "",
            reason: None,
            record: Record::Keep,
        };
        let after = answer.retry_after.as_deref();
        let after = after.and_then(|header| retry_after(header, self.clocks.wall()));
        outcome.next = match state.queue.finish(delivery, answer.status, after, now, random) {
            Next::Retry(at) => Next::Retry(self.clocks.to_wall(at)),
            next => next,
        };
        outcome.label = outcome.next.as_str();
        match &outcome.error {
            Some(error) => state.last_error = Some((at, error.clone())),
            None => state.last_success_at = Some(at),
        }
        self.log(&outcome);
        outcome
    }

    fn log(&self, outcome: &Outcome) {
        debug!(
            endpoint = &*self.name,
            event = &*outcome.event_id,
            r#type = outcome.event_type.as_str(),
            session = %outcome.session,
            attempt = outcome.attempt,
            status = outcome.status,
            took_ms = u64::try_from(outcome.latency.as_millis()).unwrap_or(u64::MAX),
            outcome = outcome.label,
            error = outcome.error.as_deref(),
            "attempt"
        );
        if let Next::Rejected | Next::GaveUp | Next::Dead = outcome.next {
            warn!(
                endpoint = &*self.name,
                event = &*outcome.event_id,
                error = outcome.error.as_deref().unwrap_or_default(),
                reason = outcome.reason.unwrap_or(outcome.next.as_str()),
                "dead letter: see `turnhook deliveries list --state dead`"
            );
        }
    }

    /// One line when it begins to stand still, one when a person paused it meanwhile, and one when it moves again.
    fn log_standstill(&self, state: &mut State, now: Timestamp) {
        let endpoint = &*self.name;
        let kind = state.queue.standstill(now).map(|standstill| standstill.kind);
        let Some(kind) = kind else {
            if state.logged.take().is_some() {
                info!(endpoint, "endpoint moves again");
            }
            return;
        };
        let paused_since = kind == StandstillKind::Paused && state.logged != Some(kind);
        if state.logged.is_some() && !paused_since {
            return;
        }
        let Some(standstill) = self.standstill(state, now) else {
            return;
        };
        let short = |until: Timestamp| until.since(self.clocks.wall()) < WORTH_A_LINE;
        if kind == StandstillKind::Held && !state.queue.has_a_cause() && standstill.until.is_some_and(short) {
            return;
        }
        state.logged = Some(kind);
        let (reason, until) = (
            &*standstill.reason,
            standstill.until.map(rfc3339).unwrap_or_default(),
        );
        match kind {
            StandstillKind::Paused => warn!(
                endpoint,
                reason, "endpoint stands still: paused until `turnhook endpoints resume`; everything is kept"
            ),
            StandstillKind::Held if state.queue.has_a_cause() => warn!(
                endpoint,
                reason,
                "endpoint stands still: something has to be put right first; it is tried every few seconds, and nothing is lost"
            ),
            StandstillKind::Held => warn!(
                endpoint,
                reason,
                until,
                "endpoint stands still: it asked to be left alone; `turnhook endpoints resume` lets go of that"
            ),
            StandstillKind::BreakerOpen => warn!(
                endpoint,
                reason, "endpoint stands still: it fails again and again, and is tried every few seconds"
            ),
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
