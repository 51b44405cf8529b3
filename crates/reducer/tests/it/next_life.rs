//! What one life of a number leaves to the next, what comes once more, and what waits until it is known whether there is a
//! peer leg. Generated histories found all of these.

use turnhook_reducer::{
    message::{Kind, Leg, Status},
    rules::{PeerLeg, Rules, StartOn},
    usage::{Counters, Legs},
};

use crate::world::{World, exact};

/// A status of a coturn that names no addresses.
const UNNAMED: Status<'static> = Status {
    lifetime: 600,
    transport: Some(b"UDP"),
    local: None,
    remote: None,
    tls_version: None,
    tls_cipher: None,
};

const ZERO: Counters = Counters {
    received_packets: 0,
    received_bytes: 0,
    sent_packets: 0,
    sent_bytes: 0,
};

fn counters(received: (u64, u64), sent: (u64, u64)) -> Counters {
    Counters {
        received_packets: received.0,
        received_bytes: received.1,
        sent_packets: sent.0,
        sent_bytes: sent.1,
    }
}

impl World {
    fn ann(&mut self, kind: Kind<'_>) -> &mut World {
        self.message("ann", 1, kind)
    }

    fn client(&mut self, counters: Counters) -> &mut World {
        self.ann(Kind::Traffic(Leg::Client, counters))
    }

    fn client_total(&mut self, counters: Counters) -> &mut World {
        self.ann(Kind::TotalTraffic(Leg::Client, counters))
    }

    fn peer_total(&mut self, counters: Counters) -> &mut World {
        self.ann(Kind::TotalTraffic(Leg::Peer, counters))
    }

    /// Told and on record.
    fn in_all(&self) -> (Legs, u64) {
        let told = self.events.iter().map(|e| e.usage_delta);
        let all = told.chain(self.unattributed.iter().map(|u| u.usage));
        all.fold((Legs::default(), 0), |(legs, billed), usage| {
            (legs.plus(usage.legs), billed + usage.billable_bytes)
        })
    }
}

#[test]
fn the_clients_total_of_one_life_makes_no_other_exact() {
    for (status, whole) in [
        (Some(UNNAMED), true),
        (None, true),
        (Some(UNNAMED), false),
        (None, false),
    ] {
        let mut w = World::new(Rules::default());
        w.at(0.0).ann(Kind::New(UNNAMED));
        w.at(600.0).ann(Kind::Deleted).client_total(ZERO);
        if whole {
            w.peer_total(ZERO);
        }
        // A next life; of it neither the `new` nor the client's total is heard.
        w.at(606.0);
        if let Some(status) = status {
            w.ann(Kind::Refreshed(status));
        }
        w.client(counters((3, 312), (0, 0)))
            .ann(Kind::Traffic(Leg::Peer, counters((0, 0), (3, 300))))
            .ann(Kind::Deleted)
            .peer_total(counters((0, 0), (3, 300)));
        w.at(100_000.0).advance();
        let last = w.ends().pop().unwrap();
        assert!(!exact(last), "{status:?} {whole}: {:#?}", w.told());
    }
}

#[test]
fn that_counters_may_have_wrapped_outlives_a_crash() {
    let mut w = World::new(Rules {
        peer_leg: PeerLeg::Absent,
        ..Rules::default()
    });
    // So many packets between two looks of coturn's may hold 4 GiB more.
    let wrapped = counters((0, 0), (4_100_000, 5_000_000));
    w.at(0.0).ann(Kind::New(UNNAMED)).client(wrapped);
    w.at(1.0).crash().hears();
    w.ann(Kind::Deleted).client_total(wrapped);
    w.at(60.0).advance();
    assert!(!exact(w.end(0)), "{:#?}", w.told());
}

/// Once the next life of its key has ended, too.
#[test]
fn a_copy_of_a_total_is_not_told_again() {
    let request = counters((1, 108), (0, 0));
    // What else was counted, and which totals were heard.
    for (counted, client, peer) in [
        (ZERO, Some(request), Some(ZERO)),
        (ZERO, Some(request), None),
        (counters((3, 300), (0, 0)), Some(request), Some(ZERO)),
        (ZERO, None, Some(request)),
    ] {
        let mut w = World::new(Rules::default());
        w.at(0.0).ann(Kind::Refreshed(UNNAMED)).client(counted);
        let totals = |w: &mut World, client: Option<Counters>, peer: Option<Counters>| {
            client.map(|total| w.client_total(total).now);
            peer.map(|total| w.peer_total(total).now);
        };
        w.at(600.0).ann(Kind::Deleted);
        totals(&mut w, client, peer);
        w.ann(Kind::New(UNNAMED));
        let ended = client.is_some();
        if ended {
            w.ann(Kind::Deleted);
            totals(&mut w, Some(ZERO), Some(ZERO));
        }
        // Once more, 40 ms later, by another Redis server.
        w.at(600.04);
        totals(&mut w, client, peer.filter(|total| !total.is_zero()));
        w.at(200_000.0).advance();
        let (legs, _) = w.in_all();
        let most = counted.max(request);
        let told = legs.client.plus(legs.peer);
        assert!(
            !told.exceeds(&most),
            "{client:?} {peer:?}: {told:?} of {most:?}: {:#?}",
            w.told()
        );
    }
}

