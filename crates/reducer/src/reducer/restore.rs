//! A reducer as it was when its rows were last committed.

use serde::Deserialize;
use slab::Slab;

use super::{
    Reducer,
    rows::{
        AllocationRow, DetailsRow, FORMAT, PastRow, RefusedRow, SOURCE_KEY, SessionRow, SourceRow,
        TombstoneRow,
    },
};
use crate::{
    allocation::{Allocation, Details, Dirty},
    aside::Tombstone,
    event::SessionId,
    identity::Identity,
    intern::NONE,
    labels::LabelSet,
    message::AllocationId,
    rules::Rules,
    session::{Past, Phase, Session},
    state::Table,
    time::Timestamp,
};

/// A row that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// The row's table.
    pub table: Table,
    /// The row's key.
    pub key: u64,
}

impl std::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RestoreError { table, key } = self;
        write!(
            f,
            "row {key} of the {table:?} state cannot be read: it is damaged, or of another version of turnhook"
        )
    }
}

impl std::error::Error for RestoreError {}

/// A slab is filled as the rows come, in any order: to collect them first would take its memory twice.
/// Slots of which the row has yet to come, or does not exist, are filled with holes.
trait Hole {
    fn hole() -> Self;
    fn is_hole(&self) -> bool;
}

impl Hole for Allocation {
    fn hole() -> Allocation {
        Allocation::new(AllocationId(0), NONE, NONE, NONE, Timestamp(0))
    }

    fn is_hole(&self) -> bool {
        self.name == NONE
    }
}

impl Hole for Session {
    fn hole() -> Session {
        Session::new(SessionId([0; 16]), NONE, NONE, Timestamp(0))
    }

    fn is_hole(&self) -> bool {
        self.first_name == NONE
    }
}

fn fill<T: Hole>(slab: &mut Slab<T>, slot: u32, value: T) {
    let slot = slot as usize;
    while slab.len() < slot {
        slab.insert(T::hole());
    }
    match slab.get_mut(slot) {
        Some(hole) => *hole = value,
        None => {
            slab.insert(value);
        }
    }
}

/// The first of them is the first to be filled again.
fn free_holes<T: Hole>(slab: &mut Slab<T>) {
    let holes = slab.iter().filter(|(_, value)| value.is_hole());
    let holes: Vec<u32> = holes.map(|(slot, _)| slot as u32).collect();
    for slot in holes.into_iter().rev() {
        slab.try_remove(slot as usize);
    }
}

/// A reducer on its way back from its rows, which are handed over one by one, in any order.
#[derive(Debug)]
pub struct Restoring {
    reducer: Reducer,
    tombstones: Vec<(u32, u64, Tombstone)>,
    /// Slots of sessions that their groups' allocations join.
    current: Vec<u32>,
}

impl Restoring {
    /// Of no rows yet.
    #[must_use]
    pub fn new(identity: Identity, rules: Rules) -> Restoring {
        Restoring {
            reducer: Reducer::new(identity, rules),
            tombstones: Vec::new(),
            current: Vec::new(),
        }
    }

    /// One more row.
    ///
    /// # Errors
    /// [`RestoreError`]: what is to become of the others has no meaning then.
    pub fn row(&mut self, table: Table, key: u64, bytes: &[u8]) -> Result<(), RestoreError> {
        let reducer = &mut self.reducer;
        let bad = RestoreError { table, key };
        let slot = u32::try_from(key).ok().filter(|slot| *slot != NONE);
        let Some((&FORMAT, bytes)) = bytes.split_first() else {
            return Err(bad);
        };
        match table {
            Table::Allocation => {
                let slot = slot.ok_or(bad)?;
                let allocation = reducer.read_allocation(read(bytes, bad)?);
                fill(&mut reducer.allocations, slot, allocation);
            }
            Table::Session => {
                let slot = slot.ok_or(bad)?;
                let row: SessionRow<'_> = read(bytes, bad)?;
                if row.current {
                    self.current.push(slot);
                }
                let session = reducer.read_session(row);
                fill(&mut reducer.sessions, slot, session);
            }
            Table::Tombstone => {
                let row: TombstoneRow<'_> = read(bytes, bad)?;
                let number = row.number;
                self.tombstones
                    .push((slot.ok_or(bad)?, number, reducer.read_tombstone(row)));
            }
            Table::Source if key == SOURCE_KEY => {
                let row: SourceRow = read(bytes, bad)?;
                reducer.evicted_until = row.evicted_until;
                reducer.evicted_at_once = row.evicted_at_once;
            }
            Table::Source => {
                let row: RefusedRow = read(bytes, bad)?;
                reducer.refused.restore(row.key, row.refused);
            }
        }
        Ok(())
    }

