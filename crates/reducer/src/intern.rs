//! Names are kept once: an allocation holds a number for its realm and username.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

/// No slot, no label.
pub(crate) const NONE: u32 = u32::MAX;

/// A realm and a username, or a realm and a user: two texts in one block.
#[derive(Debug)]
pub(crate) struct Name {
    bytes: Box<[u8]>,
    realm_len: u32,
    refs: u32,
    /// The group that allocations of this name belong to, once one was opened.
    pub(crate) group: u32,
}

impl Name {
    pub(crate) fn realm(&self) -> &[u8] {
        self.bytes.get(..self.realm_len as usize).unwrap_or_default()
    }

    pub(crate) fn username(&self) -> &[u8] {
        self.bytes.get(self.realm_len as usize..).unwrap_or_default()
    }
}

/// The names in use, counted. The table is never iterated, so its seed does not show.
#[derive(Debug, Default)]
pub(crate) struct Names {
    slots: Slab<Name>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Names {
    /// The slot of a name, made if need be; the caller now holds one reference to it.
    pub(crate) fn hold(&mut self, realm: &[u8], username: &[u8]) -> u32 {
        let hash = self.hasher.hash_one((realm, username));
        let found = self.table.find(hash, |slot| {
            self.slots
                .get(*slot as usize)
                .is_some_and(|n| n.realm() == realm && n.username() == username)
        });
        if let Some(slot) = found.copied() {
            self.hold_again(slot);
            return slot;
        }
        let bytes = [realm, username].concat().into_boxed_slice();
        let slot = self.slots.insert(Name {
            bytes,
            realm_len: realm.len() as u32,
            refs: 1,
            group: NONE,
        }) as u32;
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.table.insert_unique(hash, slot, |slot| {
            slots
                .get(*slot as usize)
                .map_or(0, |n| hasher.hash_one((n.realm(), n.username())))
        });
        slot
    }

    /// The slot of a name that somebody holds.
    pub(crate) fn find(&self, realm: &[u8], username: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((realm, username));
        let is = |slot: &u32| {
            self.slots
                .get(*slot as usize)
                .is_some_and(|n| n.realm() == realm && n.username() == username)
        };
        self.table.find(hash, is).copied()
    }

    /// One more reference to a name that is held.
    pub(crate) fn hold_again(&mut self, slot: u32) {
        if let Some(name) = self.slots.get_mut(slot as usize) {
            name.refs += 1;
        }
    }

    /// Gives a reference back. With the last one the name goes, and its group is returned.
    pub(crate) fn release(&mut self, slot: u32) -> Option<u32> {
        let name = self.slots.get_mut(slot as usize)?;
        name.refs -= 1;
        if name.refs > 0 {
            return None;
        }
        let name = self.slots.remove(slot as usize);
        let hash = self.hasher.hash_one((name.realm(), name.username()));
        if let Ok(entry) = self.table.find_entry(hash, |s| *s == slot) {
            entry.remove();
        }
        (name.group != NONE).then_some(name.group)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Name> {
        self.slots.get(slot as usize)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Name> {
        self.slots.get_mut(slot as usize)
    }

    pub(crate) fn realm(&self, slot: u32) -> &[u8] {
        self.get(slot).map_or(&[], Name::realm)
    }

    pub(crate) fn username(&self, slot: u32) -> &[u8] {
        self.get(slot).map_or(&[], Name::username)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lives_as_long_as_somebody_holds_it() {
        let mut names = Names::default();
        let a = names.hold(b"r", b"alice");
        let b = names.hold(b"ra", b"lice");
        assert_ne!(a, b, "the border between realm and username counts");
        assert_eq!(names.hold(b"r", b"alice"), a);
        names.release(a);
        assert_eq!(names.username(a), b"alice");
        names.release(a);
        assert_eq!(names.len(), 1);
        assert_ne!(names.hold(b"r", b"alice"), b);
    }
}
