//! Takeovers, each history by its name. Two nodes hear the same coturn; what was drained of the leader is
//! committed, and the follower goes on from that.

use turnhook_reducer::{
    Reducer, ServerRef,
    event::{EventType, SessionEvent, Unattributed},
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    state::Table,
    time::Timestamp,
};

mod committed;
mod lives;
mod queue;
mod threads;

use crate::world::{START, bytes, describe, exact, identity};

const MB: u64 = 1_000_000;
const HERE: &str = "127.0.0.1:40000";

struct Cluster {
    rules: Rules,
    nodes: Vec<Reducer>,
    leader: usize,
    now: u64,
    rows: std::collections::BTreeMap<(Table, u64), Vec<u8>>,
    clock: Timestamp,
    events: Vec<SessionEvent>,
    unattributed: Vec<Unattributed>,
}

/// Who hears a message.
const A: &[usize] = &[0];
const B: &[usize] = &[1];
const BOTH: &[usize] = &[0, 1];

fn status(lifetime: u32, remote: &str) -> Status<'_> {
    Status {
        lifetime,
        local: Some(b"127.0.0.1:3478"),
        remote: Some(remote.as_bytes()),
        ..Status::default()
    }
}

impl Cluster {
    /// A leads, B follows.
    fn new() -> Cluster {
        Cluster::with(Rules::default())
    }

    fn with(rules: Rules) -> Cluster {
        let mut cluster = Cluster {
            rules,
            nodes: Vec::new(),
            leader: 0,
            now: START,
            rows: Default::default(),
            clock: Timestamp(START),
            events: Vec::new(),
            unattributed: Vec::new(),
        };
        for _ in 0..2 {
            let follower = cluster.started();
            cluster.nodes.push(follower);
        }
        cluster.leads(0)
    }

    fn restored(&self) -> Reducer {
        let rows = self
            .rows
            .iter()
            .map(|((table, key), value)| (*table, *key, value));
        Reducer::restore(identity(), self.rules.clone(), self.clock, rows).unwrap()
    }

    fn started(&self) -> Reducer {
        let mut reducer = self.restored();
        reducer.follow(self.clock);
        reducer.hearing(Timestamp(self.now));
        reducer
    }

    fn at(&mut self, seconds: f64) -> &mut Self {
        self.now = START + (seconds * 1000.0) as u64;
        for node in &mut self.nodes {
            node.advance(Timestamp(self.now));
        }
        self
    }

    fn hear(&mut self, who: &[usize], id: u64, kind: Kind<'_>) -> &mut Self {
        let message = Message {
            realm: b"example.org",
            username: b"bob",
            id: AllocationId(id),
            kind,
        };
        for n in who {
            self.nodes[*n].message(Timestamp(self.now), ServerRef::UNKNOWN, &message);
        }
        self
    }

    fn open(&mut self, who: &[usize], id: u64) -> &mut Self {
        self.hear(who, id, Kind::New(status(600, HERE)))
    }

    fn refresh(&mut self, who: &[usize], id: u64) -> &mut Self {
        self.hear(who, id, Kind::Refreshed(status(600, HERE)))
    }

    fn traffic(&mut self, who: &[usize], id: u64, n: u64) -> &mut Self {
        self.hear(who, id, Kind::Traffic(Leg::Client, bytes(n / 1000, n + n / 10)));
        self.hear(who, id, Kind::Traffic(Leg::Peer, bytes(n / 1000, n)))
    }

    fn totals(&mut self, who: &[usize], id: u64, n: u64) -> &mut Self {
        self.hear(
            who,
            id,
            Kind::TotalTraffic(Leg::Client, bytes(n / 1000, n + n / 10)),
        );
        self.hear(
            who,
            id,
            Kind::TotalTraffic(Leg::Peer, bytes(n / 1000, n & 0xffff_ffff)),
        )
    }

    fn close(&mut self, who: &[usize], id: u64, n: u64) -> &mut Self {
        self.hear(who, id, Kind::Deleted).totals(who, id, n)
    }

    fn commit(&mut self) -> &mut Self {
        let leader = &mut self.nodes[self.leader];
        let output = leader.drain(true);
        self.clock = leader.now();
        self.events.extend(output.events);
        self.unattributed.extend(output.unattributed);
        for change in output.changes {
            match change.value {
                Some(value) => self.rows.insert((change.table, change.key), value),
                None => self.rows.remove(&(change.table, change.key)),
            };
        }
        self
    }

    fn confirm(&mut self, n: usize) -> &mut Self {
        let rows = self
            .rows
            .iter()
            .map(|((table, key), value)| (*table, *key, value));
        self.nodes[n].confirm(self.clock, rows).unwrap();
        self
    }

    /// The leader dies with all that it did not commit; `n` takes over.
    fn takes_over(&mut self, n: usize) -> &mut Self {
        if self.leader != n {
            self.nodes[self.leader] = self.started();
        }
        self.take_over(n);
        self.leader = n;
        self
    }

    fn take_over(&mut self, n: usize) {
        let unused = self.restored();
        let follower = std::mem::replace(&mut self.nodes[n], unused);
        self.nodes[n] = follower.take_over(self.restored(), Timestamp(self.now));
    }

    fn leads(mut self, n: usize) -> Cluster {
        self.take_over(n);
        self.nodes[n].caught_up();
        self
    }

    /// The leader stood still: it follows with all that it knows, and `n` takes over.
    fn hands_over(&mut self, n: usize) -> &mut Self {
        let committed = self.clock;
        self.nodes[self.leader].follow(committed);
        self.take_over(n);
        self.leader = n;
        self
    }

    fn told(&self) -> Vec<String> {
        self.events.iter().map(describe).collect()
    }

    fn bytes_told(&self) -> u64 {
        let told = self.events.iter().map(|e| e.usage_delta.legs.peer.sent_bytes);
        told.sum()
    }

    fn ends(&self) -> Vec<&SessionEvent> {
        let ends = self.events.iter().filter(|e| e.event_type == EventType::End);
        ends.collect()
    }

    /// One session was told, whole, and with that many bytes.
    fn is_one_session(&mut self, n: u64, is_exact: bool) {
        self.commit();
        let told = self.told();
        assert_eq!(self.ends().len(), 1, "{told:#?}");
        let end = self.ends()[0];
        let sequences: Vec<u32> = self.events.iter().map(|e| e.sequence).collect();
        assert_eq!(sequences, (0..=end.sequence).collect::<Vec<_>>(), "{told:#?}");
        assert!(
            self.events.iter().all(|e| e.session_id == end.session_id),
            "{told:#?}"
        );
        assert_eq!(self.bytes_told(), n, "{told:#?}");
        assert_eq!(exact(end), is_exact, "{told:#?}");
    }
}
