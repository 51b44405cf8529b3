//! The outbox as deliveries are made from it: a port, behind which the engine has the store; and the task that has written
//! down what attempts came to.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use turnhook_reducer::outbox::{Delivery, DeliveryId, Outcome};

use crate::{
    endpoint::Endpoint,
    queue::{Mark, Wanted},
};

/// What an [`Outbox`] is asked for, on its way.
pub type Asked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What deliveries are read from and written down in. Whatever cannot be had is told to people by whoever has the outbox:
/// here it is asked for again.
pub trait Outbox: Send + Sync + 'static {
    /// The deliveries of an endpoint that are wanted; `None` if they cannot be read now. It waits for no outcome: rows may
    /// be as they were before one that has not been recorded yet.
    fn read(&self, endpoint: &Arc<str>, wanted: Wanted) -> Asked<Option<Vec<Delivery>>>;

    /// Writes down what is about to be sent to a billing product: from now on it may have been counted. Whether it is on the
    /// disk; if it is not, nothing is sent.
    fn begin(&self, rows: Vec<(DeliveryId, Bytes)>) -> Asked<bool>;

    /// Writes down what attempts came to. Done when that is on the disk, or will never be: then the deliveries are repeated
    /// with the same ids after a restart.
    fn record(&self, outcomes: Vec<Outcome>) -> Asked<()>;
}

/// Outcomes recorded in one go, or a few more.
const MOST: usize = 1024;

/// Records under way at once: while one is being synced the next is collected.
const WRITES: usize = 4;

/// What came of a request, and by what the queue knows each of it until it is on record.
pub(crate) struct Reported {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) marks: Vec<Mark>,
}

/// Has outcomes recorded. It is to be run for as long as the dispatcher is there: requests wait for room in it.
pub struct Writer {
    outbox: Arc<dyn Outbox>,
    reported: mpsc::Receiver<Reported>,
}

impl Writer {
    pub(crate) fn new(outbox: Arc<dyn Outbox>, reported: mpsc::Receiver<Reported>) -> Writer {
        Writer { outbox, reported }
    }

    /// Until the dispatcher is gone, and all that it reported is on record.
    ///
    /// # Errors
    /// A record that panicked.
    pub async fn run(mut self) -> Result<(), JoinError> {
        let mut writes = JoinSet::new();
        loop {
            let mut taken = Vec::new();
            tokio::select! {
                Some(written) = writes.join_next(), if !writes.is_empty() => {
                    written?;
                    continue;
                }
                count = self.reported.recv_many(&mut taken, MOST), if writes.len() < WRITES => if count == 0 {
                    break;
                },
            }
            writes.spawn(write(Arc::clone(&self.outbox), taken));
        }
        while let Some(written) = writes.join_next().await {
            written?;
        }
        Ok(())
    }
}

async fn write(outbox: Arc<dyn Outbox>, reported: Vec<Reported>) {
    let mut outcomes = Vec::new();
    let mut marks: Vec<(Arc<Endpoint>, Vec<Mark>)> = Vec::new();
    for one in reported {
        outcomes.extend(one.outcomes);
        match marks.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &one.endpoint)) {
            Some((_, marks)) => marks.extend(one.marks),
            None => marks.push((one.endpoint, one.marks)),
        }
    }
    outbox.record(outcomes).await;
    for (endpoint, marks) in marks {
        endpoint.written(&marks);
    }
}
