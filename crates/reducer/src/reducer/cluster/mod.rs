//! What only a source that several nodes share needs. Whoever works on metering alone can leave this folder unread: with
//! one node nothing here ever acts, and the rest of the reducer asks it by the few methods below.
//!
//! `follower.rs` is what a follower keeps, `follow.rs` how it comes about, `compare.rs` how it is compared with what is
//! committed, `life.rs` whether two nodes speak of one life of an allocation, `takeover.rs` what the old leader did not
//! commit, `bring_in.rs` how that is brought in, `stale.rs` what still waits in a queue from before, of which `behind.rs`
//! keeps what there is to know.

mod behind;
mod bring_in;
mod compare;
mod follow;
mod follower;
mod life;
mod stale;
mod takeover;

use hashbrown::HashMap;

use crate::{relayed::Carried, time::Timestamp};

/// The state of a node among others.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// The last times in which this process stood still.
    gaps: Vec<life::Stall>,
    /// What a follower keeps; `None` in a leader, and where there is one node.
    follower: Option<Box<follower::Follower>>,
    /// What was counted here of allocations of which another node had counted more.
    counted: HashMap<u32, Carried>,
    /// What may still be heard of from before a takeover.
    stale: Option<Box<behind::Stale>>,
    /// From when on the ends that a takeover brings in are remembered.
    taken_over_at: Timestamp,
}

impl Cluster {
    /// What was counted here of an allocation of which another node had counted more.
    pub(super) fn counted_here(&self, slot: u32) -> Option<Carried> {
        self.counted.get(&slot).copied()
    }

    /// An allocation has opened: a follower has yet to see it among the committed ones.
    pub(super) fn opened(&mut self, slot: u32) {
        if let Some(follower) = self.follower.as_mut() {
            follower.seen.remove(&slot);
        }
    }

    /// The servers of what a follower keeps.
    pub(super) fn servers_kept(&self) -> impl Iterator<Item = u32> {
        let kept = self.follower.iter().flat_map(|f| f.kept.keys());
        kept.map(|(server, ..)| *server)
    }

    /// From when on the tombstone of an allocation that ends now is kept.
    pub(super) fn remembers_from(&self, now: Timestamp) -> Timestamp {
        now.max(self.taken_over_at)
    }
}
