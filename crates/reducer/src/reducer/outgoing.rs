//! What leaves the reducer: which rows have changed since the last [`Reducer::drain`](super::Reducer::drain), events,
//! records, notices and statistics. A follower's is muted: then nothing of this is kept, whoever hands it in.

use super::{Notice, Output, Stats};
use crate::{
    allocation::Dirty,
    event::{SessionEvent, Unattributed},
    state::{Change, Table},
};

/// Allocations of which only counters moved that are saved at once: a million rows would take hundreds of MiB.
const SAVED_AT_ONCE: usize = 32_768;
/// Notices that are kept until they are taken.
const NOTICES: usize = 1000;

#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Nothing is kept: nobody would commit it.
    muted: bool,
    /// The slots of changed rows. One may stand there twice, and its slot may have been freed or taken again meanwhile.
    allocations: Vec<u32>,
    /// Allocations of which only counters moved: totals would heal their loss.
    soft_allocations: Vec<u32>,
    sessions: Vec<u32>,
    tombstones: Vec<u32>,
    leftovers: Vec<u32>,
    source: bool,
    /// Rows are being made of the marks: see [`Outgoing::begin_collecting`].
    collecting: bool,
    output: Output,
    stats: Stats,
}

impl Outgoing {
    /// From now on nothing is kept, and what was kept is forgotten.
    pub(super) fn mute(&mut self) {
        *self = Outgoing {
            muted: true,
            stats: self.stats,
            ..Outgoing::default()
        };
    }

    pub(super) fn unmute(&mut self) {
        self.muted = false;
    }

    pub(super) fn is_muted(&self) -> bool {
        self.muted
    }

    /// An allocation's row has changed. `marked` is how urgently that stands in here already.
    #[inline]
    pub(super) fn allocation(&mut self, slot: u32, marked: &mut Dirty, dirty: Dirty) {
        if dirty <= *marked || self.muted {
            return;
        }
        *marked = dirty;
        match dirty {
            Dirty::Hard => self.allocations.push(slot),
            Dirty::Soft => self.soft_allocations.push(slot),
            Dirty::Clean => {}
        }
    }

    /// A session's row has changed. `marked` is whether that stands in here already.
    #[inline]
    pub(super) fn session(&mut self, slot: u32, marked: &mut bool) {
        if !*marked && !self.muted {
            *marked = true;
            self.sessions.push(slot);
        }
    }

    pub(super) fn tombstone(&mut self, slot: u32) {
        if !self.muted {
            self.tombstones.push(slot);
        }
    }

    pub(super) fn leftover(&mut self, slot: u32) {
        if !self.muted {
            self.leftovers.push(slot);
        }
    }

    /// The source's own row has changed.
    pub(super) fn source(&mut self) {
        self.source |= !self.muted;
    }

    pub(super) fn event(&mut self, event: SessionEvent) {
        if !self.muted {
            self.output.events.push(event);
        }
    }

    pub(super) fn unattributed(&mut self, record: Unattributed) {
        if !self.muted {
            let bytes = &mut self.stats.unattributed_bytes;
            *bytes = bytes.saturating_add(record.usage.billable_bytes);
            self.output.unattributed.push(record);
        }
    }

    /// For the operator. Bounded: who has not listened so long knows already, and gets the number of the rest.
    pub(super) fn notice(&mut self, notice: Notice) {
        if self.muted {
            return;
        }
        if self.output.notices.len() < NOTICES {
            self.output.notices.push(notice);
        } else {
            self.output.notices_omitted += 1;
        }
    }

    /// Counts one more of what `which` names.
    #[inline]
    pub(super) fn count(&mut self, which: impl FnOnce(&mut Stats) -> &mut u64) {
        *which(&mut self.stats) += 1;
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats
    }

    /// Events and records that are kept.
    pub(super) fn events(&self) -> usize {
        self.output.events.len() + self.output.unattributed.len()
    }

    /// Allocations of which only counters moved.
    pub(super) fn unsaved(&self) -> usize {
        self.soft_allocations.len()
    }

