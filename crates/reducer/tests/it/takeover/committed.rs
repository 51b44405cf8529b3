//! What was committed, and what the follower heard besides.

use std::sync::Arc;

use super::*;
use crate::world::exact;
use turnhook_reducer::{
    block::Blocks,
    event::CloseReason,
    usage::{Counters, Legs},
};

#[test]
fn a_follower_tells_nothing() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(70.0).close(BOTH, 1, MB);
    c.at(80.0);
    assert!(c.nodes[1].is_following() && !c.nodes[0].is_following());
    assert!(!c.nodes[1].is_pending());
    let output = c.nodes[1].drain(true);
    assert_eq!((output.events.len(), output.changes.len()), (0, 0));
    c.is_one_session(MB, true);
}

#[test]
fn a_leader_dies_after_it_committed_a_part() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).commit();
    c.at(10.0).traffic(BOTH, 1, MB).commit();
    let started = c.events[0].session_id;
    // Heard by both, committed by nobody.
    c.at(20.0).traffic(BOTH, 1, MB);
    c.at(30.0).takes_over(1).traffic(B, 1, MB);
    c.at(40.0).close(B, 1, 3 * MB);
    c.at(60.0).is_one_session(3 * MB, true);
    assert_eq!(c.events[0].session_id, started);
}

#[test]
fn what_nobody_committed_is_told_by_the_next_leader() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(5.0).close(BOTH, 1, MB);
    c.at(20.0).takes_over(1);
    c.is_one_session(MB, true);
    assert!(c.events[0].allocations[0].opened_seen);
}

#[test]
fn a_follower_that_missed_messages_stands_still_and_never_runs_ahead() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1);
    c.at(10.0).traffic(A, 1, 3 * MB).commit();
    // B missed it, and hears the next 4 MB: 3 are told, then 4, of 7.
    c.at(61.5).commit().takes_over(1);
    let told = c.bytes_told();
    assert_eq!(told, 3 * MB);
    c.at(70.0).traffic(B, 1, 2 * MB);
    c.at(125.0).commit();
    assert_eq!(
        c.bytes_told(),
        3 * MB,
        "2 of its own are below the floor: {:#?}",
        c.told()
    );
    c.at(130.0).traffic(B, 1, 2 * MB);
    c.at(190.0).commit();
    assert_eq!(c.bytes_told(), 4 * MB, "{:#?}", c.told());
    c.at(200.0).close(B, 1, 7 * MB);
    c.at(220.0).is_one_session(7 * MB, true);
}

#[test]
fn a_leader_that_missed_messages_is_corrected() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(B, 1, 3 * MB).commit();
    c.at(10.0).takes_over(1).hear(B, 1, Kind::Deleted);
    c.at(30.0).is_one_session(3 * MB, false);
}

#[test]
fn a_closing_that_only_the_follower_heard() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(10.0).close(B, 1, MB);
    c.at(25.0).takes_over(1);
    c.is_one_session(MB, true);
    let (closed_at, _) = c.ends()[0].allocations[0].closed.unwrap();
    assert_eq!(closed_at, Timestamp(START + 10_000), "at its own time");
}

/// That its end was asked for is committed before it is said: whoever takes over knows whose doing it was, if it was said.
#[test]
fn an_end_that_the_leader_asked_for_and_did_not_live_to_hear_of() {
    for said in [true, false] {
        let mut c = Cluster::new();
        c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
        let mut blocks = Blocks::default();
        blocks.insert(None, b"bob", "balance".into());
        c.at(10.0);
        let leader = &mut c.nodes[0];
        leader.set_blocks(Timestamp(START + 10_000), Arc::new(blocks));
        leader.look_on(usize::MAX);
        let to_end = leader.take_to_end();
        assert!(!said || leader.ending(Timestamp(START + 10_000), &to_end[0], 2_000));
        c.commit();
        c.at(10.1).close(B, 1, MB);
        c.at(25.0).takes_over(1);
        c.is_one_session(MB, true);
        let end = c.ends()[0];
        let (reason, why) = if said {
            (CloseReason::Cancelled, Some("balance"))
        } else {
            (CloseReason::Closed, None)
        };
        assert_eq!(
            (end.end.unwrap().reason, end.block_reason.as_deref()),
            (reason, why)
        );
    }
}

#[test]
fn totals_that_only_the_follower_heard() {
    for (taken_at, sessions) in [(12.0, 1), (60.0, 2)] {
        let mut c = Cluster::new();
        c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
        c.at(10.0)
            .hear(BOTH, 1, Kind::Deleted)
            .totals(B, 1, 5 * MB)
            .commit();
        c.at(taken_at).commit().takes_over(1);
        c.at(100.0).commit();
        assert_eq!(c.ends().len(), sessions, "{:#?}", c.told());
        assert_eq!(c.bytes_told(), 5 * MB, "{:#?}", c.told());
        assert!(exact(c.ends()[sessions - 1]));
        assert_eq!(c.ends()[sessions - 1].continues.is_some(), sessions == 2);
    }
}

#[test]
fn what_ended_on_both_is_told_once() {
    for confirmed in [false, true] {
        let mut c = Cluster::new();
        c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
        c.at(10.0).close(BOTH, 1, MB);
        c.at(20.0).commit();
        assert_eq!(c.nodes[1].kept_ends(), 1);
        if confirmed {
            c.confirm(1);
            assert_eq!(c.nodes[1].kept_ends(), 0);
        }
        c.at(30.0).takes_over(1);
        c.is_one_session(MB, true);
    }
}

#[test]
fn an_end_that_was_not_committed_is_kept_until_it_is() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit().confirm(1);
    c.at(10.0).close(B, 1, MB);
    for seconds in [20.0, 40.0, 60.0, 80.0] {
        c.at(seconds).commit().confirm(1);
        assert_eq!(c.nodes[1].kept_ends(), 1, "the leader has it open");
    }
    c.at(90.0).takes_over(1);
    c.is_one_session(MB, true);
}

