//! The deliveries of this node's lanes, where several nodes share the outbox: which ones it reads, what it withdraws
//! when a lane goes to another node, and the news that others committed.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use turnhook_store::{DeliveryId, Lanes, Outbox};

use super::{
    cluster::{GivenBack, Holdings, Validity},
    deadline::Stop,
    fan_out::FanOut,
    store_health::StoreHealth,
    supervisor::Ended,
};

/// How often is asked what other nodes committed: what a delivery takes longer that is another node's to make.
const NEWS: Duration = Duration::from_millis(100);

/// News that are read at once.
const MOST: usize = 1000;

/// How long is waited for requests under way before a lane is given back. Beyond, the next holder repeats them.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Has the dispatcher read the outbox anew. What is handed to it from now on waits until that is done, and so goes
/// after what was committed before.
pub(crate) fn read_again(fan_out: &FanOut) {
    for (_, name) in fan_out.endpoints() {
        fan_out.dispatcher().read_again(&name);
    }
}

pub(crate) struct LaneKeeper {
    pub(crate) outbox: Outbox,
    pub(crate) store_health: Arc<StoreHealth>,
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) holdings: watch::Receiver<Holdings>,
    pub(crate) give_back: GivenBack,
    pub(crate) validity: Validity,
}

impl LaneKeeper {
    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: Stop) -> Ended {
        let mut mine = Lanes::NONE;
        let mut nodes = 1;
        // News are what was committed after the outbox was read as a whole.
        let mut read_upto = None;
        loop {
            tokio::select! {
                () = stop.begun() => return Ok(()),
                () = self.validity.over(), if mine != Lanes::NONE => {
                    mine = Lanes::NONE;
                    self.give_up();
                }
                changed = self.holdings.changed() => {
                    if changed.is_err() {
                        // The member ends first only where the process is about to.
                        stop.begun().await;
                        return Ok(());
                    }
                    let holdings = self.holdings.borrow_and_update().clone();
                    if holdings.nodes != nodes {
                        nodes = holdings.nodes;
                        self.fan_out.dispatcher().share(nodes);
                    }
                    let gained = holdings.lanes.0 & !mine.0 != 0;
                    let lost = Lanes(mine.0 & !holdings.lanes.0);
                    let kept = Lanes(mine.0 & holdings.lanes.0);
                    mine = holdings.lanes;
                    self.fan_out.set_lanes(kept);
                    self.outbox.set_lanes(mine);
                    if gained {
                        // What waits in these lanes goes before whatever is committed from now on. Once more at the end
                        // for what was committed in between.
                        read_again(&self.fan_out);
                        self.fan_out.set_lanes(mine);
                        read_again(&self.fan_out);
                    }
                    if mine == Lanes::NONE {
                        self.give_up();
                    } else if lost != Lanes::NONE {
                        // What the database has to be asked for may take longer than the leases hold.
                        let validity = self.validity.clone();
                        tokio::select! {
                            () = self.withdraw() => {}
                            () = validity.over() => {
                                mine = Lanes::NONE;
                                self.give_up();
                            }
                        }
                    }
                    for lease in holdings.leaving {
                        // A member that has ended gives all back itself.
                        let _ = self.give_back.send(lease);
                    }
                    if gained {
                        read_upto = None;
                    }
                }
                // Leases that had run out here may have been renewed by a beat that came just in time.
                () = tokio::time::sleep(NEWS), if mine == Lanes::NONE => {
                    if !self.validity.is_over() && self.holdings.borrow().lanes != Lanes::NONE {
                        self.holdings.mark_changed();
                    }
                }
                () = tokio::time::sleep(NEWS), if mine != Lanes::NONE => {
                    let news = async {
                        match read_upto {
                            None => self.read_all().await,
                            Some(upto) => self.news(upto).await,
                        }
                    };
                    tokio::select! {
                        result = news => match result {
                            Ok(upto) => read_upto = Some(upto),
                            Err(error) => self.store_health.failed("what other nodes committed cannot be read", &error),
                        },
                        () = self.validity.over() => {}
                    }
                }
            }
        }
    }

    /// Delivers nothing more, whether or not the database can be asked: what is under way alone goes on. What was
    /// withdrawn is read from the outbox by whoever gets the lanes next.
    fn give_up(&self) {
        self.fan_out.set_lanes(Lanes::NONE);
        self.outbox.set_lanes(Lanes::NONE);
        let dispatcher = self.fan_out.dispatcher();
        for (_, name) in self.fan_out.endpoints() {
            dispatcher.drop_read(&name);
            dispatcher.withdraw(&name, &dispatcher.known(&name));
        }
    }

    /// Has the dispatcher read the outbox anew; news are what comes after.
    async fn read_all(&self) -> turnhook_store::Result<DeliveryId> {
        let upto = self.outbox.newest_delivery().await?;
        read_again(&self.fan_out);
        Ok(upto)
    }

    async fn news(&self, mut upto: DeliveryId) -> turnhook_store::Result<DeliveryId> {
        loop {
            let pending = self.outbox.pending_since(upto, MOST).await?;
            let more = pending.len() >= MOST;
            upto = pending.last().copied().unwrap_or(upto);
            // Most of it is what this node committed itself, and is not read once more.
            let news = self.fan_out.not_handed(pending);
            if !news.is_empty() {
                self.fan_out.deliver(self.outbox.pending_rows(news).await?);
            }
            if !more {
                return Ok(upto);
            }
        }
    }

    /// Takes back from the dispatcher what is in lanes that are no longer this node's.
    async fn withdraw(&self) {
        let mut waiting = Vec::new();
        for (_, name) in self.fan_out.endpoints() {
            // It was asked for with the lanes of before.
            self.fan_out.dispatcher().drop_read(&name);
            let known = self.fan_out.dispatcher().known(&name);
            // Those in the lanes that are left, and pending.
            match self.outbox.still_pending(known.clone()).await {
                Ok(kept) => {
                    let kept: HashSet<DeliveryId> = kept.into_iter().collect();
                    let gone: Vec<DeliveryId> = known.into_iter().filter(|id| !kept.contains(id)).collect();
                    self.fan_out.dispatcher().withdraw(&name, &gone);
                    waiting.push((
                        Arc::clone(&name),
                        gone.into_iter().collect::<HashSet<DeliveryId>>(),
                    ));
                }
                // They are made once more by the next holder, with the same ids.
                Err(error) => self.store_health.failed(
                    "deliveries of lanes that were given up cannot be distinguished from others",
                    &error,
                ),
            }
        }
        let until = Instant::now() + UNDER_WAY;
        let under_way = || {
            waiting.iter().any(|(name, gone)| {
                self.fan_out
                    .dispatcher()
                    .known(name)
                    .iter()
                    .any(|id| gone.contains(id))
            })
        };
        while under_way() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
