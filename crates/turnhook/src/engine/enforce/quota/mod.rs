//! `[[quota]]`: whoever has used more than he may is blocked, without anybody's asking.
//!
//! ```text
//! source tasks ── what is committed ──▶ quota keeper: tallies ── near? ──▶ the ledger ── passed? ──▶ block
//! ```
//!
//! Only what is committed counts: sessions of confirmed allocations, and bytes that were relayed. A block is by what
//! the ledger says, which is the same on every node, and it is made once, whoever comes to it.

mod ledger;
mod tally;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tally::{Act, Question, Tallies, Used};
use tokio::sync::{mpsc, watch};
use tracing::info;
use turnhook_reducer::{
    event::SessionId,
    time::Timestamp,
    user_event::{QuotaPeriod, QuotaReached, QuotaUnit},
};
use turnhook_store::{BlockChange, Commit, Ledger};

use super::{
    super::{deadline::Stop, store_health::StoreHealth, supervisor::Ended},
    Active, Blocker,
};
use crate::{
    config::quota::{Most, Per, Quota},
    metrics::Metrics,
};

/// Commits that wait to be counted. What finds no place is found in the ledger.
const COMMITS: usize = 256;

/// By whom blocks are that a quota made.
const WHO: &str = "quota";

/// Takes what is committed, for the keeper. Never waits.
pub(crate) struct QuotaTap {
    commits: mpsc::Sender<Arc<Commit>>,
    missed: Arc<AtomicBool>,
    quotas: watch::Receiver<Arc<[Quota]>>,
}

impl QuotaTap {
    /// A commit that is on the disk.
    pub(crate) fn committed(&self, commit: &Arc<Commit>) {
        if commit.events.is_empty() || self.quotas.borrow().is_empty() {
            return;
        }
        if self.commits.try_send(Arc::clone(commit)).is_err() {
            self.missed.store(true, Ordering::Release);
        }
    }
}

/// What the keeper takes them from.
pub(crate) struct Counts {
    commits: mpsc::Receiver<Arc<Commit>>,
    missed: Arc<AtomicBool>,
    quotas: watch::Receiver<Arc<[Quota]>>,
}

/// Both ends of the way from the sources to the keeper.
pub(crate) fn counting(quotas: &watch::Sender<Arc<[Quota]>>) -> (QuotaTap, Counts) {
    let (sender, commits) = mpsc::channel(COMMITS);
    let missed = Arc::new(AtomicBool::new(false));
    let tap = QuotaTap {
        commits: sender,
        missed: Arc::clone(&missed),
        quotas: quotas.subscribe(),
    };
    let counts = Counts {
        commits,
        missed,
        quotas: quotas.subscribe(),
    };
    (tap, counts)
}

pub(crate) struct QuotaKeeper {
    pub(crate) ledger: Ledger,
    /// Whether other nodes count, too.
    pub(crate) shared: bool,
    pub(crate) store_health: Arc<StoreHealth>,
    pub(crate) blocker: Blocker,
    pub(crate) active: watch::Receiver<Active>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether that is the rule which bills.
    pub(crate) relayed: bool,
    pub(crate) counts: Counts,
}

type Asking = Pin<Box<dyn Future<Output = (Question, turnhook_store::Result<Used>)> + Send>>;

impl QuotaKeeper {
    fn tallies(&mut self) -> Tallies {
        let quotas = Arc::clone(&self.counts.quotas.borrow_and_update());
        Tallies::new(quotas, self.relayed, self.shared)
    }

