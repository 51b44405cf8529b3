//! Work of any size is done in parts, each as small as it is asked for, and comes to the same; tables have bounds.

use std::sync::Arc;

use turnhook_reducer::{
    Notice,
    block::Blocks,
    event::UnattributedReason,
    rules::{PeerLeg, Rules},
    time::Timestamp,
};

use crate::world::{World, describe};

const OPEN: u64 = 500;
/// More than what ends with a step: a session of its own for each allocation, and what both leave.
const MOST_IN_A_STEP: usize = 4;

fn with_many_open(rules: Rules) -> World {
    let mut w = World::new(rules);
    w.server = w.reducer.server(b"10.0.0.1/-/0");
    for id in 1..=OPEN {
        w.at(id as f64 / 100.0).open(&format!("u{id}"), id);
    }
    w
}

/// Plays `rest` and what is left to do in parts of so many steps; the largest part, in allocations that it ended.
fn in_parts(w: &mut World, steps: usize, to: f64, rest: impl Fn(&mut World)) -> (usize, Vec<String>) {
    w.at(to);
    rest(w);
    // What has ended is told when its linger is over.
    w.at(to + 10.0);
    let (mut most, mut events) = (0, Vec::new());
    let mut before = w.reducer.open_allocations();
    loop {
        let more = w.reducer.work(Timestamp(w.now), steps);
        let now = w.reducer.open_allocations();
        most = most.max(before - now);
        before = now;
        events.extend(w.reducer.drain(false).events.iter().map(describe));
        if !more {
            return (most, events);
        }
    }
}

#[test]
fn a_server_that_stops_with_many_open_is_ended_in_parts() {
    let rules = || Rules {
        direct: true,
        peer_leg: PeerLeg::Reported,
        ..Rules::default()
    };
    let stops = |w: &mut World| {
        let (at, since) = (Timestamp(w.now), Timestamp(w.now - 5_000));
        w.reducer.server_stopped(at, w.server, since);
    };
    let (_, at_once) = in_parts(&mut with_many_open(rules()), usize::MAX, 100.0, stops);
    let (most, events) = in_parts(&mut with_many_open(rules()), 10, 100.0, stops);
    assert!(most <= 10 * MOST_IN_A_STEP, "{most} in a part of 10 steps");
    assert_eq!(events, at_once);
    assert_eq!(
        events.iter().filter(|e| e.contains("session.end")).count(),
        OPEN as usize
    );
}

/// Who is blocked says nothing of how those end whose server has stopped: they go on ending in parts.
#[test]
fn who_is_blocked_while_a_server_is_being_ended_ends_nothing_at_once() {
    let rules = || Rules {
        direct: true,
        peer_leg: PeerLeg::Reported,
        ..Rules::default()
    };
    let stops = |w: &mut World| {
        let at = Timestamp(w.now);
        w.reducer.server_stopped(at, w.server, at);
    };
    let world = || {
        let mut w = with_many_open(rules());
        w.at(10.0).traffic("u1", 1, 10, 1_000_000);
        let here = w.server;
        w.server = w.reducer.server(b"10.0.0.2/-/0");
        w.at(20.0).open("elsewhere", 1000);
        w.server = here;
        w
    };
    let (_, at_once) = in_parts(&mut world(), usize::MAX, 100.0, stops);

    let mut w = world();
    let all: Vec<String> = (1..=OPEN).map(|id| format!("u{id}")).collect();
    let mut blocks = Blocks::default();
    for user in all.iter().map(String::as_str).chain(["elsewhere"]) {
        blocks.insert(None, user.as_bytes(), "balance".into());
    }
    w.reducer.set_blocks(Timestamp(w.now), Arc::new(blocks.clone()));
    w.reducer.look_on(usize::MAX);
    let named = w.reducer.take_to_end();
    assert_eq!(named.len(), OPEN as usize + 1);
    let session = w.events[0].session_id;

    w.at(100.0);
    let now = Timestamp(w.now);
    stops(&mut w);
    assert!(w.reducer.work(now, 10));
    let open = w.reducer.open_allocations();
    assert!(open > OPEN as usize / 2);
    w.reducer.set_blocks(now, Arc::new(blocks));
    w.reducer.look_on(usize::MAX);
    let again = w.reducer.take_to_end();
    for to_end in &named {
        let may = w.reducer.ending(now, to_end, 2_000) && w.reducer.saying(to_end);
        assert_eq!(may, &*to_end.username == b"elsewhere");
    }
    w.reducer.end_session(now, session, &"asked".into());
    w.reducer.look_on(usize::MAX);
    assert!(w.reducer.take_to_end().is_empty(), "it is over with its server");
    assert_eq!(w.reducer.open_allocations(), open);
    assert!(w.reducer.is_ending());
    let again: Vec<_> = again.iter().map(|to_end| &*to_end.username).collect();
    assert_eq!(again, [b"elsewhere"], "the others are over, and merely wait");

    let (_, events) = in_parts(&mut w, 10, 100.0, |_| {});
    assert_eq!(events, at_once);
}

