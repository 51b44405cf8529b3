//! Histories that must come out so.

use turnhook_reducer::{
    event::CloseReason,
    message::{Kind, Leg},
    rules::{AliveWhile, Rules},
    source::{Gap, GapReason},
    time::Timestamp,
    usage::{Counters, Legs},
};

use crate::world::{World, bytes, exact, reason, seconds};

const MB: u64 = 1_000_000;

/// A, B and C opened; C is released unused; A carries the call and closes; B dangles and expires; D opens.
fn first_history(alive_while: AliveWhile) -> World {
    let mut w = World::new(Rules {
        alive_while,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1).open("bob", 2).open("bob", 3);
    w.at(1.0).ask_deletion("bob", 3);
    w.at(2.0).close("bob", 3, 0, 0);
    w.at(100.0).traffic("bob", 1, 2000, MB);
    w.at(200.0).close("bob", 1, 2000, MB);
    w.at(260.0).open("bob", 4);
    w.at(270.0).traffic("bob", 4, 500, MB);
    w.at(300.0).close("bob", 4, 500, MB);
    w.at(5000.0).advance();
    w
}

#[test]
fn h1_relaying_ends_with_the_call_and_parks_what_dangles() {
    let w = first_history(AliveWhile::Relaying);
    let (s1, s2) = (w.end(0), w.end(1));
    assert_eq!(w.ends().len(), 2, "{:#?}", w.told());
    assert_eq!(s1.allocations.len(), 3);
    assert_eq!(
        (seconds(s1.end.unwrap().ended_at), reason(s1), exact(s1)),
        (200.0, CloseReason::Closed, true)
    );
    assert_eq!(seconds(s1.timestamp), 205.0, "linger, and no waiting for B");
    assert_eq!(s1.usage.billable_bytes, 2 * MB);
    assert_eq!(s1.allocations[1].closed, None, "B is parked");
    // What B had carried when the first session ended was told in it: nothing is left over.
    assert_eq!((s2.allocations.len(), s2.usage.billable_bytes), (1, 2 * MB));
    assert_eq!(s2.continues, None);
    assert_eq!(w.reducer.open_allocations(), 0, "B has expired");
}

#[test]
fn h1_what_the_parked_one_carried_below_residue_is_told_after_a_day() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(100.0).traffic("bob", 1, 2000, MB);
    w.at(200.0).close("bob", 1, 2000, MB);
    w.at(300.0).traffic("bob", 2, 3, 300).close("bob", 2, 3, 300);
    w.at(86_699.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    w.at(86_701.0).advance();
    assert_eq!(w.peer_bytes_told(), MB + 300, "{:#?}", w.told());
    let rest = w.end(1);
    assert_eq!(rest.usage.legs.peer, bytes(3, 300));
    assert_eq!(rest.continues, Some(w.end(0).session_id));
    assert!(w.unattributed.is_empty() && exact(rest));
}

#[test]
fn h1_allocated_waits_until_the_dangling_one_expires() {
    let w = first_history(AliveWhile::Allocated);
    assert_eq!(w.ends().len(), 1, "D came while B was open: {:#?}", w.told());
    assert_eq!(w.end(0).allocations.len(), 4);
    assert_eq!(
        seconds(w.end(0).end.unwrap().ended_at),
        300.0,
        "the last close of one that relayed"
    );
    assert_eq!(seconds(w.end(0).timestamp), 660.0);
    assert!(!exact(w.end(0)), "B's totals were never heard");
}

#[test]
fn h2_a_reconnect_is_one_session() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(50.0).traffic("bob", 1, 2000, MB);
    w.at(100.0).close("bob", 1, 2000, MB);
    w.at(103.0).open("bob", 2);
    w.at(140.0).traffic("bob", 2, 2000, MB);
    w.at(200.0).close("bob", 2, 2000, MB);
    w.at(300.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert_eq!(w.end(0).usage.billable_bytes, 4 * MB);
    assert_eq!(seconds(w.end(0).started_at), 0.0);
    assert_eq!(seconds(w.end(0).end.unwrap().ended_at), 200.0);
    assert!(exact(w.end(0)));
}

#[test]
fn h3_a_quiet_call_is_told_later_to_the_byte() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(50.0).traffic("bob", 1, 2000, MB);
    w.at(200.0).close("bob", 1, 2000, MB);
    w.at(500.0).refresh("bob", 2);
    w.at(900.0)
        .traffic("bob", 2, 1500, 150_000)
        .deleted("bob", 2)
        .totals("bob", 2, 1500, 150_000);
    w.at(1000.0).advance();
    let (loud, quiet) = (w.end(0), w.end(1));
    assert_eq!(loud.usage.billable_bytes, 2 * MB);
    assert_eq!(quiet.continues, Some(loud.session_id));
    assert_eq!(seconds(quiet.started_at), 900.0);
    assert_eq!(quiet.usage.legs.peer, bytes(1500, 150_000));
    assert!(exact(loud) && exact(quiet));
    assert!(w.unattributed.is_empty());
}

