//! A sample of each type and case, as it would be sent.

use std::sync::Arc;

use serde_json::Value;
use turnhook_reducer::{
    event::{
        Accuracy, AllocationReport, CloseReason, EventId, EventType, SessionEnd, SessionEvent, SessionId,
    },
    message::AllocationId,
    time::Timestamp,
    usage::{Billable, Counters, Legs, Usage},
    user_event::{QuotaPeriod, QuotaReached, QuotaUnit, UserEvent},
};

use super::{super::user_body, ping, sent};

/// 2026-11-22T06:00:34.273Z
const START: u64 = 1_795_327_234_273;

fn counters(received_packets: u64, received_bytes: u64, sent_packets: u64, sent_bytes: u64) -> Counters {
    Counters {
        received_packets,
        received_bytes,
        sent_packets,
        sent_bytes,
    }
}

fn usage(packets: u64) -> Usage {
    Usage {
        legs: Legs {
            client: counters(
                packets + 11,
                packets * 904 + 1_420,
                packets + 11,
                packets * 904 + 656,
            ),
            peer: counters(packets, packets * 900, packets, packets * 900),
        },
        billable_bytes: packets * 1_800,
    }
}

fn allocation(id: u64, packets: u64) -> AllocationReport {
    AllocationReport {
        id: AllocationId(id),
        username: Box::from(*b"1795413634:cust_42"),
        opened_at: Timestamp(START),
        opened_seen: true,
        closed: None,
        totals_seen: false,
        server: Some(Box::from(*b"10.0.0.7/-/0")),
        transport: Some(Box::from(*b"UDP")),
        server_address: Some(Box::from(*b"203.0.113.10:3478")),
        client_address: Some(format!("192.0.2.7:{}", 36_632 + id).into_bytes().into()),
        tls_version: None,
        tls_cipher: None,
        usage: usage(packets).legs,
    }
}

/// The start of a session.
fn start() -> SessionEvent {
    SessionEvent {
        id: EventId([1; 16]),
        event_type: EventType::Start,
        timestamp: Timestamp(START),
        session_id: SessionId(*b"\x01\xa2\x05\xd6\x3c\x21session_01"),
        sequence: 0,
        continues: None,
        source: Arc::from("eu-1"),
        realm: Box::from(*b"example.org"),
        user: Some(Box::from(*b"cust_42")),
        usernames: vec![Box::from(*b"1795413634:cust_42")],
        labels: vec![(Arc::from("tenant"), Box::from(*b"acme"))],
        started_at: Timestamp(START),
        end: None,
        duration_ms: None,
        block_reason: None,
        peer_leg: true,
        billable: Billable::Relayed,
        usage: Usage::default(),
        usage_delta: Usage::default(),
        allocations: vec![AllocationReport {
            usage: Legs::default(),
            ..allocation(4, 0)
        }],
        allocations_omitted: 0,
    }
}

fn under_way() -> SessionEvent {
    SessionEvent {
        event_type: EventType::Usage,
        timestamp: Timestamp(START + 60_000),
        sequence: 1,
        duration_ms: Some(60_000),
        usage: usage(4_000),
        usage_delta: usage(4_000),
        allocations: vec![allocation(4, 4_000)],
        ..start()
    }
}

fn end(reason: CloseReason, accuracy: Accuracy) -> SessionEvent {
    let ended_at = Timestamp(START + 98_351);
    let closed = match reason {
        CloseReason::MaxSession => None,
        reason => Some((ended_at, reason)),
    };
    SessionEvent {
        event_type: EventType::End,
        timestamp: Timestamp(START + 103_351),
        sequence: 2,
        end: Some(SessionEnd {
            ended_at,
            reason,
            accuracy,
        }),
        duration_ms: Some(98_351),
        usage: usage(6_500),
        usage_delta: usage(2_500),
        allocations: vec![AllocationReport {
            closed,
            totals_seen: accuracy == Accuracy::Exact && closed.is_some(),
            ..allocation(4, 6_500)
        }],
        ..start()
    }
}

