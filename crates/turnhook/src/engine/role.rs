//! Leading a source, or following it, where several nodes share the store. A follower hears the same messages and runs
//! the same reducer, and tells nothing; when the lease comes to it, it goes on from what is committed and brings in
//! what it heard.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::Instant,
};
use tracing::{error, info};
use turnhook_reducer::{
    Identity, Reducer, RestoreError, Restoring,
    rules::Rules,
    source::{Gap, GapReason},
    state::Table,
    time::Timestamp,
};
use turnhook_store::{Epoch, LeaseName, SourceId, Store};
use turnhook_subscriber::{
    queue::SignalSender,
    signal::Clock,
    source::{SourceConfig, SourceHandle},
};

use super::{
    cluster::{GivenBack, Holdings, Validity},
    lanes,
    recording::Reason,
    source::{SourceTask, Turn},
    supervisor::{Ended, words_of_join},
};
use crate::health;

/// How often a follower reads what ended as committed: a tombstone is kept for 60 s at least.
const CONFIRM: Duration = Duration::from_secs(20);

/// Between attempts to read the state that is to be taken over.
const AGAIN: Duration = Duration::from_millis(500);

/// Gaps that a follower remembers, for the case that it leads.
const GAPS: usize = 1000;

/// What this node is to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// There is nobody else.
    Alone,
    /// It commits and tells, while this epoch lasts.
    Leader(Epoch),
    /// Another node does.
    Follower,
}

/// A reducer as it was committed, and the time of its last commit.
pub(crate) type Restored = (Reducer, Option<Timestamp>);

/// Makes the source's reducer of what is committed.
pub(crate) struct Loader {
    pub(crate) store: Store,
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
        self.store.load(self.id, Rows::default(), keep).await
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
        let (restored, clock) = self.store.load(self.id, Ok(restoring), add).await?;
        Ok((restored?.finish(clock.unwrap_or_default()), clock))
    }
}

/// The listener of a `direct` source: only the leader listens, so that coturn, or the balancer before it, finds it.
pub(crate) struct Listening {
    pub(crate) config: SourceConfig,
    pub(crate) clock: Clock,
    pub(crate) signals: SignalSender,
    pub(crate) handle: Option<SourceHandle>,
}

/// What the task knows of the other nodes.
pub(crate) struct Sharing {
    pub(crate) holdings: watch::Receiver<Holdings>,
    pub(crate) give_back: GivenBack,
    pub(crate) validity: Validity,
    pub(crate) listening: Option<Listening>,
    /// What was missed while following: on record only if it is not what others heard.
    gaps: Vec<Gap>,
    confirm_at: Instant,
    /// Nothing was asked of this task yet.
    anew: bool,
    /// The leases have run out, and that was said.
    leaseless: bool,
}

/// Rows that are being read for a follower.
pub(crate) type Confirming =
    Pin<Box<dyn Future<Output = turnhook_store::Result<(Rows, Option<Timestamp>)>> + Send>>;

impl Sharing {
    pub(crate) fn new(
        holdings: watch::Receiver<Holdings>,
        give_back: GivenBack,
        validity: Validity,
        listening: Option<Listening>,
    ) -> Sharing {
        Sharing {
            holdings,
            give_back,
            validity,
            listening,
            gaps: Vec::new(),
            confirm_at: Instant::now() + CONFIRM,
            anew: true,
            leaseless: true,
        }
    }

    /// Whether what this node may do has changed, or is about to.
    pub(crate) fn is_changing(&self) -> bool {
        self.validity.is_over() || self.holdings.has_changed().unwrap_or(true)
    }
}

/// A takeover that has not come to its end: however much there is to be read and to be put together, the task goes on.
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

/// What happens to a task that has others beside it.
pub(crate) enum Change {
    /// What this node may do is another, perhaps.
    Role,
    /// The listener that a leader opened has ended, which it should not: how.
    Listener(String),
}