    /// The reducer as of `clock`, the time of the last commit. It is deaf until [`Reducer::hearing`].
    #[must_use]
    pub fn finish(self, clock: Timestamp) -> Reducer {
        let Restoring {
            mut reducer,
            tombstones,
            current,
        } = self;
        reducer.now = clock;
        free_holes(&mut reducer.sessions);
        free_holes(&mut reducer.allocations);
        reducer.restore_tombstones(tombstones);
        reducer.link(current);
        reducer
    }
}

impl Reducer {
    /// A reducer with the state that the rows hold: [`Restoring`] at one go.
    ///
    /// # Errors
    /// [`RestoreError`]
    pub fn restore<R: AsRef<[u8]>>(
        identity: Identity,
        rules: Rules,
        clock: Timestamp,
        rows: impl IntoIterator<Item = (Table, u64, R)>,
    ) -> Result<Reducer, RestoreError> {
        let mut restoring = Restoring::new(identity, rules);
        for (table, key, bytes) in rows {
            restoring.row(table, key, bytes.as_ref())?;
        }
        Ok(restoring.finish(clock))
    }

    fn read_details(&mut self, row: DetailsRow<'_>) -> Details {
        let labels = LabelSet {
            local: self.labels.optional(row.local),
            transport: self.labels.optional(row.transport),
            tls_version: self.labels.optional(row.tls_version),
            tls_cipher: self.labels.optional(row.tls_cipher),
        };
        Details {
            remote: row.remote,
            labels: self.labels.number(labels),
        }
    }

    fn read_allocation(&mut self, row: AllocationRow<'_>) -> Allocation {
        let name = self.names.hold(row.realm, row.username);
        let server = self.labels.optional(row.server);
        let details = self.read_details(row.details);
        let mut allocation = Allocation::new(AllocationId(row.id), server, name, NONE, row.opened_at);
        allocation.session = row.session.unwrap_or(NONE);
        allocation.heard_at = row.heard_at.into();
        allocation.status_at = row.status_at.into();
        allocation.lifetime = row.lifetime;
        allocation.flags = row.flags;
        allocation.remote = details.remote;
        allocation.labels = details.labels;
        allocation.rare = row.rare.map(Box::new);
        allocation.set_legs(&row.legs);
        allocation
    }

    fn read_session(&mut self, row: SessionRow<'_>) -> Session {
        let first_name = self.names.hold(row.realm, row.username);
        let group = self.group_of(first_name);
        let past = row.past.into_iter().map(|p| self.read_past(p)).collect();
        let usernames = row
            .usernames
            .into_iter()
            .map(|(realm, username)| self.names.hold(realm, username))
            .collect();
        let has_former = row.continues.is_some()
            || row.past_count > 0
            || row.last_close.is_some()
            || row.last_counting_close > Timestamp(0);
        let mut session = Session::new(row.id, group, first_name, row.started_at);
        session.phase = row.phase;
        session.sequence = row.sequence;
        session.last_event_at = row.last_event_at.into();
        session.relayed = row.past_relayed;
        session.inexact = row.inexact;
        session.usernames = usernames;
        if has_former {
            let former = session.former_mut();
            former.continues = row.continues;
            former.past = past;
            former.past_count = row.past_count;
            former.past_usage = row.past_usage;
            former.past_relayed = row.past_relayed;
            former.last_close = row.last_close;
            former.last_relayed_close = row.last_relayed_close;
            former.last_counting_close = row.last_counting_close;
        }
        session.set_usage(row.past_usage);
        session.set_told(row.told);
        session
    }

