//! Who is blocked: changes in order, the last one of a user and realm holds. Times are those of the wall clock, as people
//! mean them.

use turnhook_reducer::{event::SessionId, time::Timestamp};

use crate::{
    Admin, Backend,
    codes::{int, nat},
    error::{Error, Result},
    on,
};

/// Longer reasons, and names of who it was, are cut.
const WORDS: usize = 256;

/// What a change of the blocks says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// A user is blocked, in one realm or (`None`) in all of them.
    Block {
        /// Where.
        realm: Option<Box<[u8]>>,
        /// Whom.
        user: Box<[u8]>,
        /// `None`: until he is unblocked.
        until: Option<Timestamp>,
    },
    /// He is no more.
    Unblock {
        /// As it was blocked.
        realm: Option<Box<[u8]>>,
        /// Whom.
        user: Box<[u8]>,
    },
    /// The allocations that a session has now are to be ended.
    EndSession(SessionId),
}

/// A change as it is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRow {
    /// In the order of the changes.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: BlockChange,
    /// Why, in somebody's words.
    pub reason: String,
    /// By whom.
    pub who: String,
}

/// The columns of a change, for both databases: kind, realm, user, session, until.
pub(crate) type Columns = (
    i16,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
);

pub(crate) fn to_columns(change: &BlockChange) -> Columns {
    let bytes = |b: &[u8]| Some(b.to_vec());
    match change {
        BlockChange::Block { realm, user, until } => (
            0,
            realm.as_deref().and_then(bytes),
            bytes(user),
            None,
            until.map(|t| int(t.0)),
        ),
        BlockChange::Unblock { realm, user } => {
            (1, realm.as_deref().and_then(bytes), bytes(user), None, None)
        }
        BlockChange::EndSession(session) => (2, None, None, bytes(&session.0), None),
    }
}

/// Of the block that a rule is about to make: was it made before (realm, user, who, until), or does one hold that lasts as
/// long (realm, user, until)? `is` compares what may be NULL.
pub(crate) fn made_before(user: &str, is: &str, mark: char) -> String {
    format!(
        "SELECT 1 FROM block_change b WHERE b.{user} = {mark}2 AND b.realm {is} {mark}1 AND b.kind = 0 \
         AND ((b.who = {mark}3 AND b.until_at = {mark}4) OR ((b.until_at IS NULL OR b.until_at >= {mark}4) AND b.id = \
         (SELECT max(id) FROM block_change WHERE {user} = {mark}2 AND realm {is} {mark}1))) LIMIT 1"
    )
}

/// `None` for what this version does not know.
pub(crate) fn from_columns((kind, realm, user, session, until): Columns) -> Option<BlockChange> {
    let realm = realm.map(Vec::into_boxed_slice);
    Some(match kind {
        0 => BlockChange::Block {
            realm,
            user: user?.into(),
            until: until.map(|ms| Timestamp(nat(ms))),
        },
        1 => BlockChange::Unblock {
            realm,
            user: user?.into(),
        },
        2 => BlockChange::EndSession(SessionId(session?.try_into().ok()?)),
        _ => return None,
    })
}

fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS).collect()
}

impl Admin {
    /// Puts a change of the blocks on record; its number. Every process that runs on the store learns of it by
    /// [`Admin::block_changes`].
    ///
    /// # Errors
    /// [`Error::NoUser`], or the disk's.
    pub async fn change_block(
        &self,
        at: Timestamp,
        change: BlockChange,
        reason: &str,
        who: &str,
    ) -> Result<u64> {
        let named = match &change {
            BlockChange::Block { user, .. } | BlockChange::Unblock { user, .. } => !user.is_empty(),
            BlockChange::EndSession(_) => true,
        };
        if !named {
            return Err(Error::NoUser);
        }
        let (reason, who) = (words(reason), words(who));
        on!(self, db => db.change_block(at, change, reason, who).await)
    }

    /// Blocks a user in a realm until a time, by the rule that `who` stands for, and only once: not where the same was put on
    /// record before, whatever came of it since (somebody may have unblocked him, and meant it), and not where a block
    /// holds that lasts as long. Whether it was done.
    ///
    /// # Errors
    /// [`Error::NoUser`], or the disk's.
    pub async fn block_once(
        &self,
        at: Timestamp,
        realm: &[u8],
        user: &[u8],
        until: Timestamp,
        reason: &str,
        who: &str,
    ) -> Result<bool> {
        if user.is_empty() {
            return Err(Error::NoUser);
        }
        let change = BlockChange::Block {
            realm: Some(realm.into()),
            user: user.into(),
            until: Some(until),
        };
        let (reason, who) = (words(reason), words(who));
        on!(self, db => db.block_once(at, change, reason, who).await)
    }

    /// Changes above `after`, in order. Whoever has seen one has been given all earlier ones.
    ///
    /// # Errors
    /// The disk's.
    pub async fn block_changes(&self, after: u64, limit: usize) -> Result<Vec<BlockRow>> {
        on!(self, db => db.block_changes(after, limit.max(1)).await)
    }

    /// The blocks that hold at `now`, by user.
    ///
    /// # Errors
    /// The disk's.
    pub async fn blocks(&self, now: Timestamp) -> Result<Vec<BlockRow>> {
        let mut rows = on!(self, db => db.last_blocks(None).await)?;
        rows.retain(|row| row.holds(now));
        Ok(rows)
    }

    /// Those of one user.
    ///
    /// # Errors
    /// The disk's.
    pub async fn blocks_of(&self, user: &[u8], now: Timestamp) -> Result<Vec<BlockRow>> {
        let mut rows = on!(self, db => db.last_blocks(Some(user.to_vec())).await)?;
        rows.retain(|row| row.holds(now));
        Ok(rows)
    }
}

impl BlockRow {
    /// Whether it is a block that holds then.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        matches!(&self.change, BlockChange::Block { until, .. } if until.is_none_or(|until| until > now))
    }
}
