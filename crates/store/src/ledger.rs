//! The ledger: sessions, usage by day, gaps. More of it is in `reads.rs` and `usage.rs`.

use turnhook_reducer::{event::SessionId, time::Timestamp};

use crate::{Backend, GapRow, Result, SessionDetail, SessionFilter, SessionRow, Store, UsageDay, on};

impl Store {
    /// Sessions, newest first; the next page is `after` the last one of this.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sessions(
        &self,
        filter: SessionFilter,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        on!(self, db => db.sessions(filter, after, limit).await)
    }

    /// A session with its events, what became of them, and the gaps of its source in its time.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionDetail>> {
        on!(self, db => db.session(id).await)
    }

    /// What each user used on each UTC day from `from` to `to` (days since 1970-01-01, both included), in order;
    /// the next page is `after` the last row of this. The sum of its `usage` is the sum of all `usage_delta` told.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn usage_by_day(
        &self,
        from: u32,
        to: u32,
        after: Option<UsageDay>,
        limit: usize,
    ) -> Result<Vec<UsageDay>> {
        on!(self, db => db.usage_by_day(from, to, after, limit).await)
    }

    /// Gaps of all sources that were not over before `since`, newest first.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn gaps(&self, since: Option<Timestamp>, limit: usize) -> Result<Vec<GapRow>> {
        on!(self, db => db.gaps(since, limit).await)
    }
}
