//! turnhook's side of a history: gaps, snapshots, commits and crashes.

use std::collections::BTreeSet;

use turnhook_reducer::{
    Reducer, Stats,
    message::AllocationId,
    source::{Gap, GapReason},
    time::Timestamp,
};

use super::{
    history::Loss,
    run::{Manner, Mark, REALM, Run, status},
};
use crate::world::identity;

impl Run<'_> {
    pub(super) fn go_deaf(&mut self) {
        if self.deaf {
            return;
        }
        self.deaf = true;
        self.deaf_since = self.wall().0;
        self.killed = [None; 2]; // absence proves nothing now
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
            let (username, id) = (name.0.as_bytes(), AllocationId(name.1));
            let now = self.clock;
            let Some(key) = self.keys.get_mut(&name) else {
                continue;
            };
            if !self.reducer.snapshot_wants(REALM, username, id) {
                continue;
            }
            let idle = (now - key.touched_at) / 1000;
            key.touched_at = now; // GET resets it (trap 21)
            let opened = self
                .reducer
                .snapshot_key(at, REALM, username, id, status(&key.grant), Some(idle));
            if opened {
                self.uncommitted
                    .push((key.life, Mark::Snapshot, self.reducer.now().0));
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
        self.outcome.events.extend(output.events);
        self.outcome.unattributed.extend(output.unattributed);
        self.outcome.notices.extend(output.notices);
        self.outcome.changes.extend(output.changes);
        self.committed_at = self.reducer.now();
        for (life, mark, at) in self.uncommitted.drain(..) {
            let heard = &mut self.fleet.lives[life].heard;
            heard.at.push(at);
            match mark {
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
        let was_deaf = self.deaf;
        self.go_deaf();
        self.restore();
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
        self.reducer = Reducer::restore(
            identity(),
            self.history.setting.rules.clone(),
            self.committed_at,
            rows,
        )
        .unwrap();
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
        if !n.is_multiple_of(every) || self.deaf || self.snapshot.is_some() || self.reducer.kept_aside().1 > 0
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
    }
}
