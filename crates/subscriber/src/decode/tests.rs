#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn names(channel: &[u8]) -> Result<(&[u8], &[u8], u64), Refusal> {
    decode(channel, b"deleted").map(|m| (m.realm, m.username, m.id.0))
}

#[test]
fn both_grammars() {
    let m = decode(
        b"turn/realm/example.org/user/bob/allocation/003000000000000012/status",
        b"deleted",
    )
    .unwrap();
    assert_eq!(
        (m.realm, m.username, m.id.0),
        (&b"example.org"[..], &b"bob"[..], 3_000_000_000_000_012)
    );
    assert_eq!(m.id.relay_thread(), 3);
    assert_eq!(m.kind, Kind::Deleted);
    assert_eq!(
        names(b"turn/user/bob/allocation/000000000000000001/status"),
        Ok((&b""[..], &b"bob"[..], 1))
    );
}

#[test]
fn usernames_hold_anything() {
    for user in [
        &b""[..],
        b"/",
        b"a b",
        b"1795413336:1999999999:cust_42/eu",
        b"x/allocation/000000000000000009/status",
        b"x/user/y",
        b"\xff\xfe/\x00",
        b"allocation",
        b"/user/",
        b"realm/x/user/y",
        b"new lifetime=0, status",
    ] {
        let channel = [
            b"turn/realm/r/user/",
            user,
            b"/allocation/000000000000000001/status",
        ]
        .concat();
        assert_eq!(
            names(&channel),
            Ok((&b"r"[..], user, 1)),
            "{}",
            user.escape_ascii()
        );
        let channel = [b"turn/user/", user, b"/allocation/000000000000000001/status"].concat();
        assert_eq!(
            names(&channel),
            Ok((&b""[..], user, 1)),
            "{}",
            user.escape_ascii()
        );
    }
}

#[test]
fn a_realm_ends_at_the_first_user() {
    assert_eq!(
        names(b"turn/realm/a/b/user/c/user/d/allocation/000000000000000001/status"),
        Ok((&b"a/b"[..], &b"c/user/d"[..], 1))
    );
}

#[test]
fn kinds_are_matched_exactly() {
    let base = "turn/realm/r/user/u/allocation/000000000000000001";
    let counters = b"rcvp=1, rcvb=2, sentp=3, sentb=4";
    let c = Counters {
        received_packets: 1,
        received_bytes: 2,
        sent_packets: 3,
        sent_bytes: 4,
    };
    for (kind, want) in [
        ("traffic", Kind::Traffic(Leg::Client, c)),
        ("traffic/peer", Kind::Traffic(Leg::Peer, c)),
        ("total_traffic", Kind::TotalTraffic(Leg::Client, c)),
        ("total_traffic/peer", Kind::TotalTraffic(Leg::Peer, c)),
    ] {
        let channel = format!("{base}/{kind}");
        assert_eq!(decode(channel.as_bytes(), counters).unwrap().kind, want);
    }
    for kind in [
        "statu",
        "status/peer",
        "Status",
        "status/",
        "xtraffic",
        "peer",
        "peers",
        "",
        "traffic/peer/peer",
    ] {
        let channel = format!("{base}/{kind}");
        assert_eq!(
            decode(channel.as_bytes(), counters),
            Err(Refusal::UnknownKind),
            "{kind}"
        );
    }
}

#[test]
fn an_id_is_18_digits() {
    for id in [
        "",
        "1",
        "00000000000000001",
        "0000000000000000001",
        "00000000000000000x",
        "+00000000000000001",
    ] {
        let channel = format!("turn/realm/r/user/u/allocation/{id}/status");
        assert_eq!(names(channel.as_bytes()), Err(Refusal::BadId), "{id}");
    }
    assert_eq!(
        names(b"turn/user/u/000000000000000001/status"),
        Err(Refusal::BadId)
    );
    assert_eq!(
        names(b"turn/user/u/allocation/999999999999999999/status").map(|n| n.2),
        Ok(999_999_999_999_999_999)
    );
}

