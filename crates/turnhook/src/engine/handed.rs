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

    /// Those that were not handed on lately.
    pub(crate) fn not_yet(&self, mut ids: Vec<DeliveryId>) -> Vec<DeliveryId> {
        let handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|id| !handed.0.contains(id));
        ids
    }

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use turnhook_dispatcher::{
        body::body,
        samples::{self, Case},
    };
    use turnhook_reducer::{event::EventType, time::Timestamp};
    use turnhook_store::EndpointId;

    use super::*;

    fn delivery(id: i64) -> Delivery {
        let at = Timestamp(1_795_327_257_624);
        let event = samples::event(EventType::Start, Case::Exact, at);
        Delivery {
            id: DeliveryId(id),
            endpoint: EndpointId(1),
            event_id: event.id,
            session_id: event.session_id,
            sequence: event.sequence,
            event_type: event.event_type,
            body: body(&event),
            timestamp: at,
            sent: None,
            attempts: 0,
            first_attempt_at: None,
            next_attempt_at: at,
        }
    }

    #[test]
    fn what_this_node_handed_on_itself_is_not_read_as_news() {
        let handed = Handed::default();
        let mut own = vec![delivery(1), delivery(3)];
        handed.keep_new(&mut own);
        assert_eq!(own.len(), 2);
        let ids = |numbers: &[i64]| numbers.iter().copied().map(DeliveryId).collect::<Vec<_>>();
        assert_eq!(handed.not_yet(ids(&[1, 2, 3, 4])), ids(&[2, 4]));
        // Being asked for is not being handed on.
        assert_eq!(handed.not_yet(ids(&[2])), ids(&[2]));
        let mut news = vec![delivery(2), delivery(3)];
        handed.keep_new(&mut news);
        assert_eq!(news.iter().map(|d| d.id).collect::<Vec<_>>(), ids(&[2]));
    }
}
