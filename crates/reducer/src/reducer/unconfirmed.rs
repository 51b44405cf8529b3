//! Traffic under ids that nobody has confirmed: kept aside until a status or totals come, and billed only then.

use super::{
    Reducer,
    halves::HALVES_APART,
    messages::{Lateness, lateness},
    opening::Opening,
};
use crate::{
    aside::Unconfirmed,
    key::Key,
    message::Leg,
    relayed::{Carried, largest_framing},
    usage::Counters,
};

/// How long an unconfirmed id is kept: coturn's longest lifetime by default (`max-allocate-lifetime`), in
/// which an allocation that lives must be refreshed.
const UNCONFIRMED_TTL: u64 = 3_600_000;

/// How many bytes of realm and username the table of the unconfirmed has room for, for each id: most names have fewer.
const UNCONFIRMED_NAME: usize = 128;

impl Reducer {
    /// Traffic of an id that nobody has confirmed: kept aside, in a bounded table, for a bounded time. Not by
    /// a follower: the leader may know the id, and bill what is said of it.
    pub(crate) fn set_aside(&mut self, key: &Key<'_>, leg: Leg, counters: Counters) -> bool {
        if self.is_following() {
            return true;
        }
        let (now, last_leg) = (self.now, self.last_leg());
        let slot = match self.find_unconfirmed(key) {
            Some(slot) => slot,
            None => {
                let length = key.realm.len() + key.username.len();
                self.make_room_aside(length);
                let name = self.names.hold(key.realm, key.username);
                self.unconfirmed_bytes += length;
                let entry = Unconfirmed {
                    id: key.id,
                    server: key.server,
                    name,
                    carried: Carried::default(),
                    half: None,
                    reported: false,
                    inexact: false,
                };
                let slot = self.unconfirmed.insert(entry, 0, self.now.plus(UNCONFIRMED_TTL));
                self.unconfirmed_table.insert(key.hash, slot);
                slot
            }
        };
        if let Some(entry) = self.unconfirmed.get_mut(slot) {
            match leg {
                Leg::Client => {
                    entry.carried = entry.carried.plus_client(counters);
                    entry.half = Some((now, counters));
                }
                Leg::Peer => {
                    let half = entry.half.take().filter(|(at, _)| now.since(*at) <= HALVES_APART);
                    let client = half.map_or(Counters::ZERO, |(_, half)| half);
                    entry.carried = entry
                        .carried
                        .plus_peer(counters, client, largest_framing(false, false));
                }
            }
            entry.reported |= leg == last_leg;
            entry.inexact |= lateness(&counters) == Lateness::MayHaveWrapped;
        } else {
            self.broken("an unconfirmed id that was just found");
        }
        true
    }

    /// Room in the table of the unconfirmed for one more with a name so long: anybody can make up ids, and names.
    fn make_room_aside(&mut self, length: usize) {
        let limit = self.rules.unconfirmed_limit.max(1);
        let bytes = limit.saturating_mul(UNCONFIRMED_NAME);
        while self.unconfirmed.len() >= limit
            || (self.unconfirmed.len() > 0 && self.unconfirmed_bytes + length > bytes)
        {
            let Some(oldest) = self.unconfirmed.oldest() else {
                return self.broken("a full table of unconfirmed ids without an oldest");
            };
            self.forget_unconfirmed(oldest);
            self.outgoing.count(|stats| &mut stats.unconfirmed_evicted);
        }
    }

    /// Takes out of the table of the unconfirmed what was kept for this key.
    pub(crate) fn take_aside(&mut self, key: &Key<'_>) -> Opening {
        let kept = self
            .find_unconfirmed(key)
            .and_then(|slot| self.forget_unconfirmed(slot));
        kept.map_or_else(Opening::default, |u| Opening {
            carried: u.carried,
            reported: u.reported,
            inexact: u.inexact,
            ..Opening::default()
        })
    }

    pub(crate) fn forget_unconfirmed(&mut self, slot: u32) -> Option<Unconfirmed> {
        let Some(entry) = self.unconfirmed.get(slot) else {
            self.broken("an unconfirmed id that is gone");
            return None;
        };
        let hash = Reducer::hash_of(&self.hasher, &self.names, entry.server, entry.id, entry.name);
        if !self.unconfirmed_table.remove(hash, slot) {
            self.internal_errors
                .broken("an unconfirmed id that is not in its table");
        }
        let entry = self.unconfirmed.remove(slot, &self.internal_errors)?;
        let length = self.names.realm(entry.name).len() + self.names.username(entry.name).len();
        self.internal_errors.take(
            &mut self.unconfirmed_bytes,
            length,
            "more bytes of unconfirmed names go than came",
        );
        self.release_name(entry.name);
        Some(entry)
    }

    /// Drops what was kept aside for long enough.
    pub(crate) fn expire_aside(&mut self) {
        while let Some(slot) = self.unconfirmed.expired(self.now) {
            self.forget_unconfirmed(slot);
            self.outgoing.count(|stats| &mut stats.unconfirmed_expired);
        }
        while let Some(slot) = self.tombstones.expired(self.tombstones_expire_at()) {
            self.forget_tombstone(slot);
        }
    }
}
