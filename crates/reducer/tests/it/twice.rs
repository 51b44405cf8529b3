//! Histories that must come out so: two lives of one number, and one that is heard twice.

use turnhook_reducer::{
    message::{Kind, Leg, Status},
    rules::{PeerLeg, Rules, StartOn},
    source::{Gap, GapReason},
    time::Timestamp,
    usage::{Counters, Legs},
};

use crate::{
    model::call::{Carried, Load, Size, Way},
    world::{START, World, bytes, exact},
};

impl World {
    fn report(&mut self, id: u64, legs: Legs) {
        self.message("ann", id, Kind::Traffic(Leg::Client, legs.client))
            .message("ann", id, Kind::Traffic(Leg::Peer, legs.peer));
    }

    fn close_of(&mut self, id: u64, legs: Legs) {
        self.deleted("ann", id)
            .message("ann", id, Kind::TotalTraffic(Leg::Client, legs.client))
            .message("ann", id, Kind::TotalTraffic(Leg::Peer, legs.peer));
    }

    fn billed_in_all(&self) -> u64 {
        let told: u64 = self.events.iter().map(|e| e.usage_delta.billable_bytes).sum();
        let recorded: u64 = self.unattributed.iter().map(|u| u.usage.billable_bytes).sum();
        told + recorded
    }
}

