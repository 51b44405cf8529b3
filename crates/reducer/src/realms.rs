//! Realms are kept once, as long as a name or a group is of them: there are few, each of thousands of names.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{internal::InternalErrors, slots::Slots};

#[derive(Debug)]
struct Realm {
    text: Box<[u8]>,
    refs: u32,
}

/// The realms in use, counted. The table is never iterated, so its seed does not show.
#[derive(Debug, Default)]
pub(crate) struct Realms {
    slots: Slots<Realm>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Realms {
    /// The slot of a realm, made if need be; the caller now holds one reference to it.
    pub(crate) fn hold(&mut self, text: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(text);
        let found = self.table.find(hash, |slot| self.get(*slot) == text).copied();
        if let Some(slot) = found {
            if let Some(realm) = self.slots.get_mut(slot as usize) {
                realm.refs += 1;
            }
            return slot;
        }
        let realm = Realm {
            text: text.into(),
            refs: 1,
        };
        let slot = self.slots.insert(realm) as u32;
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.table.insert_unique(hash, slot, |slot| {
            slots
                .get(*slot as usize)
                .map_or(0, |realm| hasher.hash_one(&*realm.text))
        });
        slot
    }

    /// One more reference to a realm that is held.
    pub(crate) fn hold_again(&mut self, slot: u32, errors: &InternalErrors) {
        match self.slots.get_mut(slot as usize) {
            Some(realm) => realm.refs += 1,
            None => errors.broken("a realm that is gone is held"),
        }
    }

    /// Gives a reference back. With the last one the realm goes.
    pub(crate) fn release(&mut self, slot: u32, errors: &InternalErrors) {
        let Some(realm) = self.slots.get_mut(slot as usize) else {
            return errors.broken("a realm that is gone is released");
        };
        errors.take(&mut realm.refs, 1, "a realm is released more often than held");
        if realm.refs > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*realm.text);
        self.slots.try_remove(slot as usize, errors);
        match self.table.find_entry(hash, |s| *s == slot) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => errors.broken("a realm that is not in its table"),
        }
    }

    pub(crate) fn get(&self, slot: u32) -> &[u8] {
        self.slots.get(slot as usize).map_or(&[], |realm| &realm.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_lives_as_long_as_somebody_holds_it() {
        let (mut realms, errors) = (Realms::default(), InternalErrors::default());
        let a = realms.hold(b"a");
        let b = realms.hold(b"");
        assert_eq!(
            (realms.hold(b"a"), realms.get(a), realms.get(b)),
            (a, &b"a"[..], &b""[..])
        );
        realms.hold_again(a, &errors);
        for _ in 0..2 {
            realms.release(a, &errors);
            assert_eq!(realms.get(a), b"a");
        }
        realms.release(a, &errors);
        realms.release(b, &errors);
        assert!(realms.slots.is_empty() && realms.table.is_empty());
        assert_eq!(errors.count(), 0);
    }
}
