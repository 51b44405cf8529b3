//! What people do: endpoints paused, deliveries sent again or given up, sources renamed; and that it is on record who
//! did it. Blocks are in `block.rs`, the upkeep in `upkeep.rs`.

use turnhook_reducer::time::Timestamp;

#[cfg(doc)]
use crate::Error;
use crate::{
    Admin, AuditEntry, DeliveryFilter, DeliveryState, Replay, ReplayRequest, Result, on, query::values,
};

impl Admin {
    /// Pauses an endpoint; false if it was paused already.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn pause(&self, endpoint: &str, at: Timestamp, reason: &str) -> Result<bool> {
        on!(self, db => db.pause(endpoint, at, reason).await)
    }

    /// Ends an endpoint's pause; false if it was not paused: then a pause of no length is put on record, by which a
    /// running process knows that it is to let go of whatever else it holds back.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn resume(&self, endpoint: &str, at: Timestamp) -> Result<bool> {
        on!(self, db => db.resume(endpoint, at).await)
    }

    /// Queues deliveries again, with the same ids and bytes, oldest first, and puts that on record. Those that are
    /// pending already stay as they are. With a rate, they fall due one after the other.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's; then a part may have been queued, and is on record.
    pub async fn replay(&self, request: ReplayRequest) -> Result<Replay> {
        let ids = self.0.matching(&request.filter).await?;
        on!(self, db => db.replay(request, ids).await)
    }

    /// Gives up pending and dead deliveries (only those in `filter.states`, if it names any) for good; how many.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's; then a part may have been discarded.
    pub async fn discard(&self, mut filter: DeliveryFilter, at: Timestamp) -> Result<u64> {
        if filter.states.is_empty() {
            filter.states = vec![DeliveryState::Pending, DeliveryState::Dead];
        }
        let ids = self.0.matching(&filter).await?;
        on!(self, db => db.discard(ids, at).await)
    }

    /// Gives a source another name, while nobody runs on the store. Its state is its number's, and so are its gaps and
    /// what was billed: open sessions go on under the new name, with the ids that they have.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Running`], [`Error::UnknownSource`], [`Error::SourceExists`], or the disk's.
    pub async fn rename_source(&self, from: &str, to: &str) -> Result<()> {
        on!(self, db => db.rename_source(from, to).await)
    }

    /// Puts on record what somebody did.
    ///
    /// # Errors
    /// The disk's.
    pub async fn note(&self, entry: AuditEntry) -> Result<()> {
        let e = entry.cut();
        let sql =
            "INSERT INTO audit (at, who, action, target, detail, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = values![e.at, e.who, e.action, e.target, e.detail, e.count];
        self.0.execute(sql, vec![values]).await.map(drop)
    }
}
