//! Plays a history: from coturn, over a lossy way, into a reducer, and into rows that outlive it.

use std::collections::{BTreeMap, BTreeSet};

use turnhook_reducer::{
    Notice, Reducer, ServerRef,
    event::{SessionEvent, Unattributed},
    message::{AllocationId, Kind, Leg, Message, Status},
    source::{Gap, GapReason},
    state::{Change, Table},
    time::Timestamp,
};

use super::{
    coturn::{Fleet, Flow, Grant, Key, Said, THREADS, Word},
    history::{Fate, History, Step},
};
use crate::world::{START, identity};

pub(crate) const REALM: &[u8] = b"example.org";
/// How long a `direct` source waits before it believes that a server has stopped.
const STOPPED_AFTER: u64 = 5_000;
/// A history is shorter than a tombstone's life: what comes later than that is told twice, and METERING.md
/// says so.
const LONGEST: u64 = 20 * 3_600_000;

/// In what manner a history is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// Time is let pass deadline by deadline, and in between.
    FineSteps,
    /// After so many steps all is committed and the source is deaf for no time at all...
    Blinking(usize),
    /// ...or turnhook crashes instead.
    Crashing(usize),
}

/// All that came out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<SessionEvent>,
    pub(crate) unattributed: Vec<Unattributed>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) changes: Vec<Change>,
    /// Of all reducers together, as far as they are asked for.
    pub(crate) tombstones_evicted: u64,
    pub(crate) overcounted: u64,
}

/// Redis's idea of an allocation.
#[derive(Clone, Debug)]
pub(crate) struct StatusKey {
    pub(crate) life: usize,
    pub(crate) grant: Grant,
    /// By coturn or by us.
    pub(crate) touched_at: u64,
}

/// What of a message counts as heard once it is committed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    New,
    Other,
    ClientTotal,
    PeerTotal,
    Snapshot,
}

pub(crate) struct Run<'h> {
    pub(super) history: &'h History,
    pub(super) manner: Manner,
    pub(crate) fleet: Fleet,
    pub(super) reducer: Reducer,
    /// True time, and how far the wall clock is behind it.
    pub(super) clock: u64,
    pub(super) behind: u64,
    pub(super) deaf: bool,
    pub(super) deaf_since: u64,
    /// When a server was killed, by the wall clock, and when the source will say so.
    pub(super) killed: [Option<(u64, u64)>; 2],
    pub(super) keys: BTreeMap<(String, u64), StatusKey>,
    pub(super) snapshot: Option<BTreeSet<(String, u64)>>,
    pub(super) uncommitted: Vec<(usize, Mark, u64)>,
    pub(super) committed_at: Timestamp,
    pub(super) rows: BTreeMap<(Table, u64), Vec<u8>>,
    pub(crate) outcome: Outcome,
}

/// Plays a history to its end, when everything is over.
pub(crate) fn play(history: &History, manner: Manner) -> Run<'_> {
    let setting = &history.setting;
    let mut run = Run {
        history,
        manner,
        fleet: Fleet::new(setting.direct, setting.addresses),
        reducer: Reducer::new(identity(), setting.rules.clone()),
        clock: START,
        behind: 0,
        deaf: false,
        deaf_since: START,
        killed: [None; 2],
        keys: BTreeMap::new(),
        snapshot: None,
        uncommitted: Vec::new(),
        committed_at: Timestamp(START),
        rows: BTreeMap::new(),
        outcome: Outcome::default(),
    };
    run.reducer.hearing(Timestamp(START));
    for (n, step) in history.steps.iter().enumerate() {
        run.step(step);
        if (n + 1) % setting.commit_every == 0 {
            run.commit(false);
        }
        run.interrupt(n + 1);
        run.check_bounds();
    }
    run.finish();
    run
}

