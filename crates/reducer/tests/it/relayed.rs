//! Histories that must come out so: what counts as relayed.

use turnhook_reducer::{
    event::Accuracy,
    message::{Kind, Leg},
    rules::Rules,
    usage::{Billable, Legs},
};

use crate::{
    model::call::{Carried, Load, Size, Way, wrapped},
    world::World,
};

const WAYS: [Way; 4] = [Way::Channel, Way::IndicationV4, Way::IndicationV6, Way::TcpRelay];

/// Four requests, each of them answered: to allocate (twice), for a permission, to refresh.
const REQUESTS: Load = Load {
    up: Size::Nothing,
    down: Size::Nothing,
    strangers: Size::Nothing,
    dropped: Size::Nothing,
    junk: Size::Nothing,
    requests: 4,
    answer: 92,
};

fn carried(way: Way, loads: &[Load]) -> Carried {
    let mut carried = Carried::default();
    for load in loads {
        carried.add(way, load);
    }
    carried
}

impl World {
    /// It is deleted: its last report, and the totals, as coturn's counters of 32 bits have them.
    fn close_with(&mut self, user: &str, id: u64, reported: Legs, carried: &Carried) {
        let rest = carried.legs.minus(reported);
        let (client, peer) = (wrapped(rest.client), wrapped(rest.peer));
        let total = reported.plus(Legs { client, peer });
        self.message(user, id, Kind::Traffic(Leg::Client, client))
            .message(user, id, Kind::Traffic(Leg::Peer, peer))
            .deleted(user, id)
            .message(user, id, Kind::TotalTraffic(Leg::Client, total.client))
            .message(user, id, Kind::TotalTraffic(Leg::Peer, wrapped(total.peer)));
    }

    fn billed(&self) -> u64 {
        self.events.iter().map(|e| e.usage_delta.billable_bytes).sum()
    }

    fn recorded(&self) -> u64 {
        self.unattributed.iter().map(|u| u.usage.billable_bytes).sum()
    }
}

