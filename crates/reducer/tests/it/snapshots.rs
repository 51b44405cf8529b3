//! Snapshots of the status keys: what they open, and what they must not.

use turnhook_reducer::{
    event::CloseReason,
    message::{AllocationId, Status},
    rules::Rules,
    time::Timestamp,
};

use crate::world::{World, exact, reason, seconds};

const MB: u64 = 1_000_000;

/// One key, read in a snapshot of its own; whether it opened an allocation.
fn snapshot(w: &mut World, id: u64, idle_seconds: Option<u64>) -> bool {
    let status = w.status("127.0.0.1:40000", 600);
    snapshot_of(w, id, status, idle_seconds)
}

fn snapshot_of(w: &mut World, id: u64, status: Status<'_>, idle_seconds: Option<u64>) -> bool {
    let at = Timestamp(w.now);
    w.reducer.snapshot_began(at);
    let opened = w
        .reducer
        .snapshot_key(at, b"example.org", b"bob", AllocationId(id), status, idle_seconds);
    w.reducer.snapshot_ended(at);
    w.advance();
    opened
}

fn wants(w: &World, id: u64) -> bool {
    w.reducer.snapshot_wants(b"example.org", b"bob", AllocationId(id))
}

#[test]
fn a_key_opens_what_nobody_heard_open() {
    let mut w = World::new(Rules::default());
    w.at(100.0);
    assert!(snapshot(&mut w, 1, Some(30)));
    assert_eq!(w.reducer.open_allocations(), 1);
    w.at(200.0).close("bob", 1, 100, MB);
    w.at(300.0).advance();
    let end = w.end(0);
    assert_eq!(
        (seconds(end.started_at), exact(end)),
        (100.0, true),
        "when first heard of"
    );
    assert!(!end.allocations[0].opened_seen);
}

#[test]
fn a_new_confirms_what_a_snapshot_opened() {
    let mut w = World::new(Rules::default());
    w.at(100.0);
    assert!(snapshot(&mut w, 1, Some(0)));
    w.at(101.0).open("bob", 1); // it was on its way
    w.at(200.0).close("bob", 1, 100, MB);
    w.at(300.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert_eq!(w.end(0).allocations.len(), 1);
    assert!(w.end(0).allocations[0].opened_seen);
}

#[test]
fn a_snapshot_dates_what_it_opens_even_after_a_gap() {
    let mut w = World::new(Rules::default());
    w.at(100.0);
    assert!(snapshot(&mut w, 1, Some(500)));
    w.at(1000.0).advance();
    // Touched 500 s before; 600 s of lifetime and 60 s of grace from then.
    assert_eq!(reason(w.end(0)), CloseReason::Expired);
    assert_eq!(seconds(w.end(0).end.unwrap().ended_at), 200.0);
    assert_eq!(seconds(w.end(0).timestamp), 260.0);
}

#[test]
fn a_key_too_long_untouched_is_refused_and_reading_it_does_not_revive_it() {
    let mut w = World::new(Rules::default());
    w.at(1000.0);
    assert!(!snapshot(&mut w, 1, Some(700)));
    w.at(1100.0);
    assert!(!snapshot(&mut w, 1, Some(100)), "it was we who touched it last");
    w.crash().hears().at(1200.0);
    assert!(
        !snapshot(&mut w, 1, Some(100)),
        "and a restart does not forget that"
    );
    w.at(1300.0);
    assert!(snapshot(&mut w, 1, Some(20)), "coturn touched it since");
}

#[test]
fn a_key_without_an_idle_time_opens_nothing() {
    let mut w = World::new(Rules::default());
    w.at(100.0);
    assert!(!snapshot(&mut w, 1, None));
}

#[test]
fn a_key_whose_deletion_was_asked_for_opens_nothing() {
    let mut w = World::new(Rules::default());
    w.at(100.0);
    let status = w.status("127.0.0.1:40000", 0);
    assert!(!snapshot_of(&mut w, 1, status, Some(0)));
}

#[test]
fn only_unknown_keys_are_read_and_messages_since_its_beginning_win() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2);
    assert!(!wants(&w, 3), "no snapshot is under way");
    w.at(100.0);
    w.reducer.snapshot_began(Timestamp(w.now));
    assert!(!wants(&w, 1) && wants(&w, 3));
    w.at(101.0).close("bob", 2, 0, 0);
    assert!(!wants(&w, 2), "it ended while the keys were listed");
    w.reducer.snapshot_ended(Timestamp(w.now));
}

#[test]
fn a_key_shows_that_what_was_thought_expired_lives_on() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(1000.0).advance(); // its refreshes were not heard
    assert_eq!(w.ends().len(), 1);
    assert!(snapshot(&mut w, 1, Some(10)));
    w.at(1200.0).close("bob", 1, 300, 3 * MB);
    w.at(1300.0).advance();
    assert_eq!(w.peer_bytes_told(), 3 * MB);
    assert_eq!(w.end(1).continues, Some(w.end(0).session_id));
}

#[test]
fn a_missing_key_proves_nothing() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(10.0);
    w.reducer.snapshot_began(Timestamp(w.now));
    w.reducer.snapshot_ended(Timestamp(w.now));
    w.at(100.0).advance();
    assert_eq!(w.reducer.open_allocations(), 1);
}