impl Run<'_> {
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp(self.clock - self.behind)
    }

    /// The time of an input. Deadlines before it have fired, whichever way.
    pub(super) fn at(&mut self) -> Timestamp {
        let at = self.wall();
        if self.manner == Manner::FineSteps {
            while let Some(due) = self.reducer.next_deadline().filter(|due| *due < at) {
                let before = self.reducer.now();
                self.reducer
                    .advance(Timestamp(before.0 + (due.0.saturating_sub(before.0)) / 2));
                self.reducer.advance(due.plus(1));
            }
            self.reducer.advance(at);
        }
        at
    }

    fn check_bounds(&mut self) {
        let rules = &self.history.setting.rules;
        if let Some(due) = self.reducer.next_deadline() {
            assert!(due >= self.reducer.now(), "a deadline lies in the past");
        }
        let (tombstones, unconfirmed) = self.reducer.kept_aside();
        assert!(tombstones <= rules.tombstone_limit, "{tombstones} tombstones");
        assert!(
            unconfirmed <= rules.unconfirmed_limit,
            "{unconfirmed} unconfirmed"
        );
        assert!(self.reducer.open_allocations() <= self.fleet.lives.len());
    }

    fn step(&mut self, step: &Step) {
        let now = self.clock;
        match *step {
            Step::Wait(millis) => self.wait_until((now + millis).min(START + LONGEST)),
            Step::Open {
                server,
                thread,
                user,
                keeps,
                same_remote,
                fate,
            } => {
                self.fleet
                    .open(now, server.into(), thread.into(), user, keeps, same_remote, fate);
            }
            Step::Forge {
                server,
                thread,
                user,
                size,
            } => self.fleet.forge(server.into(), thread.into(), user, size),
            Step::Carry {
                life,
                up,
                down,
                strangers,
                report,
            } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.carry(life, up, down, strangers);
                    if let Some(fates) = report {
                        self.fleet.report(life, fates);
                    }
                }
            }
            Step::Refresh { life, moves, fate } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.refresh(now, life, moves, fate);
                }
            }
            Step::AskDeletion { life, fate } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.ask_deletion(now, life, fate);
                }
            }
            Step::Close { life, fates } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.close(life, fates);
                }
            }
            Step::Kill { server } => self.kill(server.into()),
            Step::Restart { server } => self.restart(server.into()),
            Step::Hold { server, thread } => self.flow(server.into(), thread.into(), Flow::Held),
            Step::Wedge { server, thread } => self.flow(server.into(), thread.into(), Flow::Wedged),
            Step::Flow { server, thread } => self.flow(server.into(), thread.into(), Flow::Free),
            Step::Deaf => self.go_deaf(),
            Step::Hear => self.hear_again(GapReason::Reconnect),
            Step::SnapshotBegin => self.begin_snapshot(),
            Step::SnapshotEnd => self.end_snapshot(),
            Step::Crash(loss) => self.crash(loss),
            Step::ClockBack(seconds) => {
                let most = self.clock - START;
                self.behind = (self.behind + u64::from(seconds) * 1000).min(most);
            }
        }
        self.carry_messages();
    }

    fn wait(&mut self, millis: u64) {
        let until = self.clock + millis;
        self.wait_until(until);
    }

    fn wait_until(&mut self, until: u64) {
        loop {
            let told = self.killed.iter().flatten().map(|(_, told_at)| *told_at).min();
            let due = self.fleet.next_due().into_iter().chain(told).min();
            let Some(due) = due.filter(|due| *due <= until) else {
                break;
            };
            self.clock = self.clock.max(due);
            self.fleet.pass(self.clock);
            self.carry_messages();
            for server in 0..2 {
                if let Some((wall, told_at)) = self.killed[server].filter(|(_, at)| *at <= self.clock) {
                    assert!(told_at <= self.clock);
                    self.killed[server] = None;
                    let at = self.at();
                    let name = self.server_ref(Some(server));
                    self.reducer.server_stopped(at, name, Timestamp(wall));
                }
            }
        }
        self.clock = until;
        let at = self.at();
        self.reducer.advance(at);
        self.check_bounds();
    }

    fn server_ref(&mut self, server: Option<usize>) -> ServerRef {
        match server {
            Some(server) => self.reducer.server(format!("10.0.0.{server}/-/0").as_bytes()),
            None => ServerRef::UNKNOWN,
        }
    }

    // What goes wrong with coturn.

    fn kill(&mut self, server: usize) {
        if !self.fleet.servers[server].up {
            return;
        }
        self.fleet.kill(server);
        if self.history.setting.direct && !self.deaf {
            self.killed[server] = Some((self.wall().0, self.clock + STOPPED_AFTER));
        }
    }

    fn restart(&mut self, server: usize) {
        self.kill(server);
        self.fleet.servers[server].up = true;
        if let Some((wall, _)) = self.killed[server].take() {
            let at = self.at();
            let name = self.server_ref(Some(server));
            self.reducer.server_restarted(at, name, Timestamp(wall));
        }
        if !self.history.setting.direct {
            self.keys.clear(); // those of the other server too (trap 10)
        }
    }

    fn flow(&mut self, server: usize, thread: usize, flow: Flow) {
        let t = &mut self.fleet.servers[server].threads[thread];
        let before = std::mem::replace(&mut t.flow, flow.clone());
        if flow != Flow::Free {
            return;
        }
        for said in std::mem::take(&mut t.held) {
            self.pass_on(&said);
        }
        if before == Flow::Wedged && self.history.setting.direct && !self.deaf {
            let at = self.at();
            let gap = Gap {
                from: Timestamp(START),
                to: at,
                reason: GapReason::Reconnect,
                server: Some(format!("10.0.0.{server}/-/0").into_bytes().into()),
            };
            self.reducer.gap(at, &gap);
        }
    }

    // The way of a message.

    fn carry_messages(&mut self) {
        for said in std::mem::take(&mut self.fleet.said) {
            let thread = &mut self.fleet.servers[said.server].threads[said.thread];
            match thread.flow {
                Flow::Free => self.pass_on(&said),
                Flow::Held => thread.held.push_back(said),
                Flow::Wedged => {}
            }
        }
    }

    /// It has reached Redis, or the listener.
    fn pass_on(&mut self, said: &Said) {
        if !self.history.setting.direct
            && let Some(life) = said.life
        {
            let name = (said.key.username.clone(), said.key.id);
            match &said.word {
                Word::New(grant) | Word::Refreshed(grant) => {
                    let grant = grant.clone();
                    let touched_at = self.clock;
                    self.keys.insert(
                        name,
                        StatusKey {
                            life,
                            grant,
                            touched_at,
                        },
                    );
                }
                Word::Deleted => {
                    self.keys.remove(&name);
                }
                Word::Traffic(..) | Word::Total(..) => {}
            }
        }
        let times = match said.fate {
            _ if self.deaf => 0,
            Fate::Lost => 0,
            Fate::Heard => 1,
            Fate::Repeated => 2,
        };
        for _ in 0..times {
            self.hear(said);
        }
    }

    fn hear(&mut self, said: &Said) {
        let at = self.at();
        let server = self.server_ref(said.key.server);
        let (kind, mark) = match &said.word {
            Word::New(grant) => (Kind::New(status(grant)), Some(Mark::New)),
            Word::Refreshed(grant) => (Kind::Refreshed(status(grant)), Some(Mark::Other)),
            Word::Deleted => (Kind::Deleted, Some(Mark::Other)),
            Word::Traffic(leg, counters) => (Kind::Traffic(*leg, *counters), None),
            Word::Total(leg, counters) => {
                let mark = match leg {
                    Leg::Client => Some(Mark::ClientTotal),
                    Leg::Peer => Some(Mark::PeerTotal),
                };
                (Kind::TotalTraffic(*leg, *counters), mark)
            }
        };
        let message = Message {
            realm: REALM,
            username: said.key.username.as_bytes(),
            id: AllocationId(said.key.id),
            kind,
        };
        self.reducer.message(at, server, &message);
        if let (Some(life), Some(mark)) = (said.life, mark) {
            self.uncommitted.push((life, mark, self.reducer.now().0));
        }
    }

    /// All that is open ends, and is heard of or expires; then all that is remembered is forgotten.
    fn finish(&mut self) {
        for server in 0..2 {
            for thread in 0..THREADS {
                self.flow(server, thread, Flow::Free);
            }
        }
        self.end_snapshot();
        self.hear_again(GapReason::Reconnect);
        let clean = self.history.setting.clean_end;
        for life in 0..self.fleet.lives.len() {
            if clean && self.fleet.lives[life].alive {
                self.fleet.close(life, [Fate::Heard; 5]);
            }
        }
        self.carry_messages();
        for server in 0..2 {
            self.kill(server);
        }
        self.commit(false);
        self.behind = 0;
        self.wait(8 * 3_600_000);
        self.commit(false);
        assert_eq!(self.reducer.open_allocations(), 0, "an allocation never ends");
        assert_eq!(self.reducer.open_sessions(), 0, "a session never ends");
        assert_eq!(self.reducer.next_deadline(), None);
        self.wait(48 * 3_600_000);
        self.commit(true);
        assert_eq!(self.reducer.kept_aside(), (0, 0));
        let left: Vec<_> = self.rows.keys().filter(|(t, _)| *t != Table::Source).collect();
        assert!(left.is_empty(), "rows stay: {left:?}");
        self.note_stats();
    }
}

pub(crate) fn status(grant: &Grant) -> Status<'_> {
    Status {
        lifetime: grant.lifetime,
        transport: grant.local.is_some().then_some(b"UDP"),
        local: grant.local.as_deref().map(str::as_bytes),
        remote: grant.remote.as_deref().map(str::as_bytes),
        ..Status::default()
    }
}

/// The key under which an event or a record tells of an allocation.
pub(crate) fn key_of(server: Option<&[u8]>, username: &[u8], id: AllocationId) -> Key {
    let server = server.map(|name| usize::from(name[7] - b'0'));
    Key {
        server,
        username: String::from_utf8(username.to_vec()).unwrap(),
        id: id.0,
    }
}
