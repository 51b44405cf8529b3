//! The end of an allocation: `deleted`, totals, expiry.

use super::{Notice, Reducer};
use crate::{
    allocation::{self, Dirty},
    event::{CloseReason, UnattributedReason},
    flags::Flags,
    intern::NONE,
    time::Timestamp,
};

impl Reducer {
    /// When the allocation's next deadline is.
    pub(crate) fn allocation_deadline(&self, slot: u32) -> Timestamp {
        let Some(a) = self.allocations.get(slot as usize) else {
            return Timestamp::MAX;
        };
        let rare = a.rare.as_ref();
        if a.flags.contains(Flags::CLOSING) {
            return rare.map_or(self.now, |r| r.totals_due);
        }
        let lifetime = u64::from(a.lifetime) * 1000;
        let hearing = self.heard_since(a.server);
        if a.flags.contains(Flags::SHARED) {
            let silent_since = a.heard_at.get().max(hearing);
            return silent_since.plus(lifetime).plus(self.rules.expiry_grace);
        }
        let dated = rare.is_some_and(|r| r.dated_at >= hearing);
        // A refresh may have been missed before `hearing`: then one more lifetime has to pass in silence.
        let from = if dated {
            a.status_at.get()
        } else {
            a.status_at.get().max(hearing)
        };
        from.plus(lifetime).plus(self.rules.expiry_grace)
    }

    pub(crate) fn arm_allocation(&mut self, slot: u32) {
        let at = self.allocation_deadline(slot);
        self.wake_allocation(slot, at);
    }

    /// A deadline of the allocation may have come. Entries in the heap are moved only when they fire, so
    /// a refresh costs nothing there.
    pub(crate) fn allocation_due(&mut self, slot: u32) {
        let due = self.allocation_deadline(slot);
        if due > self.now {
            return self.wake_allocation(slot, due);
        }
        let Some(a) = self.allocations.get(slot as usize) else {
            return;
        };
        if a.flags.contains(Flags::CLOSING) {
            self.settle(slot);
            return;
        }
        if self.deaf {
            // Nothing expires unheard. Once the source hears again, a whole lifetime counts from then.
            let patience = (u64::from(a.lifetime) * 1000)
                .saturating_add(self.rules.expiry_grace)
                .max(1000);
            return self.wake_allocation(slot, self.now.plus(patience));
        }
        let lifetime = u64::from(a.lifetime) * 1000;
        let (reason, since) = match a.lifetime {
            _ if a.flags.contains(Flags::SHARED) => (CloseReason::Expired, a.heard_at.get()),
            0 if a.flags.intersects(Flags::OPENED_SEEN | Flags::TOUCHED) => {
                (CloseReason::Closed, a.status_at.get())
            }
            _ => (CloseReason::Expired, a.status_at.get()),
        };
        let closed_at = since.plus(lifetime).min(self.now).max(a.opened_at.get());
        self.end_now(slot, closed_at, reason, None);
    }

    /// `deleted` was heard, or a total without it: totals are waited for.
    pub(crate) fn begin_closing(&mut self, slot: u32) {
        let (now, grace) = (self.now, self.rules.totals_grace);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return;
        };
        a.flags.insert(Flags::CLOSING | Flags::TOUCHED);
        let rare = a.rare();
        rare.closed = Some((now, CloseReason::Closed));
        rare.totals_due = now.plus(grace);
        let session = a.session;
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        if session != NONE {
            self.member_closes(session, slot, now);
            self.review(session);
        }
    }

    /// Ends an allocation without waiting for totals. Returns the twin number of a next incarnation that
    /// opens at `next`.
    pub(crate) fn end_now(
        &mut self,
        slot: u32,
        closed_at: Timestamp,
        reason: CloseReason,
        next: Option<Timestamp>,
    ) -> u16 {
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return 0;
        };
        let (was_closing, session) = (a.flags.contains(Flags::CLOSING), a.session);
        let same = next == Some(a.opened_at.get());
        let twin = if same { a.twin().saturating_add(1) } else { 0 };
        if !was_closing {
            a.flags.insert(Flags::CLOSING);
            a.rare().closed = Some((closed_at, reason));
            if session != NONE {
                self.member_closes(session, slot, closed_at);
            }
        }
        self.settle(slot);
        twin
    }

    /// The allocation is over: counters become final, its session is told, a tombstone stays.
    /// Returns the twin number for an incarnation that opens now.
    pub(crate) fn settle(&mut self, slot: u32) -> u16 {
        self.keep_end(slot);
        let Some(a) = self.allocations.get(slot as usize) else {
            return 0;
        };
        let (client_total, peer_total) = a.totals();
        let deltas_only = a.flags.intersects(Flags::DELTAS_ONLY | Flags::SHARED);
        let doubted = a.flags.contains(Flags::OVERCOUNTED);
        let settled = allocation::settle(a.legs(), client_total, peer_total, self.rules.peer_leg);
        let (id, legs) = (a.id, a.legs());
        let totals_seen = client_total.is_some() && (peer_total.is_some() || !self.rules.peer_leg);
        let twin = if a.opened_at.get() == self.now {
            a.twin().saturating_add(1)
        } else {
            0
        };

        let final_legs = if deltas_only { legs } else { settled.legs };
        self.count(slot, &final_legs, true);
        if settled.overcounted {
            self.stats.overcounted += 1;
            self.notice(Notice::Overcounted { allocation: id });
            if let Some(a) = self.allocations.get_mut(slot as usize) {
                a.flags.insert(Flags::OVERCOUNTED);
            }
        }
        self.join_if_relayed(slot);
        if deltas_only && !settled.overcounted {
            let rest = settled.legs.minus(final_legs);
            self.record_unattributed(slot, final_legs, settled.legs, rest, UnattributedReason::Evicted);
        }
        let session = self.allocations.get(slot as usize).map_or(NONE, |a| a.session);
        if session == NONE {
            self.record_untold(slot, UnattributedReason::Residue);
        } else {
            self.member_settles(
                session,
                slot,
                totals_seen,
                settled.exact && !deltas_only && !doubted,
            );
        }
        let told = if deltas_only { settled.legs } else { final_legs };
        self.bury(slot, told, totals_seen);
        if session != NONE {
            self.review(session);
        }
        twin
    }

    /// Takes the allocation's record away.
    pub(crate) fn remove_allocation(&mut self, slot: u32) -> Option<allocation::Allocation> {
        let a = self.allocations.get(slot as usize)?;
        if let Ok(found) = self.allocation_table.find_entry(a.hash, |s| *s == slot) {
            found.remove();
        }
        // An entry in a list of changes finds the slot empty, and removes the row.
        self.mark(slot, Dirty::Hard);
        let a = self.allocations.try_remove(slot as usize)?;
        self.forget_counted(slot);
        self.release_group(a.group);
        Some(a)
    }
}
