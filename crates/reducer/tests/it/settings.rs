//! What the settings do, each at its border.

use turnhook_reducer::{
    event::{EventType, UnattributedReason},
    message::{AllocationId, Kind, Leg},
    rules::{AliveWhile, GroupBy, RealmPatterns, Rules, StartOn, UserPattern},
    usage::Billable,
};

use crate::world::{World, bytes, exact, seconds};

const MB: u64 = 1_000_000;

#[test]
fn what_opens_exactly_when_linger_is_over_joins() {
    let ends = |seconds: f64| {
        let mut w = World::new(Rules::default());
        w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
        w.at(100.0).close("bob", 1, 100, MB);
        w.at(seconds).open("bob", 2);
        w.at(150.0).close("bob", 2, 100, MB);
        w.at(300.0).advance();
        w.ends().len()
    };
    assert_eq!((ends(105.0), ends(105.001)), (1, 2));
}

#[test]
fn the_end_waits_for_totals_that_come_after_linger() {
    let mut w = World::new(Rules {
        totals_grace: 20_000,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(100.0).deleted("bob", 1);
    w.at(110.0).open("bob", 2); // too late to join, though the end is not told
    assert_eq!(w.ends().len(), 0);
    w.at(115.0).totals("bob", 1, 200, 2 * MB);
    let end = w.end(0);
    assert_eq!(
        (end.allocations.len(), end.usage.legs.peer.sent_bytes),
        (1, 2 * MB)
    );
    assert_eq!((seconds(end.timestamp), exact(end)), (115.0, true));
}

#[test]
fn the_end_does_not_wait_longer_than_the_grace() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(100.0).deleted("bob", 1);
    w.at(200.0).advance();
    assert_eq!((seconds(w.end(0).timestamp), exact(w.end(0))), (105.0, false));
}

#[test]
fn usage_is_told_at_multiples_of_the_interval_and_only_where_there_was_traffic() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(70.0).traffic("bob", 1, 100, MB);
    w.at(100.0).traffic("bob", 1, 100, MB);
    w.at(400.0).traffic("bob", 1, 100, MB);
    w.at(420.0).advance();
    w.at(430.0).close("bob", 1, 300, 3 * MB);
    w.at(500.0).advance();
    let usage = w.events.iter().filter(|e| e.event_type == EventType::Usage);
    let usage: Vec<_> = usage
        .map(|e| (seconds(e.timestamp), e.usage_delta.legs.peer.sent_bytes))
        .collect();
    assert_eq!(usage, [(120.0, 2 * MB), (420.0, MB)]);
    assert!(w.end(0).usage_delta.is_zero(), "all was told before the end");
}

#[test]
fn no_usage_is_told_at_an_interval_of_zero() {
    let mut w = World::new(Rules {
        usage_interval: 0,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(590.0).close("bob", 1, 100, MB);
    w.at(700.0).advance();
    assert_eq!(w.events.len(), 2, "{:#?}", w.told());
}

#[test]
fn start_on_relay_tells_the_start_with_the_first_relayed_packet() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(10.0)
        .message("bob", 1, Kind::Traffic(Leg::Client, bytes(3, 300)));
    assert!(w.told().is_empty());
    w.at(20.0).close("bob", 2, 0, 0);
    w.at(30.0).traffic("bob", 1, 3, 300);
    assert_eq!(w.told().len(), 1, "{:#?}", w.told());
    let start = &w.events[0];
    assert_eq!((seconds(start.timestamp), seconds(start.started_at)), (30.0, 0.0));
    assert_eq!(start.allocations.len(), 1, "the one that is gone had not relayed");
    w.at(40.0).close("bob", 1, 100, MB);
    w.at(100.0).advance();
    assert_eq!(w.events.len(), 2);
}

#[test]
fn start_on_relay_records_what_never_relayed() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        billable: Billable::Client,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1);
    w.at(10.0).deleted("bob", 1);
    w.message("bob", 1, Kind::TotalTraffic(Leg::Client, bytes(3, 340)))
        .message("bob", 1, Kind::TotalTraffic(Leg::Peer, bytes(0, 0)));
    w.at(100.0).advance();
    assert!(w.told().is_empty());
    let record = &w.unattributed[0];
    assert_eq!(record.reason, UnattributedReason::NeverRelayed);
    assert_eq!(
        (record.usage.legs.client, record.usage.billable_bytes),
        (bytes(3, 340), 680)
    );
    assert_eq!(w.reducer.stats().unattributed_bytes, 680);
}

/// Two credentials of one user, and another user, at once.
fn groups(group_by: GroupBy) -> usize {
    let mut w = World::new(Rules {
        group_by,
        ..Rules::default()
    });
    w.at(0.0)
        .open("100000000:bob", 1)
        .open("200000000:bob", 2)
        .open("200000000:bob", 3)
        .open("200000000:eve", 4);
    w.reducer.open_sessions()
}

#[test]
fn group_by_decides_what_is_one_session() {
    assert_eq!(groups(GroupBy::User), 2);
    assert_eq!(groups(GroupBy::Username), 3);
    assert_eq!(groups(GroupBy::Allocation), 4);
}

