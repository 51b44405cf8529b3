//! Sessions that last longer than they may: told in parts, each at its limit, and all of it once.

use turnhook_reducer::{
    event::{CloseReason, EventType, SessionEvent},
    message::{Kind, Leg},
    rules::{Rules, StartOn},
    time::Timestamp,
};

use crate::world::{World, bytes, exact, seconds};

const MB: u64 = 1_000_000;
const HOUR: f64 = 3_600.0;

fn rules() -> Rules {
    Rules {
        usage_interval: 0,
        ..Rules::default()
    }
}

/// Keeps an allocation alive, and relays `n` bytes each way in each hour of `hours`.
fn relay(w: &mut World, user: &str, id: u64, hours: std::ops::Range<u32>, n: u64) {
    for hour in hours {
        w.at(f64::from(hour) * HOUR + 1.0)
            .refresh(user, id)
            .traffic(user, id, 100, n);
    }
}

fn reason(end: &SessionEvent) -> CloseReason {
    end.end.unwrap().reason
}

/// What each leg and the bill come to over all sessions.
fn sum(ends: &[&SessionEvent]) -> (u64, u64) {
    let bytes = ends.iter().map(|e| e.usage.legs.peer.sent_bytes).sum();
    (bytes, ends.iter().map(|e| e.usage.billable_bytes).sum())
}

/// A client that refreshes for ever is billed each day by `session.end` alone, to the byte in the end.
#[test]
fn whoever_refreshes_for_ever_is_told_each_day() {
    let mut w = World::new(rules());
    w.lifetime = 7_200;
    w.at(0.0).open("bob", 1);
    relay(&mut w, "bob", 1, 0..50, MB);
    assert_eq!(w.ends().len(), 2, "{:#?}", w.told());
    // Its totals say more than its reports did.
    w.at(50.0 * HOUR).close("bob", 1, 5_100, 51 * MB);
    w.at(50.0 * HOUR + 60.0).advance();
    let ends = w.ends();
    assert_eq!(ends.len(), 3, "{:#?}", w.told());
    for (n, end) in ends.iter().enumerate().take(2) {
        let limit = (n as f64 + 1.0) * 24.0 * HOUR;
        assert_eq!(
            (seconds(end.timestamp), seconds(end.end.unwrap().ended_at)),
            (limit, limit)
        );
        assert_eq!((reason(end), exact(end)), (CloseReason::MaxSession, true));
        assert_eq!(end.duration_ms, Some(86_400_000));
        assert_eq!(end.allocations[0].closed, None);
        assert_eq!(ends[n + 1].continues, Some(end.session_id));
        assert_eq!(seconds(ends[n + 1].started_at), limit);
    }
    assert_eq!((reason(ends[2]), exact(ends[2])), (CloseReason::Closed, true));
    assert_eq!(ends[0].usage.legs.peer.sent_bytes, 24 * MB);
    assert_eq!(sum(&ends), (51 * MB, 102 * MB));
    assert!(w.unattributed.is_empty());
    // Each has one start and no holes.
    let starts = w.events.iter().filter(|e| e.event_type == EventType::Start);
    assert_eq!(starts.map(|e| e.sequence).collect::<Vec<_>>(), [0, 0, 0]);
}

/// What is closing at the limit is not waited for: its totals are told in the session that goes on.
#[test]
fn what_waits_for_its_totals_at_the_limit_is_told_in_the_next() {
    let mut w = World::new(rules());
    w.lifetime = 7_200;
    w.at(0.0).open("bob", 1);
    relay(&mut w, "bob", 1, 0..24, MB);
    w.at(23.5 * HOUR).open("bob", 2).traffic("bob", 2, 100, MB);
    w.at(24.0 * HOUR - 2.0).deleted("bob", 2);
    w.at(24.0 * HOUR).advance();
    assert_eq!((w.ends().len(), reason(w.end(0))), (1, CloseReason::MaxSession));
    assert!(exact(w.end(0)) && w.end(0).allocations.iter().all(|a| a.closed.is_none()));
    w.at(24.0 * HOUR + 1.0).totals("bob", 2, 300, 3 * MB);
    w.at(24.0 * HOUR + 2.0).close("bob", 1, 2_400, 24 * MB);
    w.at(24.0 * HOUR + 60.0).advance();
    let ends = w.ends();
    assert_eq!(ends.len(), 2, "{:#?}", w.told());
    assert_eq!(ends[1].usage.legs.peer.sent_bytes, 2 * MB);
    assert_eq!((ends[1].allocations.len(), exact(ends[1])), (2, true));
    assert_eq!(sum(&ends), (27 * MB, 54 * MB));
}

/// A restart at any time changes nothing: neither when it ends nor what it is called.
/// Whoever asked for a session's end gets it, though the session comes to its limit before anybody has looked for it.
#[test]
fn an_end_that_was_asked_for_outlives_the_session() {
    let mut w = World::new(rules());
    w.lifetime = 7_200;
    w.at(0.0).open("bob", 1);
    relay(&mut w, "bob", 1, 0..24, MB);
    let session = w.events[0].session_id;
    w.reducer.end_session(Timestamp(w.now), session, &"asked".into());
    w.at(24.0 * HOUR + 60.0).advance();
    assert_eq!(w.ends().len(), 1, "{:#?}", w.told());
    w.reducer.look_on(usize::MAX);
    let named: Vec<u64> = w.reducer.take_to_end().iter().map(|t| t.id.0).collect();
    assert_eq!(named, [1]);
}

