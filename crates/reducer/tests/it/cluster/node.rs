//! One turnhook of the cluster.

use std::collections::{BTreeSet, VecDeque};

use turnhook_reducer::{
    Reducer, ServerRef,
    message::{AllocationId, Kind, Leg, Message},
    source::{Gap, GapReason},
    time::Timestamp,
    usage::Counters,
};

use super::{
    ears::Ears,
    history::CommitFate,
    store::{Batch, Store},
};
use crate::model::{
    coturn::{Said, Word},
    run::{Mark, Outcome},
    wire::{REALM, status},
};
use crate::world::START;

pub(crate) struct Node {
    pub(crate) n: usize,
    pub(crate) skew: u64,
    /// `None`: the process is dead.
    pub(crate) reducer: Option<Reducer>,
    pub(crate) epoch: Option<u64>,
    pub(crate) queue: VecDeque<(u64, Said)>,
    pub(crate) deaf: bool,
    pub(crate) deaf_since: u64,
    pub(crate) paused_since: Option<u64>,
    pub(crate) lagging_since: Option<u64>,
    pub(crate) dead_since: u64,
    pub(crate) next_confirm: u64,
    pub(crate) next_beat: u64,
    pub(crate) next_full: u64,
    /// The clock of its last commit that is known to have succeeded, or of what it last compared with.
    pub(crate) committed: Timestamp,
    pub(crate) batch: Option<Batch>,
    pub(crate) fate: Option<CommitFate>,
    /// What it heard that is not committed.
    pub(crate) marks: Vec<(usize, Mark)>,
    /// Lives that it knew when it had not compared for too long: as a follower it keeps none of them.
    doubted: BTreeSet<usize>,
    pub(crate) known: BTreeSet<usize>,
    /// Until when what it hears may have waited for as long as it could have been told and forgotten.
    stale_until: u64,
    resumed_at: u64,
    /// When it last renewed its lease.
    pub(crate) beaten_at: u64,
}

