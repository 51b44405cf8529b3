//! Whose allocations are to be ended. Who is blocked, by whom and until when is known elsewhere: here is only the list of
//! those who are now.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::{event::SessionId, message::AllocationId, time::Timestamp};

/// The users who are blocked at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    by_user: HashMap<Box<[u8]>, Vec<Blocked>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Blocked {
    /// `None`: in every realm.
    realm: Option<Box<[u8]>>,
    reason: Arc<str>,
}

impl Blocks {
    /// Whether nobody is blocked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// Blocks a user, in one realm or (`None`) in all of them. Nobody is an empty user, and so nobody can be blocked by
    /// that name.
    pub fn insert(&mut self, realm: Option<&[u8]>, user: &[u8], reason: Arc<str>) {
        if !user.is_empty() {
            let realm = realm.map(Into::into);
            self.by_user
                .entry(user.into())
                .or_default()
                .push(Blocked { realm, reason });
        }
    }

    /// Why a user is blocked in a realm; `None` if he is not.
    #[must_use]
    pub fn reason(&self, realm: &[u8], user: &[u8]) -> Option<&Arc<str>> {
        let blocks = self.by_user.get(user)?;
        let holds = |b: &&Blocked| b.realm.as_deref().is_none_or(|r| r == realm);
        blocks.iter().find(holds).map(|b| &b.reason)
    }
}

/// An allocation of one life: its number, and its place in the reducer, are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllocationRef {
    pub(crate) slot: u32,
    pub(crate) id: AllocationId,
    pub(crate) opened_at: Timestamp,
    pub(crate) twin: u16,
}

/// Why an allocation is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Its user is blocked.
    Block,
    /// Somebody asked for the end of this session.
    Session(SessionId),
}

/// An allocation that is to be ended, with all by which it is known to coturn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToEnd {
    /// For [`crate::Reducer::ending`].
    pub allocation: AllocationRef,
    /// Why.
    pub order: Order,
    /// In the words of whoever blocked the user, or ended the session.
    pub reason: Arc<str>,
    /// coturn's number.
    pub id: AllocationId,
    /// The whole username.
    pub username: Box<[u8]>,
    /// Empty if there is none.
    pub realm: Box<[u8]>,
    /// `remote=`.
    pub client_address: Option<Box<[u8]>>,
    /// `local=`.
    pub server_address: Option<Box<[u8]>>,
    /// When it opened; `None` if its `new` was not heard.
    pub opened_at: Option<Timestamp>,
}

/// A look at all allocations for those that are to be ended, in parts. What opens or is refreshed meanwhile is looked at
/// when that is heard.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// The place that is looked at next. After the last comes the first: a look that is asked for during another goes on
    /// from where that one is.
    pub(crate) next: u32,
    /// How many places are left.
    pub(crate) left: usize,
    /// How many there were when that was counted: more can come at the end while it goes on.
    pub(crate) places: usize,
    /// Whether those of blocked users are looked for.
    pub(crate) blocked: bool,
    /// Sessions that somebody wants to end, and why. That of an allocation is known, so none has to be searched.
    pub(crate) sessions: HashMap<SessionId, Arc<str>>,
}

/// What the reducer knows of blocks.
#[derive(Debug, Default)]
pub(crate) struct Enforcing {
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) look: Look,
    pub(crate) to_end: Vec<ToEnd>,
    /// Slots of those whose end is on its way to the record, and not asked for yet.
    pub(crate) unsaid: HashSet<u32>,
    /// Those that have closed after it was asked for.
    pub(crate) ended: Vec<AllocationRef>,
}
