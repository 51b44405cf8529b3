//! What all connections of a listener share: who is let in, what is known of the servers, and how far what had waited
//! for this program has been read.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, oneshot, watch};
use turnhook_reducer::time::Timestamp;

use super::{
    config::{DirectLimits, Keys},
    guard::{Guard, block},
    places::Places,
    tracker::ServerTracker,
};
use crate::{
    queue::SignalSender,
    signal::{Clock, TurnAwayReason},
};

/// What all connections of a listener share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) signals: SignalSender,
    pub(super) keys: Keys,
    pub(super) limits: DirectLimits,
    pub(super) tracker: Mutex<ServerTracker>,
    /// The tracker's deadline may have changed.
    pub(super) tracked: Notify,
    pub(super) door: Mutex<Door>,
    pub(super) lag: Lag,
    /// Reading stops, for another program to go on.
    pub(super) suspended: watch::Sender<bool>,
}

/// Who is let in.
pub(super) struct Door {
    pub(super) places: Places,
    pub(super) guard: Guard,
}

impl Shared {
    /// The time, as far as what had waited is read.
    pub(super) fn now(&self) -> Timestamp {
        self.lag.time().unwrap_or_else(|| (self.clock)())
    }

    /// Ends when reading stops.
    pub(super) fn suspended(&self) -> impl Future<Output = ()> + use<> {
        let mut suspended = self.suspended.subscribe();
        async move {
            // Its sender is here as long as there are connections.
            let _ = suspended.wait_for(|suspended| *suspended).await;
        }
    }

    /// Nothing in here panics while it holds the lock; were it so, it would still be whole.
    pub(super) fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a newcomer a place. What it gets fires when it has to leave again for another.
    pub(super) fn enter(&self, id: u64, peer: IpAddr) -> Option<oneshot::Receiver<()>> {
        let Door { places, guard } = &mut *self.door();
        places.enter(id, block(peer), |block| guard.trusts(block))
    }

    /// Gives the tracker an input, and the engine what the tracker makes of it. Under one lock, so that
    /// the engine hears it in order.
    pub(super) fn track<T>(&self, input: impl FnOnce(&mut ServerTracker) -> T) -> T {
        let mut tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        let before = tracker.deadline();
        let answer = input(&mut tracker);
        for signal in tracker.signals() {
            self.signals.signal(signal);
        }
        if tracker.deadline() != before {
            self.tracked.notify_one();
        }
        answer
    }

    pub(super) fn turned_away(&self, reason: TurnAwayReason, peer: IpAddr) {
        self.track(|t| t.turned_away(reason, peer, self.now()));
    }
}

/// How far this program is behind with what had waited.
#[derive(Debug, Default)]
pub(super) struct Lag {
    at: Timestamp,
    behind: AtomicUsize,
    caught_up: Notify,
}

impl Lag {
    /// Behind until all connections are served again, and what had waited in them is read.
    pub(super) fn behind(at: Timestamp) -> Lag {
        Lag {
            at,
            behind: AtomicUsize::new(1),
            caught_up: Notify::new(),
        }
    }

    /// As of when something is heard, while there is something left that had waited.
    pub(super) fn time(&self) -> Option<Timestamp> {
        (self.behind.load(Ordering::Acquire) > 0).then_some(self.at)
    }

    /// Ends when one of those that it waits for may have been the last.
    pub(super) async fn caught_up(&self) {
        self.caught_up.notified().await;
    }

    /// One of those that it waits for is done.
    pub(super) fn done(&self) {
        if self.behind.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.caught_up.notify_one();
        }
    }
}

/// What had waited in one connection to be read. Dropped when it was.
pub(super) struct Waiting {
    shared: Arc<Shared>,
    left: u64,
    /// It ends: that is part of it.
    ends: bool,
}

impl Waiting {
    pub(super) fn new(shared: Arc<Shared>, left: u64, ends: bool) -> Waiting {
        shared.lag.behind.fetch_add(1, Ordering::AcqRel);
        Waiting { shared, left, ends }
    }

    /// Whether this was the last of it.
    pub(super) fn is_read(&mut self, n: usize) -> bool {
        self.left = self.left.saturating_sub(n as u64);
        self.left == 0 && !self.ends
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.lag.done();
    }
}
