//! The outbox as deliveries are made from it: a port, behind which the engine has the store.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use turnhook_reducer::outbox::{Delivery, DeliveryId, Outcome};

use crate::queue::Wanted;

/// What an [`Outbox`] is asked for, on its way.
pub type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What deliveries are read from and written down in. Whatever cannot be had is reported to people by whoever has the
/// outbox: here it is asked for again.
pub trait Outbox: Send + Sync + 'static {
    /// The deliveries of an endpoint that are wanted; `None` if they cannot be read now. It waits for no outcome: rows
    /// may be as they were before one that has not been recorded yet.
    fn read(&self, endpoint: &Arc<str>, wanted: Wanted) -> Asked<Option<Vec<Delivery>>>;

    /// Writes down what is about to be sent to a billing product: from now on it may have been counted. Whether it is
    /// on the disk; if it is not, nothing is sent.
    fn begin(&self, rows: Vec<(DeliveryId, Bytes)>) -> Asked<bool>;

    /// Writes down what attempts came to. Done when that is on the disk, or will never be: then the deliveries are
    /// repeated with the same ids after a restart.
    fn record(&self, outcomes: Vec<Outcome>) -> Asked<()>;
}
