//! What people do: endpoints, deliveries looked at and sent again.

use turnhook_reducer::{event::EventId, time::Timestamp};

#[cfg(doc)]
use crate::Error;
use crate::{
    Backend, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, Endpoint, EndpointId, Included,
    Part, Replay, ReplayId, ReplayRequest, Result, Store, on,
};

impl Store {
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
    pub async fn set_included(&self, wanted: Vec<(EndpointId, Part)>) -> Result<Included> {
        on!(self, db => db.set_included(wanted).await)
    }

    /// How much of an event each endpoint is sent, and was.
    ///
    /// # Errors
    /// The disk's.
    pub async fn included(&self) -> Result<Included> {
        on!(self, db => db.included().await)
    }

    /// All endpoints that ever were configured, by name.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>> {
        on!(self, db => db.endpoints().await)
    }

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

    /// Queues deliveries again, with the same ids and bytes, oldest first, and puts that on record. Those that are
    /// pending already stay as they are. With a rate, they fall due one after the other.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's; then a part may have been queued, and is on record.
    pub async fn replay(&self, request: ReplayRequest) -> Result<Replay> {
        on!(self, db => db.replay(request).await)
    }

    /// Replays on record, newest first, with what is still pending of each.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn replays(&self, only: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>> {
        on!(self, db => db.replays(only, limit).await)
    }

    /// Gives up pending and dead deliveries (only those in `filter.states`, if it names any) for good; how many.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's; then a part may have been discarded.
    pub async fn discard(&self, filter: DeliveryFilter, at: Timestamp) -> Result<u64> {
        on!(self, db => db.discard(filter, at).await)
    }
}
