//! Between dispatcher and store: outcomes are written down, and what the dispatcher wants to read is read.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tracing::error;
use turnhook_dispatcher::{
    clock::Clocks,
    endpoint::{Begin, Outcome, Read, Report},
    provider::batch::Record,
    queue::{Next, Page, Wanted},
    schedule,
};
use turnhook_reducer::time::Timestamp;
use turnhook_store::{self as store, DeliveryId, Store, Verdict};

use super::{
    enforce::Obey,
    outlet::{Outlet, Routes, queued},
    store_health::StoreHealth,
    supervisor::{Ended, words_of_join},
};
use crate::metrics::{EndpointLabels, Metrics, OutcomeLabels};

/// Outcomes written in one go.
const MOST: usize = 1024;

/// Writes under way at once: while one is being synced the next is collected.
const WRITES: usize = 4;

pub(crate) struct Courier {
    store: Store,
    /// The endpoints' numbers. (Not the dispatcher: it ends only when nobody holds it, and the courier after it.)
    endpoints: Routes,
    metrics: Arc<Metrics>,
    clocks: Clocks,
    store_health: Arc<StoreHealth>,
    obey: Obey,
}

/// The times in which endpoints were paused, by name and by the steady clock.
pub(crate) async fn pauses(
    store: &Store,
    clocks: &Clocks,
) -> store::Result<HashMap<String, Vec<schedule::Pause>>> {
    let pause = |p: &store::Pause| schedule::Pause {
        from: clocks.began(p.from),
        to: p.to.map(|at| clocks.began(at)),
        reason: p.reason.as_str().into(),
    };
    let endpoints = store.endpoints().await?;
    Ok(endpoints
        .into_iter()
        .map(|e| (e.name, e.pauses.iter().map(pause).collect()))
        .collect())
}

impl Courier {
    pub(crate) fn new(
        store: Store,
        outlet: &Outlet,
        metrics: Arc<Metrics>,
        store_health: Arc<StoreHealth>,
        obey: Obey,
    ) -> Courier {
        Courier {
            store,
            endpoints: outlet.routes().clone(),
            metrics,
            clocks: outlet.clocks().clone(),
            store_health,
            obey,
        }
    }

    /// Until the dispatcher is gone.
    pub(crate) async fn run(self, mut reports: mpsc::Receiver<Report>) -> Ended {
        let mut writes = JoinSet::new();
        loop {
            let mut taken = Vec::new();
            tokio::select! {
                written = writes.join_next(), if !writes.is_empty() => {
                    written_well(written)?;
                    continue;
                }
                count = reports.recv_many(&mut taken, MOST) => if count == 0 {
                    break;
                },
            }
            let mut outcomes = Vec::new();
            let mut reads = Vec::new();
            let mut begun = Vec::new();
            for report in taken {
                match report {
                    Report::Outcome(outcome) => outcomes.push(*outcome),
                    Report::Outcomes(many) => outcomes.extend(many),
                    Report::Begin(begin) => begun.push(begin),
                    Report::Read(read) => reads.push(read),
                }
            }
            for obeyed in outcomes.iter().filter_map(|o| self.obey.look(o)) {
                writes.spawn(obeyed);
            }
            while writes.len() >= WRITES {
                written_well(writes.join_next().await)?;
            }
            let paused: Vec<_> = outcomes
                .iter()
                .filter(|o| o.next == Next::Paused)
                .cloned()
                .collect();
            writes.spawn(self.write(outcomes));
            let (after, at_once): (Vec<_>, Vec<_>) =
                begun.into_iter().partition(|begin| begin.after_outcomes);
            if !at_once.is_empty() {
                writes.spawn(self.begin(at_once));
            }
            if !after.is_empty() {
                // What came of an earlier attempt must not be written over what is begun now.
                while !writes.is_empty() {
                    written_well(writes.join_next().await)?;
                }
                writes.spawn(self.begin(after));
            }
            if reads.is_empty() && paused.is_empty() {
                continue;
            }
            // A read must see the outcomes that were reported before it.
            while !writes.is_empty() {
                written_well(writes.join_next().await)?;
            }
            for outcome in paused {
                self.paused(&outcome).await;
            }
            for read in reads {
                self.read(read).await;
            }
        }
        // What is still being written must be on the disk before the store is closed.
        while !writes.is_empty() {
            written_well(writes.join_next().await)?;
        }
        Ok(())
    }

    /// Writes outcomes, again and again if the disk is full: a delivery that was made must not be made anew.
    fn write(&self, outcomes: Vec<Outcome>) -> impl Future<Output = ()> + Send + 'static {
        for outcome in &outcomes {
            self.count(outcome);
        }
        let rows: Vec<store::Outcome> = outcomes.into_iter().map(row).collect();
        let (store, health) = (self.store.clone(), Arc::clone(&self.store_health));
        async move {
            if rows.is_empty() {
                return;
            }
            for attempt in 1.. {
                match store.record(rows.clone()).await {
                    Ok(_) => return,
                    Err(error) if error.is_transient() && attempt < 60 => {
                        health.failed(
                            "what came of deliveries could not be written; tried again",
                            &error,
                        );
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Err(error) => {
                        error!(%error, deliveries = rows.len(),
                            "what came of deliveries could not be written: they are made again, with the same ids");
                        return;
                    }
                }
            }
        }
    }