#[test]
fn strangers_are_foreign() {
    for channel in [
        &b""[..],
        b"__XXX__",
        b"__keyspace@0__:turn/x",
        b"turn",
        b"turn/",
        b"turn/realms/x/status",
        b"Turn/user/u/allocation/000000000000000001/status",
        b"turn/realm/r/allocation/000000000000000001/status",
        b"turn/realm//user/u/allocation/000000000000000001/status",
    ] {
        assert_eq!(
            names(channel),
            Err(Refusal::Foreign),
            "{}",
            channel.escape_ascii()
        );
    }
}

#[test]
fn both_status_forms() {
    let channel = b"turn/user/u/allocation/000000000000000001/status";
    let kind = |payload: &'static [u8]| decode(channel, payload).map(|m| m.kind);
    assert_eq!(
        kind(b"new lifetime=600"),
        Ok(Kind::New(Status {
            lifetime: 600,
            ..Status::default()
        }))
    );
    assert_eq!(
        kind(b"refreshed lifetime=0, type=UDP, local=127.0.0.1:3478, remote=[::1]:36636, ssl=NONE, cipher=NONE"),
        Ok(Kind::Refreshed(Status {
            lifetime: 0,
            transport: Some(b"UDP"),
            local: Some(b"127.0.0.1:3478"),
            remote: Some(b"[::1]:36636"),
            ..Status::default()
        }))
    );
    assert_eq!(
        kind(b"new lifetime=1, mood=a,b=c, ssl=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, next="),
        Ok(Kind::New(Status {
            lifetime: 1,
            tls_version: Some(b"TLSv1.3"),
            tls_cipher: Some(b"TLS_AES_256_GCM_SHA384"),
            ..Status::default()
        }))
    );
    for bad in [
        &b""[..],
        b"new",
        b"new ",
        b"new lifetime=",
        b"new lifetime=-1",
        b"new lifetime=4294967296",
        b"new lifetime=1,",
        b"new lifetime=1, ",
        b"new lifetime=1, x",
        b"new lifetime=1, =x",
        b"new lifetime=1 type=UDP",
        b"new type=UDP, lifetime=1",
        b"deleted ",
        b"deleted, x=1",
        b"moved lifetime=1",
        b"rcvp=1, rcvb=2, sentp=3, sentb=4",
    ] {
        assert_eq!(kind(bad), Err(Refusal::BadPayload), "{}", bad.escape_ascii());
    }
}

#[test]
fn counters_are_u64_and_no_more() {
    let channel = b"turn/user/u/allocation/000000000000000001/traffic";
    let kind = |payload: &'static [u8]| decode(channel, payload).map(|m| m.kind);
    let max = COUNTER_MAX;
    assert_eq!(
        kind(b"rcvp=9007199254740992, rcvb=000000000000000000000009007199254740992, sentp=0, sentb=1, dropped=7"),
        Ok(Kind::Traffic(
            Leg::Client,
            Counters { received_packets: max, received_bytes: max, sent_packets: 0, sent_bytes: 1 }
        ))
    );
    for bad in [
        &b"rcvp=18446744073709551616, rcvb=0, sentp=0, sentb=0"[..],
        b"rcvp=99999999999999999999, rcvb=0, sentp=0, sentb=0",
        b"rcvp=1, rcvb=2, sentp=3",
        b"rcvp=1, rcvb=2, sentp=3, sentb=",
        b"rcvp=1,rcvb=2,sentp=3,sentb=4",
        b"rcvp=1, rcvb=2, sentp=3, sentb=4 ",
        b"rcvp=1, rcvb=2, sentp=3, sentb=4, ",
        b" rcvp=1, rcvb=2, sentp=3, sentb=4",
        b"rcvp=-1, rcvb=2, sentp=3, sentb=4",
        b"rcvp=1, rcvb=2, sentp=3, sentb=0x4",
        b"deleted",
    ] {
        assert_eq!(kind(bad), Err(Refusal::BadPayload), "{}", bad.escape_ascii());
    }
}

