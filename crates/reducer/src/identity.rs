//! Ids are hashes of what they name, so that the same history gives the same ids.

use sha2::{Digest, Sha256};

use crate::{
    event::{EventId, SessionId},
    message::AllocationId,
    time::Timestamp,
};

/// Which store and which source a reducer works for: part of every id that it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The store's random id.
    pub store: [u8; 16],
    /// The source's name.
    pub source: std::sync::Arc<str>,
}

/// What makes an allocation itself: its key and its incarnation.
pub(crate) struct AllocationIdentity<'a> {
    pub(crate) server: &'a [u8],
    pub(crate) realm: &'a [u8],
    pub(crate) username: &'a [u8],
    pub(crate) id: AllocationId,
    pub(crate) opened_at: Timestamp,
    pub(crate) twin: u16,
}

impl Identity {
    /// The session that an allocation opens: the first one, or the one that continues `continues`.
    pub(crate) fn session(
        &self,
        allocation: &AllocationIdentity<'_>,
        continues: Option<SessionId>,
        started_at: Timestamp,
    ) -> SessionId {
        self.named(b"session", allocation, continues, started_at)
    }

    /// The session that bills what was left over, `allocation`'s part last. It may begin at one instant with others
    /// that continue the same one: `number`, which no two have, distinguishes it from them.
    pub(crate) fn leftover(
        &self,
        number: u64,
        allocation: &AllocationIdentity<'_>,
        continues: Option<SessionId>,
        started_at: Timestamp,
    ) -> SessionId {
        let mut kind = *b"leftover........";
        kind[8..].copy_from_slice(&number.to_be_bytes());
        self.named(&kind, allocation, continues, started_at)
    }

    /// The session that bills what a log has more than was billed of an allocation.
    pub(crate) fn healed(
        &self,
        allocation: &AllocationIdentity<'_>,
        continues: SessionId,
        closed_at: Timestamp,
    ) -> SessionId {
        self.named(b"healed", allocation, Some(continues), closed_at)
    }

    fn named(
        &self,
        kind: &[u8],
        allocation: &AllocationIdentity<'_>,
        continues: Option<SessionId>,
        started_at: Timestamp,
    ) -> SessionId {
        let mut hash = Sha256::new();
        for part in [
            kind,
            &self.store[..],
            self.source.as_bytes(),
            allocation.server,
            allocation.realm,
        ] {
            add(&mut hash, part);
        }
        add(&mut hash, allocation.username);
        hash.update(allocation.id.0.to_be_bytes());
        hash.update(allocation.opened_at.0.to_be_bytes());
        hash.update(allocation.twin.to_be_bytes());
        add(&mut hash, continues.as_ref().map_or(&[][..], |id| &id.0));
        SessionId(timed(started_at, hash))
    }
}

/// The event of a session with a sequence number.
pub(crate) fn event_id(session: SessionId, sequence: u32, timestamp: Timestamp) -> EventId {
    let mut hash = Sha256::new();
    add(&mut hash, b"event");
    hash.update(session.0);
    hash.update(sequence.to_be_bytes());
    EventId(timed(timestamp, hash))
}

/// The event of a type that a change of the blocks makes, which has a number in its store.
pub(crate) fn user_event_id(store: [u8; 16], change: u64, event_type: &str, timestamp: Timestamp) -> EventId {
    let mut hash = Sha256::new();
    add(&mut hash, b"user event");
    hash.update(store);
    hash.update(change.to_be_bytes());
    add(&mut hash, event_type.as_bytes());
    EventId(timed(timestamp, hash))
}

/// What stands in the place of a session's id in events of a user: these wait for each other by it.
pub(crate) fn user_key(realm: Option<&[u8]>, user: &[u8]) -> SessionId {
    let mut hash = Sha256::new();
    add(&mut hash, b"user");
    hash.update([u8::from(realm.is_some())]);
    add(&mut hash, realm.unwrap_or_default());
    add(&mut hash, user);
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    SessionId(key)
}

/// With its length, so that no two lists of parts look the same.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// 48 bits of time, then 80 bits of hash: ids sort by time, which keeps the inserts of a store local.
fn timed(at: Timestamp, hash: Sha256) -> [u8; 16] {
    let mut id = [0u8; 16];
    id[..6].copy_from_slice(&at.0.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&hash.finalize()[..10]);
    id
}
