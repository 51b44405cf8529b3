//! Snapshots of the status keys: what is open though nobody heard it open.

use super::{Reducer, ServerRef, opening::Opening};
use crate::{
    allocation::Dirty,
    message::{AllocationId, Kind, Status},
    time::{Moment, Timestamp},
};

/// coturn may have touched a key this long after we read it and the server still not distinguish the two:
/// idle times are given in whole seconds, and Redis's clock for them ticks slowly.
const TOUCH_PRECISION: u64 = 2_000;

impl Reducer {
    /// A snapshot begins: keys of which a message is heard from now on are left to their messages.
    pub fn snapshot_began(&mut self, at: Timestamp) {
        self.begin(at);
        self.hearing.begin_snapshot(self.now);
    }

    /// Whether the value of this key would say anything.
    #[must_use]
    pub fn snapshot_wants(&self, realm: &[u8], username: &[u8], id: AllocationId) -> bool {
        let Some(since) = self.hearing.snapshot_since() else {
            return false; // nobody takes one
        };
        let key = self.key(ServerRef::UNKNOWN.0, id, realm, username);
        let ended = |slot| self.tombstones.get(slot).is_some_and(|t| t.heard_at >= since);
        self.find_allocation(&key).is_none()
            && !self.find_tombstone(&key).is_some_and(ended)
            && !self.is_switched(&key)
    }

    /// A key that was read at `at`, `idle_seconds` after it had last been touched. It opens an allocation
    /// if it is young enough to live and unknown; returns whether it did.
    pub fn snapshot_key(
        &mut self,
        at: Timestamp,
        realm: &[u8],
        username: &[u8],
        id: AllocationId,
        status: Status<'_>,
        idle_seconds: Option<u64>,
    ) -> bool {
        self.begin(at);
        let Some(idle) = idle_seconds.filter(|_| self.snapshot_wants(realm, username, id)) else {
            return false; // how old it is nobody says, or its messages came meanwhile
        };
        let name = (realm.into(), username.into(), id);
        let mut touched_at = Timestamp(self.now.0.saturating_sub(idle.saturating_mul(1000)));
        if let Some(old) = self.refused.get(&name)
            && touched_at <= old.read_at.plus(TOUCH_PRECISION)
        {
            touched_at = old.touched_at; // nobody but us has touched it since
        }
        let patience = (u64::from(status.lifetime) * 1000).saturating_add(self.rules.expiry_grace);
        if status.lifetime == 0 || touched_at.plus(patience) < self.now {
            self.refused
                .insert(name, touched_at, self.now, &self.internal_errors);
            return false;
        }
        self.refused.remove(&name);
        let key = self.key(ServerRef::UNKNOWN.0, id, realm, username);
        if !self.is_welcome(&key, Kind::Refreshed(status)) {
            return false;
        }
        let details = self.details(&status);
        let tombstone = self.find_tombstone(&key);
        let slot = match tombstone {
            Some(t) if !self.is_another(t, &details) => self.revive(t, &key, Some(status)),
            _ => {
                let opening = match tombstone {
                    Some(t) => self.after_ended(t, &key),
                    None => self.take_aside(&key),
                };
                let opening = Opening {
                    from_snapshot: true,
                    ..opening
                };
                let slot = self.insert_allocation(&key, Some(status), opening);
                self.enter_group(slot);
                Some(slot)
            }
        };
        let now = self.now;
        if let Some(a) = slot.and_then(|slot| self.allocations.get_mut(slot as usize)) {
            a.status_at = Moment::from(touched_at);
            a.rare().dated_at = now;
        }
        if let Some(slot) = slot {
            self.mark(slot, Dirty::Hard);
            self.arm_allocation(slot);
        }
        true
    }

    /// The snapshot is over.
    pub fn snapshot_ended(&mut self, at: Timestamp) {
        self.begin(at);
        self.hearing.end_snapshot();
    }
}