#[test]
fn an_empty_user_is_no_group() {
    let mut w = World::new(Rules::default());
    w.at(0.0)
        .open("", 1)
        .open("", 2)
        .open("700000000:", 3)
        .open("700000000:", 4);
    assert_eq!(w.reducer.open_sessions(), 4);
    assert_eq!(w.events[3].user, None);
}

#[test]
fn labels_are_those_of_the_first_allocation() {
    let mut w = World::new(Rules {
        user_pattern: UserPattern::new(r"^(?P<tenant>\w+)/(?P<user>\w+)$").unwrap(),
        ..Rules::default()
    });
    w.at(0.0).open("acme/bob", 1).open("other/bob", 2);
    w.at(10.0).close("acme/bob", 1, 0, 0).close("other/bob", 2, 0, 0);
    w.at(100.0).advance();
    let end = w.end(0);
    assert_eq!(end.labels, [("tenant".into(), (*b"acme").into())]);
    assert_eq!(end.usernames.len(), 2);
    w.open("no user", 3);
    let start = w.events.last().unwrap();
    assert_eq!((&start.user, start.labels.len()), (&None, 0));
}

#[test]
fn fifty_allocations_are_listed_and_all_are_counted() {
    let mut w = World::new(Rules::default());
    w.at(0.0);
    for n in 1..=60 {
        w.open(&format!("{n:09}:bob"), n);
    }
    w.at(10.0);
    for n in 1..=60 {
        w.close(&format!("{n:09}:bob"), n, 1, 1000);
    }
    w.at(100.0).advance();
    let end = w.end(0);
    assert_eq!((end.allocations.len(), end.allocations_omitted), (50, 10));
    assert_eq!(end.usernames.len(), 50);
    assert_eq!(end.usage.legs.peer.sent_bytes, 60_000);
    assert_eq!(end.allocations[0].id, AllocationId(1));
    assert!(exact(end));
    // After a restart the same ones would be listed: the first.
    assert_eq!(end.allocations[49].id, AllocationId(50));
}

/// What a parked allocation carried in all: told at once, or left over?
fn told_of_parked(relayed_each_way: u64) -> bool {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(10.0).traffic("bob", 1, 100, MB);
    w.at(100.0).close("bob", 1, 100, MB);
    w.at(300.0).close("bob", 2, 10, relayed_each_way);
    w.at(400.0).advance();
    let told = w.peer_bytes_told() == MB + relayed_each_way;
    w.at(90_000.0).advance();
    assert_eq!(w.peer_bytes_told(), MB + relayed_each_way, "{:#?}", w.told());
    assert!(w.unattributed.is_empty());
    told
}

#[test]
fn residue_is_the_border_between_telling_and_leaving_over() {
    assert!(!told_of_parked(32 * 1024 - 1));
    assert!(told_of_parked(32 * 1024));
}

#[test]
fn a_parked_one_joins_the_open_session_however_little_it_carried() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(10.0).traffic("bob", 1, 100, MB);
    w.at(100.0).close("bob", 1, 100, MB);
    w.at(200.0).open("bob", 3);
    w.at(210.0).close("bob", 2, 3, 300);
    w.at(220.0).close("bob", 3, 100, MB);
    w.at(300.0).advance();
    assert_eq!(w.end(1).allocations.len(), 2, "{:#?}", w.told());
    assert_eq!(w.end(1).continues, None);
    assert!(w.unattributed.is_empty());
}

