//! The ledger: sessions, usage by day, gaps, deliveries and replays. More of it is in `reads.rs` and `usage.rs`.

use std::collections::BTreeMap;

use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

#[cfg(doc)]
use crate::Error;
use crate::{
    Backend, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, GapRow, Ledger, Replay, ReplayId,
    Result, SessionDetail, SessionFilter, SessionRow, SourceId, UsageDay, on,
};

impl Ledger {
    /// All sources that ever were configured, by name.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sources(&self) -> Result<BTreeMap<String, SourceId>> {
        on!(self, db => db.sources().await)
    }

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

    /// Deliveries, newest event first; the next page is `after` the last one of this.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<Vec<DeliveryRow>> {
        on!(self, db => db.deliveries(filter, after, limit).await)
    }

    /// An event's deliveries with all that is known of each; empty if there is no such event, or nobody wanted it.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn delivery(&self, event: EventId) -> Result<Vec<DeliveryDetail>> {
        on!(self, db => db.delivery(event).await)
    }

    /// How many deliveries match: for `--dry-run`.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn count_deliveries(&self, filter: DeliveryFilter) -> Result<u64> {
        on!(self, db => db.count_deliveries(filter).await)
    }

    /// Replays on record, newest first, with what is still pending of each.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn replays(&self, only: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>> {
        on!(self, db => db.replays(only, limit).await)
    }
}
