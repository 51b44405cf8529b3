//! Taking a source over from the node that led it before. However much there is to be read and to be put together, the
//! source's task goes on meanwhile.

use std::sync::Arc;

use tokio::{
    runtime::Handle,
    task::{JoinError, spawn_blocking},
    time::Instant,
};
use tracing::{error, info};
use turnhook_reducer::{Reducer, source::GapReason, time::Timestamp};
use turnhook_store::Epoch;

use super::{LoopState, SourceTask};
use crate::{
    engine::{
        cluster::Lead,
        committing::Committing,
        fault, lanes,
        loading::{EndsRead, LoadError, Stage, Taken, TakingOver},
        recording::Reason,
        role::{AGAIN, CONFIRM, Leading, Role},
        supervisor::{Ended, words_of_join},
    },
    health,
};

impl SourceTask {
    /// The lease is this node's: whatever earlier leaders committed can be read, and nothing more will come.
    pub(super) fn read_committed(&mut self, epoch: Epoch) {
        let Role::Follower(following) = &mut self.role else {
            return;
        };
        if following.taking_over.as_ref().is_some_and(|t| t.epoch == epoch) {
            return;
        }
        let (loader, runtime) = (Arc::clone(&self.loader), Handle::current());
        // On a thread of its own: a million rows are read without a pause.
        let stage = Stage::Reads(spawn_blocking(move || runtime.block_on(loader.reducer())));
        following.taking_over = Some(TakingOver { epoch, stage });
    }

    /// A stage of the takeover is done. Fails with what keeps the source from going on.
    pub(crate) async fn taken_over(&mut self, current: &mut LoopState, epoch: Epoch, taken: Taken) -> Ended {
        if let Role::Follower(following) = &mut self.role {
            following.taking_over = None;
        }
        let panicked = |error| format!("a takeover: {}", words_of_join(error));
        match taken {
            Taken::Read(read) => match read.map_err(panicked)? {
                Ok((committed, clock)) => self.join(current, epoch, committed, clock).await,
                Err(LoadError::Store(error)) => {
                    self.store_health
                        .failed("the source cannot be taken over yet; tried again", &error);
                    current.role_again_at = Some(Instant::now() + AGAIN);
                }
                Err(LoadError::State(error)) => {
                    error!(source = %self.telemetry.name(), %error, "the source cannot be taken over: its state cannot be read");
                    current.role_again_at = Some(Instant::now() + AGAIN * 20);
                }
            },
            Taken::Joined(joined, clock) => {
                self.reducer = joined.map_err(panicked)?;
                current.wall_ahead = None;
                self.pass_all_unwatched(current);
                if self.may_lead(epoch) {
                    current.behind_since = Some(self.watch.now());
                    self.lead(current, epoch, clock).await;
                } else {
                    // The lease was lost meanwhile: what this node would have emitted, another one does.
                    current.committed = clock.unwrap_or_default();
                    self.reducer.follow(current.committed);
                }
                self.change_role(current).await;
            }
        }
        Ok(())
    }

    /// The lease, as far as it is known.
    fn held(&self) -> Option<Lead> {
        let sharing = self.sharing.as_ref()?;
        sharing.holdings.borrow().sources.get(&self.id).copied()
    }

    fn may_lead(&self, epoch: Epoch) -> bool {
        let is_over = self
            .sharing
            .as_ref()
            .is_none_or(|sharing| sharing.validity.is_over());
        !is_over && self.held().is_some_and(|lead| lead.epoch == epoch)
    }