#[test]
fn a_restart_changes_nothing() {
    let play = |restarts: &[f64]| {
        let mut w = World::new(rules());
        w.lifetime = 200_000;
        w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
        let mut restarts = restarts.iter();
        let mut next = restarts.next();
        for hour in [1.0, 23.0, 23.999, 24.0, 24.001, 30.0, 47.0, 48.5] {
            while next.is_some_and(|at| *at <= hour) {
                w.at(next.unwrap() * HOUR).restart();
                next = restarts.next();
            }
            w.at(hour * HOUR).traffic("bob", 1, 100, MB);
        }
        w.at(49.0 * HOUR).close("bob", 1, 900, 9 * MB);
        w.at(50.0 * HOUR).advance();
        w.events
    };
    let events = play(&[]);
    assert_eq!(events.iter().filter(|e| e.end.is_some()).count(), 3);
    for restarts in [
        &[12.0][..],
        &[23.9995],
        &[24.0],
        &[24.0005, 24.0006],
        &[47.5, 48.2],
    ] {
        assert_eq!(play(restarts), events, "restarts at {restarts:?}");
    }
}

/// With `start_on = "relay"` the session that continues starts once something was relayed in it.
#[test]
fn the_next_waits_for_relayed_bytes_where_starts_do() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        max_session: 3_600_000,
        ..rules()
    });
    w.lifetime = 100_000;
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(2.0 * HOUR).advance();
    assert_eq!((w.ends().len(), w.events.len()), (1, 2), "{:#?}", w.told());
    w.at(2.5 * HOUR).traffic("bob", 1, 100, MB);
    assert_eq!(w.events.len(), 3, "{:#?}", w.told());
    assert_eq!(w.events[2].continues, Some(w.end(0).session_id));
    w.at(3.0 * HOUR).close("bob", 1, 200, 2 * MB);
    w.at(4.0 * HOUR).advance();
    assert_eq!(sum(&w.ends()), (2 * MB, 4 * MB));
}

#[test]
fn without_a_limit_a_session_lasts() {
    let mut w = World::new(Rules {
        max_session: 0,
        ..rules()
    });
    w.lifetime = 7_200;
    w.at(0.0).open("bob", 1);
    relay(&mut w, "bob", 1, 0..100, MB);
    assert!(w.ends().is_empty());
}

/// One that only waits for another allocation ends as it would.
#[test]
fn a_session_in_its_linger_is_not_cut() {
    let mut w = World::new(Rules {
        max_session: 100_000,
        ..rules()
    });
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(98.0).close("bob", 1, 100, MB);
    w.at(200.0).advance();
    assert_eq!((w.ends().len(), reason(w.end(0))), (1, CloseReason::Closed));
    assert_eq!(seconds(w.end(0).timestamp), 103.0);
    // Signalling of the client counts on.
    w.at(300.0).open("eve", 2);
    w.at(350.0)
        .message("eve", 2, Kind::Traffic(Leg::Client, bytes(3, 300)));
    w.at(401.0).advance();
    assert_eq!((w.ends().len(), reason(w.end(1))), (2, CloseReason::MaxSession));
}

/// Two lives of one number in a session: that the first closed stays told.
#[test]
fn a_life_that_closed_before_the_limit_stays_closed() {
    let mut w = World::new(Rules {
        max_session: 300_000,
        ..rules()
    });
    w.at(0.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(100.0).close("bob", 1, 100, MB);
    w.at(102.0).open("bob", 1).traffic("bob", 1, 100, MB);
    w.at(301.0).advance();
    let end = w.end(0);
    assert_eq!((reason(end), end.allocations.len()), (CloseReason::MaxSession, 2));
    let closed: Vec<bool> = end.allocations.iter().map(|a| a.closed.is_some()).collect();
    assert_eq!(closed, [true, false]);
}

/// Until it is known whether coturn reports a peer leg nothing is cut: what was relayed is not known, and would be lost.
#[test]
fn nothing_is_cut_before_the_peer_leg_is_known() {
    let mut w = World::new(Rules {
        max_session: 100_000,
        ..rules()
    });
    let client = |w: &mut World, id: u64| {
        w.message("bob", id, Kind::Traffic(Leg::Client, bytes(1_000, MB)));
    };
    w.at(0.0).open("bob", 1);
    client(&mut w, 1);
    w.at(250.0).advance();
    assert!(w.ends().is_empty(), "{:#?}", w.told());
    // The third that closes without a word of it tells that there is none.
    for (n, id) in (0u32..).zip(2..5) {
        w.at(251.0 + f64::from(n)).open("eve", id).deleted("eve", id);
        w.message("eve", id, Kind::TotalTraffic(Leg::Client, bytes(3, 300)));
    }
    w.at(270.0).advance();
    let bob: Vec<_> = w
        .ends()
        .into_iter()
        .filter(|e| e.user.as_deref() == Some(b"bob"))
        .collect();
    assert_eq!(
        (bob.len(), reason(bob[0])),
        (1, CloseReason::MaxSession),
        "{:#?}",
        w.told()
    );
    w.at(280.0).deleted("bob", 1);
    w.message("bob", 1, Kind::TotalTraffic(Leg::Client, bytes(1_000, MB)));
    w.at(400.0).advance();
    let billed: u64 = w
        .ends()
        .iter()
        .filter(|e| e.user.as_deref() == Some(b"bob"))
        .map(|e| e.usage.billable_bytes)
        .sum();
    assert_eq!(billed, 2 * MB, "{:#?}", w.told());
}
