//! Lives of one key, of which each node missed some.

use super::*;

#[test]
fn a_next_life_that_only_the_follower_heard() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(50.0).hear(B, 1, Kind::New(status(600, "127.0.0.1:50000")));
    c.traffic(B, 1, 2 * MB);
    c.at(60.0).takes_over(1).close(B, 1, 3 * MB);
    c.at(80.0).commit();
    assert_eq!(c.bytes_told(), 4 * MB, "{:#?}", c.told());
    let lives: Vec<_> = c.ends().iter().flat_map(|e| e.allocations.clone()).collect();
    assert_eq!(lives.len(), 2, "{:#?}", c.told());
    assert_eq!(
        lives[0].closed.unwrap().1,
        turnhook_reducer::event::CloseReason::ServerRestarted
    );
}

#[test]
fn a_next_life_that_the_follower_missed_is_not_mixed_with_the_one_it_knows() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, 5 * MB).commit();
    c.at(50.0).hear(A, 1, Kind::New(status(600, "127.0.0.1:50000")));
    c.at(55.0).traffic(BOTH, 1, MB).commit();
    c.at(70.0).takes_over(1);
    c.nodes[1].caught_up();
    c.close(B, 1, MB);
    c.at(90.0).commit();
    assert_eq!(c.bytes_told(), 6 * MB, "{:#?}", c.told());
}

#[test]
fn what_was_counted_of_a_shared_key_is_not_told_of_one_of_its_lives() {
    let mut c = Cluster::new();
    let mut other = status(600, "127.0.0.1:50000");
    other.local = Some(b"127.0.0.9:3478");
    c.at(1.0).open(A, 1).hear(A, 1, Kind::New(other));
    c.traffic(A, 1, MB).commit();
    // B missed the first of them, and reads the rest from its queue.
    c.at(9.0).hear(B, 1, Kind::New(other)).traffic(B, 1, MB);
    c.at(20.0).takes_over(1);
    c.at(2000.0).commit();
    assert_eq!(c.bytes_told(), MB, "{:#?}", c.told());
}

#[test]
fn what_a_follower_doubts_is_not_brought_in() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(2.0).hear(BOTH, 1, Kind::Deleted);
    // The next life; B misses its `new`, and may have counted some of it in the one before.
    c.at(20.0).hear(A, 1, Kind::New(status(600, "127.0.0.1:50000")));
    c.hear(BOTH, 1, Kind::Refreshed(status(600, "127.0.0.1:50000")));
    c.at(30.0).takes_over(1);
    c.at(2000.0).commit();
    assert_eq!(c.bytes_told(), MB, "{:#?}", c.told());
}

#[test]
fn traffic_that_a_follower_cannot_place_is_left_to_the_totals() {
    let mut c = Cluster::new();
    c.at(1.0).traffic(BOTH, 1, MB);
    c.at(10.0).takes_over(1).commit();
    assert_eq!((c.events.len(), c.nodes[1].kept_aside().1), (0, 0));
    c.refresh(B, 1);
    c.at(20.0).close(B, 1, MB);
    c.at(40.0).is_one_session(MB, true);
    assert!(c.unattributed.is_empty());
}

#[test]
fn traffic_of_a_life_that_a_follower_missed_is_not_counted_in_the_next() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(BOTH, 1, MB).commit();
    // The server is started anew. B hears of the next life only by its refresh.
    c.at(40.0).open(A, 1).refresh(BOTH, 1).commit();
    c.at(50.0).takes_over(1).close(B, 1, 0);
    c.at(90.0).commit();
    assert_eq!(c.bytes_told(), MB, "{:#?}", c.told());
}
