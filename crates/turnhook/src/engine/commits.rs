//! What a source has to write down: one commit at a time, of whatever has piled up meanwhile.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{error, warn};
use turnhook_store::{Commit, Committed};

use super::{
    role::Role,
    source::{SourceTask, Turn},
};

/// Between attempts at a commit that failed.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

pub(crate) type Commits =
    Pin<Box<dyn Future<Output = (Duration, Result<Committed, turnhook_store::Error>)> + Send>>;

impl SourceTask {
    pub(super) fn start_commit(&mut self, turn: &mut Turn, everything: bool) {
        let turn_at = turn.turn_at.take();
        if self.role == Role::Follower {
            // Whatever it decided is not told.
            drop(self.reducer.drain(everything));
            return;
        }
        if turn.under_way.is_some() || turn.again_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        turn.again_at = None;
        if turn.commit.is_none() {
            // What happens until the store's turn comes is part of this commit, and need not wait for one more. It waits
            // for one turn, whatever others make of the next.
            let waits = self.reducer.is_pending() || !turn.gaps.is_empty();
            turn.turn_at = turn_at
                .or_else(|| self.store.next_turn().map(Instant::from_std))
                .filter(|at| waits && *at > Instant::now());
            if turn.turn_at.is_some() {
                return;
            }
            turn.commit = self.next_commit(turn, everything).map(Arc::new);
            turn.saved_last = turn.leaving;
        }
        if let Some(commit) = &turn.commit {
            let (store, commit) = (self.store.clone(), Arc::clone(commit));
            turn.under_way = Some(Box::pin(async move {
                let start = Instant::now();
                let result = store.commit(commit).await;
                (start.elapsed(), result)
            }));
        }
    }

    fn next_commit(&mut self, turn: &mut Turn, everything: bool) -> Option<Commit> {
        if !everything && !self.reducer.is_pending() && turn.gaps.is_empty() {
            return None;
        }
        let output = self.reducer.drain(everything);
        if everything && self.reducer.unsaved() == 0 {
            turn.saved_at = Instant::now();
        }
        for notice in &output.notices {
            self.notice(notice);
        }
        if output.notices_omitted > 0 {
            warn!(source = %self.telemetry.name(), omitted = output.notices_omitted, "more notices than are shown one by one");
        }
        let mut commit = Commit::new(self.id, self.reducer.now());
        if let Role::Leader(epoch) = self.role {
            commit.epoch = Some(epoch);
        }
        commit.changes = output.changes;
        commit.gaps = std::mem::take(&mut turn.gaps);
        self.telemetry.decided(&output.events, &output.unattributed);
        commit.unattributed = output.unattributed;
        commit.events = output
            .events
            .into_iter()
            .map(|event| self.outlet.new_event(event))
            .collect();
        let nothing = commit.changes.is_empty()
            && commit.events.is_empty()
            && commit.gaps.is_empty()
            && commit.unattributed.is_empty();
        // Where others may take over, they should know that all is well up to now, though nothing happened.
        let tell_time = everything && self.role != Role::Alone && commit.clock > turn.committed;
        (!nothing || tell_time).then_some(commit)
    }

    pub(super) async fn committed(
        &mut self,
        turn: &mut Turn,
        (took, result): (Duration, Result<Committed, turnhook_store::Error>),
    ) {
        turn.under_way = None;
        match result {
            Ok(committed) => {
                if let Some(commit) = turn.commit.take() {
                    turn.committed = commit.clock;
                }
                self.telemetry.committed(took);
                self.outlet.deliver(committed.deliveries);
            }
            Err(error @ turnhook_store::Error::LeaseLost { .. }) => {
                warn!(source = %self.telemetry.name(), %error, "not committed");
                self.follow(turn).await;
            }
            Err(error) => {
                error!(source = %self.telemetry.name(), %error, "commit failed; it is repeated every second");
                self.telemetry.commit_failed(&error, self.watch.now());
                turn.again_at = Some(Instant::now() + COMMIT_AGAIN);
            }
        }
    }

    /// Applies what the source said last, and commits everything.
    pub(super) async fn finish(mut self, mut turn: Turn, grace: Duration) -> bool {
        while let Some(signal) = self.signals.try_recv() {
            self.apply(&mut turn, signal);
        }
        let until = Instant::now() + grace;
        while self.role != Role::Follower {
            if turn.under_way.is_none() {
                if turn.again_at.is_none() && turn.commit.is_none() {
                    turn.commit = self.next_commit(&mut turn, true).map(Arc::new);
                    if turn.commit.is_none() {
                        return true;
                    }
                }
                if let Some(at) = turn.again_at.take() {
                    tokio::time::sleep_until(at.min(until)).await;
                }
                self.start_commit(&mut turn, true);
            }
            match tokio::time::timeout_at(until, ready(&mut turn.under_way)).await {
                Ok(done) => self.committed(&mut turn, done).await,
                Err(_) => {
                    error!(source = %self.telemetry.name(),
                        "stopped before the last commit: what was heard since the one before counts as missed");
                    return false;
                }
            }
        }
        true
    }
}

/// The commit that is under way; never ready if there is none.
pub(super) async fn ready(
    under_way: &mut Option<Commits>,
) -> (Duration, Result<Committed, turnhook_store::Error>) {
    match under_way {
        Some(commit) => commit.await,
        None => std::future::pending().await,
    }
}
