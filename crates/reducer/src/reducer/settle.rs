//! The end of an allocation: `deleted`, totals, expiry.

use super::{Notice, Reducer, messages::CANNOT_WRAP};
use crate::{
    allocation::{self, Dirty},
    event::{CloseReason, UnattributedReason},
    flags::Flags,
    intern::NONE,
    relayed::Carried,
    rules::Billable,
    time::Timestamp,
    totals::{self, Settled},
    usage::{Counters, Legs, Usage},
};

/// What halving loses.
const ONE: Counters = Counters {
    received_packets: 1,
    received_bytes: 1,
    sent_packets: 1,
    sent_bytes: 1,
};

impl Reducer {
    /// When the allocation's next deadline is.
    pub(crate) fn allocation_deadline(&self, slot: u32) -> Timestamp {
        let Some(a) = self.allocations.get(slot as usize) else {
            self.broken("a deadline of no allocation");
            return Timestamp::MAX;
        };
        let rare = a.rare.as_ref();
        if a.flags.contains(Flags::CLOSING) {
            return rare.map_or(self.now, |r| r.totals_due);
        }
        let lifetime = u64::from(a.lifetime) * 1000;
        let hearing = self.hearing.since(a.server);
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
            return self.broken("no allocation is due");
        };
        if a.flags.contains(Flags::CLOSING) {
            self.settle(slot);
            return;
        }
        if self.hearing.is_deaf() {
            // Nothing expires unheard. Once the source hears again, a whole lifetime counts from then.
            let patience = (u64::from(a.lifetime) * 1000)
                .saturating_add(self.rules.expiry_grace)
                .max(1000);
            return self.wake_allocation(slot, self.now.plus(patience));
        }
        let lifetime = u64::from(a.lifetime) * 1000;
        let (reason, closed_at) = if a.flags.contains(Flags::LEAVING) {
            (CloseReason::Closed, a.left_at())
        } else if a.flags.contains(Flags::SHARED) {
            (CloseReason::Expired, a.heard_at.get().plus(lifetime))
        } else {
            (CloseReason::Expired, a.status_at.get().plus(lifetime))
        };
        let closed_at = closed_at.min(self.now).max(a.opened_at.get());
        self.end_now(slot, closed_at, reason, None);
    }

    /// `deleted` was heard, or a total without it: totals are waited for.
    pub(crate) fn begin_closing(&mut self, slot: u32) {
        let (now, grace) = (self.now, self.rules.totals_grace);
        let reason = self.close_reason(slot);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to close");
        };
        let leaving = a.flags.contains(Flags::LEAVING);
        let closed_at = if leaving { a.left_at() } else { now };
        a.flags.insert(Flags::CLOSING | Flags::TOUCHED);
        a.flags.remove(Flags::LEAVING);
        let rare = a.rare();
        rare.closed = Some((closed_at, reason));
        rare.totals_due = now.plus(grace);
        let session = a.session;
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        if session != NONE && !leaving {
            self.member_closes(session, slot, (closed_at, reason));
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
        let cut = self.cut_unheard(slot, closed_at);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("no allocation to end");
            return 0;
        };
        let (was_closing, session) = (a.flags.contains(Flags::CLOSING), a.session);
        let same = next == Some(a.opened_at.get());
        let twin = if same { a.twin().saturating_add(1) } else { 0 };
        if !was_closing {
            let leaving = a.flags.contains(Flags::LEAVING);
            // One whose deletion was asked for had closed already, whatever ends the wait for its totals.
            let closed = if leaving {
                (
                    a.left_at().min(closed_at.max(a.status_at.get())),
                    CloseReason::Closed,
                )
            } else {
                cut.unwrap_or((closed_at, reason))
            };
            a.flags.insert(Flags::CLOSING);
            a.flags.remove(Flags::LEAVING);
            a.rare().closed = Some(closed);
            if session != NONE && !leaving {
                self.member_closes(session, slot, closed);
            }
        }
        self.settle(slot);
        twin
    }

    /// The allocation is over: counters become final, its session emits events, a tombstone stays.
    /// Returns the twin number for an incarnation that opens now.
    pub(crate) fn settle(&mut self, slot: u32) -> u16 {
        self.forget_asked(slot);
        self.keep_end(slot);
        let peer_leg = self.peer_leg();
        let Some(a) = self.allocation(slot) else {
            self.broken("no allocation to settle");
            return 0;
        };
        let (client_total, peer_total) = a.totals();
        let (id, framing) = (a.id, a.framing());
        let deltas_only = a.flags.intersects(Flags::DELTAS_ONLY | Flags::SHARED);
        let doubted = a.flags.contains(Flags::OVERCOUNTED);
        let twin = if a.opened_at.get() == self.now {
            a.twin().saturating_add(1)
        } else {
            0
        };
        let mut settled = totals::settle(a.legs(), client_total, peer_total, peer_leg, !doubted);
        if settled.overcounted || settled.peer_overcounted {
            let right = self.set_right(slot, client_total, peer_total);
            if settled.overcounted {
                self.outgoing.count(|stats| &mut stats.overcounted);
                if right.is_none() {
                    self.outgoing.notice(Notice::Overcounted { allocation: id });
                }
            }
            settled = right.unwrap_or(settled);
        }
        let Some(a) = self.allocation(slot) else {
            self.broken("an allocation that is gone while it is settled");
            return 0;
        };
        let totals_seen = client_total.is_some() && (peer_total.is_some() || !peer_leg);
        let counted = a.carried();
        // Only totals of one life say what went on: what was counted of another must not be in them.
        let one_life = !doubted || peer_total.is_none_or(|total| total == settled.legs.peer);
        let all = if totals_seen && one_life && !settled.overcounted && !settled.peer_overcounted {
            counted.settled(settled.legs, framing)
        } else {
            Carried {
                legs: settled.legs,
                ..counted
            }
        };
        let billed = if deltas_only { counted } else { all };
        let exact = settled.exact
            && !deltas_only
            && !doubted
            && !self.may_have_wrapped(slot, &settled.legs)
            && !self.may_have_dropped(&billed);
        let whole = totals_seen && one_life && !deltas_only && !settled.overcounted;
        self.count_as(slot, &billed, true, whole && !settled.peer_overcounted);
        if settled.overcounted
            && let Some(a) = self.allocations.get_mut(slot as usize)
        {
            a.flags.insert(Flags::OVERCOUNTED);
        }
        self.join_if_relayed(slot);
        let kin = self
            .allocation(slot)
            .and_then(|a| a.rare.as_ref())
            .is_some_and(|r| r.kin);
        if deltas_only && !settled.overcounted && !kin {
            self.record_beyond(slot, &all);
        }
        let session = self.allocation(slot).map_or(NONE, |a| a.session);
        let mut known = if deltas_only { all } else { billed };
        let (mut unbilled, mut withheld_bytes) = (None, 0);
        let unknown = self.reports_peer_leg().is_none();
        if session == NONE {
            let part = self.part(slot);
            if self.unbilled_relayed(slot) > 0 {
                self.leave_over(slot, totals_seen, exact);
            } else if unknown && self.bills_by_legs(&part) {
                self.record_unbilled(slot, UnattributedReason::Residue);
                withheld_bytes = self.withhold(slot, totals_seen, part);
            } else if totals_seen || deltas_only {
                self.record_unbilled(slot, UnattributedReason::Residue);
            } else {
                // Perhaps only one half of what it carried was heard: what its totals say is billed with both legs.
                let base = self
                    .allocation(slot)
                    .map(|a| a.base_carried())
                    .unwrap_or_default();
                unbilled = Some(known.minus(base)).filter(|unbilled| !unbilled.is_zero());
                known = base;
            }
        } else {
            let part = self.part(slot);
            let withheld = unknown && self.bills_by_legs(&part);
            self.member_settles(session, slot, totals_seen, exact && !withheld);
            if withheld {
                withheld_bytes = self.withhold(slot, totals_seen, part);
            }
        }
        if totals_seen
            && settled.peer_overcounted
            && let Some(a) = self.allocations.get_mut(slot as usize)
        {
            // Its tombstone knows its totals as far as they were believed, and not that they were not.
            a.flags.insert(Flags::INEXACT);
        }
        self.bury(slot, known, unbilled, withheld_bytes, totals_seen);
        if session != NONE {
            self.review(session);
        }
        twin
    }

    /// More was counted than the totals say. Where these are of one life for certain, what was counted and not billed
    /// yet is set right: messages that came twice. What it is then, if that is possible.
    pub(crate) fn set_right(
        &mut self,
        slot: u32,
        client_total: Option<Counters>,
        peer_total: Option<Counters>,
    ) -> Option<Settled> {
        let (rule, peer_leg) = (self.rules.billable, self.peer_leg());
        let a = self.allocation(slot)?;
        let copied = a.rare.as_ref().is_some_and(|r| r.copied);
        let doubt = Flags::MOVED | Flags::OVERCOUNTED;
        let one_life = a.flags.contains(Flags::OPENED_SEEN)
            && !a.flags.intersects(Flags::SHARED | Flags::DELTAS_ONLY)
            && (copied || !(a.flags.intersects(doubt) || self.had_gap(a.server, a.opened_at.get())));
        if !one_life {
            return None;
        }
        let (old, old_relayed, session) = (a.carried(), a.relayed(peer_leg), a.session);
        // Each message came twice at most.
        let half = old.legs.peer.zip(old.legs.peer, |n, _| n / 2);
        let peer = match peer_total.filter(|_| peer_leg) {
            Some(total) => half.zip(total, totals::unwrap_total),
            None => half,
        };
        let legs = Legs {
            client: client_total?,
            peer,
        };
        // Copies of all of it, or of some: nowhere less than there was, or more than twice as much.
        let twice = legs.plus(legs);
        let copies =
            |seen: &Counters, all: &Counters, most: &Counters| !all.exceeds(seen) && !seen.exceeds(most);
        if !copies(&old.legs.peer, &legs.peer, &twice.peer.plus(ONE))
            || !copies(&old.legs.client.max(legs.client), &legs.client, &twice.client)
        {
            return None;
        }
        // How much of it was reported in time, nobody knows.
        let may_wrap = many_packets(&legs);
        let right = if peer_total.is_some() || !peer_leg {
            Carried::default().settled(legs, a.framing())
        } else {
            Carried {
                legs,
                sent_on: (old.sent_on / 2).min(peer.received_bytes),
            }
        };
        let base = a.base_carried();
        // What was billed stands.
        let spare = match self.sessions.get(session as usize) {
            Some(s) => self.unbilled(s),
            None => Usage {
                legs: old.legs.minus(base.legs),
                billable_bytes: u64::MAX,
            },
        };
        let kept = old.legs.minus(spare.legs).max(base.legs).max(legs);
        let most_cut = if rule == Billable::Relayed {
            spare.billable_bytes
        } else {
            u64::MAX
        };
        let least_relayed = old_relayed.saturating_sub(most_cut).max(a.base_relayed());
        let relays = self.has_relayed(&legs, true);
        let relayed = if relays { right.relayed(peer_leg) } else { 0 }.max(least_relayed);
        let kept = Carried {
            legs: kept,
            sent_on: relayed.saturating_sub(kept.peer.sent_bytes).max(right.sent_on),
        };
        let whole = kept == right && relayed <= right.relayed(peer_leg);
        self.recount(slot, &kept);
        // What was not billed yet may be the other members': it goes on record with that, or would be billed beside it.
        let members = self.sessions.get(session as usize).map(|s| s.members().clone());
        for member in members.into_iter().flatten() {
            self.mark(member, Dirty::Hard);
        }
        Some(Settled {
            legs: kept.legs,
            exact: whole && peer_total.is_some() && !may_wrap,
            overcounted: !whole,
            peer_overcounted: false,
        })
    }

    /// Whether something may have been missed of an allocation that opened then.
    fn had_gap(&self, server: u32, opened_at: Timestamp) -> bool {
        self.hearing.is_deaf() || self.hearing.since(server) > opened_at
    }

    /// Whether coturn's 32-bit counters may have wrapped in a report, or in what was never reported (TRAPS.md, trap
    /// 29).
    fn may_have_wrapped(&self, slot: u32, settled: &Legs) -> bool {
        let Some(a) = self.allocation(slot) else {
            self.broken("counters of no allocation may have wrapped");
            return true;
        };
        if a.flags.contains(Flags::INEXACT) {
            return true;
        }
        let many = many_packets(&settled.minus(a.legs()));
        // Across a gap, many reports may be missing, each of them made in time: by UDP there is no TCP relay.
        let by_udp = self.labels.get(self.labels.set(a.labels).transport) == Some(b"UDP");
        many && !(by_udp && self.had_gap(a.server, a.opened_at.get()))
    }

    /// Whether more than `residue` may have gone on to the client than is certain.
    fn may_have_dropped(&self, billed: &Carried) -> bool {
        let Legs { client, peer } = billed.legs;
        let most = peer.received_bytes.min(client.sent_bytes);
        self.peer_leg() && most.saturating_sub(billed.sent_on) > self.rules.residue
    }

    /// Takes the allocation's record away.
    pub(crate) fn remove_allocation(&mut self, slot: u32) -> Option<allocation::Allocation> {
        let Some(a) = self.allocations.get(slot as usize) else {
            self.broken("no allocation to remove");
            return None;
        };
        if !self.allocation_table.remove(a.hash, slot) {
            self.internal_errors
                .broken("an allocation that is not in its table");
        }
        // An entry in a list of changes finds the slot empty, and removes the row.
        self.mark(slot, Dirty::Hard);
        let a = self
            .allocations
            .try_remove(slot as usize, &self.internal_errors)?;
        self.forget_counted(slot);
        self.halves.forget(slot);
        self.switched_realms.remove(&slot);
        self.servers.closed(a.server, &self.internal_errors);
        self.release_group(a.group);
        Some(a)
    }
}

/// Whether so many packets may hold 4 GiB, in either leg.
fn many_packets(legs: &Legs) -> bool {
    [legs.client, legs.peer]
        .iter()
        .any(|leg| leg.received_packets > CANNOT_WRAP || leg.sent_packets > CANNOT_WRAP)
}
