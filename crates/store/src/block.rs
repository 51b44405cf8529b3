//! Who is blocked: changes in order, the last one of a user and realm holds. Times are those of the wall clock, as
//! people mean them.

use turnhook_reducer::{event::SessionId, time::Timestamp, user_event::QuotaReached};

use crate::{
    Admin,
    codes::{int, nat},
    error::{Error, Result},
    on,
    query::{Dialect, values},
    quota::pack_quota,
    record::{Columns, Record},
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
    /// The time of a block is over: put on record by [`Admin::expire_blocks`], for whoever is notified.
    Expired {
        /// As it was blocked.
        realm: Option<Box<[u8]>>,
        /// Whom.
        user: Box<[u8]>,
    },
}

impl BlockChange {
    /// Whom it is about, and where; `None` for a session.
    #[must_use]
    pub fn whom(&self) -> Option<(Option<&[u8]>, &[u8])> {
        match self {
            BlockChange::Block { realm, user, .. }
            | BlockChange::Unblock { realm, user }
            | BlockChange::Expired { realm, user } => Some((realm.as_deref(), user)),
            BlockChange::EndSession(_) => None,
        }
    }
}

/// A realm (`None`: all of them) and a user.
pub type Whom = (Option<Box<[u8]>>, Box<[u8]>);

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
pub(crate) type ChangeColumns = (
    i16,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
);

pub(crate) fn to_columns(change: &BlockChange) -> ChangeColumns {
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
        BlockChange::Expired { realm, user } => {
            (3, realm.as_deref().and_then(bytes), bytes(user), None, None)
        }
    }
}

/// Of the block that a rule is about to make: was it made before (realm, user, who, until), or does one hold that lasts
/// as long (realm, user, until)?
pub(crate) fn made_before(dialect: &Dialect) -> String {
    let Dialect { user, is, .. } = dialect;
    dialect.say(&format!(
        "SELECT 1 FROM block_change b WHERE b.{user} = ?2 AND b.realm {is} ?1 AND b.kind = 0 \
         AND ((b.who = ?3 AND b.until_at = ?4) OR ((b.until_at IS NULL OR b.until_at >= ?4) AND b.id = \
         (SELECT max(id) FROM block_change WHERE {user} = ?2 AND realm {is} ?1))) LIMIT 1"
    ))
}

/// `None` for what this version does not know.
pub(crate) fn from_columns((kind, realm, user, session, until): ChangeColumns) -> Option<BlockChange> {
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
        3 => BlockChange::Expired {
            realm,
            user: user?.into(),
        },
        _ => return None,
    })
}

/// A change that is to be put on record, as columns.
pub(crate) struct New {
    pub(crate) at: Timestamp,
    pub(crate) columns: ChangeColumns,
    pub(crate) reason: String,
    pub(crate) who: String,
    pub(crate) quota: Option<Vec<u8>>,
}

impl New {
    fn of(at: Timestamp, change: &BlockChange, reason: &str, who: &str, quota: Option<&QuotaReached>) -> New {
        New {
            at,
            columns: to_columns(change),
            reason: words(reason),
            who: words(who),
            quota: quota.map(pack_quota),
        }
    }
}

/// The last change of a user (value 2) in a realm (value 1), for the named columns.
pub(crate) fn last_change(columns: &str, dialect: &Dialect) -> String {
    let Dialect { user, is, .. } = dialect;
    dialect.say(&format!(
        "SELECT {columns} FROM block_change b WHERE b.id = \
         (SELECT max(id) FROM block_change WHERE {user} = ?2 AND realm {is} ?1)"
    ))
}

/// What is read of a change `b`.
pub(crate) fn columns(dialect: &Dialect) -> String {
    let user = dialect.user;
    format!("b.id, b.at, b.kind, b.realm, b.{user}, b.session, b.until_at, b.reason, b.who")
}

/// `None` for what this version does not know.
impl Record for Option<BlockRow> {
    fn read<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let columns = (
            row.value(2)?,
            row.maybe(3)?,
            row.maybe(4)?,
            row.maybe(5)?,
            row.maybe(6)?,
        );
        let Some(change) = from_columns(columns) else {
            return Ok(None);
        };
        Ok(Some(BlockRow {
            id: row.value(0)?,
            at: row.value(1)?,
            change,
            reason: row.value(7)?,
            who: row.value(8)?,
        }))
    }
}

