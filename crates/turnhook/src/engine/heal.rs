//! Sessions that set others right by coturn's log (`turnhook reconcile --heal`). Whoever asks for them writes them
//! down; the keeper reads that, and the task of their source emits them like anything else that it decides: it alone
//! numbers the source's events, and on several nodes only the one that leads it can commit. What is emitted has ids
//! that do not hang on who emits it and when, so a crash or a takeover between emitting and crossing out bills nothing
//! twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};
use turnhook_dispatcher::clock::Clocks;
use turnhook_reducer::{Reducer, event::SessionId, heal::Heal, time::Timestamp};
use turnhook_store::{AuditEntry, HealRow, SourceId, Store};

use super::{deadline::Stop, role::Role, store_health::StoreHealth, supervisor::Ended};

/// How often it is looked for: people wait for it, and no call does.
const LOOK: Duration = Duration::from_millis(500);
/// So many are emitted at once.
const PAGE: usize = 100;

/// What is asked for, and not emitted yet.
type Asked = Arc<[(SourceId, SessionId, Heal)]>;

/// Reads what is asked for, and crosses out what is emitted.
pub(super) struct HealKeeper {
    store: Store,
    store_health: Arc<StoreHealth>,
    clocks: Clocks,
    asked: watch::Sender<Asked>,
    refused: mpsc::Receiver<SessionId>,
    refusing: mpsc::Sender<SessionId>,
}

impl HealKeeper {
    pub(super) fn new(store: &Store, store_health: &Arc<StoreHealth>, clocks: &Clocks) -> HealKeeper {
        let (refusing, refused) = mpsc::channel(PAGE);
        HealKeeper {
            store: store.clone(),
            store_health: Arc::clone(store_health),
            clocks: clocks.clone(),
            asked: watch::Sender::new(Arc::new([])),
            refused,
            refusing,
        }
    }

    /// For the task of one source.
    pub(super) fn healing(&self) -> Healing {
        Healing {
            asked: self.asked.subscribe(),
            refused: self.refusing.clone(),
            waiting: Vec::new(),
            done: HashSet::new(),
        }
    }

    pub(super) async fn run(mut self, stop: Stop) -> Ended {
        loop {
            if let Err(error) = self.look().await {
                self.store_health
                    .failed("what is to be set right cannot be read or crossed out", &error);
            }
            tokio::select! {
                () = stop.begun() => return Ok(()),
                Some(session) = self.refused.recv() => {
                    if let Err(error) = self.refuse(session).await {
                        self.store_health.failed("what is not to be set right cannot be crossed out", &error);
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self) -> turnhook_store::Result<()> {
        let mut asked = Vec::new();
        for HealRow {
            session,
            source,
            data,
        } in self.store.admin().to_heal(PAGE).await?
        {
            // Before anybody emits it: it may have been emitted by an earlier run, or by another node.
            if self.store.ledger().session(session).await?.is_some() {
                self.store.admin().healed(session).await?;
                info!(%session, "a session that was billed too low is set right by coturn's log");
                continue;
            }
            match serde_json::from_slice(&data) {
                Ok(heal) => asked.push((source, session, heal)),
                Err(error) => {
                    warn!(%session, %error, "what is to be set right cannot be read: a newer turnhook asked for it");
                }
            }
        }
        self.asked.send_if_modified(|known| {
            let changed = **known != *asked;
            if changed {
                *known = asked.into();
            }
            changed
        });
        Ok(())
    }

    async fn refuse(&self, session: SessionId) -> turnhook_store::Result<()> {
        warn!(%session, "a session is not set right: coturn may yet say itself what was missed");
        let entry = AuditEntry {
            at: self.clocks.wall(),
            who: "turnhook".to_owned(),
            action: "heal refused".to_owned(),
            target: session.to_string(),
            detail: "coturn may yet say itself what was missed: ask again in a day".to_owned(),
            count: 1,
            ..AuditEntry::default()
        };
        self.store.admin().note(entry).await?;
        self.store.admin().healed(session).await
    }
}

/// The source's side.
pub(crate) struct Healing {
    asked: watch::Receiver<Asked>,
    refused: mpsc::Sender<SessionId>,
    /// What this source has yet to emit.
    waiting: Vec<(SessionId, Heal)>,
    /// What it has emitted, and is yet to be crossed out.
    done: HashSet<SessionId>,
}

impl Healing {
    /// Has the reducer emit what is asked for. Cheap where nothing is.
    pub(super) fn heal(&mut self, source: SourceId, role: &Role, now: Timestamp, reducer: &mut Reducer) {
        if self.asked.has_changed().unwrap_or_default() {
            let asked = Arc::clone(&self.asked.borrow_and_update());
            let mine = asked.iter().filter(|(of, ..)| *of == source);
            self.waiting = mine.map(|(_, session, heal)| (*session, heal.clone())).collect();
            let Healing { done, waiting, .. } = self;
            done.retain(|session| waiting.iter().any(|(waits, _)| waits == session));
        }
        if self.waiting.is_empty() {
            return;
        }
        match role {
            // What it emitted before may not be committed: that is the next leader's to find out.
            Role::Follower(_) => self.done.clear(),
            Role::Leader(leading) if leading.leaving => {}
            Role::Alone(_) | Role::Leader(_) => {
                for (session, heal) in &self.waiting {
                    if !self.done.insert(*session) || reducer.heal(now, heal) {
                        continue;
                    }
                    // One that finds no room is refused at the next look.
                    if self.refused.try_send(*session).is_err() {
                        self.done.remove(session);
                    }
                }
            }
        }
    }
}
