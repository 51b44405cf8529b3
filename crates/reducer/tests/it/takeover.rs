//! Takeovers, each history by its name. Two nodes hear the same coturn; what was drained of the leader is
//! committed, and the follower goes on from that.

use turnhook_reducer::{
    Reducer, ServerRef,
    event::{EventType, SessionEvent, Unattributed},
    message::{AllocationId, Kind, Leg, Message, Status},
    rules::Rules,
    source::{Gap, GapReason},
    state::Table,
    time::Timestamp,
};

use crate::world::{START, bytes, describe, exact, identity};

const MB: u64 = 1_000_000;
const HERE: &str = "127.0.0.1:40000";

struct Cluster {
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
        let mut cluster = Cluster {
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
        Reducer::restore(identity(), Rules::default(), self.clock, rows).unwrap()
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

#[test]
fn a_follower_tells_nothing() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(70.0).close(BOTH, 1, MB);
    c.at(80.0);
    assert!(c.nodes[1].is_following() && !c.nodes[0].is_following());
    assert!(!c.nodes[1].is_pending());
    let output = c.nodes[1].drain(true);
    assert_eq!((output.events.len(), output.changes.len()), (0, 0));
    c.is_one_session(MB, true);
}

#[test]
fn a_leader_dies_after_it_committed_a_part() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).commit();
    c.at(10.0).traffic(BOTH, 1, MB).commit();
    let started = c.events[0].session_id;
    // Heard by both, committed by nobody.
    c.at(20.0).traffic(BOTH, 1, MB);
    c.at(30.0).takes_over(1).traffic(B, 1, MB);
    c.at(40.0).close(B, 1, 3 * MB);
    c.at(60.0).is_one_session(3 * MB, true);
    assert_eq!(c.events[0].session_id, started);
}

#[test]
fn what_nobody_committed_is_told_by_the_next_leader() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(5.0).close(BOTH, 1, MB);
    c.at(20.0).takes_over(1);
    c.is_one_session(MB, true);
    assert!(c.events[0].allocations[0].opened_seen);
}

#[test]
fn a_follower_that_missed_messages_stands_still_and_never_runs_ahead() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1);
    c.at(10.0).traffic(A, 1, 3 * MB).commit();
    // B missed it, and hears the next 4 MB: 3 are told, then 4, of 7.
    c.at(61.5).commit().takes_over(1);
    let told = c.bytes_told();
    assert_eq!(told, 3 * MB);
    c.at(70.0).traffic(B, 1, 2 * MB);
    c.at(125.0).commit();
    assert_eq!(
        c.bytes_told(),
        3 * MB,
        "2 of its own are below the floor: {:#?}",
        c.told()
    );
    c.at(130.0).traffic(B, 1, 2 * MB);
    c.at(190.0).commit();
    assert_eq!(c.bytes_told(), 4 * MB, "{:#?}", c.told());
    c.at(200.0).close(B, 1, 7 * MB);
    c.at(220.0).is_one_session(7 * MB, true);
}

#[test]
fn who_has_caught_up_counts_on_at_once() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1);
    c.at(10.0).traffic(A, 1, 3 * MB).commit().takes_over(1);
    c.nodes[1].caught_up();
    c.at(20.0).traffic(B, 1, MB).hear(B, 1, Kind::Deleted);
    c.at(40.0).is_one_session(4 * MB, false);
}

#[test]
fn a_leader_that_missed_messages_is_corrected() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(B, 1, 3 * MB).commit();
    c.at(10.0).takes_over(1).hear(B, 1, Kind::Deleted);
    c.at(30.0).is_one_session(3 * MB, false);
}

#[test]
fn a_closing_that_only_the_follower_heard() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(10.0).close(B, 1, MB);
    c.at(25.0).takes_over(1);
    c.is_one_session(MB, true);
    let (closed_at, _) = c.ends()[0].allocations[0].closed.unwrap();
    assert_eq!(closed_at, Timestamp(START + 10_000), "at its own time");
}