/// Later than the last change there, so that the times of a user's changes are in their order, whatever clocks say.
pub(crate) fn later(at: Timestamp, last: Option<i64>) -> Timestamp {
    last.map_or(at, |last| at.max(Timestamp(nat(last)).plus(1)))
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
        if change.whom().is_some_and(|(_, user)| user.is_empty()) {
            return Err(Error::NoUser);
        }
        let row = New::of(at, &change, reason, who, None);
        on!(self, db => db.change_block(row).await)
    }

    /// Has a session ended for a quota, as [`BlockChange::EndSession`] does.
    ///
    /// # Errors
    /// The disk's.
    pub async fn end_by_quota(
        &self,
        at: Timestamp,
        session: SessionId,
        quota: &QuotaReached,
        reason: &str,
        who: &str,
    ) -> Result<u64> {
        let row = New::of(at, &BlockChange::EndSession(session), reason, who, Some(quota));
        on!(self, db => db.change_block(row).await)
    }

    /// Blocks the user of a quota in its realm until a time, by the rule that `who` stands for, and only once: not
    /// where the same was put on record before, whatever came of it since (somebody may have unblocked him, and meant
    /// it), and not where a block holds that lasts as long. Whether it was done.
    ///
    /// # Errors
    /// [`Error::NoUser`], or the disk's.
    pub async fn block_once(
        &self,
        at: Timestamp,
        until: Timestamp,
        quota: &QuotaReached,
        reason: &str,
        who: &str,
    ) -> Result<bool> {
        if quota.user.is_empty() {
            return Err(Error::NoUser);
        }
        let change = BlockChange::Block {
            realm: Some(quota.realm.clone()),
            user: quota.user.clone(),
            until: Some(until),
        };
        let row = New::of(at, &change, reason, who, Some(quota));
        on!(self, db => db.block_once(row).await)
    }

    /// Changes above `after`, in order. Whoever has seen one has been given all earlier ones.
    ///
    /// # Errors
    /// The disk's.
    pub async fn block_changes(&self, after: u64, limit: usize) -> Result<Vec<BlockRow>> {
        let columns = columns(self.0.dialect());
        let sql = format!("SELECT {columns} FROM block_change b WHERE b.id > ?1 ORDER BY b.id LIMIT ?2");
        let found: Vec<Option<BlockRow>> = self.0.ask(&sql, values![after, limit.max(1) as u64]).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The blocks that hold at `now`, by user.
    ///
    /// # Errors
    /// The disk's.
    pub async fn blocks(&self, now: Timestamp) -> Result<Vec<BlockRow>> {
        self.blocks_held(None, now).await
    }

    /// Those of one user.
    ///
    /// # Errors
    /// The disk's.
    pub async fn blocks_of(&self, user: &[u8], now: Timestamp) -> Result<Vec<BlockRow>> {
        self.blocks_held(Some(user), now).await
    }

    async fn blocks_held(&self, only: Option<&[u8]>, now: Timestamp) -> Result<Vec<BlockRow>> {
        let dialect = self.0.dialect();
        let (columns, user) = (columns(dialect), dialect.user);
        let (of, values) = match only {
            Some(user) => ("= ?1", values![user.to_vec()]),
            None => ("IS NOT NULL", values![]),
        };
        let sql = format!(
            "SELECT {columns} FROM block_change b WHERE b.id IN \
             (SELECT max(id) FROM block_change WHERE {user} {of} GROUP BY {user}, realm) ORDER BY b.{user}, b.id"
        );
        let found: Vec<Option<BlockRow>> = self.0.ask(&sql, values).await?;
        Ok(found.into_iter().flatten().filter(|row| row.holds(now)).collect())
    }
}

impl BlockRow {
    /// Whether it is a block that holds then.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        matches!(&self.change, BlockChange::Block { until, .. } if until.is_none_or(|until| until > now))
    }
}