#[test]
fn h4_late_totals_of_an_expired_allocation_are_told_once() {
    let mut w = World::new(Rules::default());
    let client = |n| Kind::TotalTraffic(Leg::Client, bytes(10, n));
    let peer = |n| Kind::TotalTraffic(Leg::Peer, bytes(10, n));
    w.at(0.0).open("bob", 1);
    w.at(10.0)
        .message("bob", 1, Kind::Traffic(Leg::Client, bytes(10, 100)));
    w.message("bob", 1, Kind::Traffic(Leg::Peer, bytes(10, 100)));
    w.at(5000.0).advance();
    assert_eq!((reason(w.end(0)), exact(w.end(0))), (CloseReason::Expired, false));
    assert_eq!(
        seconds(w.end(0).end.unwrap().ended_at),
        600.0,
        "when its lifetime ran out"
    );
    w.at(20_000.0)
        .message("bob", 1, client(500))
        .message("bob", 1, peer(500));
    w.at(20_010.0).advance();
    assert_eq!(w.ends().len(), 2, "{:#?}", w.told());
    assert_eq!(w.end(1).continues, Some(w.end(0).session_id));
    assert_eq!(w.end(1).usage.billable_bytes, 800);
    w.at(20_020.0)
        .message("bob", 1, client(500))
        .message("bob", 1, peer(500));
    w.at(90_000.0).advance();
    assert_eq!(w.ends().len(), 2, "{:#?}", w.told());
    assert_eq!(w.peer_bytes_told(), 500);
}

#[test]
fn h5_more_than_4_gib_each_way() {
    const TRUE: u64 = 4_938_123_828;
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    for i in 1..=4 {
        w.at(f64::from(i) * 100.0).traffic("bob", 1, 2048, TRUE / 4);
    }
    w.at(500.0).close("bob", 1, 4 * 2048, TRUE);
    w.at(600.0).advance();
    assert_eq!(w.end(0).usage.legs.peer.sent_bytes, TRUE);
    assert!(exact(w.end(0)));
}

#[test]
fn h5_the_same_with_deltas_missed() {
    const TRUE: u64 = 4_938_123_828;
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(100.0).traffic("bob", 1, 2048, TRUE / 4);
    w.at(500.0).close("bob", 1, 4 * 2048, TRUE);
    w.at(600.0).advance();
    assert_eq!(
        w.end(0).usage.legs.peer.sent_bytes,
        TRUE,
        "less than 4 GiB was missed"
    );
    assert!(exact(w.end(0)));

    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(500.0).close("bob", 1, 4 * 2048, TRUE);
    w.at(600.0).advance();
    assert_eq!(w.end(0).usage.legs.peer.sent_bytes, TRUE % (1 << 32));
    assert!(!exact(w.end(0)), "more than 4 GiB was missed, and that is said");
}

#[test]
fn h6_a_strangers_flood_is_not_billed() {
    let mut w = World::new(Rules::default());
    let flood = Counters {
        received_packets: 1000,
        received_bytes: 1_034_000,
        sent_packets: 0,
        sent_bytes: 0,
    };
    // Nobody but the client itself makes coturn send to it: its requests are answered.
    let client = Counters {
        received_packets: 4,
        received_bytes: 400,
        sent_packets: 4,
        sent_bytes: 380,
    };
    w.at(0.0).open("bob", 1);
    w.at(1.0)
        .message("bob", 1, Kind::Traffic(Leg::Client, client))
        .message("bob", 1, Kind::Traffic(Leg::Peer, flood));
    w.deleted("bob", 1);
    w.message("bob", 1, Kind::TotalTraffic(Leg::Client, client));
    w.message("bob", 1, Kind::TotalTraffic(Leg::Peer, flood));
    w.at(100.0).advance();
    assert_eq!(w.end(0).usage.billable_bytes, 0);
    assert!(exact(w.end(0)));
}

#[test]
fn h7_new_lost() {
    let mut w = World::new(Rules::default());
    w.at(0.0).refresh("bob", 1);
    w.at(100.0).close("bob", 1, 100, MB);
    w.at(200.0).advance();
    assert!(!w.end(0).allocations[0].opened_seen);
    assert!(exact(w.end(0)));
    assert_eq!(w.peer_bytes_told(), MB);
}

#[test]
fn h7_deleted_lost() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(100.0).totals("bob", 1, 100, MB);
    w.at(200.0).advance();
    assert!(exact(w.end(0)));
    assert_eq!((reason(w.end(0)), w.peer_bytes_told()), (CloseReason::Closed, MB));
}

#[test]
fn h7_client_totals_lost() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 50, 1000);
    w.at(100.0)
        .deleted("bob", 1)
        .message("bob", 1, Kind::TotalTraffic(Leg::Peer, bytes(100, MB)));
    w.at(200.0).advance();
    assert!(!exact(w.end(0)));
    assert_eq!(w.end(0).usage.legs.peer, bytes(100, MB));
}

#[test]
fn h7_peer_totals_lost() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 50, 1000);
    w.at(100.0)
        .deleted("bob", 1)
        .message("bob", 1, Kind::TotalTraffic(Leg::Client, bytes(100, MB)));
    w.at(200.0).advance();
    assert!(!exact(w.end(0)));
    assert_eq!(w.end(0).usage.legs.peer, bytes(50, 1000));
    assert_eq!(w.end(0).usage.legs.client, bytes(100, MB));
}