#[test]
fn allocated_waits_for_idle_ones() {
    let mut w = World::new(Rules {
        alive_while: AliveWhile::Allocated,
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1).open("bob", 2);
    w.at(100.0).close("bob", 1, 100, MB);
    w.at(500.0).advance();
    assert!(w.ends().is_empty());
    w.close("bob", 2, 0, 0);
    w.at(600.0).advance();
    assert_eq!(
        seconds(w.end(0).end.unwrap().ended_at),
        100.0,
        "of the one that relayed"
    );
}

#[test]
fn without_a_peer_leg_the_client_leg_is_billed() {
    let mut w = World::new(Rules {
        peer_leg: false.into(),
        ..Rules::default()
    });
    w.at(0.0).open("bob", 1);
    w.at(10.0).close("bob", 1, 100, MB); // its peer leg is not listened to
    w.at(100.0).advance();
    let end = w.end(0);
    assert!(!end.peer_leg && exact(end));
    assert_eq!(
        (end.usage.legs.peer.sent_bytes, end.usage.billable_bytes),
        (0, 2_200_000)
    );
}

#[test]
fn a_session_ends_as_ever_after_a_peer_leg_was_heard_of_after_all() {
    let mut w = World::new(Rules::default());
    let (ann, bob) = ("1800000000:ann", "1800000000:bob");
    let client = bytes(2048, 500_000);
    // Three closings without a word of the peer leg: there is none.
    for id in 1..=3 {
        w.at(id as f64).open(bob, id);
        w.message(bob, id, Kind::Traffic(Leg::Client, client));
        w.deleted(bob, id);
        w.message(bob, id, Kind::TotalTraffic(Leg::Client, client));
    }
    w.at(10.0).open(ann, 9);
    w.message(ann, 9, Kind::Traffic(Leg::Client, client));
    assert_eq!(w.reducer.reports_peer_leg(), Some(false));
    w.at(20.0).traffic(ann, 9, 2048, 400_000);
    assert_eq!(w.reducer.reports_peer_leg(), Some(true));
    w.at(30.0).close(ann, 9, 6144, 1_000_000);
    w.at(60.0).advance();
    assert_eq!(w.reducer.open_sessions(), 0, "{:#?}", w.told());
    let end = w.end(1);
    assert_eq!(end.user.as_deref(), Some(&b"ann"[..]));
    assert_eq!(seconds(end.end.unwrap().ended_at), 30.0);
}

#[test]
fn unconfirmed_ids_are_bounded_in_number_and_time() {
    let mut w = World::new(Rules {
        unconfirmed_limit: 2,
        ..Rules::default()
    });
    w.at(0.0);
    for id in 1..=5 {
        w.traffic("bob", id, 1, 1000);
    }
    assert_eq!(w.reducer.kept_aside(), (0, 2));
    assert_eq!(w.reducer.stats().unconfirmed_evicted, 3);
    w.at(3601.0).advance();
    assert_eq!(w.reducer.kept_aside(), (0, 0));
    assert_eq!(w.reducer.stats().unconfirmed_expired, 2);
    assert!(w.told().is_empty() && w.unattributed.is_empty());

    // And in bytes: so many names of a thousand bytes each are as many as ids with short ones.
    let mut w = World::new(Rules {
        unconfirmed_limit: 100,
        ..Rules::default()
    });
    for id in 1..=100 {
        w.traffic(&format!("{id:>1000}"), id, 1, 1000);
    }
    let (_, kept) = w.reducer.kept_aside();
    assert_eq!(kept, 100 * 128 / 1011);
    assert_eq!(w.reducer.stats().unconfirmed_evicted, 100 - kept as u64);
    w.at(3601.0).advance();
    for id in 1..=100 {
        w.traffic("bob", id, 1, 1000);
    }
    assert_eq!(w.reducer.kept_aside(), (0, 100), "what is gone takes no room");
}

#[test]
fn after_an_early_eviction_only_a_new_counts_in_full() {
    let mut w = World::new(Rules {
        tombstone_limit: 1,
        ..Rules::default()
    });
    w.at(0.0).open("a", 1).close("a", 1, 100, MB);
    w.at(10.0).open("b", 2).close("b", 2, 100, MB); // the first is forgotten
    w.at(20.0).totals("a", 1, 100, MB);
    w.at(30.0).open("c", 3).close("c", 3, 100, MB);
    w.at(40.0)
        .refresh("d", 4)
        .traffic("d", 4, 10, 1000)
        .close("d", 4, 100, MB);
    w.at(100.0).advance();
    assert_eq!(w.peer_bytes_told(), 3 * MB + 1000, "{:#?}", w.told());
    let evicted = w
        .unattributed
        .iter()
        .filter(|u| u.reason == UnattributedReason::Evicted);
    let evicted: Vec<_> = evicted.map(|u| u.usage.legs.peer.sent_bytes).collect();
    assert_eq!(evicted, [MB, MB - 1000]);
    assert!(!exact(w.ends()[4]));

    w.at(100_000.0).refresh("e", 5).close("e", 5, 100, MB);
    w.at(100_100.0).advance();
    assert_eq!(w.peer_bytes_told(), 4 * MB + 1000, "a day later all is as before");
}

/// Who waits to relay while the session before has yet to end begins one after it, however early he opened.
#[test]
fn a_session_that_starts_late_begins_after_the_one_before_it() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        linger: 0,
        max_session: 40_000,
        ..Rules::default()
    });
    w.open("bob", 1).ask_deletion("bob", 1);
    w.at(0.001).open("bob", 2);
    // Only now it is known that the first one had relayed before it was let go.
    w.traffic("bob", 1, 1000, MB);
    w.at(1.0)
        .traffic("bob", 1, 10, 1000)
        .close("bob", 1, 1010, MB + 1000);
    w.at(540.0).refresh("bob", 2);
    w.at(600.0).traffic("bob", 2, 4000, 240_000);
    w.at(5000.0).advance();
    let starts = w.events.iter().filter(|e| e.event_type == EventType::Start);
    let starts: Vec<_> = starts.map(|e| e.started_at).collect();
    assert_eq!(starts.len(), 2, "{:#?}", w.told());
    assert!(w.end(0).end.unwrap().ended_at <= starts[1], "{:#?}", w.told());
}

#[test]
fn what_is_of_another_realm_is_refused_and_counted() {
    for (realms, opened) in [(&["*.example", "example.org"][..], 1), (&["other.org"], 0)] {
        let mut w = World::new(Rules {
            realms: RealmPatterns::new(realms).unwrap(),
            ..Rules::default()
        });
        w.at(0.0).open("bob", 1);
        assert_eq!(
            (w.reducer.open_allocations(), w.reducer.stats().refused_realms),
            (opened, 1 - opened as u64)
        );
    }
}
