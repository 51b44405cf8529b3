//! What a source has to write down: one commit at a time, of whatever has piled up meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::{error, warn};
use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};
use turnhook_store::{Commit, Error};

use super::{LoopState, SourceTask};
use crate::engine::{
    committing::{Failure, Made, Step, make, ready},
    deadline::Deadline,
    role::Role,
    slices::Slice,
    supervisor::Ended,
};

/// Between attempts at a commit that failed.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// How long nothing may happen, in milliseconds, before the time is committed alone: after a `kill -9` so much more
/// counts as a gap.
const SAVE_TIME: u64 = 60_000;

/// Rows that are made in one slice: a few milliseconds.
const ROWS: usize = 8192;

impl SourceTask {
    pub(super) async fn start_commit(&mut self, current: &mut LoopState, everything: bool) {
        let Some(committing) = self.role.committing_mut() else {
            // Whatever it decided is not emitted.
            drop(self.reducer.drain(everything));
            return;
        };
        let commit_at = committing.commit_at.take();
        if committing.under_way.is_some() || committing.again_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        committing.again_at = None;
        if committing.commit.is_none() {
            // What happens until the store begins its next commit is part of this one, and need not wait for one more.
            // That time is asked for once, however often others move it on.
            let waits = (self.reducer.is_pending() || !committing.gaps.is_empty())
                && !self.enforcing.recording.waits_for_a_commit();
            committing.commit_at = commit_at
                .or_else(|| self.state.next_commit_at().map(Instant::from_std))
                .filter(|at| waits && *at > Instant::now());
            if committing.commit_at.is_some() {
                return;
            }
            if everything || self.reducer.is_pending() {
                self.collect_rows(current, everything).await;
            }
        }
        self.commit_now(current, everything);
    }

    /// Makes rows of what has changed, in slices: others get their turn between them, and nothing is handed in.
    async fn collect_rows(&mut self, current: &mut LoopState, everything: bool) {
        while self.reducer.collect(everything, ROWS) {
            self.wait(current, tokio::task::yield_now()).await;
        }
    }

    /// Begins a commit if there is something to commit, and none is under way.
    fn commit_now(&mut self, current: &mut LoopState, everything: bool) {
        let step = match self.role.committing_mut().and_then(|c| c.commit.take()) {
            Some(commit) => Some(Step::Again(commit)),
            None => {
                let step = self.next_commit(current, everything);
                if let Role::Leader(leading) = &mut self.role {
                    leading.saved_last = leading.leaving;
                }
                step
            }
        };
        if let (Some(step), Some(committing)) = (step, self.role.committing_mut()) {
            let (state, fan_out) = (self.state.clone(), Arc::clone(&self.fan_out));
            committing.under_way = Some(Box::pin(make(state, fan_out, self.telemetry.counts(), step)));
        }
    }

    fn next_commit(&mut self, current: &mut LoopState, everything: bool) -> Option<Step> {
        let has_gaps = !self.role.committing()?.gaps.is_empty();
        if !everything && !self.reducer.is_pending() && !has_gaps {
            return None;
        }
        // Once: time goes on while this is committed.
        let last_word = current.ending && !std::mem::replace(&mut current.said_end, true);
        if current.ending && (last_word || self.reducer.is_pending()) {
            self.deaf_until(current, self.reducer.now());
        }
        let output = self.reducer.drain(everything);
        let at_once = self.enforcing.recording.commit_begins();
        if everything && self.reducer.unsaved() == 0 {
            self.role.committing_mut()?.saved_at = Some(Instant::now());
        }
        for notice in &output.notices {
            self.notice(current, notice);
        }
        if output.notices_omitted > 0 {
            warn!(source = %self.telemetry.name(), omitted = output.notices_omitted, "more notices than are shown one by one");
        }
        let mut commit = Commit::new(self.id, self.reducer.now());
        commit.at_once = at_once;
        if let Role::Leader(leading) = &self.role {
            commit.epoch = Some(leading.epoch);
        }
        // Those that the notices named are among them.
        let committing = self.role.committing_mut()?;
        commit.gaps = std::mem::take(&mut committing.gaps);
        committing.in_commit.clone_from(&commit.gaps);
        let nothing = output.changes.is_empty()
            && output.events.is_empty()
            && commit.gaps.is_empty()
            && output.unattributed.is_empty();
        // Whoever goes on from here, another node or the next start, should know that all is well up to now, though
        // nothing happened: what it cannot know of is a gap. While nothing is heard all is not well.
        let save_time = everything
            && commit.clock > current.committed
            && match &self.role {
                Role::Alone(_) => {
                    last_word
                        || (commit.clock.since(current.committed) >= SAVE_TIME
                            && self.reducer.hears_since().is_some())
                }
                // Once at the end: there is always more time to hand on, by as much as the commit took.
                Role::Leader(_) | Role::Follower(_) => !current.ending || last_word,
            };
        (!nothing || save_time).then(|| Step::New(Box::new(commit), output))
    }