    /// What is committed was read: it and what was heard here become one.
    async fn join(
        &mut self,
        current: &mut LoopState,
        epoch: Epoch,
        committed: Reducer,
        clock: Option<Timestamp>,
    ) {
        if !self.may_lead(epoch) {
            spawn_blocking(move || drop(committed));
            current.role_again_at = Some(Instant::now());
            return;
        }
        self.pass_all_unwatched(current);
        // One that slices work on is none that can be looked at to the end.
        self.wedges.begin_anew();
        self.telemetry
            .broken(self.watch.now(), self.reducer.take_broken());
        if let Role::Follower(following) = &mut self.role {
            following.confirming = None;
            following.heard_until = committed.unheard_since().or(clock);
        }
        if self.sharing.as_ref().is_some_and(|s| s.listening.is_some()) {
            // Nobody has spoken to this node: it goes on as after a restart.
            let follower = std::mem::replace(&mut self.reducer, committed);
            spawn_blocking(move || drop(follower));
            self.last_commit = clock;
            self.lead(current, epoch, clock).await;
            return;
        }
        let identity = self.loader.identity.clone();
        let empty = Reducer::new(identity, self.loader.rules.clone());
        let follower = std::mem::replace(&mut self.reducer, empty);
        let now = self.watch.now();
        let joining = spawn_blocking(move || {
            fault::step("joining");
            follower.take_over(committed, now)
        });
        let stage = Stage::Joins(joining, clock);
        if let Role::Follower(following) = &mut self.role {
            following.taking_over = Some(TakingOver { epoch, stage });
        }
    }

    /// From now on this node leads the source.
    async fn lead(&mut self, current: &mut LoopState, epoch: Epoch, clock: Option<Timestamp>) {
        // What other leaders committed, and this node has yet to read, goes before what this one will commit.
        lanes::read_again(&self.fan_out);
        let leading = Leading {
            epoch,
            committing: Committing::default(),
            leaving: self.held().is_some_and(|lead| lead.wanted_back),
            saved_last: false,
            listen_again_at: None,
        };
        let (gaps, heard_until) = match std::mem::replace(&mut self.role, Role::Leader(leading)) {
            Role::Follower(following) => (following.gaps, following.heard_until),
            Role::Alone(_) | Role::Leader(_) => (Vec::new(), None),
        };
        current.server = None;
        if let Some(tap) = current.tap.take() {
            tap.sink().end(Reason::RoleChanged);
        }
        current.committed = clock.unwrap_or_default();
        self.telemetry.role(health::Role::Leader);
        let (allocations, sessions) = (self.reducer.open_allocations(), self.reducer.open_sessions());
        info!(source = %self.telemetry.name(), epoch = epoch.0, allocations, sessions, "leads the source");
        // What this node missed matters where nobody else heard that time and committed it.
        let heard_until = heard_until.map_or(current.committed, |at| at.min(current.committed));
        for mut gap in gaps.into_iter().filter(|gap| gap.to > heard_until) {
            gap.from = gap.from.max(heard_until);
            if gap.reason == GapReason::Restart || gap.from < gap.to {
                self.gap(current, gap);
            }
        }
        if let Some(control) = &self.control {
            control.take_snapshots(true);
        }
        // What the last leader did not come to end is this one's.
        self.take_blocks();
        self.listen(current).await;
    }

    /// Has the committed ends read from time to time, for a follower that keeps some.
    pub(crate) fn look_for_ends(&mut self) {
        let Role::Follower(following) = &mut self.role else {
            return;
        };
        if following.confirming.is_some()
            || following.taking_over.is_some()
            || Instant::now() < following.confirm_at
        {
            return;
        }
        following.confirm_at = Instant::now() + CONFIRM;
        let (loader, runtime) = (Arc::clone(&self.loader), Handle::current());
        // On a thread of its own: a million rows are read without a pause.
        let reading = spawn_blocking(move || runtime.block_on(loader.rows(&Reducer::CONFIRMING)));
        following.confirming = Some(reading);
    }

    /// Compares what this follower knows with what was read. Fails with what keeps the source from going on.
    pub(crate) fn ends_read(&mut self, read: Result<EndsRead, JoinError>) -> Ended {
        let Role::Follower(following) = &mut self.role else {
            return Ok(());
        };
        following.confirming = None;
        match read.map_err(|error| format!("a look at what is committed: {}", words_of_join(error)))? {
            Ok((rows, clock)) => {
                let compared = self.reducer.confirm(clock.unwrap_or_default(), rows.iter());
                if let Err(error) = compared {
                    error!(source = %self.telemetry.name(), %error, "what is committed cannot be read");
                }
                spawn_blocking(move || drop(rows));
            }
            Err(error) => self
                .store_health
                .failed("what is committed cannot be read now", &error),
        }
        Ok(())
    }
}