/// The next change; never where the node is alone.
pub(crate) async fn changed(sharing: &mut Option<Sharing>) -> Change {
    let Some(sharing) = sharing else {
        return std::future::pending().await;
    };
    let handle = sharing.listening.as_mut().and_then(|l| l.handle.as_mut());
    let listener = async {
        match handle {
            Some(handle) => match handle.ended().await {
                Ok(()) => "it returned".to_owned(),
                Err(error) => words_of_join(error),
            },
            None => std::future::pending().await,
        }
    };
    let role = async {
        if sharing.holdings.changed().await.is_err() {
            // The member has ended, and the process will.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = role => Change::Role,
        how = listener => Change::Listener(how),
    }
}

/// What is being read; never ready if nothing is.
pub(crate) async fn confirmed(
    confirming: &mut Option<Confirming>,
) -> turnhook_store::Result<(Rows, Option<Timestamp>)> {
    match confirming {
        Some(rows) => rows.await,
        None => std::future::pending().await,
    }
}

impl SourceTask {
    /// What this node may do has changed, perhaps.
    pub(crate) async fn change_role(&mut self, turn: &mut Turn) {
        let anew = self.sharing.as_mut().is_some_and(|s| std::mem::take(&mut s.anew));
        if anew && self.last_commit.is_none() {
            self.compare_with_nothing();
        }
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        let lead = sharing
            .holdings
            .borrow_and_update()
            .sources
            .get(&self.id)
            .copied();
        if lead.is_some() && self.role == Role::Follower && sharing.validity.is_over() {
            // Not known yet whether it is lost or will be renewed.
            turn.role_again_at = Some(Instant::now() + AGAIN);
            return;
        }
        turn.leaving = lead.is_some_and(|lead| lead.wanted_back);
        if turn.taking_over.as_ref().is_some_and(TakingOver::has_begun) {
            // Once it is done this is looked at again.
            return;
        }
        match (self.role, lead) {
            (Role::Leader(epoch), Some(lead)) if lead.epoch == epoch => {}
            (Role::Follower, None) => turn.taking_over = None,
            // A takeover that had not succeeded yet: there is nothing to commit.
            (Role::Follower, Some(lead)) if turn.leaving => {
                turn.taking_over = None;
                self.give_back(turn, lead.epoch);
            }
            (Role::Follower, Some(lead)) => self.read_committed(turn, lead.epoch),
            (_, None) => self.follow(turn).await,
            (_, Some(lead)) => {
                // It was lost and taken again before this was noticed: others may have written.
                self.follow(turn).await;
                self.read_committed(turn, lead.epoch);
            }
        }
    }

    /// Nothing of the source had ever been committed when this node looked. Without a commit's time to go by, the follower
    /// would take what it hears until it first looks again for told and forgotten.
    fn compare_with_nothing(&mut self) {
        let nothing: [(Table, u64, &[u8]); 0] = [];
        if let Err(error) = self.reducer.confirm(self.watch.now(), nothing) {
            error!(source = %self.telemetry.name(), %error, "what is committed cannot be read");
        }
    }

    /// The lease is this node's: whatever earlier leaders committed can be read, and nothing more will come.
    fn read_committed(&self, turn: &mut Turn, epoch: Epoch) {
        if turn.taking_over.as_ref().is_some_and(|t| t.epoch == epoch) {
            return;
        }
        let (loader, runtime) = (Arc::clone(&self.loader), Handle::current());
        // On a thread of its own: a million rows are read without a pause.
        let stage = Stage::Reads(spawn_blocking(move || runtime.block_on(loader.reducer())));
        turn.taking_over = Some(TakingOver { epoch, stage });
    }

    /// A stage of the takeover is done. Fails with what keeps the source from going on.
    pub(crate) async fn taken_over(&mut self, turn: &mut Turn, (epoch, taken): (Epoch, Taken)) -> Ended {
        turn.taking_over = None;
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

    fn may_lead(&self, epoch: Epoch) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| {
            let lead = sharing.holdings.borrow().sources.get(&self.id).copied();
            !sharing.validity.is_over() && lead.is_some_and(|lead| lead.epoch == epoch)
        })
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
        turn.confirming = None;
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
        turn.taking_over = Some(TakingOver { epoch, stage });
    }

    /// From now on this node tells of the source.
    async fn lead(&mut self, turn: &mut Turn, epoch: Epoch, clock: Option<Timestamp>) {
        // What other leaders committed, and this node has yet to read, goes before what this one will commit.
        lanes::read_again(&self.outlet);
        self.role = Role::Leader(epoch);
        turn.server = None;
        if let Some(tap) = turn.tap.take() {
            tap.sink().end(Reason::RoleChanged);
        }
        turn.confirming = None;
        turn.committed = clock.unwrap_or_default();
        self.telemetry.role(health::Role::Leader);
        let (allocations, sessions) = (self.reducer.open_allocations(), self.reducer.open_sessions());
        info!(source = %self.telemetry.name(), epoch = epoch.0, allocations, sessions, "leads the source");
        // What this node missed matters where nobody else committed that time.
        let gaps = self
            .sharing
            .as_mut()
            .map(|s| std::mem::take(&mut s.gaps))
            .unwrap_or_default();
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
        self.listen(turn).await;
    }

    /// Opens the listener of a `direct` source.
    pub(crate) async fn listen(&mut self, turn: &mut Turn) {
        turn.listen_again_at = None;
        let Some(listening) = self.sharing.as_mut().and_then(|s| s.listening.as_mut()) else {
            return;
        };
        let (clock, signals) = (Arc::clone(&listening.clock), listening.signals.clone());
        match listening.config.clone().start(clock, signals).await {
            Ok(handle) => listening.handle = Some(handle),
            Err(error) => {
                error!(source = %self.telemetry.name(), %error, "leads the source and cannot listen; tried again");
                self.telemetry.deaf(self.watch.now(), error.to_string());
                turn.listen_again_at = Some(Instant::now() + AGAIN * 2);
            }
        }
    }

    /// Another node leads, or may: what was not committed is not this node's to tell any more.
    pub(crate) async fn follow(&mut self, turn: &mut Turn) {
        if self.role == Role::Follower {
            return;
        }
        self.role = Role::Follower;
        turn.commit = None;
        turn.under_way = None;
        turn.again_at = None;
        if let Some(tap) = turn.tap.take() {
            tap.sink().end(Reason::RoleChanged);
        }
        turn.deafened = None;
        turn.listen_again_at = None;
        turn.saved_last = false;
        let gaps = std::mem::take(&mut turn.gaps);
        if let Some(sharing) = &mut self.sharing {
            sharing.gaps.extend(gaps);
            sharing.confirm_at = Instant::now() + CONFIRM;
            if let Some(handle) = sharing.listening.as_mut().and_then(|l| l.handle.take()) {
                handle.stop().await;
            }
        }
        if let Some(control) = &self.control {
            control.take_snapshots(false);
        }
        self.reducer.follow(turn.committed);
        self.telemetry.role(health::Role::Follower);
        info!(source = %self.telemetry.name(), "follows the source");
    }

    /// A process that was stopped past its lease finds out before it does anything else: what others have done meanwhile
    /// it does not know.
    pub(crate) async fn follow_if_over(&mut self, turn: &mut Turn) {
        let Some(over) = self.sharing.as_ref().map(|s| s.validity.is_over()) else {
            return;
        };
        if over && matches!(self.role, Role::Leader(_)) {
            self.follow(turn).await;
            turn.role_again_at = Some(Instant::now() + AGAIN);
        }
        let said = self
            .sharing
            .as_mut()
            .map(|s| std::mem::replace(&mut s.leaseless, over));
        if self.role == Role::Follower && said != Some(over) {
            if over {
                self.telemetry.nobody_leads(self.watch.now());
            } else {
                self.telemetry.role(health::Role::Follower);
            }
        }
    }

    /// Whether the lease may go: nothing is left to commit.
    pub(crate) async fn leave_if_done(&mut self, turn: &mut Turn) {
        let Role::Leader(epoch) = self.role else { return };
        if !turn.leaving || !turn.saved_last || turn.commit.is_some() || turn.under_way.is_some() {
            return;
        }
        self.follow(turn).await;
        self.give_back(turn, epoch);
    }

    fn give_back(&self, turn: &mut Turn, epoch: Epoch) {
        turn.leaving = false;
        if let Some(sharing) = &self.sharing {
            // A member that has ended gives all back itself.
            let _ = sharing.give_back.send((LeaseName::Source(self.id), epoch));
        }
    }

    /// A follower's gap: others may have heard what it missed.
    pub(crate) fn remember_gap(&mut self, gap: Gap) {
        if let Some(sharing) = &mut self.sharing {
            if sharing.gaps.len() >= GAPS {
                sharing.gaps.remove(0);
            }
            sharing.gaps.push(gap);
        }
    }

    /// Has the committed ends read from time to time, for a follower that keeps some.
    pub(crate) fn look_for_ends(&mut self, turn: &mut Turn) {
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        let waits =
            turn.confirming.is_some() || turn.taking_over.is_some() || Instant::now() < sharing.confirm_at;
        if self.role != Role::Follower || waits {
            return;
        }
        sharing.confirm_at = Instant::now() + CONFIRM;
        let loader = Arc::clone(&self.loader);
        turn.confirming = Some(Box::pin(async move { loader.rows(&Reducer::CONFIRMING).await }));
    }

    pub(crate) fn ends_read(
        &mut self,
        turn: &mut Turn,
        read: turnhook_store::Result<(Rows, Option<Timestamp>)>,
    ) {
        turn.confirming = None;
        match read {
            Ok((rows, clock)) if self.role == Role::Follower => {
                if let Err(error) = self.reducer.confirm(clock.unwrap_or_default(), rows.iter()) {
                    error!(source = %self.telemetry.name(), %error, "what is committed cannot be read");
                }
            }
            Ok(_) => {}
            Err(error) => self
                .store_health
                .failed("what is committed cannot be read now", &error),
        }
    }
}
