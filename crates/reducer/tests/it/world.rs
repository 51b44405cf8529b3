//! A small world around a reducer: its clock, and short words for what coturn says.

use turnhook_reducer::{
    Identity, Notice, Reducer, ServerRef,
    event::{Accuracy, CloseReason, EventType, SessionEvent, Unattributed},
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    state::{Change, Table},
    time::Timestamp,
    usage::Counters,
};

/// Seconds, from the world's beginning.
pub(crate) const START: u64 = 1_800_000_000_000;

pub(crate) struct World {
    pub(crate) reducer: Reducer,
    pub(crate) rules: Rules,
    pub(crate) now: u64,
    pub(crate) events: Vec<SessionEvent>,
    pub(crate) unattributed: Vec<Unattributed>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) rows: std::collections::BTreeMap<(Table, u64), Vec<u8>>,
    pub(crate) server: ServerRef,
    pub(crate) lifetime: u32,
}

pub(crate) fn bytes(packets: u64, bytes: u64) -> Counters {
    Counters {
        received_packets: packets,
        received_bytes: bytes,
        sent_packets: packets,
        sent_bytes: bytes,
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        store: [7; 16],
        source: "eu-1".into(),
    }
}

impl World {
    pub(crate) fn new(rules: Rules) -> World {
        let mut reducer = Reducer::new(identity(), rules.clone());
        reducer.hearing(Timestamp(START));
        World {
            reducer,
            rules,
            now: START,
            events: Vec::new(),
            unattributed: Vec::new(),
            notices: Vec::new(),
            rows: Default::default(),
            server: ServerRef::UNKNOWN,
            lifetime: 600,
        }
    }

    pub(crate) fn at(&mut self, seconds: f64) -> &mut Self {
        let to = START + (seconds * 1000.0) as u64;
        assert!(to >= self.now, "histories go forwards");
        self.now = to;
        self
    }

    pub(crate) fn message(&mut self, user: &str, id: u64, kind: Kind<'_>) -> &mut Self {
        let message = Message {
            realm: b"example.org",
            username: user.as_bytes(),
            id: AllocationId(id),
            kind,
        };
        self.reducer.message(Timestamp(self.now), self.server, &message);
        self.take();
        self
    }

    pub(crate) fn status(&self, remote: &'static str, lifetime: u32) -> Status<'static> {
        Status {
            lifetime,
            transport: Some(b"UDP"),
            local: Some(b"127.0.0.1:3478"),
            remote: Some(remote.as_bytes()),
            ..Status::default()
        }
    }

    pub(crate) fn open(&mut self, user: &str, id: u64) -> &mut Self {
        let status = self.status("127.0.0.1:40000", self.lifetime);
        self.message(user, id, Kind::New(status))
    }

    pub(crate) fn refresh(&mut self, user: &str, id: u64) -> &mut Self {
        let status = self.status("127.0.0.1:40000", self.lifetime);
        self.message(user, id, Kind::Refreshed(status))
    }

    pub(crate) fn ask_deletion(&mut self, user: &str, id: u64) -> &mut Self {
        let status = self.status("127.0.0.1:40000", 0);
        self.message(user, id, Kind::Refreshed(status))
    }

    /// Client and peer leg at once: the peer leg carries `n` bytes each way, the client leg 10 % more.
    pub(crate) fn traffic(&mut self, user: &str, id: u64, packets: u64, n: u64) -> &mut Self {
        self.message(user, id, Kind::Traffic(Leg::Client, bytes(packets, n + n / 10)));
        self.message(user, id, Kind::Traffic(Leg::Peer, bytes(packets, n)))
    }

    pub(crate) fn deleted(&mut self, user: &str, id: u64) -> &mut Self {
        self.message(user, id, Kind::Deleted)
    }

    pub(crate) fn totals(&mut self, user: &str, id: u64, packets: u64, n: u64) -> &mut Self {
        self.message(
            user,
            id,
            Kind::TotalTraffic(Leg::Client, bytes(packets, n + n / 10)),
        );
        self.message(
            user,
            id,
            Kind::TotalTraffic(Leg::Peer, bytes(packets, n & 0xffff_ffff)),
        )
    }

    /// The clean end of an allocation that carried `n` bytes each way in all.
    pub(crate) fn close(&mut self, user: &str, id: u64, packets: u64, n: u64) -> &mut Self {
        self.deleted(user, id).totals(user, id, packets, n)
    }

    pub(crate) fn advance(&mut self) -> &mut Self {
        self.reducer.advance(Timestamp(self.now + 1));
        self.take();
        self
    }

    fn take(&mut self) {
        let output = self.reducer.drain(false);
        self.events.extend(output.events);
        self.unattributed.extend(output.unattributed);
        self.notices.extend(output.notices);
        self.save(output.changes);
    }

    fn save(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change.value {
                Some(value) => self.rows.insert((change.table, change.key), value),
                None => self.rows.remove(&(change.table, change.key)),
            };
        }
    }

    /// `kill -9`: what was not drained is lost; a new reducer goes on from the rows.
    pub(crate) fn crash(&mut self) -> &mut Self {
        let rows = self
            .rows
            .iter()
            .map(|((table, key), value)| (*table, *key, value));
        let clock = self.reducer.now();
        self.reducer = Reducer::restore(identity(), self.rules.clone(), clock, rows).unwrap();
        self
    }

    /// A stop in good order, and a start at the same time.
    pub(crate) fn restart(&mut self) -> &mut Self {
        let output = self.reducer.drain(true);
        self.events.extend(output.events);
        self.unattributed.extend(output.unattributed);
        self.save(output.changes);
        self.crash().hears()
    }

    pub(crate) fn hears(&mut self) -> &mut Self {
        self.reducer.hearing(Timestamp(self.now));
        self.take();
        self
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.events.iter().map(describe).collect()
    }

    pub(crate) fn ends(&self) -> Vec<&SessionEvent> {
        self.events
            .iter()
            .filter(|e| e.event_type == EventType::End)
            .collect()
    }

    pub(crate) fn end(&self, n: usize) -> &SessionEvent {
        self.ends()
            .get(n)
            .copied()
            .unwrap_or_else(|| panic!("no end {n} in {:#?}", self.told()))
    }

    pub(crate) fn peer_bytes_told(&self) -> u64 {
        self.events
            .iter()
            .map(|e| e.usage_delta.legs.peer.sent_bytes)
            .sum()
    }
}

/// When, what, and by whom, for tests that read.
pub(crate) fn describe(e: &SessionEvent) -> String {
    let at = (e.timestamp.0 - START) as f64 / 1000.0;
    let mut text = format!("{at} {} #{}", e.event_type.as_str(), e.sequence);
    if let Some(end) = e.end {
        let ended = (end.ended_at.0 - START) as f64 / 1000.0;
        text += &format!(" {} {} ended {ended}", end.reason.as_str(), end.accuracy.as_str());
    }
    if e.continues.is_some() {
        text += " continues";
    }
    text + &format!(
        " {} allocations {} bytes",
        e.allocations.len(),
        e.usage.billable_bytes
    )
}

pub(crate) fn exact(e: &SessionEvent) -> bool {
    e.end.is_some_and(|end| end.accuracy == Accuracy::Exact)
}

pub(crate) fn reason(e: &SessionEvent) -> CloseReason {
    e.end.unwrap().reason
}

pub(crate) fn seconds(at: Timestamp) -> f64 {
    (at.0 as f64 - START as f64) / 1000.0
}
