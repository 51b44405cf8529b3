//! An endpoint that speaks to a billing product: what is about to be sent is written down, sent, and taken apart by the
//! answer.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};
use turnhook_reducer::{
    outbox::{Delivery, DeliveryId, Next, Outcome, Sent},
    time::Timestamp,
};

use super::{Endpoint, Reported, State};
use crate::{
    provider::{
        account::Account,
        batch::{Batch, Concluded, Conclusion},
        signal::Signal,
    },
    queued::Queued,
};

/// How often the map of customers is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// When a batch began, and how long its last request took.
#[derive(Clone, Copy)]
struct Took {
    at: Timestamp,
    latency: Duration,
}

impl Endpoint {
    /// As the queue takes deliveries: each with that by which it waits for others.
    pub(super) fn queued(&self, deliveries: Vec<Delivery>) -> Vec<Queued> {
        let queued = deliveries.into_iter().map(|delivery| {
            let mut queued = Queued::new(delivery, &self.clocks);
            if let Some(account) = &self.account {
                let id = queued.event_id.to_string();
                queued.ordering_key = account.ordering_key(&id, &queued.body, queued.session_id);
            }
            queued
        });
        queued.collect()
    }

    /// Sends a batch, and then whatever is next, for as long as there is something.
    pub(super) async fn send_batches(self: &Arc<Self>, account: &Arc<Account>, first: Vec<Queued>) {
        let mut abort = self.abort.subscribe();
        let mut claimed = first;
        loop {
            let done = tokio::select! {
                done = self.send_batch(account, claimed) => done,
                // Nobody knows what became of it: what was about to be sent is on record.
                _ = abort.wait_for(|abort| *abort) => return,
            };
            let Some(next) = done else { return };
            claimed = next;
        }
    }

    async fn send_batch(
        self: &Arc<Self>,
        account: &Arc<Account>,
        claimed: Vec<Queued>,
    ) -> Option<Vec<Queued>> {
        let head = claimed.first()?.clone();
        let mut took = Took {
            at: self.clocks.wall(),
            latency: Duration::ZERO,
        };
        let mut batch = Batch::new(account, claimed, took.at);
        let rows = batch.to_write();
        if !rows.is_empty() && !self.write_down(rows).await {
            batch.not_written();
        }
        let mut requests = 0u32;
        while let Some(request) = batch.next_request() {
            if requests > 0 {
                self.lock().queue.another_request();
            }
            requests += 1;
            let (heard, latency) = self.client.perform_for(&*account.product, &request).await;
            took.latency = latency;
            let signal = batch.heard(heard, self.clocks.wall());
            let now = self.clocks.steady();
            let mut state = self.lock();
            state.queue.signal(&head, &signal, now);
            match signal {
                Signal::Alive => state.last_success_at = Some(took.at),
                Signal::Failed { error, .. } | Signal::Held(error) => {
                    state.last_error = Some((took.at, error))
                }
            }
        }
        // Room for the outcomes comes first: requests wait for a store that takes its time.
        let permit = self.reports.reserve().await.ok()?;
        let now = self.clocks.steady();
        let mut state = self.lock();
        let (mut outcomes, mut marks) = (Vec::new(), Vec::new());
        for concluded in batch.finish() {
            let outcome = self.conclude(&mut state, concluded, took, now);
            let mark = state.queue.mark();
            match outcome {
                Some(outcome) => {
                    outcomes.push(outcome);
                    marks.extend(mark);
                }
                // There is nothing to write.
                None => state.queue.written(mark.as_slice()),
            }
        }
        if outcomes.is_empty() {
            drop(permit);
        } else {
            let endpoint = Arc::clone(self);
            permit.send(Reported {
                endpoint,
                outcomes,
                marks,
            });
        }
        state.queue.batch_done(head.id, now);
        let mut work = self.collect(&mut state, now);
        drop(state);
        let next = work.requests.pop();
        self.begin(work);
        next
    }

    /// Whether it is on the disk.
    async fn write_down(&self, rows: Vec<(DeliveryId, bytes::Bytes)>) -> bool {
        loop {
            // Listening begins before looking, so that nothing falls between.
            let written = self.written.notified();
            // What came of an earlier attempt must not be written over what is begun now.
            if !self.lock().queue.has_unwritten(rows.iter().map(|(id, _)| *id)) {
                break;
            }
            written.await;
        }
        self.outbox.begin(rows).await
    }

    /// What is to be written of a delivery that comes back; nothing where nothing came of it.
    fn conclude(
        &self,
        state: &mut State,
        concluded: Concluded,
        took: Took,
        now: Timestamp,
    ) -> Option<Outcome> {
        let Concluded {
            mut delivery,
            conclusion,
            sent,
            uncertain,
            status,
            error,
            answer,
        } = concluded;
        if sent == Sent::Forget {
            delivery.sent = None;
        }
        let done = match &conclusion {
            Conclusion::Done(how) => Some(*how),
            _ => None,
        };
        let random = if done.is_some() {
            0
        } else {
            getrandom::u64().unwrap_or(u64::MAX / 2)
        };
        let mut outcome = self.outcome(&delivery, took.at, now);
        outcome.status = status;
        outcome.latency = took.latency;
        outcome.error = error;
        outcome.answer = answer;
        outcome.sent = sent;
        let (next, dead) = state.queue.conclude(delivery, conclusion, uncertain, now, random);
        outcome.next = self.by_the_wall(next);
        outcome.label = done.unwrap_or(outcome.next.as_str());
        if let Some(dead) = dead {
            outcome.error = Some(dead.words().to_owned());
        }
        if outcome.next == Next::Waits && outcome.sent == Sent::Keep {
            return None;
        }
        self.log(&outcome);
        Some(outcome)
    }

    /// Reads the map of customers again when it changes.
    pub(super) fn watch_customers(self: &Arc<Self>) {
        let Some(customers) = self
            .account
            .as_ref()
            .and_then(|account| account.customers.clone())
        else {
            return;
        };
        let endpoint = Arc::clone(self);
        self.spawn("reads the map of customers", async move {
            let mut abort = endpoint.abort.subscribe();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    _ = abort.wait_for(|abort| *abort) => return,
                }
                let customers = Arc::clone(&customers);
                let read = tokio::task::spawn_blocking(move || customers.reload()).await;
                match read {
                    Ok(Ok(true)) => {
                        info!(endpoint = &*endpoint.name, "the map of customers was read again");
                        endpoint.change(|queue, now| queue.customers_changed(now));
                    }
                    Ok(Ok(false)) | Err(_) => {}
                    Ok(Err(error)) => warn!(
                        endpoint = &*endpoint.name,
                        error, "the map of customers cannot be read: the one that was there stays"
                    ),
                }
            }
        });
    }
}
