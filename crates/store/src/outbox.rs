//! The outbox: endpoints, what each still has to get, and what attempts came to.

use std::collections::BTreeMap;

use turnhook_reducer::time::Timestamp;

use crate::{
    Backend, Backlog, Delivery, DeliveryId, Endpoint, EndpointId, Include, Included, Lanes, Outbox, Outcome,
    Recorded, Result, endpoint::PausedRow, on, query::values,
};
#[cfg(doc)]
use crate::{Error, Mode};

impl Outbox {
    /// Writes down what attempts came to. Answers when it is on the disk, which may take 20 ms longer than a
    /// commit: do not wait for it before the next attempt of another session.
    ///
    /// # Errors
    /// The disk's; then nothing of it was written, and it may be repeated as it is.
    pub async fn record(&self, outcomes: Vec<Outcome>) -> Result<Recorded> {
        on!(self, db => db.record(outcomes).await)
    }

    /// Writes down what is about to be sent to a billing product: from now on it may have been counted. Answers when it is
    /// on the disk.
    ///
    /// # Errors
    /// The disk's; then nothing of it may be sent.
    pub async fn begin_sending(&self, rows: Vec<(DeliveryId, bytes::Bytes)>) -> Result<()> {
        on!(self, db => db.begin_sending(rows).await)
    }

    /// Pending deliveries of an endpoint with ids above `after`, lowest first, those that wait for a retry
    /// included, and those whose outcome [`Outbox::record`] has not answered yet.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn pending_after(
        &self,
        endpoint: EndpointId,
        after: DeliveryId,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        on!(self, db => db.pending_after(endpoint, after, limit.max(1)).await)
    }

    /// The ids of pending deliveries of all endpoints above `after`, lowest first: what other nodes committed is among
    /// them, and [`Outbox::pending_rows`] has it. Whoever has seen a delivery of one commit has been given those of all
    /// earlier ones.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn pending_since(&self, after: DeliveryId, limit: usize) -> Result<Vec<DeliveryId>> {
        on!(self, db => db.pending_since(after, limit.max(1)).await)
    }

    /// Above all deliveries of commits that are on the disk, below those of later ones.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn newest_delivery(&self) -> Result<DeliveryId> {
        on!(self, db => db.newest_delivery().await)
    }

    /// Pending deliveries of an endpoint that are due by `now`, highest id first, and only those before which
    /// nothing of their session is pending. Looks among the
    /// newest 100,000 events only, and at 16 pending ones for each that is wanted (4096 at least).
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn newest_due(
        &self,
        endpoint: EndpointId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        on!(self, db => db.newest_due(endpoint, now, limit.max(1)).await)
    }

    /// Those of these deliveries that are pending, in the same order.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn pending_rows(&self, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>> {
        on!(self, db => db.pending_rows(ids).await)
    }

    /// Which of these deliveries are pending, in the same order.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn still_pending(&self, ids: Vec<DeliveryId>) -> Result<Vec<DeliveryId>> {
        on!(self, db => db.still_pending(ids).await)
    }

    /// What each endpoint still has to get; those that never had anything are missing. Cheap: nothing is counted,
    /// whatever is pending (in [`Mode::Shared`], the pending ones are).
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn backlog(&self) -> Result<BTreeMap<EndpointId, Backlog>> {
        on!(self, db => db.backlog().await)
    }

    /// Whether another process wrote since this was asked last (a replay, a pause …): then read endpoints and
    /// outbox again. Cheap enough for every second.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn changed_by_others(&self) -> Result<bool> {
        on!(self, db => db.changed_by_others().await)
    }

    /// Which lanes this process makes the deliveries of: [`Outbox::pending_after`], [`Outbox::newest_due`],
    /// [`Outbox::pending_rows`], [`Outbox::still_pending`] and [`Outbox::pending_since`] see no others. All of them
    /// until this is called, and always on SQLite.
    pub fn set_lanes(&self, lanes: Lanes) {
        if let Backend::Postgres(db) = &self.0 {
            db.set_lanes(lanes);
        }
    }

    /// Says which endpoints are configured, and gives their numbers in the same order. One that is missing is
    /// marked as removed and keeps its deliveries; one that comes back goes on where it was.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn set_endpoints(&self, names: &[impl AsRef<str>], at: Timestamp) -> Result<Vec<EndpointId>> {
        let names = names.iter().map(|n| n.as_ref().to_owned()).collect();
        on!(self, db => db.set_endpoints(names, at).await)
    }

    /// Says how much of an event each endpoint is sent from now on, and gives what held when.
    ///
    /// # Errors
    /// The disk's.
    pub async fn set_included(&self, wanted: Vec<(EndpointId, Include)>) -> Result<Included> {
        on!(self, db => db.set_included(wanted).await)
    }

    /// How much of an event each endpoint is sent, and was.
    ///
    /// # Errors
    /// The disk's.
    pub async fn included(&self) -> Result<Included> {
        Ok(Included::new(self.0.ask(Included::SQL, values![]).await?))
    }

    /// All endpoints that ever were configured, by name.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>> {
        let found = self.0.ask(PausedRow::SQL, values![]).await?;
        Ok(PausedRow::endpoints(found))
    }

    /// Pauses an endpoint that said that it is gone; false if it was paused already.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn hold(&self, endpoint: &str, at: Timestamp, reason: &str) -> Result<bool> {
        on!(self, db => db.pause(endpoint, at, reason).await)
    }
}
