//! The source's side: what its reducer is told of blocks, and what its controls ask.

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
use turnhook_reducer::block::ToEnd;

use super::{
    super::{role::Role, source::SourceTask},
    Active, Ask, Job, Order,
    intent::{Recorded, Recording},
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
    active: watch::Receiver<Active>,
    asked: mpsc::Receiver<Ask>,
    /// So that there is somebody who may ask, even where there is no control.
    _asks: mpsc::Sender<Ask>,
    ways: Vec<Way>,
    confirm: u64,
    /// Ends that go on record before they are asked for.
    pub(crate) recording: Recording,
    /// The last session whose end was handed on.
    ends_done: u64,
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
}

impl SourceTask {
    /// Blocks, or a question of a control's.
    pub(crate) fn enforce(&mut self, heard: Heard) {
        match heard {
            Heard::Blocks => self.take_blocks(),
            Heard::Asked(Ask::Again) => self.reducer.look_for_blocked(),
            Heard::Asked(Ask::Not(to_end)) => self.reducer.not_ending(&to_end),
            Heard::Asked(Ask::May(to_end, reply)) => {
                // Whoever has lost the lease has no say any more, however lately.
                let may = self.may_act() && {
                    let at = self.reducer.now();
                    // The reducer's time stands still while there is nothing to do.
                    let behind = self.watch.now().since(at);
                    let confirm = self.enforcing.confirm.saturating_add(behind);
                    self.reducer.ending(at, &to_end, confirm)
                };
                if may {
                    self.enforcing.recording.add(to_end, reply);
                } else {
                    // A control that has given up waiting does nothing.
                    let _ = reply.send(false);
                }
            }
            Heard::Overdue => {
                for asked in self.enforcing.recording.overdue() {
                    self.may_say(asked);
                }
            }
        }
        self.hand_over();
    }

    /// What was to be on record before it is said is that now.
    pub(crate) fn on_record(&mut self) {
        for asked in self.enforcing.recording.recorded() {
            self.may_say(asked);
        }
    }

    /// The control has the say, if all is still as it was.
    fn may_say(&mut self, Recorded { to_end, reply }: Recorded) {
        let may = self.may_act() && self.reducer.saying(&to_end);
        if reply.send(may).is_err() || !may {
            self.reducer.not_ending(&to_end);
        }
    }

    fn may_act(&self) -> bool {
        match &self.role {
            Role::Alone(_) => true,
            Role::Follower(_) => false,
            Role::Leader(leading) => {
                !leading.leaving && !self.sharing.as_ref().is_none_or(|s| s.validity.is_over())
            }
        }
    }

    /// Tells the reducer who is blocked; also after a takeover, since the one that comes out of it knows of nobody.
    pub(crate) fn take_blocks(&mut self) {
        let active = self.enforcing.active.borrow_and_update().clone();
        let at = self.reducer.now();
        self.reducer.set_blocks(at, active.blocks);
        for (id, session, reason) in active.ends.iter() {
            if *id > self.enforcing.ends_done {
                self.reducer.end_session(at, *session, reason);
                if !self.role.follows() {
                    self.enforcing.ends_done = *id;
                }
            }
        }
    }

    /// Hands what is to be ended to the controls, and tells them what has closed.
    pub(crate) fn hand_over(&mut self) {
        for allocation in self.reducer.take_ended() {
            for way in &self.enforcing.ways {
                // One that is full looks itself when it comes to it.
                let _ = way.orders.try_send(Order::Ended(allocation));
            }
        }
        let new = self.reducer.stats().blocked_new;
        self.enforcing
            .blocked_new
            .inc_by(new.saturating_sub(self.enforcing.counted_new));
        self.enforcing.counted_new = new;
        let all = self.reducer.take_to_end();
        if all.is_empty() {
            return;
        }
        if self.enforcing.ways.is_empty() {
            if !std::mem::replace(&mut self.enforcing.said, true) {
                warn!(source = %self.telemetry.name(),
                    "users are blocked who have allocations here, and there is no [[control]] of this source to end them");
            }
            return;
        }
        let now = self.watch.now();
        for to_end in all {
            let age = to_end.opened_at.map(|at| Duration::from_millis(now.since(at)));
            self.send(to_end, age.and_then(|age| Instant::now().checked_sub(age)));
        }
    }

    fn send(&self, to_end: ToEnd, opened: Option<Instant>) {
        let local = to_end.server_address.as_deref();
        let ways = &self.enforcing.ways;
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
                warn!(source = %self.telemetry.name(), "more allocations are to be ended than a control has room for: \
                      the rest is tried again with their next refresh");
            }
        }
    }
}
