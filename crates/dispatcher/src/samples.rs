//! Events that nobody made, for trials: to see what an endpoint would be sent, and to check a configuration.

use std::sync::Arc;

use bytes::Bytes;
use turnhook_reducer::{
    event::{
        Accuracy, AllocationReport, CloseReason, EventId, EventType, SessionEnd, SessionEvent, SessionId,
    },
    message::AllocationId,
    time::Timestamp,
    usage::{Billable, Counters, Legs, Usage},
    user_event::{QuotaPeriod, QuotaReached, QuotaUnit, UserEvent},
};

use crate::body::{session_body, user_event_body};

/// What is special about a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Case {
    /// Nothing: all that coturn said was heard.
    #[default]
    Exact,
    /// Something may have been missed.
    LowerBound,
    /// Its session corrects another.
    Continues,
    /// No user was found in the username, and there is no realm.
    NoUser,
    /// More allocations than are listed.
    Many,
}

impl Case {
    /// All of them, with their names on the command line.
    pub const ALL: [(&str, Case); 5] = [
        ("exact", Case::Exact),
        ("lower-bound", Case::LowerBound),
        ("continues", Case::Continues),
        ("no-user", Case::NoUser),
        ("many", Case::Many),
    ];
}

/// Allocations of a session that has many.
const MANY: u64 = 50;
/// And how many more it had.
const MORE: u32 = 950;

/// How long the sample's session has lasted at each of its events.
const LASTED: u64 = 18_351;

/// The payload of a sample of any type, emitted at `now`, marked as one that nobody is billed for. Of a user's event no
/// case is special.
#[must_use]
pub fn payload(event_type: EventType, case: Case, now: Timestamp) -> Bytes {
    if event_type.is_of_session() {
        session_body(&event(event_type, case, now), true)
    } else {
        user_event_body(&user_event(event_type, now), true)
    }
}

/// A user who has used up a quota of a day at `now`, is blocked for it until the day is over, or is blocked no more.
#[must_use]
pub fn user_event(event_type: EventType, now: Timestamp) -> UserEvent {
    const DAY: u64 = 86_400_000;
    let start = Timestamp(now.0 - now.0 % DAY);
    let end = start.plus(DAY);
    let words = "50GiB a day";
    let over = event_type == EventType::UserUnblocked;
    UserEvent {
        id: EventId([0; 16]),
        event_type,
        timestamp: now,
        realm: Some(Box::from(*b"example.org")),
        user: Box::from(*b"cust_42"),
        until: Some(end),
        reason: if over {
            "expired".to_owned()
        } else {
            format!("quota: {words}")
        },
        by: (!over).then(|| "quota".to_owned()),
        quota: (!over).then(|| QuotaReached {
            name: words.to_owned(),
            period: QuotaPeriod::Day,
            unit: QuotaUnit::Bytes,
            limit: 50 << 30,
            used: (50 << 30) + 540_000,
            span: Some((start, end)),
            session: None,
            realm: Box::from(*b"example.org"),
            user: Box::from(*b"cust_42"),
        }),
    }
}

/// A sample whose session began some seconds before `now`, emitted at `now`. What is of no session is made an end.
#[must_use]
pub fn event(event_type: EventType, case: Case, now: Timestamp) -> SessionEvent {
    let event_type = if event_type.is_of_session() {
        event_type
    } else {
        EventType::End
    };
    let started_at = Timestamp(now.0.saturating_sub(LASTED + 5_000));
    let ended_at = started_at.plus(LASTED);
    let carried = Usage {
        legs: Legs {
            client: counters(311, 272_620, 311, 271_856),
            peer: counters(300, 270_000, 300, 270_000),
        },
        billable_bytes: 540_000,
    };
    let (sequence, usage, usage_delta) = match event_type {
        EventType::Start => (0, Usage::default(), Usage::default()),
        EventType::Usage => (1, carried, carried),
        _ => (2, carried, Usage::default()),
    };
    let is_end = event_type == EventType::End;
    let exact = case != Case::LowerBound;
    let count = if case == Case::Many { MANY } else { 1 };
    let allocation = |n: u64| AllocationReport {
        id: AllocationId(4 + n),
        username: username(n),
        opened_at: started_at,
        opened_seen: exact,
        closed: is_end.then_some((ended_at, CloseReason::Closed)),
        totals_seen: is_end && exact,
        server: Some(Box::from(*b"192.0.2.7/-/0")),
        transport: Some(Box::from(*b"UDP")),
        server_address: Some(Box::from(*b"192.0.2.7:3478")),
        client_address: Some(format!("198.51.100.1:{}", 40_000 + n).into_bytes().into()),
        tls_version: None,
        tls_cipher: None,
        usage: if n == 0 { usage.legs } else { Legs::default() },
    };
    SessionEvent {
        id: EventId([0; 16]),
        event_type,
        timestamp: now,
        session_id: SessionId([0; 16]),
        sequence,
        continues: (case == Case::Continues).then_some(SessionId([1; 16])),
        source: Arc::from("sample"),
        realm: if case == Case::NoUser {
            Box::default()
        } else {
            Box::from(*b"example.org")
        },
        user: (case != Case::NoUser).then(|| Box::from(*b"cust_42")),
        usernames: (0..count).map(username).collect(),
        labels: Vec::new(),
        started_at,
        end: is_end.then_some(SessionEnd {
            ended_at,
            reason: CloseReason::Closed,
            accuracy: if exact {
                Accuracy::Exact
            } else {
                Accuracy::LowerBound
            },
        }),
        block_reason: None,
        duration_ms: (event_type != EventType::Start).then_some(LASTED),
        peer_leg: true,
        billable: Billable::Relayed,
        usage,
        usage_delta,
        allocations: (0..count).map(allocation).collect(),
        allocations_omitted: if case == Case::Many { MORE } else { 0 },
    }
}

fn username(n: u64) -> Box<[u8]> {
    format!("{}:cust_42", 1_795_413_634 + n).into_bytes().into()
}

fn counters(received_packets: u64, received_bytes: u64, sent_packets: u64, sent_bytes: u64) -> Counters {
    Counters {
        received_packets,
        received_bytes,
        sent_packets,
        sent_bytes,
    }
}
