//! Whose message it is. Names come from `new` and from nowhere else: on a TCP relay's connection coturn takes over
//! whatever realm a client claims before it checks it, and from then on the allocation's messages bear that realm
//! (TRAPS.md, trap 30). The username stays, at the end of what stands before the allocation.

use super::{Notice, Reducer};
use crate::{
    allocation::Details,
    flags::Flags,
    key::Key,
    message::{Kind, Leg},
    time::Timestamp,
    usage::{Counters, Legs},
};

/// How long after a `new` its copy may come, in milliseconds: where several Redis servers feed one channel.
const COPY_WITHIN: u64 = 60_000;
const BEFORE_USERNAME: &[u8] = b"/user/";

/// What a message speaks of.
pub(crate) enum Heard {
    /// An open allocation.
    Own(u32),
    /// An allocation that has ended, by its tombstone.
    Ended(u32),
    /// An allocation under another realm than the message's.
    Switched(OwnName),
    Unknown,
}

/// The name that an allocation had at its `new`.
pub(crate) struct OwnName {
    pub(crate) realm: Box<[u8]>,
    pub(crate) username: Box<[u8]>,
}

impl Reducer {
    pub(crate) fn heard(&self, key: &Key<'_>, kind: Kind<'_>) -> Heard {
        let mut same = self.same_number(key);
        let (first, second) = (same.next(), same.next());
        if let Some(slot) = first
            && second.is_none()
            && !matches!(kind, Kind::New(_))
            && self.allocation(slot).is_some_and(|a| a.realm == key.realm_tag)
        {
            // Were its realm another after all, it would be this one's nevertheless.
            return Heard::Own(slot);
        }
        if let Some(slot) = self.find_allocation(key) {
            return Heard::Own(slot);
        }
        if self.tombstones.len() == 0 && first.is_none() && !holds_another(key.username) {
            return Heard::Unknown;
        }
        let ended = self.find_tombstone(key);
        if matches!(kind, Kind::New(_)) {
            return ended.map_or(Heard::Unknown, Heard::Ended);
        }
        // Within one server a number is of one allocation at a time. Where several may speak, one that has had a `new`
        // under this very name is meant by it.
        let had_new = |slot: u32| self.tombstones.get(slot).is_some_and(|t| t.rest.opened_seen);
        if let Some(slot) = ended
            && !self.rules.direct
            && had_new(slot)
        {
            return Heard::Ended(slot);
        }
        if let Some(name) = self.switched(key, kind) {
            return Heard::Switched(name);
        }
        if let Some(slot) = ended {
            return Heard::Ended(slot);
        }
        match self.ended_elsewhere(key) {
            Some(name) if self.rules.direct => Heard::Switched(name),
            _ => Heard::Unknown,
        }
    }

    /// Open allocations with this server, number and username, in whatever realm.
    fn same_number(&self, key: &Key<'_>) -> impl Iterator<Item = u32> {
        let (hash, id) = (key.hash, key.id);
        self.allocation_table.alike(hash).filter(move |slot| {
            self.allocation(*slot)
                .is_some_and(|a| a.hash == hash && a.id == id)
        })
    }

    /// The one open allocation, if it is one, whose username stands at the end of what precedes the number.
    fn switched(&self, key: &Key<'_>, kind: Kind<'_>) -> Option<OwnName> {
        let mut found = self.same_number(key).collect::<Vec<_>>();
        for username in suffixes(key.username) {
            let shorter = self.key(key.server, key.id, key.realm, username);
            found.extend(self.same_number(&shorter));
        }
        let [slot] = found[..] else {
            return None; // none, or nobody knows which
        };
        let a = self.allocation(slot)?;
        if let Kind::Refreshed(status) = kind
            && !self.rules.direct
        {
            // Another server says that it is its own.
            let here = self.labels.get(self.labels.set(a.labels).local);
            if here.zip(status.local).is_some_and(|(here, there)| here != there) {
                return None;
            }
        }
        Some(self.own_name(a.name))
    }

    fn ended_elsewhere(&self, key: &Key<'_>) -> Option<OwnName> {
        let of = |username: &[u8]| {
            let key = self.key(key.server, key.id, key.realm, username);
            let is = |slot: &u32| {
                self.tombstones.get(*slot).is_some_and(|t| {
                    t.id == key.id && t.server == key.server && self.names.username(t.name) == username
                })
            };
            self.tombstone_table.find(key.hash, is)
        };
        let slot = of(key.username).or_else(|| suffixes(key.username).find_map(of))?;
        self.tombstones.get(slot).map(|t| self.own_name(t.name))
    }

    fn own_name(&self, name: u32) -> OwnName {
        OwnName {
            realm: self.names.realm(name).into(),
            username: self.names.username(name).into(),
        }
    }

