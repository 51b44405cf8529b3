//! Allocations that have ended: the tombstones that stay of them, and what is heard of them still.

use super::{Reducer, opening::Opening};
use crate::{
    allocation::{Details, Dirty},
    aside::{SETTLED_TTL, Tombstone, TombstoneMore, TombstoneRest, UNSETTLED_TTL, over},
    event::{Unattributed, UnattributedReason},
    flags::Flags,
    key::Key,
    message::{Kind, Leg, Status},
    relayed::{Carried, largest_framing, sent_on},
    time::Moment,
    totals::{most_of_peer, unwrap_peer},
    usage::{Counters, Legs, Usage},
};

impl Reducer {
    /// Leaves a tombstone where the allocation was.
    pub(crate) fn bury(
        &mut self,
        slot: u32,
        billed: Carried,
        unbilled: Option<Carried>,
        withheld: u64,
        totals_seen: bool,
    ) {
        let stale = self.stale_of(slot);
        let peer_leg = self.peer_leg();
        let known_relayed = if self.has_relayed(&billed.legs, true) {
            billed.relayed(peer_leg)
        } else {
            0
        };
        let Some(a) = self.remove_allocation(slot) else {
            return self.broken("no allocation to bury");
        };
        // Where another allocation of the same key had a part in it, those totals were not the last word.
        let mixed = a.flags.intersects(Flags::OVERCOUNTED | Flags::SHARED);
        let totals_seen = totals_seen && !mixed;
        // The last that ended is always kept: its `new` may come once more.
        while self.tombstones.len() >= self.rules.tombstone_limit.max(1) {
            let Some(oldest) = self.tombstones.oldest() else {
                self.broken("a full table of tombstones without an oldest");
                break;
            };
            self.forget_tombstone(oldest);
            self.tombstone_evicted();
        }
        let expires_at =
            self.cluster
                .remembers_from(self.now)
                .plus(if totals_seen { SETTLED_TTL } else { UNSETTLED_TTL });
        let twin = a.twin();
        let waited = a.rare.as_ref().map_or(0, |r| r.withheld);
        let relayed = a.relayed(peer_leg).max(a.base_relayed().saturating_sub(waited));
        // What is on record beyond what was counted is no news later.
        let beyond = a.flags.intersects(Flags::DELTAS_ONLY | Flags::SHARED);
        let relayed = if beyond {
            relayed.max(known_relayed)
        } else {
            relayed
        };
        let (reason, stopped_at) = over(a.rare.as_ref().and_then(|r| r.closed));
        let rest = TombstoneRest {
            opened_seen: a.flags.contains(Flags::OPENED_SEEN),
            twin,
            billed: billed.legs,
            continues: a.rare.as_ref().and_then(|r| r.continues),
            totals_seen,
            mixed,
            expires_at,
            more: TombstoneMore {
                sent_on: billed.sent_on,
                relayed,
                reason,
                copied: a.rare.as_ref().is_some_and(|r| r.copied),
                kin: a.rare.as_ref().is_some_and(|r| r.kin),
                client_total: a.totals().0,
                withheld: withheld.saturating_add(waited),
                unbilled,
                inexact: a.flags.contains(Flags::INEXACT),
                before: a.rare.as_ref().and_then(|r| r.before.as_deref().copied()),
                moved: a.flags.contains(Flags::MOVED),
                stopped_at,
            },
            remote: a.remote,
        };
        let tombstone = Tombstone {
            id: a.id,
            server: a.server,
            name: a.name,
            opened_at: a.opened_at.get(),
            heard_at: a.heard_at.get(),
            rest,
        };
        let hash = Reducer::hash_of(&self.hasher, &self.names, a.server, a.id, a.name);
        let slot = self
            .tombstones
            .insert(tombstone, usize::from(totals_seen), expires_at);
        self.index_tombstone(slot, hash);
        self.outgoing.tombstone(slot);
        self.stale_ended(slot, stale);
    }

