//! What has to be done now and then: measuring backlogs, trimming what is old, noticing what other
//! processes did to the store.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;
use turnhook_reducer::time::Timestamp;
use turnhook_store::{DeliveryId, EndpointId, Store};

use super::{clock::Clock, courier::age_seconds, outlet::Outlet, store_health::StoreHealth};
use crate::{
    config::Config,
    health::{Breaker, Health},
    metrics::{EndpointLabels, Metrics},
};

/// How often backlogs are measured and other processes' changes looked for.
const TICK: Duration = Duration::from_secs(1);

/// How often old events are looked for.
const TRIM: Duration = Duration::from_secs(60);

/// Rows looked at in one step of trimming, and the pause after it, so that commits are not held up.
const TRIM_STEP: usize = 500;
const TRIM_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Housekeeper {
    store: Store,
    outlet: Arc<Outlet>,
    clock: Arc<Clock>,
    retention: Duration,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    store_health: Arc<StoreHealth>,
}

impl Housekeeper {
    pub(crate) fn new(
        config: &Config,
        store: &Store,
        outlet: &Arc<Outlet>,
        clock: &Arc<Clock>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        store_health: Arc<StoreHealth>,
    ) -> Housekeeper {
        Housekeeper {
            store: store.clone(),
            outlet: Arc::clone(outlet),
            clock: Arc::clone(clock),
            retention: config.store.retention,
            metrics,
            health,
            store_health,
        }
    }

    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trimmed_at = Instant::now();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            self.look().await;
            if let Err(error) = self.follow_others().await {
                self.store_health
                    .failed("changes by other processes cannot be followed", &error);
            }
            if trimmed_at.elapsed() >= TRIM {
                if let Err(error) = self.trim(&stop).await {
                    self.store_health
                        .failed("what is past its retention cannot be removed", &error);
                }
                trimmed_at = Instant::now();
            }
        }
    }

    /// Shows in `/status` and the metrics how much waits.
    pub(crate) async fn look(&self) {
        if let Err(error) = self.measure().await {
            self.store_health.failed("backlogs cannot be measured", &error);
        }
    }

    async fn measure(&self) -> turnhook_store::Result<()> {
        let now = self.clock.now();
        let backlog = self.store.backlog().await?;
        let mut names: HashMap<EndpointId, String> = self
            .outlet
            .endpoints()
            .map(|(id, name)| (id, name.to_string()))
            .collect();
        if backlog.keys().any(|id| !names.contains_key(id)) {
            // One that was removed from the configuration keeps what it has yet to get, and is seen.
            names.extend(self.store.endpoints().await?.into_iter().map(|e| (e.id, e.name)));
        }
        for (id, name) in &names {
            let of = backlog.get(id).copied().unwrap_or_default();
            let oldest = of.oldest.map(|at| age_seconds(now, at));
            let labels = EndpointLabels {
                endpoint: name.clone(),
            };
            self.metrics
                .outbox_pending
                .get_or_create(&labels)
                .set(of.pending as i64);
            self.metrics
                .outbox_oldest_seconds
                .get_or_create(&labels)
                .set(oldest.unwrap_or(0.0));
            self.metrics
                .dead_letters
                .get_or_create(&labels)
                .set(of.dead as i64);
            self.health.update_endpoint(name, |e| {
                e.pending = of.pending;
                e.oldest_pending_seconds = oldest;
                e.dead_letters = of.dead;
            });
        }
        for status in self.outlet.dispatcher().status() {
            self.health.update_endpoint(&status.name, |e| {
                e.paused = status.paused_since.is_some();
                e.breaker = match status.breaker.as_str() {
                    "open" => Breaker::Open,
                    "probing" => Breaker::Probing,
                    _ => Breaker::Closed,
                };
                if let Some((at, error)) = status.last_error {
                    e.last_error = Some(error);
                    e.last_error_at = Some(at);
                }
                e.last_delivered_at = status.last_success_at;
            });
        }
        Ok(())
    }

    /// A command may have paused or resumed an endpoint, queued deliveries again, or discarded some.
    async fn follow_others(&self) -> turnhook_store::Result<()> {
        if !self.store.changed_by_others().await? {
            return Ok(());
        }
        let dispatcher = self.outlet.dispatcher();
        let paused: HashMap<String, bool> = dispatcher
            .status()
            .into_iter()
            .map(|s| (s.name.to_string(), s.paused_since.is_some()))
            .collect();
        for endpoint in self.store.endpoints().await? {
            let Some(was) = paused.get(&endpoint.name) else {
                continue;
            };
            match (was, endpoint.paused()) {
                (false, Some(pause)) => {
                    info!(endpoint = endpoint.name, reason = pause.reason, "paused");
                    dispatcher.pause(&endpoint.name);
                }
                (true, None) => {
                    info!(endpoint = endpoint.name, "resumed");
                    dispatcher.resume(&endpoint.name);
                }
                _ => {}
            }
            // Discarded ones must not be sent; replayed ones must.
            let known: Vec<DeliveryId> = dispatcher
                .known(&endpoint.name)
                .into_iter()
                .map(DeliveryId)
                .collect();
            let pending: HashSet<DeliveryId> = self
                .store
                .still_pending(known.clone())
                .await?
                .into_iter()
                .collect();
            let gone: Vec<i64> = known
                .iter()
                .filter(|id| !pending.contains(id))
                .map(|id| id.0)
                .collect();
            dispatcher.withdraw(&endpoint.name, &gone);
            dispatcher.read_again(&endpoint.name);
        }
        Ok(())
    }

    async fn trim(&self, stop: &CancellationToken) -> turnhook_store::Result<()> {
        let retention = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let before = Timestamp(self.clock.now().0.saturating_sub(retention));
        let mut removed = (0, 0);
        loop {
            let step = self.store.trim(before, TRIM_STEP).await?;
            removed = (removed.0 + step.events, removed.1 + step.sessions);
            if !step.more || stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(TRIM_PAUSE).await;
        }
        if removed != (0, 0) {
            info!(
                events = removed.0,
                sessions = removed.1,
                "removed what is past its retention"
            );
        }
        Ok(())
    }
}