#[test]
fn totals_that_only_the_follower_heard() {
    for (taken_at, sessions) in [(12.0, 1), (60.0, 2)] {
        let mut c = Cluster::new();
        c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
        c.at(10.0)
            .hear(BOTH, 1, Kind::Deleted)
            .totals(B, 1, 5 * MB)
            .commit();
        c.at(taken_at).commit().takes_over(1);
        c.at(100.0).commit();
        assert_eq!(c.ends().len(), sessions, "{:#?}", c.told());
        assert_eq!(c.bytes_told(), 5 * MB, "{:#?}", c.told());
        assert!(exact(c.ends()[sessions - 1]));
        assert_eq!(c.ends()[sessions - 1].continues.is_some(), sessions == 2);
    }
}

#[test]
fn what_ended_on_both_is_told_once() {
    for confirmed in [false, true] {
        let mut c = Cluster::new();
        c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
        c.at(10.0).close(BOTH, 1, MB);
        c.at(20.0).commit();
        assert_eq!(c.nodes[1].kept_ends(), 1);
        if confirmed {
            c.confirm(1);
            assert_eq!(c.nodes[1].kept_ends(), 0);
        }
        c.at(30.0).takes_over(1);
        c.is_one_session(MB, true);
    }
}

#[test]
fn an_end_that_was_not_committed_is_kept_until_it_is() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit().confirm(1);
    c.at(10.0).close(B, 1, MB);
    for seconds in [20.0, 40.0, 60.0, 80.0] {
        c.at(seconds).commit().confirm(1);
        assert_eq!(c.nodes[1].kept_ends(), 1, "the leader has it open");
    }
    c.at(90.0).takes_over(1);
    c.is_one_session(MB, true);
}

#[test]
fn what_was_told_and_forgotten_is_not_told_again() {
    for confirms in [true, false] {
        let mut c = Cluster::new();
        c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
        if confirms {
            c.confirm(1);
        }
        // B misses the end. The leader tells it, and its tombstone is gone a minute later.
        c.at(10.0).close(A, 1, MB);
        c.at(20.0).commit();
        c.at(100.0).open(BOTH, 2).commit();
        c.at(110.0).takes_over(1);
        c.at(120.0).commit();
        assert_eq!(c.ends().len(), 1, "confirms {confirms}: {:#?}", c.told());
        assert_eq!(c.bytes_told(), MB);
    }
}

#[test]
fn late_totals_of_one_that_was_told_without_them() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(10.0).hear(A, 1, Kind::Deleted);
    c.at(20.0).commit().takes_over(1);
    // They wait in B's queue, after much that was told.
    c.at(21.0).traffic(B, 1, MB).refresh(B, 1).close(B, 1, 5 * MB);
    c.at(60.0).commit();
    assert_eq!(c.bytes_told(), 5 * MB, "{:#?}", c.told());
    assert_eq!(c.ends().len(), 2);
    c.totals(B, 1, 5 * MB).at(90.0).commit();
    assert_eq!(c.bytes_told(), 5 * MB, "told once: {:#?}", c.told());
}

#[test]
fn a_next_life_that_only_the_follower_heard() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(50.0).hear(B, 1, Kind::New(status(600, "127.0.0.1:50000")));
    c.traffic(B, 1, 2 * MB);
    c.at(60.0).takes_over(1).close(B, 1, 3 * MB);
    c.at(80.0).commit();
    assert_eq!(c.bytes_told(), 4 * MB, "{:#?}", c.told());
    let lives: Vec<_> = c.ends().iter().flat_map(|e| e.allocations.clone()).collect();
    assert_eq!(lives.len(), 2, "{:#?}", c.told());
    assert_eq!(
        lives[0].closed.unwrap().1,
        turnhook_reducer::event::CloseReason::ServerRestarted
    );
}

