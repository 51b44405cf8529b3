//! Lives of allocations beyond METERING.md's list, each history by its name. Most were found by the model.

use turnhook_reducer::{
    event::UnattributedReason,
    message::{Kind, Leg},
    rules::{Rules, StartOn},
    usage::Counters,
};

use crate::world::{World, bytes, exact};

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
    w.reducer.deaf(turnhook_reducer::time::Timestamp(w.now - 700_000));
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
