#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::Ipv4Addr;

use super::*;

#[path = "tracker_tests/moves.rs"]
mod moves;
#[path = "tracker_tests/strangers.rs"]
mod strangers;

/// A fleet on one listener, and all that the tracker has emitted.
struct World {
    tracker: ServerTracker,
    now: u64,
    next: u64,
    /// The server that each connection named.
    names: HashMap<u64, Arc<[u8]>>,
    emitted: Vec<String>,
    /// Whether who is there is emitted, too.
    all: bool,
}

fn ip() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))
}

fn name(server: &str) -> Arc<[u8]> {
    Arc::from(server.as_bytes())
}

impl World {
    fn new() -> World {
        World {
            tracker: ServerTracker::default(),
            now: 1_000_000,
            next: 0,
            names: HashMap::new(),
            emitted: Vec::new(),
            all: false,
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp(self.now)
    }

    fn drain(&mut self) {
        let text = |s: &[u8]| String::from_utf8_lossy(s).into_owned();
        for signal in self.tracker.signals() {
            self.emitted.push(match signal {
                // Who is there is looked at by tests of its own.
                Signal::ServerConnected { .. } | Signal::ServerGone { .. } if !self.all => continue,
                Signal::ServerConnected { server, at } => format!("connected {} {}", text(&server), at.0),
                Signal::ServerGone { server, at } => format!("gone {} {}", text(&server), at.0),
                Signal::ServerReturned {
                    at,
                    server,
                    stopped_at,
                } => {
                    format!("returned {} {} {}", text(&server), at.0, stopped_at.0)
                }
                Signal::ThreadConnected { at, server, thread } => {
                    format!("+{thread} {} {}", text(&server), at.0)
                }
                Signal::ThreadDisconnected {
                    at, server, thread, ..
                } => format!("-{thread} {} {}", text(&server), at.0),
                Signal::ServerStopped { at, server } => format!("stopped {} {}", text(&server), at.0),
                Signal::ServerRestarted { at, server } => format!("restarted {} {}", text(&server), at.0),
                Signal::Gap(g) if g.reason == GapReason::TurnedAway => {
                    format!("unheard {} {}-{}", text(&g.server.unwrap()), g.from.0, g.to.0)
                }
                Signal::Gap(g) => format!("gap {} {}-{}", text(&g.server.unwrap()), g.from.0, g.to.0),
                Signal::TurnedAway(t) => format!("turned away {} {}", t.count, t.reason.as_str()),
                // On record as the source's: refusals.rs has the tests.
                Signal::Unheard(_) => continue,
                other => panic!("{other:?}"),
            });
        }
    }

    /// Lets time pass, as the deadlines ask.
    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(due) = self.tracker.deadline().filter(|d| d.0 <= end) {
            self.now = self.now.max(due.0);
            self.tracker.tick(self.at());
            self.drain();
        }
        self.now = end;
    }

    fn silent(&mut self) -> u64 {
        self.next += 1;
        self.tracker.accepted(self.next, ip(), self.at());
        self.next
    }

    fn open(&mut self, server: &str) -> u64 {
        let id = self.silent();
        assert!(self.tracker.identified(id, &name(server), self.at()));
        self.names.insert(id, name(server));
        self.drain();
        id
    }

    fn publish(&mut self, id: u64) {
        assert!(self.tracker.published(id, &self.names[&id], self.at()));
        self.drain();
    }

    fn carry(&mut self, id: u64, thread: u16) {
        self.publish(id);
        self.tracker.carries(id, thread, self.at());
        self.drain();
    }

    fn tool(&mut self, id: u64) {
        self.tracker.tool(id, self.at());
    }

    fn close(&mut self, id: u64, by: ClosedBy) {
        self.tracker.closed(id, by, self.at(), self.at());
        self.drain();
    }

    fn keys(&mut self, server: &str) {
        let id = self.silent();
        self.tracker.keys(id, &name(server), self.at());
        self.close(id, ClosedBy::Server);
    }

    /// As a real one starts: connections, in the midst of them `KEYS`, all within milliseconds.
    fn start(&mut self, server: &str, threads: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        for i in 0..threads {
            ids.push(self.open(server));
            if i % 2 == 0 {
                self.keys(server);
            }
            self.now += 2;
        }
        ids
    }

    fn close_all(&mut self, ids: &[u64], by: ClosedBy) {
        for &id in ids {
            self.close(id, by);
        }
    }

