//! What is committed, as a node reads it: at the start, as a follower from time to time, and to take over from the node that
//! led before. However much there is to be read and to be put together, the source's task goes on meanwhile.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::Instant,
};
use tracing::{error, info};
use turnhook_reducer::{
    Identity, Reducer, RestoreError, Restoring, rules::Rules, source::GapReason, state::Table,
    time::Timestamp,
};
use turnhook_store::{Epoch, SourceId, State};

use super::{
    cluster::Lead,
    commits::Committing,
    lanes,
    recording::Reason,
    role::{AGAIN, CONFIRM, Leading, Role},
    source::{SourceTask, Turn},
    supervisor::{Ended, words_of_join},
};
use crate::health;

/// A reducer as it was committed, and the time of its last commit.
pub(crate) type Restored = (Reducer, Option<Timestamp>);

/// Makes the source's reducer of what is committed.
pub(crate) struct Loader {
    pub(crate) state: State,
    pub(crate) id: SourceId,
    pub(crate) identity: Identity,
    pub(crate) rules: Rules,
}

/// Rows in one block: many of them would take as many allocations.
#[derive(Default)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    /// Each row's table, key, and where it ends.
    index: Vec<(Table, u64, usize)>,
}

impl Rows {
    fn push(&mut self, table: Table, key: u64, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.index.push((table, key, self.bytes.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (Table, u64, &[u8])> {
        let mut from = 0;
        self.index.iter().map(move |(table, key, to)| {
            let row = self.bytes.get(from..*to).unwrap_or_default();
            from = *to;
            (*table, *key, row)
        })
    }
}

/// The state could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Store(#[from] turnhook_store::Error),
    #[error(transparent)]
    State(#[from] RestoreError),
}

impl Loader {
    /// The committed rows of these tables, and the time of the last commit.
    pub(crate) async fn rows(
        &self,
        only: &'static [Table],
    ) -> turnhook_store::Result<(Rows, Option<Timestamp>)> {
        let keep = move |rows: &mut Rows, table, key, row: &[u8]| {
            if only.contains(&table) {
                rows.push(table, key, row);
            }
        };
        self.state.load(self.id, Rows::default(), keep).await
    }

    /// The source's reducer as it was committed, and the time of the last commit. It is made as the rows are read: a
    /// million of them need not be in memory as well.
    pub(crate) async fn reducer(&self) -> Result<Restored, LoadError> {
        let restoring = Restoring::new(self.identity.clone(), self.rules.clone());
        let add = |restored: &mut Result<Restoring, RestoreError>, table, key, row: &[u8]| {
            if let Ok(restoring) = restored
                && let Err(error) = restoring.row(table, key, row)
            {
                *restored = Err(error);
            }
        };
        let (restored, clock) = self.state.load(self.id, Ok(restoring), add).await?;
        Ok((restored?.finish(clock.unwrap_or_default()), clock))
    }
}

/// The committed ends, and the time of the last commit, as they were read for a follower.
pub(crate) type EndsRead = turnhook_store::Result<(Rows, Option<Timestamp>)>;

/// Rows that are being read for a follower.
pub(crate) type Confirming = Pin<Box<dyn Future<Output = EndsRead> + Send>>;

/// A takeover that has not come to its end.
pub(crate) struct TakingOver {
    epoch: Epoch,
    stage: Stage,
}

enum Stage {
    /// What is committed is read; the source is followed meanwhile.
    Reads(JoinHandle<Result<Restored, LoadError>>),
    /// What is committed, and what was heard here, become one; what is heard meanwhile waits in its queue.
    Joins(JoinHandle<Reducer>, Option<Timestamp>),
}

impl TakingOver {
    /// Whether the state is another thread's.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Joins(..))
    }
}

/// A stage of a takeover that is done.
pub(crate) enum Taken {
    Read(Result<Result<Restored, LoadError>, JoinError>),
    Joined(Result<Reducer, JoinError>, Option<Timestamp>),
}

/// The end of the takeover's stage; never, if there is none.
pub(crate) async fn taken_over(taking_over: &mut Option<TakingOver>) -> (Epoch, Taken) {
    match taking_over {
        Some(TakingOver { epoch, stage }) => match stage {
            Stage::Reads(read) => (*epoch, Taken::Read(read.await)),
            Stage::Joins(joined, clock) => (*epoch, Taken::Joined(joined.await, *clock)),
        },
        None => std::future::pending().await,
    }
}

/// What is being read; never ready if nothing is.
pub(crate) async fn confirmed(confirming: &mut Option<Confirming>) -> EndsRead {
    match confirming {
        Some(rows) => rows.await,
        None => std::future::pending().await,
    }
}

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
    pub(crate) async fn taken_over(&mut self, turn: &mut Turn, epoch: Epoch, taken: Taken) -> Ended {
        if let Role::Follower(following) = &mut self.role {
            following.taking_over = None;
        }
        let panicked = |error| format!("a takeover: {}", words_of_join(error));
        match taken {
            Taken::Read(read) => match read.map_err(panicked)? {
                Ok((committed, clock)) => self.join(turn, epoch, committed, clock).await,
                Err(LoadError::Store(error)) => {
                    self.store_health
                        .failed("the source cannot be taken over yet; tried again", &error);
                    turn.role_again_at = Some(Instant::now() + AGAIN);
                }
                Err(LoadError::State(error)) => {
                    error!(source = %self.telemetry.name(), %error, "the source cannot be taken over: its state cannot be read");
                    turn.role_again_at = Some(Instant::now() + AGAIN * 20);
                }
            },
            Taken::Joined(joined, clock) => {
                self.reducer = joined.map_err(panicked)?;
                turn.wall_ahead = None;
                if self.may_lead(epoch) {
                    turn.behind_since = Some(self.watch.now());
                    self.lead(turn, epoch, clock).await;
                } else {
                    // The lease was lost meanwhile: what this node would have told, another one does.
                    turn.committed = clock.unwrap_or_default();
                    self.reducer.follow(turn.committed);
                }
                self.change_role(turn).await;
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
    async fn join(&mut self, turn: &mut Turn, epoch: Epoch, committed: Reducer, clock: Option<Timestamp>) {
        if !self.may_lead(epoch) {
            spawn_blocking(move || drop(committed));
            turn.role_again_at = Some(Instant::now());
            return;
        }
        // One that slices work on is none that can be looked at to the end.
        self.wedges.begin_anew();
        if let Role::Follower(following) = &mut self.role {
            following.confirming = None;
        }
        if self.sharing.as_ref().is_some_and(|s| s.listening.is_some()) {
            // Nobody has spoken to this node: it goes on as after a restart.
            let follower = std::mem::replace(&mut self.reducer, committed);
            spawn_blocking(move || drop(follower));
            self.last_commit = clock;
            self.lead(turn, epoch, clock).await;
            return;
        }
        let identity = self.loader.identity.clone();
        let empty = Reducer::new(identity, self.loader.rules.clone());
        let follower = std::mem::replace(&mut self.reducer, empty);
        let now = self.watch.now();
        let joining = spawn_blocking(move || follower.take_over(committed, now));
        let stage = Stage::Joins(joining, clock);
        if let Role::Follower(following) = &mut self.role {
            following.taking_over = Some(TakingOver { epoch, stage });
        }
    }

    /// From now on this node tells of the source.
    async fn lead(&mut self, turn: &mut Turn, epoch: Epoch, clock: Option<Timestamp>) {
        // What other leaders committed, and this node has yet to read, goes before what this one will commit.
        lanes::read_again(&self.outlet);
        let leading = Leading {
            epoch,
            committing: Committing::default(),
            leaving: self.held().is_some_and(|lead| lead.wanted_back),
            saved_last: false,
            listen_again_at: None,
        };
        let gaps = match std::mem::replace(&mut self.role, Role::Leader(leading)) {
            Role::Follower(following) => following.gaps,
            Role::Alone(_) | Role::Leader(_) => Vec::new(),
        };
        turn.server = None;
        if let Some(tap) = turn.tap.take() {
            tap.sink().end(Reason::RoleChanged);
        }
        turn.committed = clock.unwrap_or_default();
        self.telemetry.role(health::Role::Leader);
        let (allocations, sessions) = (self.reducer.open_allocations(), self.reducer.open_sessions());
        info!(source = %self.telemetry.name(), epoch = epoch.0, allocations, sessions, "leads the source");
        // What this node missed matters where nobody else committed that time.
        let committed = turn.committed;
        for mut gap in gaps.into_iter().filter(|gap| gap.to > committed) {
            gap.from = gap.from.max(committed);
            if gap.reason == GapReason::Restart || gap.from < gap.to {
                self.gap(turn, gap);
            }
        }
        if let Some(control) = &self.control {
            control.take_snapshots(true);
        }
        // What the last leader did not come to end is this one's.
        self.take_blocks();
        self.listen().await;
    }

    /// Has the committed ends read from time to time, for a follower that keeps some.
    pub(crate) fn look_for_ends(&mut self) {
        let Role::Follower(following) = &mut self.role else {
            return;
        };
        let is_reading = following.confirming.is_some() || following.taking_over.is_some();
        if is_reading || Instant::now() < following.confirm_at {
            return;
        }
        following.confirm_at = Instant::now() + CONFIRM;
        let loader = Arc::clone(&self.loader);
        following.confirming = Some(Box::pin(async move { loader.rows(&Reducer::CONFIRMING).await }));
    }

    pub(crate) fn ends_read(&mut self, read: EndsRead) {
        let Role::Follower(following) = &mut self.role else {
            return;
        };
        following.confirming = None;
        match read {
            Ok((rows, clock)) => {
                if let Err(error) = self.reducer.confirm(clock.unwrap_or_default(), rows.iter()) {
                    error!(source = %self.telemetry.name(), %error, "what is committed cannot be read");
                }
            }
            Err(error) => self
                .store_health
                .failed("what is committed cannot be read now", &error),
        }
    }
}
