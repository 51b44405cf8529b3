//! Realms are kept once, as long as a name or a group is of them: there are few, each of thousands of names.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::slots::Slots;

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
            self.hold_again(slot);
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
    pub(crate) fn hold_again(&mut self, slot: u32) {
        if let Some(realm) = self.slots.get_mut(slot as usize) {
            realm.refs += 1;
        }
    }

    /// Gives a reference back. With the last one the realm goes.
    pub(crate) fn release(&mut self, slot: u32) {
        let Some(realm) = self.slots.get_mut(slot as usize) else {
            return;
        };
        realm.refs -= 1;
        if realm.refs > 0 {
            return;
        }
        let Some(realm) = self.slots.try_remove(slot as usize) else {
            return;
        };
        let hash = self.hasher.hash_one(&*realm.text);
        if let Ok(entry) = self.table.find_entry(hash, |s| *s == slot) {
            entry.remove();
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
        let mut realms = Realms::default();
        let a = realms.hold(b"a");
        let b = realms.hold(b"");
        assert_eq!(
            (realms.hold(b"a"), realms.get(a), realms.get(b)),
            (a, &b"a"[..], &b""[..])
        );
        realms.release(a);
        assert_eq!(realms.get(a), b"a");
        realms.release(a);
        realms.release(b);
        assert!(realms.slots.is_empty() && realms.table.is_empty());
    }
}
