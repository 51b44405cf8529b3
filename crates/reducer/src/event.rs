//! The events of a session: plain data, ready to be written down and sent.

use std::sync::Arc;

pub use crate::ids::{EventId, IdError, SessionId};
use crate::{
    message::AllocationId,
    time::Timestamp,
    usage::{Billable, Legs, Usage},
};

/// What an event is: three are of a session, the others of a user ([`crate::user_event`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The session began.
    Start,
    /// It carried traffic since its previous event.
    Usage,
    /// It is over.
    End,
    /// A user has used up a quota, and it has acted.
    QuotaReached,
    /// A user is blocked.
    UserBlocked,
    /// A user is blocked no more.
    UserUnblocked,
}

impl EventType {
    /// Those of a session.
    pub const OF_SESSIONS: [EventType; 3] = [EventType::Start, EventType::Usage, EventType::End];

    /// Those of a user.
    pub const OF_USERS: [EventType; 3] = [
        EventType::QuotaReached,
        EventType::UserBlocked,
        EventType::UserUnblocked,
    ];

    /// All of them.
    pub const ALL: [EventType; 6] = [
        EventType::Start,
        EventType::Usage,
        EventType::End,
        EventType::QuotaReached,
        EventType::UserBlocked,
        EventType::UserUnblocked,
    ];

    /// Whether it is of a session; only such an event has a sequence number.
    #[must_use]
    pub fn is_of_session(self) -> bool {
        EventType::OF_SESSIONS.contains(&self)
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<EventType> {
        EventType::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// As in payloads and configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Start => "session.start",
            EventType::Usage => "session.usage",
            EventType::End => "session.end",
            EventType::QuotaReached => "quota.reached",
            EventType::UserBlocked => "user.blocked",
            EventType::UserUnblocked => "user.unblocked",
        }
    }
}

/// Why an allocation or a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum CloseReason {
    /// Deleted by its client, or by coturn with a word about it.
    Closed,
    /// Its lifetime ran out without a refresh.
    Expired,
    /// Its server stopped.
    ServerStopped,
    /// Its server was started anew.
    ServerRestarted,
    /// By us: its user is blocked, or somebody asked for its end.
    Cancelled,
    /// It lasted as long as a session may, and goes on in another one. Of sessions alone.
    MaxSession,
}

impl CloseReason {
    /// All of them, each in the place of the number that a store keeps it by: further ones come last.
    pub const ALL: &'static [CloseReason] = &[
        CloseReason::Closed,
        CloseReason::Expired,
        CloseReason::ServerStopped,
        CloseReason::ServerRestarted,
        CloseReason::Cancelled,
        CloseReason::MaxSession,
    ];

    /// As in payloads and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Closed => "closed",
            CloseReason::Expired => "expired",
            CloseReason::ServerStopped => "server_stopped",
            CloseReason::ServerRestarted => "server_restarted",
            CloseReason::Cancelled => "cancelled",
            CloseReason::MaxSession => "max_session",
        }
    }
}

/// Whether the usage is the truth to the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accuracy {
    /// coturn's own totals were seen for every counted allocation.
    Exact,
    /// At least this much was carried.
    LowerBound,
}

impl Accuracy {
    /// Both of them.
    pub const ALL: [Accuracy; 2] = [Accuracy::Exact, Accuracy::LowerBound];

    /// As in payloads and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Accuracy::Exact => "exact",
            Accuracy::LowerBound => "lower_bound",
        }
    }
}

/// One event of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEvent {
    /// The `webhook-id`.
    pub id: EventId,
    /// Start, usage or end.
    pub event_type: EventType,
    /// When it was decided; never before the session's previous event.
    pub timestamp: Timestamp,
    /// The session.
    pub session_id: SessionId,
    /// 0 for the start, then without holes.
    pub sequence: u32,
    /// The session that this one corrects.
    pub continues: Option<SessionId>,
    /// The source's name.
    pub source: Arc<str>,
    /// Empty if there is none.
    pub realm: Box<[u8]>,
    /// `None` where `user_pattern` does not match or gives nothing.
    pub user: Option<Box<[u8]>>,
    /// The distinct usernames of its allocations, at most 50.
    pub usernames: Vec<Box<[u8]>>,
    /// The further named groups of `user_pattern`, by name, of the first allocation.
    pub labels: Vec<(Arc<str>, Box<[u8]>)>,
    /// When its first counted allocation opened.
    pub started_at: Timestamp,
    /// Only in an end.
    pub end: Option<SessionEnd>,
    /// Of one that was cut off: why, in the words of whoever blocked its user.
    pub block_reason: Option<Arc<str>>,
    /// Up to the event, or to the end; by a clock that never goes back. `None` for a start.
    pub duration_ms: Option<u64>,
    /// False where the source's coturn reports no peer leg.
    pub peer_leg: bool,
    /// The rule that made the bytes to bill.
    pub billable: Billable,
    /// Since the session's start.
    pub usage: Usage,
    /// Since the session's previous event.
    pub usage_delta: Usage,
    /// At most 50.
    pub allocations: Vec<AllocationReport>,
    /// How many more there were.
    pub allocations_omitted: u32,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// The last close that counts; not before `started_at`.
    pub ended_at: Timestamp,
    /// That close's reason.
    pub reason: CloseReason,
    /// Whether the session's usage is exact.
    pub accuracy: Accuracy,
}

/// An allocation as it stands in a session's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationReport {
    /// coturn's number.
    pub id: AllocationId,
    /// Its whole username.
    pub username: Box<[u8]>,
    /// When it opened, or was first heard of.
    pub opened_at: Timestamp,
    /// Whether its `new` was heard.
    pub opened_seen: bool,
    /// `None` while it is open or parked.
    pub closed: Option<(Timestamp, CloseReason)>,
    /// Whether all of its totals were heard.
    pub totals_seen: bool,
    /// The server (`direct` sources only).
    pub server: Option<Box<[u8]>>,
    /// `type=`.
    pub transport: Option<Box<[u8]>>,
    /// `local=`.
    pub server_address: Option<Box<[u8]>>,
    /// `remote=`.
    pub client_address: Option<Box<[u8]>>,
    /// `ssl=`.
    pub tls_version: Option<Box<[u8]>>,
    /// `cipher=`.
    pub tls_cipher: Option<Box<[u8]>>,
    /// The part counted in this session.
    pub usage: Legs,
}

/// Bytes that were heard of and are billed in no session: the ledger keeps them, so that the books balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unattributed {
    /// When that was decided.
    pub at: Timestamp,
    /// Its server (`direct` sources only).
    pub server: Option<Box<[u8]>>,
    /// The allocation's realm.
    pub realm: Box<[u8]>,
    /// The allocation's username.
    pub username: Box<[u8]>,
    /// The allocation.
    pub allocation: AllocationId,
    /// Its incarnation: when it opened.
    pub opened_at: Timestamp,
    /// Why it is not billed.
    pub reason: UnattributedReason,
    /// The counters that are billed nowhere else.
    pub usage: Usage,
}

/// Why bytes are billed in no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnattributedReason {
    /// Less than `residue`, left over from a parked allocation.
    Residue,
    /// The allocation never relayed, and `start_on = "relay"`.
    NeverRelayed,
    /// After tombstones were evicted early: what the totals say beyond the deltas may have been billed before.
    Evicted,
}

impl UnattributedReason {
    /// As in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            UnattributedReason::Residue => "residue",
            UnattributedReason::NeverRelayed => "never_relayed",
            UnattributedReason::Evicted => "evicted",
        }
    }
}
