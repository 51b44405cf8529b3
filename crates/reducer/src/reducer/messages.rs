//! coturn's messages, by the state of the allocation that they speak of.

use super::{Key, Notice, Reducer, ServerRef};
use crate::{
    allocation::{Address, Allocation, Details, Dirty},
    aside::Unconfirmed,
    event::CloseReason,
    flags::Flags,
    intern::NONE,
    labels::LabelSet,
    message::{Kind, Leg, Message, Status},
    time::{Moment, Timestamp},
    usage::{Counters, Legs},
};

/// How long an unconfirmed id is kept: coturn's longest lifetime by default (`max-allocate-lifetime`), in
/// which an allocation that lives must be refreshed.
const UNCONFIRMED_TTL: u64 = 3_600_000;

/// How an allocation is first heard of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    /// By its `new`.
    pub(crate) seen: bool,
    pub(crate) from_snapshot: bool,
    /// What was heard of it while it was unconfirmed.
    pub(crate) legs: Legs,
    /// What was told of an earlier life of its key, and may hold deltas of this one: counted from there on.
    pub(crate) told: Legs,
    pub(crate) reported: bool,
    pub(crate) twin: u16,
}

/// Notices that are kept until they are taken.
const NOTICES: usize = 1000;

impl Reducer {
    /// Takes a message that was received at `at`. Returns false where it is of no use: a repeat, or the
    /// echo of something that has ended.
    pub fn message(&mut self, at: Timestamp, server: ServerRef, message: &Message<'_>) -> bool {
        self.begin(at);
        if !self.rules.peer_leg
            && matches!(
                message.kind,
                Kind::Traffic(Leg::Peer, _) | Kind::TotalTraffic(Leg::Peer, _)
            )
        {
            return false;
        }
        let key = self.key(server.0, message.id, message.realm, message.username);
        let used = if let Some(used) = self.on_stale(&key, message.kind) {
            used
        } else if let Some(slot) = self.find_allocation(&key) {
            self.on_allocation(slot, &key, message.kind)
        } else if let Some(slot) = self.find_tombstone(&key) {
            self.on_tombstone(slot, &key, message.kind)
        } else {
            self.on_unknown(&key, message.kind)
        };
        if !used {
            self.stats.repeats += 1;
        }
        used
    }