/// One store cannot hold what another can: what is beyond all that coturn can mean is refused here, each for its own reason.
#[test]
fn what_is_too_long_or_too_large_is_refused_for_a_reason_of_its_own() {
    let user = |len: usize| encode(b"r", &vec![b'x'; len], 1, "status");
    let realm = |len: usize| encode(&vec![b'x'; len], b"u", 1, "status");
    let refusal = |channel: &[u8], payload: &[u8]| decode(channel, payload).err();
    assert_eq!(refusal(&user(USERNAME_MAX), b"deleted"), None);
    assert_eq!(
        refusal(&user(USERNAME_MAX + 1), b"deleted"),
        Some(Refusal::UsernameTooLong)
    );
    assert_eq!(decode_key(&user(USERNAME_MAX + 1)), Err(Refusal::UsernameTooLong));
    assert_eq!(refusal(&realm(REALM_MAX), b"deleted"), None);
    assert_eq!(
        refusal(&realm(REALM_MAX + 1), b"deleted"),
        Some(Refusal::RealmTooLong)
    );
    assert_eq!(decode_key(&realm(REALM_MAX + 1)), Err(Refusal::RealmTooLong));
    for key in ["type", "local", "remote", "ssl", "cipher"] {
        let status = |len: usize| format!("new lifetime=600, {key}={}, next=1", "x".repeat(len));
        assert_eq!(refusal(&user(1), status(VALUE_MAX).as_bytes()), None, "{key}");
        let too_long = status(VALUE_MAX + 1);
        assert_eq!(
            refusal(&user(1), too_long.as_bytes()),
            Some(Refusal::ValueTooLong),
            "{key}"
        );
    }
    for place in 0..4 {
        let counters = |n: u64| {
            let mut c = [1u64; 4];
            c[place] = n;
            format!("rcvp={}, rcvb={}, sentp={}, sentb={}", c[0], c[1], c[2], c[3])
        };
        for kind in ["traffic", "traffic/peer", "total_traffic", "total_traffic/peer"] {
            let channel = encode(b"r", b"u", 1, kind);
            assert_eq!(refusal(&channel, counters(COUNTER_MAX).as_bytes()), None);
            for n in [COUNTER_MAX + 1, u64::MAX] {
                assert_eq!(
                    refusal(&channel, counters(n).as_bytes()),
                    Some(Refusal::CounterTooLarge)
                );
            }
        }
    }
    let mut texts = Refusal::ALL.map(Refusal::as_str).to_vec();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), Refusal::ALL.len());
}

#[test]
fn keys_are_status_channels() {
    let key = b"turn/realm/r/user/u/allocation/000000000000000001/status";
    assert_eq!(
        decode_key(key),
        Ok(Names {
            realm: b"r",
            username: b"u",
            id: AllocationId(1)
        })
    );
    assert_eq!(
        decode_key(b"turn/user/u/allocation/000000000000000001/traffic"),
        Err(Refusal::UnknownKind)
    );
}

/// An encoder written from what coturn was seen to publish.
fn encode(realm: &[u8], username: &[u8], id: u64, kind: &str) -> Vec<u8> {
    let mut channel = b"turn/".to_vec();
    if !realm.is_empty() {
        channel.extend([b"realm/", realm, b"/"].concat());
    }
    channel.extend(
        [
            b"user/",
            username,
            format!("/allocation/{id:018}/{kind}").as_bytes(),
        ]
        .concat(),
    );
    channel
}

/// Bytes that like to be what the grammar is made of.
fn nasty(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"/allocation/".to_vec()),
        Just(b"/user/".to_vec()),
        Just(b"turn/realm/".to_vec()),
        Just(b"000000000000000001".to_vec()),
        Just(b"/status".to_vec()),
        Just(b"/traffic/peer".to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    prop::collection::vec(piece, 0..max).prop_map(|p| p.concat())
}

fn realm() -> impl Strategy<Value = Vec<u8>> {
    // Without `/user/`, which ends a realm, be it its own or made with the word that follows.
    nasty(4).prop_map(|r| r.into_iter().filter(|&b| b != b'u').collect())
}

