//! coturn's messages, by the state of the allocation that they speak of.

use super::{Notice, Reducer, ServerRef, names::Heard, opening::Opening};
use crate::{
    allocation::{Details, Dirty},
    event::CloseReason,
    flags::Flags,
    intern::NONE,
    key::Key,
    message::{Kind, Leg, Message, Status},
    relayed::{Carried, has_relayed},
    time::{Moment, Timestamp},
    usage::{Counters, Legs},
};

impl Reducer {
    /// Takes a message that was received at `at`. Returns false where it is of no use: a repeat, or the
    /// echo of something that has ended.
    pub fn message(&mut self, at: Timestamp, server: ServerRef, message: &Message<'_>) -> bool {
        let key = self.key(server.0, message.id, message.realm, message.username);
        self.take(at, &key, message.kind)
    }

    pub(crate) fn take(&mut self, at: Timestamp, key: &Key<'_>, kind: Kind<'_>) -> bool {
        self.begin(at);
        if !self.hears_leg(kind) {
            return false;
        }
        let used = if let Some(used) = self.on_stale(key, kind) {
            used
        } else {
            match self.heard(key, kind) {
                Heard::Own(slot) => self.on_allocation(slot, key, kind),
                Heard::Ended(slot) => self.on_tombstone(slot, key, kind),
                Heard::Switched(name) => self.on_switched(key, &name, kind),
                Heard::Unknown => self.on_unknown(key, kind),
            }
        };
        if !used {
            self.outgoing.count(|stats| &mut stats.repeats);
        }
        used
    }

    fn on_unknown(&mut self, key: &Key<'_>, kind: Kind<'_>) -> bool {
        if !self.is_welcome(key, kind) {
            return true;
        }
        match kind {
            Kind::Traffic(leg, counters) => {
                self.set_aside(key, leg, counters);
            }
            Kind::New(status) => {
                // What was heard before its `new` was not relayed by it; if it is its own, the totals hold it.
                self.take_aside(key);
                self.open(
                    key,
                    Some(status),
                    Opening {
                        seen: true,
                        ..Opening::default()
                    },
                );
            }
            Kind::Refreshed(status) => {
                if let Some(slot) = self.goes_on_here(key, status, None) {
                    return self.on_allocation(slot, key, kind);
                }
                let opening = self.take_aside(key);
                self.open(key, Some(status), opening);
            }
            Kind::Deleted => {
                let opening = self.take_aside(key);
                let slot = self.open(key, None, opening);
                self.begin_closing(slot);
            }
            Kind::TotalTraffic(leg, counters) => {
                let opening = self.take_aside(key);
                let slot = self.open(key, None, opening);
                self.on_total(slot, leg, counters);
            }
        }
        true
    }

