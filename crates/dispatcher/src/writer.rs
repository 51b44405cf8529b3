//! The task that has written down what attempts came to.

use std::sync::Arc;

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use crate::{
    endpoint::{Endpoint, Reported},
    outbox::Outbox,
    queue::Mark,
};

/// Outcomes recorded in one go, or a few more.
const MOST: usize = 1024;

/// Records under way at once: while one is being synced the next is collected.
const WRITES: usize = 4;

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