    fn on_unknown(&mut self, key: &Key<'_>, kind: Kind<'_>) -> bool {
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

    fn on_allocation(&mut self, slot: u32, key: &Key<'_>, kind: Kind<'_>) -> bool {
        let now = self.now;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return false;
        };
        a.heard_at = Moment::from(now);
        if a.flags.contains(Flags::SHARED) {
            return self.on_shared(slot, kind);
        }
        if a.flags.contains(Flags::CLOSING) {
            return self.on_closing(slot, key, kind);
        }
        match kind {
            Kind::New(status) => return self.on_new(slot, key, status),
            Kind::Refreshed(status) => {
                a.flags.insert(Flags::TOUCHED);
                a.flags.remove(Flags::FROM_SNAPSHOT);
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
            let twin = self.end_now(slot, now, CloseReason::ServerRestarted, Some(now));
            self.open(
                key,
                Some(status),
                Opening {
                    seen: true,
                    twin,
                    ..Opening::default()
                },
            );
            return true;
        }
        let news = !a.flags.contains(Flags::OPENED_SEEN);
        a.flags.insert(Flags::OPENED_SEEN);
        a.flags.remove(Flags::FROM_SNAPSHOT);
        self.refresh(slot, status);
        news
    }

    /// Two servers say that an allocation of this key is theirs, and nothing tells their messages apart.
    fn share(&mut self, slot: u32, details: &Details, status: Status<'_>) -> bool {
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return false;
        };
        a.flags.insert(Flags::SHARED);
        let (id, labels) = (a.id, a.labels);
        let address = |set| self.labels.owned(self.labels.set(set).local).unwrap_or_default();
        let addresses = [address(labels), address(details.labels)];
        self.stats.shared_keys += 1;
        self.notice(Notice::SharedKey {
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
        if let Some(a) = self.allocations.get_mut(slot as usize) {
            a.lifetime = a.lifetime.max(status.lifetime);
        }
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        true
    }

    /// `deleted` or a total was heard before.
    fn on_closing(&mut self, slot: u32, key: &Key<'_>, kind: Kind<'_>) -> bool {
        match kind {
            // A repeat; or traffic that comes after the end, and so is not of this allocation.
            Kind::Deleted | Kind::Traffic(..) => false,
            Kind::Refreshed(status) if status.lifetime == 0 => false,
            Kind::New(status) | Kind::Refreshed(status) => {
                // The totals will not come any more: coturn tells of one allocation in order.
                let twin = self.settle(slot);
                let seen = matches!(kind, Kind::New(_));
                self.open(
                    key,
                    Some(status),
                    Opening {
                        seen,
                        twin,
                        ..Opening::default()
                    },
                );
                true
            }
            Kind::TotalTraffic(leg, counters) => {
                self.on_total(slot, leg, counters);
                true
            }
        }
    }

    /// A lifetime was granted anew, or deletion asked for. Another `remote` is the same life (RFC 8016).
    pub(crate) fn refresh(&mut self, slot: u32, status: Status<'_>) {
        let details = self.details(&status);
        let now = self.now;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return;
        };
        a.status_at = Moment::from(now);
        a.lifetime = status.lifetime;
        a.heard_at = Moment::from(now);
        a.update(details, &mut self.labels);
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
    }

    /// A delta.
    pub(crate) fn on_traffic(&mut self, slot: u32, leg: Leg, counters: Counters) {
        let last_leg = if self.rules.peer_leg {
            Leg::Peer
        } else {
            Leg::Client
        };
        let Some(a) = self.allocations.get(slot as usize) else {
            return;
        };
        let mut legs = a.legs();
        if let Some(counted) = self.counted.get(&slot) {
            legs = *counted;
        }
        match leg {
            Leg::Client => legs.client = legs.client.plus(counters),
            Leg::Peer => legs.peer = legs.peer.plus(counters),
        }
        if !self.counted.is_empty() {
            legs = self.not_below_told(slot, legs);
        }
        self.count(slot, &legs, leg == last_leg);
    }

    /// A total: with the last of them the allocation is settled.
    pub(crate) fn on_total(&mut self, slot: u32, leg: Leg, counters: Counters) {
        let peer_leg = self.rules.peer_leg;
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return;
        };
        if !a.flags.contains(Flags::CLOSING) {
            self.begin_closing(slot);
        }
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            return;
        };
        let rare = a.rare();
        match leg {
            Leg::Client => rare.client_total = Some(counters),
            Leg::Peer => rare.peer_total = Some(counters),
        }
        let complete = rare.client_total.is_some() && (rare.peer_total.is_some() || !peer_leg);
        if complete {
            self.settle(slot);
        } else {
            self.mark(slot, Dirty::Hard);
        }
    }

    /// Traffic of an id that nobody has confirmed: kept aside, in a bounded table, for a bounded time. Not by
    /// a follower: the leader may know the id, and tell what is said of it.
    pub(crate) fn set_aside(&mut self, key: &Key<'_>, leg: Leg, counters: Counters) -> bool {
        if self.is_following() {
            return true;
        }
        let last_leg = if self.rules.peer_leg {
            Leg::Peer
        } else {
            Leg::Client
        };
        let slot = match self.find_unconfirmed(key) {
            Some(slot) => slot,
            None if self.rules.unconfirmed_limit == 0 => {
                self.stats.unconfirmed_evicted += 1;
                return true;
            }
            None => {
                while self.unconfirmed.len() >= self.rules.unconfirmed_limit {
                    let Some(oldest) = self.unconfirmed.oldest() else {
                        break;
                    };
                    self.forget_unconfirmed(oldest);
                    self.stats.unconfirmed_evicted += 1;
                }
                let name = self.names.hold(key.realm, key.username);
                let entry = Unconfirmed {
                    id: key.id,
                    server: key.server,
                    name,
                    legs: Legs::default(),
                    reported: false,
                };
                let slot = self.unconfirmed.insert(entry, 0, self.now.plus(UNCONFIRMED_TTL));
                let (aside, names, hasher) = (&self.unconfirmed, &self.names, &self.hasher);
                self.unconfirmed_table.insert_unique(key.hash, slot, |slot| {
                    aside
                        .get(*slot)
                        .map_or(0, |u| Reducer::hash_of(hasher, names, u.server, u.id, u.name))
                });
                slot
            }
        };
        if let Some(entry) = self.unconfirmed.get_mut(slot) {
            match leg {
                Leg::Client => entry.legs.client = entry.legs.client.plus(counters),
                Leg::Peer => entry.legs.peer = entry.legs.peer.plus(counters),
            }
            entry.reported |= leg == last_leg;
        }
        true
    }

    /// Takes out of the table of the unconfirmed what was kept for this key.
    pub(crate) fn take_aside(&mut self, key: &Key<'_>) -> Opening {
        let kept = self
            .find_unconfirmed(key)
            .and_then(|slot| self.forget_unconfirmed(slot));
        kept.map_or_else(Opening::default, |u| Opening {
            legs: u.legs,
            reported: u.reported,
            ..Opening::default()
        })
    }

    pub(crate) fn forget_unconfirmed(&mut self, slot: u32) -> Option<Unconfirmed> {
        let entry = self.unconfirmed.get(slot)?;
        let hash = Reducer::hash_of(&self.hasher, &self.names, entry.server, entry.id, entry.name);
        if let Ok(found) = self.unconfirmed_table.find_entry(hash, |s| *s == slot) {
            found.remove();
        }
        let entry = self.unconfirmed.remove(slot)?;
        self.release_name(entry.name);
        Some(entry)
    }

    /// Drops what was kept aside for long enough.
    pub(crate) fn expire_aside(&mut self) {
        while let Some(slot) = self.unconfirmed.expired(self.now) {
            self.forget_unconfirmed(slot);
            self.stats.unconfirmed_expired += 1;
        }
        while let Some(slot) = self.tombstones.expired(self.tombstones_expire_at()) {
            self.forget_tombstone(slot);
        }
    }

    /// Opens an allocation and has a session of its group count it.
    pub(crate) fn open(&mut self, key: &Key<'_>, status: Option<Status<'_>>, opening: Opening) -> u32 {
        let slot = self.insert_allocation(key, status, opening);
        self.enter_group(slot);
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        slot
    }

    /// Only the record, in no session.
    pub(crate) fn insert_allocation(
        &mut self,
        key: &Key<'_>,
        status: Option<Status<'_>>,
        opening: Opening,
    ) -> u32 {
        // A new incarnation: what was told of the old one cannot be added to any more.
        if let Some(tombstone) = self.find_tombstone(key) {
            self.forget_tombstone(tombstone);
        }
        let name = self.names.hold(key.realm, key.username);
        let group = self.group_of(name);
        let details = status.map_or_else(Details::default, |s| self.details(&s));
        let doubted = !opening.told.is_zero();
        let mut flags = Flags::empty();
        flags.set(Flags::OPENED_SEEN, opening.seen);
        flags.set(Flags::FROM_SNAPSHOT, opening.from_snapshot);
        flags.set(Flags::TOUCHED, !opening.seen && !opening.from_snapshot);
        flags.set(Flags::REPORTED, opening.reported);
        flags.set(Flags::RELAYED, self.has_relayed(&opening.legs, opening.reported));
        flags.set(Flags::DELTAS_ONLY, !opening.seen && self.now < self.evicted_until);
        flags.set(Flags::OVERCOUNTED, doubted);
        let mut allocation = Allocation::new(key.id, key.server, name, group, self.now);
        allocation.hash = key.hash;
        allocation.flags = flags;
        allocation.lifetime = status.map_or(0, |s| s.lifetime);
        allocation.remote = details.remote;
        allocation.labels = details.labels;
        allocation.set_legs(&opening.told.plus(opening.legs));
        let twin = opening.twin.max(self.least_twin());
        if twin > 0 {
            allocation.rare().twin = twin;
        }
        if doubted {
            allocation.rare().base = opening.told;
        }
        let slot = self.allocations.insert(allocation) as u32;
        self.index_allocation(slot, key.hash);
        if let Some(follower) = self.follower.as_mut() {
            follower.unseen.insert(slot);
        }
        slot
    }

    pub(crate) fn index_allocation(&mut self, slot: u32, hash: u64) {
        let allocations = &self.allocations;
        self.allocation_table.insert_unique(hash, slot, |slot| {
            allocations.get(*slot as usize).map_or(0, |a| a.hash)
        });
    }

    pub(crate) fn details(&mut self, status: &Status<'_>) -> Details {
        let labels = LabelSet {
            local: self.labels.optional(status.local),
            transport: self.labels.optional(status.transport),
            tls_version: self.labels.optional(status.tls_version),
            tls_cipher: self.labels.optional(status.tls_cipher),
        };
        Details {
            remote: Address::new(status.remote),
            labels: self.labels.number(labels),
        }
    }

    /// An allocation has relayed once coturn sent a packet to one of its peers. Where coturn reports no
    /// peer leg, it has once it reported anything.
    pub(crate) fn has_relayed(&self, legs: &Legs, reported: bool) -> bool {
        if self.rules.peer_leg {
            legs.peer.sent_packets > 0
        } else {
            reported && !legs.client.is_zero()
        }
    }

    /// For the operator. Bounded: who has not listened so long knows already, and is told how many more there were.
    pub(crate) fn notice(&mut self, notice: Notice) {
        if self.is_following() {
            return;
        }
        if self.output.notices.len() < NOTICES {
            self.output.notices.push(notice);
        } else {
            self.output.notices_omitted += 1;
        }
    }
}
