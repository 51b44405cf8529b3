//! The vocabulary of the outbox: what is to be delivered to whom, and what came of each attempt. The store keeps it, the
//! dispatcher delivers by it, and neither has words of its own for it. All times are the wall clock's, as they are on
//! record.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    event::{EventId, EventType, SessionId},
    time::Timestamp,
};

/// An endpoint's number in the store; stable for the life of the store, also while it is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u16);

/// One event for one endpoint: the number of its row. Ids of later commits are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub i64);

impl DeliveryId {
    /// Below all others.
    pub const MIN: DeliveryId = DeliveryId(i64::MIN);
    /// Above all others.
    pub const MAX: DeliveryId = DeliveryId(i64::MAX);

    /// The delivery of the event in this row of the outbox to an endpoint.
    #[must_use]
    pub fn new(event: i64, endpoint: EndpointId) -> DeliveryId {
        DeliveryId((event << 16) | i64::from(endpoint.0))
    }

    /// Above all deliveries of an event and of those before it, below those of later ones.
    #[must_use]
    pub fn last_of(event: i64) -> DeliveryId {
        DeliveryId((event << 16) | 0xffff)
    }

    /// The row of its event.
    #[must_use]
    pub fn event(self) -> i64 {
        self.0 >> 16
    }

    /// Whom it goes to.
    #[must_use]
    pub fn endpoint(self) -> EndpointId {
        EndpointId((self.0 & 0xffff) as u16)
    }

    /// The highest that is lower than this one.
    #[must_use]
    pub fn before(self) -> DeliveryId {
        DeliveryId(self.0.saturating_sub(1))
    }
}

/// A delivery that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The number of its row.
    pub id: DeliveryId,
    /// Whom it goes to.
    pub endpoint: EndpointId,
    /// The `webhook-id`.
    pub event_id: EventId,
    /// The type of its event, for filters and logs.
    pub event_type: EventType,
    /// Deliveries of one session to one endpoint are made one after the other, by `id`.
    pub session_id: SessionId,
    /// The event's place in its session. An endpoint that does not take all types sees holes.
    pub sequence: u32,
    /// The time of its event: when it was decided.
    pub timestamp: Timestamp,
    /// The bytes to send.
    pub body: Bytes,
    /// What of it a billing product may have taken, as it was written down before it was sent.
    pub sent: Option<Bytes>,
    /// Attempts made since it was queued, or queued again by a replay.
    pub attempts: u32,
    /// When the first of these was made; `give_up_after` runs from here.
    pub first_attempt_at: Option<Timestamp>,
    /// No attempt is made before this time.
    pub next_attempt_at: Timestamp,
}

/// An attempt and what follows from it. Until it is on record, the delivery is repeated with the same id after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The `webhook-id`.
    pub event_id: EventId,
    /// The session.
    pub session: SessionId,
    /// The event's type.
    pub event_type: EventType,
    /// When the event was decided.
    pub decided_at: Timestamp,
    /// When the attempt began.
    pub at: Timestamp,
    /// The attempt's number, 1 for the first.
    pub attempt: u32,
    /// How long ago the first attempt began when what follows was decided, by a clock that nobody sets.
    pub tried_for: Duration,
    /// The HTTP status; `None` if no answer came.
    pub status: Option<u16>,
    /// From the start to the head of the answer, or to the failure.
    pub latency: Duration,
    /// What went wrong, for people; no secrets. `None` on success.
    pub error: Option<String>,
    /// The first KiB of the answer's body. Kept unless the attempt succeeded.
    pub answer: Bytes,
    /// What follows from it.
    pub next: Next,
    /// What came of it, as in metrics.
    pub label: &'static str,
    /// What is known now of what was sent to a billing product.
    pub sent: Sent,
}

impl Outcome {
    /// The latency as it is on record, in milliseconds.
    #[must_use]
    pub fn latency_ms(&self) -> u32 {
        u32::try_from(self.latency.as_millis()).unwrap_or(u32::MAX)
    }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it was delivered.
    Done,
    /// It is tried again, not before this.
    Retry(Timestamp),
    /// The endpoint is paused from now on; the delivery stays pending and is due when it is resumed.
    Paused,
    /// It waits, and nothing of this counts as an attempt.
    Waits,
    /// It is a dead letter, for this reason.
    Dead(&'static str),
}

impl Next {
    /// It is a dead letter: the receiver will never take it.
    pub const REJECTED: Next = Next::Dead("rejected");
    /// It is a dead letter: the time for trying is over.
    pub const GAVE_UP: Next = Next::Dead("gave_up");

    /// The words of all of them, and those of a billing product's items.
    pub const WORDS: [&str; 13] = [
        "delivered",
        "retry",
        "rejected",
        "gave_up",
        "paused",
        "duplicate",
        "accepted",
        "nothing",
        "waits",
        "too_late",
        "uncertain",
        "unknown_customer",
        "anonymous",
    ];

    /// As in metrics: `delivered`, `retry`, `paused`, `waits`, or the reason why it is dead.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Next::Done => "delivered",
            Next::Retry(_) => "retry",
            Next::Paused => "paused",
            Next::Waits => "waits",
            Next::Dead(reason) => reason,
        }
    }
}

/// What is known of what was sent to a billing product.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sent {
    /// Nothing new.
    #[default]
    Keep,
    /// It was certainly not taken: the next attempt encodes anew.
    Forget,
    /// It has come so far.
    Put(Bytes),
}

/// How much of an event an endpoint is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Include {
    /// Allocations at most, those that relayed most first.
    pub allocations: u32,
    /// Whether clients' addresses are in them.
    pub addresses: bool,
}

impl Default for Include {
    fn default() -> Include {
        Include {
            allocations: 25,
            addresses: true,
        }
    }
}

/// A time in which nothing is sent to an endpoint, and everything is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub from: Timestamp,
    /// Until when; `None`: it holds.
    pub to: Option<Timestamp>,
    /// Why, for people.
    pub reason: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_names_its_event_and_endpoint() {
        let id = DeliveryId::new(70_000, EndpointId(65_535));
        assert_eq!((id.event(), id.endpoint()), (70_000, EndpointId(65_535)));
        assert_eq!(DeliveryId::last_of(70_000), id);
    }
}