#[test]
fn h7_all_lost() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 50, 1000);
    w.at(1000.0).advance();
    assert_eq!((reason(w.end(0)), exact(w.end(0))), (CloseReason::Expired, false));
    assert_eq!(w.peer_bytes_told(), 1000);
}

#[test]
fn h8_a_clock_that_goes_back_makes_no_negative_duration() {
    let mut w = World::new(Rules::default());
    w.at(86_400.0).open("bob", 1);
    w.now -= 86_400_000; // the wall clock was put back a day
    w.traffic("bob", 1, 50, MB).close("bob", 1, 50, MB);
    w.at(86_500.0).advance();
    let end = w.end(0);
    assert!(end.end.unwrap().ended_at >= end.started_at);
    assert_eq!(w.peer_bytes_told(), MB);
}

#[test]
fn h8_nothing_expires_while_the_source_is_deaf() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 50, MB);
    w.reducer.deaf(Timestamp(w.now + 10_000));
    w.at(7200.0).advance();
    assert!(
        w.ends().is_empty(),
        "deaf for longer than a lifetime: {:#?}",
        w.told()
    );
    w.at(7300.0).hears();
    let gap = Gap {
        from: Timestamp(w.now - 7_290_000),
        to: Timestamp(w.now),
        reason: GapReason::Reconnect,
        server: None,
    };
    w.reducer.gap(Timestamp(w.now), &gap);
    w.at(7700.0).refresh("bob", 1);
    w.at(8000.0).close("bob", 1, 5000, 5 * MB);
    w.at(8100.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert!(exact(w.end(0)));
    assert_eq!(w.peer_bytes_told(), 5 * MB);
}

#[test]
fn h8_one_lifetime_after_hearing_again_silence_counts() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.reducer.deaf(Timestamp(w.now + 10_000));
    w.at(7300.0).hears();
    w.at(7300.0 + 659.0).advance();
    assert!(w.ends().is_empty());
    w.at(7300.0 + 661.0).advance();
    assert_eq!(reason(w.end(0)), CloseReason::Expired);
}

#[test]
fn h9_ice_checks_are_no_call() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2).open("bob", 3);
    w.at(200.0).traffic("bob", 1, 2000, MB);
    w.at(300.0)
        .traffic("bob", 1, 5, 500)
        .close("bob", 1, 2005, MB + 500);
    w.at(360.0).traffic("bob", 2, 5, 400).close("bob", 2, 5, 400);
    w.at(360.0).traffic("bob", 3, 5, 300).close("bob", 3, 5, 300);
    w.at(1000.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert_eq!(seconds(w.end(0).end.unwrap().ended_at), 300.0);
    assert!(exact(w.end(0)));
    w.at(90_000.0).advance();
    assert_eq!(w.peer_bytes_told(), MB + 500 + 400 + 300);
}

#[test]
fn h9_checks_alone_wait_for_all_of_them() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(100.0).traffic("bob", 1, 5, 500).close("bob", 1, 5, 500);
    w.at(200.0).advance();
    assert!(
        w.ends().is_empty(),
        "a few hundred bytes are no call: {:#?}",
        w.told()
    );
    w.at(300.0).traffic("bob", 2, 2000, MB).close("bob", 2, 2000, MB);
    w.at(400.0).advance();
    assert_eq!(w.ends().len(), 1);
    assert_eq!(w.end(0).allocations.len(), 2);
}

/// Of the only report the client's half was lost, so that nothing is known to have gone on to the client, and the peers'
/// total comes late: it equals what was told, and yet says how much was relayed.
#[test]
fn h7_a_late_total_that_tells_no_more_says_what_was_relayed() {
    let mut w = World::new(Rules::default());
    let client = Counters {
        sent_packets: 45,
        sent_bytes: 40_180,
        ..Counters::default()
    };
    let peer = Counters {
        received_packets: 45,
        received_bytes: 40_000,
        ..Counters::default()
    };
    w.at(0.0).open("ann", 1);
    w.at(10.0).message("ann", 1, Kind::Traffic(Leg::Peer, peer));
    w.at(20.0)
        .deleted("ann", 1)
        .message("ann", 1, Kind::TotalTraffic(Leg::Client, client));
    w.at(30.0).advance();
    assert_eq!(w.end(0).usage.legs, Legs { client, peer });
    assert_eq!(w.end(0).usage.billable_bytes, 0);
    w.at(40.0)
        .message("ann", 1, Kind::TotalTraffic(Leg::Peer, peer))
        .message("ann", 1, Kind::TotalTraffic(Leg::Peer, peer));
    w.at(100.0).advance();
    let rest = w.end(1);
    assert_eq!(rest.continues, Some(w.end(0).session_id));
    assert_eq!(rest.usage.legs, Legs::default());
    assert!(
        (39_000..=40_000).contains(&rest.usage.billable_bytes),
        "{rest:#?}"
    );
}
