//! This node among those that share the store: it beats, takes and gives back leases, and lets its other parts know
//! what they may do.
//!
//! ```text
//! beat ─▶ view ─▶ assign ─▶ take, ask back ─▶ Holdings ─▶ source tasks (lead, follow), lanes (deliver)
//!                                   release ◀── given back ◀────────┘
//! ```
//!
//! A beat waits for nothing but the database's answer to it. Taking and releasing go on beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use turnhook_store::{Cluster, Epoch, Lanes, LeaseName, SourceId, Store, View, assign};

use super::{
    fault,
    store_health::StoreHealth,
    supervisor::{Ended, words_of_join},
};
use crate::health::{Health, NodeStatus};

/// What this node may do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// The sources that it leads.
    pub(crate) sources: BTreeMap<SourceId, Lead>,
    /// The lanes that it delivers.
    pub(crate) lanes: Lanes,
    /// Lanes that it holds and is to give back: also those of which it never came to deliver.
    pub(crate) leaving: Vec<(LeaseName, Epoch)>,
    /// The nodes that live, this one among them.
    pub(crate) nodes: usize,
}

/// The lead of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) epoch: Epoch,
    /// Another node is to have it: to be given back once all is committed.
    pub(crate) wanted_back: bool,
}

impl Holdings {
    /// Nothing, and nobody else known.
    pub(crate) fn none() -> Holdings {
        Holdings {
            sources: BTreeMap::new(),
            lanes: Lanes::NONE,
            leaving: Vec::new(),
            nodes: 1,
        }
    }
}

/// Until when the leases hold, by this node's own clock: after it has slept, this is asked before anything else.
#[derive(Clone, Debug)]
pub(crate) struct Validity {
    start: Instant,
    /// In milliseconds since then.
    until: Arc<AtomicU64>,
}

impl Validity {
    fn new() -> Validity {
        Validity {
            start: Instant::now(),
            until: Arc::default(),
        }
    }

    fn set(&self, until: Option<Instant>) {
        let until = until.map_or(Duration::ZERO, |until| until.duration_since(self.start));
        let ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until.store(ms, Ordering::Release);
    }

    fn left(&self) -> Duration {
        let until = Duration::from_millis(self.until.load(Ordering::Acquire));
        until.saturating_sub(self.start.elapsed())
    }

    /// Whether the leases have run out.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Resolves when the leases have run out.
    pub(crate) async fn over(&self) {
        // They may have been renewed meanwhile.
        while !self.is_over() {
            tokio::time::sleep(self.left()).await;
        }
    }
}

/// Leases that are given back: whoever acted on them, in this epoch, does so no more.
pub(crate) type GivenBack = mpsc::UnboundedSender<(LeaseName, Epoch)>;

/// What came of a request that was made beside the beats.
enum Answer {
    /// Of these, those that were taken.
    Taken(Vec<LeaseName>, turnhook_store::Result<Vec<(LeaseName, Epoch)>>),
    Released(LeaseName, turnhook_store::Result<()>),
}

type Beat = Pin<Box<dyn Future<Output = (Instant, turnhook_store::Result<View>)> + Send>>;

pub(crate) struct Member {
    store: Store,
    sources: Vec<SourceId>,
    health: Arc<Health>,
    store_health: Arc<StoreHealth>,
    holdings: watch::Sender<Holdings>,
    given_back: Option<mpsc::UnboundedReceiver<(LeaseName, Epoch)>>,
    held: BTreeMap<LeaseName, Epoch>,
    wanted_back: BTreeSet<LeaseName>,
    nodes: usize,
    /// By this node's own clock; the database's says the same, or later.
    valid_until: Option<Instant>,
    validity: Validity,
    /// Takings and releases under way. A beat never waits for them: whatever hangs, leases are renewed.
    work: JoinSet<Answer>,
    /// One at a time, so that a connection is left for the beats.
    one_at_a_time: Arc<Semaphore>,
    /// Leases that are being taken or released: what a view says of them is not the last word.
    asked: BTreeSet<LeaseName>,
    /// Those of them that are being released: they are not renewed, so that they expire should that hang.
    given_up: BTreeSet<LeaseName>,
    /// When the answer came. A view that was asked for before may not know of it.
    settled: BTreeMap<LeaseName, Instant>,
}

