//! How far what is heard may be behind what was committed, after a takeover.

use hashbrown::HashMap;

use crate::{relayed::Carried, time::Timestamp};

/// How long after a takeover messages from before it are looked for.
const WINDOW: u64 = 20_000;

/// What may still be heard of from before a takeover.
#[derive(Debug)]
pub(crate) struct Stale {
    /// The committed clock, and the end of the window.
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) allocations: HashMap<u32, Behind>,
    pub(crate) tombstones: HashMap<u32, Behind>,
}

/// How far our stream is behind what was committed of one allocation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behind {
    /// Its `new` may still come.
    pub(crate) new: bool,
    /// Another life of its key is open in our stream: what comes first is of that one.
    pub(crate) skip: bool,
    /// What was counted here, once it has ended.
    pub(crate) counted: Carried,
}

impl Stale {
    pub(crate) fn new(since: Timestamp, at: Timestamp) -> Stale {
        Stale {
            since,
            until: at.plus(WINDOW),
            allocations: HashMap::new(),
            tombstones: HashMap::new(),
        }
    }

    pub(crate) fn open(&mut self, slot: u32, behind: Behind) {
        self.allocations.insert(slot, behind);
    }

    pub(crate) fn ended(&mut self, slot: u32, behind: Behind) {
        self.tombstones.insert(slot, behind);
    }
}
