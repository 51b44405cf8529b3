//! Leading a source, or following it, where several nodes share the store. A follower hears the same messages and runs
//! the same reducer, and tells nothing; when the lease comes to it, it goes on from what is committed and brings in
//! what it heard.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::{error, info, warn};
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
    source::{SourceTask, Turn},
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
    pub(crate) async fn reducer(&self) -> Result<(Reducer, Option<Timestamp>), LoadError> {
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
        }
    }
}

/// The next change of what this node may do; never where it is alone.
pub(crate) async fn changed(sharing: &mut Option<Sharing>) {
    if let Some(sharing) = sharing
        && sharing.holdings.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
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
        match (self.role, lead) {
            (Role::Leader(epoch), Some(lead)) if lead.epoch == epoch => {}
            (Role::Follower, None) => {}
            // A takeover that had not succeeded yet: there is nothing to commit.
            (Role::Follower, Some(lead)) if turn.leaving => self.give_back(turn, lead.epoch),
            (Role::Follower, Some(lead)) => self.lead(turn, lead.epoch).await,
            (_, None) => self.follow(turn).await,
            (_, Some(lead)) => {
                // It was lost and taken again before this was noticed: others may have written.
                self.follow(turn).await;
                self.lead(turn, lead.epoch).await;
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
    async fn lead(&mut self, turn: &mut Turn, epoch: Epoch) {
        let (committed, clock) = match self.loader.reducer().await {
            Ok(read) => read,
            Err(LoadError::Store(error)) => {
                warn!(source = %self.telemetry.name(), %error, "the source cannot be taken over yet; tried again");
                turn.role_again_at = Some(Instant::now() + AGAIN);
                return;
            }
            Err(LoadError::State(error)) => {
                error!(source = %self.telemetry.name(), %error, "the source cannot be taken over: its state cannot be read");
                turn.role_again_at = Some(Instant::now() + AGAIN * 20);
                return;
            }
        };
        let now = self.watch.now();
        let sharing = self.sharing.as_mut();
        if sharing.as_ref().is_some_and(|s| s.listening.is_some()) {
            // Nobody has spoken to this node: it goes on as after a restart.
            self.reducer = committed;
            self.last_commit = clock;
        } else {
            let identity = self.loader.identity.clone();
            let empty = Reducer::new(identity, self.loader.rules.clone());
            let follower = std::mem::replace(&mut self.reducer, empty);
            self.reducer = follower.take_over(committed, now);
            turn.behind_since = Some(self.watch.now());
        }
        // What other leaders committed, and this node has yet to read, goes before what this one will commit.
        lanes::read_again(&self.outlet);
        self.role = Role::Leader(epoch);
        turn.server = None;
        turn.tap = None;
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
        turn.tap = None;
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
        let leads = matches!(self.role, Role::Leader(_));
        if leads && self.sharing.as_ref().is_some_and(|s| s.validity.is_over()) {
            self.follow(turn).await;
            turn.role_again_at = Some(Instant::now() + AGAIN);
        }
    }

    /// Whether the lease may go: nothing is left to commit.
    pub(crate) async fn leave_if_done(&mut self, turn: &mut Turn) {
        let Role::Leader(epoch) = self.role else { return };
        if !turn.leaving || !turn.saved_last || turn.commit.is_some() {
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
        if self.role != Role::Follower || turn.confirming.is_some() || Instant::now() < sharing.confirm_at {
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
            Err(error) => {
                warn!(source = %self.telemetry.name(), %error, "what is committed cannot be read now")
            }
        }
    }
}
