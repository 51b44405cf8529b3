//! Allocations that no session counts: parked at the end of one, and what they relayed since. Those that ended: `ended.rs`.

use super::Reducer;
use crate::{
    event::{Unattributed, UnattributedReason},
    flags::Flags,
    intern::NONE,
    relayed::Carried,
    usage::Usage,
};

impl Reducer {
    /// Relayed bytes that no session has billed.
    pub(crate) fn unbilled_relayed(&self, slot: u32) -> u64 {
        let peer_leg = self.peer_leg();
        let Some(a) = self.allocation(slot) else {
            self.broken("no allocation that may have relayed");
            return 0;
        };
        a.relayed(peer_leg).saturating_sub(a.base_relayed())
    }

    /// A parked allocation that has relayed joins its group's session. Where there is none, it opens one
    /// that continues the old, once what it relayed is worth a session: connectivity checks that are first
    /// reported when an idle allocation closes must not make a session of their own.
    pub(crate) fn join_if_relayed(&mut self, slot: u32) {
        let unbilled = self.unbilled_relayed(slot);
        let Some(a) = self.allocations.get(slot as usize) else {
            return self.broken("no allocation to join");
        };
        if a.session != NONE || unbilled == 0 {
            return;
        }
        let current = self.groups.current(a.group);
        if current != NONE {
            self.join(slot, current);
            self.start_if_relayed(current);
            self.review(current);
        } else if a.flags.contains(Flags::REVIVED) || unbilled >= self.rules.residue {
            let continues = a.rare.as_ref().and_then(|r| r.continues);
            self.open_session(slot, continues);
            let session = self.allocations.get(slot as usize).map_or(NONE, |a| a.session);
            self.start_if_relayed(session);
        }
    }

    /// On record what an allocation carried and no session bills.
    pub(crate) fn record_unbilled(&mut self, slot: u32, reason: UnattributedReason) {
        let part = self.part(slot);
        self.record_unattributed(slot, part, reason);
    }

    /// On record what its totals say beyond what is billed of it.
    pub(crate) fn record_beyond(&mut self, slot: u32, all: &Carried) {
        let (rule, peer_leg) = (self.rules.billable, self.peer_leg());
        let Some(a) = self.allocation(slot) else {
            return self.broken("no allocation to record");
        };
        let (legs, relayed) = (a.legs(), a.relayed(peer_leg));
        let all_relayed = if self.has_relayed(&all.legs, true) {
            all.relayed(peer_leg)
        } else {
            0
        };
        let usage = Usage {
            legs: all.legs.minus(legs),
            billable_bytes: rule
                .bytes(&all.legs, all_relayed.max(relayed))
                .saturating_sub(rule.bytes(&legs, relayed)),
        };
        self.record_unattributed(slot, usage, UnattributedReason::Evicted);
    }

    fn record_unattributed(&mut self, slot: u32, usage: Usage, reason: UnattributedReason) {
        if usage.legs.is_zero() {
            return;
        }
        let Some(a) = self.allocation(slot) else {
            return self.broken("no allocation to record");
        };
        self.outgoing.unattributed(Unattributed {
            at: self.wall.at(self.now),
            server: self.servers.owned(a.server),
            realm: self.names.realm(a.name).into(),
            username: self.names.username(a.name).into(),
            allocation: a.id,
            opened_at: self.wall.at(a.opened_at.get()),
            reason,
            usage,
        });
    }
}
