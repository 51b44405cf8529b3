//! A stop: in which order the parts end, and by when.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use turnhook_dispatcher::dispatcher::Dispatcher;
use turnhook_store::{LeaseName, SourceId, Store};

use super::{
    cluster::{Holdings, Lead},
    deadline::{Deadline, Stop},
    fan_out::FanOut,
    keep::Keeper,
    supervisor::{Part, Supervisor},
};

/// What asks parts to stop, in this order.
#[derive(Default)]
pub(super) struct Stops {
    /// Subscribers.
    pub(super) reading: CancellationToken,
    /// The member takes no more leases.
    pub(super) taking: CancellationToken,
    /// Sources, with all that they have yet to commit, and whoever only looks on.
    pub(super) parts: Stop,
    /// The member gives back what is left.
    pub(super) leave: CancellationToken,
    /// What is there to the end.
    pub(super) last: CancellationToken,
}

/// What a stop needs.
pub(super) struct Parted {
    pub(super) store: Store,
    /// Where several nodes share the store.
    pub(super) holdings: Option<watch::Receiver<Holdings>>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) fan_out: Arc<FanOut>,
    pub(super) keeper: Keeper,
}

impl Parted {
    /// Stops all parts by the deadline. Whether all was committed, and nothing went wrong.
    pub(super) async fn stop(self, mut parts: Supervisor, stops: Stops, deadline: Deadline) -> bool {
        let Parted {
            store,
            holdings,
            dispatcher,
            fan_out,
            keeper,
        } = self;
        stops.taking.cancel();
        stops.reading.cancel();
        let is_reader = |part: &Part| matches!(part, Part::Subscriber(_));
        let sources = async {
            // What they have read is then in the queues.
            let mut well = parts.wait_for(is_reader, deadline).await;
            stops.parts.begin(deadline);
            well &= parts
                .wait_for(|part| matches!(part, Part::Source(_)), deadline)
                .await;
            if let Some(holdings) = &holdings {
                // Others need not wait for the requests that are under way here.
                let leads = holdings.borrow().sources.clone();
                deadline.within(hand_over(&store, leads)).await;
            }
            if well {
                keeper.hand_over(store.store_id(), deadline).await;
            }
            well
        };
        // Requests under way need not wait for a store that takes its time.
        let (mut well, ()) = tokio::join!(sources, dispatcher.shutdown(deadline.for_requests()));
        stops.leave.cancel();
        // It ends when nobody holds it, and the writer of outcomes after it.
        drop((dispatcher, fan_out));
        let is_left =
            |part: &Part| !matches!(part, Part::Http | Part::Admin | Part::Dispatcher | Part::Store);
        well &= parts.wait_for(is_left, deadline).await;
        if deadline.within(store.close()).await.is_none() {
            warn!("the store does not answer: left as it is");
        }
        // The rest has nothing to lose, and ends with the runtime.
        stops.last.cancel();
        well
    }
}

async fn hand_over(store: &Store, leads: BTreeMap<SourceId, Lead>) {
    let Some(cluster) = store.cluster() else { return };
    for (source, lead) in leads {
        if let Err(error) = cluster.release(LeaseName::Source(source), lead.epoch).await {
            warn!(%error, "a source could not be handed over: its lease expires by itself");
        }
    }
}