    fn emitted(&mut self) -> Vec<String> {
        std::mem::take(&mut self.emitted)
    }
}

#[test]
fn who_is_there_is_logged_once_and_who_is_gone_since_when() {
    let mut w = World::new();
    w.all = true;
    let ids = w.start("a", 3);
    let at = w.now - 6;
    assert!(w.emitted().is_empty());
    w.publish(ids[0]);
    w.publish(ids[1]);
    assert_eq!(w.emitted(), [format!("connected a {}", w.now)]);
    // One that publishes nothing, but stays.
    w.start("b", 1);
    w.pass(1_000);
    assert_eq!(w.emitted(), [format!("connected b {}", at + 6)]);
    // Gone for a moment is not gone.
    w.close_all(&ids, ClosedBy::Network);
    w.pass(4_000);
    let id = w.open("a");
    w.pass(60_000);
    assert!(w.emitted().iter().all(|t| t.starts_with("gap")));
    w.close(id, ClosedBy::Network);
    let at = w.now;
    w.pass(4_999);
    assert!(w.emitted().is_empty());
    w.pass(1);
    assert_eq!(w.emitted(), [format!("gone a {at}")]);
    let id = w.open("a");
    w.publish(id);
    assert!(w.emitted().contains(&format!("connected a {}", w.now)));
}

/// `redis-cli -n 3 PING` names a server, too.
#[test]
fn who_is_there_for_a_moment_and_says_nothing_is_not_logged() {
    let mut w = World::new();
    w.all = true;
    let id = w.open("a");
    w.pass(500);
    w.close(id, ClosedBy::Server);
    w.pass(60_000);
    assert!(w.emitted().is_empty());
}

#[test]
fn stopped_when_all_originals_close_at_once_and_stay_away() {
    let mut w = World::new();
    let ids = w.start("a", 4);
    w.pass(3_600_000);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(4_999);
    assert!(w.emitted().is_empty());
    w.pass(1);
    assert_eq!(w.emitted(), [format!("stopped a {at}")]);
    // Started again: nothing is left to be ended.
    w.start("a", 4);
    w.pass(100_000);
    assert!(w.emitted().is_empty());
}

#[test]
fn only_that_server_stops() {
    let mut w = World::new();
    let a = w.start("a", 2);
    let b = w.start("b", 2);
    w.close_all(&a, ClosedBy::Server);
    w.pass(10_000);
    assert_eq!(w.emitted().len(), 1);
    w.close_all(&b, ClosedBy::Server);
    w.pass(10_000);
    assert_eq!(w.emitted().len(), 1);
}

#[test]
fn not_stopped_when_one_comes_back() {
    let mut w = World::new();
    let ids = w.start("a", 4);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let lost = w.now;
    w.pass(120);
    w.open("a");
    w.pass(3_600_000);
    assert_eq!(w.emitted(), [format!("gap a {lost}-{}", lost + 120)]);
}

#[test]
fn the_second_cut_of_a_live_server_proves_nothing() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    w.pass(10);
    let again: Vec<u64> = (0..3).map(|_| w.open("a")).collect();
    w.pass(60_000);
    w.emitted();
    // Re-opened before: idle ones do not come back by themselves.
    w.close_all(&again, ClosedBy::Server);
    let lost = w.now;
    w.pass(113_000);
    assert!(w.emitted().is_empty());
    let id = w.open("a");
    w.publish(id);
    w.pass(1_000);
    assert_eq!(w.emitted(), [format!("gap a {lost}-{}", lost + 113_000)]);
}

#[test]
fn cut_right_after_its_start_a_live_server_is_not_taken_for_stopped_at_the_next_cut() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(200);
    w.close_all(&ids, ClosedBy::Server);
    w.pass(50);
    // Within the time of its KEYS, but a reconnect.
    let again: Vec<u64> = (0..3).map(|_| w.open("a")).collect();
    w.pass(60_000);
    w.emitted();
    w.close_all(&again, ClosedBy::Server);
    w.pass(60_000);
    assert!(w.emitted().is_empty());
}

#[test]
fn closed_by_us_or_lost_in_the_network_proves_nothing() {
    for by in [ClosedBy::Us, ClosedBy::Network] {
        let mut w = World::new();
        let ids = w.start("a", 3);
        w.pass(60_000);
        w.close(ids[0], ClosedBy::Server);
        w.close(ids[1], by);
        w.close(ids[2], ClosedBy::Server);
        w.pass(3_600_000);
        assert!(w.emitted().is_empty(), "{by:?}");
        w.start("a", 3);
        w.pass(1_000);
        assert!(w.emitted().iter().all(|t| t.starts_with("gap")), "{by:?}");
    }
}

