//! A restart goes on where the last commit was.

use turnhook_reducer::{
    event::CloseReason,
    message::{Kind, Leg, Status},
    rules::Rules,
    source::{Gap, GapReason},
    state::Table,
    time::Timestamp,
};

use crate::world::{START, World, bytes, describe, exact};

fn call(w: &mut World, crash: bool) -> Vec<String> {
    let maybe = |w: &mut World| {
        if crash {
            w.crash().hears();
        }
    };
    w.at(0.0).open("700000000:bob", 1).open("800000000:bob", 2);
    maybe(w);
    w.at(50.0).traffic("700000000:bob", 1, 2000, 1_000_000);
    w.at(61.0).advance();
    maybe(w);
    w.at(100.0)
        .traffic("700000000:bob", 1, 2000, 1_000_000)
        .deleted("700000000:bob", 1);
    maybe(w);
    w.totals("700000000:bob", 1, 4000, 2_000_000);
    maybe(w);
    w.at(102.0).open("900000000:bob", 3);
    maybe(w);
    w.at(150.0)
        .traffic("900000000:bob", 3, 10, 100_000)
        .close("900000000:bob", 3, 20, 200_000);
    maybe(w);
    w.at(500.0).advance();
    maybe(w);
    w.at(600.0)
        .traffic("800000000:bob", 2, 10, 100_000)
        .close("800000000:bob", 2, 10, 100_000);
    w.at(900.0).advance();
    w.events.iter().map(describe).collect()
}

#[test]
fn a_crash_after_every_commit_changes_nothing() {
    let (mut calm, mut shaken) = (World::new(Rules::default()), World::new(Rules::default()));
    assert_eq!(call(&mut calm, false), call(&mut shaken, true));
    let strip = |w: &World| {
        w.events
            .iter()
            .map(|e| (e.id, e.session_id, e.sequence, e.usage))
            .collect::<Vec<_>>()
    };
    assert_eq!(strip(&calm), strip(&shaken));
    assert!(calm.ends().iter().all(|e| exact(e)));
    assert_eq!(calm.ends().len(), 2);
    assert_eq!(calm.ends()[1].continues, Some(calm.ends()[0].session_id));
}

#[test]
fn progress_that_was_not_committed_is_healed_by_totals() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(10.0).traffic("bob", 1, 2000, 1_000_000);
    w.crash().hears();
    w.at(20.0).close("bob", 1, 2000, 1_000_000);
    w.at(100.0).advance();
    assert_eq!(w.peer_bytes_told(), 1_000_000);
    assert!(exact(w.end(0)));
}

#[test]
fn nothing_expires_because_turnhook_was_away() {
    let mut w = World::new(Rules::default());
    w.at(0.0).open("bob", 1);
    w.at(10_000.0).crash().hears();
    let gap = Gap {
        from: Timestamp(w.now - 10_000_000),
        to: Timestamp(w.now),
        reason: GapReason::Restart,
        server: None,
    };
    w.reducer.gap(Timestamp(w.now), &gap);
    w.at(10_300.0).refresh("bob", 1);
    w.at(10_400.0).close("bob", 1, 10, 70_000);
    w.at(10_500.0).advance();
    assert_eq!(w.events.len(), 2, "one start, one end: {:#?}", w.told());
    assert!(exact(w.end(0)));
}

#[test]
fn no_row_outlives_what_it_is_about() {
    let mut w = World::new(Rules::default());
    call(&mut w, false);
    w.at(200_000.0).advance().open("eve", 1).close("eve", 1, 0, 0);
    w.at(200_100.0).advance().at(200_200.0).advance();
    let left: Vec<_> = w
        .rows
        .keys()
        .filter(|(table, _)| *table != Table::Source)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(
        (
            w.reducer.open_allocations(),
            w.reducer.open_sessions(),
            w.reducer.kept_aside()
        ),
        (0, 0, (0, 0))
    );
}

