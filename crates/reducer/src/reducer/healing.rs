//! Allocations that are set right by coturn's own log.

use super::Reducer;
use crate::{heal::Heal, time::Timestamp};

impl Reducer {
    /// Emits what a log has more than was billed. False, and nothing is emitted, where the stream may yet say it: while
    /// the allocation is kept here, open or ended.
    pub fn heal(&mut self, now: Timestamp, heal: &Heal) -> bool {
        if self.may_be_heard_of(now, heal) {
            return false;
        }
        for event in heal.events(&self.identity, &self.rules) {
            self.outgoing.event(event);
        }
        true
    }

    fn may_be_heard_of(&self, now: Timestamp, heal: &Heal) -> bool {
        let is = |id, name, opened_at| {
            id == heal.allocation
                && self.wall.at(opened_at) <= heal.closed.0
                && self.names.is(name, &heal.realm, &heal.username)
        };
        let mut ended = self.tombstones.iter();
        self.allocations
            .iter()
            .any(|(_, a)| is(a.id, a.name, a.opened_at.get()))
            || ended.any(|(_, t)| t.rest.expires_at > now && is(t.id, t.name, t.opened_at))
            || self.leftovers.iter().any(|(_, l)| is(l.id, l.name, l.opened_at))
    }
}
