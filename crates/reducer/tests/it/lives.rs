//! Lives of allocations beyond those of `histories.rs`, each history by its name. Most were found by the model.

use turnhook_reducer::{
    event::{CloseReason, UnattributedReason},
    message::{Kind, Leg},
    rules::{Rules, StartOn},
    time::Timestamp,
};

use crate::world::{World, bytes, exact, reason, seconds};

const MB: u64 = 1_000_000;

#[test]
fn a_session_that_never_started_waits_for_totals_past_its_linger() {
    // `start_on = "relay"`, and totals may come later than linger: this once looped for ever.
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        linger: 1_000,
        totals_grace: 5_000,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1);
    w.at(10.0).deleted("bob", 1);
    w.at(14.0).totals("bob", 1, 1000, MB);
    w.at(100.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert_eq!(w.peer_bytes_told(), MB);

    w.at(200.0).open("bob", 2);
    w.at(210.0).deleted("bob", 2);
    w.at(300.0).advance();
    assert_eq!(w.ends().len(), 1, "nothing was relayed: {:#?}", w.told());
    assert_eq!(w.reducer.open_sessions(), 0);
}

#[test]
fn a_deadline_that_passed_while_turnhook_was_away_is_due_now() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(720.0);
    w.reducer.deaf(Timestamp(w.now - 700_000));
    w.advance().crash();
    assert!(w.reducer.next_deadline().unwrap() >= w.reducer.now());
}

#[test]
fn tombstones_make_room_when_they_expire_however_long_the_step() {
    let mut w = World::new(Rules {
        tombstone_limit: 1,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1).open("bob", 2).close("bob", 1, 0, 0);
    // One step of an hour: the first tombstone has expired before the second allocation does.
    w.at(3600.0).advance();
    assert_eq!(w.reducer.stats().tombstones_evicted, 0);
}

#[test]
fn allocations_that_expire_at_one_instant_are_all_counted() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(10.0).traffic("bob", 1, 100, MB);
    w.at(5000.0).advance();
    let end = w.end(0);
    assert_eq!(reason(end), CloseReason::Expired);
    let closed = end.allocations.iter().filter(|a| a.closed.is_some());
    assert_eq!(closed.count(), 2, "the idle one was not merely parked");
}

#[test]
fn a_repeated_new_is_no_second_life() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 1);
    w.at(10.0).close("bob", 1, 100, MB);
    w.at(100.0).advance();
    assert_eq!((w.end(0).allocations.len(), w.reducer.stats().repeats), (1, 1));
}

#[test]
fn a_new_from_elsewhere_or_after_other_messages_is_the_next_life() {
    for touched in [false, true] {
        let mut w = World::new(Rules::default());
        w.at(0.0).open("bob", 1);
        let mut remote = "127.0.0.1:50000";
        if touched {
            w.at(1.0).traffic("bob", 1, 1, 1000);
            remote = "127.0.0.1:40000";
        }
        let status = w.status(remote, 600);
        w.at(2.0).message("bob", 1, Kind::New(status));
        w.at(10.0).close("bob", 1, 100, MB);
        w.at(100.0).advance();
        let lives = &w.end(0).allocations;
        assert_eq!(lives.len(), 2, "{:#?}", w.told());
        assert_eq!(lives[0].closed.unwrap().1, CloseReason::ServerRestarted);
        assert!(lives[1].totals_seen && !exact(w.end(0)));
    }
}

#[test]
fn a_client_that_moves_keeps_its_allocation() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 1, 1000);
    let moved = w.status("192.0.2.9:50000", 600);
    w.at(100.0).message("bob", 1, Kind::Refreshed(moved));
    w.at(200.0).close("bob", 1, 100, MB);
    w.at(300.0).advance();
    let [only] = &w.end(0).allocations[..] else {
        panic!("one life: {:#?}", w.told())
    };
    assert_eq!(only.client_address.as_deref(), Some(&b"192.0.2.9:50000"[..]));
    assert!(exact(w.end(0)));
}

#[test]
fn one_that_comes_back_from_elsewhere_after_its_end_is_another_one() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(1000.0).advance();
    let elsewhere = w.status("192.0.2.9:50000", 600);
    w.at(1001.0).message("bob", 1, Kind::Refreshed(elsewhere));
    w.at(1100.0).close("bob", 1, 200, 2 * MB);
    w.at(1200.0).advance();
    assert_eq!(w.end(1).continues, None);
    // Whether the first MB was of the other already, whose `new` was not heard, nobody knows.
    assert_eq!((w.peer_bytes_told(), exact(w.end(1))), (2 * MB, false));
}

