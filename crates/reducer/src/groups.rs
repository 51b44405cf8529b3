//! Groups: the allocations of one user, which become one session at a time. A group lives as long as a name, an
//! allocation, a session or a leftover refers to it.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::{index::Index, intern::NONE, internal::InternalErrors, slots::Slots, time::Timestamp};

#[derive(Debug)]
struct Group {
    /// Realm (held) and user; `None` for an allocation that is a group of its own.
    name: Option<(u32, Box<[u8]>)>,
    /// The session that allocations join.
    current: u32,
    refs: u32,
    /// When the group's previous session ended.
    ended_at: Timestamp,
    /// What its parked allocations left over.
    leftover: u32,
}

impl Group {
    /// With one reference.
    fn new(name: Option<(u32, Box<[u8]>)>) -> Group {
        Group {
            name,
            current: NONE,
            refs: 1,
            ended_at: Timestamp(0),
            leftover: NONE,
        }
    }
}

/// All groups, by number.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    slots: Slots<Group>,
    /// Those that have a name.
    table: Index,
    hasher: DefaultHashBuilder,
}

/// By the number of the realm, which stays the same as long as a group refers to the realm.
fn hash(hasher: &DefaultHashBuilder, realm: u32, user: &[u8]) -> u64 {
    hasher.hash_one((realm, user))
}

impl Groups {
    /// A new group without a name. The caller holds one reference to it.
    pub(crate) fn unnamed(&mut self) -> u32 {
        self.slots.insert(Group::new(None)) as u32
    }

    /// The group of a user, of which the caller now holds one reference, and whether it is new. Then the caller has to
    /// hold its realm for it.
    pub(crate) fn named(&mut self, realm: u32, user: &[u8]) -> (u32, bool) {
        let Groups { slots, table, hasher } = self;
        let of = |slot: &u32| slots.get(*slot as usize)?.name.as_ref();
        let hash = hash(hasher, realm, user);
        let is = |slot: &u32| of(slot).is_some_and(|(r, u)| *r == realm && **u == *user);
        if let Some(group) = table.find(hash, is) {
            if let Some(g) = slots.get_mut(group as usize) {
                g.refs += 1;
            }
            return (group, false);
        }
        let group = slots.insert(Group::new(Some((realm, user.into())))) as u32;
        table.insert(hash, group);
        (group, true)
    }

    /// One more reference to a group that somebody holds.
    pub(crate) fn hold(&mut self, group: u32, errors: &InternalErrors) {
        if let Some(g) = self.slots.get_mut(group as usize) {
            g.refs += 1;
        } else {
            errors.broken("a group that is gone is held");
        }
    }

    /// Gives a reference back. With the last one the group goes, and its realm, which is to be released, is returned.
    pub(crate) fn release(&mut self, group: u32, errors: &InternalErrors) -> Option<u32> {
        let Some(g) = self.slots.get_mut(group as usize) else {
            errors.broken("a group that is gone is released");
            return None;
        };
        errors.take(&mut g.refs, 1, "a group is released more often than held");
        if g.refs > 0 {
            return None;
        }
        let (realm, user) = self.slots.try_remove(group as usize, errors)?.name?;
        if !self.table.remove(hash(&self.hasher, realm, &user), group) {
            errors.broken("a group that is not in its table");
        }
        Some(realm)
    }

    /// The session that a group's allocations join; `NONE` if there is none.
    pub(crate) fn current(&self, group: u32) -> u32 {
        self.slots.get(group as usize).map_or(NONE, |g| g.current)
    }

    pub(crate) fn set_current(&mut self, group: u32, session: u32, errors: &InternalErrors) {
        match self.slots.get_mut(group as usize) {
            Some(g) => g.current = session,
            None => errors.broken("a session of no group"),
        }
    }

    /// When the last of its sessions ended.
    pub(crate) fn ended_at(&self, group: u32) -> Timestamp {
        self.slots
            .get(group as usize)
            .map_or(Timestamp(0), |g| g.ended_at)
    }

    /// A session of the group has ended, or may have lasted until then: no other one begins before.
    pub(crate) fn session_ended(&mut self, group: u32, at: Timestamp, errors: &InternalErrors) {
        match self.slots.get_mut(group as usize) {
            Some(g) => g.ended_at = g.ended_at.max(at),
            None => errors.broken("a session without its group ends"),
        }
    }

    /// What its parked allocations left over; `NONE` if that is nothing.
    pub(crate) fn leftover(&self, group: u32) -> u32 {
        self.slots.get(group as usize).map_or(NONE, |g| g.leftover)
    }

    pub(crate) fn set_leftover(&mut self, group: u32, leftover: u32, errors: &InternalErrors) {
        match self.slots.get_mut(group as usize) {
            Some(g) => g.leftover = leftover,
            None => errors.broken("a leftover of no group"),
        }
    }

    /// A leftover is gone; the group may have another one already.
    pub(crate) fn leftover_gone(&mut self, group: u32, leftover: u32) {
        if let Some(g) = self.slots.get_mut(group as usize)
            && g.leftover == leftover
        {
            g.leftover = NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_realm_and_user_until_its_last_reference_goes() {
        let (mut groups, errors) = (Groups::default(), InternalErrors::default());
        let (a, new) = groups.named(1, b"ann");
        assert!(new);
        assert_eq!(groups.named(1, b"ann"), (a, false));
        assert_ne!(groups.named(2, b"ann").0, a);
        assert_ne!(groups.unnamed(), a);
        groups.session_ended(a, Timestamp(7), &errors);
        groups.session_ended(a, Timestamp(5), &errors);
        assert_eq!(groups.ended_at(a), Timestamp(7));
        groups.set_leftover(a, 3, &errors);
        groups.leftover_gone(a, 4);
        assert_eq!(groups.leftover(a), 3);
        assert_eq!(groups.release(a, &errors), None);
        assert_eq!(groups.release(a, &errors), Some(1));
        assert!(groups.named(1, b"ann").1);
        assert_eq!(errors.count(), 0);
    }
}
