//! What has to be done now and then: measuring backlogs, trimming what is old, noticing what other
//! processes did to the store.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use turnhook_dispatcher::{clock::wall_clock, endpoint, queue::StandstillKind};
use turnhook_reducer::time::Timestamp;
use turnhook_store::{DeliveryId, EndpointId, Pause, Store};

use super::{
    clock::{Clock, age_seconds},
    fan_out::FanOut,
    store_health::StoreHealth,
    trimmer::Trimmer,
};
use crate::{
    config::Config,
    health::{Breaker, EndpointState, Health},
    metrics::{EndpointLabels, Metrics, SourceLabels},
};

/// How often backlogs are measured and other processes' changes looked for.
const TICK: Duration = Duration::from_secs(1);

/// How often the gaps of the last day are counted: those of others who lead a source are among them.
const COUNT_GAPS: Duration = Duration::from_secs(30);

/// How many of them are counted at most, and the day, in milliseconds.
const MOST_GAPS: usize = 1_000;
const DAY: u64 = 86_400_000;

pub(crate) struct Housekeeper {
    store: Store,
    fan_out: Arc<FanOut>,
    clock: Arc<Clock>,
    retention: Duration,
    sources: Vec<String>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// Each endpoint's last pause, as the store was seen to have it. Whoever resumes one that was not paused leaves one
    /// there that is over.
    pauses: HashMap<String, Option<Pause>>,
    store_health: Arc<StoreHealth>,
}

impl Housekeeper {
    pub(crate) fn new(
        config: &Config,
        store: &Store,
        fan_out: &Arc<FanOut>,
        clock: &Arc<Clock>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        store_health: Arc<StoreHealth>,
    ) -> Housekeeper {
        Housekeeper {
            store: store.clone(),
            fan_out: Arc::clone(fan_out),
            clock: Arc::clone(clock),
            retention: config.store.retention,
            sources: config.sources.iter().map(|source| source.name.clone()).collect(),
            metrics,
            health,
            pauses: HashMap::new(),
            store_health,
        }
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let trimmer = Trimmer::new(&self.store, self.retention);
        // Side by side: to remove what is old may take long, and what others did must not wait for it.
        tokio::join!(self.watch(&stop), trimmer.run(&stop));
    }

