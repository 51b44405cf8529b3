//! Plays a history: coturn speaks, each node hears what it hears, and one of them leads.

use std::collections::BTreeMap;

use turnhook_reducer::{message::AllocationId, source::GapReason, state::Table};

use super::{
    ears::Ears,
    history::{History, Missed, Step},
    node::Node,
    store::{LEASE, Store},
};
use crate::{
    model::{
        call::{Load, Size, Way},
        coturn::{Fleet, Word},
        history::{Fate, Opening},
        run::{Mark, Outcome, StatusKey},
        wire::{REALM, status},
    },
    world::START,
};

const LONGEST: u64 = 15 * 3_600_000;
/// A dead node is started again, and a queue does not get longer.
const DEAD: u64 = 15_000;
const LAG: u64 = 10_000;
/// A store that takes no commit for longer has lost the lease with it.
const HELD: u64 = 20_000;
const RESTARTS: u64 = 18_000;

pub(crate) struct Run<'h> {
    pub(super) history: &'h History,
    pub(crate) fleet: Fleet,
    clock: u64,
    store: Store,
    nodes: Vec<Node>,
    hold_commits: bool,
    held_since: u64,
    keys: BTreeMap<(String, u64), StatusKey>,
    pub(super) ears: Ears,
    pub(crate) outcome: Outcome,
}

pub(crate) fn play(history: &History) -> Run<'_> {
    let nodes = (0..history.nodes).map(|n| Node::new(n, history.skews[n]));
    let mut run = Run {
        history,
        fleet: Fleet::new(false, history.addresses),
        clock: START,
        store: Store::new(),
        nodes: nodes.collect(),
        hold_commits: false,
        held_since: START,
        keys: BTreeMap::new(),
        ears: Ears {
            trace: std::env::var("TURNHOOK_SHOW").is_ok(),
            ..Ears::default()
        },
        outcome: Outcome::default(),
    };
    for n in 0..history.nodes {
        run.start(n);
    }
    run.work();
    for step in &history.steps {
        run.step(step);
        run.work();
    }
    run.finish();
    run
}

