//! The `redis` source: coturn's messages by way of Redis pub/sub.
//!
//! fred knows topologies and carries commands (snapshots, `CLIENT LIST`). The subscription itself is a connection
//! of our own: fred's message stream drops what lags and what is not UTF-8, without a word (TRAPS.md, trap 17).

mod config;
mod examine;
mod heal;
mod rights;
mod snapshot;
mod stream;
mod subscription;
mod topology;

use std::{convert::Infallible, sync::Arc, time::Duration};

use fred::types::config::Server;

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};
use turnhook_reducer::{source::Gap, time::Timestamp};

use self::{
    config::{Node, Target},
    snapshot::Commands,
    subscription::{Loss, ServerState, Subscription},
};
pub use self::{
    config::{Patience, RedisConfig},
    examine::Examined,
    heal::{Healing, SilentThread},
};
use crate::{
    error::SubscriberError,
    queue::SignalSender,
    signal::{Clock, Signal},
};

/// What can be asked of a running `redis` source. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct RedisControl {
    snapshots: watch::Sender<bool>,
    heal: mpsc::Sender<(SilentThread, oneshot::Sender<Healing>)>,
}

impl RedisControl {
    /// Whether snapshots are taken: after subscribing, after each gap, and at once when this changes to true.
    /// They are unless set otherwise.
    pub fn take_snapshots(&self, on: bool) {
        self.snapshots
            .send_if_modified(|now| std::mem::replace(now, on) != on);
    }

    /// Closes coturn's connection of a relay thread that has fallen silent (TRAPS.md, trap 11), if it can be found
    /// which one that is. See [`SilentThread`] for how.
    pub async fn close_relay_connection(&self, thread: SilentThread) -> Healing {
        let (answer, answered) = oneshot::channel();
        let gone = || Healing::Unavailable {
            error: "the source is not connected to Redis".to_owned(),
        };
        if self.heal.try_send((thread, answer)).is_err() {
            return gone();
        }
        answered.await.unwrap_or_else(|_| gone())
    }
}

/// Everything that a running source is made of.
pub(crate) struct Redis {
    target: Target,
    patience: Patience,
    clock: Clock,
    signals: SignalSender,
    snapshots: watch::Receiver<bool>,
    heal: mpsc::Receiver<(SilentThread, oneshot::Sender<Healing>)>,
    limiter: heal::Limiter,
    /// Whether it will be asked to heal, and the rights for that which were said to be missing.
    heals: bool,
    missing: Vec<&'static str>,
    /// The nodes of a Cluster.
    known: Vec<Server>,
}

impl Redis {
    /// Checks the configuration. Nothing is connected before [`Redis::run`].
    pub(crate) fn new(
        config: &RedisConfig,
        clock: Clock,
        signals: SignalSender,
    ) -> Result<(Redis, RedisControl), SubscriberError> {
        let target = config.target()?;
        let (snapshots, take) = watch::channel(true);
        let (heal, requests) = mpsc::channel(8);
        let redis = Redis {
            target,
            patience: config.patience,
            clock,
            signals,
            snapshots: take,
            heal: requests,
            limiter: heal::Limiter::new(config.patience.heal),
            heals: config.heal,
            missing: Vec::new(),
            known: Vec::new(),
        };
        Ok((redis, RedisControl { snapshots, heal }))
    }