/// However many are open, whoever looks for those of a few users does so in parts; messages come in between.
#[test]
fn those_who_are_to_be_ended_are_looked_for_in_parts() {
    let mut w = with_many_open(Rules::default());
    let session = w.events[0].session_id;
    let mut blocks = Blocks::default();
    for user in ["u3", "u400", "later", "u499"] {
        blocks.insert(None, user.as_bytes(), "balance".into());
    }
    let (now, blocks) = (Timestamp(w.now), Arc::new(blocks));
    w.reducer.set_blocks(now, Arc::clone(&blocks));
    assert!(w.reducer.take_to_end().is_empty());
    assert!(w.reducer.look_on(10) && w.reducer.is_looking());
    let named = |w: &mut World| -> Vec<u64> { w.reducer.take_to_end().iter().map(|t| t.id.0).collect() };
    assert_eq!(named(&mut w), [3]);
    w.open("later", 1000);
    assert_eq!(named(&mut w), [1000], "when it is heard of");
    w.close("u400", 400, 0, 0);
    // Asked for in the midst: those before it come after those behind it.
    w.reducer.end_session(now, session, &"asked".into());
    w.reducer.set_blocks(now, blocks);
    let mut parts = 1;
    while w.reducer.look_on(10) {
        parts += 1;
    }
    assert!(parts > 5, "{parts}");
    assert_eq!(named(&mut w), [499, 1000, 1, 3]);
    assert!(!w.reducer.is_looking() && !w.reducer.look_on(usize::MAX));
}

/// Tables grow while somebody looks: what was asked for in the midst is looked for everywhere all the same.
#[test]
fn a_look_goes_all_round_though_the_table_grows() {
    /// More than a table grows by at a time.
    const MORE: u64 = 20_000;
    let mut w = with_many_open(Rules::default());
    let session = w.events[0].session_id;
    let mut blocks = Blocks::default();
    blocks.insert(None, b"nobody", "balance".into());
    let now = Timestamp(w.now);
    w.reducer.set_blocks(now, Arc::new(blocks));
    assert!(w.reducer.look_on(10));
    w.reducer.end_session(now, session, &"asked".into());
    for id in OPEN + 1..=OPEN + MORE {
        w.open("later", id);
    }
    while w.reducer.look_on(10) {}
    let named: Vec<u64> = w.reducer.take_to_end().iter().map(|t| t.id.0).collect();
    assert_eq!(named, [1]);
}

#[test]
fn lifetimes_that_run_out_together_end_in_parts() {
    let nothing = |_: &mut World| {};
    let (_, at_once) = in_parts(&mut with_many_open(Rules::default()), usize::MAX, 2000.0, nothing);
    let (most, events) = in_parts(&mut with_many_open(Rules::default()), 10, 2000.0, nothing);
    assert!(most <= 10 * MOST_IN_A_STEP, "{most} in a part of 10 steps");
    assert_eq!(events, at_once);
}

#[test]
fn what_is_left_over_has_a_bound_and_the_oldest_is_on_record() {
    let mut w = World::new(Rules {
        leftover_limit: 1,
        ..Rules::default()
    });
    for user in ["ann", "bob"] {
        w.open(user, 1).open(user, 2);
        w.traffic(user, 1, 1000, 1_000_000)
            .close(user, 1, 1000, 1_000_000);
    }
    // Each has relayed a little since, in an allocation that no session holds any more.
    for (user, at) in [("ann", 100.0), ("bob", 110.0)] {
        w.at(at).traffic(user, 2, 3, 300).close(user, 2, 3, 300);
    }
    w.at(200_000.0).advance();
    let [record] = &w.unattributed[..] else {
        panic!("{:#?}", w.unattributed);
    };
    assert_eq!(
        (&*record.username, record.usage.billable_bytes),
        (&b"ann"[..], 600)
    );
    assert_eq!(record.reason, UnattributedReason::Residue);
    let told: u64 = w.events.iter().map(|e| e.usage_delta.billable_bytes).sum();
    assert_eq!(told, 2 * 2_000_000 + 600, "that of bob is told: {:#?}", w.told());
}

/// A server that opens more than it may takes nothing from another.
#[test]
fn the_bound_of_open_allocations_is_a_servers_own() {
    let mut w = World::new(Rules {
        direct: true,
        allocation_limit: 3,
        ..Rules::default()
    });
    let [greedy, other] = [&b"10.0.0.1/-/0"[..], b"10.0.0.2/-/0"].map(|name| w.reducer.server(name));
    w.server = greedy;
    for id in 1..=10 {
        w.open("mallory", id);
    }
    w.at(50.0).open("mallory", 11);
    assert_eq!(w.reducer.open_allocations(), 3);
    w.server = other;
    for id in 1..=3 {
        w.open("ann", id);
    }
    assert_eq!(w.reducer.open_allocations(), 6);
    let said = w.notices.iter().filter_map(|n| match n {
        Notice::TooManyAllocations { server } => server.as_deref(),
        _ => None,
    });
    assert_eq!(
        said.collect::<Vec<_>>(),
        [&b"10.0.0.1/-/0"[..]],
        "once, and of whom"
    );
}
