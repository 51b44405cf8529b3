//! Servers by number: their names, and how many allocations each has open. In a table of their own, so that nothing
//! else that a stranger can make up uses its numbers up.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::{
    allocation::Allocation, event::CloseReason, intern::NONE, internal::InternalErrors, time::Timestamp,
};

#[derive(Debug)]
struct Server {
    name: Box<[u8]>,
    open: usize,
    /// When it was taken to have stopped, if it was not heard of since.
    stopped_at: Option<Timestamp>,
    /// When it was last said that it has too many open.
    full_at: Option<Timestamp>,
}

/// How often it is said of one server that it has too many open, in milliseconds: a client can have it said as often as
/// it likes.
const SAID_EVERY: u64 = 60_000;

/// Servers that are not looked through for some that can be forgotten.
const FEW: usize = 1024;

/// The servers that were named and of which anything is kept, and the one that nobody names (`redis` sources).
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// By number. No two ever have the same one.
    named: HashMap<u32, Server>,
    next: u32,
    /// How many were left when it was last looked which can be forgotten.
    left: usize,
    unnamed: usize,
    unnamed_full_at: Option<Timestamp>,
    table: HashTable<u32>,
    /// By what follows the address in their names.
    kin: HashMap<Vec<u8>, Vec<u32>>,
    hasher: DefaultHashBuilder,
}