#[test]
fn what_was_told_and_forgotten_is_not_told_again() {
    for confirms in [true, false] {
        let mut c = Cluster::new();
        c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
        if confirms {
            c.confirm(1);
        }
        // B misses the end. The leader tells it, and its tombstone is gone a minute later.
        c.at(10.0).close(A, 1, MB);
        c.at(20.0).commit();
        c.at(100.0).open(BOTH, 2).commit();
        c.at(110.0).takes_over(1);
        c.at(120.0).commit();
        assert_eq!(c.ends().len(), 1, "confirms {confirms}: {:#?}", c.told());
        assert_eq!(c.bytes_told(), MB);
    }
}

#[test]
fn back_and_forth() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(10.0).traffic(BOTH, 1, MB); // not committed by A
    c.at(20.0).hands_over(1).commit().traffic(BOTH, 1, MB);
    c.at(30.0).commit().confirm(0).traffic(A, 1, MB); // B misses one
    c.at(40.0).hands_over(0).commit().traffic(BOTH, 1, MB);
    c.at(50.0).commit().hands_over(1).commit();
    c.at(60.0).close(BOTH, 1, 5 * MB);
    c.at(80.0).is_one_session(5 * MB, true);
}

#[test]
fn an_end_that_an_old_leader_did_not_commit_comes_back_with_it() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    // Only A hears the end, and loses its lease before it commits.
    c.at(10.0).close(A, 1, 2 * MB);
    c.at(20.0).hands_over(1).commit().confirm(0);
    assert_eq!(c.nodes[0].kept_ends(), 1);
    assert_eq!(c.ends().len(), 0);
    c.at(30.0).hands_over(0);
    c.is_one_session(2 * MB, true);
}

#[test]
fn a_follower_that_started_in_the_middle_counts_on_from_what_was_committed() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(A, 1, MB).commit();
    c.nodes[1] = c.started();
    c.at(10.0).traffic(BOTH, 1, MB);
    c.at(20.0).takes_over(1).hear(B, 1, Kind::Deleted);
    c.at(40.0).is_one_session(2 * MB, false);
}

#[test]
fn a_peer_leg_beyond_4_gib_is_unwrapped_from_what_was_told() {
    let mut c = Cluster::new();
    let n = (1 << 32) + 500 * MB;
    c.at(1.0).open(BOTH, 1);
    // Only A hears most of it; B's own count would unwrap to 500 MB.
    c.at(10.0);
    let most = n - 50 * MB;
    for _ in 0..100 {
        c.traffic(A, 1, most / 100);
    }
    c.traffic(A, 1, most % 100).commit();
    c.at(20.0).takes_over(1).close(B, 1, n);
    c.at(40.0).is_one_session(n, true);
}

#[test]
fn a_refresh_that_only_the_follower_heard_keeps_it_alive() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(550.0).refresh(B, 1);
    c.at(700.0).takes_over(1).commit();
    assert_eq!(c.ends().len(), 0, "{:#?}", c.told());
    c.at(800.0).close(B, 1, MB);
    c.at(820.0).is_one_session(MB, true);
}

/// Of one report the leader missed the client's half, and of the end the peers' total: what it told is right by the
/// counters, and nothing of it is known to have been relayed. A follower that heard both totals knows better.
#[test]
fn what_went_on_by_totals_that_only_the_follower_heard_is_told() {
    let mut c = Cluster::new();
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
    c.at(0.0).open(BOTH, 1);
    c.at(10.0).hear(BOTH, 1, Kind::Traffic(Leg::Peer, peer));
    c.at(20.0)
        .hear(BOTH, 1, Kind::Deleted)
        .hear(BOTH, 1, Kind::TotalTraffic(Leg::Client, client))
        .hear(B, 1, Kind::TotalTraffic(Leg::Peer, peer));
    c.at(26.0).commit();
    assert_eq!(c.ends().len(), 1, "{:#?}", c.told());
    c.confirm(1).at(30.0).takes_over(1);
    c.at(100.0).commit();
    let billed: u64 = c.events.iter().map(|e| e.usage_delta.billable_bytes).sum();
    assert!((39_000..=40_000).contains(&billed), "{billed}: {:#?}", c.told());
    let legs = c.events.iter().map(|e| e.usage_delta.legs);
    let legs = legs.fold(Legs::default(), |sum, legs| sum.plus(legs));
    assert_eq!(legs, Legs { client, peer }, "{:#?}", c.told());
}

/// The next life of a number looked like a copy of the last one's `new`, and the leader did not hear of it. Its totals are
/// told together, and not one of them beside one of the last life's.
#[test]
fn totals_of_a_next_life_that_only_the_follower_heard_belong_together() {
    let mut c = Cluster::new();
    let none = Counters::default();
    c.at(0.0).open(BOTH, 1);
    c.at(1.0)
        .hear(BOTH, 1, Kind::Deleted)
        .hear(BOTH, 1, Kind::TotalTraffic(Leg::Client, none))
        .hear(B, 1, Kind::TotalTraffic(Leg::Peer, none));
    c.at(7.0).commit();
    c.at(18.0).open(B, 1).close(B, 1, MB);
    c.at(30.0).takes_over(1);
    c.at(100.0).commit();
    let legs = c.events.iter().map(|e| e.usage_delta.legs);
    let legs = legs.fold(Legs::default(), |sum, legs| sum.plus(legs));
    let client = bytes(MB / 1000, MB + MB / 10);
    let peer = bytes(MB / 1000, MB);
    assert_eq!(legs, Legs { client, peer }, "{:#?}", c.told());
}
