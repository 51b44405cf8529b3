//! A server that was taken to have stopped is heard of again: it had not.

use turnhook_reducer::{
    Notice,
    event::CloseReason,
    rules::{PeerLeg, Rules},
    time::Timestamp,
};

use crate::world::{START, World, exact, reason};

const MB: u64 = 1_000_000;

/// Two megabytes each way, one before and one after the silence of 100 s.
fn away(crash: bool, again: impl Fn(&mut World)) -> World {
    let mut w = World::new(Rules {
        direct: true,
        peer_leg: PeerLeg::Reported,
        ..Rules::default()
    });
    w.server = w.reducer.server(b"10.0.0.1/-/0");
    w.at(0.0).open("ann", 1).traffic("ann", 1, 1000, MB);
    w.at(105.0);
    let (at, since) = (Timestamp(w.now), Timestamp(START + 100_000));
    w.reducer.server_stopped(at, w.server, since);
    w.at(150.0).advance();
    assert_eq!(
        (w.ends().len(), reason(w.end(0))),
        (1, CloseReason::ServerStopped)
    );
    if crash {
        w.crash();
        w.server = w.reducer.server(b"10.0.0.1/-/0");
        w.hears();
    }
    w.at(200.0);
    again(&mut w);
    w.at(2000.0).advance();
    w
}

#[test]
fn what_it_carried_meanwhile_is_told_in_a_session_that_continues() {
    let refreshed = |w: &mut World| {
        w.refresh("ann", 1).traffic("ann", 1, 1000, MB);
        w.at(210.0).close("ann", 1, 2000, 2 * MB);
    };
    let closed = |w: &mut World| {
        w.close("ann", 1, 2000, 2 * MB);
    };
    for crash in [false, true] {
        for w in [away(crash, refreshed), away(crash, closed)] {
            assert_eq!(w.peer_bytes_told(), 2 * MB, "{:#?}", w.told());
            let [first, second] = w.ends()[..] else {
                panic!("{:#?}", w.told());
            };
            assert_eq!(second.continues, Some(first.session_id));
            assert!(!exact(first), "it was told with what was heard until then");
        }
    }
}

/// And that it had not stopped is said, from when to when, once.
#[test]
fn what_was_not_heard_of_it_is_a_gap() {
    let refreshed = |w: &mut World| {
        w.refresh("ann", 1).refresh("ann", 1);
    };
    let closed = |w: &mut World| {
        w.close("ann", 1, 1000, MB);
    };
    let totals = |w: &mut World| {
        w.totals("ann", 1, 2000, 2 * MB);
    };
    let ways: [&dyn Fn(&mut World); 3] = [&refreshed, &closed, &totals];
    // A restart in between, from which nobody else can know of it, changes nothing.
    for w in [false, true]
        .into_iter()
        .flat_map(|crash| ways.map(|way| away(crash, way)))
    {
        let said: Vec<_> = w
            .notices
            .iter()
            .filter(|n| matches!(n, Notice::HadNotStopped { .. }))
            .collect();
        let [Notice::HadNotStopped { server, from, to }] = said[..] else {
            panic!("{:#?}", w.notices);
        };
        assert_eq!(server.as_deref(), Some(&b"10.0.0.1/-/0"[..]));
        assert_eq!((from.0 - START, to.0 - START), (100_000, 200_000));
    }
}

/// A server has many allocations, which are heard again one after the other: turnhook may be started anew between two of
/// them, whoever it was that noticed.
#[test]
fn that_it_had_not_stopped_is_said_once_whatever_is_started_anew() {
    let said = |w: &World| {
        let had_not = |n: &&Notice| matches!(n, Notice::HadNotStopped { .. });
        w.notices.iter().filter(had_not).count()
    };
    for by_its_connections in [false, true] {
        let mut w = World::new(Rules {
            direct: true,
            peer_leg: PeerLeg::Reported,
            ..Rules::default()
        });
        w.server = w.reducer.server(b"10.0.0.1/-/0");
        w.at(0.0).open("ann", 1).open("bob", 2);
        w.at(105.0);
        w.reducer
            .server_stopped(Timestamp(w.now), w.server, Timestamp(START + 100_000));
        w.at(150.0).advance();
        assert_eq!(w.ends().len(), 2);
        let first = if by_its_connections {
            w.reducer.server_returned(w.server);
            0
        } else {
            w.at(200.0).refresh("ann", 1);
            1
        };
        w.at(210.0).advance().crash();
        w.server = w.reducer.server(b"10.0.0.1/-/0");
        w.hears();
        w.at(400.0).refresh("bob", 2).advance();
        assert_eq!(said(&w), first, "{:#?}", w.notices);
        assert_eq!(w.reducer.open_allocations(), 2 - usize::from(by_its_connections));
    }
}
