//! What a group's parked allocations carried and no session has billed yet: too little for a session of its own.

use crate::{
    event::{CloseReason, SessionId},
    identity::AllocationIdentity,
    message::AllocationId,
    session::Past,
    time::Timestamp,
    usage::Usage,
};

/// One for a group, until it is billed.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) group: u32,
    /// Of the last allocation that left something: who it is when it is billed alone.
    pub(crate) name: u32,
    pub(crate) server: u32,
    pub(crate) id: AllocationId,
    pub(crate) opened_at: Timestamp,
    pub(crate) twin: u16,
    /// The last session that counted one of them.
    pub(crate) continues: Option<SessionId>,
    pub(crate) usage: Usage,
    pub(crate) relayed: u64,
    pub(crate) inexact: bool,
    /// It is not known yet whether there is a peer leg, and so what is to be billed.
    pub(crate) withheld: bool,
    pub(crate) last_close: (Timestamp, CloseReason),
    /// When the first of it was left.
    pub(crate) since: Timestamp,
    /// The first of those that left something, and how many there were.
    pub(crate) past: Vec<Past>,
    pub(crate) past_count: u32,
}

impl Leftover {
    pub(crate) fn identity<'a>(
        &self,
        server: &'a [u8],
        realm: &'a [u8],
        username: &'a [u8],
    ) -> AllocationIdentity<'a> {
        AllocationIdentity {
            server,
            realm,
            username,
            id: self.id,
            opened_at: self.opened_at,
            twin: self.twin,
        }
    }
}
