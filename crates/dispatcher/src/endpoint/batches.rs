//! An endpoint that speaks to a billing product: what is about to be sent is written down, sent, and told apart.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tracing::{info, warn};
use turnhook_reducer::time::Timestamp;

use super::{Begin, Endpoint, Outcome, Report, State};
use crate::{
    provider::{
        account::Account,
        batch::{Batch, Concluded, Conclusion, Record, Signal},
    },
    queue::{Delivery, Next},
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
    /// Says of each delivery by what it waits for others.
    pub(super) fn put_in_lanes(&self, deliveries: &mut [Delivery]) {
        if let Some(account) = &self.account {
            for delivery in deliveries {
                delivery.lane = account.lane(&delivery.event_id, &delivery.body, delivery.session);
            }
        }
    }

    /// Sends a batch, and then whatever is next, for as long as there is something.
    pub(super) async fn send_batches(self: &Arc<Self>, account: &Arc<Account>, first: Vec<Delivery>) {
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
        claimed: Vec<Delivery>,
    ) -> Option<Vec<Delivery>> {
        let head = claimed.first()?.clone();
        let mut took = Took {
            at: self.clocks.wall(),
            latency: Duration::ZERO,
        };
        let mut batch = Batch::new(account, claimed, took.at);
        let (rows, after_outcomes) = batch.to_write();
        if !rows.is_empty() && !self.write_down(rows, after_outcomes).await {
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
        // Room for the outcomes comes first: a read that is asked for after these deliveries have left the queue must
        // find their outcomes in front of it.
        let permit = self.reports.reserve().await.ok()?;
        let now = self.clocks.steady();
        let mut state = self.lock();
        let mut outcomes = Vec::new();
        for concluded in batch.finish() {
            outcomes.extend(self.conclude(&mut state, concluded, took, now));
        }
        if outcomes.is_empty() {
            drop(permit);
        } else {
            permit.send(Report::Outcomes(outcomes));
        }
        state.queue.batch_done(head.id, now);
        let mut work = self.collect(&mut state, now);
        drop(state);
        let next = work.requests.pop();
        self.begin(work);
        next
    }

    /// Whether it is on the disk.
    async fn write_down(&self, rows: Vec<(i64, bytes::Bytes)>, after_outcomes: bool) -> bool {
        let (reply, written) = oneshot::channel();
        let begin = Begin {
            rows,
            after_outcomes,
            reply,
        };
        self.reports.send(Report::Begin(begin)).await.is_ok() && written.await.is_ok()
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
            record,
            uncertain,
            status,
            error,
            answer,
        } = concluded;
        if record == Record::Forget {
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
        let mut outcome = Outcome {
            endpoint: Arc::clone(&self.name),
            delivery: delivery.id,
            event_id: Arc::clone(&delivery.event_id),
            session: delivery.session,
            event_type: delivery.event_type,
            decided_at: delivery.decided_at,
            at: took.at,
            attempt: delivery.attempts.saturating_add(1),
            tried_for: Duration::from_millis(now.since(delivery.first_attempt_at.unwrap_or(now))),
            status,
            latency: took.latency,
            error,
            answer,
            next: Next::Done,
            label: "",
            reason: None,
            record,
        };
        let (next, dead) = state.queue.conclude(delivery, conclusion, uncertain, now, random);
        outcome.next = match next {
            Next::Retry(at) => Next::Retry(self.clocks.to_wall(at)),
            next => next,
        };
        outcome.label = done.unwrap_or(outcome.next.as_str());
        if let Some(dead) = dead {
            outcome.reason = Some(dead.as_str());
            outcome.label = dead.as_str();
            outcome.error = Some(dead.words().to_owned());
        }
        if outcome.next == Next::Waits && outcome.record == Record::Keep {
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