/// Type, case (empty: the usual one), body.
pub(super) fn all() -> Vec<(&'static str, &'static str, Value)> {
    let (exact, least) = (Accuracy::Exact, Accuracy::LowerBound);
    let usual = end(CloseReason::Closed, exact);
    let many = SessionEvent {
        allocations: vec![
            usual.allocations[0].clone(),
            AllocationReport {
                closed: usual.allocations[0].closed,
                totals_seen: true,
                transport: Some(Box::from(*b"TLS")),
                tls_version: Some(Box::from(*b"TLSv1.3")),
                tls_cipher: Some(Box::from(*b"TLS_AES_256_GCM_SHA384")),
                ..allocation(5, 0)
            },
        ],
        allocations_omitted: 58,
        ..usual.clone()
    };
    let cancelled = SessionEvent {
        block_reason: Some(Arc::from("balance")),
        ..end(CloseReason::Cancelled, exact)
    };
    let not_utf8 = SessionEvent {
        realm: Box::from(*b"ex\xe4mple.org"),
        user: Some(Box::from(*b"M\xfcller")),
        usernames: vec![Box::from(*b"1795413634:M\xfcller")],
        allocations: vec![AllocationReport {
            username: Box::from(*b"1795413634:M\xfcller"),
            ..usual.allocations[0].clone()
        }],
        ..usual.clone()
    };
    let no_peer_leg = SessionEvent {
        peer_leg: false,
        ..under_way()
    };
    let no_user = SessionEvent {
        realm: Box::default(),
        user: None,
        usernames: vec![Box::from(*b"1795413634:")],
        labels: Vec::new(),
        ..start()
    };
    let continues = SessionEvent {
        continues: Some(SessionId(*b"\x01\xa2\x05\xd6\x00\x00session_00")),
        ..start()
    };
    let mut all: Vec<(&str, &str, Value)> = [
        ("", start()),
        ("continues", continues),
        ("no_user", no_user),
        ("", under_way()),
        ("no_peer_leg", no_peer_leg),
        ("", usual),
        ("cancelled", cancelled),
        ("expired", end(CloseReason::Expired, least)),
        ("lower_bound", end(CloseReason::Closed, least)),
        ("many_allocations", many),
        ("max_session", end(CloseReason::MaxSession, exact)),
        ("not_utf8", not_utf8),
        ("server_restarted", end(CloseReason::ServerRestarted, least)),
        ("server_stopped", end(CloseReason::ServerStopped, exact)),
    ]
    .map(|(case, event)| (event.event_type.as_str(), case, sent(&event)))
    .into();
    all.extend(of_users());
    all.push((super::super::PING, "", ping()));
    all
}

/// A user who is blocked by a program that uses the API.
fn blocked() -> UserEvent {
    UserEvent {
        id: EventId([1; 16]),
        event_type: EventType::UserBlocked,
        timestamp: Timestamp(START),
        realm: Some(Box::from(*b"example.org")),
        user: Box::from(*b"cust_42"),
        until: Some(Timestamp(START + 3_600_000)),
        reason: "balance".to_owned(),
        by: Some("billing".to_owned()),
        quota: None,
    }
}

fn of_users() -> Vec<(&'static str, &'static str, Value)> {
    // 2026-11-22, UTC.
    let day = (Timestamp(1_795_305_600_000), Timestamp(1_795_392_000_000));
    let quota = QuotaReached {
        name: "50GiB a day".to_owned(),
        period: QuotaPeriod::Day,
        unit: QuotaUnit::Bytes,
        limit: 53_687_091_200,
        used: 53_689_540_640,
        span: Some(day),
        session: None,
        realm: Box::from(*b"example.org"),
        user: Box::from(*b"cust_42"),
    };
    let by_quota = UserEvent {
        until: Some(day.1),
        reason: "quota: 50GiB a day".to_owned(),
        by: Some("quota".to_owned()),
        quota: Some(quota.clone()),
        ..blocked()
    };
    let reached = UserEvent {
        event_type: EventType::QuotaReached,
        ..by_quota.clone()
    };
    let of_session = UserEvent {
        until: None,
        reason: "quota: 36000 seconds a session".to_owned(),
        quota: Some(QuotaReached {
            name: "36000 seconds a session".to_owned(),
            period: QuotaPeriod::Session,
            unit: QuotaUnit::Seconds,
            limit: 36_000,
            used: 36_042,
            span: None,
            session: Some(SessionId(*b"\x01\xa2\x05\xd6\x3c\x21session_01")),
            ..quota
        }),
        ..reached.clone()
    };
    let all_realms = UserEvent {
        realm: None,
        until: None,
        by: Some("command line (root)".to_owned()),
        ..blocked()
    };
    let not_utf8 = UserEvent {
        realm: Some(Box::from(*b"ex\xe4mple.org")),
        user: Box::from(*b"M\xfcller"),
        ..blocked()
    };
    let unblocked = UserEvent {
        event_type: EventType::UserUnblocked,
        timestamp: Timestamp(START + 60_000),
        reason: "unblocked".to_owned(),
        ..blocked()
    };
    let expired = UserEvent {
        timestamp: Timestamp(START + 3_600_040),
        reason: "expired".to_owned(),
        by: None,
        ..unblocked.clone()
    };
    let all = [
        ("", reached),
        ("session", of_session),
        ("", blocked()),
        ("all_realms", all_realms),
        ("not_utf8", not_utf8),
        ("quota", by_quota),
        ("", unblocked),
        ("expired", expired),
    ];
    let body = |event: &UserEvent| serde_json::from_slice(&user_body(event)).unwrap();
    all.map(|(case, event)| (event.event_type.as_str(), case, body(&event)))
        .into()
}