fn from(remote: Option<&'static str>) -> Status<'static> {
    Status {
        lifetime: 600,
        local: remote.map(|_| &b"203.0.113.9:3478"[..]),
        remote: remote.map(str::as_bytes),
        ..Status::default()
    }
}

/// Its client went to another address (RFC 8016), and then what was said while it was at the first comes once more, before
/// and after the end: that is neither another life nor more of this one.
#[test]
fn copies_from_where_the_client_was_before_carry_nothing() {
    let [first, second] = [Some("192.0.2.1:1"), Some("192.0.2.1:2")].map(from);
    for copies in [
        vec![Kind::Refreshed(first)],
        vec![Kind::New(first)],
        vec![Kind::New(first), Kind::Refreshed(first)],
        vec![Kind::Refreshed(first), Kind::Refreshed(second)],
    ] {
        for closed_before in ["not", "without its peers' total", "whole"] {
            // Of an open one whose client has moved, what was counted twice stands, as a lower bound.
            if closed_before == "not" && !matches!(copies[0], Kind::New(_)) {
                continue;
            }
            let mut w = World::new(Rules::default());
            w.at(0.0)
                .message("ann", 1, Kind::New(first))
                .message("ann", 1, Kind::Refreshed(first))
                .report(1, legs(1));
            w.message("ann", 1, Kind::Refreshed(second));
            let total = legs(1);
            let close = |w: &mut World, peer: bool| {
                w.deleted("ann", 1)
                    .message("ann", 1, Kind::TotalTraffic(Leg::Client, total.client));
                if peer {
                    w.message("ann", 1, Kind::TotalTraffic(Leg::Peer, total.peer));
                }
            };
            if closed_before != "not" {
                close(&mut w, closed_before == "whole");
            }
            w.at(0.04);
            for kind in &copies {
                w.message("ann", 1, *kind);
            }
            w.report(1, legs(1));
            close(&mut w, true);
            w.at(2000.0).advance();
            let told = w.events.iter().map(|e| e.usage_delta.legs);
            let told = told.fold(Legs::default(), |sum, legs| sum.plus(legs));
            assert_eq!(
                w.billed_in_all(),
                2 * HALF,
                "{copies:?}, closed {closed_before}: {:#?}",
                w.told()
            );
            assert_eq!(
                told,
                legs(1),
                "{copies:?}, closed {closed_before}: {:#?}",
                w.told()
            );
        }
    }
}

/// Its totals were heard and told, and then a report and a refresh come once more: that it lives on may be, but not that
/// it carried more.
#[test]
fn copies_after_the_totals_carry_nothing() {
    let mut w = World::new(Rules::default());
    let call = bytes(100, 10_000);
    let legs = Legs {
        client: call,
        peer: call,
    };
    let status = from(Some("192.0.2.1:1"));
    w.at(0.0)
        .message("ann", 2, Kind::New(status))
        .message("ann", 1, Kind::New(status))
        .report(1, legs);
    w.message("ann", 1, Kind::Refreshed(status)).close_of(1, legs);
    w.at(50.0).report(1, legs);
    w.message("ann", 1, Kind::Refreshed(status));
    w.at(2000.0).advance();
    assert_eq!(w.billed_in_all(), 20_000, "{:#?}", w.told());
}

/// coturn was started again, and then the total of the life before comes once more: the next has carried nothing yet.
#[test]
fn a_copy_of_a_total_is_not_the_next_lifes() {
    for leg in [Leg::Client, Leg::Peer] {
        for crash in [false, true] {
            let mut w = World::new(Rules::default());
            let first = legs(1);
            w.at(0.0)
                .message("ann", 1, Kind::New(from(Some("192.0.2.1:1"))))
                .report(1, first);
            w.close_of(1, first);
            w.at(1.0).message("ann", 1, Kind::New(from(Some("192.0.2.1:2"))));
            if crash {
                w.crash().hears();
            }
            let copy = match leg {
                Leg::Client => first.client,
                Leg::Peer => first.peer,
            };
            w.at(20.0).message("ann", 1, Kind::TotalTraffic(leg, copy));
            w.at(30.0).report(1, legs(3));
            w.close_of(1, legs(3));
            w.at(1000.0).advance();
            let told = w.events.iter().map(|e| e.usage_delta.legs);
            let told = told.fold(Legs::default(), |sum, legs| sum.plus(legs));
            assert_eq!(told, first.plus(legs(3)), "{leg:?}: {:#?}", w.told());
            assert_eq!(w.billed_in_all(), 8 * HALF);
        }
    }
}

/// The same where coturn was started twice since, and nothing was carried in between.
#[test]
fn a_copy_of_a_total_is_known_over_two_restarts() {
    for crash in [false, true] {
        let mut w = World::new(Rules::default());
        let first = legs(1);
        w.at(0.0)
            .message("ann", 1, Kind::New(from(Some("192.0.2.1:1"))))
            .report(1, first);
        w.close_of(1, first);
        w.at(1.0).message("ann", 1, Kind::New(from(Some("192.0.2.1:2"))));
        w.at(2.0).message("ann", 1, Kind::New(from(Some("192.0.2.1:3"))));
        if crash {
            w.crash().hears();
        }
        w.at(20.0)
            .message("ann", 1, Kind::TotalTraffic(Leg::Client, first.client))
            .message("ann", 1, Kind::TotalTraffic(Leg::Peer, first.peer));
        w.at(30.0).close_of(1, legs(0));
        w.at(1000.0).advance();
        let told = w.events.iter().map(|e| e.usage_delta.legs);
        let told = told.fold(Legs::default(), |sum, legs| sum.plus(legs));
        assert_eq!(told, first, "{:#?}", w.told());
        assert_eq!(w.billed_in_all(), 2 * HALF);
    }
}

/// turnhook lost the `new` by a crash, and its copy comes after other messages: that is the same life.
#[test]
fn a_copy_of_a_new_that_was_not_heard_opens_no_other_life() {
    let mut w = World::new(Rules::default());
    let status = from(Some("192.0.2.1:1"));
    w.at(0.0)
        .message("ann", 1, Kind::Refreshed(status))
        .report(1, legs(1));
    w.at(0.04).message("ann", 1, Kind::New(status));
    w.at(100.0).close_of(1, legs(1));
    w.at(1000.0).advance();
    assert_eq!(w.billed_in_all(), 2 * HALF, "{:#?}", w.told());
}

/// It becomes known that there is no peer leg, and a session starts with that: what came twice of another of its
/// allocations, whose total is known, is not told with it.
#[test]
fn what_came_twice_is_set_right_before_a_session_starts() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        peer_leg: PeerLeg::Auto,
        ..Rules::default()
    });
    let one = bytes(1, 108);
    w.at(0.0).open("ann", 7).open("bob", 1).open("ann", 2);
    w.message("ann", 7, Kind::Traffic(Leg::Client, one))
        .message("ann", 7, Kind::Traffic(Leg::Client, one))
        .message("ann", 2, Kind::Traffic(Leg::Client, one));
    for (user, id, total) in [("ann", 2, one), ("ann", 7, one), ("bob", 1, Counters::default())] {
        w.deleted(user, id)
            .message(user, id, Kind::TotalTraffic(Leg::Client, total));
    }
    w.at(100.0).advance();
    let told: u64 = w
        .events
        .iter()
        .map(|e| e.usage_delta.legs.client.received_bytes)
        .sum();
    assert_eq!(told, 2 * 108, "{:#?}", w.told());
}

