//! Which connections there are is no state that is committed: what a follower heard of them is all that is known after a
//! takeover (`direct` sources).

use super::*;

const THREAD: u16 = 1;
const ID: u64 = 1_000_000_000_000_001;
const HERE: &[u8] = b"10.0.0.1/-/0";
const THERE: &[u8] = b"10.0.0.2/-/0";

/// A leader and a follower that hear the same connections.
struct Direct {
    nodes: Vec<Reducer>,
    rows: std::collections::BTreeMap<(Table, u64), Vec<u8>>,
    clock: Timestamp,
    now: Timestamp,
    events: Vec<SessionEvent>,
}

impl Direct {
    fn new() -> Direct {
        let mut leader = Reducer::new(identity(), rules());
        leader.hearing(Timestamp(START));
        let mut follower = Reducer::new(identity(), rules());
        follower.follow(Timestamp(START));
        follower.hearing(Timestamp(START));
        // Its numbers of servers are others than those of the rows.
        follower.server(b"10.0.0.9/-/0");
        Direct {
            nodes: vec![leader, follower],
            rows: Default::default(),
            clock: Timestamp(START),
            now: Timestamp(START),
            events: Vec::new(),
        }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = Timestamp(START + seconds * 1000);
        for node in &mut self.nodes {
            node.advance(self.now);
        }
        self
    }

    fn thread(&mut self, server: &[u8], connected: bool) -> &mut Self {
        for node in &mut self.nodes {
            let server = node.server(server);
            if connected {
                node.thread_connected(self.now, server, THREAD);
            } else {
                node.thread_disconnected(self.now, server, THREAD);
            }
        }
        self
    }

    fn hear(&mut self, server: &[u8], kind: Kind<'_>) -> &mut Self {
        for node in &mut self.nodes {
            let message = Message {
                realm: b"example.org",
                username: b"bob",
                id: AllocationId(ID),
                kind,
            };
            let server = node.server(server);
            node.message(self.now, server, &message);
        }
        self
    }

    fn report(&mut self, server: &[u8]) -> &mut Self {
        self.hear(server, Kind::Traffic(Leg::Client, bytes(100, MB)));
        self.hear(server, Kind::Traffic(Leg::Peer, bytes(100, MB)))
    }

    fn close(&mut self, server: &[u8], reports: u64) -> &mut Self {
        let total = bytes(100 * reports, MB * reports);
        self.hear(server, Kind::Deleted);
        self.hear(server, Kind::TotalTraffic(Leg::Client, total));
        self.hear(server, Kind::TotalTraffic(Leg::Peer, total))
    }

    fn commit(&mut self) -> &mut Self {
        let output = self.nodes[0].drain(true);
        self.clock = self.nodes[0].now();
        self.events.extend(output.events);
        for change in output.changes {
            match change.value {
                Some(value) => self.rows.insert((change.table, change.key), value),
                None => self.rows.remove(&(change.table, change.key)),
            };
        }
        self
    }

    /// The leader is gone.
    fn take_over(&mut self) -> &mut Self {
        let rows = self
            .rows
            .iter()
            .map(|((table, key), value)| (*table, *key, value));
        let committed = Reducer::restore(identity(), rules(), self.clock, rows).unwrap();
        let follower = self.nodes.remove(1);
        self.nodes = vec![follower.take_over(committed, self.now)];
        self.nodes[0].caught_up();
        self
    }

    /// How many allocations were told of with so many bytes in all, and whether it is exact.
    fn told(&mut self) -> (usize, u64, bool) {
        self.at(3000).commit();
        let ends = || self.events.iter().filter(|e| e.event_type == EventType::End);
        let told = self.events.iter().map(|e| e.usage_delta.legs.peer.sent_bytes);
        let allocations = ends().map(|e| e.allocations.len()).sum();
        (allocations, told.sum(), ends().all(exact))
    }
}

fn rules() -> Rules {
    Rules {
        direct: true,
        ..Rules::default()
    }
}

/// Two servers have one of the same name and number. The thread of the one has its connection, so what the other says is
/// of its own, though its `new` was missed.
#[test]
fn a_connection_that_the_follower_knew_tells_two_allocations_apart() {
    let mut d = Direct::new();
    d.thread(HERE, true).thread(THERE, true);
    d.hear(HERE, Kind::New(status(600, "127.0.0.1:40000")));
    d.report(HERE).commit();
    d.at(10).take_over();
    d.hear(THERE, Kind::Refreshed(status(600, "127.0.0.1:50000")));
    d.report(THERE).report(THERE).report(HERE);
    d.at(20).close(HERE, 2).close(THERE, 2);
    assert_eq!(d.told(), (2, 4 * MB, true), "{:#?}", d.events);
}

/// The connection is gone, as the follower knew, and the server comes back from another address.
#[test]
fn a_connection_that_the_follower_knew_to_be_gone_lets_an_allocation_go_on_elsewhere() {
    let mut d = Direct::new();
    d.thread(HERE, true);
    d.hear(HERE, Kind::New(status(600, "127.0.0.1:40000")));
    d.report(HERE).commit();
    d.at(5).thread(HERE, false);
    d.at(6).take_over();
    d.thread(THERE, true);
    d.hear(THERE, Kind::Refreshed(status(600, "127.0.0.1:40000")));
    d.report(THERE);
    d.at(20).close(THERE, 2);
    assert_eq!(d.told(), (1, 2 * MB, true), "{:#?}", d.events);
}
