//! Counters of coturn that wrap at 4 GiB, and what looks as if they had.

use turnhook_reducer::{
    message::{Kind, Leg},
    rules::Rules,
    source::{Gap, GapReason},
    time::Timestamp,
    usage::Counters,
};

use crate::world::{World, bytes, exact};

const MB: u64 = 1_000_000;

#[test]
fn a_peer_report_lost_alone_may_hide_a_wrap() {
    // The client's report of 5 GiB was heard, the peer's was not: no client bytes are missing, and yet the
    // peer total is short of 4 GiB.
    const TRUE: u64 = 5 << 30;
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(10.0).message(
        "bob",
        1,
        Kind::Traffic(Leg::Client, bytes(5_000_000, TRUE + TRUE / 10)),
    );
    w.at(20.0).close("bob", 1, 5_000_000, TRUE);
    w.at(100.0).advance();
    assert_eq!(w.end(0).usage.legs.peer.sent_bytes, TRUE - (4 << 30));
    assert!(!exact(w.end(0)));
}

#[test]
fn without_a_peer_leg_nothing_wraps() {
    let mut w = World::new(Rules {
        peer_leg: false.into(),
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1);
    let gap = Gap {
        from: Timestamp(w.now + 1),
        to: Timestamp(w.now + 10_000),
        reason: GapReason::Reconnect,
        server: None,
    };
    w.reducer.gap(gap.to, &gap);
    w.at(20.0).close("bob", 1, 5_000_000, 5 << 30);
    w.at(100.0).advance();
    assert!(exact(w.end(0)), "client totals are 64 bits wide");
    assert_eq!(w.end(0).usage.billable_bytes, 2 * ((5 << 30) + (5 << 30) / 10));
}

#[test]
fn two_lives_taken_for_one_are_not_billed_a_wrap() {
    // coturn is killed and started anew; the next life of the same number is heard of only by its end.
    // Its peer total is below what was counted, but its client total has no room for 4 GiB.
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(10.0)
        .message("bob", 1, Kind::Traffic(Leg::Peer, bytes(300, MB)));
    w.at(100.0).close("bob", 1, 200, MB / 2);
    w.at(200.0).advance();
    assert_eq!(w.peer_bytes_told(), MB, "what was counted, and not 4 GiB more");
    assert!(!exact(w.end(0)));
}

#[test]
fn two_lives_taken_for_one_are_not_billed_a_wrap_without_client_totals_either() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 300, MB);
    w.at(100.0)
        .deleted("bob", 1)
        .message("bob", 1, Kind::TotalTraffic(Leg::Peer, bytes(200, MB / 2)));
    w.at(200.0).advance();
    assert_eq!((w.peer_bytes_told(), exact(w.end(0))), (MB, false));
}

#[test]
fn a_wrap_is_told_without_client_totals_where_the_deltas_show_it() {
    const TRUE: u64 = 5 << 30;
    let mut w = World::new(Rules::default());
    w.at(0.0)
        .open("bob", 1)
        .traffic("bob", 1, 4_500_000, TRUE - (1 << 28));
    w.at(100.0).deleted("bob", 1).message(
        "bob",
        1,
        Kind::TotalTraffic(Leg::Peer, bytes(5_000_000, TRUE - (4 << 30))),
    );
    w.at(200.0).advance();
    assert_eq!((w.peer_bytes_told(), exact(w.end(0))), (TRUE, false));
}

#[test]
fn a_late_peer_total_that_wraps_is_told() {
    const TRUE: u64 = 5 << 30;
    let mut w = World::new(Rules::default());
    let total = |leg, n| Kind::TotalTraffic(leg, bytes(5_000_000, n));
    w.at(0.0).open("bob", 1);
    w.at(10.0).traffic("bob", 1, 4_500_000, TRUE - (1 << 29));
    w.at(20.0)
        .deleted("bob", 1)
        .message("bob", 1, total(Leg::Client, TRUE + TRUE / 10));
    w.at(40.0).advance();
    assert!(!exact(w.end(0)));
    w.at(50.0).message("bob", 1, total(Leg::Peer, TRUE - (4 << 30)));
    w.at(100.0).advance();
    assert_eq!(w.peer_bytes_told(), TRUE);
    assert_eq!(w.end(1).continues, Some(w.end(0).session_id));
}

/// A coturn that comes back from another address: what is known of a report that came too late goes along.
#[test]
fn what_may_have_wrapped_stays_so_under_another_address() {
    const HERE: &[u8] = b"10.0.0.2/-/0";
    const THERE: &[u8] = b"10.0.0.3/-/0";
    let late = |w: &mut World| {
        w.traffic("bob", 1, 100_000, MB);
    };
    for (reported, away) in [(HERE, 10), (HERE, 1000), (THERE, 10), (THERE, 1000)] {
        for known in [true, false] {
            let mut w = World::new(Rules {
                direct: true,
                ..Rules::default()
            });
            w.server = w.reducer.server(HERE);
            w.open("bob", 1);
            if reported == HERE {
                late(w.at(10.0));
            }
            w.at(f64::from(away)).advance();
            w.server = w.reducer.server(THERE);
            if !known {
                // As another client's, at first.
                let elsewhere = w.status("127.0.0.1:50000", 600);
                w.at(1020.0).message("bob", 1, Kind::Refreshed(elsewhere));
            }
            if reported == THERE {
                late(w.at(1030.0));
            }
            w.at(1040.0).refresh("bob", 1);
            w.at(1050.0).close("bob", 1, 100_000, MB);
            w.at(100_000.0).advance();
            let by = std::str::from_utf8(reported).unwrap();
            assert_eq!(w.peer_bytes_told(), MB, "{by} {known}: {:#?}", w.told());
            assert!(!w.ends().into_iter().any(exact), "{by} {known}: {:#?}", w.told());
        }
    }
}

/// Two lives that look like one of which all came twice: what is set right by the totals is exact only where neither of
/// its legs can hide 4 GiB.
#[test]
fn a_client_leg_that_may_have_wrapped_is_not_exact_where_totals_set_it_right() {
    let mut w = World::new(Rules::default());
    let check = bytes(3, 300);
    let client = |received_packets, received_bytes| Counters {
        received_packets,
        received_bytes,
        sent_packets: 3,
        sent_bytes: 300,
    };
    let peer = Counters {
        received_packets: 3,
        received_bytes: 300,
        sent_packets: 60_000,
        sent_bytes: 3_600_000_000,
    };
    w.open("bob", 1)
        .message("bob", 1, Kind::Traffic(Leg::Client, check))
        .message("bob", 1, Kind::Traffic(Leg::Peer, check));
    w.at(10.0)
        .refresh("bob", 1)
        .message("bob", 1, Kind::Traffic(Leg::Peer, peer))
        .deleted("bob", 1)
        // 7.2 GB, half of them to nobody.
        .message(
            "bob",
            1,
            Kind::TotalTraffic(Leg::Client, client(120_000, 2_905_032_704)),
        )
        .message("bob", 1, Kind::TotalTraffic(Leg::Peer, peer));
    w.at(100_000.0).advance();
    assert!(!exact(w.end(0)), "{:#?}", w.told());
}