#[test]
fn a_next_life_that_the_follower_missed_is_not_mixed_with_the_one_it_knows() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, 5 * MB).commit();
    c.at(50.0).hear(A, 1, Kind::New(status(600, "127.0.0.1:50000")));
    c.at(55.0).traffic(BOTH, 1, MB).commit();
    c.at(70.0).takes_over(1);
    c.nodes[1].caught_up();
    c.close(B, 1, MB);
    c.at(90.0).commit();
    assert_eq!(c.bytes_told(), 6 * MB, "{:#?}", c.told());
}

#[test]
fn back_and_forth() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(10.0).traffic(BOTH, 1, MB); // not committed by A
    c.at(20.0).hands_over(1).commit().traffic(BOTH, 1, MB);
    c.at(30.0).commit().confirm(0).traffic(A, 1, MB); // B misses one
    c.at(40.0).hands_over(0).commit().traffic(BOTH, 1, MB);
    c.at(50.0).commit().hands_over(1).commit();
    c.at(60.0).close(BOTH, 1, 5 * MB);
    c.at(80.0).is_one_session(5 * MB, true);
}

#[test]
fn an_end_that_an_old_leader_did_not_commit_comes_back_with_it() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    // Only A hears the end, and loses its lease before it commits.
    c.at(10.0).close(A, 1, 2 * MB);
    c.at(20.0).hands_over(1).commit().confirm(0);
    assert_eq!(c.nodes[0].kept_ends(), 1);
    assert_eq!(c.ends().len(), 0);
    c.at(30.0).hands_over(0);
    c.is_one_session(2 * MB, true);
}

#[test]
fn a_follower_that_started_in_the_middle_counts_on_from_what_was_committed() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(A, 1, MB).commit();
    c.nodes[1] = c.started();
    c.at(10.0).traffic(BOTH, 1, MB);
    c.at(20.0).takes_over(1).hear(B, 1, Kind::Deleted);
    c.at(40.0).is_one_session(2 * MB, false);
}

#[test]
fn what_waited_in_the_queue_is_not_counted_twice() {
    for known in [false, true] {
        let mut c = Cluster::new();
        c.at(1.0).open(A, 1);
        if known {
            c.open(B, 1);
        }
        c.at(2.0).traffic(A, 1, MB).refresh(A, 1).commit();
        c.at(10.0).takes_over(1);
        // B's queue holds what A had committed, and 1 MB more.
        if !known {
            c.open(B, 1);
        }
        c.traffic(B, 1, MB).refresh(B, 1).traffic(B, 1, MB);
        c.at(20.0).hear(B, 1, Kind::Deleted);
        c.at(40.0).is_one_session(2 * MB, false);
    }
}

#[test]
fn a_whole_life_that_waited_in_the_queue_is_not_told_again() {
    for known in [false, true] {
        let mut c = Cluster::new();
        c.at(1.0).open(A, 1);
        if known {
            c.open(B, 1);
        }
        c.at(2.0).traffic(A, 1, MB).close(A, 1, MB);
        c.at(10.0).commit().takes_over(1);
        if !known {
            c.open(B, 1);
        }
        c.traffic(B, 1, MB).refresh(B, 1).close(B, 1, MB);
        c.at(60.0).is_one_session(MB, true);
    }
}

#[test]
fn a_refresh_that_waited_in_the_queue_opens_no_next_life_of_one_that_closes() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).refresh(A, 1).traffic(A, 1, MB);
    c.hear(A, 1, Kind::Deleted).commit();
    c.at(2.0).takes_over(1);
    c.open(B, 1).refresh(B, 1).traffic(B, 1, MB);
    c.hear(B, 1, Kind::Deleted);
    c.at(40.0).is_one_session(MB, false);
}

#[test]
fn a_new_leader_that_stood_still_reads_its_queue_as_if_no_time_had_passed() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(A, 1, MB).close(A, 1, MB);
    c.at(10.0).commit().takes_over(1);
    let (from, to) = (Timestamp(START + 11_000), Timestamp(START + 90_000));
    let (reason, server) = (GapReason::Stall, None);
    c.nodes[1].gap(
        from,
        &Gap {
            from,
            to,
            reason,
            server,
        },
    );
    c.at(90.0).open(B, 1).traffic(B, 1, MB).close(B, 1, MB);
    c.at(120.0).is_one_session(MB, true);
}

