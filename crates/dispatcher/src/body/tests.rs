#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use serde_json::{Value, json};
use turnhook_reducer::{
    event::{Accuracy, CloseReason, EventId, EventType, SessionEnd, SessionId},
    message::AllocationId,
    usage::Billable,
};

use super::*;

/// 2026-11-22T06:00:34.273Z
const START: u64 = 1_795_327_234_273;

fn counters_of(rp: u64, rb: u64, sp: u64, sb: u64) -> Counters {
    Counters {
        received_packets: rp,
        received_bytes: rb,
        sent_packets: sp,
        sent_bytes: sb,
    }
}

/// The example of the documentation.
fn end() -> SessionEvent {
    let legs = Legs {
        client: counters_of(311, 272_620, 311, 271_856),
        peer: counters_of(300, 270_000, 300, 270_000),
    };
    SessionEvent {
        id: EventId([1; 16]),
        event_type: EventType::End,
        timestamp: Timestamp(START + 23_351),
        session_id: SessionId([0; 16]),
        sequence: 3,
        continues: None,
        source: Arc::from("eu-1"),
        realm: Box::from(*b"example.org"),
        user: Some(Box::from(*b"cust_42")),
        usernames: vec![Box::from(*b"1795413634:cust_42")],
        labels: vec![],
        started_at: Timestamp(START),
        end: Some(SessionEnd {
            ended_at: Timestamp(START + 18_351),
            reason: CloseReason::Closed,
            accuracy: Accuracy::Exact,
        }),
        block_reason: None,
        duration_ms: Some(18_351),
        peer_leg: true,
        billable: Billable::Relayed,
        usage: Usage {
            legs,
            billable_bytes: 540_000,
        },
        usage_delta: Usage::default(),
        allocations: vec![AllocationReport {
            id: AllocationId(4),
            username: Box::from(*b"1795413634:cust_42"),
            opened_at: Timestamp(START),
            opened_seen: true,
            closed: Some((Timestamp(START + 18_351), CloseReason::Closed)),
            totals_seen: true,
            server: Some(Box::from(*b"10.0.0.7/-/0")),
            transport: Some(Box::from(*b"UDP")),
            server_address: Some(Box::from(*b"127.0.0.1:3478")),
            client_address: Some(Box::from(*b"127.0.0.1:36636")),
            tls_version: None,
            tls_cipher: None,
            usage: legs,
        }],
        allocations_omitted: 0,
    }
}

fn parsed(event: &SessionEvent) -> Value {
    serde_json::from_slice(&body(event)).unwrap()
}

