//! What a follower heard and the old leader did not commit, brought into the committed state: counters,
//! openings, closings, and totals of what was billed without them. `takeover.rs` finds out what it is.

use super::{
    super::{Reducer, opening::Opening},
    life::Life,
};
use crate::{
    allocation::{Details, Dirty},
    event::CloseReason,
    flags::Flags,
    intern::NONE,
    key::Key,
    message::Leg,
    relayed::Carried,
    time::{Moment, Timestamp},
    usage::{Counters, Legs},
};

impl Reducer {
    /// What a follower knows of an allocation that is open here too.
    pub(crate) fn merge_life(&mut self, slot: u32, life: &Life, details: Details) {
        let now = self.now;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to merge a life into");
        };
        let news = life.flags.contains(Flags::SHARED) && !a.flags.contains(Flags::SHARED);
        a.flags |= life.flags & Flags::TOUCHED;
        if !life.flags.contains(Flags::FROM_SNAPSHOT) {
            a.flags.remove(Flags::FROM_SNAPSHOT);
        }
        if !a.flags.contains(Flags::CLOSING) {
            a.flags |= life.flags & Flags::SHARED;
        }
        a.heard_at = Moment::from(a.heard_at.get().max(life.heard_at));
        let has_status =
            life.lifetime > 0 || life.flags.contains(Flags::OPENED_SEEN) || details != Details::default();
        let has_status = has_status && (life.ended_at.is_none() || life.lifetime > 0);
        let later = has_status && life.status_at > a.status_at.get();
        if later && !a.flags.contains(Flags::CLOSING) {
            a.update(details, &mut self.labels);
            self.set_lifetime(slot, life.lifetime, life.status_at);
        }
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to merge a life into");
        };
        a.flags |= life.flags & (Flags::MOVED | Flags::INEXACT);
        if a.flags.contains(Flags::LEAVING) && life.quiet_at > Timestamp(0) {
            // It did not go on longer than to the moment at which that is brought in.
            a.rare().quiet_at = life.quiet_at.min(now);
        }
        let before = a.carried();
        let carried = before.max(life.carried);
        if carried.legs.peer != before.legs.peer {
            // What waits here for its other half may have found it there: not to be paired with the next report's.
            self.halves.forget(slot);
        }
        if life.counted.legs != carried.legs {
            self.cluster.counted.insert(slot, life.counted);
        }
        if news || later {
            self.mark(slot, Dirty::Hard);
        }
        self.count(slot, &carried, life.flags.contains(Flags::REPORTED));
        self.arm_allocation(slot);
    }

    /// A life that is not committed; what is known of an earlier one is over with it. `doubted` may have been billed of
    /// that, and be of this one: only what goes beyond is.
    pub(crate) fn open_life(
        &mut self,
        key: &Key<'_>,
        life: &Life,
        doubted: &Carried,
        details: Details,
        clock: Timestamp,
    ) {
        let now = self.now;
        if let Some(slot) = self.find_allocation(key) {
            let closing = self
                .allocations
                .get(slot as usize)
                .is_some_and(|a| a.flags.contains(Flags::CLOSING));
            if closing {
                self.settle(slot);
            } else {
                self.end_now(slot, now, CloseReason::ServerRestarted, Some(now));
            }
        }
        self.take_aside(key);
        let slot = self.insert_allocation(
            key,
            None,
            Opening {
                seen: life.flags.contains(Flags::OPENED_SEEN),
                from_snapshot: life.flags.contains(Flags::FROM_SNAPSHOT),
                carried: life.carried.max(*doubted).minus(*doubted),
                reported: life.flags.contains(Flags::REPORTED),
                twin: life.twin,
                billed: life.billed.plus(*doubted),
                inexact: life.flags.contains(Flags::INEXACT),
            },
        );
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("an allocation that was just opened");
        };
        a.opened_at = Moment::from(life.opened_at.min(now));
        a.heard_at = Moment::from(life.heard_at);
        a.status_at = Moment::from(life.status_at);
        a.lifetime = life.lifetime;
        a.remote = details.remote;
        a.set_labels(details.labels, &self.labels);
        a.flags |= life.flags
            & (Flags::TOUCHED
                | Flags::SHARED
                | Flags::DELTAS_ONLY
                | Flags::MOVED
                | Flags::INEXACT
                | Flags::LEAVING);
        if life.quiet_at > Timestamp(0) {
            a.rare().quiet_at = life.quiet_at.min(now);
        }
        if life.counted.legs != life.carried.legs || !doubted.is_zero() {
            self.cluster.counted.insert(slot, life.billed.plus(life.counted));
        }
        let group = self.allocations.get(slot as usize).map_or(NONE, |a| a.group);
        if self.groups.current(group) == NONE {
            // Up to the committed clock, the group's previous session may have lasted.
            self.groups.session_ended(group, clock, &self.internal_errors);
        }
        self.enter_group(slot);
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
    }

    /// What the follower heard of its end.
    pub(crate) fn close_life(&mut self, key: &Key<'_>, life: &Life, brought: bool) {
        let Some((slot, (closed_at, reason))) = self.find_allocation(key).zip(life.closed) else {
            return self.late_totals(key, life); // it had ended before, or goes on
        };
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to close");
        };
        if a.flags.contains(Flags::SHARED) {
            return;
        }
        let (opened_at, closing) = (a.opened_at.get(), a.flags.contains(Flags::CLOSING));
        match reason {
            // Whether its time ran out is seen from all statuses together.
            CloseReason::Expired if !brought => {}
            CloseReason::Closed | CloseReason::Cancelled => {
                if !closing {
                    self.begin_closing(slot);
                }
                self.totals_of_life(slot, life);
            }
            CloseReason::Expired
            | CloseReason::ServerStopped
            | CloseReason::ServerRestarted
            | CloseReason::MaxSession => {
                self.end_now(slot, closed_at.max(opened_at), reason, None);
            }
        }
    }

    fn totals_of_life(&mut self, slot: u32, life: &Life) {
        let known = self.allocation(slot).map(|a| a.totals()).unwrap_or_default();
        let agrees = |known: Option<Counters>, heard: Option<Counters>| known.is_none() || known == heard;
        // One total of each node may be of two lives, and make a whole that never was.
        let agree = agrees(known.0, life.client_total) && agrees(known.1, life.peer_total);
        if let Some(a) = self.allocations.get_mut(slot as usize) {
            a.flags |= life.flags & Flags::INEXACT;
            a.flags
                .set(Flags::INEXACT, !agree || a.flags.contains(Flags::INEXACT));
        }
        for (leg, total) in [(Leg::Client, life.client_total), (Leg::Peer, life.peer_total)] {
            let known = self.allocations.get(slot as usize).map(|a| a.totals());
            let missing = match (leg, known) {
                (_, None) => false,
                (Leg::Client, Some((client, _))) => client.is_none(),
                (Leg::Peer, Some((_, peer))) => peer.is_none(),
            };
            if let Some(total) = total.filter(|_| missing) {
                self.on_total(slot, leg, total);
            }
        }
    }

    /// Totals that only the follower heard, of an allocation that was billed without them.
    pub(crate) fn late_totals(&mut self, key: &Key<'_>, life: &Life) {
        let Some(slot) = self.find_tombstone(key) else {
            return; // it goes on, or was forgotten
        };
        let Some(t) = self.tombstones.get(slot) else {
            return self.broken("a tombstone that was just found");
        };
        let billed = t.rest.billed;
        if t.rest.totals_seen || !life.has_more_than(&t.rest.carried()) {
            return;
        }
        let believed = life.believed_peer_total(&billed);
        let mut life = Life {
            peer_total: believed.map(|(total, _)| total),
            ..life.clone()
        };
        let is_total = life.cannot_have_wrapped() && believed.is_none_or(|(_, is_its)| is_its);
        if let Some(slot) = self.revive(slot, key, None) {
            if life.client_total.is_some()
                && let Some(a) = self.allocations.get_mut(slot as usize)
            {
                a.rare().client_total = None; // both totals are of what the follower heard
            }
            self.begin_closing(slot);
            if let Some(peer) = life.peer_total.filter(|_| !is_total) {
                // Whether what was billed had missed a wrap, or was of another life, is not known any more: not called a
                // total, by whoever takes over next either.
                if let Some(a) = self.allocations.get_mut(slot as usize) {
                    a.flags.insert(Flags::INEXACT);
                }
                let before = self.allocation(slot).map(|a| a.carried()).unwrap_or_default();
                let legs = billed.max(Legs { peer, ..billed });
                // As far as it is certain here that it went on to the client.
                let sent_on = before.sent_on.max(life.carried.sent_on);
                self.count(slot, &Carried { legs, sent_on }, true);
                life.peer_total = None;
            }
            self.totals_of_life(slot, &life);
        }
    }
}