    /// Whether there is something that must not wait.
    pub(super) fn is_urgent(&self) -> bool {
        self.events() > 0
            || !self.output.changes.is_empty()
            || !self.allocations.is_empty()
            || !self.sessions.is_empty()
            || !self.leftovers.is_empty()
    }

    /// Rows are about to be made of what is marked: of counters that merely moved, too, with `all`. Does nothing once
    /// begun, until [`Outgoing::take`].
    pub(super) fn begin_collecting(&mut self, all: bool) {
        if std::mem::replace(&mut self.collecting, true) {
            return;
        }
        if all {
            let some = self.soft_allocations.len().min(SAVED_AT_ONCE);
            self.allocations.extend(self.soft_allocations.drain(..some));
        }
        self.allocations = once(std::mem::take(&mut self.allocations));
    }

    /// The next of the changed allocations, `most` of them.
    pub(super) fn next_allocations(&mut self, most: usize) -> Vec<u32> {
        match self.allocations.len().saturating_sub(most) {
            0 => std::mem::take(&mut self.allocations),
            rest => self.allocations.split_off(rest),
        }
    }

    /// Whether [`Outgoing::next_allocations`] has more.
    pub(super) fn has_allocations(&self) -> bool {
        !self.allocations.is_empty()
    }

    pub(super) fn take_sessions(&mut self) -> Vec<u32> {
        once(std::mem::take(&mut self.sessions))
    }

    pub(super) fn take_tombstones(&mut self) -> Vec<u32> {
        once(std::mem::take(&mut self.tombstones))
    }

    pub(super) fn take_leftovers(&mut self) -> Vec<u32> {
        once(std::mem::take(&mut self.leftovers))
    }

    pub(super) fn take_source(&mut self) -> bool {
        std::mem::take(&mut self.source)
    }

    /// A row, or `None` where it is to be removed.
    pub(super) fn row(&mut self, table: Table, key: u64, value: Option<Vec<u8>>) {
        self.output.changes.push(Change { table, key, value });
    }

    /// All that is kept, with the rows that were made.
    pub(super) fn take(&mut self) -> Output {
        self.collecting = false;
        std::mem::take(&mut self.output)
    }
}

/// Each slot once, in order.
fn once(mut slots: Vec<u32>) -> Vec<u32> {
    slots.sort_unstable();
    slots.dedup();
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_muted_one_keeps_nothing() {
        let mut outgoing = Outgoing::default();
        let (mut marked, mut session) = (Dirty::Clean, false);
        outgoing.allocation(1, &mut marked, Dirty::Hard);
        outgoing.tombstone(2);
        outgoing.notice(Notice::NoPeerLeg);
        outgoing.count(|stats| &mut stats.repeats);
        outgoing.mute();
        marked = Dirty::Clean;
        outgoing.allocation(3, &mut marked, Dirty::Hard);
        outgoing.session(4, &mut session);
        outgoing.leftover(5);
        outgoing.source();
        outgoing.notice(Notice::NoPeerLeg);
        assert_eq!((marked, session), (Dirty::Clean, false));
        assert!(!outgoing.is_urgent() && !outgoing.take_source());
        outgoing.begin_collecting(true);
        assert!(outgoing.next_allocations(9).is_empty() && outgoing.take_tombstones().is_empty());
        assert!(outgoing.take().notices.is_empty());
        assert_eq!(outgoing.stats().repeats, 1);
    }

    #[test]
    fn allocations_are_taken_in_parts_and_each_once() {
        let mut outgoing = Outgoing::default();
        for slot in [7, 3, 7, 5] {
            outgoing.allocation(slot, &mut Dirty::Clean, Dirty::Hard);
        }
        outgoing.allocation(9, &mut Dirty::Clean, Dirty::Soft);
        outgoing.begin_collecting(true);
        assert_eq!(outgoing.next_allocations(3), [5, 7, 9]);
        outgoing.begin_collecting(true);
        assert_eq!(outgoing.next_allocations(3), [3]);
        assert!(!outgoing.has_allocations());
    }
}