    pub(crate) async fn run(mut self, stop: Stop) -> Ended {
        let mut tallies = self.tallies();
        let mut asking: Option<Asking> = None;
        loop {
            if asking.is_none() {
                asking = tallies.next_question().and_then(|question| {
                    let quota = tallies.quotas().get(question.quota())?.clone();
                    Some(self.ask(quota, question))
                });
            }
            tokio::select! {
                biased;
                () = stop.begun() => return Ok(()),
                changed = self.counts.quotas.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    (tallies, asking) = (self.tallies(), None);
                }
                Some(commit) = self.counts.commits.recv() => {
                    if self.counts.missed.swap(false, Ordering::AcqRel) {
                        tallies.missed_some();
                    }
                    for new in &commit.events {
                        for act in tallies.take(&new.event) {
                            // The next event of the session tries again.
                            let _ = self.act(tallies.quotas(), act).await;
                        }
                    }
                }
                (question, answer) = next(&mut asking) => {
                    asking = None;
                    self.decide(&mut tallies, &question, answer).await;
                }
            }
        }
    }

    fn ask(&self, quota: Quota, question: Question) -> Asking {
        let (of, relayed) = (self.ledger.clone(), self.relayed);
        Box::pin(async move {
            let answer = ledger::ask(&of, &quota, &question, relayed).await;
            (question, answer)
        })
    }

    async fn decide(&self, tallies: &mut Tallies, question: &Question, answer: turnhook_store::Result<Used>) {
        let used = match answer {
            Ok(used) => used,
            Err(error) => {
                self.store_health
                    .failed("what users have used cannot be read: no quota acts", &error);
                return tallies.failed(question);
            }
        };
        if let Some(act) = tallies.answered(question, used) {
            let quotas = Arc::clone(tallies.quotas());
            if !self.act(&quotas, act).await {
                tallies.failed(question);
            }
        }
    }

    /// Whether it is done, or need not be.
    async fn act(&self, quotas: &[Quota], act: Act) -> bool {
        let (Act::Block { quota, .. } | Act::End { quota, .. }) = &act;
        let Some(quota) = quotas.get(*quota) else {
            return true;
        };
        let reason = quota.words();
        let made = match act {
            Act::Block {
                realm,
                user,
                period,
                used,
                ..
            } => {
                let blocked = self.active.borrow().blocks.reason(&realm, &user).is_some();
                let Some(until) = period.until(self.blocker.now()).filter(|_| !blocked) else {
                    return true;
                };
                let reached = QuotaReached {
                    span: Some((Timestamp(period.start), Timestamp(period.end))),
                    ..reached(quota, used, realm, user)
                };
                self.blocker.once(until, &reached, &reason, WHO).await
            }
            Act::End { session, used, .. } => self
                .end_session(quota, session, used, &reason)
                .await
                .map(|()| true),
        };
        match made {
            Ok(made) => {
                if made {
                    info!(reason, "a quota was reached");
                    self.metrics.enforce.quota_reached(quota.per);
                }
                true
            }
            Err(error) => {
                self.store_health
                    .failed("a quota was reached, and that cannot be put on record", &error);
                false
            }
        }
    }
}

impl QuotaKeeper {
    /// Whose it is, the ledger knows: it has what was committed.
    async fn end_session(
        &self,
        quota: &Quota,
        session: SessionId,
        used: u64,
        reason: &str,
    ) -> turnhook_store::Result<()> {
        let found = self.ledger.session(session).await?;
        let whose = found.and_then(|found| Some((found.row.realm, found.row.user?)));
        let Some((realm, user)) = whose else {
            let change = BlockChange::EndSession(session);
            return self.blocker.change(change, reason, WHO).await;
        };
        let reached = QuotaReached {
            session: Some(session),
            ..reached(quota, used, realm.into(), user.into())
        };
        self.blocker.end_by_quota(session, &reached, reason, WHO).await
    }
}

/// What there is to be said of a quota that acts, on bytes or milliseconds that were used.
fn reached(quota: &Quota, used: u64, realm: Box<[u8]>, user: Box<[u8]>) -> QuotaReached {
    let (unit, limit, used) = match quota.most {
        Most::Bytes(most) => (QuotaUnit::Bytes, most, used),
        Most::Millis(most) => (QuotaUnit::Seconds, most / 1000, used / 1000),
    };
    QuotaReached {
        name: quota.name(),
        period: match quota.per {
            Per::Day => QuotaPeriod::Day,
            Per::Month => QuotaPeriod::Month,
            Per::Session => QuotaPeriod::Session,
        },
        unit,
        limit,
        used,
        span: None,
        session: None,
        realm,
        user,
    }
}

async fn next(asking: &mut Option<Asking>) -> (Question, turnhook_store::Result<Used>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}
