//! Plays a history: from coturn, over a lossy way, into a reducer, and into rows that outlive it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use turnhook_reducer::{
    Notice, Reducer, ServerRef,
    event::{SessionEvent, Unattributed},
    rules::Rules,
    source::{Gap, GapReason},
    state::{Change, Table},
    time::Timestamp,
    usage::Billable,
};

use super::{
    coturn::{Fleet, Flow, Grant, Said, THREADS},
    history::{Fate, History, Step},
    wire::Name,
};
use crate::world::{START, identity};

/// How long a `direct` source waits before it believes that a server has stopped.
const STOPPED_AFTER: u64 = 5_000;
/// A history is shorter than a tombstone's life: what comes later than that is told twice.
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
    /// A report that is not zero.
    Report,
    ClientTotal,
    PeerTotal,
    Snapshot,
}

/// A server's connections are away, since when by the wall clock, and when the source will say so.
#[derive(Clone, Debug)]
pub(super) struct Absence {
    pub(super) name: String,
    pub(super) since: u64,
    pub(super) told_at: u64,
}

pub(crate) struct Run<'h> {
    pub(super) history: &'h History,
    pub(super) rules: Rules,
    pub(super) manner: Manner,
    pub(crate) fleet: Fleet,
    pub(super) reducer: Reducer,
    /// True time; how far the source's clock was put ahead of it; and how far the wall clock is behind that one.
    pub(super) clock: u64,
    pub(super) ahead: u64,
    pub(super) behind: u64,
    pub(super) deaf: bool,
    pub(super) deaf_since: u64,
    pub(super) absent: Vec<Absence>,
    pub(super) keys: BTreeMap<Name, StatusKey>,
    pub(super) snapshot: Option<BTreeSet<Name>>,
    /// Copies on their way, and when they come.
    pub(super) echoes: VecDeque<(u64, Said)>,
    pub(super) uncommitted: Vec<(usize, Mark, u64)>,
    pub(super) committed_at: Timestamp,
    pub(super) rows: BTreeMap<(Table, u64), Vec<u8>>,
    pub(crate) outcome: Outcome,
    /// What happened, in words, where somebody reads it.
    pub(super) diary: Option<Vec<String>>,
}

/// Plays a history to its end, when everything is over.
pub(crate) fn play(history: &History, manner: Manner) -> Run<'_> {
    play_by(history, manner, history.setting.rules.billable)
}

/// The same, with another rule of what is billed.
pub(crate) fn play_by(history: &History, manner: Manner, billable: Billable) -> Run<'_> {
    let mut run = Run::new(history, manner, billable);
    run.play();
    run
}

impl<'h> Run<'h> {
    pub(super) fn new(history: &'h History, manner: Manner, billable: Billable) -> Run<'h> {
        let setting = &history.setting;
        let rules = Rules {
            billable,
            ..setting.rules.clone()
        };
        let mut fleet = Fleet::new(setting.direct, setting.addresses);
        fleet.peer_messages = setting.peer_messages;
        Run {
            history,
            manner,
            fleet,
            reducer: Reducer::new(identity(), rules.clone()),
            rules,
            clock: START,
            ahead: 0,
            behind: 0,
            deaf: false,
            deaf_since: START,
            absent: Vec::new(),
            keys: BTreeMap::new(),
            snapshot: None,
            echoes: VecDeque::new(),
            uncommitted: Vec::new(),
            committed_at: Timestamp(START),
            rows: BTreeMap::new(),
            outcome: Outcome::default(),
            diary: None,
        }
    }

    pub(super) fn play(&mut self) {
        self.reducer.hearing(Timestamp(START));
        for server in 0..2 {
            self.threads_of(server, true);
        }
        for (n, step) in self.history.steps().enumerate() {
            self.step(step);
            if (n + 1) % self.history.setting.commit_every == 0 {
                self.commit(false);
            }
            self.interrupt(n + 1);
            self.check_bounds();
        }
        self.finish();
    }

    /// By the source's clock, which never goes back.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.clock + self.ahead)
    }