    pub(crate) fn on_allocation(&mut self, slot: u32, key: &Key<'_>, kind: Kind<'_>) -> bool {
        let now = self.now;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("a message for no allocation");
            return false;
        };
        a.heard_at = Moment::from(now);
        if a.flags.contains(Flags::SHARED) {
            return self.on_shared(slot, kind);
        }
        if let Kind::TotalTraffic(leg, total) = kind
            && self.is_total_of_before(slot, leg, total)
        {
            return false;
        }
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("a message for no allocation");
            return false;
        };
        if a.flags.contains(Flags::CLOSING) {
            return self.on_closing(slot, key, kind);
        }
        match kind {
            Kind::New(status) => return self.on_new(slot, key, status),
            Kind::Refreshed(status) => {
                a.flags.insert(Flags::TOUCHED);
                a.flags.remove(Flags::FROM_SNAPSHOT);
                if a.flags.contains(Flags::DELTAS_ONLY) {
                    self.goes_on_here(key, status, Some(slot));
                }
                self.refresh(slot, status);
            }
            Kind::Deleted => self.begin_closing(slot),
            Kind::Traffic(leg, counters) => {
                a.flags.insert(Flags::TOUCHED);
                a.flags.remove(Flags::FROM_SNAPSHOT);
                self.on_traffic(slot, leg, counters);
            }
            Kind::TotalTraffic(leg, counters) => self.on_total(slot, leg, counters),
        }
        true
    }

    /// A `new` for an allocation that is open.
    fn on_new(&mut self, slot: u32, key: &Key<'_>, status: Status<'_>) -> bool {
        let details = self.details(&status);
        let now = self.now;
        let direct = self.rules.direct;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("no allocation to open anew");
            return false;
        };
        let moved = a.remote.differs(&details.remote);
        let within = now <= a.status_at.get().plus(u64::from(a.lifetime) * 1000);
        let (here, there) = (
            self.labels.set(a.labels).local,
            self.labels.set(details.labels).local,
        );
        let other_server = here != NONE && there != NONE && here != there;
        if !direct && other_server && within {
            return self.share(slot, &details, status);
        }
        if a.flags.contains(Flags::TOUCHED) || moved {
            let copied = self.may_be_copy(slot, &details);
            let twin = self.end_now(slot, now, CloseReason::ServerRestarted, Some(now));
            self.open_next(key, status, true, twin, copied);
            return true;
        }
        let news = !a.flags.contains(Flags::OPENED_SEEN);
        if !news {
            a.rare().copied = true;
        }
        a.flags.insert(Flags::OPENED_SEEN);
        a.flags.remove(Flags::FROM_SNAPSHOT);
        self.refresh(slot, status);
        news
    }

    /// Two servers say that an allocation of this key is theirs, and nothing distinguishes their messages.
    fn share(&mut self, slot: u32, details: &Details, status: Status<'_>) -> bool {
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("no allocation to share");
            return false;
        };
        a.flags.insert(Flags::SHARED);
        let (id, labels) = (a.id, a.labels);
        let address = |set| self.labels.owned(self.labels.set(set).local).unwrap_or_default();
        let addresses = [address(labels), address(details.labels)];
        self.outgoing.count(|stats| &mut stats.shared_keys);
        self.outgoing.notice(Notice::SharedKey {
            allocation: id,
            addresses,
        });
        self.refresh_shared(slot, status)
    }

    /// Deltas are counted; nothing ends it but silence.
    fn on_shared(&mut self, slot: u32, kind: Kind<'_>) -> bool {
        match kind {
            Kind::New(status) | Kind::Refreshed(status) => self.refresh_shared(slot, status),
            Kind::Traffic(leg, counters) => {
                self.on_traffic(slot, leg, counters);
                true
            }
            Kind::Deleted | Kind::TotalTraffic(..) => {
                self.mark(slot, Dirty::Soft);
                true
            }
        }
    }

    fn refresh_shared(&mut self, slot: u32, status: Status<'_>) -> bool {
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("no shared allocation to refresh");
            return false;
        };
        a.lifetime = a.lifetime.max(status.lifetime);
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        true
    }

    /// `deleted` or a total was heard before.
    fn on_closing(&mut self, slot: u32, key: &Key<'_>, kind: Kind<'_>) -> bool {
        match kind {
            Kind::Deleted => false, // a repeat
            Kind::Traffic(_, counters) => {
                self.reported_after_end(slot, counters);
                false
            }
            Kind::Refreshed(status) if status.lifetime == 0 => false,
            Kind::New(status) | Kind::Refreshed(status) => {
                // The totals will not come any more: coturn speaks of one allocation in order.
                let seen = matches!(kind, Kind::New(_));
                let details = self.details(&status);
                let same_client = self
                    .allocation(slot)
                    .is_some_and(|a| a.remote == details.remote || a.flags.contains(Flags::MOVED));
                // A refresh after the end may be one that was heard before.
                let copied = self.may_be_copy(slot, &details) || (!seen && !self.rules.direct && same_client);
                let twin = self.settle(slot);
                self.open_next(key, status, seen, twin, copied);
                true
            }
            Kind::TotalTraffic(leg, counters) => {
                self.on_total(slot, leg, counters);
                true
            }
        }
    }

    /// A report after the end is not of this allocation, and so perhaps none of the totals that follow. Or it is a copy:
    /// then they are its own, and count as they would.
    fn reported_after_end(&mut self, slot: u32, counters: Counters) {
        let stale = self.stale_of(slot).is_some(); // from before a takeover
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("a report after the end of no allocation");
        };
        if counters != Counters::ZERO && !a.flags.contains(Flags::INEXACT) && !stale {
            a.flags.insert(Flags::INEXACT);
            self.mark(slot, Dirty::Hard);
        }
    }

    /// Nothing is reported after a total: a report after the client's is of another life, and so the peers' total may be.
    pub(crate) fn reported_after_total(&mut self, tombstone: u32, counters: Counters) {
        let Some(t) = self.tombstones.get_mut(tombstone) else {
            return self.broken("a report after the total of no tombstone");
        };
        let more = &mut t.rest.more;
        if counters != Counters::ZERO && more.client_total.is_some() && !more.inexact {
            more.inexact = true;
            self.outgoing.tombstone(tombstone);
        }
    }

    /// The next life of a key, whose last one has just ended. Where its `new` may be a copy, only what is beyond that
    /// one's is its own.
    pub(crate) fn open_next(
        &mut self,
        key: &Key<'_>,
        status: Status<'_>,
        seen: bool,
        twin: u16,
        copied: bool,
    ) {
        let before = self.find_tombstone(key).filter(|_| copied);
        let before = before.and_then(|slot| self.tombstones.get(slot));
        let opening = Opening {
            seen,
            twin,
            billed: before.map_or_else(Carried::default, |t| t.rest.carried()),
            ..Opening::default()
        };
        let slot = self.open(key, Some(status), opening);
        if copied {
            let Some(a) = self.allocations.get_mut(slot as usize) else {
                return self.broken("a next life that was just opened");
            };
            a.rare().copied = true;
        }
    }

    /// A lifetime was granted anew, or deletion asked for. Another `remote` is the same life (RFC 8016).
    pub(crate) fn refresh(&mut self, slot: u32, status: Status<'_>) {
        let details = self.details(&status);
        let now = self.now;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("no allocation to refresh");
        };
        a.heard_at = Moment::from(now);
        a.update(details, &mut self.labels);
        self.set_lifetime(slot, status.lifetime, now);
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        self.end_if_blocked(slot);
    }

    /// As of a status of `status_at`. Once its deletion was asked for, an allocation keeps no session alive.
    pub(crate) fn set_lifetime(&mut self, slot: u32, lifetime: u32, status_at: Timestamp) {
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("a lifetime of no allocation");
        };
        let leaving = a.flags.contains(Flags::LEAVING);
        if leaving && lifetime == 0 {
            return; // asked again
        }
        a.status_at = Moment::from(status_at);
        a.lifetime = lifetime;
        let session = a.session;
        if lifetime == 0 && !a.flags.contains(Flags::CLOSING) {
            a.flags.insert(Flags::LEAVING);
            let left = (a.left_at(), CloseReason::Closed);
            if session != NONE {
                self.member_closes(session, slot, left);
                self.review(session);
            }
        } else if leaving {
            a.flags.remove(Flags::LEAVING);
            a.rare().quiet_at = Timestamp(0);
            if session != NONE {
                self.member_returns(session, slot);
            }
        }
    }

    /// A delta.
    pub(crate) fn on_traffic(&mut self, slot: u32, leg: Leg, counters: Counters) {
        let now = self.now;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("traffic of no allocation");
        };
        let late = lateness(&counters);
        let wraps = late == Lateness::MayHaveWrapped && !a.flags.contains(Flags::INEXACT);
        a.flags
            .set(Flags::INEXACT, wraps || a.flags.contains(Flags::INEXACT));
        if a.flags.contains(Flags::LEAVING) && counters != Counters::ZERO {
            a.rare().quiet_at = now;
        }
        let (framing, shared, session) = (a.framing(), a.flags.contains(Flags::SHARED), a.session);
        let id = a.id;
        let mut carried = a.carried();
        // Of what may come twice, only totals say how much it is.
        let counters = if a.rare.as_ref().is_some_and(|r| r.copied) {
            Counters::ZERO
        } else {
            counters
        };
        let leaving = a.flags.contains(Flags::LEAVING);
        if let Some(counted) = self.cluster.counted_here(slot) {
            carried = counted;
        }
        let mut said = false;
        match leg {
            Leg::Client => {
                carried = carried.plus_client(counters);
                if self.peer_leg() {
                    self.halves.put(slot, now, counters, shared);
                }
            }
            Leg::Peer => {
                let client = self.halves.take(slot, now).unwrap_or_default();
                // Of one report both halves say it.
                said = lateness(&client) != Lateness::InTime;
                carried = carried.plus_peer(counters, client, framing);
            }
        }
        carried = self.not_below_billed(slot, carried);
        self.count(slot, &carried, leg == self.last_leg());
        if wraps {
            // Totals would heal the loss of the counters, and not that of this.
            self.mark(slot, Dirty::Hard);
        }
        if late != Lateness::InTime && !said {
            self.outgoing.count(|stats| &mut stats.late_reports);
            self.outgoing.notice(Notice::LateReport { allocation: id });
        }
        if leaving && session != NONE {
            self.member_left_later(session, slot);
        }
    }

    /// The leg with which a report is whole.
    pub(crate) fn last_leg(&self) -> Leg {
        if self.peer_leg() { Leg::Peer } else { Leg::Client }
    }

    /// A total: with the last of them the allocation is settled.
    pub(crate) fn on_total(&mut self, slot: u32, leg: Leg, counters: Counters) {
        let peer_leg = self.peer_leg();
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("a total of no allocation");
        };
        if !a.flags.contains(Flags::CLOSING) {
            self.begin_closing(slot);
        }
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return self.broken("a total of no allocation");
        };
        let rare = a.rare();
        match leg {
            Leg::Client => rare.client_total = Some(counters),
            Leg::Peer => rare.peer_total = Some(counters),
        }
        let complete = rare.client_total.is_some() && (rare.peer_total.is_some() || !peer_leg);
        if leg == Leg::Client && !complete {
            self.mark(slot, Dirty::Hard);
            // With this, it may become known that nothing else will come.
            self.closed_with_client_total();
            return;
        }
        if complete {
            self.settle(slot);
        } else {
            self.mark(slot, Dirty::Hard);
        }
    }

    /// Whether an allocation has relayed. Where coturn reports no peer leg, it has once it reported anything.
    pub(crate) fn has_relayed(&self, legs: &Legs, reported: bool) -> bool {
        if self.peer_leg() {
            has_relayed(legs)
        } else {
            reported && !legs.client.is_zero()
        }
    }
}

/// Whether a report was made in time: coturn makes one at 4096 packets, unless it cannot look between two of them
/// (TRAPS.md, trap 29).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lateness {
    InTime,
    Late,
    /// So many packets may hold 4 GiB.
    MayHaveWrapped,
}

/// How many packets of less than 64 KiB cannot hold 4 GiB.
pub(crate) const CANNOT_WRAP: u64 = 65_536;

pub(crate) fn lateness(report: &Counters) -> Lateness {
    let (received, sent) = (report.received_packets, report.sent_packets);
    if received > CANNOT_WRAP || sent > CANNOT_WRAP {
        Lateness::MayHaveWrapped
    } else if received.saturating_add(sent) > 4096 {
        Lateness::Late
    } else {
        Lateness::InTime
    }
}