impl Member {
    pub(crate) fn new(
        store: &Store,
        sources: Vec<SourceId>,
        health: &Arc<Health>,
        store_health: &Arc<StoreHealth>,
    ) -> (Member, watch::Receiver<Holdings>, GivenBack, Validity) {
        let (holdings, watched) = watch::channel(Holdings::none());
        let (give_back, given_back) = mpsc::unbounded_channel();
        let member = Member {
            store: store.clone(),
            sources,
            health: Arc::clone(health),
            store_health: Arc::clone(store_health),
            holdings,
            given_back: Some(given_back),
            held: BTreeMap::new(),
            wanted_back: BTreeSet::new(),
            nodes: 1,
            valid_until: None,
            validity: Validity::new(),
            work: JoinSet::new(),
            one_at_a_time: Arc::new(Semaphore::new(1)),
            asked: BTreeSet::new(),
            given_up: BTreeSet::new(),
            settled: BTreeMap::new(),
        };
        let validity = member.validity.clone();
        (member, watched, give_back, validity)
    }

    /// Beats until `stop`; takes nothing more once `stopping`. Then gives back all that is left.
    pub(crate) async fn run(mut self, stopping: CancellationToken, stop: CancellationToken) -> Ended {
        let store = self.store.clone();
        let (Some(cluster), Some(mut given_back)) = (store.cluster(), self.given_back.take()) else {
            return Err("this store is not shared".to_owned());
        };
        let lease = cluster.lease();
        let every = (lease / 10).clamp(Duration::from_millis(200), Duration::from_secs(1));
        let mut next = Instant::now();
        let mut beat: Option<Beat> = None;
        loop {
            let until = expiry(self.valid_until);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = until => self.lose_all(),
                (sent, answer) = answered(&mut beat) => {
                    beat = None;
                    next = Instant::now() + every;
                    match answer {
                        Ok(view) => self.beaten(cluster, &view, sent, lease, stopping.is_cancelled()),
                        Err(error) => self.store_health.unanswered(&error),
                    }
                }
                () = tokio::time::sleep_until(next), if beat.is_none() => {
                    let (store, sources) = (store.clone(), self.sources.clone());
                    let given_up: Vec<LeaseName> = self.given_up.iter().copied().collect();
                    beat = Some(Box::pin(async move {
                        let sent = Instant::now();
                        let answer = match store.cluster() {
                            Some(cluster) => cluster.beat_without(&sources, &given_up).await,
                            None => Err(turnhook_store::Error::Closed),
                        };
                        (sent, answer)
                    }));
                }
                Some((lease, epoch)) = given_back.recv() => self.give_back(lease, epoch),
                Some(done) = self.work.join_next() => match done {
                    Ok(answer) => self.done(answer),
                    Err(error) => return Err(format!("a request for leases: {}", words_of_join(error))),
                },
            }
        }
        // Their connection is needed for the last request.
        drop(beat);
        self.work.shutdown().await;
        if let Err(error) = cluster.leave().await {
            warn!(%error, "the leases of this node could not be given back: they expire by themselves");
        }
        Ok(())
    }

    fn beaten(&mut self, cluster: &Cluster, view: &View, sent: Instant, lease: Duration, stopping: bool) {
        self.valid_until = Some(sent + lease);
        self.validity.set(self.valid_until);
        let leads = self
            .held
            .keys()
            .any(|lease| matches!(lease, LeaseName::Source(_)));
        self.store_health.answered(leads);
        self.act(cluster, view, sent, stopping);
    }

    fn act(&mut self, cluster: &Cluster, view: &View, sent: Instant, stopping: bool) {
        let me = cluster.node();
        let others_live = |node| view.nodes.iter().any(|n| n.id == node && n.live && n.id != me);
        let wanted = assign(view);
        let mut take = Vec::new();
        let mut unknown = Vec::new();
        self.settled.retain(|_, at| *at >= sent);
        for lease in &view.leases {
            if self.asked.contains(&lease.name) || self.settled.contains_key(&lease.name) {
                continue;
            }
            let mine = lease.holder == Some(me) && !lease.expired;
            if !mine && self.held.remove(&lease.name).is_some() {
                warn!(lease = %lease.name, "lost");
                self.wanted_back.remove(&lease.name);
            }
            let holder = wanted.get(&lease.name).copied();
            match self.held.contains_key(&lease.name) {
                true if holder.is_some_and(others_live) => {
                    self.wanted_back.insert(lease.name);
                }
                true => {
                    self.wanted_back.remove(&lease.name);
                }
                // One that is mine by the view, and not by what this node knows, was taken while its answer was lost.
                false if holder == Some(me) && (mine || lease.expired) && !stopping => take.push(lease.name),
                // The same, or one whose release failed; every beat renews it, so that nobody else could ever take it.
                false if mine => unknown.push((lease.name, lease.epoch)),
                false => {}
            }
        }
        self.nodes = view.nodes.iter().filter(|n| n.live).count().max(1);
        self.publish();
        for (lease, epoch) in unknown {
            self.release(lease, epoch);
        }
        if !take.is_empty() {
            self.take(take);
        }
        let names = view
            .nodes
            .iter()
            .filter(|n| n.live)
            .map(|n| n.name.clone())
            .collect();
        let lanes = self.lanes().iter().count();
        self.health.update_node(|node| {
            *node = Some(NodeStatus {
                id: me.to_string(),
                live: names,
                lanes,
            });
        });
    }

    fn take(&mut self, leases: Vec<LeaseName>) {
        self.asked.extend(&leases);
        let (store, one_at_a_time) = (self.store.clone(), Arc::clone(&self.one_at_a_time));
        self.work.spawn(async move {
            let _permit = one_at_a_time.acquire().await;
            fault::step("taking leases");
            let taken = match store.cluster() {
                Some(cluster) => cluster.take_all(&leases).await,
                None => Ok(Vec::new()),
            };
            Answer::Taken(leases, taken)
        });
    }

    fn release(&mut self, lease: LeaseName, epoch: Epoch) {
        self.asked.insert(lease);
        self.given_up.insert(lease);
        let (store, one_at_a_time) = (self.store.clone(), Arc::clone(&self.one_at_a_time));
        self.work.spawn(async move {
            let _permit = one_at_a_time.acquire().await;
            fault::step("releasing a lease");
            let released = match store.cluster() {
                Some(cluster) => cluster.release(lease, epoch).await,
                None => Ok(()),
            };
            Answer::Released(lease, released)
        });
    }

    fn done(&mut self, answer: Answer) {
        let now = Instant::now();
        let mut settle = |lease: LeaseName| {
            self.asked.remove(&lease);
            self.settled.insert(lease, now);
        };
        match answer {
            Answer::Taken(leases, taken) => {
                leases.into_iter().for_each(&mut settle);
                match taken {
                    // Where the leases ran out meanwhile, the next view says how these stand.
                    Ok(taken) if !self.validity.is_over() => self.held.extend(taken),
                    Ok(_) => {}
                    Err(error) => {
                        self.store_health
                            .failed("leases could not be taken; tried again at the next beat", &error);
                    }
                }
                self.publish();
            }
            Answer::Released(lease, released) => {
                settle(lease);
                self.given_up.remove(&lease);
                // What fails is done again after a beat.
                if let Err(error) = released {
                    self.store_health
                        .failed("a lease could not be given back; tried again", &error);
                }
            }
        }
    }

    fn give_back(&mut self, lease: LeaseName, epoch: Epoch) {
        // It may have been lost and taken again since, or be wanted no more by the other node.
        if self.held.get(&lease) != Some(&epoch) || !self.wanted_back.remove(&lease) {
            return;
        }
        self.held.remove(&lease);
        self.release(lease, epoch);
        self.publish();
    }

    /// Nobody has answered for as long as the leases hold.
    fn lose_all(&mut self) {
        if self.valid_until.is_some_and(|until| until > Instant::now()) {
            // A beat has succeeded while its end was waited for.
            return;
        }
        self.valid_until = None;
        self.validity.set(None);
        if !self.held.is_empty() {
            warn!(
                "the leases of this node have run out: it leads nothing and delivers nothing until it can renew them"
            );
        }
        self.held.clear();
        self.wanted_back.clear();
        self.publish();
    }

    fn lanes(&self) -> Lanes {
        let lanes = self
            .held
            .keys()
            .filter(|lease| !self.wanted_back.contains(*lease));
        lanes
            .filter_map(|lease| match lease {
                LeaseName::Lane(lane) => Some(*lane),
                LeaseName::Source(_) => None,
            })
            .collect()
    }

    fn publish(&self) {
        let leads = self.held.iter().filter_map(|(lease, epoch)| match lease {
            LeaseName::Source(source) => {
                let wanted_back = self.wanted_back.contains(lease);
                let lead = Lead {
                    epoch: *epoch,
                    wanted_back,
                };
                Some((*source, lead))
            }
            LeaseName::Lane(_) => None,
        });
        let leaving = self.wanted_back.iter().filter_map(|lease| match lease {
            LeaseName::Source(_) => None,
            LeaseName::Lane(_) => Some((*lease, *self.held.get(lease)?)),
        });
        let holdings = Holdings {
            sources: leads.collect(),
            lanes: self.lanes(),
            leaving: leaving.collect(),
            nodes: self.nodes,
        };
        self.holdings.send_if_modified(|old| {
            if *old == holdings {
                return false;
            }
            if old.nodes != holdings.nodes {
                info!(nodes = holdings.nodes, "nodes that share the store");
            }
            *old = holdings;
            true
        });
    }
}

/// The answer to the beat that is under way; never ready if there is none.
async fn answered(beat: &mut Option<Beat>) -> (Instant, turnhook_store::Result<View>) {
    match beat {
        Some(beat) => beat.await,
        None => std::future::pending().await,
    }
}

async fn expiry(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
