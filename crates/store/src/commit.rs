//! What a source commits: state, events and their deliveries, and the ledger's other entries, as one.

use std::sync::Arc;

use bytes::Bytes;
use turnhook_reducer::{
    event::{SessionEvent, Unattributed},
    source::Gap,
    state::Change,
    time::Timestamp,
};

use crate::{
    cluster::Epoch,
    delivery::Delivery,
    ids::{EndpointId, SourceId},
};

/// All that one source has to write down in one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The source that this commit belongs to.
    pub source: SourceId,
    /// That of the source's lease, as it was taken: on PostgreSQL the commit is refused if it is not held any more.
    /// `None` where nobody else can write: on SQLite, and while a store is copied.
    pub epoch: Option<Epoch>,
    /// The source's time: what was received up to it is in this commit or an earlier one. [`crate::State::load`]
    /// gives the last one back.
    pub clock: Timestamp,
    /// The rows of its state that changed, each key at most once.
    pub changes: Vec<Change>,
    /// The session events that this made, in order.
    pub events: Vec<NewEvent>,
    /// Bytes billed in no session.
    pub unattributed: Vec<Unattributed>,
    /// Times of which something may have been missed.
    pub gaps: Vec<Gap>,
    /// Somebody waits for this very commit: it is begun at once.
    pub at_once: bool,
}

impl Commit {
    /// One with nothing in it but the time.
    #[must_use]
    pub fn new(source: SourceId, clock: Timestamp) -> Commit {
        Commit {
            source,
            epoch: None,
            clock,
            changes: Vec::new(),
            events: Vec::new(),
            unattributed: Vec::new(),
            gaps: Vec::new(),
            at_once: false,
        }
    }
}

/// An event to be sent.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// What happened.
    pub event: SessionEvent,
    /// The bytes to send, on every attempt the same.
    pub body: Bytes,
    /// Whom it goes to, each at most once; empty if no endpoint wants it (it is in the ledger all the same).
    pub endpoints: Arc<[EndpointId]>,
}

/// A part of a commit that the database would not take by itself, whatever else there was: it is on record in its
/// place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// `event`, `state`, `unattributed` or `gap`.
    pub(crate) kind: &'static str,
    /// Which.
    pub(crate) name: String,
    /// What the database said.
    pub(crate) error: String,
    /// What it was, if it is not too large to keep.
    pub(crate) data: Option<Vec<u8>>,
}

/// How a commit is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How<'a> {
    /// For good, with these on record.
    Keep(&'a [Refused]),
    /// To see whether it can be: all of it is undone.
    Try,
}

impl<'a> How<'a> {
    pub(crate) fn refused(self) -> &'a [Refused] {
        match self {
            How::Keep(refused) => refused,
            How::Try => &[],
        }
    }
}

/// A commit that is on the disk.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Its deliveries, to be handed on from memory: in the order of the events, those of an event in the
    /// order of its endpoints. Those of all lanes: where other nodes make some of them, [`crate::Lanes::of`] says
    /// which.
    pub deliveries: Vec<Delivery>,
    /// Events that were there already (a commit repeated, by the caller or after a lost connection): nothing was
    /// written for these. Those of their deliveries that are still pending are among `deliveries`.
    pub repeated: usize,
}