/// One allocation that carries these loads, in one report, or in several.
fn billed_for(way: Way, loads: &[Load], reports: bool) -> (u64, Carried) {
    let mut w = World::new(Rules::default());
    w.open("ann", 1);
    let (mut so_far, mut reported) = (Carried::default(), Legs::default());
    for (n, load) in loads.iter().enumerate() {
        so_far.add(way, load);
        if reports {
            let delta = so_far.legs.minus(reported);
            w.at(10.0 * (n + 1) as f64)
                .message("ann", 1, Kind::Traffic(Leg::Client, delta.client))
                .message("ann", 1, Kind::Traffic(Leg::Peer, delta.peer));
            reported = so_far.legs;
        }
    }
    w.at(300.0).close_with("ann", 1, reported, &so_far);
    w.at(100_000.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    assert_eq!(w.recorded(), 0);
    (w.billed(), so_far)
}

const CALL: Load = Load {
    up: Size::Call,
    down: Size::Call,
    ..REQUESTS
};
const DOWN: Load = Load {
    up: Size::Nothing,
    ..CALL
};
const UP: Load = Load {
    down: Size::Nothing,
    ..CALL
};

#[test]
fn h10_who_only_receives_relays_too() {
    for way in WAYS {
        for reports in [false, true] {
            for load in [CALL, UP, DOWN] {
                let (billed, carried) = billed_for(way, &[REQUESTS, load, load, load], reports);
                assert_eq!(
                    billed,
                    carried.up() + carried.down,
                    "{way:?} {load:?} reports: {reports}"
                );
            }
        }
    }
}

#[test]
fn h10_junk_sent_upwards_does_not_hide_a_download() {
    for way in WAYS {
        let junk = Load {
            junk: Size::Many,
            ..REQUESTS
        };
        let (billed, carried) = billed_for(way, &[REQUESTS, DOWN, DOWN, DOWN, junk], false);
        assert_eq!(billed, carried.down, "{way:?}");
    }
}

#[test]
fn h10_who_only_answers_requests_relays_nothing() {
    let stranger = Load {
        strangers: Size::Many,
        ..REQUESTS
    };
    for way in WAYS {
        for reports in [false, true] {
            let (billed, _) = billed_for(way, &[REQUESTS, stranger, REQUESTS], reports);
            assert_eq!(billed, 0, "{way:?}");
        }
    }
}

#[test]
fn h10_one_allocation_sends_and_another_receives() {
    for way in WAYS {
        let mut w = World::new(Rules::default());
        let (up, down) = (
            carried(way, &[REQUESTS, UP, UP]),
            carried(way, &[REQUESTS, DOWN, DOWN]),
        );
        w.open("ann", 1).open("ann", 2);
        w.at(60.0).close_with("ann", 1, Legs::default(), &up);
        w.close_with("ann", 2, Legs::default(), &down);
        w.at(100_000.0).advance();
        assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
        assert_eq!(w.billed(), up.up() + down.down, "{way:?}");
    }
}

#[test]
fn h10_beside_a_stranger_it_is_never_above_the_truth_and_little_below() {
    for way in WAYS {
        for load in [CALL, UP, DOWN] {
            for strangers in [Size::Many, Size::Giga] {
                let flood = Load {
                    strangers,
                    ..REQUESTS
                };
                let (billed, carried) = billed_for(way, &[REQUESTS, load, flood, load], false);
                let truth = carried.up() + carried.down;
                assert!(
                    (truth - carried.down.min(carried.doubt())..=truth).contains(&billed),
                    "{way:?} {load:?}: {billed} of {truth}"
                );
            }
        }
    }
}

/// In one life as in several reports: it is `lower_bound` where framing could make more than `residue`.
#[test]
fn h10_what_strangers_make_doubtful_is_a_lower_bound() {
    let mut w = World::new(Rules::default());
    let flood = Load {
        strangers: Size::Many,
        ..REQUESTS
    };
    let download = Load {
        down: Size::Many,
        ..DOWN
    };
    let carried = carried(Way::Channel, &[REQUESTS, download, flood, download]);
    assert!(carried.legs.client.sent_packets * 36 > w.rules.residue);
    assert!(carried.legs.peer.received_packets < 65_536, "nothing can wrap");
    w.open("ann", 1);
    w.at(300.0).close_with("ann", 1, Legs::default(), &carried);
    w.at(100_000.0).advance();
    assert_eq!(w.end(0).end.unwrap().accuracy, Accuracy::LowerBound);
    assert!(w.end(0).allocations[0].totals_seen);
}

/// The client's half of a download and the peer's half of a stranger's flood, each without its other one: what came from
/// peers less the most that can have been dropped is more than the client was sent.
#[test]
fn h10_halves_of_two_reports_are_not_billed_above_what_the_client_was_sent() {
    let download = Load {
        down: Size::Many,
        ..Load::default()
    };
    let flood = Load {
        strangers: Size::Giga,
        ..Load::default()
    };
    let (first, second) = (
        carried(Way::TcpRelay, &[download, download]),
        carried(Way::TcpRelay, &[flood]),
    );
    let all = carried(Way::TcpRelay, &[download, download, flood]);
    let mut w = World::new(Rules::default());
    w.open("ann", 1)
        .message("ann", 1, Kind::Traffic(Leg::Client, first.legs.client))
        .message("ann", 1, Kind::Traffic(Leg::Peer, second.legs.peer));
    w.close_with("ann", 1, all.legs, &all);
    w.at(100_000.0).advance();
    assert!(w.billed() > 0 && w.billed() <= all.down, "{}", w.billed());
}

/// Two packets come between two looks, so that no report is made before the end, and counters of 32 bits wrap.
#[test]
fn h11_a_tcp_relay_with_an_odd_packet_is_a_lower_bound() {
    for (up, down) in [
        (Size::Wrap, Size::Nothing),
        (Size::Nothing, Size::Wrap),
        (Size::Wrap, Size::Wrap),
    ] {
        for billable in [Billable::Relayed, Billable::Client] {
            let mut w = World::new(Rules {
                billable,
                ..Rules::default()
            });
            let load = Load { up, down, ..REQUESTS };
            let all = carried(Way::TcpRelay, &[REQUESTS, load]);
            w.open("ann", 1);
            w.at(300.0).close_with("ann", 1, Legs::default(), &all);
            w.at(100_000.0).advance();
            let end = w.end(0);
            assert_eq!(end.end.unwrap().accuracy, Accuracy::LowerBound, "{up:?} {down:?}");
            assert_eq!(
                end.usage.legs,
                Legs {
                    client: wrapped(all.legs.client),
                    peer: wrapped(all.legs.peer)
                },
                "what can be known is told"
            );
            assert!(end.usage.billable_bytes > 0 && end.allocations[0].totals_seen);
        }
    }
}

/// A report of so few packets cannot have wrapped, however many bytes they held.
#[test]
fn h11_reports_in_time_are_exact_above_4_gib() {
    let mut w = World::new(Rules::default());
    let load = Load {
        up: Size::Giga,
        down: Size::Giga,
        ..Load::default()
    };
    w.open("ann", 1);
    let (mut all, mut reported) = (Carried::default(), Legs::default());
    for n in 1..=3 {
        all.add(Way::Channel, &load);
        let delta = all.legs.minus(reported);
        w.at(100.0 * f64::from(n))
            .message("ann", 1, Kind::Traffic(Leg::Client, delta.client))
            .message("ann", 1, Kind::Traffic(Leg::Peer, delta.peer));
        reported = all.legs;
    }
    w.close_with("ann", 1, reported, &all);
    w.at(100_000.0).advance();
    assert_eq!(w.end(0).usage.legs, all.legs);
    assert_eq!(w.end(0).end.unwrap().accuracy, Accuracy::Exact);
}

/// Each of a thousand parked allocations carries a little less than `residue`: nobody relays for nothing.
#[test]
fn h13_many_small_parts_are_told_in_the_end() {
    const PARTS: u64 = 1000;
    const BYTES: u64 = 64 * 1024 - 4;
    let mut w = World::new(Rules::default());
    for id in 1..=PARTS + 1 {
        w.open("ann", id);
    }
    w.at(10.0).traffic("ann", 1, 1000, 1_000_000);
    w.at(20.0).close("ann", 1, 1000, 1_000_000);
    w.at(500.0);
    for id in 2..=PARTS + 1 {
        w.refresh("ann", id);
    }
    for id in 2..=PARTS + 1 {
        w.at(500.0 + 0.1 * id as f64)
            .traffic("ann", id, 50, BYTES / 2)
            .close("ann", id, 50, BYTES / 2);
    }
    w.at(700.0).advance();
    let waits = 2_000_000 + PARTS * BYTES - w.billed();
    assert!(waits < w.rules.residue, "{waits} bytes wait for more");
    w.at(500.0 + 25.0 * 3600.0).advance();
    let small: u64 = w.events.iter().map(|e| e.usage_delta.billable_bytes).sum();
    assert_eq!(small, 2_000_000 + PARTS * BYTES);
    assert!(w.unattributed.is_empty(), "{:#?}", w.unattributed);
    let ends = w.ends();
    assert!(
        ends[1..].iter().all(|end| end.continues.is_some()),
        "a rest corrects the session before it"
    );
}

/// What stays below `residue` waits for a day at most.
#[test]
fn h13_one_small_part_is_told_after_a_day() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).open("ann", 2);
    w.at(10.0).traffic("ann", 1, 1000, 1_000_000);
    w.at(20.0).close("ann", 1, 1000, 1_000_000);
    w.at(100.0).traffic("ann", 2, 3, 300).close("ann", 2, 3, 300);
    w.at(3600.0).advance();
    assert_eq!((w.billed(), w.recorded()), (2_000_000, 0), "it waits");
    w.at(100.0 + 24.5 * 3600.0).advance();
    assert_eq!((w.billed(), w.recorded()), (2_000_600, 0));
    assert_eq!(w.end(1).continues, Some(w.end(0).session_id));
    assert_eq!(w.reducer.next_deadline(), None);
}

/// It is told in the group's next session, if there is one before.
#[test]
fn h13_a_small_part_is_told_in_the_next_session() {
    let mut w = World::new(Rules::default());
    w.open("ann", 1).open("ann", 2);
    w.at(10.0).traffic("ann", 1, 1000, 1_000_000);
    w.at(20.0).close("ann", 1, 1000, 1_000_000);
    w.at(100.0).traffic("ann", 2, 3, 300).close("ann", 2, 3, 300);
    w.at(200.0).crash().hears();
    w.at(3600.0).open("ann", 3).traffic("ann", 3, 1000, 1_000_000);
    w.at(3700.0).close("ann", 3, 1000, 1_000_000);
    w.at(4000.0).advance();
    assert_eq!((w.billed(), w.recorded()), (4_000_600, 0));
    assert_eq!(w.ends().len(), 2, "{:#?}", w.told());
    w.at(100_000.0).advance();
    assert_eq!(w.ends().len(), 2, "and not once more");
}