    /// What is heard of for the first time from now on may have been billed before.
    fn tombstone_evicted(&mut self) {
        if self.now >= self.evicted_until {
            self.outgoing.notice(super::Notice::TombstonesEvicted);
        }
        self.outgoing.count(|stats| &mut stats.tombstones_evicted);
        let until = self.now.plus(UNSETTLED_TTL);
        let before = if self.evicted_until == until {
            self.evicted_at_once
        } else {
            0
        };
        self.evicted_at_once = before.saturating_add(1);
        self.evicted_until = until;
        self.outgoing.source();
    }

    /// Distinguishes the incarnations that open now from those that opened and were forgotten at this very
    /// instant: their tombstones would have done it.
    pub(crate) fn least_twin(&self) -> u16 {
        let now = self.evicted_until == self.now.plus(UNSETTLED_TTL);
        if now { self.evicted_at_once } else { 0 }
    }

    pub(crate) fn index_tombstone(&mut self, slot: u32, hash: u64) {
        self.tombstone_table.insert(hash, slot);
    }

    pub(crate) fn forget_tombstone(&mut self, slot: u32) -> Option<Tombstone> {
        self.record_forgotten(slot);
        let Some(t) = self.tombstones.get(slot) else {
            self.broken("no tombstone to forget");
            return None;
        };
        let hash = Reducer::hash_of(&self.hasher, &self.names, t.server, t.id, t.name);
        if !self.tombstone_table.remove(hash, slot) {
            self.internal_errors
                .broken("a tombstone that is not in its table");
        }
        let t = self.tombstones.remove(slot, &self.internal_errors)?;
        self.stale_ended(slot, None);
        self.outgoing.tombstone(slot);
        self.release_name(t.name);
        Some(t)
    }

    /// What an ended allocation carried and nobody was billed for is on record once nothing more can be heard of it.
    fn record_forgotten(&mut self, slot: u32) {
        let rule = self.rules.billable;
        let Some(t) = self.tombstones.get_mut(slot) else {
            return self.broken("no tombstone to record");
        };
        let Some(unbilled) = t.rest.more.unbilled.take() else {
            return; // nothing of it is left to record
        };
        let Some(t) = self.tombstones.get(slot) else {
            return self.broken("no tombstone to record");
        };
        let usage = Usage {
            legs: unbilled.legs,
            billable_bytes: rule.bytes(&unbilled.legs, 0),
        };
        self.outgoing.unattributed(Unattributed {
            // Whenever that is looked for.
            at: self.wall.at(self.now.min(t.rest.expires_at)),
            server: self.servers.owned(t.server),
            realm: self.names.realm(t.name).into(),
            username: self.names.username(t.name).into(),
            allocation: t.id,
            opened_at: self.wall.at(t.opened_at),
            reason: UnattributedReason::Residue,
            usage,
        });
    }

