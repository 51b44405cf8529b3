//! A coturn that comes back from another address (balancers, NAT, IPv6 privacy addresses) looks like another server: its
//! allocations are heard of there without their `new`.

use super::Reducer;
use crate::{
    allocation::{Address, Details},
    flags::Flags,
    intern::NONE,
    key::Key,
    labels::NO_LABELS,
    message::Status,
};

/// What a server of the same user and database has under this realm, username and number.
#[derive(Clone, Copy)]
enum Kin {
    Open(u32),
    Ended(u32),
}

impl Reducer {
    /// Whether an allocation of a server on which nothing was heard of it, and that was not opened there, may be one that
    /// another server has.
    pub(crate) fn has_kin(&self, key: &Key<'_>) -> bool {
        self.rules.direct && self.kin_of(key).next().is_some()
    }

    /// Where its thread has no connection open: elsewhere it is heard by itself.
    fn kin_of(&self, key: &Key<'_>) -> impl Iterator<Item = Kin> {
        let (id, realm, username) = (key.id, key.realm, key.username);
        let servers = self.servers.kin(key.server).into_iter();
        let away =
            servers.filter(move |server| self.hearing.is_connected(*server, id.relay_thread()) != Some(true));
        away.filter_map(move |server| {
            let there = self.key(server, id, realm, username);
            let open = self.find_allocation(&there).map(Kin::Open);
            open.or_else(|| self.find_tombstone(&there).map(Kin::Ended))
        })
    }

    /// A status came from this server of an allocation that another one has, from the same client: it is the same life,
    /// and its counters go on. Returns its place under this server, if that is so. `here` is what was opened under this
    /// server before that was known.
    pub(crate) fn goes_on_here(
        &mut self,
        key: &Key<'_>,
        status: Status<'_>,
        here: Option<u32>,
    ) -> Option<u32> {
        if !self.rules.direct {
            return None;
        }
        let details = self.details(&status);
        let is_it = |kin: &Kin| match *kin {
            // Since we began to hear, nothing was heard of that thread: perhaps it only has nothing to say.
            Kin::Open(slot) => {
                !self.is_unheard(slot)
                    && self
                        .allocation(slot)
                        .is_some_and(|a| self.is_one_client(&a.remote, a.labels, &details))
            }
            Kin::Ended(slot) => self
                .tombstones
                .get(slot)
                .is_some_and(|t| self.is_one_client(&t.rest.remote, NO_LABELS, &details)),
        };
        let kin = self.kin_of(key).find(is_it)?;
        match (kin, here) {
            (Kin::Open(slot), None) => self.move_to(slot, key),
            (Kin::Ended(slot), None) => self.revive(slot, key, None),
            (kin, Some(here)) => {
                self.take_in(here, kin);
                Some(here)
            }
        }
    }

    /// Whether an open allocation's thread is one of which nobody knows whether it has a connection.
    fn is_unheard(&self, slot: u32) -> bool {
        let thread = self.allocation(slot).map(|a| (a.server, a.id.relay_thread()));
        self.hearing.knows_threads()
            && thread.is_some_and(|(server, thread)| self.hearing.is_connected(server, thread).is_none())
    }

    /// By the client's address, or, where a status names none, by the server's own.
    fn is_one_client(&self, remote: &Address, labels: u16, details: &Details) -> bool {
        if *remote != Address::None || details.remote != Address::None {
            return *remote == details.remote;
        }
        let local = |set| self.labels.set(set).local;
        local(labels) != NONE && local(labels) == local(details.labels)
    }

    fn move_to(&mut self, slot: u32, key: &Key<'_>) -> Option<u32> {
        let Some(a) = self.allocations.get_mut(slot as usize) else {
            self.broken("no allocation to move");
            return None;
        };
        let (old_hash, old_server) = (a.hash, a.server);
        a.hash = key.hash;
        a.server = key.server;
        if !self.allocation_table.remove(old_hash, slot) {
            self.internal_errors
                .broken("an allocation that is not in its table");
        }
        self.servers.closed(old_server, &self.internal_errors);
        self.servers.opened(key.server);
        self.index_allocation(slot, key.hash);
        // What was heard under the new address before is its own.
        let kept = self.take_aside(key);
        if kept.inexact
            && let Some(a) = self.allocations.get_mut(slot as usize)
        {
            a.flags.insert(Flags::INEXACT);
        }
        if !kept.carried.is_zero() {
            let carried = self.allocation(slot)?.carried().plus(kept.carried);
            self.count(slot, &carried, kept.reported);
        }
        self.mark(slot, crate::allocation::Dirty::Hard);
        Some(slot)
    }

    /// What another server had of it is counted before what was heard here.
    fn take_in(&mut self, here: u32, kin: Kin) {
        let peer_leg = self.peer_leg();
        let before = match kin {
            Kin::Open(slot) => {
                let Some(a) = self.allocation(slot) else {
                    return self.broken("kin that is no allocation");
                };
                let before = (
                    a.carried(),
                    a.relayed(peer_leg),
                    a.rare.as_ref().map_or(0, |r| r.withheld),
                    a.flags & (Flags::RELAYED | Flags::OPENED_SEEN | Flags::INEXACT),
                );
                let session = a.session;
                if session != NONE {
                    self.leave(session, slot, false, true);
                }
                let name = self.remove_allocation(slot).map(|a| a.name);
                name.into_iter().for_each(|name| self.release_name(name));
                if self.sessions.contains(session as usize) {
                    self.review(session);
                }
                before
            }
            Kin::Ended(slot) => {
                let Some(t) = self.tombstones.get(slot) else {
                    return self.broken("kin that is no tombstone");
                };
                let rest = t.rest.clone();
                let stopped = self.was_stopped(slot);
                let mut flags = Flags::empty();
                flags.set(Flags::RELAYED, rest.more.relayed > 0);
                flags.set(Flags::OPENED_SEEN, rest.opened_seen);
                flags.set(Flags::INEXACT, rest.more.inexact);
                self.forget_tombstone(slot);
                if let Some(server) = stopped {
                    self.had_not_stopped(server);
                }
                (
                    rest.carried(),
                    rest.more.relayed,
                    self.waits_still(rest.more.withheld),
                    flags,
                )
            }
        };
        let (carried, relayed, withheld, flags) = before;
        let Some(a) = self.allocations.get_mut(here as usize) else {
            return self.broken("an allocation that just had a status");
        };
        let was_relaying = a.flags.contains(Flags::RELAYED);
        let (all, base) = (carried.plus(a.carried()), carried.plus(a.base_carried()));
        a.set_carried(&all);
        let rare = a.rare();
        let base_relayed = relayed.saturating_add(rare.base_relayed);
        rare.withheld = rare.withheld.saturating_add(withheld);
        rare.base = base.legs;
        rare.base_sent_on = base.sent_on;
        rare.base_relayed = base_relayed;
        rare.kin = false;
        a.flags |= flags;
        a.flags.remove(Flags::DELTAS_ONLY);
        let now_relaying = a.flags.contains(Flags::RELAYED) && !was_relaying;
        let (session, gone) = (a.session, a.flags.intersects(Flags::GONE));
        if now_relaying && !gone && session != NONE {
            if let Some(s) = self.sessions.get_mut(session as usize) {
                s.learn(Flags::RELAYED, &self.internal_errors);
            } else {
                self.broken("a member of no session takes its kin in");
            }
        }
        self.mark(here, crate::allocation::Dirty::Hard);
    }
}
