//! Deliveries that are claimed together, for a billing product that takes many items in a request.

use std::time::Duration;

use http::StatusCode;
use turnhook_reducer::{
    outbox::{DeliveryId, Next},
    time::Timestamp,
};

use super::Queue;
use crate::{
    provider::{account::Dead, batch::Conclusion, signal::Signal},
    queued::Queued,
    schedule::Then,
    verdict::millis,
};

/// What waits for its customer is looked at again after so many milliseconds, should the map's change have been missed.
const LOOK_AGAIN: u64 = 600_000;

impl Queue {
    /// Deliveries are claimed together, so many at most; a batch waits so long to become full.
    pub fn batch(&mut self, max: usize, wait: Duration) {
        self.batches.bounds = Some((max.max(1), wait));
    }

    /// The next deliveries to send together, if some may be sent now: in the order of their sessions, and from many of
    /// these. Each must come back by [`Queue::conclude`], and then the batch as a whole by [`Queue::batch_done`].
    pub fn claim_batch(&mut self, now: Timestamp) -> Vec<Queued> {
        let (max, wait) = self.batches.bounds.unwrap_or((1, Duration::ZERO));
        self.batches.until = None;
        if self.stopped || self.paused().is_some() {
            return Vec::new();
        }
        self.lines.wake(now);
        let ready = self.lines.ready();
        if ready == 0 {
            self.batches.since = None;
        } else if ready < max && !wait.is_zero() && !self.breaker.is_open() {
            let since = *self.batches.since.get_or_insert(now);
            let until = since.plus(millis(wait));
            if until > now {
                self.batches.until = Some(until);
                return Vec::new();
            }
        }
        let Some(first) = self.claim(now) else {
            return Vec::new();
        };
        self.batches.since = None;
        let mut batch = vec![first];
        // A probe is one.
        let max = if self.breaker.is_open() { 1 } else { max };
        let mut from = 0;
        while batch.len() < max {
            // One of each session first, then the next of each.
            let next = match self.lines.claim() {
                Some(next) => Some(next),
                None => {
                    let mut found = None;
                    while found.is_none()
                        && let Some(delivery) = batch.get(from)
                    {
                        found = self.lines.claim_more(delivery.ordering_key, now);
                        from += usize::from(found.is_none());
                    }
                    found
                }
            };
            let Some(mut next) = next else { break };
            next.began_at.get_or_insert(now);
            batch.push(next);
        }
        // Those of a session stand in its order, whenever they were found.
        batch.sort_by_key(|delivery| (delivery.ordering_key, delivery.sequence, delivery.id));
        batch
    }

    /// A request of a batch that began with `first` came to this.
    pub fn signal(&mut self, first: &Queued, signal: &Signal, now: Timestamp) {
        match signal {
            Signal::Alive => self.is_alive(now),
            Signal::Held(why) => {
                if self.batches.cause.is_none() {
                    self.batches.cause = Some(why.as_str().into());
                }
                self.breaker.held(first.id, now);
            }
            Signal::Failed {
                unreachable, hold, ..
            } => {
                if let Some((status, after)) = hold
                    && let Ok(status) = StatusCode::from_u16(*status)
                {
                    let most = millis(self.retry.retry_after_max);
                    self.hold(status, now.plus(millis(*after).min(most)), now);
                }
                self.breaker
                    .failure(first.id, first.session_id, *unreachable, now);
            }
        }
    }

    /// A claimed delivery comes back from its batch. `uncertain`: it may have been counted. What follows, and why it is
    /// dead where it is.
    pub fn conclude(
        &mut self,
        mut delivery: Queued,
        conclusion: Conclusion,
        uncertain: bool,
        now: Timestamp,
        random: u64,
    ) -> (Next, Option<Dead>) {
        let (id, session) = (delivery.id, delivery.session_id);
        self.batches.waiting.remove(&id);
        match conclusion {
            Conclusion::Done(_) => {
                self.done(id, session, now);
                (Next::Done, None)
            }
            Conclusion::Dead(why) => {
                self.done(id, session, now);
                (Next::Dead(why.as_str()), Some(why))
            }
            Conclusion::Again(after) => {
                delivery.attempts = delivery.attempts.saturating_add(1);
                let most = millis(self.retry.retry_after_max);
                let asked = after.map(|after| now.plus(after.min(most)));
                let first = delivery.began_at.unwrap_or(now);
                match self
                    .retry
                    .next(delivery.attempts, first, now, &self.pauses, random, asked)
                {
                    Then::GiveUp => {
                        self.done(id, session, now);
                        let why = uncertain.then(|| {
                            Dead::Uncertain(
                                "the time for trying is over, and an attempt may have been counted"
                                    .to_owned(),
                            )
                        });
                        (
                            why.as_ref().map_or(Next::GAVE_UP, |why| Next::Dead(why.as_str())),
                            why,
                        )
                    }
                    Then::At(due) => {
                        self.put_back(delivery, due, now);
                        (Next::Retry(due), None)
                    }
                }
            }
            Conclusion::Soon(ms) => self.waits(delivery, now.plus(ms), now),
            Conclusion::Held => self.waits(delivery, now, now),
            Conclusion::Waits => {
                self.batches.waiting.insert(id);
                self.waits(delivery, now.plus(LOOK_AGAIN), now)
            }
        }
    }

    /// Nothing of it counts: neither as an attempt, nor for the time after which it is given up.
    fn waits(&mut self, mut delivery: Queued, due: Timestamp, now: Timestamp) -> (Next, Option<Dead>) {
        if delivery.attempts == 0 {
            delivery.began_at = None;
        }
        self.put_back(delivery, due, now);
        (Next::Waits, None)
    }

    /// All of a batch have come back; `first` is the one that was claimed first.
    pub fn batch_done(&mut self, first: DeliveryId, now: Timestamp) {
        self.breaker.unasked(first, now);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The map of customers has changed: what waited for it is looked at now.
    pub fn customers_changed(&mut self, now: Timestamp) {
        for id in std::mem::take(&mut self.batches.waiting) {
            self.lines.hasten(id, now);
        }
    }

    /// Whether something has to be put right before the endpoint takes anything.
    #[must_use]
    pub fn has_a_cause(&self) -> bool {
        self.batches.cause.is_some()
    }

    /// How many deliveries wait for their customer.
    #[must_use]
    pub fn waiting_for_customers(&self) -> usize {
        self.batches.waiting.len()
    }

    /// A further request of a batch begins.
    pub fn another_request(&mut self) {
        if let Some(rate) = &mut self.rate {
            rate.take();
        }
    }
}