    /// A message for an allocation that has ended.
    pub(crate) fn on_tombstone(&mut self, slot: u32, key: &Key<'_>, kind: Kind<'_>) -> bool {
        let now = self.now;
        let Some(t) = self.tombstones.get_mut(slot) else {
            self.broken("a message for no tombstone");
            return false;
        };
        t.heard_at = now;
        let billed = t.rest.billed;
        let (copied, moved) = (t.rest.more.copied, t.rest.more.moved);
        let (totals_seen, mixed) = (t.rest.totals_seen, t.rest.mixed);
        let twin = if t.opened_at == now {
            t.rest.twin.saturating_add(1)
        } else {
            0
        };
        match kind {
            // Perhaps forged, perhaps of a next life: that will be known once a status or totals come.
            Kind::Traffic(..) if copied => false,
            Kind::Traffic(leg, counters) => {
                self.reported_after_total(slot, counters);
                self.set_aside(key, leg, counters)
            }
            Kind::New(status) => {
                let details = self.details(&status);
                if self.is_copy_of_ended(slot, &details) {
                    if let Some(t) = self.tombstones.get_mut(slot) {
                        t.rest.more.copied = true;
                        // If it is none, the totals that come are not of the life of which this one is.
                        t.rest.more.client_total = None;
                        self.outgoing.tombstone(slot);
                    }
                    return false;
                }
                if !self.is_welcome(key, kind) {
                    return true;
                }
                self.take_aside(key);
                self.open(
                    key,
                    Some(status),
                    Opening {
                        seen: true,
                        twin,
                        ..Opening::default()
                    },
                );
                true
            }
            Kind::Refreshed(status) if status.lifetime == 0 && totals_seen => false,
            Kind::Refreshed(status) => {
                let details = self.details(&status);
                let another = self.is_another(slot, &details);
                if another && totals_seen && moved && !self.rules.direct {
                    // From where its client was before: perhaps it was said then, and comes once more.
                    self.take_aside(key);
                    self.open_next(key, status, false, twin, true);
                } else if another {
                    let opening = self.after_ended(slot, key);
                    self.open(key, Some(status), Opening { twin, ..opening });
                } else {
                    self.revive(slot, key, Some(status));
                }
                true
            }
            Kind::Deleted if totals_seen => false,
            Kind::Deleted => {
                if let Some(slot) = self.revive(slot, key, None) {
                    // Its totals are yet to come.
                    if let Some(a) = self.allocations.get_mut(slot as usize) {
                        a.rare().client_total = None;
                    }
                    self.begin_closing(slot);
                }
                true
            }
            // The deltas of which it is the total may have been billed already.
            Kind::TotalTraffic(Leg::Client, total) if mixed && billed.client.exceeds(&total) => false,
            Kind::TotalTraffic(leg, total) if self.is_total_before_ended(slot, leg, total) => false,
            Kind::TotalTraffic(leg, total) => self.on_late_total(slot, key, leg, total, &billed, twin),
        }
    }

    /// What waits to be billed by itself as long as nobody knows that there is a peer leg.
    pub(crate) fn waits_still(&self, withheld: u64) -> u64 {
        if self.reports_peer_leg() == Some(true) {
            0
        } else {
            withheld
        }
    }

    fn on_late_total(
        &mut self,
        slot: u32,
        key: &Key<'_>,
        leg: Leg,
        total: Counters,
        billed: &Legs,
        twin: u16,
    ) -> bool {
        let (billed, lives_on) = match leg {
            Leg::Client => (billed.client, !billed.client.exceeds(&total)),
            // Smaller than what was billed, it may be a wrap: where the client's leg says so, and not else.
            // A wrong guess would bill 4 GiB that never were.
            Leg::Peer => (
                billed.peer,
                unwrap_peer(billed.peer, total, most_of_peer(billed.client)).1,
            ),
        };
        let wrapped = |c: Counters| c.zip(Counters::default(), |n, _| n & 0xffff_ffff);
        if total == billed || (leg == Leg::Peer && wrapped(total) == wrapped(billed)) {
            // Billed already. With the other leg's total it may be more.
            if leg == Leg::Client
                && let Some(t) = self.tombstones.get_mut(slot)
                && !t.rest.totals_seen
            {
                t.rest.more.client_total = Some(total);
                self.outgoing.tombstone(slot);
            }
            if leg == Leg::Client || !self.more_went_on(slot) {
                return false;
            }
        }
        if lives_on {
            if let Some(slot) = self.revive(slot, key, None) {
                self.on_total(slot, leg, total);
            }
            return true;
        }
        if leg == Leg::Peer {
            return false;
        }
        let opening = self.after_ended(slot, key);
        let slot = self.open(key, None, Opening { twin, ..opening });
        self.on_total(slot, leg, total);
        true
    }

    /// Whether both totals of an allocation that has ended, which say no more than was billed, show that more of it
    /// went on to the client than was certain by the reports: one half of one was lost.
    fn more_went_on(&self, slot: u32) -> bool {
        let heard = self.tombstones.get(slot).map(|t| &t.rest);
        heard.is_some_and(|rest| {
            !rest.totals_seen
                && !rest.mixed
                && rest.more.client_total == Some(rest.billed.client)
                && sent_on(&rest.billed, largest_framing(false, true), 0) > rest.more.sent_on
        })
    }

