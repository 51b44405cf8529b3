//! A delivery as the queue has it.

use std::ops::{Deref, DerefMut};

use turnhook_reducer::{event::SessionId, outbox::Delivery, time::Timestamp};

use crate::clock::Clocks;

/// A delivery of the outbox, and what the queue goes by beside it: times of the steady clock, since the wall clock of the
/// outbox's may have been set since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// As it is in the outbox; its attempts are counted on.
    pub delivery: Delivery,
    /// By what deliveries wait for each other: the session, or what a billing product wants in its place.
    pub ordering_key: SessionId,
    /// When the first attempt began: its age decides when the delivery is given up.
    pub began_at: Option<Timestamp>,
    /// Not to be tried before this.
    pub due_at: Option<Timestamp>,
}

impl Queued {
    /// Of a retry its distance by the wall clock counts, and what was neither tried nor queued again is due whatever its
    /// date.
    #[must_use]
    pub fn new(delivery: Delivery, clocks: &Clocks) -> Queued {
        let untouched = delivery.attempts == 0 && delivery.next_attempt_at <= delivery.timestamp;
        Queued {
            ordering_key: delivery.session_id,
            began_at: delivery.first_attempt_at.map(|at| clocks.began(at)),
            due_at: (!untouched).then(|| clocks.to_steady(delivery.next_attempt_at)),
            delivery,
        }
    }
}

impl Deref for Queued {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl DerefMut for Queued {
    fn deref_mut(&mut self) -> &mut Delivery {
        &mut self.delivery
    }
}

#[cfg(test)]
mod tests {
    use turnhook_reducer::{
        event::{EventId, EventType},
        outbox::{DeliveryId, EndpointId},
    };

    use super::*;

    const DAY: u64 = 86_400_000;
    const NOW: Timestamp = Timestamp(20_000 * DAY);

    fn stored(attempts: u32, first: Option<Timestamp>, next: Timestamp) -> Delivery {
        Delivery {
            id: DeliveryId(1),
            endpoint: EndpointId(1),
            event_id: EventId([0; 16]),
            event_type: EventType::Start,
            session_id: SessionId([0; 16]),
            sequence: 0,
            timestamp: Timestamp(NOW.0 + DAY),
            body: Default::default(),
            sent: None,
            attempts,
            first_attempt_at: first,
            next_attempt_at: next,
        }
    }

    /// While the wall clock was a day ahead an event was committed; it is back, and the process was started anew.
    #[test]
    fn what_was_dated_by_a_clock_that_was_ahead_is_due_now_and_young() {
        let clocks = Clocks::new(|| NOW, || Timestamp(7_000_000));
        let fresh = Queued::new(stored(0, None, NOW.plus(DAY)), &clocks);
        assert_eq!((fresh.id, fresh.due_at), (DeliveryId(1), None));

        let clocks = clocks.with_horizon(|| NOW);
        let tried = Queued::new(stored(1, Some(NOW.plus(DAY)), NOW.plus(1_000)), &clocks);
        assert_eq!(tried.began_at, Some(Timestamp(7_000_000)));
        assert_eq!(tried.due_at, Some(Timestamp(7_001_000)));

        let old = Queued::new(stored(9, Some(Timestamp(NOW.0 - 1_000)), NOW), &clocks);
        assert_eq!(old.began_at, Some(Timestamp(6_999_000)));
    }

    /// A replay at a rate: not before its turn.
    #[test]
    fn what_was_queued_again_waits_for_its_turn() {
        let clocks = Clocks::new(|| NOW, || NOW);
        let replayed = Queued::new(stored(0, None, NOW.plus(2 * DAY)), &clocks);
        assert_eq!(replayed.due_at, Some(NOW.plus(2 * DAY)));
    }
}
