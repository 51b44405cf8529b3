//! Deadlines of allocations and sessions: a heap, in which an entry is stale unless its owner's `wake` is
//! its time.

use std::cmp::Reverse;

use super::Reducer;
use crate::{
    deadline::{Deadline, Owner},
    time::{Moment, Timestamp},
};

impl Reducer {
    /// When the next deadline fires; call [`Reducer::advance`] after it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let first = self.deadlines.peek().map(|Reverse(deadline)| deadline.at());
        first.into_iter().chain(self.leftovers.first_expiry()).min()
    }

    /// Lets time pass: every deadline before `to` fires. No input before `to` may follow; one that does
    /// is taken as of `to`.
    pub fn advance(&mut self, to: Timestamp) {
        self.begin(to);
    }

    /// Fires what was due before `at`; then it is `at`. Time never goes back.
    pub(crate) fn begin(&mut self, at: Timestamp) {
        if at > self.now || !self.ending.is_empty() {
            self.work(at, usize::MAX);
        }
    }

    /// The same for an input that has no part in how allocations of servers that are over end: what is left of those goes
    /// on being ended by [`Reducer::work`].
    pub(crate) fn begin_beside(&mut self, at: Timestamp) {
        if at > self.now {
            self.work(at, usize::MAX);
        }
    }

    /// Whether an earlier input left allocations to be ended by [`Reducer::work`].
    #[must_use]
    pub fn is_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Lets time pass towards `to`, as [`Reducer::advance`] does, and goes on with what earlier inputs left to be done,
    /// but only for about `steps` steps of some microseconds each (an allocation that ends, a session that is looked at).
    /// Whether there is more: then call it again, with `to` or a later time, before anything else is handed in; in
    /// between, what came of it may be drained. An input finishes what is left, but for those that say whose allocations
    /// are to be ended (`enforce.rs`). The outcome is the same in all cases.
    pub fn work(&mut self, to: Timestamp, steps: usize) -> bool {
        let mut steps = steps;
        loop {
            if self.end_some(&mut steps) {
                return true;
            }
            let first = self.deadlines.peek().map(|Reverse(deadline)| *deadline);
            let due = first.map_or(Timestamp::MAX, Deadline::at);
            let over = self.leftovers.first_expiry().filter(|over| *over < due.min(to));
            if over.is_none() && due >= to {
                break;
            }
            if steps == 0 {
                return true;
            }
            if let Some(over) = over {
                self.now = self.now.max(over);
                let leftover = self.leftovers.oldest();
                leftover.into_iter().for_each(|slot| self.settle_leftover(slot));
                steps -= 1;
                continue;
            }
            self.deadlines.pop();
            self.now = self.now.max(due);
            self.expire_aside();
            match first.map(Deadline::owner) {
                Some(Owner::Allocation(slot)) => self.fire_allocations(due, slot, &mut steps),
                Some(Owner::Session(slot)) => {
                    self.fire_session(due, slot);
                    steps = steps.saturating_sub(1);
                }
                None => {}
            }
        }
        self.now = self.now.max(to);
        self.expire_aside();
        false
    }

    /// Allocations that are due at one instant, `first` among them. Their sessions are looked at when all of that
    /// instant are over: the deadlines of sessions come after them.
    fn fire_allocations(&mut self, due: Timestamp, first: u32, steps: &mut usize) {
        let mut slots = vec![first];
        while slots.len() < *steps
            && let Some(Reverse(deadline)) = self.deadlines.peek().copied()
            && let Owner::Allocation(slot) = deadline.owner()
            && deadline.at() == due
        {
            self.deadlines.pop();
            slots.push(slot);
        }
        *steps = steps.saturating_sub(slots.len());
        self.sort_allocations(&mut slots);
        self.reviews_wait = true;
        for slot in slots {
            if let Some(a) = self
                .allocations
                .get_mut(slot as usize)
                .filter(|a| a.wake.get() == due)
            {
                a.wake = Moment::NEVER;
                self.allocation_due(slot);
            }
        }
        self.reviews_wait = false;
    }

    fn fire_session(&mut self, due: Timestamp, slot: u32) {
        if let Some(s) = self
            .sessions
            .get_mut(slot as usize)
            .filter(|s| s.wake.get() == due)
        {
            s.wake = Moment::NEVER;
            self.session_due(slot);
        }
    }

    /// In the order in which they opened, not that of their places in memory: the same after a restart.
    pub(crate) fn sort_allocations(&self, slots: &mut [u32]) {
        let key = |slot: &u32| {
            let a = self.allocations.get(*slot as usize)?;
            let name = (self.names.realm(a.name), self.names.username(a.name));
            Some((a.opened_at.get(), a.id, self.servers.get(a.server), name))
        };
        slots.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    }

    /// Makes sure that the allocation is woken by `at`, or at once if that has passed.
    pub(crate) fn wake_allocation(&mut self, slot: u32, at: Timestamp) {
        let at = Moment::from(at.max(self.now));
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to wake");
        };
        if at.get() < a.wake.get() {
            a.wake = at;
            self.deadlines
                .push(Reverse(Deadline::new(at, Owner::Allocation(slot))));
        }
    }

    /// Makes sure that the session is woken by `at`, or at once if that has passed.
    pub(crate) fn wake_session(&mut self, slot: u32, at: Timestamp) {
        let at = Moment::from(at.max(self.now));
        let Some(s) = self.sessions.get_mut(slot as usize) else {
            return self.broken("no session to wake");
        };
        if at.get() < s.wake.get() {
            s.wake = at;
            self.deadlines
                .push(Reverse(Deadline::new(at, Owner::Session(slot))));
        }
    }
}
