//! The store behind the dispatcher's port: the body of each delivery is cut to what its endpoint is sent, and what an
//! attempt came to is counted and acted on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tracing::error;
use turnhook_dispatcher::{
    outbox::{self, Asked},
    queue::Wanted,
};
use turnhook_reducer::outbox::{Delivery, DeliveryId, Next, Outcome, Pause};
use turnhook_store::Result;

use super::{
    clock::age_seconds,
    enforce::Obey,
    fan_out::{Routes, sent_body},
    store_health::StoreHealth,
};
use crate::metrics::{EndpointLabels, Metrics, OutcomeLabels};

/// How often a record that the store does not take is tried, a second apart.
const TRIES: usize = 60;

pub(crate) struct Outbox(Arc<Parts>);

struct Parts {
    store: turnhook_store::Outbox,
    routes: Routes,
    metrics: Arc<Metrics>,
    store_health: Arc<StoreHealth>,
    obey: Obey,
}

/// The times in which endpoints were paused, by name.
pub(crate) async fn pauses(store: &turnhook_store::Outbox) -> Result<HashMap<String, Vec<Pause>>> {
    let endpoints = store.endpoints().await?;
    Ok(endpoints.into_iter().map(|e| (e.name, e.pauses)).collect())
}

impl Outbox {
    pub(crate) fn new(
        store: &turnhook_store::Outbox,
        routes: &Routes,
        metrics: &Arc<Metrics>,
        store_health: &Arc<StoreHealth>,
        obey: Obey,
    ) -> Outbox {
        Outbox(Arc::new(Parts {
            store: store.clone(),
            routes: routes.clone(),
            metrics: Arc::clone(metrics),
            store_health: Arc::clone(store_health),
            obey,
        }))
    }
}

impl outbox::Outbox for Outbox {
    fn read(&self, endpoint: &Arc<str>, wanted: Wanted) -> Asked<Option<Vec<Delivery>>> {
        let (parts, endpoint) = (Arc::clone(&self.0), Arc::clone(endpoint));
        Box::pin(async move {
            let read = parts.read(&endpoint, wanted).await;
            read.map_err(|error| parts.store_health.failed("the outbox cannot be read", &error))
                .ok()
        })
    }

    fn begin(&self, rows: Vec<(DeliveryId, Bytes)>) -> Asked<bool> {
        let parts = Arc::clone(&self.0);
        Box::pin(async move {
            let begun = parts.store.begin_sending(rows).await;
            let failed = "what is about to be sent cannot be written down: it waits";
            begun
                .map_err(|error| parts.store_health.failed(failed, &error))
                .is_ok()
        })
    }

    fn record(&self, outcomes: Vec<Outcome>) -> Asked<()> {
        let parts = Arc::clone(&self.0);
        Box::pin(async move {
            for alike in outcomes.chunk_by(|a, b| (&a.endpoint, a.label) == (&b.endpoint, b.label)) {
                parts.count(alike);
            }
            // First: once it is on record that a delivery is done, nobody is answered a second time.
            let obey = |outcome| parts.obey.look(outcome, &parts.store_health);
            join_all(outcomes.iter().filter_map(obey)).await;
            let paused = outcomes.iter().filter(|outcome| outcome.next == Next::Paused);
            parts.record(&outcomes).await;
            for outcome in paused {
                parts.pause(outcome).await;
            }
        })
    }
}

impl Parts {
    async fn read(&self, endpoint: &str, wanted: Wanted) -> Result<Vec<Delivery>> {
        let Some(id) = self.routes.id_of(endpoint) else {
            return Ok(Vec::new());
        };
        let mut deliveries = match wanted {
            Wanted::Oldest { after, limit } => self.store.pending_after(id, after, limit).await?,
            Wanted::Newest { limit } => self.store.newest_due(id, self.routes.wall(), limit).await?,
            Wanted::Rows(ids) => self.store.pending_rows(ids).await?,
        };
        let included = self.routes.included();
        for delivery in &mut deliveries {
            delivery.body = sent_body(&delivery.body, included.of(delivery.id));
        }
        Ok(deliveries)
    }

    /// Again and again if the disk is full: a delivery that was made must not be made anew.
    async fn record(&self, outcomes: &[Outcome]) {
        for attempt in 1.. {
            match self.store.record(outcomes.to_vec()).await {
                Ok(_) => return,
                Err(error) if error.is_transient() && attempt < TRIES => {
                    self.store_health.failed(
                        "what came of deliveries could not be written; tried again",
                        &error,
                    );
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => {
                    error!(%error, deliveries = outcomes.len(),
                        "what came of deliveries could not be written: they are made again, with the same ids");
                    return;
                }
            }
        }
    }

    /// Outcomes with the same labels, at once.
    fn count(&self, alike: &[Outcome]) {
        let Some(first) = alike.first() else { return };
        let endpoint = first.endpoint.to_string();
        let labels = OutcomeLabels {
            endpoint: endpoint.clone(),
            outcome: first.label,
        };
        let metrics = &self.metrics.endpoints;
        metrics
            .deliveries
            .get_or_create(&labels)
            .inc_by(alike.len() as u64);
        let labels = EndpointLabels { endpoint };
        let (seconds, age) = (
            metrics.delivery_seconds.get_or_create(&labels),
            metrics.delivery_age_seconds.get_or_create(&labels),
        );
        let now = self.routes.wall();
        for outcome in alike {
            seconds.observe(outcome.latency.as_secs_f64());
            if outcome.next == Next::Done {
                age.observe(age_seconds(now, outcome.decided_at));
            }
        }
    }

    /// An endpoint said that it is gone: that must survive a restart.
    async fn pause(&self, outcome: &Outcome) {
        let reason = outcome.error.as_deref().unwrap_or("410 Gone");
        let paused = self.store.hold(&outcome.endpoint, self.routes.wall(), reason);
        if let Err(error) = paused.await {
            error!(endpoint = %outcome.endpoint, %error, "the endpoint is paused, but not on record");
        }
    }
}
