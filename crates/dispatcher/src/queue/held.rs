//! What a queue holds back, and why.

use std::{collections::HashSet, sync::Arc, time::Duration};

use turnhook_reducer::{outbox::DeliveryId, time::Timestamp};

/// The endpoint asked to be left alone.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    pub(super) reason: Arc<str>,
}

/// What a queue knows of batches.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// Deliveries at most, and how long a batch waits to become full. `None` for a webhook.
    pub(super) bounds: Option<(usize, Duration)>,
    /// Since when a batch waits.
    pub(super) since: Option<Timestamp>,
    /// Until when the next one waits, unless it is full.
    pub(super) until: Option<Timestamp>,
    /// Deliveries that wait for their customer.
    pub(super) waiting: HashSet<DeliveryId>,
    /// Why the endpoint takes nothing, where that has to be put right first.
    pub(super) cause: Option<Arc<str>>,
}

impl Batches {
    pub(super) fn forget(&mut self, id: DeliveryId) {
        self.waiting.remove(&id);
    }

    /// When work that is there `at` may be claimed.
    pub(super) fn full_or_due(&self, at: Timestamp, now: Timestamp) -> Timestamp {
        match self.until {
            Some(until) if at <= now => until.max(at),
            _ => at,
        }
    }
}
