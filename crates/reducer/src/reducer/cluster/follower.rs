//! What a follower keeps, beside the state that it has like any reducer.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashSet;

use super::life::{Life, Stall, earliest};
use crate::{aside::UNSETTLED_TTL, message::AllocationId, time::Timestamp};

/// By how much the committed clock may have moved from one [`crate::Reducer::confirm`] to the next so that nothing
/// can have ended and been forgotten in between: a tombstone lives for 60 s at least.
pub(crate) const PATIENCE: u64 = 40_000;
/// Server, allocation and name (held), as the follower numbers them.
pub(crate) type LifeKey = (u32, AllocationId, u32);

/// What only a follower needs.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The committed clock when this was last compared with what is committed.
    pub(crate) clock: Timestamp,
    /// When that was, by our own clock.
    pub(crate) compared_at: Timestamp,
    /// Open allocations that were once among the committed ones. There are none to begin with, so that who loses the lease
    /// follows at once, however many are open.
    pub(crate) seen: HashSet<u32>,
    /// Ended ones whose end was not read as committed, in the order in which they opened.
    pub(crate) kept: BTreeMap<LifeKey, Vec<Life>>,
    /// In the order in which they ended; entries of forgotten ones are passed over.
    pub(crate) order: VecDeque<LifeKey>,
    pub(crate) count: usize,
}

impl Follower {
    /// Whether an allocation that opened then, or waited in a queue until then, cannot have been billed and
    /// forgotten by `clock` before this node first looked for it.
    pub(crate) fn is_young(&self, opened_at: Timestamp, gaps: &[Stall], clock: Timestamp) -> bool {
        let earliest = earliest(opened_at, gaps);
        opened_at < self.compared_at || earliest == opened_at || clock.since(earliest) <= PATIENCE
    }

    /// Whether all that ended since the last comparison would still be seen: no tombstone can have expired
    /// since, and none was evicted.
    pub(crate) fn is_sure(&self, clock: Timestamp, evicted_until: Timestamp) -> bool {
        let evicted = evicted_until > Timestamp(0) && evicted_until >= self.clock.plus(UNSETTLED_TTL);
        clock.since(self.clock) <= PATIENCE && !evicted
    }
}