/// What waits until it is known whether there is a peer leg is told all the same after crashes.
#[test]
fn what_is_withheld_survives_a_crash() {
    let tell = |crash: bool| {
        let mut w = World::new(Rules {
            start_on: turnhook_reducer::rules::StartOn::Relay,
            direct: true,
            ..Rules::default()
        });
        let old = w.reducer.server(b"10.0.0.0/-/0");
        w.server = old;
        let client = |n| Kind::Traffic(Leg::Client, bytes(n, n * 108));
        let total = |n| Kind::TotalTraffic(Leg::Client, bytes(n, n * 108));
        let close = |w: &mut World, id| {
            w.deleted("bob", id).message("bob", id, total(0));
        };
        let plain = Status {
            lifetime: 600,
            ..Status::default()
        };
        w.at(0.0)
            .open("bob", 1)
            .message("eve", 2, Kind::New(plain))
            .message("eve", 2, client(1));
        w.server = w.reducer.server(b"10.0.0.1/-/0");
        w.message("eve", 2, Kind::Refreshed(plain));
        w.server = old;
        w.at(1.0).open("bob", 3).open("bob", 4);
        let stopped = Timestamp(w.now);
        let server = w.server;
        w.reducer
            .server_stopped(Timestamp(w.now + 5_000), server, stopped);
        w.at(6.0).advance();
        if crash {
            w.crash().hears();
        }
        w.server = w.reducer.server(b"10.0.0.1/-/0");
        w.at(7.0)
            .open("bob", 5)
            .open("bob", 6)
            .open("bob", 7)
            .message("eve", 2, Kind::Refreshed(plain));
        if crash {
            w.crash().hears();
            w.server = w.reducer.server(b"10.0.0.1/-/0");
        }
        for id in [5, 6, 7] {
            w.at(id as f64 + 3.0);
            close(&mut w, id);
            if crash {
                w.crash().hears();
                w.server = w.reducer.server(b"10.0.0.1/-/0");
            }
        }
        w.at(5000.0).advance();
        w.events.iter().map(describe).collect::<Vec<_>>()
    };
    let calm = tell(false);
    assert!(calm.iter().any(|e| e.contains("216 bytes")), "{calm:#?}");
    assert_eq!(calm, tell(true));
}

/// Rows keep of which server each allocation is: once a server is known to have stopped, what was not heard of since our
/// own restart ends with it, and nothing else does.
#[test]
fn what_was_not_heard_of_since_a_restart_ends_with_its_server() {
    let mut w = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    let name = |n: u8| [b"10.0.0.1/-/", &[b'0' + n][..]].concat();
    for (server, silent, heard) in [(0, "silent", "heard"), (1, "other", "another")] {
        w.server = w.reducer.server(&name(server));
        w.at(0.0).open(silent, 1).open(heard, 2);
    }
    w.crash().hears();
    let stopped = w.reducer.server(&name(0));
    w.server = stopped;
    w.at(10.0).refresh("heard", 2);
    let stopped_at = Timestamp(w.now);
    w.at(15.0);
    w.reducer.server_stopped(Timestamp(w.now), stopped, stopped_at);
    w.at(25.0).advance();
    let mut ended: Vec<_> = w
        .ends()
        .iter()
        .map(|event| (event.user.clone().unwrap(), event.end.unwrap().reason))
        .collect();
    ended.sort_by(|one, other| one.0.cmp(&other.0));
    let names: Vec<&[u8]> = ended.iter().map(|(user, _)| &**user).collect();
    assert_eq!(names, [&b"heard"[..], b"silent"]);
    assert!(
        ended
            .iter()
            .all(|(_, reason)| *reason == CloseReason::ServerStopped)
    );
    assert_eq!(w.reducer.open_allocations(), 2, "of the other server");
}

/// What is committed while nothing is heard bears a later time: whoever goes on from it knows that it was not heard.
#[test]
fn since_when_nothing_was_heard_outlives_a_crash() {
    let mut w = World::new(Rules::default());
    let seconds = |s: u64| Some(Timestamp(START + 1000 * s));
    w.open("ann", 1).traffic("ann", 1, 1000, 1_000_000);
    assert_eq!(w.reducer.unheard_since(), None);
    let deaf = Timestamp(w.at(12.0).now);
    w.reducer.deaf(deaf);
    w.reducer.heard_until(Timestamp(START + 10_000));
    w.reducer.heard_until(deaf); // said once more
    for at in [100.0, 200.0] {
        let before = w.events.len();
        w.at(at).advance();
        assert!(
            at > 100.0 || w.events.len() > before,
            "something was committed meanwhile"
        );
        w.crash();
        assert_eq!(w.reducer.unheard_since(), seconds(10));
    }
    // A gap that is on record is not to be said again.
    let now = Timestamp(w.now);
    w.reducer.unheard_is_on_record(now);
    w.advance().crash();
    assert_eq!(w.reducer.unheard_since(), seconds(200));
    w.at(300.0).hears();
    assert_eq!(w.reducer.unheard_since(), None);
    // It heard up to its last commit; and what is committed before it hears again does not pass for heard.
    w.at(310.0).traffic("ann", 1, 1000, 1_000_000).refresh("ann", 1);
    w.crash();
    assert_eq!(w.reducer.unheard_since(), seconds(310));
    w.at(400.0).advance().crash();
    assert_eq!(w.reducer.unheard_since(), seconds(310));
}