#[test]
fn what_comes_once_more_after_the_clients_total_carries_nothing() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        ..Rules::default()
    });
    let call = counters((0, 0), (4000, 256_000));
    let gone = Status {
        lifetime: 0,
        ..UNNAMED
    };
    w.at(0.0).ann(Kind::New(UNNAMED)).client(call);
    w.ann(Kind::Refreshed(gone)).ann(Kind::Refreshed(UNNAMED));
    w.ann(Kind::Deleted).client_total(call);
    w.at(50.0).client(call).ann(Kind::Refreshed(UNNAMED));
    w.at(200_000.0).advance();
    assert_eq!(w.in_all().0.client, call, "{:#?}", w.told());
}

/// `peer_leg = "auto"`: what was withheld until it is known is counted by both legs once there are two.
#[test]
fn what_waits_for_the_peer_leg_is_billed_once_it_comes() {
    let (client, peer) = (counters((0, 0), (45, 40_180)), counters((45, 40_000), (0, 0)));
    let totals = |w: &mut World| {
        w.ann(Kind::Deleted).client_total(client).peer_total(peer);
    };
    // Its `new` comes once more, and looks like that of a next life.
    let mut twice = World::new(Rules::default());
    let named = twice.status("192.0.2.1:1", 600);
    twice.at(0.0).ann(Kind::New(named)).client(client);
    twice.at(0.04).ann(Kind::New(named));
    totals(&mut twice);
    // It is taken for ended, and then its totals come.
    let mut late = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    let gone = late.status("192.0.2.1:1", 0);
    late.at(0.0)
        .ann(Kind::New(named))
        .client(client)
        .ann(Kind::Refreshed(gone));
    late.at(61.0).advance().restart();
    totals(&mut late);
    // By then it is known from another.
    let mut known = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    known
        .at(0.0)
        .ann(Kind::New(named))
        .client(client)
        .ann(Kind::Refreshed(gone));
    known
        .at(61.0)
        .message("bob", 2, Kind::New(named))
        .message("bob", 2, Kind::Traffic(Leg::Peer, ZERO));
    totals(&mut known);
    for w in [&mut twice, &mut late, &mut known] {
        w.at(200_000.0).advance();
        assert_eq!(w.in_all().1, 40_000, "{:#?}", w.told());
    }
}

/// The same where there is no other leg: it was told by itself, and is not told again.
#[test]
fn what_was_withheld_is_billed_once() {
    let client = counters((0, 0), (45, 40_180));
    let mut w = World::new(Rules {
        direct: true,
        ..Rules::default()
    });
    let gone = w.status("192.0.2.1:1", 0);
    w.at(0.0).open("ann", 1).client(client).ann(Kind::Refreshed(gone));
    w.at(61.0)
        .advance()
        .restart()
        .ann(Kind::Deleted)
        .client_total(client);
    // Three that close without a word of their peers: there are none.
    for id in 2..5 {
        w.open("bob", id)
            .deleted("bob", id)
            .message("bob", id, Kind::TotalTraffic(Leg::Client, ZERO));
    }
    w.at(200_000.0).advance();
    assert_eq!(w.in_all().1, 40_180, "{:#?}", w.told());
}

/// A coturn that came back from another address, of which only the end was heard there: what its total said is on record,
/// and billed once, whatever the next life of the number says.
#[test]
fn what_was_on_record_under_another_address_is_not_billed_again() {
    let mut w = World::new(Rules {
        direct: true,
        peer_leg: PeerLeg::Reported,
        ..Rules::default()
    });
    let [here, there] = [&b"10.0.0.1/-/0"[..], b"10.0.1.1/-/0"].map(|name| w.reducer.server(name));
    let check = counters((0, 0), (3, 300));
    w.server = here;
    w.at(0.0)
        .ann(Kind::New(UNNAMED))
        .client(counters((3, 312), (0, 0)))
        .ann(Kind::Traffic(Leg::Peer, check));
    w.server = there;
    w.ann(Kind::Deleted).peer_total(check);
    w.at(6.0).advance();
    w.ann(Kind::Deleted).client_total(ZERO).peer_total(ZERO);
    w.at(200_000.0).advance();
    assert_eq!(w.in_all().1, 300, "{:#?}", w.told());
}

/// However soon the one after a session that lasted too long begins, and however late it is told.
#[test]
fn what_continues_begins_after_the_one_before_it() {
    let mut w = World::new(Rules {
        start_on: StartOn::Relay,
        linger: 0,
        max_session: 40_000,
        peer_leg: PeerLeg::Reported,
        ..Rules::default()
    });
    let check = counters((3, 300), (3, 300));
    w.at(0.0).open("ann", 1);
    // As its client lets it go, nothing joins its session any more; and then it goes on.
    w.at(10.0).ask_deletion("ann", 1);
    w.at(10.1).refresh("ann", 1);
    w.at(10.2).open("ann", 2);
    for id in [2, 1] {
        w.message("ann", id, Kind::Traffic(Leg::Peer, check));
    }
    w.at(40.5).advance();
    w.at(50.5).advance();
    for id in [1, 2] {
        w.deleted("ann", id)
            .message(
                "ann",
                id,
                Kind::TotalTraffic(Leg::Client, counters((4, 420), (4, 404))),
            )
            .message("ann", id, Kind::TotalTraffic(Leg::Peer, check));
    }
    w.at(200_000.0).advance();
    let mut last = 0;
    for event in &w.events {
        match event.end {
            Some(end) => last = last.max(end.ended_at.0),
            None if event.sequence == 0 => {
                assert!(event.started_at.0 >= last, "{event:#?} in {:#?}", w.told());
            }
            None => {}
        }
    }
    assert_eq!(w.ends().len(), 4, "{:#?}", w.told());
}