    /// The same moment by the wall clock, as it is told.
    pub(super) fn wall(&self, at: Timestamp) -> u64 {
        at.0 - self.behind
    }

    /// The time of an input. Deadlines before it have fired, whichever way.
    pub(super) fn at(&mut self) -> Timestamp {
        let at = self.now();
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
        if let Some(due) = self.reducer.next_deadline() {
            assert!(due >= self.reducer.now(), "a deadline lies in the past");
        }
        let (tombstones, unconfirmed) = self.reducer.kept_aside();
        assert!(
            tombstones <= self.rules.tombstone_limit,
            "{tombstones} tombstones"
        );
        assert!(
            unconfirmed <= self.rules.unconfirmed_limit,
            "{unconfirmed} unconfirmed"
        );
    }

    fn step(&mut self, step: &Step) {
        let now = self.clock;
        self.note(|| format!("{step:?}"));
        match *step {
            Step::Wait(millis) => self.wait_until(now + millis),
            Step::Open(opening) => self.fleet.open(now, &opening),
            Step::Forge {
                server,
                thread,
                user,
                load,
            } => self.fleet.forge(server.into(), thread.into(), user, &load),
            Step::Carry { life, load, report } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.carry(life, &load);
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
            Step::AskDeletion { life, mobile, fate } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.ask_deletion(now, life, mobile, fate);
                }
            }
            Step::Close { life, fates } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.close(life, fates);
                }
            }
            Step::ClaimRealm { life, claim } => {
                if let Some(life) = self.fleet.pick(life) {
                    self.fleet.lives[life].claim = Some(claim);
                }
            }
            Step::Kill { server } => self.kill(server.into()),
            Step::Restart { server } => self.restart(server.into()),
            Step::Readdress { server } => self.readdress(server.into()),
            Step::Hold { server, thread } => self.flow(server.into(), thread.into(), Flow::Held),
            Step::Wedge { server, thread } => self.flow(server.into(), thread.into(), Flow::Wedged),
            Step::Flow { server, thread } => self.flow(server.into(), thread.into(), Flow::Free),
            Step::Deaf => self.go_deaf(),
            Step::Hear => self.hear_again(GapReason::Reconnect),
            Step::SnapshotBegin => self.begin_snapshot(),
            Step::SnapshotEnd => self.end_snapshot(),
            Step::Crash(loss) => self.crash(loss),
            Step::ClockBack(seconds) => self.put_back(u64::from(seconds) * 1000),
            Step::ClockAhead(seconds) => self.put_ahead(u64::from(seconds) * 1000),
        }
        self.carry_messages();
    }

    /// Nothing takes longer than a history may.
    fn wait_until(&mut self, until: u64) {
        let until = until
            .min(START + LONGEST.saturating_sub(self.ahead))
            .max(self.clock);
        self.pass_until(until);
    }

    fn pass_until(&mut self, until: u64) {
        loop {
            let absence = self.absent.iter().map(|a| a.told_at).min();
            let echo = self.echoes.front().map(|(due, _)| *due);
            let due = self.fleet.next_due().into_iter().chain(absence).chain(echo).min();
            let Some(due) = due.filter(|due| *due <= until) else {
                break;
            };
            self.clock = self.clock.max(due);
            self.fleet.pass(self.clock);
            self.carry_messages();
            self.carry_echoes();
            let (told, waits): (Vec<_>, Vec<_>) =
                self.absent.drain(..).partition(|a| a.told_at <= self.clock);
            self.absent = waits;
            for absence in told {
                self.note(|| format!("{} has stopped", absence.name));
                let at = self.at();
                let server = self.reducer.server(absence.name.as_bytes());
                self.reducer.server_stopped(at, server, Timestamp(absence.since));
            }
        }
        self.clock = until;
        let at = self.at();
        self.reducer.advance(at);
        self.check_bounds();
    }

    pub(super) fn server_ref(&mut self, server: Option<usize>) -> ServerRef {
        match server {
            Some(server) => {
                let name = self.fleet.servers[server].name(server);
                self.reducer.server(name.as_bytes())
            }
            None => ServerRef::UNKNOWN,
        }
    }

    // What goes wrong with coturn.

    /// In a `direct` source its relay threads connect, or their connections close.
    pub(super) fn threads_of(&mut self, server: usize, connected: bool) {
        if !self.history.setting.direct || !self.fleet.servers[server].up {
            return;
        }
        for thread in 0..THREADS as u16 {
            let at = self.at();
            let server = self.server_ref(Some(server));
            if connected {
                self.reducer.thread_connected(at, server, thread);
            } else {
                self.reducer.thread_disconnected(at, server, thread);
            }
        }
    }

    fn goes_away(&mut self, server: usize) {
        if self.history.setting.direct && !self.deaf {
            self.threads_of(server, false);
            self.absent.push(Absence {
                name: self.fleet.servers[server].name(server),
                since: self.now().0,
                told_at: self.clock + STOPPED_AFTER,
            });
        }
    }

    fn kill(&mut self, server: usize) {
        if self.fleet.servers[server].up {
            self.goes_away(server);
            self.fleet.kill(server);
        }
    }

    fn restart(&mut self, server: usize) {
        self.kill(server);
        self.fleet.servers[server].up = true;
        let name = self.fleet.servers[server].name(server);
        if let Some(n) = self.absent.iter().position(|a| a.name == name) {
            let absence = self.absent.remove(n);
            let at = self.at();
            let server = self.reducer.server(name.as_bytes());
            self.reducer
                .server_restarted(at, server, Timestamp(absence.since));
        }
        if !self.deaf {
            self.threads_of(server, true);
        }
        if !self.history.setting.direct {
            self.keys.clear(); // those of the other server too (trap 10)
        }
    }

    /// The same server comes from another address; at the old one nobody is left.
    fn readdress(&mut self, server: usize) {
        if !self.history.setting.direct || !self.fleet.servers[server].up {
            return;
        }
        self.goes_away(server);
        self.fleet.servers[server].address += 1;
        if !self.deaf {
            self.threads_of(server, true);
        }
        for life in self
            .fleet
            .lives
            .iter_mut()
            // What a thread holds back of one that is over is said from there, too.
            .filter(|l| l.server == server && (l.alive || !l.heard.client_total))
        {
            life.readdressed = true;
            life.unrecognised = true;
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
                server: Some(self.fleet.servers[server].name(server).into_bytes().into()),
            };
            self.reducer.gap(at, &gap);
            self.note_gap();
        }
    }

    /// All that is open ends, and is heard of or expires; then all that is remembered is forgotten.
    fn finish(&mut self) {
        self.note(|| "the end".into());
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
        self.pass_until(self.clock + self.history.setting.echo);
        for server in 0..2 {
            self.kill(server);
        }
        self.commit(false);
        self.pass_until(self.clock + 8 * 3_600_000);
        self.commit(false);
        assert_eq!(self.reducer.open_allocations(), 0, "an allocation never ends");
        assert_eq!(self.reducer.open_sessions(), 0, "a session never ends");
        self.pass_until(self.clock + 48 * 3_600_000);
        self.commit(true);
        if self.reducer.reports_peer_leg().is_some() {
            assert_eq!(self.reducer.next_deadline(), None, "something waits for ever");
            let left: Vec<_> = self.rows.keys().filter(|(t, _)| *t != Table::Source).collect();
            assert!(left.is_empty(), "rows stay: {left:?}");
        } // else what it is that was relayed waits for the day when that is known
        assert_eq!(self.reducer.kept_aside(), (0, 0));
        self.note_stats();
    }
}
