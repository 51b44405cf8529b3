//! This node among those that share the store: it beats, takes and gives back leases, and tells its other parts
//! what they may do.
//!
//! ```text
//! beat ─▶ view ─▶ assign ─▶ take, ask back ─▶ Holdings ─▶ source tasks (lead, follow), lanes (deliver)
//!                                   release ◀── given back ◀────────┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use turnhook_store::{Cluster, Epoch, Lanes, LeaseName, SourceId, Store, View, assign};

use super::clock::Clock;
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

    /// Whether the leases have run out.
    pub(crate) fn is_over(&self) -> bool {
        self.start.elapsed().as_millis() >= u128::from(self.until.load(Ordering::Acquire))
    }
}

/// Leases that are given back: whoever acted on them, in this epoch, does so no more.
pub(crate) type GivenBack = mpsc::UnboundedSender<(LeaseName, Epoch)>;

pub(crate) struct Member {
    store: Store,
    sources: Vec<SourceId>,
    clock: Arc<Clock>,
    health: Arc<Health>,
    holdings: watch::Sender<Holdings>,
    given_back: Option<mpsc::UnboundedReceiver<(LeaseName, Epoch)>>,
    held: BTreeMap<LeaseName, Epoch>,
    wanted_back: BTreeSet<LeaseName>,
    nodes: usize,
    /// By this node's own clock; the database's says the same, or later.
    valid_until: Option<Instant>,
    validity: Validity,
}

impl Member {
    pub(crate) fn new(
        store: &Store,
        sources: Vec<SourceId>,
        clock: &Arc<Clock>,
        health: &Arc<Health>,
    ) -> (Member, watch::Receiver<Holdings>, GivenBack, Validity) {
        let (holdings, watched) = watch::channel(Holdings::none());
        let (give_back, given_back) = mpsc::unbounded_channel();
        let member = Member {
            store: store.clone(),
            sources,
            clock: Arc::clone(clock),
            health: Arc::clone(health),
            holdings,
            given_back: Some(given_back),
            held: BTreeMap::new(),
            wanted_back: BTreeSet::new(),
            nodes: 1,
            valid_until: None,
            validity: Validity::new(),
        };
        let validity = member.validity.clone();
        (member, watched, give_back, validity)
    }

    /// Beats until `stop`; takes nothing more once `stopping`. Then gives back all that is left.
    pub(crate) async fn run(mut self, stopping: CancellationToken, stop: CancellationToken) {
        let store = self.store.clone();
        let (Some(cluster), Some(mut given_back)) = (store.cluster(), self.given_back.take()) else {
            return;
        };
        let lease = cluster.lease();
        let every = (lease / 10).clamp(Duration::from_millis(200), Duration::from_secs(1));
        let mut next = Instant::now();
        while !stop.is_cancelled() {
            let until = expiry(self.valid_until);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = until => self.lose_all(),
                Some((lease, epoch)) = given_back.recv() => self.give_back(cluster, lease, epoch).await,
                () = self.beat_at(next, cluster, lease, &stopping) => next = Instant::now() + every,
            }
        }
        if let Err(error) = cluster.leave().await {
            warn!(%error, "the leases of this node could not be given back: they expire by themselves");
        }
    }

    async fn beat_at(
        &mut self,
        at: Instant,
        cluster: &Cluster,
        lease: Duration,
        stopping: &CancellationToken,
    ) {
        tokio::time::sleep_until(at).await;
        let sent = Instant::now();
        match cluster.beat(&self.sources).await {
            Ok(view) => {
                self.valid_until = Some(sent + lease);
                self.validity.set(self.valid_until);
                let leads = self
                    .held
                    .keys()
                    .any(|lease| matches!(lease, LeaseName::Source(_)));
                self.health.update_store(|s| {
                    s.reachable = true;
                    // A commit that failed is another node's to make, once that one leads.
                    s.writable |= !leads;
                });
                self.act(cluster, &view, stopping.is_cancelled()).await;
            }
            Err(error) => {
                warn!(%error, "the store cannot be reached: this node's leases are not renewed");
                let at = self.clock.now();
                self.health.update_store(|s| {
                    s.reachable = false;
                    s.last_error = Some(error.to_string());
                    s.last_error_at = Some(at);
                });
            }
        }
    }

    async fn act(&mut self, cluster: &Cluster, view: &View, stopping: bool) {
        let me = cluster.node();
        let others_live = |node| view.nodes.iter().any(|n| n.id == node && n.live && n.id != me);
        let wanted = assign(view);
        let mut take = Vec::new();
        let mut unknown = Vec::new();
        for lease in &view.leases {
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
            release(cluster, lease, epoch).await;
        }
        match cluster.take_all(&take).await {
            Ok(taken) => self.held.extend(taken),
            Err(error) => warn!(%error, "leases could not be taken; tried again at the next beat"),
        }
        self.publish();
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

    async fn give_back(&mut self, cluster: &Cluster, lease: LeaseName, epoch: Epoch) {
        // It may have been lost and taken again since, or be wanted no more by the other node.
        if self.held.get(&lease) != Some(&epoch) || !self.wanted_back.remove(&lease) {
            return;
        }
        self.held.remove(&lease);
        release(cluster, lease, epoch).await;
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

/// What fails is done again at a beat.
async fn release(cluster: &Cluster, lease: LeaseName, epoch: Epoch) {
    if let Err(error) = cluster.release(lease, epoch).await {
        warn!(%error, %lease, "could not be given back; tried again");
    }
}

async fn expiry(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
