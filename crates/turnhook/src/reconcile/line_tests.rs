#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn text_of(bytes: &[u8]) -> (Format, Option<u64>, &str) {
    let line = line(bytes).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(bytes)));
    (
        line.format,
        line.at.map(|at| at.0),
        std::str::from_utf8(line.text).unwrap(),
    )
}

/// As coturn 4.6.1, 4.6.2 and 4.17.1 write them.
#[test]
fn lines_begin_in_these_ways() {
    let text = "session 000000000000000001: x";
    let whole = Some(1_795_746_024_000);
    for (begin, format, at) in [
        ("2: : ", Format::Old, None),
        ("2026-11-27T02:20:24+0000: ", Format::Old, whole),
        ("2026-11-27T04:20:24+0200: ", Format::Old, whole),
        ("1795746024: ", Format::Old, whole),
        ("17: (343249): INFO: ", Format::Old, None),
        ("2026-11-26T21:20:24-0500(343249): INFO: ", Format::Old, whole),
        (
            "2026-11-27T02:20:24.587+0000 INFO ",
            Format::New,
            Some(1_795_746_024_587),
        ),
        ("1795746024 INFO ", Format::New, whole),
    ] {
        assert_eq!(text_of(format!("{begin}{text}").as_bytes()), (format, at, text));
    }
    assert_eq!(
        text_of(b"3: : ERROR: check_stun_auth"),
        (Format::Old, None, "check_stun_auth")
    );
    assert_eq!(text_of(b"0: : \r"), (Format::Old, None, ""));
    for other in [
        "",
        "Version Coturn-4.6.1 'Gorst'",
        "max supported number of TURN Sessions possible is: 10000 (approximately)",
        "Nov 27 02:20:24 host turnserver[1]: 2: : x",
        "2026-11-27T02:20:24.587+0000 SAYS x",
        "2026-13-27T02:20:24+0000: x",
        "2 x",
        "2:x",
        "2: (12: x",
        "-1: : x",
    ] {
        assert_eq!(line(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn records_are_whole_or_none() {
    let of = |text: &str| record(text.as_bytes()).map(|r| (r.id.0, r.name.username.to_vec(), r.what));
    let begin = "session 001000000000000002: ";
    let counters = Counters {
        received_packets: 31,
        received_bytes: 4788,
        sent_packets: 31,
        sent_bytes: 4444,
    };
    let names = "realm=<example.org>, username=<1:ann>";
    let counted = "rp=31, rb=4788, sp=31, sb=4444";
    for (text, what) in [
        (
            format!("usage: {names}, {counted}"),
            What::Usage(Leg::Client, counters),
        ),
        (
            format!("peer usage: {names}, {counted}"),
            What::Usage(Leg::Peer, counters),
        ),
        (format!("new, {names}, lifetime=600"), What::New),
        (
            format!("new, {names}, lifetime=600, cipher=TLS_AES_256_GCM_SHA384, method=UNKNOWN"),
            What::New,
        ),
        (format!("refreshed, {names}, lifetime=0"), What::Refreshed),
        (format!("delete: {names}"), What::Deleted),
        (
            "closed (2nd stage), user <1:ann> realm <example.org> origin <>, local 127.0.0.1:3478, remote \
             127.0.0.1:53186, reason: TCP connection closed by client (callback)"
                .to_owned(),
            What::Closed,
        ),
    ] {
        let text = format!("{begin}{text}");
        let found = Some((1_000_000_000_000_002, b"1:ann".to_vec(), what));
        assert_eq!(of(&text), found, "{text}");
        // A part of one is none, and neither is one with something after it or before it.
        assert_eq!(of(&format!(" {text}")), None, "{text}");
        if what != What::Closed && !text.contains("cipher") {
            assert_eq!(of(&format!("{text} ")), None, "{text}");
        }
    }
    for wrong in [
        format!("{begin}usage: {names}, rp=31, rb=4788, sp=31, sb=-1"),
        format!("{begin}usage: {names}, rp=31, rb=4788, sp=31, sb="),
        format!("{begin}usage: {names}, rp=31, rb=4788, sp=31"),
        format!("{begin}usage: {names}, rp=31, rb=4788, sp=31, sb=99999999999999999999"),
        format!("{begin}usage: {names}, rp=31, rb=4788, sp=31, sb=9007199254740993"),
        format!("{begin}usage: realm=<r>, username=<a b>, {counted}"),
        format!("session 1: usage: {names}, {counted}"),
        format!("Session 001000000000000002: usage: {names}, {counted}"),
        format!("{begin}realm <example.org> user <1:ann>: incoming packet REFRESH processed, success"),
        format!("{begin}peer 127.0.0.2:26432 deleted"),
        format!(
            "{begin}usage: realm=<r>, username=<{}>, {counted}",
            "x".repeat(1_025)
        ),
    ] {
        assert_eq!(of(&wrong), None, "{wrong}");
    }
}

/// Whatever a client calls itself.
#[test]
fn a_name_does_not_write_a_record() {
    let forged = "000000000000000777: usage: realm=<r>, username=<victim>, rp=9, rb=9, sp=9, sb=9";
    let text = format!(
        "session 000000000000000001: realm <r> user <x 7: : session {forged}>: incoming packet, error 400"
    );
    assert_eq!(record(text.as_bytes()), None);
    assert!(holds_a_record(text.as_bytes()));
    // By a name without a blank.
    let text = "session 000000000000000001: usage: realm=<r>, username=<a>,rp=1>, rp=1, rb=2, sp=3, sb=4";
    assert_eq!(record(text.as_bytes()).unwrap().name.username, b"a>,rp=1");
    let (begun, whole) = (
        "session 000000000000000001: realm <r> user <x",
        ">: incoming packet",
    );
    assert_eq!(unended(begun.as_bytes()), Some(Unended::Bracket));
    assert_eq!(unended(format!("{begun}{whole}").as_bytes()), None);
    assert!(Unended::Bracket.is_ended_by(b"y>: incoming packet"));
    assert!(!Unended::Bracket.is_ended_by(format!("7: : session {forged}").as_bytes()));
    let refused = unended(b"check_stun_auth: wrong username: 1:x");
    assert_eq!(refused, Some(Unended::Refused));
}

#[test]
fn the_banner_of_each_version() {
    assert_eq!(banner(b"Version Coturn-4.6.1 'Gorst'"), Some(&b"4.6.1"[..]));
    assert_eq!(
        banner(b"Coturn Version Coturn-4.17.1 'Gorst'"),
        Some(&b"4.17.1"[..])
    );
    for none in [
        &b"Version Coturn-"[..],
        b"Version Coturn-x 'Gorst'",
        b"session: Version Coturn-4.6.1 'Gorst'",
    ] {
        assert_eq!(banner(none), None);
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    // Whatever coturn lets through, and above all what looks like its own words.
    let words = prop::sample::select(vec![
        ">,",
        "rp=",
        "username=<",
        "<",
        ">",
        ",",
        "=",
        "sb=9",
        "1:ann",
        "é",
        "lifetime=",
        "realm",
        ":",
        "origin",
    ]);
    prop_oneof![
        prop::collection::vec(words, 0..8).prop_map(|words| words.concat().into_bytes()),
        prop::collection::vec(
            any::<u8>().prop_filter("coturn refuses blanks", |b| !b.is_ascii_whitespace()),
            0..60
        ),
    ]
}

proptest! {
    /// What coturn writes is read as it was meant, under each beginning, whoever it is about.
    #[test]
    fn what_is_written_is_read(
        id in 0u64..1_000_000_000_000_000_000,
        realm in "[a-z.]{0,20}",
        username in name(),
        counters in prop::array::uniform4(0..=COUNTER_MAX),
        what in 0..5usize,
        begin in 0..3usize,
    ) {
        let begin = ["12: : ", "2026-11-27T02:20:24+0000: ", "2026-11-27T02:20:24.587+0000 INFO "][begin];
        let names = [b"realm=<", realm.as_bytes(), b">, username=<", &username, b">"].concat();
        let [rp, rb, sp, sb] = counters;
        let counted = format!(", rp={rp}, rb={rb}, sp={sp}, sb={sb}");
        let body = match what {
            0 => [b"usage: ", &names[..], counted.as_bytes()].concat(),
            1 => [b"peer usage: ", &names[..], counted.as_bytes()].concat(),
            2 => [b"new, ", &names[..], b", lifetime=600"].concat(),
            3 => [b"refreshed, ", &names[..], b", lifetime=0"].concat(),
            _ => [b"delete: ", &names[..]].concat(),
        };
        let bytes = [begin.as_bytes(), format!("session {id:018}: ").as_bytes(), &body].concat();
        let found = record(line(&bytes).unwrap().text).unwrap();
        let counters = Counters { received_packets: rp, received_bytes: rb, sent_packets: sp, sent_bytes: sb };
        let meant = [
            What::Usage(Leg::Client, counters),
            What::Usage(Leg::Peer, counters),
            What::New,
            What::Refreshed,
            What::Deleted,
        ][what];
        prop_assert_eq!((found.id.0, found.what), (id, meant));
        prop_assert_eq!((found.name.realm, found.name.username), (realm.as_bytes(), &username[..]));
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(line) = line(&bytes) {
            let _ = (record(line.text), holds_a_record(line.text), banner(line.text));
        }
        let _ = (record(&bytes), unended(&bytes), banner(&bytes));
    }
}