impl Node {
    pub(crate) fn new(n: usize, skew: u64) -> Node {
        Node {
            n,
            skew,
            reducer: None,
            epoch: None,
            queue: VecDeque::new(),
            deaf: true,
            deaf_since: 0,
            paused_since: None,
            lagging_since: None,
            dead_since: 0,
            next_confirm: 0,
            next_beat: 0,
            next_full: 0,
            committed: Timestamp(0),
            batch: None,
            fate: None,
            marks: Vec::new(),
            doubted: BTreeSet::new(),
            known: BTreeSet::new(),
            stale_until: 0,
            resumed_at: 0,
            beaten_at: 0,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.reducer.is_some() && self.paused_since.is_none()
    }

    pub(crate) fn wall(&self, clock: u64) -> Timestamp {
        Timestamp(clock + self.skew)
    }

    /// Reads the rows, then subscribes.
    pub(crate) fn start(&mut self, reducer: Reducer, clock: u64) {
        let mut reducer = reducer;
        self.committed = reducer.now();
        reducer.follow(self.committed);
        self.reducer = Some(reducer);
        self.queue.clear();
        self.deaf = true;
        self.deaf_since = self.committed.0.min(clock);
        self.next_confirm = clock + 20_000;
        self.hear(clock, GapReason::Restart);
    }

    pub(crate) fn crash(&mut self, clock: u64) {
        let n = (self.n, self.skew);
        *self = Node::new(n.0, n.1);
        self.dead_since = clock;
    }

    pub(crate) fn go_deaf(&mut self, clock: u64) {
        if self.deaf || self.paused_since.is_some() {
            return;
        }
        let at = self.wall(clock);
        if let Some(reducer) = self.reducer.as_mut() {
            self.deaf = true;
            self.deaf_since = clock;
            self.queue.clear();
            reducer.deaf(at);
        }
    }

    pub(crate) fn hear(&mut self, clock: u64, reason: GapReason) {
        if !self.deaf || self.paused_since.is_some() {
            return;
        }
        let at = self.wall(clock);
        let from = Timestamp(self.deaf_since + self.skew);
        if let Some(reducer) = self.reducer.as_mut() {
            self.deaf = false;
            reducer.hearing(at);
            let gap = Gap {
                from,
                to: at,
                reason,
                server: None,
            };
            reducer.gap(at, &gap);
        }
    }

    /// It stood still: a gap from its start, before anything that has waited.
    pub(crate) fn resume(&mut self, clock: u64) {
        let Some(since) = self.paused_since.take() else {
            return;
        };
        let (from, to) = (Timestamp(since + self.skew), self.wall(clock));
        self.resumed_at = clock;
        if clock > since + 20_000 {
            self.stale_until = clock + 16_000;
        }
        if let Some(reducer) = self.reducer.as_mut()
            && clock > since + 1000
        {
            let gap = Gap {
                from,
                to,
                reason: GapReason::Stall,
                server: None,
            };
            reducer.gap(from, &gap);
        }
    }

    pub(crate) fn take_messages(&mut self, clock: u64, ears: &mut Ears) {
        let at = self.wall(clock);
        let Some(reducer) = self.reducer.as_mut() else {
            return;
        };
        for (said_at, said) in self.queue.drain(..) {
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
            let used = reducer.message(at, ServerRef::UNKNOWN, &message);
            if ears.trace {
                eprintln!(
                    "{} node {} {:?} {} {:?} used {used}",
                    clock - START,
                    self.n,
                    self.epoch,
                    said.key.id,
                    said.word
                );
            }
            if let Some(life) = said
                .life
                .filter(|_| clock > said_at + 4_000 || clock < self.resumed_at + 16_000)
            {
                ears.late.insert(life);
            }
            let report = matches!(&said.word, Word::Traffic(_, c) if *c != Counters::default());
            if let Some(life) = said.life.filter(|_| report) {
                ears.heard(self.n, life, Mark::Report, reducer.now().0);
            }
            if let Some((life, mark)) = said.life.zip(mark) {
                ears.heard(self.n, life, mark, reducer.now().0);
                self.known.insert(life);
                if clock < self.stale_until {
                    self.doubted.insert(life);
                }
                if self.epoch.is_some() || !self.doubted.contains(&life) {
                    self.marks.push((life, mark));
                }
            }
        }
    }

    /// What it heard is no longer sure to be told: it did not compare for too long.
    pub(crate) fn doubt(&mut self, store: &Store) {
        if store.clock.since(self.committed) > 40_000 {
            self.marks.clear();
            self.doubted.clone_from(&self.known);
        }
        self.committed = self.committed.max(store.clock);
    }

    pub(crate) fn confirm(&mut self, store: &Store, clock: u64) {
        self.next_confirm = clock + 20_000;
        self.doubt(store);
        if let Some(reducer) = self.reducer.as_mut() {
            reducer.confirm(store.clock, store.confirming()).unwrap();
            let output = reducer.drain(true);
            assert!(output.events.is_empty() && output.changes.is_empty() && output.unattributed.is_empty());
        }
    }

    pub(crate) fn take_over(
        &mut self,
        committed: Reducer,
        epoch: u64,
        store: &Store,
        clock: u64,
        ears: &mut Ears,
        barrier: bool,
    ) {
        let at = self.wall(clock);
        if barrier {
            // All that was published before the rows were read is heard first.
            self.lagging_since = None;
            self.take_messages(clock, ears);
        }
        self.doubt(store);
        let Some(follower) = self.reducer.take() else {
            return;
        };
        if ears.trace {
            eprintln!(
                "{} node {} takes over, following {follower:#?} committed {committed:#?}",
                clock - START,
                self.n
            );
        }
        self.reducer = Some(follower.take_over(committed, at));
        if ears.trace {
            eprintln!("took over {:#?}", self.reducer.as_ref().unwrap());
        }
        self.epoch = Some(epoch);
        self.beaten_at = clock;
        self.next_beat = clock + 2_000;
        self.next_full = clock;
        self.batch = None;
        if let Some(reducer) = self.reducer.as_mut().filter(|_| barrier) {
            reducer.caught_up();
        }
    }

    /// The lease is lost: it follows, with all that it knows.
    pub(crate) fn step_down(&mut self, outcome: &mut Outcome, clock: u64) {
        self.epoch = None;
        if let Some(batch) = self.batch.take() {
            self.marks.extend(batch.marks);
        }
        self.fate = None;
        self.next_confirm = clock + 5_000;
        let committed = self.committed;
        self.note_stats(outcome);
        if let Some(reducer) = self.reducer.as_mut() {
            reducer.follow(committed);
            reducer.snapshot_ended(reducer.now());
        }
    }

    pub(crate) fn note_stats(&self, outcome: &mut Outcome) {
        if let Some(reducer) = &self.reducer {
            outcome.tombstones_evicted += reducer.stats().tombstones_evicted;
            outcome.overcounted += reducer.stats().overcounted;
        }
    }

    /// A leader's commit. Repeats the one whose outcome it does not know.
    pub(crate) fn commit(&mut self, store: &mut Store, clock: u64, ears: &mut Ears, outcome: &mut Outcome) {
        let Some(epoch) = self.epoch else { return };
        if store.down {
            return;
        }
        if self.batch.is_none() {
            let all = clock >= self.next_full;
            let Some(reducer) = self.reducer.as_mut() else {
                return;
            };
            if !all && !reducer.is_pending() && self.marks.is_empty() {
                return;
            }
            if all {
                self.next_full = clock + 5_000;
            }
            self.batch = Some(Batch {
                id: ears.next_batch(),
                output: reducer.drain(all),
                clock: reducer.now(),
                marks: std::mem::take(&mut self.marks),
            });
        }
        let fate = self.fate.take();
        if fate == Some(CommitFate::Lost) {
            return;
        }
        let Some(batch) = self.batch.as_mut() else { return };
        if ears.trace {
            eprintln!(
                "{} node {} commits {:?} {:?} clock {}",
                clock - START,
                self.n,
                batch
                    .output
                    .events
                    .iter()
                    .map(crate::world::describe)
                    .collect::<Vec<_>>(),
                batch.output.unattributed,
                batch.clock.0 - START
            );
        }
        if store.commit(self.n, epoch, batch, outcome).is_err() {
            return self.step_down(outcome, clock);
        }
        if fate == Some(CommitFate::Unheard) {
            ears.promise(self.n, &batch.marks);
            return;
        }
        if let Some(batch) = self.batch.take() {
            ears.promise(self.n, &batch.marks);
            self.committed = batch.clock;
        }
    }
}