    /// Subscribes, again and again, for ever.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.patience.backoff);
        let mut lost: Option<(ServerState, Loss, Timestamp)> = None;
        let mut logged = String::new();
        loop {
            let (node, mut subscription) = match self.open().await {
                Ok(open) => open,
                Err(error) => {
                    if error != logged {
                        warn!("not connected to Redis: {error}");
                        self.deaf((self.clock)(), &error);
                        logged = error;
                    }
                    self.wait(backoff.next()).await;
                    continue;
                }
            };
            logged.clear();
            let at = subscription.heard;
            info!("subscribed on {node}");
            self.signals.signal(Signal::Hearing {
                at,
                detail: format!("subscribed on {node}"),
            });
            if let Some((before, loss, from)) = lost.take() {
                let reason = subscription::reason(&before, &loss, &subscription.server);
                self.signals.signal(Signal::Gap(Gap {
                    from,
                    to: at,
                    reason,
                    server: None,
                }));
            }
            let since = Instant::now();
            let loss = tokio::select! {
                loss = subscription.hear() => loss,
                never = self.attend(&node) => match never {},
            };
            warn!("{node}: {}", loss.error);
            self.deaf(subscription.heard, &loss.error);
            lost = Some((subscription.server.clone(), loss, subscription.heard));
            if since.elapsed() > self.patience.backoff {
                backoff = Backoff::new(self.patience.backoff);
            }
            drop(subscription);
            self.wait(backoff.next()).await;
        }
    }

    async fn open(&self) -> Result<(Node, Subscription), String> {
        let open = async {
            let node = topology::find(&self.target, &self.known, self.patience.answer).await?;
            let (clock, signals) = (Arc::clone(&self.clock), self.signals.clone());
            let subscription = Subscription::open(&self.target, &node, clock, signals, self.patience).await?;
            Ok((node, subscription))
        };
        let patience = self.patience.answer;
        match timeout(patience, open).await {
            Ok(open) => open,
            Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
        }
    }

    /// What is done beside a subscription, by commands on a connection of its own: snapshots and healing.
    async fn attend(&mut self, node: &Node) -> Infallible {
        let mut backoff = Backoff::new(Duration::from_secs(60));
        let mut due = *self.snapshots.borrow_and_update();
        let mut logged = String::new();
        loop {
            let Err(failed) = self.command(node, &mut due, &mut backoff).await;
            if failed != logged {
                warn!("{node}: no snapshot of the status keys, or no commands: {failed}");
                logged = failed;
            }
            sleep(backoff.next()).await;
        }
    }

    /// Connects for commands, and carries out what is due until that fails.
    async fn command(
        &mut self,
        node: &Node,
        due: &mut bool,
        backoff: &mut Backoff,
    ) -> Result<Infallible, String> {
        let config = self.target.config_of(node);
        let commands = Commands::new(topology::connect(config, self.patience.answer).await?);
        if self.target.is_cluster() {
            let slots = commands.call("CLUSTER", vec!["SLOTS".into()]).await?;
            self.known = topology::masters(slots, node);
        }
        if self.heals {
            self.try_healing(&commands, node).await;
        }
        loop {
            if *due {
                snapshot::take(&commands, self.target.is_cluster(), &self.clock, &self.signals).await?;
                *due = false;
                *backoff = Backoff::new(Duration::from_secs(60));
            }
            tokio::select! {
                Ok(()) = self.snapshots.changed() => *due = *self.snapshots.borrow_and_update(),
                Some((thread, answer)) = self.heal.recv() => {
                    let healing = heal::heal(&commands, &thread, &mut self.limiter).await;
                    let failed = match &healing {
                        Healing::Unavailable { error } => Some(error.clone()),
                        _ => None,
                    };
                    let _ = answer.send(healing);
                    if let Some(failed) = failed {
                        return Err(failed);
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Says which rights are missing, once: else it would be found out only when a thread has fallen silent.
    async fn try_healing(&mut self, commands: &Commands, node: &Node) {
        let tried = heal::rights(commands).await;
        let missing: Vec<&str> = tried
            .iter()
            .filter(|(_, answer)| answer.as_ref().is_err_and(|error| rights::are_missing(error)))
            .map(|(right, _)| *right)
            .collect();
        if !missing.is_empty() && missing != self.missing {
            let lacks = missing.join(" +");
            warn!(
                "{node}: a relay thread that falls silent could not be healed: for `heal` its user needs the rights +{lacks}"
            );
        }
        self.missing = missing;
    }

    fn deaf(&self, heard: Timestamp, error: &str) {
        self.signals.signal(Signal::Deaf {
            at: (self.clock)(),
            heard,
            error: error.to_owned(),
        });
    }

    /// Waits to connect again, and meanwhile answers those who ask for what needs a connection.
    async fn wait(&mut self, time: Duration) {
        let deadline = sleep(time);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => return,
                Some((_, answer)) = self.heal.recv() => {
                    let error = "the source is not connected to Redis".to_owned();
                    let _ = answer.send(Healing::Unavailable { error });
                }
            }
        }
    }
}

/// Doubling waits with jitter, so that a fleet does not come back all at once.
struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    fn new(most: Duration) -> Backoff {
        Backoff {
            next: Duration::from_millis(100).min(most),
            most,
        }
    }

    fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        let half = wait / 2;
        let mut random = [0u8; 4];
        // Without randomness there is no jitter, and nothing worse.
        let _ = getrandom::fill(&mut random);
        half + half.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
    }
}
