//! Names are kept once: an allocation holds a number for its realm and username.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::{index::Index, internal::InternalErrors, realms::Realms, slots::Slots};

/// No slot, no label.
pub(crate) const NONE: u32 = u32::MAX;

/// A realm and a username.
#[derive(Debug)]
pub(crate) struct Name {
    username: Box<[u8]>,
    /// Among [`Names::realms`].
    pub(crate) realm: u32,
    refs: u32,
    /// The group that allocations of this name belong to, once one was opened.
    pub(crate) group: u32,
}

/// The names in use, counted. The table is never iterated, so its seed does not show.
#[derive(Debug, Default)]
pub(crate) struct Names {
    slots: Slots<Name>,
    /// Held by names and by groups.
    pub(crate) realms: Realms,
    table: Index,
    hasher: DefaultHashBuilder,
}

impl Names {
    /// The slot of a name, made if need be; the caller now holds one reference to it.
    pub(crate) fn hold(&mut self, realm: &[u8], username: &[u8]) -> u32 {
        if let Some(slot) = self.find(realm, username) {
            if let Some(name) = self.slots.get_mut(slot as usize) {
                name.refs += 1;
            }
            return slot;
        }
        let hash = self.hasher.hash_one((realm, username));
        let slot = self.slots.insert(Name {
            username: username.into(),
            realm: self.realms.hold(realm),
            refs: 1,
            group: NONE,
        }) as u32;
        self.table.insert(hash, slot);
        slot
    }

    /// The slot of a name that somebody holds.
    pub(crate) fn find(&self, realm: &[u8], username: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((realm, username));
        let is = |slot: &u32| self.is(*slot, realm, username);
        self.table.find(hash, is)
    }

    pub(crate) fn is(&self, slot: u32, realm: &[u8], username: &[u8]) -> bool {
        self.get(slot)
            .is_some_and(|n| *n.username == *username && self.realms.get(n.realm) == realm)
    }

    /// One more reference to a name that is held.
    pub(crate) fn hold_again(&mut self, slot: u32, errors: &InternalErrors) {
        match self.slots.get_mut(slot as usize) {
            Some(name) => name.refs += 1,
            None => errors.broken("a name that is gone is held"),
        }
    }

    /// Gives a reference back. With the last one the name goes, and its group is returned.
    pub(crate) fn release(&mut self, slot: u32, errors: &InternalErrors) -> Option<u32> {
        let Some(name) = self.slots.get_mut(slot as usize) else {
            errors.broken("a name that is gone is released");
            return None;
        };
        errors.take(&mut name.refs, 1, "a name is released more often than held");
        if name.refs > 0 {
            return None;
        }
        let name = self.slots.try_remove(slot as usize, errors)?;
        let hash = self
            .hasher
            .hash_one((self.realms.get(name.realm), &*name.username));
        if !self.table.remove(hash, slot) {
            errors.broken("a name that is not in its table");
        }
        self.realms.release(name.realm, errors);
        (name.group != NONE).then_some(name.group)
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Name> {
        self.slots.get(slot as usize)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Name> {
        self.slots.get_mut(slot as usize)
    }

    pub(crate) fn realm(&self, slot: u32) -> &[u8] {
        self.get(slot).map_or(&[], |n| self.realms.get(n.realm))
    }

    pub(crate) fn username(&self, slot: u32) -> &[u8] {
        self.get(slot).map_or(&[], |n| &n.username)
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
        let (mut names, errors) = (Names::default(), InternalErrors::default());
        let a = names.hold(b"r", b"alice");
        let b = names.hold(b"ra", b"lice");
        assert_ne!(a, b, "the border between realm and username counts");
        assert_eq!(names.hold(b"r", b"alice"), a);
        names.hold_again(a, &errors);
        for _ in 0..2 {
            names.release(a, &errors);
            assert_eq!(names.username(a), b"alice");
        }
        names.release(a, &errors);
        assert_eq!(names.len(), 1);
        assert_ne!(names.hold(b"r", b"alice"), b);
        assert_eq!(errors.count(), 0);
    }
}