impl Run<'_> {
    fn start(&mut self, n: usize) {
        if self.nodes[n].reducer.is_none() && !self.store.down {
            let reducer = self.store.restore(&self.history.rules);
            self.nodes[n].start(reducer, self.clock);
        }
    }

    fn leader(&self) -> Option<usize> {
        self.nodes
            .iter()
            .position(|n| n.epoch.is_some() && n.epoch == Some(self.store.epoch))
    }

    fn crash(&mut self, n: usize) {
        if self.nodes[n].reducer.is_some() {
            if self.nodes[n].epoch.is_some() {
                self.nodes[n].note_stats(&mut self.outcome);
            }
            self.nodes[n].crash(self.clock);
        }
    }

    fn pause(&mut self, n: usize) {
        if self.nodes[n].runs() {
            self.nodes[n].paused_since = Some(self.clock);
        }
    }

    fn resume(&mut self, n: usize) {
        let (clock, fenced) = (self.clock, self.nodes[n].epoch.is_some());
        self.nodes[n].resume(clock);
        if fenced && !self.hold_commits {
            // It does not know yet that it lost its lease.
            self.nodes[n].commit(&mut self.store, clock, &mut self.ears, &mut self.outcome);
        }
        // By its own clock it may have lost it, and it does nothing more before it knows.
        if let Some(epoch) = self.nodes[n].epoch {
            if self.store.down || self.store.renew(n, epoch, clock).is_err() {
                self.nodes[n].step_down(&mut self.outcome, clock);
            } else {
                self.nodes[n].beaten_at = clock;
            }
        }
    }

    fn step(&mut self, step: &Step) {
        self.clock += 1;
        let now = self.clock;
        let node = |n: u8| usize::from(n) % self.history.nodes;
        match *step {
            Step::Wait(millis) => self.wait_until((now + millis).min(START + LONGEST)),
            Step::Open {
                second,
                user,
                keeps,
                same_remote,
                missed,
            } => {
                let opening = Opening {
                    server: second.into(),
                    thread: 0,
                    user,
                    other_realm: false,
                    keeps,
                    same_remote,
                    way: Way::Channel,
                    fate: Fate::Heard,
                };
                self.fleet.open(now, &opening);
                self.spread(&[missed]);
            }
            Step::Carry {
                life,
                up,
                down,
                strangers,
                report,
            } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.carry(life, &Load::call(up, down, strangers));
                    if let Some(missed) = report {
                        self.fleet.report(life, [Fate::Heard; 2]);
                        self.spread(&missed);
                    }
                }
            }
            Step::Refresh { life, moves, missed } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.refresh(now, life, moves, Fate::Heard);
                    self.spread(&[missed]);
                }
            }
            Step::AskDeletion { life, missed } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.ask_deletion(now, life, false, Fate::Heard);
                    self.spread(&[missed]);
                }
            }
            Step::Close { life, missed } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.close(life, [Fate::Heard; 5]);
                    self.spread(&missed);
                }
            }
            Step::Forge { user, size } => {
                self.fleet.forge(
                    0,
                    0,
                    user,
                    &Load {
                        junk: size,
                        ..Load::call(Size::Nothing, Size::Nothing, Size::Nothing)
                    },
                );
                self.spread(&[]);
            }
            Step::Restart => {
                self.fleet.kill(0);
                // Lives of one key that open within 15 s of each other are not always told apart.
                self.wait_until(now + RESTARTS);
                self.fleet.servers[0].up = true;
                self.keys.clear(); // those of the other server too (trap 10)
            }
            Step::Crash(n) => self.crash(node(n)),
            Step::Pause(n) => self.pause(node(n)),
            Step::Resume(n) => self.resume(node(n)),
            Step::Lag(n) => {
                self.nodes[node(n)].lagging_since.get_or_insert(now);
            }
            Step::CatchUp(n) => self.nodes[node(n)].lagging_since = None,
            Step::Deaf(n) => self.nodes[node(n)].go_deaf(now),
            Step::Hear(n) => self.nodes[node(n)].hear(now, GapReason::Reconnect),
            Step::HandOver => {
                if let Some(n) = self
                    .leader()
                    .filter(|n| self.nodes[*n].runs() && !self.store.down)
                {
                    self.commit(n);
                    self.store.holder = None;
                    self.nodes[n].step_down(&mut self.outcome, now);
                    self.elect(n + 1);
                }
            }
            Step::CrashLeader => {
                if let Some(n) = self.leader() {
                    self.crash(n);
                }
            }
            Step::PauseLeader => {
                if let Some(n) = self.leader() {
                    self.pause(n);
                }
            }
            Step::DeafLeader => {
                if let Some(n) = self.leader() {
                    self.nodes[n].go_deaf(now);
                }
            }
            Step::NextCommit(fate) => {
                if let Some(n) = self.leader() {
                    self.nodes[n].fate = Some(fate);
                }
            }
            Step::HoldCommits => (self.hold_commits, self.held_since) = (true, now),
            Step::LetCommits => self.hold_commits = false,
            Step::StoreDown => self.store.down = true,
            Step::StoreUp => self.store.down = false,
            Step::Snapshot => self.snapshot(),
        }
        self.spread(&[]);
    }

    fn wait_until(&mut self, until: u64) {
        while self.clock < until {
            let due = self.fleet.next_due().unwrap_or(u64::MAX);
            self.clock = due.min(self.clock + 2_000).min(until).max(self.clock + 1);
            self.fleet.pass(self.clock);
            self.spread(&[]);
            self.work();
        }
    }

    /// What was said reaches Redis, and from there the nodes that are subscribed.
    fn spread(&mut self, missed: &[Missed]) {
        for (i, said) in std::mem::take(&mut self.fleet.said).into_iter().enumerate() {
            let missed = missed.get(i).copied().unwrap_or(0);
            if let Some(life) = said.life {
                let name = (said.key.username.clone(), said.key.id);
                match &said.word {
                    Word::New(grant) | Word::Refreshed(grant) => {
                        let key = StatusKey {
                            life,
                            grant: grant.clone(),
                            touched_at: self.clock,
                        };
                        self.keys.insert(name, key);
                    }
                    Word::Deleted => {
                        self.keys.remove(&name);
                    }
                    Word::Traffic(..) | Word::Total(..) => {}
                }
            }
            for node in &mut self.nodes {
                if node.reducer.is_some() && !node.deaf && missed & (1 << node.n) == 0 {
                    node.queue.push_back((self.clock, said.clone()));
                }
            }
        }
    }

    /// Everybody does what is to be done at this time.
    fn work(&mut self) {
        let clock = self.clock;
        self.hold_commits &= clock < self.held_since + HELD;
        for n in 0..self.nodes.len() {
            if self.nodes[n].reducer.is_none() && clock >= self.nodes[n].dead_since + DEAD {
                self.start(n);
            }
            let node = &mut self.nodes[n];
            if !node.runs() {
                continue;
            }
            if node.lagging_since.is_some_and(|since| clock >= since + LAG) {
                node.lagging_since = None;
            }
            if node.lagging_since.is_none() {
                node.take_messages(clock, &mut self.ears);
            }
            let at = node.wall(clock);
            if let Some(reducer) = node.reducer.as_mut() {
                reducer.advance(at);
            }
            if node.epoch.is_some() {
                self.lead(n);
            } else if clock >= node.next_confirm && !self.store.down {
                node.confirm(&self.store, clock);
            }
        }
        self.elect(0);
    }

    fn lead(&mut self, n: usize) {
        let clock = self.clock;
        let node = &mut self.nodes[n];
        let Some(epoch) = node.epoch else { return };
        if clock >= node.next_beat && !self.store.down {
            node.next_beat = clock + 2_000;
            if self.store.renew(n, epoch, clock).is_err() {
                return node.step_down(&mut self.outcome, clock);
            }
            node.beaten_at = clock;
        }
        if clock >= node.beaten_at + LEASE {
            return node.step_down(&mut self.outcome, clock); // by its own clock
        }
        if !self.hold_commits {
            self.commit(n);
        }
    }

    fn commit(&mut self, n: usize) {
        self.nodes[n].commit(&mut self.store, self.clock, &mut self.ears, &mut self.outcome);
    }

    fn elect(&mut self, first: usize) {
        if self.store.down || !self.store.is_free(self.clock) {
            return;
        }
        let count = self.nodes.len();
        let first = first + self.store.epoch as usize;
        for n in (0..count).map(|i| (first + i) % count) {
            // Who is further behind than that must read what waits for it first.
            let waits = self.nodes[n].queue.front().map_or(self.clock, |(at, _)| *at);
            if self.nodes[n].runs() && self.nodes[n].epoch.is_none() && waits + LAG >= self.clock {
                self.take_over(n);
                return;
            }
        }
    }

    fn take_over(&mut self, n: usize) {
        let epoch = self.store.take(n, self.clock);
        let committed = self.store.restore(&self.history.rules);
        // Without tombstones nobody knows what is stale.
        let barrier = self.history.barrier || self.history.rules.tombstone_limit < 100;
        self.nodes[n].take_over(committed, epoch, &self.store, self.clock, &mut self.ears, barrier);
    }

    fn snapshot(&mut self) {
        let clock = self.clock;
        let Some(n) = self
            .leader()
            .filter(|n| self.nodes[*n].runs() && !self.nodes[*n].deaf)
        else {
            return;
        };
        let node = &mut self.nodes[n];
        let at = node.wall(clock);
        let Some(reducer) = node.reducer.as_mut() else {
            return;
        };
        reducer.snapshot_began(at);
        for ((username, id), key) in &mut self.keys {
            let (username, id) = (username.as_bytes(), AllocationId(*id));
            if !reducer.snapshot_wants(REALM, username, id) {
                continue;
            }
            let idle = (clock - key.touched_at) / 1000;
            key.touched_at = clock;
            if reducer.snapshot_key(at, REALM, username, id, status(&key.grant), Some(idle)) {
                self.ears.heard(n, key.life, Mark::Snapshot, reducer.now().0);
                node.known.insert(key.life);
            }
        }
        reducer.snapshot_ended(at);
    }

    /// One node is left, and hears the end of everything.
    fn finish(&mut self) {
        self.store.down = false;
        self.hold_commits = false;
        for n in 0..self.nodes.len() {
            self.resume(n);
            self.nodes[n].lagging_since = None;
            self.nodes[n].fate = None;
            self.nodes[n].hear(self.clock, GapReason::Reconnect);
        }
        self.work();
        self.wait_until(self.clock + 30_000);
        for life in 0..self.fleet.lives.len() {
            if self.history.clean_end && self.fleet.lives[life].alive {
                self.fleet.close(life, [Fate::Heard; 5]);
            }
        }
        self.spread(&[]);
        self.work();
        for server in 0..2 {
            self.fleet.kill(server);
        }
        let leader = self.leader().expect("somebody leads");
        for n in (0..self.nodes.len()).filter(|n| *n != leader) {
            self.nodes[n].crash(u64::MAX / 2);
        }
        for hours in [8, 48] {
            self.clock += hours * 3_600_000;
            self.store.expires_at = self.clock + 10_000;
            let node = &mut self.nodes[leader];
            let at = node.wall(self.clock);
            node.next_full = 0;
            let reducer = node.reducer.as_mut().unwrap();
            reducer.advance(at);
            assert_eq!(reducer.open_allocations(), 0, "an allocation never ends");
            assert_eq!(reducer.open_sessions(), 0, "a session never ends");
            // What was left over is told after a day.
            assert!(hours == 8 || reducer.next_deadline().is_none());
            for _ in 0..2 {
                self.commit(leader);
            }
        }
        let left: Vec<_> = self
            .store
            .rows
            .keys()
            .filter(|(t, _)| *t != Table::Source)
            .collect();
        assert!(left.is_empty(), "rows stay: {left:?}");
        self.nodes[leader].note_stats(&mut self.outcome);
    }
}