#[test]
fn deltas_of_a_next_life_whose_new_was_lost_are_told_once() {
    for deleted in [true, false] {
        let mut w = World::new(Rules::default());
        w.at(0.0).open("bob", 1).traffic("bob", 1, 10, 1000);
        // The server is restarted; the next life's `new` is lost, and its traffic told with the first one.
        w.at(120.0).traffic("bob", 1, 100, MB);
        w.at(660.5).advance();
        assert_eq!(w.peer_bytes_told(), MB + 1000);
        let elsewhere = w.status("192.0.2.9:50000", 600);
        w.at(661.0);
        if deleted {
            w.message("bob", 1, Kind::Refreshed(elsewhere))
                .close("bob", 1, 100, MB);
        } else {
            w.totals("bob", 1, 100, MB);
        }
        w.at(700.0).advance();
        assert_eq!(w.peer_bytes_told(), MB + 1000, "{:#?}", w.told());
        w.totals("bob", 1, 100, MB).at(90_000.0).advance();
        assert_eq!(w.peer_bytes_told(), MB + 1000, "told once: {:#?}", w.told());
    }
}

#[test]
fn what_was_heard_after_a_server_had_stopped_is_of_its_next_life() {
    let mut w = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    let (one, other) = (
        w.reducer.server(b"10.0.0.1/-/0"),
        w.reducer.server(b"10.0.0.1/-/1"),
    );
    w.server = one;
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.server = other;
    w.open("bob", 1);
    w.server = one;
    let closed_at = Timestamp(w.now + 10_000);
    w.at(11.0).refresh("bob", 2);
    w.at(12.0);
    w.reducer.server_restarted(Timestamp(w.now), one, closed_at);
    w.advance();
    assert_eq!(
        w.reducer.open_allocations(),
        2,
        "of the other server, and the one heard later"
    );
}

#[test]
fn of_allocations_that_settle_at_one_instant_the_first_opened_comes_first() {
    // Two wait for a total; the totals of one show that it relayed, and so start the session that the other
    // is then counted in, or not. After a restart that must not hang on places in memory.
    let history = |crash: bool| {
        let mut w = World::new(Rules {
            start_on: StartOn::Relay,
            ..Rules::default()
        });
        w.at(0.0).open("eve", 9).open("bob", 1).open("bob", 2);
        w.close("eve", 9, 0, 0);
        if crash {
            w.crash().hears();
        }
        w.open("bob", 3);
        w.at(100.0);
        for (id, packets) in [(1, 0), (2, 3), (3, 0)] {
            w.deleted("bob", id)
                .message("bob", id, Kind::TotalTraffic(Leg::Peer, bytes(packets, 300)));
        }
        w.at(200.0).advance();
        w.ends().iter().map(|e| e.allocations.len()).collect::<Vec<_>>()
    };
    assert_eq!((history(false), history(true)), (vec![2], vec![2]));
}

#[test]
fn allocations_of_a_server_that_stopped_are_all_counted() {
    let mut w = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    w.server = w.reducer.server(b"10.0.0.1/-/0");
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(200.0).traffic("bob", 1, 100, MB);
    let stopped_at = Timestamp(w.now);
    w.at(210.0);
    w.reducer.server_stopped(Timestamp(w.now), w.server, stopped_at);
    w.advance();
    let closed = w.end(0).allocations.iter().filter(|a| a.closed.is_some());
    assert_eq!(
        (reason(w.end(0)), closed.count()),
        (CloseReason::ServerStopped, 2)
    );
    assert_eq!(seconds(w.end(0).end.unwrap().ended_at), 200.0);
}

#[test]
fn forged_traffic_is_not_billed_to_the_next_life_of_a_server() {
    let mut w = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    w.server = w.reducer.server(b"10.0.0.1/-/0");
    w.at(0.0).traffic("bob", 1, 100, MB); // with a wrong password
    w.at(10.0);
    w.reducer
        .server_restarted(Timestamp(w.now), w.server, Timestamp(w.now));
    w.at(20.0).refresh("bob", 1); // the real one, under the same number; its `new` was lost
    w.at(30.0).close("bob", 1, 10, 1000);
    w.at(100.0).advance();
    assert_eq!((w.peer_bytes_told(), exact(w.end(0))), (1000, true));
}

