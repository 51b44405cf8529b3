//! How an allocation comes into being.

use super::Reducer;
use crate::{
    allocation::{Address, Allocation, Details, Dirty},
    flags::Flags,
    key::Key,
    labels::LabelTexts,
    message::Status,
    relayed::Carried,
    usage::Legs,
};

/// How an allocation is first heard of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    /// By its `new`.
    pub(crate) seen: bool,
    pub(crate) from_snapshot: bool,
    /// What was heard of it while it was unconfirmed.
    pub(crate) carried: Carried,
    /// What was billed of an earlier life of its key, and may hold deltas of this one: counted from there on.
    pub(crate) billed: Carried,
    pub(crate) reported: bool,
    /// coturn's counters may have wrapped in a report of that.
    pub(crate) inexact: bool,
    pub(crate) twin: u16,
}

impl Reducer {
    /// Opens an allocation and has a session of its group count it.
    pub(crate) fn open(&mut self, key: &Key<'_>, status: Option<Status<'_>>, opening: Opening) -> u32 {
        let slot = self.insert_allocation(key, status, opening);
        self.enter_group(slot);
        self.mark(slot, Dirty::Hard);
        self.arm_allocation(slot);
        if self.end_if_blocked(slot) {
            self.outgoing.count(|stats| &mut stats.blocked_new);
        }
        slot
    }

    /// Only the record, in no session.
    pub(crate) fn insert_allocation(
        &mut self,
        key: &Key<'_>,
        status: Option<Status<'_>>,
        opening: Opening,
    ) -> u32 {
        // A new incarnation: nothing can be added any more to what was billed of the old one.
        let mut before = None;
        if let Some(tombstone) = self.find_tombstone(key) {
            let ended = self.forget_tombstone(tombstone).map(|t| t.rest);
            let ended = ended.filter(|_| !self.rules.direct && opening.seen);
            before = ended.and_then(|rest| {
                // As coturn said it, where what was counted is of more than one life.
                let said = Legs {
                    client: rest.more.client_total.unwrap_or(rest.billed.client),
                    peer: rest.billed.peer,
                };
                let billed = Some(said).filter(|billed| !billed.is_zero());
                billed.or(rest.more.before)
            });
        }
        let name = self.names.hold(key.realm, key.username);
        let group = self.group_of(name);
        let details = status.map_or_else(Details::default, |s| self.details(&s));
        let doubted = !opening.billed.is_zero();
        let mut flags = Flags::empty();
        flags.set(Flags::OPENED_SEEN, opening.seen);
        flags.set(Flags::FROM_SNAPSHOT, opening.from_snapshot);
        flags.set(Flags::TOUCHED, !opening.seen && !opening.from_snapshot);
        flags.set(Flags::REPORTED, opening.reported);
        // Between the halves of a report nothing is decided.
        let relays = opening.reported && self.has_relayed(&opening.carried.legs, true);
        flags.set(Flags::RELAYED, relays);
        flags.set(Flags::INEXACT, opening.inexact);
        flags.set(Flags::LEAVING, status.is_some_and(|s| s.lifetime == 0));
        let kin = !opening.seen && self.has_kin(key);
        flags.set(
            Flags::DELTAS_ONLY,
            kin || !opening.seen && self.now < self.evicted_until,
        );
        flags.set(Flags::OVERCOUNTED, doubted);
        let mut allocation = Allocation::new(key.id, key.server, name, group, self.now);
        allocation.hash = key.hash;
        allocation.flags = flags;
        allocation.lifetime = status.map_or(0, |s| s.lifetime);
        allocation.remote = details.remote;
        allocation.realm = key.realm_tag;
        allocation.set_labels(details.labels, &self.labels);
        allocation.set_carried(&opening.billed.plus(opening.carried));
        let twin = opening.twin.max(self.least_twin());
        if twin > 0 {
            allocation.rare().twin = twin;
        }
        if kin {
            allocation.rare().kin = true;
        }
        if let Some(before) = before {
            allocation.rare().before = Some(Box::new(before));
        }
        if doubted {
            let rare = allocation.rare();
            rare.base = opening.billed.legs;
            rare.base_sent_on = opening.billed.sent_on;
            let by_legs = opening.billed.relayed(self.peer_leg());
            // What waits until it is known which legs there are is billed by itself.
            let withheld = match self.reports_peer_leg() {
                None => opening.billed.relayed(false),
                Some(_) => 0,
            };
            rare.base_relayed = by_legs;
            rare.withheld = withheld.saturating_sub(by_legs);
        }
        let slot = self.allocations.insert(allocation) as u32;
        self.servers.opened(key.server);
        self.index_allocation(slot, key.hash);
        self.cluster.opened(slot);
        slot
    }

    pub(crate) fn index_allocation(&mut self, slot: u32, hash: u64) {
        self.allocation_table.insert(hash, slot);
    }

    pub(crate) fn details(&mut self, status: &Status<'_>) -> Details {
        let labels = LabelTexts {
            local: status.local,
            transport: status.transport,
            tls_version: status.tls_version,
            tls_cipher: status.tls_cipher,
        };
        Details {
            remote: Address::new(status.remote),
            labels: self.labels.number_of(labels),
        }
    }
}