#[test]
fn connections_that_close_one_by_one_prove_nothing() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    for id in ids {
        w.close(id, ClosedBy::Server);
        w.pass(1_500);
    }
    w.pass(60_000);
    assert!(w.emitted().is_empty());
}

#[test]
fn after_our_own_restart_nothing_is_known_of_originals() {
    let mut w = World::new();
    // A live coturn comes back to a listener that has just started: no KEYS.
    let ids: Vec<u64> = (0..3).map(|_| w.open("a")).collect();
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    w.pass(60_000);
    assert!(w.emitted().is_empty());
}

#[test]
fn restarted_within_the_time_of_coming_back() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(800);
    let ids = w.start("a", 3);
    w.pass(60_000);
    assert_eq!(w.emitted(), [format!("restarted a {at}")]);
    // The new life has originals of its own.
    w.close_all(&ids, ClosedBy::Server);
    w.pass(5_000);
    assert_eq!(w.emitted(), [format!("stopped a {}", w.now - 5_000)]);
}

#[test]
fn restarted_though_its_connections_were_no_originals() {
    let mut w = World::new();
    let ids: Vec<u64> = (0..2).map(|_| w.open("a")).collect();
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(120_000);
    w.keys("a");
    w.pass(1);
    w.open("a");
    w.pass(10_000);
    assert_eq!(w.emitted(), [format!("restarted a {at}")]);
}

#[test]
fn keys_end_nothing_while_a_connection_is_open() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    w.pass(10);
    let _again = w.open("a");
    w.pass(60_000);
    w.emitted();
    // Another process behind the same name.
    w.start("a", 3);
    w.pass(60_000);
    assert!(w.emitted().iter().all(|t| t.starts_with("gap")));
}

#[test]
fn one_that_has_not_said_whose_it_is_may_be_the_servers_for_a_while() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(4_000);
    let silent = w.silent();
    w.pass(1_500);
    assert!(w.emitted().is_empty());
    assert!(w.tracker.identified(silent, &name("a"), w.at()));
    w.pass(60_000);
    assert_eq!(w.emitted(), [format!("gap a {at}-{}", at + 5_500)]);
}

/// A health check is open whenever one looks: now an old one, now a new one.
#[test]
fn a_death_is_noticed_whoever_is_silent_beside_it() {
    // Since before, and for ever.
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.silent();
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(5_000);
    assert_eq!(w.emitted(), [format!("stopped a {at}")]);

    // Since then, and for ever: no coturn takes so long to say whose it is.
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    w.pass(4_900);
    w.silent();
    w.pass(4_999);
    assert!(w.emitted().is_empty());
    w.pass(1);
    assert_eq!(w.emitted(), [format!("stopped a {at}")]);

    // A new one every second, each for two.
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    w.close_all(&ids, ClosedBy::Server);
    let at = w.now;
    for _ in 0..12 {
        let silent = w.silent();
        w.pass(1_000);
        let other = w.silent();
        w.pass(1_000);
        w.close(silent, ClosedBy::Server);
        w.close(other, ClosedBy::Server);
    }
    assert_eq!(w.emitted(), [format!("stopped a {at}")]);

    // It turns out to be another's, or a tool: that is looked at at once.
    for tool in [true, false] {
        let mut w = World::new();
        let ids = w.start("a", 3);
        w.pass(60_000);
        w.close_all(&ids, ClosedBy::Server);
        let at = w.now;
        w.pass(4_900);
        let silent = w.silent();
        w.pass(1_000);
        if tool {
            w.tool(silent);
        } else {
            assert!(w.tracker.identified(silent, &name("b"), w.at()));
        }
        w.pass(1);
        assert_eq!(w.emitted(), [format!("stopped a {at}")], "{tool}");
    }
}

#[test]
fn gaps_of_connections_that_come_back_together_are_one() {
    let mut w = World::new();
    let ids = w.start("a", 3);
    w.pass(60_000);
    w.close(ids[0], ClosedBy::Server);
    let from = w.now;
    w.pass(400);
    w.close(ids[1], ClosedBy::Network);
    w.pass(100);
    w.open("a");
    w.pass(500);
    w.open("a");
    let to = w.now;
    w.pass(60_000);
    assert_eq!(w.emitted(), [format!("gap a {from}-{to}")]);
}
