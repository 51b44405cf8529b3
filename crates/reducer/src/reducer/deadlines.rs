//! Deadlines of allocations and sessions: a heap, in which an entry is stale unless its owner's `wake` is
//! its time.

use std::cmp::Reverse;

use super::Reducer;
use crate::time::Timestamp;

/// Whose deadline it is. At one instant those of allocations come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Allocation(u32),
    Session(u32),
}

impl Reducer {
    /// When the next deadline fires; call [`Reducer::advance`] after it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Lets time pass: every deadline before `to` fires. No input before `to` may follow; one that does
    /// is taken as of `to`.
    pub fn advance(&mut self, to: Timestamp) {
        self.begin(to);
    }

    /// Fires what was due before `at`; then it is `at`. Time never goes back.
    pub(crate) fn begin(&mut self, at: Timestamp) {
        if at <= self.now {
            return;
        }
        while let Some(Reverse((due, owner))) = self.deadlines.peek().copied() {
            if due >= at {
                break;
            }
            self.deadlines.pop();
            self.now = self.now.max(due);
            self.expire_aside();
            match owner {
                Owner::Allocation(slot) => self.fire_allocations(due, slot),
                Owner::Session(slot) => self.fire_session(due, slot),
            }
        }
        self.now = at;
        self.expire_aside();
    }

    /// All allocations that are due at one instant, `first` among them.
    fn fire_allocations(&mut self, due: Timestamp, first: u32) {
        let mut slots = vec![first];
        while let Some(Reverse((at, Owner::Allocation(slot)))) = self.deadlines.peek().copied()
            && at == due
        {
            self.deadlines.pop();
            slots.push(slot);
        }
        self.sort_allocations(&mut slots);
        self.reviews_wait = true;
        for slot in slots {
            if let Some(a) = self.allocations.get_mut(slot as usize).filter(|a| a.wake == due) {
                a.wake = Timestamp::MAX;
                self.allocation_due(slot);
            }
        }
        self.reviews_wait = false;
    }

    fn fire_session(&mut self, due: Timestamp, slot: u32) {
        if let Some(s) = self.sessions.get_mut(slot as usize).filter(|s| s.wake == due) {
            s.wake = Timestamp::MAX;
            self.session_due(slot);
        }
    }

    /// In the order in which they opened, not that of their places in memory: the same after a restart.
    pub(crate) fn sort_allocations(&self, slots: &mut [u32]) {
        let key = |slot: &u32| {
            let a = self.allocations.get(*slot as usize)?;
            let name = (self.names.realm(a.name), self.names.username(a.name));
            Some((a.opened_at, a.id, self.labels.get(a.server), name))
        };
        slots.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    }

    /// Makes sure that the allocation is woken by `at`, or at once if that has passed.
    pub(crate) fn wake_allocation(&mut self, slot: u32, at: Timestamp) {
        let at = at.max(self.now);
        if let Some(a) = self.allocations.get_mut(slot as usize)
            && at < a.wake
        {
            a.wake = at;
            self.deadlines.push(Reverse((at, Owner::Allocation(slot))));
        }
    }

    /// Makes sure that the session is woken by `at`, or at once if that has passed.
    pub(crate) fn wake_session(&mut self, slot: u32, at: Timestamp) {
        let at = at.max(self.now);
        if let Some(s) = self.sessions.get_mut(slot as usize)
            && at < s.wake
        {
            s.wake = at;
            self.deadlines.push(Reverse((at, Owner::Session(slot))));
        }
    }
}