#[test]
fn what_a_closed_allocation_carried_is_told_in_time_after_a_restart() {
    let rules = || Rules {
        linger: 120_000,
        ..Rules::default()
    };
    let history = |crash: bool| {
        let mut w = World::new(rules());
        w.at(0.0).open("bob", 1);
        w.at(30.0).close("bob", 1, 100, MB);
        if crash {
            w.crash().hears();
        }
        w.at(500.0).advance();
        w.told()
    };
    assert_eq!(history(true), history(false));
    assert!(
        history(true)[1].starts_with("60 session.usage"),
        "{:?}",
        history(true)
    );
}

#[test]
fn a_session_past_its_linger_is_not_joined_after_a_restart() {
    let mut w = World::new(Rules {
        totals_grace: 20_000,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1);
    w.at(1.0).deleted("bob", 1);
    w.at(7.0).advance();
    w.open("bob", 2).crash().hears().crash().hears();
    w.at(8.0).open("bob", 3);
    w.at(10.0).deleted("bob", 2).deleted("bob", 3);
    w.at(100.0).advance();
    let of: Vec<_> = w.ends().iter().map(|e| e.allocations.len()).collect();
    assert_eq!(of, [1, 2], "{:#?}", w.told());
}

#[test]
fn an_early_eviction_is_remembered_after_a_restart() {
    let mut w = World::new(Rules {
        tombstone_limit: 1,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB).open("eve", 2);
    w.at(1000.0).advance();
    assert_eq!(w.reducer.stats().tombstones_evicted, 1);
    w.crash().hears();
    // It was told as expired, and nobody remembers: what the totals say beyond deltas may be told already.
    w.at(1001.0).close("bob", 1, 200, 2 * MB);
    w.at(1100.0).advance();
    assert_eq!(w.peer_bytes_told(), MB);
    assert_eq!(w.unattributed.len(), 1);
    assert_eq!(w.unattributed[0].reason, UnattributedReason::Evicted);
}

#[test]
fn the_tombstone_that_goes_first_is_the_oldest_after_a_restart_too() {
    let mut w = World::new(Rules {
        tombstone_limit: 2,
        ..Rules::default()
    });
    // The place of one that has expired is taken by the newest.
    w.at(0.0).open("gone", 9).close("gone", 9, 0, 0);
    w.at(50.0).open("old", 1).close("old", 1, 100, MB);
    w.at(65.0).open("new", 2).close("new", 2, 100, MB);
    w.crash().hears();
    w.at(70.0).open("eve", 3).close("eve", 3, 0, 0);
    // The old one made room. The new one is still known: its totals are a repeat.
    w.totals("new", 2, 100, MB);
    assert_eq!(w.reducer.stats().repeats, 2);
    assert!(w.unattributed.is_empty());
}

#[test]
fn a_shared_key_is_not_silent_while_the_source_is_deaf() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    let mut other = w.status("127.0.0.1:50000", 600);
    other.local = Some(b"127.0.0.9:3478");
    w.at(10.0).message("bob", 1, Kind::New(other));
    assert_eq!(w.reducer.stats().shared_keys, 1);
    w.reducer.deaf(Timestamp(w.now));
    w.at(2000.0).hears();
    w.at(2600.0).advance();
    assert!(w.ends().is_empty(), "{:#?}", w.told());
    w.at(2700.0).advance();
    assert_eq!((reason(w.end(0)), exact(w.end(0))), (CloseReason::Expired, false));
}

#[test]
fn an_allocation_that_ended_untold_does_not_date_its_session_back() {
    // Its session would overlap the one that was told meanwhile.
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1);
    w.at(700.0).advance();
    assert!(w.told().is_empty(), "it never relayed: {:#?}", w.told());
    w.at(701.0).open("bob", 2).traffic("bob", 2, 100, MB);
    w.at(800.0).close("bob", 2, 100, MB);
    w.at(900.0).crash().hears();
    w.refresh("bob", 1).traffic("bob", 1, 100, MB);
    w.at(950.0).close("bob", 1, 100, MB);
    w.at(1100.0).advance();
    let starts: Vec<_> = w.events.iter().map(|e| seconds(e.started_at)).collect();
    assert_eq!(starts, [701.0, 701.0, 900.0, 900.0], "{:#?}", w.told());
    assert_eq!(w.end(1).continues, None);
    assert_eq!(w.peer_bytes_told(), 2 * MB);
}

