//! Deliveries: an event for an endpoint, what became of it, and the attempts that were made.

use bytes::Bytes;
use turnhook_reducer::{
    event::{EventId, EventType, SessionId},
    time::Timestamp,
};

use crate::ids::DeliveryId;

pub use turnhook_reducer::outbox::{Delivery, Next, Outcome, Sent};

/// As much of an answer as is kept of a failed attempt.
pub(crate) fn kept(answer: &Bytes) -> Option<&[u8]> {
    const ANSWER_MAX: usize = 1024;
    Some(&answer[..answer.len().min(ANSWER_MAX)]).filter(|kept| !kept.is_empty())
}

/// What [`crate::Outbox::record`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Outcomes that came too late: the delivery had been finished or discarded meanwhile, or trimmed.
    pub ignored: usize,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeliveryState {
    /// An attempt is to be made, now or later.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// Given up: a dead letter, until it is replayed or discarded.
    Dead,
    /// Given up by a person.
    Discarded,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [DeliveryState; 4] = [
        DeliveryState::Pending,
        DeliveryState::Delivered,
        DeliveryState::Dead,
        DeliveryState::Discarded,
    ];

    /// As in the program's output and options.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Dead => "dead",
            DeliveryState::Discarded => "discarded",
        }
    }
}

/// Which deliveries: all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only those of these events; empty: any.
    pub ids: Vec<EventId>,
    /// Only to the endpoint of this name.
    pub endpoint: Option<String>,
    /// Only in one of these states; empty: any.
    pub states: Vec<DeliveryState>,
    /// Only of this session.
    pub session: Option<SessionId>,
    /// Only of this user's sessions.
    pub user: Option<Vec<u8>>,
    /// Only of these types; empty: any.
    pub event_types: Vec<EventType>,
    /// Only of events with this timestamp or a later one.
    pub since: Option<Timestamp>,
    /// Only of events before this timestamp.
    pub until: Option<Timestamp>,
}

/// Where to go on listing deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryCursor {
    /// The last one listed.
    pub event_id: EventId,
    /// The last one listed.
    pub id: DeliveryId,
}

/// A delivery as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// The number of its row.
    pub id: DeliveryId,
    /// The endpoint's name.
    pub endpoint: String,
    /// The `webhook-id`.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// The session; see [`DeliveryRow::session`].
    pub session_id: SessionId,
    /// The user, as the ledger knows him.
    pub user: Option<Vec<u8>>,
    /// The event's place in its session.
    pub sequence: u32,
    /// The event's timestamp.
    pub timestamp: Timestamp,
    /// What became of it.
    pub state: DeliveryState,
    /// All attempts ever made.
    pub attempts: u32,
    /// The first attempt since it was (last) queued.
    pub first_attempt_at: Option<Timestamp>,
    /// When the next attempt is due; only where pending.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered, given up or discarded.
    pub finished_at: Option<Timestamp>,
    /// Why it is dead.
    pub reason: Option<String>,
    /// The last replay that queued it again.
    pub replay: Option<ReplayId>,
}

impl DeliveryRow {
    /// The session; `None` where the event is of none, and has no sequence number: it is a user's.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.event_type.is_of_session().then_some(self.session_id)
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub latency_ms: u32,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// What went wrong; `None` for a success.
    pub error: Option<String>,
    /// The first KiB of the answer, if the attempt failed and there was one.
    pub answer: Option<Bytes>,
}

/// A delivery with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryDetail {
    /// The delivery, as a list shows it.
    pub row: DeliveryRow,
    /// The bytes that are sent.
    pub body: Bytes,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What of it a billing product may have taken.
    pub sent: Option<Bytes>,
}

/// Names a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayId(pub i64);

/// A replay, as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayRequest {
    /// What to send again. Deliveries that are pending already are left as they are.
    pub filter: DeliveryFilter,
    /// When it is asked for.
    pub at: Timestamp,
    /// Who asks, for the record.
    pub who: String,
    /// What was asked, in words, for the record.
    pub what: String,
    /// At most this many a second; `None`: as fast as the endpoint takes them.
    pub rate: Option<f64>,
    /// Whether what may have been counted is sent all the same, and may be counted twice.
    pub may_repeat: bool,
}

/// A replay on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its number.
    pub id: ReplayId,
    /// When it was asked for.
    pub at: Timestamp,
    /// The name of the user who asked for it.
    pub who: String,
    /// What was asked.
    pub what: String,
    /// How many deliveries it queued again.
    pub total: u64,
    /// How many of these are still pending.
    pub pending: u64,
}