/// A `new` that may be a copy and is none: the client's total of the life before is not that of the next, of which only the
/// peers' total is heard.
#[test]
fn totals_of_two_lives_are_not_exact_together() {
    let mut w = World::new(Rules::default());
    let status = from(Some("192.0.2.1:1"));
    w.at(0.0).message("ann", 1, Kind::New(status));
    w.deleted("ann", 1)
        .message("ann", 1, Kind::TotalTraffic(Leg::Client, Counters::default()));
    w.at(18.0).message("ann", 1, Kind::New(status));
    w.at(20.0)
        .message("ann", 1, Kind::TotalTraffic(Leg::Peer, legs(1).peer));
    w.at(1000.0).advance();
    assert!(w.ends().iter().all(|end| !exact(end)), "{:#?}", w.told());
}

/// Without tombstones nothing was known of the life before, and a copy of its `new` had all of it told again. The table
/// keeps one at least.
#[test]
fn a_copy_of_a_new_is_known_however_few_tombstones_are_kept() {
    let mut w = World::new(Rules {
        tombstone_limit: 0,
        ..Rules::default()
    });
    let call = bytes(100, 10_000);
    let legs = Legs {
        client: call,
        peer: call,
    };
    let status = from(Some("192.0.2.1:1"));
    w.at(0.0).message("ann", 1, Kind::New(status)).report(1, legs);
    w.at(0.04).message("ann", 1, Kind::New(status));
    w.at(100.0).close_of(1, legs);
    w.at(200.0).advance();
    assert_eq!(w.billed_in_all(), 20_000, "{:#?}", w.told());
}

/// The first is flooded and killed, of the second `new` is lost: in whatever order the rest is heard, nobody is
/// billed for what the stranger sent.
#[test]
fn h14_two_lives_are_never_above_the_truth_of_both() {
    let of = |loads: &[Load]| {
        let mut carried = Carried::default();
        for load in loads {
            carried.add(Way::Channel, load);
        }
        carried
    };
    let flood = Load {
        strangers: Size::Many,
        ..Load::call(Size::Call, Size::Call, Size::Nothing)
    };
    let call = Load {
        answer: 500,
        ..Load::call(Size::Call, Size::Call, Size::Nothing)
    };
    let (first, second) = (of(&[flood]), of(&[call, call]));
    let truth = first.up() + first.down + second.up() + second.down;
    let remotes = [None, Some("198.51.100.7:4001"), Some("198.51.100.7:4002")];
    for remote in remotes {
        for silence in [10.0, 300.0, 2000.0] {
            for new_heard in [true, false] {
                for traffic_first in [false, true] {
                    let mut w = World::new(Rules::default());
                    let before = remotes[1].filter(|_| remote.is_some());
                    if new_heard {
                        w.message("ann", 1, Kind::New(from(before)));
                    }
                    w.at(5.0).report(1, first.legs);
                    w.at(5.0 + silence);
                    // Of the second life nothing tells it from the first before its status.
                    let undecided = traffic_first && (new_heard && silence < 600.0);
                    if traffic_first {
                        w.report(1, of(&[call]).legs);
                        w.message("ann", 1, Kind::Refreshed(from(remote)));
                    } else {
                        w.message("ann", 1, Kind::Refreshed(from(remote)));
                        w.report(1, of(&[call]).legs);
                    }
                    w.at(50.0 + silence).report(1, of(&[call]).legs);
                    w.close_of(1, second.legs);
                    w.at(200_000.0).advance();
                    let billed = w.billed_in_all();
                    let slack = if undecided || remote.is_none() || remote == before {
                        // As one life they look so: what the client was sent, and peers sent, of both.
                        4 * 340 + 92 + 500 * 2 + 4 * 170
                    } else {
                        0
                    };
                    assert!(
                        billed <= truth + slack,
                        "{remote:?} after {silence} s, new: {new_heard}, traffic first: {traffic_first}: \
                         {billed} of {truth}: {:#?} {:#?}",
                        w.told(),
                        w.ends()
                    );
                }
            }
        }
    }
}

const HALF: u64 = 100_000;

