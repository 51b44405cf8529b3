//! What the store says of blocks, for everybody in this process: read at the start, and again whenever something changed,
//! here or in another process.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tracing::info;
use turnhook_dispatcher::clock::Clocks;
use turnhook_reducer::{block::Blocks, event::SessionId, time::Timestamp};
use turnhook_store::{Admin, BlockChange, BlockRow};

use super::super::{deadline::Stop, store_health::StoreHealth, supervisor::Ended};

/// How often other processes' changes are looked for. One read of an index each time.
const LOOK: Duration = Duration::from_millis(200);

/// Changes that are read at once.
const PAGE: usize = 1000;

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
        realm: &[u8],
        user: &[u8],
        until: Timestamp,
        reason: &str,
        who: &str,
    ) -> turnhook_store::Result<bool> {
        let at = self.clocks.wall();
        let made = self.store.block_once(at, realm, user, until, reason, who).await?;
        self.changed.notify_one();
        Ok(made)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clocks.wall()
    }
}

/// A realm (`None`: all of them) and a user.
type Whom = (Option<Box<[u8]>>, Box<[u8]>);

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

    fn take(&mut self, row: BlockRow, tell: bool) {
        let (reason, who) = (row.reason.clone(), row.who.clone());
        match &row.change {
            BlockChange::Block { realm, user, .. } => {
                if tell {
                    // Not by name: whose log this is may not know whose calls these are.
                    info!(reason, who, "a user is blocked");
                }
                self.held.insert((realm.clone(), user.clone()), row);
            }
            BlockChange::Unblock { realm, user } => {
                if tell {
                    info!(who, "a user is not blocked any more");
                }
                self.held.remove(&(realm.clone(), user.clone()));
            }
            BlockChange::EndSession(session) => {
                if tell {
                    info!(%session, reason, who, "a session is to be ended");
                }
                self.ends.push_back((row.at, row.id, *session, reason.into()));
            }
        }
    }

    /// Whether something was.
    fn drop_what_is_over(&mut self) -> bool {
        let (now, before) = (self.clocks.wall(), self.held.len());
        self.held.retain(|_, row| row.holds(now));
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
