//! Which group an allocation is of, and who refers to a group or a name.

use super::Reducer;
use crate::{intern::NONE, rules::GroupBy};

impl Reducer {
    /// The group of a name, with one reference for the allocation that asks.
    pub(crate) fn group_of(&mut self, name: u32) -> u32 {
        let (group, realm) = self.names.get(name).map_or((NONE, NONE), |n| (n.group, n.realm));
        if group != NONE {
            self.hold_group(group);
            return group;
        }
        let username = self.names.username(name);
        let user = match self.rules.group_by {
            GroupBy::User => self.rules.user(username),
            GroupBy::Username => Some(username).filter(|u| !u.is_empty()),
            GroupBy::Allocation => None,
        };
        let Some(user) = user else {
            return self.groups.unnamed(); // nobody knows whose it is
        };
        let (group, is_new) = self.groups.named(realm, user);
        if is_new {
            self.names.realms.hold_again(realm, &self.internal_errors);
        }
        // One more for the name, which keeps it at hand.
        self.hold_group(group);
        if let Some(name) = self.names.get_mut(name) {
            name.group = group;
        } else {
            self.broken("a group of no name");
        }
        group
    }

    /// The session that a group's allocations join. Its leftover's row names it.
    pub(crate) fn set_current(&mut self, group: u32, session: u32) {
        self.groups.set_current(group, session, &self.internal_errors);
        let leftover = self.groups.leftover(group);
        if leftover != NONE {
            self.outgoing.leftover(leftover);
        }
    }

    pub(crate) fn hold_group(&mut self, group: u32) {
        self.groups.hold(group, &self.internal_errors);
    }

    pub(crate) fn release_group(&mut self, group: u32) {
        if let Some(realm) = self.groups.release(group, &self.internal_errors) {
            self.names.realms.release(realm, &self.internal_errors);
        }
    }

    pub(crate) fn release_name(&mut self, name: u32) {
        if let Some(group) = self.names.release(name, &self.internal_errors) {
            self.release_group(group);
        }
    }
}