    /// Takes note of what came of a commit. Fails with what cannot be got over.
    pub(super) async fn committed(&mut self, current: &mut LoopState, made: Made) -> Ended {
        let Some(committing) = self.role.committing_mut() else {
            return Ok(());
        };
        match made.result {
            Ok(()) => {
                if let Some(commit) = made.commit {
                    current.committed = commit.clock;
                }
                committing.in_commit.clear();
                self.telemetry.committed(made.took);
                self.store_health.committed();
                self.on_record();
            }
            Err(Failure::Store(error @ Error::LeaseLost { .. })) => {
                self.store_health
                    .failed("a commit was refused: another node leads the source", &error);
                self.follow(current).await;
            }
            // It was not closed from here: what wrote to it has gone. Before a stop the supervisor knows, and says how.
            Err(Failure::Store(Error::Closed)) if current.ending => {
                return Err("the store has closed by itself".to_owned());
            }
            Err(Failure::Store(error)) => {
                committing.commit = made.commit;
                committing.again_at = Some(Instant::now() + COMMIT_AGAIN);
                self.telemetry.commit_failed();
                self.store_health.commit_failed(&error);
            }
            Err(Failure::Own(error)) => return Err(format!("a commit cannot be made: {error}")),
        }
        Ok(())
    }

    /// Applies what the source said last, and commits everything.
    pub(super) async fn finish(mut self, mut current: LoopState, deadline: Deadline) -> Ended {
        self.telemetry.stopped();
        loop {
            let slice = Slice::begin();
            let more = self.work(&mut current, None);
            self.telemetry.slice(slice.took());
            if more && !self.is_held_back() {
                tokio::task::yield_now().await;
                continue;
            }
            let Some(committing) = self.role.committing_mut() else {
                return Ok(());
            };
            current.ending = !more;
            if let Some(at) = committing.again_at.take() {
                tokio::time::sleep_until(at.min(deadline.for_parts())).await;
            }
            if committing.under_way.is_none() {
                self.commit_now(&mut current, true);
            }
            let Some(committing) = self.role.committing_mut().filter(|c| c.under_way.is_some()) else {
                self.leave(&current);
                return Ok(());
            };
            match timeout_at(deadline.for_parts(), ready(committing)).await {
                Ok(made) => self.committed(&mut current, made).await?,
                Err(_) => {
                    error!(source = %self.telemetry.name(),
                        "stopped before the last commit: what was heard since the one before counts as missed");
                    return Err("the last commit could not be made in time".to_owned());
                }
            }
        }
    }
}

impl SourceTask {
    /// What was missed by now goes on record, before the time of a last commit says that all is well up to it.
    fn deaf_until(&mut self, current: &mut LoopState, now: Timestamp) {
        let Some(from) = self.reducer.unheard_since() else {
            return;
        };
        let reason = if self.last_commit.take().is_some() {
            GapReason::Restart // it has not heard at all yet
        } else {
            GapReason::Reconnect
        };
        if from < now {
            // There may be another commit, with what was due meanwhile.
            self.reducer.unheard_is_on_record(now);
            let gap = Gap {
                from,
                to: now,
                reason,
                server: None,
            };
            self.gap(current, gap);
        }
    }

    /// All is committed: another program may go on from here, if nothing was given up.
    fn leave(&self, current: &LoopState) {
        if !self.is_deafened()
            && let Some(hears_since) = self.reducer.hears_since()
        {
            self.keeper
                .committed(self.telemetry.name(), current.committed, hears_since);
        }
    }
}
