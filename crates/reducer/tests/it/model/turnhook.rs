//! turnhook's side of a history: gaps, snapshots, commits and crashes.

use std::collections::BTreeSet;

use turnhook_reducer::{
    Reducer, Stats,
    message::AllocationId,
    source::{Gap, GapReason},
    time::Timestamp,
};

use super::{
    coturn::Server,
    history::Loss,
    run::{Manner, Mark, Run},
    wire::status,
};
use crate::world::{START, describe, identity};

/// The longest that a history may take by the source's clock, in milliseconds.
const LONGEST_LEAP: u64 = 10 * 3_600_000;

impl Run<'_> {
    pub(super) fn go_deaf(&mut self) {
        if self.deaf {
            return;
        }
        self.deaf = true;
        self.deaf_since = self.now().0;
        for server in 0..2 {
            self.threads_of(server, false);
        }
        self.absent.clear(); // absence proves nothing now
        self.note_gap();
        self.snapshot = None;
        let at = self.at();
        self.reducer.snapshot_ended(at);
        self.reducer.deaf(at);
    }

    pub(super) fn hear_again(&mut self, reason: GapReason) {
        if !self.deaf {
            return;
        }
        self.deaf = false;
        let at = self.at();
        self.reducer.hearing(at);
        let gap = Gap {
            from: Timestamp(self.deaf_since),
            to: at,
            reason,
            server: None,
        };
        self.reducer.gap(at, &gap);
        for server in 0..2 {
            self.threads_of(server, true);
        }
    }

    pub(super) fn begin_snapshot(&mut self) {
        if self.history.setting.direct || self.deaf || self.snapshot.is_some() {
            return;
        }
        let at = self.at();
        self.reducer.snapshot_began(at);
        self.snapshot = Some(self.keys.keys().cloned().collect());
    }

    pub(super) fn end_snapshot(&mut self) {
        for name in self.snapshot.take().into_iter().flatten() {
            let at = self.at();
            let (realm, username, id) = (name.0.as_bytes(), name.1.as_bytes(), AllocationId(name.2));
            let now = self.clock;
            let Some(key) = self.keys.get_mut(&name) else {
                continue;
            };
            if !self.reducer.snapshot_wants(realm, username, id) {
                continue;
            }
            let idle = (now - key.touched_at) / 1000;
            key.touched_at = now; // GET resets it (trap 21)
            let opened = self
                .reducer
                .snapshot_key(at, realm, username, id, status(&key.grant), Some(idle));
            if opened {
                let life = key.life;
                let at = self.wall(self.reducer.now());
                self.uncommitted.push((life, Mark::Snapshot, at));
            }
        }
        let at = self.at();
        self.reducer.snapshot_ended(at);
    }

    pub(crate) fn commit(&mut self, all: bool) {
        let output = self.reducer.drain(all);
        if all {
            assert!(!self.reducer.is_pending());
        }
        let mut seen = BTreeSet::new();
        for change in &output.changes {
            assert!(
                seen.insert((change.table, change.key)),
                "two changes for a row in one commit"
            );
            match &change.value {
                Some(value) => self.rows.insert((change.table, change.key), value.clone()),
                None => self.rows.remove(&(change.table, change.key)),
            };
        }
        for event in &output.events {
            self.note(|| format!("   tells: {}", describe(event)));
        }
        for record in &output.unattributed {
            self.note(|| format!("   records: {record:?}"));
        }
        self.outcome.events.extend(output.events);
        self.outcome.unattributed.extend(output.unattributed);
        self.outcome.notices.extend(output.notices);
        self.outcome.changes.extend(output.changes);
        self.committed_at = self.reducer.now();
        for (life, mark, at) in self.uncommitted.drain(..) {
            let heard = &mut self.fleet.lives[life].heard;
            if !matches!(mark, Mark::Report) {
                heard.at.push(at);
            }
            match mark {
                Mark::Report => heard.report = true,
                Mark::New => heard.new = true,
                Mark::Other => heard.other = true,
                Mark::ClientTotal => (heard.client_total, heard.other) = (true, true),
                Mark::PeerTotal => (heard.peer_total, heard.other) = (true, true),
                Mark::Snapshot => {}
            }
        }
    }

    pub(super) fn crash(&mut self, loss: Loss) {
        match loss {
            Loss::Nothing => self.commit(true),
            Loss::Progress => self.commit(false),
            Loss::Uncommitted => {}
        }
        if !matches!(loss, Loss::Nothing) {
            for life in &mut self.fleet.lives {
                life.missed = true;
                life.asked_at = None;
                life.guess_down();
            }
        }
        // Which connections a server had is not known any more: one that has come from another address is another.
        for life in self.fleet.lives.iter_mut().filter(|l| l.unrecognised) {
            life.missed = true;
        }
        let was_deaf = self.deaf;
        self.go_deaf();
        self.restore();
        self.tell_wall_clock();
        if !was_deaf {
            self.hear_again(GapReason::Restart);
        }
    }

    pub(super) fn restore(&mut self) {
        self.note_stats();
        self.uncommitted.clear();
        let rows = self
            .rows
            .iter()
            .map(|((table, key), value)| (*table, *key, value));
        self.reducer = Reducer::restore(identity(), self.rules.clone(), self.committed_at, rows).unwrap();
    }

    /// The wall clock was put ahead. Past the source's clock, that is anchored anew, and what may have been missed is a
    /// gap.
    pub(super) fn put_ahead(&mut self, millis: u64) {
        self.clock += 1;
        // Copies that are on their way come before: what is remembered of the ended is forgotten by this clock.
        for (due, _) in &mut self.echoes {
            *due = self.clock;
        }
        self.carry_echoes();
        self.clock += 1;
        let from = self.at();
        let caught_up = millis.min(self.behind);
        self.behind -= caught_up;
        // A history must not take longer than tombstones are kept, by this clock either.
        let room = LONGEST_LEAP.saturating_sub(from.0.saturating_sub(START));
        let leap = (millis - caught_up).min(room);
        if leap > 0 {
            self.ahead += leap;
            let gap = Gap {
                from,
                to: self.now(),
                reason: GapReason::ClockStep,
                server: None,
            };
            self.reducer.gap(from, &gap);
        }
        self.note_gap();
        self.tell_wall_clock();
    }

    /// The wall clock was put back: what is told follows it.
    pub(super) fn put_back(&mut self, millis: u64) {
        self.clock += 1;
        let most = self.now().0 - START;
        self.behind = (self.behind + millis).min(most);
        self.note_gap();
        self.tell_wall_clock();
    }

    fn tell_wall_clock(&mut self) {
        let at = self.at();
        let behind = i64::try_from(self.behind).unwrap();
        self.reducer.wall_clock(at, -behind);
    }

    /// All that lives now may have said something that nobody heard, for all that turnhook knows.
    pub(super) fn note_gap(&mut self) {
        for life in self.fleet.lives.iter_mut().filter(|l| l.alive) {
            life.gap = true;
        }
    }

    /// In words, for whoever reads how a history went.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(diary) = &mut self.diary {
            let seconds = (self.clock - START) as f64 / 1000.0;
            diary.push(format!("{seconds:>9.3} {}", what()));
        }
    }

    pub(super) fn note_stats(&mut self) {
        let Stats {
            tombstones_evicted,
            overcounted,
            ..
        } = self.reducer.stats();
        self.outcome.tombstones_evicted += tombstones_evicted;
        self.outcome.overcounted += overcounted;
    }

    /// The same interruption with and without a crash. What only memory holds by design (unconfirmed ids,
    /// a snapshot under way) must be empty for that.
    pub(super) fn interrupt(&mut self, n: usize) {
        let (every, crash) = match self.manner {
            Manner::Blinking(every) => (every, false),
            Manner::Crashing(every) => (every, true),
            Manner::Plain | Manner::FineSteps => return,
        };
        // Which connections a server had is not known after a crash; one that is away is not heard of again.
        let away = |s: &Server| !s.up || s.address > 0;
        let away = self.history.setting.direct && self.fleet.servers.iter().any(away);
        if !n.is_multiple_of(every)
            || self.deaf
            || away
            || self.snapshot.is_some()
            || self.reducer.kept_aside().1 > 0
        {
            return;
        }
        self.commit(true);
        let at = self.at();
        if crash {
            self.restore();
        } else {
            self.reducer.deaf(at);
        }
        self.reducer.hearing(at);
        for server in 0..2 {
            self.threads_of(server, true);
        }
    }
}
