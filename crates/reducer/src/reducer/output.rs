//! What comes out of a reducer.

use crate::{
    event::{SessionEvent, Unattributed},
    message::AllocationId,
    state::Change,
    time::Timestamp,
};

/// What is to be committed together.
#[derive(Debug, Default)]
pub struct Output {
    /// The events, in the order in which they were decided.
    pub events: Vec<SessionEvent>,
    /// The rows of state that changed; at most one change for a row.
    pub changes: Vec<Change>,
    /// What is billed in no session.
    pub unattributed: Vec<Unattributed>,
    /// What the operator should hear of.
    pub notices: Vec<Notice>,
    /// And how many more there were: beyond a bound they are counted alone.
    pub notices_omitted: u64,
}

/// Something that is not billing's business, but the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Two servers use one key: give each coturn a source, or a realm, of its own.
    SharedKey {
        /// The allocation that both say is theirs.
        allocation: AllocationId,
        /// The two servers' addresses.
        addresses: [Box<[u8]>; 2],
    },
    /// An allocation's deltas exceeded its total.
    Overcounted {
        /// The allocation.
        allocation: AllocationId,
    },
    /// Tombstones were evicted early: raise `limits.tombstones`.
    TombstonesEvicted,
    /// A report of more than 4096 packets was not made in time: with TCP relay, coturn's counters may wrap unseen. (A
    /// stranger's flood on an idle allocation makes such a report, too.)
    LateReport {
        /// The allocation.
        allocation: AllocationId,
    },
    /// A client had coturn name another realm than the one that it authenticated in. It is billed under its own.
    RealmSwitched {
        /// The allocation.
        allocation: AllocationId,
        /// Its realm.
        realm: Box<[u8]>,
        /// What its messages name instead.
        claimed: Box<[u8]>,
    },
    /// A server has as many allocations open as `limits.allocations` allows: further ones are not counted.
    TooManyAllocations {
        /// The server (`direct` sources).
        server: Option<Box<[u8]>>,
    },
    /// With `peer_leg = "auto"`: whether this source's coturn reports the peer leg is known now.
    PeerLeg {
        /// Whether it does.
        reported: bool,
    },
    /// `peer_leg = true`, but totals of the client leg come and no peer message was ever heard: nothing is billed.
    NoPeerLeg,
    /// A server that was taken to have stopped is heard again: in between it was merely not heard.
    HadNotStopped {
        /// The server.
        server: Option<Box<[u8]>>,
        /// When it was taken to have stopped.
        from: Timestamp,
        /// When it was heard again.
        to: Timestamp,
    },
}

/// What happened, counted since the reducer was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Allocations whose deltas exceeded their total.
    pub overcounted: u64,
    /// Times at which two servers were seen to share a key.
    pub shared_keys: u64,
    /// Tombstones evicted before their time.
    pub tombstones_evicted: u64,
    /// Unconfirmed ids evicted before their time.
    pub unconfirmed_evicted: u64,
    /// Unconfirmed ids that nobody confirmed in time.
    pub unconfirmed_expired: u64,
    /// Messages that repeated what was known, or came after the end of what they speak of.
    pub repeats: u64,
    /// Bytes on record as unattributed.
    pub unattributed_bytes: u64,
    /// Reports of more than 4096 packets.
    pub late_reports: u64,
    /// Messages that bore another realm than their allocation.
    pub switched_realms: u64,
    /// Messages refused because their realm is none of the source's.
    pub refused_realms: u64,
    /// Allocations that blocked users opened.
    pub blocked_new: u64,
    /// Messages refused because their server has too many allocations open.
    pub refused_allocations: u64,
    /// Invariants of this crate that did not hold: faults of turnhook.
    pub internal_errors: u64,
}