    fn read_past(&mut self, row: PastRow<'_>) -> Past {
        Past {
            id: AllocationId(row.id),
            server: self.labels.optional(row.server),
            name: self.names.hold(row.realm, row.username),
            opened_at: row.opened_at,
            opened_seen: row.opened_seen,
            closed: row.closed,
            totals_seen: row.totals_seen,
            details: self.read_details(row.details),
            part: row.part,
        }
    }

    fn read_tombstone(&mut self, row: TombstoneRow<'_>) -> Tombstone {
        Tombstone {
            id: AllocationId(row.id),
            server: self.labels.optional(row.server),
            name: self.names.hold(row.realm, row.username),
            opened_at: row.opened_at,
            heard_at: row.heard_at,
            rest: row.rest,
        }
    }

    /// Finds the allocations' sessions and groups again, and sets all deadlines.
    fn link(&mut self, current: Vec<u32>) {
        for slot in current {
            let Some(s) = self.sessions.get(slot as usize) else {
                continue;
            };
            // `group_by` may have changed since: a group has one current session, the others just go on.
            if let Some(g) = self.groups.get_mut(s.group as usize)
                && g.current == NONE
            {
                g.current = slot;
            }
        }
        let slots: Vec<u32> = self.allocations.iter().map(|(slot, _)| slot as u32).collect();
        for slot in &slots {
            let Some(a) = self.allocations.get(*slot as usize) else {
                continue;
            };
            let (name, session) = (a.name, a.session);
            let hash = Reducer::hash_of(&self.hasher, &self.names, a.server, a.id, name);
            let group = match self.sessions.get(session as usize) {
                Some(s) => {
                    let group = s.group;
                    self.hold_group(group);
                    group
                }
                None => self.group_of(name),
            };
            self.index_allocation(*slot, hash);
            if let Some(a) = self.allocations.get_mut(*slot as usize) {
                a.hash = hash;
                a.group = group;
                a.session = NONE;
            }
            if self.sessions.contains(session as usize) {
                self.join(*slot, session);
            }
            self.arm_allocation(*slot);
        }
        // Nothing of this is news to the store.
        for slot in std::mem::take(&mut self.dirty_allocations) {
            if let Some(a) = self.allocations.get_mut(slot as usize) {
                a.dirty = Dirty::Clean;
            }
        }
        for slot in std::mem::take(&mut self.dirty_sessions) {
            if let Some(s) = self.sessions.get_mut(slot as usize) {
                s.dirty = false;
            }
        }
        let sessions: Vec<u32> = self.sessions.iter().map(|(slot, _)| slot as u32).collect();
        for slot in sessions {
            self.arm_usage(slot);
            self.review(slot);
        }
        debug_assert!(
            self.sessions
                .iter()
                .all(|(_, s)| s.phase != Phase::Waiting || s.sequence == 0)
        );
    }
}

pub(crate) fn read<'r, T: Deserialize<'r>>(bytes: &'r [u8], bad: RestoreError) -> Result<T, RestoreError> {
    postcard::from_bytes(bytes).map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_in_any_order_and_holes_are_free_again() {
        let allocation = |id| Allocation::new(AllocationId(id), NONE, 0, 0, Timestamp(0));
        let mut slab = Slab::new();
        for slot in [3, 0, 5, 1] {
            fill(&mut slab, slot, allocation(u64::from(slot)));
        }
        free_holes(&mut slab);
        let filled: Vec<_> = slab.iter().map(|(slot, a)| (slot, a.id.0)).collect();
        assert_eq!(filled, [(0, 0), (1, 1), (3, 3), (5, 5)]);
        let next = [0; 3].map(|id| slab.insert(allocation(id)));
        assert_eq!(next, [2, 4, 6]);
    }
}