impl Servers {
    pub(crate) fn slot(&mut self, name: &[u8]) -> u32 {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let slot = self.next;
        self.next = self.next.wrapping_add(1);
        let server = Server {
            name: name.into(),
            open: 0,
            stopped_at: None,
            full_at: None,
        };
        self.named.insert(slot, server);
        if let Some(i) = name.iter().position(|b| *b == b'/') {
            self.kin.entry(name[i..].to_vec()).or_default().push(slot);
        }
        let (named, hasher) = (&self.named, &self.hasher);
        self.table.insert_unique(hasher.hash_one(name), slot, |slot| {
            named.get(slot).map_or(0, |s| hasher.hash_one(&*s.name))
        });
        slot
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<u32> {
        let is = |slot: &u32| self.get(*slot) == Some(name);
        self.table.find(self.hasher.hash_one(name), is).copied()
    }

    /// The server of a row or of another reducer; none is the one that nobody names.
    pub(crate) fn optional(&mut self, name: Option<&[u8]>) -> u32 {
        name.map_or(NONE, |name| self.slot(name))
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&[u8]> {
        self.named.get(&slot).map(|s| &*s.name)
    }

    pub(crate) fn owned(&self, slot: u32) -> Option<Box<[u8]>> {
        self.get(slot).map(Into::into)
    }

    /// How many allocations it has open.
    pub(crate) fn open(&self, slot: u32) -> usize {
        self.named.get(&slot).map_or(self.unnamed, |s| s.open)
    }

    /// It has too many open: whether that is to be said, since it was not of late.
    pub(crate) fn is_to_be_said(&mut self, slot: u32, now: Timestamp) -> bool {
        let full_at = match self.named.get_mut(&slot) {
            Some(server) => &mut server.full_at,
            None => &mut self.unnamed_full_at,
        };
        let said = full_at.is_some_and(|at| now < at.plus(SAID_EVERY));
        if !said {
            *full_at = Some(now);
        }
        !said
    }

    /// Taken to have stopped then, or later.
    pub(crate) fn stopped(&mut self, slot: u32, at: Timestamp) {
        if let Some(server) = self.named.get_mut(&slot) {
            server.stopped_at = server.stopped_at.max(Some(at));
        }
    }

    /// It is heard of again: when it had been taken to have stopped.
    pub(crate) fn returned(&mut self, slot: u32) -> Option<Timestamp> {
        self.named.get_mut(&slot)?.stopped_at.take()
    }

    /// The other servers of the same user and database: perhaps the same one, at another address.
    pub(crate) fn kin(&self, slot: u32) -> Vec<u32> {
        let of = |name: &[u8]| name.iter().position(|b| *b == b'/').map(|i| name[i..].to_vec());
        let Some(own) = self.get(slot).and_then(of) else {
            return Vec::new(); // of a `redis` source, whose servers have no names
        };
        let mut others: Vec<u32> = self
            .kin
            .get(&own)
            .into_iter()
            .flatten()
            .copied()
            .filter(|other| *other != slot)
            .collect();
        // After a restart they have other numbers.
        others.sort_unstable_by_key(|other| self.get(*other));
        others
    }

    /// Whether there are so many that those should be forgotten of which nothing is kept: whoever has the source's
    /// password can name as many as he likes.
    pub(crate) fn are_many(&self) -> bool {
        self.named.len() >= FEW.max(2 * self.left)
    }

    /// Forgets those with nothing open that are not in use otherwise.
    pub(crate) fn forget_all_but(&mut self, used: &HashSet<u32>) {
        let (table, kin, hasher) = (&mut self.table, &mut self.kin, &self.hasher);
        self.named.retain(|slot, server| {
            let stays = server.open > 0 || used.contains(slot);
            if !stays {
                if let Ok(found) = table.find_entry(hasher.hash_one(&*server.name), |s| s == slot) {
                    found.remove();
                }
                if let Some(i) = server.name.iter().position(|b| *b == b'/')
                    && let Some(slots) = kin.get_mut(&server.name[i..])
                {
                    slots.retain(|s| s != slot);
                }
            }
            stays
        });
        self.kin.retain(|_, slots| !slots.is_empty());
        self.left = self.named.len();
    }

    pub(crate) fn knows(&self, slot: u32) -> bool {
        self.named.contains_key(&slot)
    }

    pub(crate) fn opened(&mut self, slot: u32) {
        *self.count(slot) += 1;
    }

    pub(crate) fn closed(&mut self, slot: u32, errors: &InternalErrors) {
        errors.take(
            self.count(slot),
            1,
            "more allocations of a server close than were open",
        );
    }

    fn count(&mut self, slot: u32) -> &mut usize {
        self.named
            .get_mut(&slot)
            .map_or(&mut self.unnamed, |s| &mut s.open)
    }
}

/// What remains to be done of a server that is over: its allocations from `next` on, by their places.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) server: u32,
    pub(crate) closed_at: Timestamp,
    pub(crate) reason: CloseReason,
    pub(crate) next: u32,
}

impl Ending {
    /// Whether an allocation is one of those: what was heard of later is of the server's next life.
    pub(crate) fn ends(&self, a: &Allocation) -> bool {
        a.server == self.server && a.heard_at.get() <= self.closed_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_distinguished_however_many_there_are() {
        let mut servers = Servers::default();
        for n in 0..100_000u32 {
            assert_eq!(servers.slot(&n.to_be_bytes()), n);
        }
        servers.opened(7);
        servers.opened(NONE);
        servers.opened(NONE);
        servers.closed(NONE, &InternalErrors::default());
        assert_eq!((servers.open(7), servers.open(8), servers.open(NONE)), (1, 0, 1));
        assert_eq!(servers.find(&7u32.to_be_bytes()), Some(7));
        assert_eq!(servers.optional(None), NONE);
    }

    #[test]
    fn those_of_which_nothing_is_kept_are_forgotten() {
        let mut servers = Servers::default();
        let name = |n: u32| format!("10.0.{}.{}/-/0", n / 250, n % 250).into_bytes();
        for n in 0..1023 {
            servers.slot(&name(n));
        }
        assert!(!servers.are_many());
        let [open, used] = [servers.slot(&name(5)), servers.slot(&name(9000))];
        servers.opened(open);
        assert!(servers.are_many());
        servers.forget_all_but(&HashSet::from_iter([used]));
        assert_eq!((servers.named.len(), servers.table.len()), (2, 2));
        assert_eq!(servers.kin(open), [used]);
        assert!(servers.find(&name(6)).is_none() && !servers.are_many());
        let anew = servers.slot(&name(6));
        assert!(anew > used, "no number comes back");
    }

    #[test]
    fn kin_have_one_user_and_database() {
        let mut servers = Servers::default();
        let [a, b, c] =
            [&b"10.0.0.1/-/0"[..], b"10.0.0.2/-/0", b"10.0.0.3/-/1"].map(|name| servers.slot(name));
        assert_eq!(
            (servers.kin(a), servers.kin(c), servers.kin(NONE)),
            (vec![b], vec![], vec![])
        );
    }
}
