//! What the store says of blocks, for everybody in this process: read at the start, and again whenever something
//! changed, here or in another process.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tracing::info;
use turnhook_dispatcher::clock::Clocks;
use turnhook_reducer::{block::Blocks, event::SessionId, time::Timestamp, user_event::QuotaReached};
use turnhook_store::{Admin, BlockChange, BlockRow, Whom};

use super::super::{deadline::Stop, store_health::StoreHealth, supervisor::Ended};

/// How often other processes' changes are looked for. One read of an index each time.
const LOOK: Duration = Duration::from_millis(200);

/// Changes that are read at once.
const PAGE: usize = 1000;

/// A second try to put on record that a block is over comes no sooner.
const OVER_AGAIN: Duration = Duration::from_secs(1);

/// For how long the end of a session that was asked for is remembered: a takeover may come between.
const ENDS_KEPT: u64 = 30_000;

/// What holds now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Active {
    pub(crate) blocks: Arc<Blocks>,
    /// Sessions whose end was asked for a short while ago, by the number of the change.
    pub(crate) ends: Arc<[(u64, SessionId, Arc<str>)]>,
}

/// Blocks users, for parts of this process.
#[derive(Clone)]
pub(crate) struct Blocker {
    store: Admin,
    clocks: Clocks,
    changed: Arc<Notify>,
}

impl Blocker {
    /// A change that is on record, and known to this process at once.
    pub(crate) async fn change(
        &self,
        change: BlockChange,
        reason: &str,
        who: &str,
    ) -> turnhook_store::Result<()> {
        self.store
            .change_block(self.clocks.wall(), change, reason, who)
            .await?;
        self.changed.notify_one();
        Ok(())
    }

    /// A block by a rule, made once: see [`Admin::block_once`].
    pub(crate) async fn once(
        &self,
        until: Timestamp,
        quota: &QuotaReached,
        reason: &str,
        who: &str,
    ) -> turnhook_store::Result<bool> {
        let at = self.clocks.wall();
        let made = self.store.block_once(at, until, quota, reason, who).await?;
        self.changed.notify_one();
        Ok(made)
    }

    /// The end of a session for a quota.
    pub(crate) async fn end_by_quota(
        &self,
        session: SessionId,
        quota: &QuotaReached,
        reason: &str,
        who: &str,
    ) -> turnhook_store::Result<()> {
        let at = self.clocks.wall();
        self.store.end_by_quota(at, session, quota, reason, who).await?;
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clocks.wall()
    }
}

pub(crate) struct BlockKeeper {
    store: Admin,
    store_health: Arc<StoreHealth>,
    clocks: Clocks,
    changed: Arc<Notify>,
    active: watch::Sender<Active>,
    last: u64,
    /// What was on record before the start is no news.
    started: bool,
    held: HashMap<Whom, BlockRow>,
    /// Whose block is over, and not on record as over.
    over: HashSet<Whom>,
    /// When that is put on record: where it cannot be, not with each look.
    over_at: Instant,
    ends: VecDeque<(Timestamp, u64, SessionId, Arc<str>)>,
}

impl BlockKeeper {
    /// With what holds at the start. Fails with what the store says.
    pub(crate) async fn new(
        store: &Admin,
        store_health: &Arc<StoreHealth>,
        clocks: &Clocks,
    ) -> turnhook_store::Result<BlockKeeper> {
        let mut keeper = BlockKeeper {
            store: store.clone(),
            store_health: Arc::clone(store_health),
            clocks: clocks.clone(),
            changed: Arc::default(),
            active: watch::Sender::default(),
            last: 0,
            started: false,
            held: HashMap::new(),
            over: HashSet::new(),
            over_at: Instant::now(),
            ends: VecDeque::new(),
        };
        keeper.read().await?;
        keeper.started = true;
        keeper.publish();
        Ok(keeper)
    }