fn legs(times: u64) -> Legs {
    Legs {
        client: bytes(100 * times, 101_000 * times),
        peer: bytes(100 * times, HALF * times),
    }
}

/// Every message of an allocation twice; the copy comes so many seconds later.
fn heard_twice(copy: f64, gap: bool, usage_interval: u64) -> World {
    let mut w = World::new(Rules {
        usage_interval,
        ..Rules::default()
    });
    let status = from(Some("198.51.100.7:4001"));
    let total = legs(2);
    let said: [(f64, Kind<'_>); 8] = [
        (0.0, Kind::New(status)),
        (8.0, Kind::Traffic(Leg::Client, legs(1).client)),
        (8.0, Kind::Traffic(Leg::Peer, legs(1).peer)),
        (100.0, Kind::Traffic(Leg::Client, legs(1).client)),
        (100.0, Kind::Traffic(Leg::Peer, legs(1).peer)),
        (101.0, Kind::Deleted),
        (101.0, Kind::TotalTraffic(Leg::Client, total.client)),
        (101.0, Kind::TotalTraffic(Leg::Peer, total.peer)),
    ];
    let mut heard: Vec<(f64, usize, Kind<'_>)> = Vec::new();
    for (n, (at, kind)) in said.into_iter().enumerate() {
        heard.push((at, 2 * n, kind));
        heard.push((at + copy, 2 * n + 1, kind));
    }
    if copy > 0.0 {
        heard.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    }
    for (at, n, kind) in heard {
        w.at(at);
        if gap && n == 6 {
            let gap = Gap {
                from: Timestamp(START + 90_000),
                to: Timestamp(w.now),
                reason: GapReason::Reconnect,
                server: None,
            };
            w.reducer.gap(Timestamp(w.now), &gap);
        }
        w.message("ann", 1, kind);
    }
    w.at(200_000.0).advance();
    w
}

#[test]
fn h15_every_message_twice_is_one_life_and_told_once() {
    for copy in [0.0, 0.04, 1.0] {
        let w = heard_twice(copy, false, 0);
        assert_eq!(w.ends().len(), 1, "copies after {copy} s: {:#?}", w.told());
        assert_eq!(w.end(0).usage.legs, legs(2), "copies after {copy} s");
        assert_eq!(w.billed_in_all(), 4 * HALF);
    }
}

/// The copies of a life that is over are not another life.
#[test]
fn h15_copies_that_come_late_are_not_told_again() {
    for copy in [7.0, 20.0, 50.0] {
        let w = heard_twice(copy, false, 0);
        assert!(
            w.billed_in_all() <= 4 * HALF,
            "copies after {copy} s: {:#?}",
            w.told()
        );
    }
}

/// With a gap they may be of two lives: what was counted stays, and is called a lower bound, if it is that.
#[test]
fn h15_after_a_gap_no_more_is_told_than_was_counted() {
    let w = heard_twice(0.0, true, 0);
    let counted = legs(4);
    assert!(w.billed_in_all() <= 8 * HALF, "{:#?}", w.told());
    assert!(
        w.ends()
            .iter()
            .all(|e| !e.usage.legs.client.exceeds(&counted.client))
    );
}

/// Some of it was told before the totals came: that cannot be taken back, and no more is told.
#[test]
fn h15_what_was_told_twice_is_kept_and_called_a_lower_bound() {
    let w = heard_twice(0.0, false, 60_000);
    // By the usage at 60 s twice as much as was true had been told, and by then it was all that there will be.
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert_eq!(w.billed_in_all(), 4 * HALF, "{:#?}", w.told());
    assert_eq!(w.end(0).usage.legs.client, legs(2).client);
}

/// `new, new, traffic, traffic` is one life.
#[test]
fn h15_a_new_that_comes_twice_opens_once() {
    let mut w = World::new(Rules::default());
    let status = from(Some("198.51.100.7:4001"));
    w.message("ann", 1, Kind::New(status))
        .message("ann", 1, Kind::New(status));
    w.at(8.0).report(1, legs(1));
    w.report(1, legs(1));
    w.at(9.0).close_of(1, legs(2));
    w.at(5000.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert_eq!(w.end(0).allocations.len(), 1);
    assert_eq!(w.end(0).usage.legs, legs(2));
    assert_ne!(w.end(0).usage.legs.client, Counters::default());
}