proptest! {
    #[test]
    fn what_coturn_writes_is_read_back(
        realm in realm(), username in nasty(6), id in 0u64..1_000_000_000_000_000_000,
        leg in any::<bool>(), total in any::<bool>(), n in prop::array::uniform4(0..=COUNTER_MAX),
    ) {
        let kind = format!("{}traffic{}", if total { "total_" } else { "" }, if leg { "/peer" } else { "" });
        let channel = encode(&realm, &username, id, &kind);
        let payload = format!("rcvp={}, rcvb={}, sentp={}, sentb={}", n[0], n[1], n[2], n[3]);
        let counters = Counters { received_packets: n[0], received_bytes: n[1], sent_packets: n[2], sent_bytes: n[3] };
        let leg = if leg { Leg::Peer } else { Leg::Client };
        let kind = if total { Kind::TotalTraffic(leg, counters) } else { Kind::Traffic(leg, counters) };
        prop_assert_eq!(
            decode(&channel, payload.as_bytes()),
            Ok(Message { realm: &realm, username: &username, id: AllocationId(id), kind })
        );
    }

    #[test]
    fn statuses_are_read_back(
        lifetime in any::<u32>(), new in any::<bool>(),
        pairs in prop::collection::vec(("(type|local|remote|ssl|cipher|x[a-z]{0,5})", "[!-+.-~][ -+.-~]{0,20}"), 0..8),
    ) {
        let channel = encode(b"r", b"u", 7, "status");
        let mut payload = format!("{} lifetime={lifetime}", if new { "new" } else { "refreshed" });
        for (k, v) in &pairs {
            payload += &format!(", {k}={v}");
        }
        let last = |key: &str| pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_bytes());
        let tls = |key| last(key).filter(|v| *v != b"NONE");
        let status = Status {
            lifetime, transport: last("type"), local: last("local"), remote: last("remote"),
            tls_version: tls("ssl"), tls_cipher: tls("cipher"),
        };
        let want = if new { Kind::New(status) } else { Kind::Refreshed(status) };
        prop_assert_eq!(decode(&channel, payload.as_bytes()).map(|m| m.kind), Ok(want));
    }

    #[test]
    fn no_bytes_make_it_panic(channel in nasty(8), payload in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode(&channel, &payload);
        let _ = decode(&[b"turn/realm/", channel.as_slice()].concat(), &payload);
        let _ = decode_key(&channel);
    }

    /// Whatever is read names its channel: encoding it again gives the channel back.
    #[test]
    fn what_is_read_is_what_was_written(tail in nasty(8), status in "(new|refreshed) lifetime=[0-9]{1,3}|deleted") {
        for start in ["turn/realm/", "turn/user/"] {
            let channel = [start.as_bytes(), &tail, b"/allocation/000000000000000123/status"].concat();
            if let Ok(m) = decode(&channel, status.as_bytes()) {
                prop_assert_eq!(encode(m.realm, m.username, m.id.0, "status"), channel);
            }
        }
    }
}

/// Every line of both captures of real servers decodes; deltas sum to the totals where an allocation closed.
#[test]
fn captures_of_real_servers() {
    for (text, closed) in [
        (include_str!("../../tests/captures/coturn-4.6.1.jsonl"), true),
        (include_str!("../../tests/captures/coturn-4.17.1.jsonl"), true),
    ] {
        let mut deltas = std::collections::HashMap::new();
        let mut totals = 0;
        for line in text.lines().filter(|l| !l.is_empty()) {
            let (_, channel, payload): (f64, String, String) = serde_json::from_str(line).unwrap();
            let m = match decode(channel.as_bytes(), payload.as_bytes()) {
                Ok(m) => m,
                Err(refusal) => panic!("{refusal:?}: {line}"),
            };
            let key = |leg| (m.realm.to_vec(), m.username.to_vec(), m.id, leg);
            match m.kind {
                Kind::Traffic(leg, c) => {
                    let sum: &mut Counters = deltas.entry(key(leg)).or_default();
                    *sum = sum.plus(c);
                }
                Kind::TotalTraffic(leg, c) => {
                    assert_eq!(deltas.get(&key(leg)).copied().unwrap_or_default(), c, "{line}");
                    totals += 1;
                }
                _ => {}
            }
        }
        assert_eq!(totals > 0, closed);
    }
}
