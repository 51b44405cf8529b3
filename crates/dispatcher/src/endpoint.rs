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
use tracing::{info, warn};
use turnhook_reducer::{
    event::{EventType, SessionId},
    time::Timestamp,
};

use crate::{
    breaker::BreakerState,
    client::{Answer, Client},
    config::EndpointConfig,
    dispatcher::Clock,
    queue::{Bounds, Delivery, Next, Page, Queue, Wanted},
    schedule::Pause,
};

/// The longest sleep: the clock may be set forwards meanwhile.
const NAP: Duration = Duration::from_secs(30);

/// While a gate is closed, how soon it is looked at again.
const GATE: Duration = Duration::from_millis(500);

/// Whether requests may begin now. Asked before each of them.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the dispatcher has to say, in an order that matters: whoever serves a [`Read`] has written the
/// outcomes that came before it.
#[derive(Debug)]
pub enum Report {
    /// An attempt was made.
    Outcome(Outcome),
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
    /// When the attempt began.
    pub at: Timestamp,
    /// The attempt's number, 1 for the first.
    pub attempt: u32,
    /// When the first attempt began.
    pub first_attempt_at: Timestamp,
    /// The status; `None` if no answer came.
    pub status: Option<u16>,
    /// From the start to the head of the answer, or to the failure.
    pub latency: Duration,
    /// What went wrong, for people; no secrets. `None` on success.
    pub error: Option<String>,
    /// The first KiB of the answer's body.
    pub answer: Bytes,
    /// What follows.
    pub next: Next,
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

/// How an endpoint is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Since when it is paused.
    pub paused_since: Option<Timestamp>,
    /// Deliveries known in memory, those under way included.
    pub in_memory: usize,
    /// Whether there is more in the outbox than that.
    pub behind: bool,
    /// Requests under way.
    pub in_flight: usize,
    /// The circuit breaker.
    pub breaker: BreakerState,
    /// Until when the endpoint asked to be left alone (`Retry-After`).
    pub held_until: Option<Timestamp>,
    /// The last failure: when it began, and what it was; no secrets.
    pub last_error: Option<(Timestamp, String)>,
    /// When the last successful attempt began.
    pub last_success_at: Option<Timestamp>,
}

pub(crate) struct Endpoint {
    name: Arc<str>,
    client: Client,
    clock: Clock,
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
}

/// What a change of state asks to be started, once the lock is released.
#[derive(Default)]
struct Work {
    requests: Vec<Delivery>,
    read: Option<Wanted>,
}

impl Endpoint {
    pub(crate) fn start(
        config: &EndpointConfig,
        client: Client,
        pauses: Vec<Pause>,
        clock: Clock,
        reports: mpsc::Sender<Report>,
        failed: watch::Sender<Option<String>>,
        runtime: Handle,
    ) -> Arc<Endpoint> {
        let now = clock();
        let state = State {
            queue: Queue::new(config, pauses, Bounds::default(), now),
            wake_at: None,
            last_error: None,
            last_success_at: None,
        };
        let endpoint = Arc::new(Endpoint {
            name: Arc::from(config.name.as_str()),
            client,
            clock,
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

    pub(crate) fn pause(self: &Arc<Self>) {
        self.change(|queue, now| queue.pause(now));
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
        let now = (self.clock)();
        let state = self.lock();
        EndpointStatus {
            name: Arc::clone(&self.name),
            paused_since: state.queue.paused(),
            in_memory: state.queue.in_memory(),
            behind: state.queue.is_behind(),
            in_flight: state.queue.in_flight(),
            breaker: state.queue.breaker(),
            held_until: state.queue.held_until(now),
            last_error: state.last_error.clone(),
            last_success_at: state.last_success_at,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and starts what may be started then.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Queue, Timestamp)) {
        let now = (self.clock)();
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
            std::iter::from_fn(|| state.queue.claim(now)).collect()
        } else {
            Vec::new()
        };
        let read = state.queue.wanted(now);
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
        for delivery in work.requests {
            self.spawn("sends", Arc::clone(self).send(delivery));
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
            page = page => self.change(|queue, now| queue.answer(page, now)),
            _ = abort.wait_for(|abort| *abort) => {}
        }
    }

    /// Sends a delivery, and then whatever is next, for as long as there is something.
    async fn send(self: Arc<Self>, first: Delivery) {
        let mut abort = self.abort.subscribe();
        let mut delivery = first;
        loop {
            let at = (self.clock)();
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
            let now = (self.clock)();
            let mut state = self.lock();
            permit.send(Report::Outcome(
                self.finish(&mut state, delivery, answer, at, now, random),
            ));
            let mut work = self.collect(&mut state, now);
            drop(state);
            let next = work.requests.pop();
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
            at,
            attempt: delivery.attempts.saturating_add(1),
            first_attempt_at: delivery.first_attempt_at.unwrap_or(at),
            status: answer.status.map(|status| status.as_u16()),
            latency: answer.latency,
            error: answer.error,
            answer: answer.body,
            next: Next::Done,
        };
        let was = state.queue.breaker();
        outcome.next = state.queue.finish(
            delivery,
            answer.status,
            answer.retry_after.as_deref(),
            now,
            random,
        );
        match &outcome.error {
            Some(error) => state.last_error = Some((at, error.clone())),
            None => state.last_success_at = Some(at),
        }
        self.log(&outcome, was, state.queue.breaker());
        outcome
    }

    fn log(&self, outcome: &Outcome, was: BreakerState, is: BreakerState) {
        let endpoint = &*self.name;
        let error = outcome.error.as_deref().unwrap_or_default();
        match outcome.next {
            Next::Paused => {
                warn!(
                    endpoint,
                    error,
                    "endpoint paused: it says that it is gone; resume it with `turnhook endpoints resume`"
                );
            }
            Next::Rejected | Next::GaveUp => {
                let reason = outcome.next.as_str();
                warn!(
                    endpoint,
                    event = &*outcome.event_id,
                    error,
                    reason,
                    "dead letter: see `turnhook deliveries list --state dead`"
                );
            }
            Next::Done | Next::Retry(_) => {}
        }
        match (was, is) {
            (BreakerState::Closed, BreakerState::Open) => {
                warn!(
                    endpoint,
                    error, "endpoint fails again and again: tried every few seconds until it is back"
                );
            }
            (BreakerState::Open | BreakerState::Probing, BreakerState::Closed) => {
                info!(endpoint, "endpoint is back")
            }
            _ => {}
        }
    }

    /// Wakes the queue when it wants to be woken.
    async fn keep_time(self: Arc<Self>) {
        let mut abort = self.abort.subscribe();
        loop {
            let wake_at = self.lock().wake_at;
            let wait = wake_at.map_or(NAP, |at| Duration::from_millis(at.since((self.clock)())));
            let nap = wait.clamp(Duration::from_millis(1), NAP);
            tokio::select! {
                () = tokio::time::sleep(nap) => self.change(|_, _| ()),
                () = self.rescheduled.notified() => {}
                _ = abort.wait_for(|abort| *abort) => return,
            }
        }
    }
}