#[test]
fn what_was_relayed_before_anybody_confirmed_it_starts_a_session() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        ..Rules::default()
    });
    w.at(0.0).traffic("bob", 1, 100, MB); // its `new` was lost
    w.at(10.0).refresh("bob", 1);
    assert_eq!(w.told().len(), 1, "{:#?}", w.told());
    w.at(20.0).close("bob", 1, 100, MB);
    w.at(100.0).advance();
    assert!(w.unattributed.is_empty());
    assert_eq!(w.peer_bytes_told(), MB);
}

#[test]
fn totals_of_another_life_are_not_told_on_top_of_an_overcount() {
    // The deltas of two allocations under one key were told together with the first one's end.
    let mut w = World::new(Rules::default());
    w.at(0.0).refresh("bob", 1);
    w.at(10.0)
        .traffic("bob", 1, 100, 1000)
        .traffic("bob", 1, 100, 1000);
    w.at(20.0).close("bob", 1, 100, 1000);
    w.at(30.0).advance();
    assert_eq!((w.peer_bytes_told(), w.reducer.stats().overcounted), (2000, 1));
    assert!(!exact(w.end(0)));
    w.at(200.0).close("bob", 1, 100, 1000);
    w.at(90_000.0).advance();
    assert_eq!(w.peer_bytes_told(), 2000, "{:#?}", w.told());
}

#[test]
fn totals_of_a_shared_key_are_not_told_on_top_of_its_deltas() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    let mut other = w.status("127.0.0.1:50000", 600);
    other.local = Some(b"127.0.0.9:3478");
    w.at(1.0).message("bob", 1, Kind::New(other));
    w.at(10.0)
        .traffic("bob", 1, 100, 1000)
        .traffic("bob", 1, 100, 1000);
    w.at(20.0).close("bob", 1, 100, 1000); // of one of them
    w.at(1000.0).advance();
    assert_eq!((reason(w.end(0)), exact(w.end(0))), (CloseReason::Expired, false));
    assert_eq!(w.peer_bytes_told(), 2000);
    w.at(2000.0).message("bob", 1, Kind::Refreshed(other)); // which comes from elsewhere
    w.at(2001.0).close("bob", 1, 100, 1000);
    w.at(3000.0).advance();
    assert_eq!(w.peer_bytes_told(), 2000, "{:#?}", w.told());
}

#[test]
fn no_two_lives_have_one_id_even_when_nothing_is_remembered() {
    let mut w = World::new(Rules {
        tombstone_limit: 1,
        ..Rules::default()
    });
    // One ends after the other, and the one that ended last is all that is remembered.
    let both = |w: &mut World| {
        for (user, id) in [("bob", 1), ("eve", 2)] {
            w.open(user, id).close(user, id, 0, 0).totals(user, id, 0, 0);
        }
    };
    both(w.at(0.0));
    both(w.crash().hears());
    w.at(100.0).advance();
    let mut ids: Vec<_> = w.events.iter().map(|e| e.id).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "{:#?}", w.told());
}

/// Of a life that ended without its totals, a total that says less is another life's: that has a session of its own, and
/// what was told stays. What of the next was told in the first, nobody knows.
#[test]
fn too_small_a_total_is_of_another_life() {
    for direct in [false, true] {
        let mut w = World::new(Rules {
            direct,
            ..Rules::default()
        });
        w.open("bob", 1).traffic("bob", 1, 1000, MB);
        w.at(1000.0).advance();
        w.at(1100.0).totals("bob", 1, 50, 50_000);
        w.at(5000.0).advance();
        let ends: Vec<_> = w.ends().iter().map(|e| (reason(e), exact(e))).collect();
        let expected = [(CloseReason::Expired, false), (CloseReason::Closed, false)];
        assert_eq!(ends, expected, "{:#?}", w.told());
        assert_eq!((w.peer_bytes_told(), w.end(1).continues), (MB, None));
    }
}

/// coturn looks once a second: what is reported later than 2 s after its client let it go was carried before that.
#[test]
fn the_end_of_one_that_its_client_let_go_is_two_seconds_later_at_most() {
    for (reported_at, ended_at) in [(11.0, 11.0), (12.0, 12.0), (40.0, 12.0)] {
        let mut w = World::new(Rules::default());
        w.at(0.0).open("bob", 1).traffic("bob", 1, 1000, MB);
        w.at(10.0).ask_deletion("bob", 1);
        w.at(reported_at).traffic("bob", 1, 1000, MB);
        w.at(61.0).close("bob", 1, 2000, 2 * MB);
        w.at(200.0).advance();
        let end = w.end(0).end.unwrap();
        assert!((seconds(end.ended_at) - ended_at).abs() < 1e-9, "{:#?}", w.told());
    }
}
