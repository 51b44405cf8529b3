//! The ledger as it is read: sessions, usage by user and day, gaps, and bytes told in no session.

use turnhook_reducer::{
    event::{Accuracy, CloseReason, EventId, EventType, SessionId},
    source::Gap,
    time::Timestamp,
    usage::Usage,
};

/// Which sessions: all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only of the source of this name.
    pub source: Option<String>,
    /// Only in this realm.
    pub realm: Option<Vec<u8>>,
    /// Only of this user.
    pub user: Option<Vec<u8>>,
    /// Only open (`true`) or only ended ones (`false`).
    pub open: Option<bool>,
    /// Only those that were open at this time or later.
    pub since: Option<Timestamp>,
    /// Only those that started before this time.
    pub until: Option<Timestamp>,
}

/// A session in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// Its source's name.
    pub source: String,
    /// The realm; empty if there is none.
    pub realm: Vec<u8>,
    /// `None` where `user_pattern` gave nothing.
    pub user: Option<Vec<u8>>,
    /// The usernames of its allocations, at most 50.
    pub usernames: Vec<Vec<u8>>,
    /// Its labels, by name.
    pub labels: Vec<(String, Vec<u8>)>,
    /// When it started.
    pub started_at: Timestamp,
    /// The timestamp of its last event so far.
    pub updated_at: Timestamp,
    /// When it ended, why, and whether its usage is exact; `None` while it is open.
    pub end: Option<(Timestamp, CloseReason, Accuracy)>,
    /// The session that it corrects.
    pub continues: Option<SessionId>,
    /// The sequence number of its last event.
    pub sequence: u32,
    /// False where coturn reports no peer leg.
    pub peer_leg: bool,
    /// How many allocations it counted.
    pub allocations: u64,
    /// The usage in its last event.
    pub usage: Usage,
}

/// An event of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEventRow {
    /// The `webhook-id`.
    pub event_id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// Its place in the session.
    pub sequence: u32,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// What became of it at each endpoint, by name.
    pub deliveries: Vec<(String, crate::delivery::DeliveryState)>,
}

/// A session with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDetail {
    /// The session, as a list shows it.
    pub row: SessionRow,
    /// Its events that retention has not trimmed, in sequence.
    pub events: Vec<SessionEventRow>,
    /// The body of the last of them, which lists the allocations.
    pub last_body: Option<bytes::Bytes>,
    /// The gaps of its source while it was open.
    pub gaps: Vec<Gap>,
}

/// What a user used on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageDay {
    /// Days since 1970-01-01, UTC.
    pub day: u32,
    /// The source's name.
    pub source: String,
    /// The realm; empty if there is none.
    pub realm: Vec<u8>,
    /// `None` where `user_pattern` gave nothing.
    pub user: Option<Vec<u8>>,
    /// Sessions whose start was told on that day.
    pub started: u64,
    /// Sessions whose end was told on that day.
    pub ended: u64,
    /// How many of those ended are `lower_bound`.
    pub lower_bound: u64,
    /// The durations of those ended, in milliseconds.
    pub duration_ms: u64,
    /// The sum of `usage_delta` of all events whose timestamp is on that day.
    pub usage: Usage,
}

/// A gap on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GapRow {
    /// The source's name.
    pub source: String,
    /// From when to when, and why.
    pub gap: Gap,
}
