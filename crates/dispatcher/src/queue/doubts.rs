//! Which deliveries were answered with 400, and since when.

use std::collections::HashMap;

use turnhook_reducer::{outbox::DeliveryId, time::Timestamp};

/// For how long a 400 is borne, in milliseconds.
const BORNE: u64 = 3_600_000;
/// Of how many deliveries it is known. The others are tried until they are given up for their age.
const MOST: usize = 4096;

/// Not kept over a restart: they are tried a while longer then.
#[derive(Debug, Default)]
pub(super) struct Doubts(HashMap<DeliveryId, Timestamp>);

impl Doubts {
    /// A delivery was answered with 400. Whether it has been for as long as that is borne.
    pub(super) fn answered(&mut self, id: DeliveryId, now: Timestamp) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&id) {
            return false;
        }
        now.since(*self.0.entry(id).or_insert(now)) >= BORNE
    }

    pub(super) fn forget(&mut self, id: DeliveryId) {
        self.0.remove(&id);
    }
}