#[test]
fn what_was_counted_of_a_shared_key_is_not_told_of_one_of_its_lives() {
    let mut c = Cluster::new();
    let mut other = status(600, "127.0.0.1:50000");
    other.local = Some(b"127.0.0.9:3478");
    c.at(1.0).open(A, 1).hear(A, 1, Kind::New(other));
    c.traffic(A, 1, MB).commit();
    // B missed the first of them, and reads the rest from its queue.
    c.at(9.0).hear(B, 1, Kind::New(other)).traffic(B, 1, MB);
    c.at(20.0).takes_over(1);
    c.at(2000.0).commit();
    assert_eq!(c.bytes_told(), MB, "{:#?}", c.told());
}

#[test]
fn what_a_follower_doubts_is_not_brought_in() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB);
    c.at(2.0).hear(BOTH, 1, Kind::Deleted);
    // The next life; B misses its `new`, and may have counted some of it in the one before.
    c.at(20.0).hear(A, 1, Kind::New(status(600, "127.0.0.1:50000")));
    c.hear(BOTH, 1, Kind::Refreshed(status(600, "127.0.0.1:50000")));
    c.at(30.0).takes_over(1);
    c.at(2000.0).commit();
    assert_eq!(c.bytes_told(), MB, "{:#?}", c.told());
}

#[test]
fn a_whole_life_that_waited_through_two_takeovers_is_not_told_again() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(A, 1, MB).close(A, 1, MB).commit();
    c.at(2.0).takes_over(1).commit();
    c.hands_over(1).commit();
    c.open(B, 1).traffic(B, 1, MB).close(B, 1, MB);
    c.at(60.0).is_one_session(MB, true);
}

#[test]
fn a_peer_leg_beyond_4_gib_is_unwrapped_from_what_was_told() {
    let mut c = Cluster::new();
    let n = (1 << 32) + 500 * MB;
    c.at(1.0).open(BOTH, 1);
    // Only A hears most of it; B's own count would unwrap to 500 MB.
    c.at(10.0).traffic(A, 1, n - 100 * MB).commit();
    c.at(20.0).takes_over(1).close(B, 1, n);
    c.at(40.0).is_one_session(n, true);
}

#[test]
fn a_refresh_that_only_the_follower_heard_keeps_it_alive() {
    let mut c = Cluster::new();
    c.at(1.0).open(BOTH, 1).traffic(BOTH, 1, MB).commit();
    c.at(550.0).refresh(B, 1);
    c.at(700.0).takes_over(1).commit();
    assert_eq!(c.ends().len(), 0, "{:#?}", c.told());
    c.at(800.0).close(B, 1, MB);
    c.at(820.0).is_one_session(MB, true);
}

#[test]
fn traffic_that_a_follower_cannot_place_is_left_to_the_totals() {
    let mut c = Cluster::new();
    c.at(1.0).traffic(BOTH, 1, MB);
    c.at(10.0).takes_over(1).commit();
    assert_eq!((c.events.len(), c.nodes[1].kept_aside().1), (0, 0));
    c.refresh(B, 1);
    c.at(20.0).close(B, 1, MB);
    c.at(40.0).is_one_session(MB, true);
    assert!(c.unattributed.is_empty());
}

#[test]
fn traffic_of_a_life_that_a_follower_missed_is_not_counted_in_the_next() {
    let mut c = Cluster::new();
    c.at(1.0).open(A, 1).traffic(BOTH, 1, MB).commit();
    // The server is started anew. B hears of the next life only by its refresh.
    c.at(40.0).open(A, 1).refresh(BOTH, 1).commit();
    c.at(50.0).takes_over(1).close(B, 1, 0);
    c.at(90.0).commit();
    assert_eq!(c.bytes_told(), MB, "{:#?}", c.told());
}