    /// Writes down what is about to be sent. Who is not answered sends nothing.
    fn begin(&self, begun: Vec<Begin>) -> impl Future<Output = ()> + Send + 'static {
        let (store, health) = (self.store.clone(), Arc::clone(&self.store_health));
        async move {
            let rows = begun.iter().flat_map(|begin| &begin.rows);
            let rows = rows.map(|(id, items)| (DeliveryId(*id), items.clone())).collect();
            match store.begin_sending(rows).await {
                // Who asked may be gone.
                Ok(()) => begun.into_iter().for_each(|begin| {
                    let _ = begin.reply.send(());
                }),
                Err(error) => health.failed(
                    "what is about to be sent cannot be written down: it waits",
                    &error,
                ),
            }
        }
    }

    fn count(&self, outcome: &Outcome) {
        let endpoint = outcome.endpoint.to_string();
        let labels = OutcomeLabels {
            endpoint: endpoint.clone(),
            outcome: outcome.label,
        };
        let metrics = &self.metrics.endpoints;
        metrics.deliveries.get_or_create(&labels).inc();
        let labels = EndpointLabels { endpoint };
        metrics
            .delivery_seconds
            .get_or_create(&labels)
            .observe(outcome.latency.as_secs_f64());
        if outcome.next == Next::Done {
            metrics
                .delivery_age_seconds
                .get_or_create(&labels)
                .observe(age_seconds(self.clocks.wall(), outcome.decided_at));
        }
    }

    /// An endpoint said that it is gone: that must survive a restart.
    async fn paused(&self, outcome: &Outcome) {
        let reason = outcome.error.as_deref().unwrap_or("410 Gone");
        if let Err(error) = self
            .store
            .pause(&outcome.endpoint, self.clocks.wall(), reason)
            .await
        {
            error!(endpoint = %outcome.endpoint, %error, "the endpoint is paused, but not on record");
        }
    }

    async fn read(&self, read: Read) {
        match self.page(&read.endpoint, read.wanted).await {
            // Who asked may be gone.
            Ok(page) => drop(read.reply.send(page)),
            // Not answered, the same is asked for again.
            Err(error) => self.store_health.failed("the outbox cannot be read", &error),
        }
    }

    async fn page(&self, endpoint: &str, wanted: Wanted) -> store::Result<Page> {
        let Some(id) = self.endpoints.id_of(endpoint) else {
            return Ok(Page {
                deliveries: Vec::new(),
                end: true,
            });
        };
        let (deliveries, limit) = match wanted {
            Wanted::Oldest { after, limit } => (
                self.store.pending_after(id, DeliveryId(after), limit).await?,
                limit,
            ),
            Wanted::Newest { limit } => (self.store.newest_due(id, self.clocks.wall(), limit).await?, limit),
            Wanted::Rows(ids) => {
                let ids: Vec<_> = ids.into_iter().map(DeliveryId).collect();
                (self.store.pending_rows(ids).await?, usize::MAX)
            }
        };
        let included = self.endpoints.included();
        let end = deliveries.len() < limit;
        Ok(Page {
            deliveries: deliveries
                .into_iter()
                .map(|delivery| queued(delivery, &self.clocks, &included))
                .collect(),
            end,
        })
    }
}

fn written_well(written: Option<Result<(), JoinError>>) -> Ended {
    match written {
        Some(Err(error)) => Err(format!("a write of outcomes: {}", words_of_join(error))),
        Some(Ok(())) | None => Ok(()),
    }
}

fn row(outcome: Outcome) -> store::Outcome {
    let verdict = match outcome.next {
        Next::Done => Verdict::Delivered,
        Next::Retry(at) => Verdict::Retry(at),
        Next::Paused => Verdict::Retry(outcome.at),
        Next::Waits => Verdict::Waits,
        Next::Rejected | Next::GaveUp | Next::Dead => {
            Verdict::Dead(outcome.reason.unwrap_or(outcome.next.as_str()).to_owned())
        }
    };
    store::Outcome {
        id: DeliveryId(outcome.delivery),
        at: outcome.at,
        latency_ms: u32::try_from(outcome.latency.as_millis()).unwrap_or(u32::MAX),
        status: outcome.status,
        error: outcome.error,
        answer: Some(outcome.answer).filter(|a| !a.is_empty()),
        verdict,
        sent: match outcome.record {
            Record::Keep => store::Sent::Keep,
            Record::Forget => store::Sent::Forget,
            Record::Put(items) => store::Sent::Put(items),
        },
    }
}

/// For tests and for `/status`: how long ago something was.
pub(crate) fn age_seconds(now: Timestamp, then: Timestamp) -> f64 {
    now.since(then) as f64 / 1000.0
}