    async fn watch(&mut self, stop: &CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused = 0;
        let mut gaps_counted: Option<Instant> = None;
        // What was resumed before the start is no news.
        match self.store.outbox().endpoints().await {
            Ok(endpoints) => self.remember(&endpoints),
            Err(error) => warn!(%error, "the endpoints' pauses cannot be read"),
        }
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
            if let Err(error) = self.store.admin().advance_horizon(wall_clock()).await {
                self.store_health.failed(
                    "how far time has come cannot be written down: after a restart things are kept longer",
                    &error,
                );
            }
            if gaps_counted.is_none_or(|at| at.elapsed() >= COUNT_GAPS) {
                gaps_counted = Some(Instant::now());
                if let Err(error) = self.count_gaps().await {
                    self.store_health.failed("gaps cannot be counted", &error);
                }
                if let Err(error) = self.measure_store().await {
                    self.store_health.failed("the store cannot be measured", &error);
                }
            }
            let now = self.store.state().refused();
            self.metrics.store_refused.inc_by(now.saturating_sub(refused));
            refused = now;
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
        let backlog = self.store.outbox().backlog().await?;
        let mut names: HashMap<EndpointId, String> = self
            .fan_out
            .endpoints()
            .into_iter()
            .map(|(id, name)| (id, name.to_string()))
            .collect();
        if backlog.keys().any(|id| !names.contains_key(id)) {
            // One that was removed from the configuration keeps what it has yet to get, and is seen.
            names.extend(
                self.store
                    .outbox()
                    .endpoints()
                    .await?
                    .into_iter()
                    .map(|e| (e.id, e.name)),
            );
        }
        for (id, name) in &names {
            let of = backlog.get(id).copied().unwrap_or_default();
            let oldest = of.oldest.map(|at| age_seconds(now, at));
            let labels = EndpointLabels {
                endpoint: name.clone(),
            };
            self.metrics
                .endpoints
                .outbox_pending
                .get_or_create(&labels)
                .set(of.pending as i64);
            self.metrics
                .endpoints
                .outbox_oldest_seconds
                .get_or_create(&labels)
                .set(oldest.unwrap_or(0.0));
            self.metrics
                .endpoints
                .dead_letters
                .get_or_create(&labels)
                .set(of.dead as i64);
            self.health.update_endpoint(name, |e| {
                e.pending = of.pending;
                e.oldest_pending_seconds = oldest;
                e.dead_letters = of.dead;
            });
        }
        for status in self.fan_out.dispatcher().status() {
            self.show_standstill(&status);
            self.health.update_endpoint(&status.name, |e| {
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

    /// How much is kept, and from when on.
    async fn measure_store(&self) -> turnhook_store::Result<()> {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        // A database that only speaks like PostgreSQL may not say it, and is no worse for that.
        if let Ok(bytes) = self.store.ledger().bytes().await {
            self.metrics.store_bytes.set(gauge(bytes));
        }
        let oldest = self.store.ledger().oldest().await?;
        let seconds = oldest.map_or(0, |at| at.0 / 1000);
        self.metrics.ledger_oldest.set(gauge(seconds));
        Ok(())
    }

    /// What a restart would else hide: how many gaps there were, and when the last one ended.
    async fn count_gaps(&self) -> turnhook_store::Result<()> {
        let since = Timestamp(self.clock.now().0.saturating_sub(DAY));
        let mut counts: HashMap<&str, (u64, Timestamp)> = self
            .sources
            .iter()
            .map(|name| (name.as_str(), Default::default()))
            .collect();
        let found = self.store.ledger().gaps(Some(since), MOST_GAPS).await?;
        for row in &found {
            if let Some((count, last)) = counts.get_mut(row.source.as_str()) {
                *count += 1;
                *last = (*last).max(row.gap.to);
            }
        }
        for (name, (count, last)) in counts {
            self.health.update_source(name, |s| s.gaps_24h = count);
            let labels = SourceLabels {
                source: name.to_owned(),
            };
            let gauge = self.metrics.sources.last_gap.get_or_create(&labels);
            gauge.set(gauge.get().max(i64::try_from(last.0 / 1000).unwrap_or(i64::MAX)));
        }
        Ok(())
    }

    fn show_standstill(&self, status: &endpoint::EndpointStatus) {
        let standstill = status.standstill.as_ref();
        let is = |kind| standstill.is_some_and(|standstill| standstill.kind == kind);
        let labels = EndpointLabels {
            endpoint: status.name.to_string(),
        };
        for (gauge, stands) in [
            (
                &self.metrics.endpoints.endpoint_paused,
                is(StandstillKind::Paused),
            ),
            (&self.metrics.endpoints.endpoint_held, is(StandstillKind::Held)),
            (
                &self.metrics.endpoints.endpoint_breaker_open,
                status.breaker.is_open(),
            ),
        ] {
            gauge.get_or_create(&labels).set(stands.into());
        }
        // What failed last has not been followed by a success.
        let failing = status
            .last_error
            .as_ref()
            .filter(|(at, _)| status.last_success_at.is_none_or(|success| success < *at));
        self.health.update_endpoint(&status.name, |e| {
            e.paused = is(StandstillKind::Paused);
            e.state = match standstill.map(|standstill| standstill.kind) {
                Some(StandstillKind::Paused) => EndpointState::Paused,
                Some(StandstillKind::Held) => EndpointState::Held,
                Some(StandstillKind::BreakerOpen) => EndpointState::BreakerOpen,
                None if failing.is_some() => EndpointState::Failing,
                None => EndpointState::Active,
            };
            e.since = standstill.map(|standstill| standstill.since);
            e.until = standstill.and_then(|standstill| standstill.until);
            e.waiting_for_customers = status.waiting_for_customers;
            e.reason = match (standstill, failing) {
                (Some(standstill), _) => Some(standstill.reason.to_string()),
                (None, Some((_, error))) => Some(error.clone()),
                (None, None) => waits_for_customers(status.waiting_for_customers),
            };
        });
    }

    fn remember(&mut self, endpoints: &[turnhook_store::Endpoint]) {
        let last = |e: &turnhook_store::Endpoint| (e.name.clone(), e.pauses.last().cloned());
        self.pauses = endpoints.iter().map(last).collect();
    }

    /// A command may have paused or resumed an endpoint, queued deliveries again, or discarded some.
    async fn follow_others(&mut self) -> turnhook_store::Result<()> {
        if !self.store.outbox().changed_by_others().await? {
            return Ok(());
        }
        let dispatcher = self.fan_out.dispatcher();
        let paused: HashMap<String, bool> = dispatcher
            .status()
            .into_iter()
            .map(|s| (s.name.to_string(), is_paused(&s)))
            .collect();
        let endpoints = self.store.outbox().endpoints().await?;
        for endpoint in &endpoints {
            let Some(was) = paused.get(&endpoint.name) else {
                continue;
            };
            match (was, endpoint.paused()) {
                (false, Some(pause)) => {
                    dispatcher.pause(&endpoint.name, &pause.reason);
                }
                (true, None) => {
                    dispatcher.resume(&endpoint.name);
                }
                (false, None) if self.is_resumed_anew(endpoint) => {
                    dispatcher.resume(&endpoint.name);
                }
                _ => {}
            }
            // Discarded ones must not be sent; replayed ones must.
            let known = dispatcher.known(&endpoint.name);
            let pending: HashSet<DeliveryId> = self
                .store
                .outbox()
                .still_pending(known.clone())
                .await?
                .into_iter()
                .collect();
            let gone: Vec<DeliveryId> = known.into_iter().filter(|id| !pending.contains(id)).collect();
            dispatcher.withdraw(&endpoint.name, &gone);
            dispatcher.read_again(&endpoint.name);
        }
        self.remember(&endpoints);
        Ok(())
    }

    /// Whether its last pause, which is over, is one that was not there before.
    fn is_resumed_anew(&self, endpoint: &turnhook_store::Endpoint) -> bool {
        let before = self.pauses.get(&endpoint.name).and_then(Option::as_ref);
        endpoint.pauses.last().is_some_and(|last| before != Some(last))
    }
}

/// Nothing is wrong with the endpoint, and yet something waits.
fn waits_for_customers(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 delivery waits for a customer whom customers_file lacks".to_owned()),
        count => Some(format!(
            "{count} deliveries wait for customers whom customers_file lacks"
        )),
    }
}

fn is_paused(status: &endpoint::EndpointStatus) -> bool {
    status
        .standstill
        .as_ref()
        .is_some_and(|standstill| standstill.kind == StandstillKind::Paused)
}
