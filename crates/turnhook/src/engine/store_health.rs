//! Whether the store can be used: in `/readyz`, `/status`, `turnhook_store_up`, and in the log: one line when it goes,
//! one a minute while it is away, one when it is back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};
use turnhook_reducer::time::Timestamp;
use turnhook_store::{Error, Store};

use super::clock::Clock;
use crate::{health::Health, metrics::Metrics};

/// How often the same is said again.
const AGAIN: Duration = Duration::from_secs(60);

/// In this time a beat notices a store that is away.
const SOON: Duration = Duration::from_secs(10);

pub(crate) struct StoreHealth {
    name: String,
    shared: bool,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    unreachable: bool,
    unwritable: bool,
    /// Since when it is away.
    away_since: Option<Timestamp>,
    /// The last time for which it was away.
    last_away: Option<(Timestamp, Timestamp)>,
    /// What failed, and when first.
    failing: HashMap<&'static str, Instant>,
    /// What was said last, and when.
    said: HashMap<&'static str, Instant>,
}

impl State {
    /// Whether this may be said now.
    fn may_say(&mut self, what: &'static str) -> bool {
        let now = Instant::now();
        let may = self
            .said
            .get(what)
            .is_none_or(|at| now.duration_since(*at) >= AGAIN);
        if may {
            self.said.insert(what, now);
        }
        may
    }
}

impl StoreHealth {
    /// Of one that was opened just now.
    pub(crate) fn new(
        store: &Store,
        clock: &Arc<Clock>,
        metrics: &Arc<Metrics>,
        health: &Arc<Health>,
    ) -> StoreHealth {
        metrics.store_up.set(1);
        health.update_store(|s| (s.writable, s.reachable) = (true, true));
        StoreHealth {
            name: store.describe(),
            shared: store.cluster().is_some(),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            health: Arc::clone(health),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit was made.
    pub(crate) fn committed(&self) {
        let mut state = self.state();
        (state.unwritable, state.unreachable) = (false, false);
        self.is_back(&mut state);
    }

    /// A commit failed.
    pub(crate) fn commit_failed(&self, error: &Error) {
        let mut state = self.state();
        state.unwritable = true;
        self.is_away(
            &mut state,
            error,
            "commit failed; it is repeated every second until the store takes it",
        );
    }

    /// A beat was answered. A commit that failed is another node's to make, once that one leads.
    pub(crate) fn answered(&self, leads: bool) {
        let mut state = self.state();
        state.unreachable = false;
        state.unwritable &= leads;
        if !state.unwritable {
            self.is_back(&mut state);
        }
    }

    /// A beat was not answered.
    pub(crate) fn unanswered(&self, error: &Error) {
        let mut state = self.state();
        state.unreachable = true;
        self.is_away(
            &mut state,
            error,
            "the store cannot be reached: this node's leases are not renewed; tried again and again",
        );
    }

    /// Some other request failed. While the store is away that is no news; and where nodes share it, the beats notice
    /// it soon enough whether it is.
    pub(crate) fn failed(&self, what: &'static str, error: &Error) {
        let mut state = self.state();
        let now = Instant::now();
        let first = *state.failing.entry(what).or_insert(now);
        let soon_noticed = self.shared && error.is_transient() && now.duration_since(first) < SOON;
        if state.away_since.is_none() && !soon_noticed && state.may_say(what) {
            warn!(%error, "{what}");
        } else {
            debug!(%error, "{what}");
        }
    }

    /// Whether the store was away in some of this time.
    pub(crate) fn was_away(&self, from: Timestamp, to: Timestamp) -> bool {
        let state = self.state();
        state.away_since.is_some_and(|since| since <= to)
            || state
                .last_away
                .is_some_and(|(since, until)| since <= to && until >= from)
    }

    fn is_away(&self, state: &mut State, error: &Error, words: &'static str) {
        let now = self.clock.now();
        let since = *state.away_since.get_or_insert(now);
        self.metrics.store_up.set(0);
        let (writable, reachable) = (!state.unwritable, !state.unreachable);
        self.health.update_store(|s| {
            (s.writable, s.reachable) = (writable, reachable);
            s.last_error = Some(error.to_string());
            s.last_error_at = Some(now);
        });
        if state.may_say("away") {
            warn!(%error, store = self.name, for_ms = now.since(since), "{words}");
        } else {
            debug!(%error, store = self.name, "{words}");
        }
    }

    fn is_back(&self, state: &mut State) {
        let (writable, reachable) = (!state.unwritable, !state.unreachable);
        if let Some(since) = state.away_since.take() {
            let now = self.clock.now();
            state.last_away = Some((since, now));
            // Only if it was said that it went; the next time is news again.
            if state.said.remove("away").is_some() {
                info!(store = self.name, away_ms = now.since(since), "the store is back");
            }
            state.said.clear();
            state.failing.clear();
        } else if self.metrics.store_up.get() == 1 {
            return;
        }
        self.metrics.store_up.set(1);
        self.health
            .update_store(|s| (s.writable, s.reachable) = (writable, reachable));
    }
}
