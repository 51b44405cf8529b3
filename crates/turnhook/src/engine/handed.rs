//! What this node handed to its own dispatcher, where several nodes share the outbox.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use turnhook_store::{Delivery, DeliveryId};

/// What was handed to the dispatcher lately, so that what this node committed is not taken for news.
#[derive(Debug, Default)]
pub(crate) struct Handed(Mutex<(HashSet<DeliveryId>, VecDeque<DeliveryId>)>);

impl Handed {
    /// More than are committed while news are read.
    const KEPT: usize = 200_000;

    /// Keeps those that were not handed on before.
    pub(crate) fn keep_new(&self, deliveries: &mut Vec<Delivery>) {
        let mut handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *handed;
        deliveries.retain(|delivery| {
            let new = known.insert(delivery.id);
            if new {
                order.push_back(delivery.id);
            }
            new
        });
        while order.len() > Self::KEPT {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
    }
}