    /// A message that bears another realm than its allocation: it is the allocation's, and the operator hears of it.
    pub(crate) fn on_switched(&mut self, key: &Key<'_>, name: &OwnName, kind: Kind<'_>) -> bool {
        let own = self.key(key.server, key.id, &name.realm, &name.username);
        self.outgoing.count(|stats| &mut stats.switched_realms);
        if let Some(slot) = self.find_allocation(&own) {
            if self.switched_realms.insert(slot) {
                self.outgoing.notice(Notice::RealmSwitched {
                    allocation: key.id,
                    realm: name.realm.clone(),
                    claimed: key.realm.into(),
                });
            }
            return self.on_allocation(slot, &own, kind);
        }
        match self.find_tombstone(&own) {
            Some(slot) => self.on_tombstone(slot, &own, kind),
            None => false,
        }
    }

    /// Whether a snapshot's key is that of an open allocation whose realm has been switched.
    pub(crate) fn is_switched(&self, key: &Key<'_>) -> bool {
        self.switched(key, Kind::Deleted).is_some()
    }

    /// Whether an allocation may be opened that nothing is known of: its realm is one of the source's, and its server
    /// has not more open ones than it may.
    pub(crate) fn is_welcome(&mut self, key: &Key<'_>, kind: Kind<'_>) -> bool {
        if !self.rules.realms.is_match(key.realm) {
            self.outgoing.count(|stats| &mut stats.refused_realms);
            return false;
        }
        let opens = !matches!(kind, Kind::Traffic(..));
        if opens && self.servers.open(key.server) >= self.rules.allocation_limit {
            self.outgoing.count(|stats| &mut stats.refused_allocations);
            if self.servers.is_to_be_said(key.server, self.now) {
                self.outgoing.notice(Notice::TooManyAllocations {
                    server: self.servers.owned(key.server),
                });
            }
            return false;
        }
        true
    }

    /// Whether this `new` may be the copy of the one that opened the allocation.
    pub(crate) fn may_be_copy(&self, slot: u32, details: &Details) -> bool {
        self.allocation(slot).is_some_and(|a| {
            let same_client = a.remote == details.remote || a.flags.contains(Flags::MOVED);
            same_client && self.may_come_twice(a.opened_at.get())
        })
    }

    /// The same of one that has ended.
    pub(crate) fn is_copy_of_ended(&self, tombstone: u32, details: &Details) -> bool {
        self.tombstones.get(tombstone).is_some_and(|t| {
            let same_client = t.rest.remote == details.remote || t.rest.more.moved;
            same_client && self.may_come_twice(t.opened_at)
        })
    }

    /// Whether a `new` may repeat that of an allocation which opened then. Where each server has connections of its own
    /// nothing comes twice; elsewhere it may, and a client that returns within a minute, from the same address (or from
    /// any, where the first had moved) and under the same number, looks the same: what follows is billed as far as it
    /// is beyond what was billed, since else all of it might be billed twice.
    fn may_come_twice(&self, opened_at: Timestamp) -> bool {
        !self.rules.direct && self.now.since(opened_at) <= COPY_WITHIN
    }

    /// Whether a total may be the copy of one of the life before, of which this key's allocation is the next: it is
    /// billed already. Its own is what its reports say.
    pub(crate) fn is_total_of_before(&self, slot: u32, leg: Leg, total: Counters) -> bool {
        let a = self.allocation(slot);
        a.and_then(|a| Some((a, a.rare.as_ref()?.before.as_deref()?)))
            .is_some_and(|(a, before)| self.is_one_of(before, a.opened_at.get(), &a.legs(), leg, total))
    }

    /// The same where that one has ended, too.
    pub(crate) fn is_total_before_ended(&self, tombstone: u32, leg: Leg, total: Counters) -> bool {
        let ended = self.tombstones.get(tombstone);
        ended
            .and_then(|t| Some((t, t.rest.more.before.as_ref()?)))
            .is_some_and(|(t, before)| self.is_one_of(before, t.opened_at, &t.rest.billed, leg, total))
    }

    /// Whether a total is one of those of the life before one that opened then and carried `own`.
    fn is_one_of(&self, before: &Legs, opened_at: Timestamp, own: &Legs, leg: Leg, total: Counters) -> bool {
        let wrapped = |c: Counters| c.zip(Counters::default(), |n, _| n & 0xffff_ffff);
        let soon = self.now.since(opened_at) <= COPY_WITHIN;
        let (own, before) = match leg {
            Leg::Client => (own.client, before.client),
            Leg::Peer => (own.peer, before.peer),
        };
        !self.rules.direct && soon && wrapped(total) == wrapped(before) && wrapped(total) != wrapped(own)
    }
}

fn holds_another(username: &[u8]) -> bool {
    suffixes(username).next().is_some()
}

/// What stands behind each `/user/` in a username: a realm that was switched may hold one.
fn suffixes(username: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..username.len())
        .filter(|i| username[*i..].starts_with(BEFORE_USERNAME))
        .map(|i| &username[i + BEFORE_USERNAME.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_may_hold_another() {
        let all = |name| suffixes(name).collect::<Vec<_>>();
        assert_eq!(all(b"victim/user/u"), [b"u"]);
        assert_eq!(all(b"a/user/b/user/c"), [&b"b/user/c"[..], b"c"]);
        assert_eq!(all(b"/user"), [b""; 0]);
    }
}
