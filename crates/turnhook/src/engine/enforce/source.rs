//! The source's side: what its reducer learns of blocks, and what its controls ask.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::warn;
use turnhook_control::Coturn;
use turnhook_reducer::{Reducer, block::ToEnd, time::Timestamp};

use super::{
    Active,
    intent::Recording,
    orders::{Ask, Job, Order},
};

/// A way to a control.
pub(super) struct Way {
    /// The `local=` that it is said to answer for.
    server: Option<String>,
    /// What it has found out about its coturn.
    known: Arc<Mutex<Option<Coturn>>>,
    orders: mpsc::Sender<Order>,
}

impl Way {
    pub(super) fn new(
        server: Option<String>,
        known: Arc<Mutex<Option<Coturn>>>,
        orders: mpsc::Sender<Order>,
    ) -> Way {
        Way {
            server,
            known,
            orders,
        }
    }

    /// Whether it may lead to the server of an allocation.
    fn may_lead_to(&self, local: Option<&[u8]>) -> bool {
        let Some(local) = local else { return true };
        if let Some(server) = &self.server {
            return server.as_bytes() == local;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_none_or(|coturn| coturn.answers_for(local))
    }
}

/// What a source has to do with blocks.
pub(crate) struct Enforcing {
    pub(crate) active: watch::Receiver<Active>,
    asked: mpsc::Receiver<Ask>,
    /// So that there is somebody who may ask, even where there is no control.
    _asks: mpsc::Sender<Ask>,
    ways: Vec<Way>,
    pub(crate) confirm: u64,
    /// Ends that go on record before they are asked for.
    pub(crate) recording: Recording,
    /// The last session whose end was handed on.
    pub(crate) ends_done: u64,
    blocked_new: Counter,
    counted_new: u64,
    /// That there is no control for what is to be ended was said.
    said: bool,
}

/// What a source hears of blocks.
#[derive(Debug)]
pub(crate) enum Heard {
    Blocks,
    Asked(Ask),
    /// The store takes its time, and what waits for it waits no longer.
    Overdue,
}

impl Enforcing {
    pub(super) fn new(
        active: watch::Receiver<Active>,
        asked: mpsc::Receiver<Ask>,
        asks: mpsc::Sender<Ask>,
        ways: Vec<Way>,
        confirm: Duration,
        blocked_new: Counter,
    ) -> Enforcing {
        let mut enforcing = Enforcing {
            active,
            asked,
            _asks: asks,
            ways,
            confirm: u64::try_from(confirm.as_millis()).unwrap_or(u64::MAX),
            recording: Recording::default(),
            ends_done: 0,
            blocked_new,
            counted_new: 0,
            said: false,
        };
        // What holds at the start is news to a source.
        enforcing.active.mark_changed();
        enforcing
    }

    /// The next thing to hear.
    pub(crate) async fn next(&mut self) -> Heard {
        tokio::select! {
            () = self.recording.until_overdue() => Heard::Overdue,
            Some(ask) = self.asked.recv() => Heard::Asked(ask),
            changed = self.active.changed() => match changed {
                Ok(()) => Heard::Blocks,
                // The keeper has ended, and the process will.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Hands what is to be ended to the controls, and lets them know what has closed.
    pub(crate) fn hand_over(&mut self, reducer: &mut Reducer, now: Timestamp, source: &str) {
        for allocation in reducer.take_ended() {
            for way in &self.ways {
                // One that is full looks itself when it comes to it.
                let _ = way.orders.try_send(Order::Ended(allocation));
            }
        }
        let new = reducer.stats().blocked_new;
        self.blocked_new.inc_by(new.saturating_sub(self.counted_new));
        self.counted_new = new;
        let all = reducer.take_to_end();
        if all.is_empty() {
            return;
        }
        if self.ways.is_empty() {
            if !std::mem::replace(&mut self.said, true) {
                warn!(
                    source,
                    "users are blocked who have allocations here, and there is no [[control]] of this source to end them"
                );
            }
            return;
        }
        for to_end in all {
            let age = to_end.opened_at.map(|at| Duration::from_millis(now.since(at)));
            self.send(
                to_end,
                age.and_then(|age| Instant::now().checked_sub(age)),
                source,
            );
        }
    }

    fn send(&self, to_end: ToEnd, opened: Option<Instant>, source: &str) {
        let local = to_end.server_address.as_deref();
        let ways = &self.ways;
        let mut fitting: Vec<&Way> = ways.iter().filter(|way| way.may_lead_to(local)).collect();
        if fitting.is_empty() {
            // Each will find that it is the wrong one, and say so.
            fitting = ways.iter().take(1).collect();
        }
        let alone = fitting.len() == 1;
        for way in fitting {
            let job = Job {
                to_end: to_end.clone(),
                opened,
                alone,
            };
            if way.orders.try_send(Order::End(job)).is_err() {
                warn!(
                    source,
                    "more allocations are to be ended than a control has room for: \
                      the rest is tried again with their next refresh"
                );
            }
        }
    }
}