    pub(crate) fn active(&self) -> watch::Receiver<Active> {
        self.active.subscribe()
    }

    pub(crate) fn blocker(&self) -> Blocker {
        Blocker {
            store: self.store.clone(),
            clocks: self.clocks.clone(),
            changed: Arc::clone(&self.changed),
        }
    }

    pub(crate) async fn run(mut self, stop: Stop) -> Ended {
        loop {
            tokio::select! {
                () = stop.begun() => return Ok(()),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            let changed = match self.read().await {
                Ok(changed) => changed,
                Err(error) => {
                    self.store_health
                        .failed("who is blocked cannot be read: what was known holds", &error);
                    false
                }
            };
            if self.drop_what_is_over() || changed {
                self.publish();
            }
            if !self.over.is_empty() && self.over_at <= Instant::now() {
                self.over_at = Instant::now() + OVER_AGAIN;
                self.put_over_on_record().await;
            }
        }
    }

    /// For whoever is notified that a user is blocked no more: once, whichever node comes to it.
    async fn put_over_on_record(&self) {
        let over: Vec<Whom> = self.over.iter().take(PAGE).cloned().collect();
        match self.store.expire_blocks(over, self.clocks.wall()).await {
            Ok(0) => {}
            Ok(_) => self.changed.notify_one(),
            Err(error) => self.store_health.failed(
                "that blocks are over cannot be put on record; tried again",
                &error,
            ),
        }
    }

    /// Whether there was something new.
    async fn read(&mut self) -> turnhook_store::Result<bool> {
        let before = self.last;
        loop {
            let rows = self.store.block_changes(self.last, PAGE).await?;
            let more = rows.len() == PAGE;
            for row in rows {
                self.last = row.id;
                self.take(row, self.started);
            }
            if !more {
                break;
            }
        }
        self.drop_what_is_over();
        Ok(self.last > before)
    }

    fn take(&mut self, row: BlockRow, announce: bool) {
        let (reason, who) = (row.reason.clone(), row.who.clone());
        if let Some((realm, user)) = row.change.whom() {
            self.over.remove(&(realm.map(Into::into), user.into()));
        }
        match &row.change {
            BlockChange::Block { realm, user, .. } => {
                if announce {
                    // Not by name: whose log this is may not know whose calls these are.
                    info!(reason, who, "a user is blocked");
                }
                self.held.insert((realm.clone(), user.clone()), row);
            }
            BlockChange::Unblock { realm, user } => {
                if announce {
                    info!(who, "a user is not blocked any more");
                }
                self.held.remove(&(realm.clone(), user.clone()));
            }
            BlockChange::Expired { realm, user } => {
                if announce {
                    info!("the time of a block is over");
                }
                self.held.remove(&(realm.clone(), user.clone()));
            }
            BlockChange::EndSession(session) => {
                if announce {
                    info!(%session, reason, who, "a session is to be ended");
                }
                self.ends.push_back((row.at, row.id, *session, reason.into()));
            }
        }
    }

    /// Whether something was.
    fn drop_what_is_over(&mut self) -> bool {
        let (now, before) = (self.clocks.wall(), self.held.len());
        self.held.retain(|whom, row| {
            let holds = row.holds(now);
            if !holds {
                self.over.insert(whom.clone());
            }
            holds
        });
        while self
            .ends
            .front()
            .is_some_and(|(at, ..)| now.since(*at) > ENDS_KEPT)
        {
            self.ends.pop_front();
        }
        self.held.len() < before
    }

    fn publish(&self) {
        let mut blocks = Blocks::default();
        for ((realm, user), row) in &self.held {
            blocks.insert(realm.as_deref(), user, row.reason.as_str().into());
        }
        let ends = self
            .ends
            .iter()
            .map(|(_, id, session, reason)| (*id, *session, Arc::clone(reason)));
        self.active.send_replace(Active {
            blocks: Arc::new(blocks),
            ends: ends.collect(),
        });
    }
}