#[test]
fn an_end_is_the_documented_example_to_the_byte() {
    let zero = r#"{"received_packets":0,"received_bytes":0,"sent_packets":0,"sent_bytes":0}"#;
    let client = r#"{"received_packets":311,"received_bytes":272620,"sent_packets":311,"sent_bytes":271856}"#;
    let peer = r#"{"received_packets":300,"received_bytes":270000,"sent_packets":300,"sent_bytes":270000}"#;
    let expected = [
        r#"{"type":"session.end","timestamp":"2026-11-22T06:00:57.624Z","data":{"#,
        r#""session_id":"ses_00000000000000000000000000","sequence":3,"continues":null,"#,
        r#""source":"eu-1","realm":"example.org","user":"cust_42","usernames":["1795413634:cust_42"],"labels":{},"#,
        r#""started_at":"2026-11-22T06:00:34.273Z","ended_at":"2026-11-22T06:00:52.624Z","duration_ms":18351,"#,
        r#""end_reason":"closed","accuracy":"exact","billable":"relayed","#,
        &format!(r#""usage":{{"client":{client},"peer":{peer},"billable_bytes":540000}},"#),
        &format!(r#""usage_delta":{{"client":{zero},"peer":{zero},"billable_bytes":0}},"#),
        r#""allocations":[{"id":"000000000000000004","username":"1795413634:cust_42","#,
        r#""opened_at":"2026-11-22T06:00:34.273Z","opened_seen":true,"#,
        r#""closed_at":"2026-11-22T06:00:52.624Z","close_reason":"closed","totals_seen":true,"#,
        r#""server":"10.0.0.7/-/0","transport":"UDP","server_address":"127.0.0.1:3478","client_address":"127.0.0.1:36636","tls":null,"#,
        &format!(r#""usage":{{"client":{client},"peer":{peer}}}}}],"allocations_omitted":0}}}}"#),
    ]
    .concat();
    assert_eq!(String::from_utf8(body(&end()).to_vec()).unwrap(), expected);
}

#[test]
fn a_start_and_a_usage_lack_what_only_an_end_has() {
    let mut event = end();
    event.end = None;
    event.event_type = EventType::Usage;
    event.duration_ms = Some(23_351);
    let usage = parsed(&event);
    assert_eq!(usage["type"], "session.usage");
    assert_eq!(
        usage["data"]["duration_ms"], 23_351,
        "up to the event's timestamp"
    );
    event.event_type = EventType::Start;
    event.duration_ms = None;
    let start = parsed(&event);
    for (value, absent) in [
        (&usage, &["ended_at", "end_reason", "accuracy"][..]),
        (&start, &["ended_at", "duration_ms", "end_reason", "accuracy"]),
    ] {
        for key in absent {
            assert!(!value["data"].as_object().unwrap().contains_key(*key), "{key}");
        }
    }
}

#[test]
fn nulls_are_there_where_nothing_was_heard() {
    let mut event = end();
    event.realm = Box::default();
    event.user = None;
    event.peer_leg = false;
    let a = &mut event.allocations[0];
    (
        a.closed,
        a.server,
        a.transport,
        a.server_address,
        a.client_address,
    ) = (None, None, None, None, None);
    let value = parsed(&event);
    for pointer in [
        "/data/realm",
        "/data/user",
        "/data/continues",
        "/data/usage/peer",
        "/data/usage_delta/peer",
        "/data/allocations/0/usage/peer",
        "/data/allocations/0/closed_at",
        "/data/allocations/0/close_reason",
        "/data/allocations/0/server",
        "/data/allocations/0/transport",
        "/data/allocations/0/server_address",
        "/data/allocations/0/client_address",
        "/data/allocations/0/tls",
    ] {
        assert_eq!(value.pointer(pointer), Some(&Value::Null), "{pointer}");
    }
    assert_eq!(value["data"]["usage"]["client"]["sent_bytes"], 271_856);
}

#[test]
fn tls_labels_and_omissions_are_in_the_body() {
    let mut event = end();
    event.continues = Some(SessionId([255; 16]));
    event.labels = vec![
        (Arc::from("zone"), Box::from(*b"b")),
        (Arc::from("app"), Box::from(*b"chat")),
    ];
    event.allocations[0].tls_version = Some(Box::from(*b"TLSv1.3"));
    event.allocations[0].tls_cipher = Some(Box::from(*b"TLS_AES_256_GCM_SHA384"));
    event.allocations_omitted = 7;
    let value = parsed(&event);
    assert_eq!(
        value["data"]["allocations"][0]["tls"],
        json!({"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"})
    );
    assert_eq!(value["data"]["labels"], json!({"zone": "b", "app": "chat"}));
    assert_eq!(value["data"]["allocations_omitted"], 7);
    assert_eq!(value["data"]["continues"], "ses_7zzzzzzzzzzzzzzzzzzzzzzzzz");
    let text = String::from_utf8(body(&event).to_vec()).unwrap();
    assert!(
        text.contains(r#""labels":{"zone":"b","app":"chat"}"#),
        "in the order of the pattern"
    );
}

#[test]
fn names_that_are_not_utf8_have_their_bytes_beside_them() {
    let mut event = end();
    event.realm = Box::from(*b"r\xff");
    event.user = Some(Box::from(*b"\xfe"));
    event.allocations[0].username = Box::from(*b"u\xff/x");
    event.usernames = vec![Box::from(*b"u\xff/x")];
    let value = parsed(&event);
    assert_eq!(value["data"]["realm"], "r\u{fffd}");
    assert_eq!(value["data"]["realm_base64"], "cv8=");
    assert_eq!(value["data"]["user_base64"], "/g==");
    assert_eq!(value["data"]["usernames"][0], "u\u{fffd}/x");
    assert_eq!(value["data"]["allocations"][0]["username_base64"], "df8veA==");
    let plain = parsed(&end());
    assert!(
        plain["data"].get("realm_base64").is_none(),
        "only where it is needed"
    );
}

#[test]
fn times_are_utc_with_milliseconds_and_never_panic() {
    assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(Timestamp(START)), "2026-11-22T06:00:34.273Z");
    assert!(rfc3339(Timestamp::MAX).starts_with("9999-12-3"));
    assert_eq!(
        &ping_body(Timestamp(1), "billing")[..],
        br#"{"type":"endpoint.ping","timestamp":"1970-01-01T00:00:00.001Z","test":true,"data":{"endpoint":"billing"}}"#
    );
}

#[test]
fn a_blocked_user_is_named_to_the_byte_whatever_he_is_called() {
    let event = |realm: Option<&[u8]>, user: &[u8]| turnhook_reducer::user_event::UserEvent {
        id: EventId([1; 16]),
        event_type: EventType::UserBlocked,
        timestamp: Timestamp(START),
        realm: realm.map(Into::into),
        user: user.into(),
        until: None,
        reason: "balance".to_owned(),
        by: Some("otto".to_owned()),
        quota: None,
    };
    let text = |realm: Option<&[u8]>, user: &[u8]| {
        String::from_utf8(user_body(&event(realm, user)).to_vec()).unwrap()
    };
    assert_eq!(
        text(Some(b"r\xff"), b"<b>\"\n"),
        concat!(
            r#"{"type":"user.blocked","timestamp":"2026-11-22T06:00:34.273Z","data":{"user":"<b>\"\n","#,
            "\"realm\":\"r\u{fffd}\",\"realm_base64\":\"cv8=\",\"all_realms\":false,",
            r#""until":null,"reason":"balance","by":"otto","quota":null}}"#
        )
    );
    let parsed =
        |realm: Option<&[u8]>, user: &[u8]| -> Value { serde_json::from_str(&text(realm, user)).unwrap() };
    let long = parsed(None, &[0xfe; 512]);
    assert_eq!(long["data"]["user_base64"].as_str().unwrap().len(), 684);
    assert_eq!(
        (&long["data"]["realm"], &long["data"]["all_realms"]),
        (&Value::Null, &json!(true))
    );
    // The empty realm is one realm, and is null as it is in sessions.
    let empty = parsed(Some(b""), b"ann");
    assert_eq!(
        (&empty["data"]["realm"], &empty["data"]["all_realms"]),
        (&Value::Null, &json!(false))
    );
}

#[test]
fn times_are_written_as_jiff_writes_them() {
    let day = 86_400_000;
    // Leap days, ends of years and months, and each place's digits.
    let times = (0..40_000u64).map(|n| n * day * 13 / 2 + n * 1_234_567);
    for ms in times.chain([
        0,
        999,
        951_782_399_999,
        951_868_800_000,
        START,
        253_402_207_200_999,
    ]) {
        let Ok(time) = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap()) else {
            continue;
        };
        assert_eq!(rfc3339(Timestamp(ms)), format!("{time:.3}"), "{ms}");
    }
    assert_eq!(
        rfc3339(Timestamp(u64::MAX)),
        format!("{:.3}", jiff::Timestamp::MAX)
    );
}