    /// A next life of which the `new` was not heard. Where the totals of the one that ended were not seen,
    /// deltas of the next may have been taken for its own and billed: only what goes beyond is billed.
    pub(crate) fn after_ended(&mut self, tombstone: u32, key: &Key<'_>) -> Opening {
        let ended = self.tombstones.get(tombstone).filter(|t| !t.rest.totals_seen);
        Opening {
            billed: ended.map_or_else(Carried::default, |t| t.rest.carried()),
            ..self.take_aside(key)
        }
    }

    /// Whether a status from there is of another life than the one that ended. Where two allocations had a
    /// part in that one, either may come back.
    pub(crate) fn is_another(&self, tombstone: u32, details: &Details) -> bool {
        let ended = self.tombstones.get(tombstone);
        ended.is_some_and(|t| !t.rest.mixed && t.rest.remote.differs(&details.remote))
    }

    /// It lives on, parked, counted from what was billed.
    pub(crate) fn revive(
        &mut self,
        tombstone: u32,
        key: &Key<'_>,
        status: Option<Status<'_>>,
    ) -> Option<u32> {
        let kept = self.take_aside(key);
        let stopped = self.was_stopped(tombstone);
        let Some(t) = self.tombstones.get_mut(tombstone) else {
            self.broken("no tombstone to revive");
            return None;
        };
        let (opened_at, mut rest) = (t.opened_at, t.rest.clone());
        let carried = rest.carried().plus(rest.more.unbilled.take().unwrap_or_default());
        t.rest.more.unbilled = None;
        let opening = Opening {
            seen: rest.opened_seen,
            twin: rest.twin,
            carried,
            ..Opening::default()
        };
        // After its client's total nothing but its peers' comes.
        let settled = rest.totals_seen || rest.more.client_total.is_some();
        let copied_or_settled = rest.more.copied || (settled && !self.rules.direct);
        let withheld = self.waits_still(rest.more.withheld);
        // This also takes the tombstone away.
        let slot = self.insert_allocation(key, status, opening);
        let Some(a) = self.allocations.get(slot as usize) else {
            self.broken("an allocation that was just revived");
            return None;
        };
        self.keep_revived(slot, (a.server, a.id, a.name), opened_at);
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("an allocation that was just revived");
            return None;
        };
        a.opened_at = Moment::from(opened_at);
        a.flags.insert(Flags::REVIVED);
        a.flags.set(Flags::OVERCOUNTED, rest.mixed);
        a.flags.set(Flags::INEXACT, rest.more.inexact || kept.inexact);
        a.flags.set(Flags::MOVED, rest.more.moved);
        a.flags.insert(Flags::TOUCHED | Flags::REPORTED);
        a.flags.set(Flags::DELTAS_ONLY, rest.more.kin);
        if a.remote == crate::allocation::Address::None {
            a.remote = rest.remote.clone();
        }
        let rare = a.rare();
        rare.twin = rest.twin;
        // Both its totals were heard: what comes a moment later may be a copy, of which only totals say how much it is.
        rare.copied = copied_or_settled;
        rare.kin = rest.more.kin;
        // Together with totals of another life it would make a whole that never was.
        rare.client_total = rest
            .more
            .client_total
            .filter(|_| !rest.totals_seen && status.is_none());
        rare.base = rest.billed;
        rare.base_sent_on = rest.more.sent_on;
        rare.base_relayed = rest.more.relayed;
        rare.withheld = withheld;
        rare.continues = rest.continues;
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        if !kept.carried.is_zero() && !copied_or_settled {
            let carried = carried.plus(kept.carried);
            self.count(slot, &carried, kept.reported);
        }
        if let Some(server) = stopped {
            self.had_not_stopped(server);
        }
        Some(slot)
    }
}
