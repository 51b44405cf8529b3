//! What was said before a takeover, and is heard after it.

use turnhook_reducer::source::{Gap, GapReason};

use super::*;

#[test]
fn who_has_caught_up_counts_on_at_once() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1);
    c.at(10.0).traffic(A, 1, 3 * MB).commit().takes_over(1);
    c.nodes[1].caught_up();
    c.at(20.0).traffic(B, 1, MB).hear(B, 1, Kind::Deleted);
    c.at(40.0).is_one_session(4 * MB, false);
}

#[test]
fn late_totals_of_one_that_was_told_without_them() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(10.0).hear(A, 1, Kind::Deleted);
    c.at(20.0).commit().takes_over(1);
    // They wait in B's queue, after much that was told.
    c.at(21.0).traffic(B, 1, MB).refresh(B, 1).close(B, 1, 5 * MB);
    c.at(60.0).commit();
    assert_eq!(c.bytes_told(), 5 * MB, "{:#?}", c.told());
    assert_eq!(c.ends().len(), 2);
    c.totals(B, 1, 5 * MB).at(90.0).commit();
    assert_eq!(c.bytes_told(), 5 * MB, "told once: {:#?}", c.told());
}

#[test]
fn what_waited_in_the_queue_is_not_counted_twice() {
    for known in [false, true] {
        let mut c = Cluster::new();
        c.at(1.0).open(A, 1);
        if known {
            c.open(B, 1);
        }
        c.at(2.0).traffic(A, 1, MB).refresh(A, 1).commit();
        c.at(10.0).takes_over(1);
        // B's queue holds what A had committed, and 1 MB more.
        if !known {
            c.open(B, 1);
        }
        c.traffic(B, 1, MB).refresh(B, 1).traffic(B, 1, MB);
        c.at(20.0).hear(B, 1, Kind::Deleted);
        c.at(40.0).is_one_session(2 * MB, false);
    }
}

#[test]
fn a_whole_life_that_waited_in_the_queue_is_not_told_again() {
    for known in [false, true] {
        let mut c = Cluster::new();
        c.at(1.0).open(A, 1);
        if known {
            c.open(B, 1);
        }
        c.at(2.0).traffic(A, 1, MB).close(A, 1, MB);
        c.at(10.0).commit().takes_over(1);
        if !known {
            c.open(B, 1);
        }
        c.traffic(B, 1, MB).refresh(B, 1).close(B, 1, MB);
        c.at(60.0).is_one_session(MB, true);
    }
}

#[test]
fn a_refresh_that_waited_in_the_queue_opens_no_next_life_of_one_that_closes() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).refresh(A, 1).traffic(A, 1, MB);
    c.hear(A, 1, Kind::Deleted).commit();
    c.at(2.0).takes_over(1);
    c.open(B, 1).refresh(B, 1).traffic(B, 1, MB);
    c.hear(B, 1, Kind::Deleted);
    c.at(40.0).is_one_session(MB, false);
}

#[test]
fn a_new_leader_that_stood_still_reads_its_queue_as_if_no_time_had_passed() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(A, 1, MB).close(A, 1, MB);
    c.at(10.0).commit().takes_over(1);
    let (from, to) = (Timestamp(START + 11_000), Timestamp(START + 90_000));
    let (reason, server) = (GapReason::Stall, None);
    c.nodes[1].gap(
        from,
        &Gap {
            from,
            to,
            reason,
            server,
        },
    );
    c.at(90.0).open(B, 1).traffic(B, 1, MB).close(B, 1, MB);
    c.at(120.0).is_one_session(MB, true);
}

#[test]
fn a_whole_life_that_waited_through_two_takeovers_is_not_told_again() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(A, 1, MB).close(A, 1, MB).commit();
    c.at(2.0).takes_over(1).commit();
    c.hands_over(1).commit();
    c.open(B, 1).traffic(B, 1, MB).close(B, 1, MB);
    c.at(60.0).is_one_session(MB, true);
}
