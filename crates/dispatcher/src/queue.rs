//! The queue of one endpoint: which delivery may be sent now, and what follows from its answer. Pure:
//! time and randomness are inputs, and what has to be read from the outbox is asked for, not read.
//!
//! Memory is bounded. While everything that is pending fits, deliveries are handed on from memory as
//! they are offered. When it does not (and at start, when nothing is known), the queue is *behind*:
//! offers are left to the outbox, which is read again in pages from both of its ends. The pages from
//! the oldest end advance a cursor, and everything pending up to it is known here; those from the
//! newest end hold only deliveries before which nothing of their session is pending, so that fresh
//! events do not wait for a backlog. Once a page from the oldest end reaches the newest, the queue is
//! level again.
//!
//! Order: of a session's deliveries that are known only the lowest sequence is ever claimed, and what
//! is not known lies behind the cursor, where sequences are higher.

mod batches;
mod doubts;
mod held;
mod lines;
mod outbox;
mod standstill;
#[cfg(test)]
mod tests;
mod unwritten;

use http::StatusCode;
use turnhook_reducer::{
    event::SessionId,
    outbox::{DeliveryId, Next, Pause},
    time::Timestamp,
};

use self::{
    doubts::Doubts,
    held::{Batches, Hold},
    lines::Lines,
    outbox::Outbox,
    unwritten::{After, Recorded, Unwritten},
};
pub use self::{
    outbox::{Bounds, Page, Wanted},
    standstill::{Standstill, StandstillKind},
    unwritten::Mark,
};
pub use crate::queued::Queued;
use crate::{
    breaker::{Breaker, BreakerState},
    config::{EndpointConfig, RateLimit},
    rate::Bucket,
    schedule::{Retry, Then},
    verdict::{Verdict, holds_endpoint, is_unreachable, millis, verdict},
};

/// See the module.
#[derive(Debug)]
pub struct Queue {
    lines: Lines,
    outbox: Outbox,
    bounds: Bounds,
    concurrency: usize,
    /// Of the concurrency and the rate limit, this is one of so many parts: other nodes have the others.
    shares: usize,
    in_flight: usize,
    retry: Retry,
    breaker: Breaker,
    rate_limit: Option<RateLimit>,
    rate: Option<Bucket>,
    hold: Option<Hold>,
    doubts: Doubts,
    pauses: Vec<Pause>,
    stopped: bool,
    batches: Batches,
    unwritten: Unwritten,
}

impl Queue {
    /// An endpoint's queue that knows nothing yet: it wants to read the outbox. `pauses` are the times
    /// in which the endpoint was paused; one without an end says that it is.
    #[must_use]
    pub fn new(config: &EndpointConfig, pauses: Vec<Pause>, bounds: Bounds, now: Timestamp) -> Queue {
        Queue {
            lines: Lines::default(),
            outbox: Outbox::default(),
            bounds,
            concurrency: config.concurrency as usize,
            shares: 1,
            in_flight: 0,
            retry: config.retry,
            breaker: Breaker::default(),
            rate_limit: config.rate_limit,
            rate: config.rate_limit.map(|limit| Bucket::new(limit, now)),
            hold: None,
            doubts: Doubts::default(),
            pauses,
            stopped: false,
            batches: Batches::default(),
            unwritten: Unwritten::default(),
        }
    }

    /// The endpoint's limits are for so many nodes together: each has an equal part, of the concurrency at least 1.
    pub fn share(&mut self, nodes: usize, now: Timestamp) {
        let nodes = nodes.max(1);
        if nodes == self.shares {
            return;
        }
        self.shares = nodes;
        // Begins empty: what was saved up belongs to the others too.
        self.rate = self
            .rate_limit
            .map(|limit| Bucket::new(limit.part(nodes), now).emptied());
    }

    fn most_in_flight(&self) -> usize {
        (self.concurrency / self.shares).max(1)
    }

    /// Takes deliveries that were just written to the outbox, or are to be sent again, in the order of
    /// their rows. What does not fit is left there, and read when there is room.
    pub fn offer(&mut self, deliveries: impl IntoIterator<Item = Queued>, now: Timestamp) {
        for mut delivery in deliveries {
            self.bound(&mut delivery, now);
            if !self.lines.knows(delivery.id)
                && let Some(delivery) = self.outbox.offered(delivery, self.lines.counts(), &self.bounds)
            {
                self.lines.insert(delivery, false, now);
            }
        }
    }

    /// What is read or offered as a retry is no further away than the longest wait between two attempts. One that was
    /// written down while the clock was ahead would be; and a longer `Retry-After` can be asked for again.
    fn bound(&self, delivery: &mut Queued, now: Timestamp) {
        let longest = now.plus(millis(self.retry.max));
        if delivery.attempts > 0 && delivery.due_at.is_some_and(|at| at > longest) {
            delivery.due_at = Some(longest);
        }
    }

    /// Takes deliveries back that are not to be sent any longer; those under way go on.
    pub fn withdraw(&mut self, ids: &[DeliveryId], now: Timestamp) {
        self.outbox.withdrawn(ids);
        for id in ids {
            self.doubts.forget(*id);
            self.batches.forget(*id);
            self.lines.withdraw(*id, now);
        }
    }

    /// What is being read may hold deliveries that are somebody else's now: it is thrown away, and read once more.
    pub fn drop_read(&mut self) {
        self.outbox.drop_read();
    }

    /// Someone else has changed the outbox: all of it is read again, but for what is known.
    pub fn read_again(&mut self) {
        self.outbox.read_again();
    }

    /// The deliveries that are known, those under way included.
    #[must_use]
    pub fn known(&self) -> Vec<DeliveryId> {
        self.lines.ids()
    }

    /// What has to be read from the outbox now, if anything. To be answered before there is more.
    pub fn wanted(&mut self, now: Timestamp) -> Option<Wanted> {
        if self.stopped || self.paused().is_some() {
            return None;
        }
        self.lines.wake(now);
        let wanted = self.outbox.wanted(&mut self.lines, &self.bounds, now);
        if wanted.is_some() {
            self.unwritten.read_begins();
        }
        wanted
    }

    /// What was read; `None` if it could not be: it will be asked for again.
    pub fn answer(&mut self, mut page: Option<Page>, now: Timestamp) {
        // By the rows as they were read: one that is over was read, too.
        let last = page
            .iter()
            .flat_map(|page| &page.deliveries)
            .map(|row| row.id)
            .max();
        let once_more = page
            .as_mut()
            .and_then(|page| self.unwritten.corrects(&mut page.deliveries));
        for delivery in page.iter_mut().flat_map(|page| &mut page.deliveries) {
            self.bound(delivery, now);
        }
        self.outbox
            .answered(page, last, &mut self.lines, &self.bounds, now);
        self.outbox.recorded(once_more, None);
    }

    /// The next delivery to send, if one may be sent now. It must come back by [`Queue::finish`].
    pub fn claim(&mut self, now: Timestamp) -> Option<Queued> {
        if self.stopped
            || self.paused().is_some()
            || self.in_flight >= self.most_in_flight()
            || self.gate(now) > now
        {
            return None;
        }
        self.lines.wake(now);
        if self.breaker.is_open() && !self.lines.has_ready() && !self.is_reading_rows() {
            // A probe asks about the endpoint: it does not wait until some delivery is due.
            self.lines.hasten_one(now);
        }
        let mut delivery = self.lines.claim()?;
        if let Some(rate) = &mut self.rate {
            rate.take();
        }
        self.breaker.started(delivery.id);
        self.in_flight += 1;
        delivery.began_at.get_or_insert(now);
        Some(delivery)
    }

    /// A claimed delivery comes back with the status of its answer (`None` if none came) and the milliseconds that its
    /// `Retry-After` asks for. `random` is uniform over u64.
    pub fn finish(
        &mut self,
        mut delivery: Queued,
        status: Option<StatusCode>,
        after: Option<u64>,
        now: Timestamp,
        random: u64,
    ) -> Next {
        self.in_flight = self.in_flight.saturating_sub(1);
        delivery.attempts = delivery.attempts.saturating_add(1);
        let (id, session) = (delivery.id, delivery.session_id);
        match verdict(status) {
            Verdict::Delivered => {
                self.is_alive(now);
                self.done(id, session, now);
                Next::Done
            }
            Verdict::Rejected => {
                self.is_alive(now);
                self.done(id, session, now);
                Next::REJECTED
            }
            Verdict::Gone => {
                self.pause("it answered 410 Gone", now);
                self.put_back(delivery, now, now);
                Next::Paused
            }
            Verdict::Doubted => {
                self.breaker.doubt(id, now);
                // While nothing at all is taken it is not this one that is wrong.
                if self.doubts.answered(id, now) && !self.breaker.is_open() {
                    self.done(id, session, now);
                    return Next::REJECTED;
                }
                self.try_again(delivery, None, now, random)
            }
            Verdict::Retry => {
                let most = millis(self.retry.retry_after_max);
                let asked = after.map(|after| now.plus(after.min(most)));
                if let (Some(status), Some(until)) = (status, asked)
                    && holds_endpoint(status)
                {
                    self.hold(status, until, now);
                }
                self.breaker.failure(id, session, is_unreachable(status), now);
                self.try_again(delivery, asked, now, random)
            }
        }
    }

    fn try_again(&mut self, delivery: Queued, asked: Option<Timestamp>, now: Timestamp, random: u64) -> Next {
        let first = delivery.began_at.unwrap_or(now);
        let then = self
            .retry
            .next(delivery.attempts, first, now, &self.pauses, random, asked);
        match then {
            Then::GiveUp => {
                self.done(delivery.id, delivery.session_id, now);
                Next::GAVE_UP
            }
            Then::At(due) => {
                self.put_back(delivery, due, now);
                Next::Retry(due)
            }
        }
    }

    fn hold(&mut self, status: StatusCode, until: Timestamp, now: Timestamp) {
        let held = self.hold.as_ref().filter(|hold| hold.until > now);
        if held.is_some_and(|hold| hold.until >= until) {
            return;
        }
        self.hold = Some(Hold {
            since: held.map_or(now, |hold| hold.since),
            until,
            reason: format!("it answered {status} with Retry-After").into(),
        });
    }

    /// The endpoint answered: what waited for its return need not wait longer.
    fn is_alive(&mut self, now: Timestamp) {
        self.batches.cause = None;
        if self.breaker.success() {
            self.lines.hasten_all(now);
        }
    }

    fn done(&mut self, id: DeliveryId, session: SessionId, now: Timestamp) {
        self.doubts.forget(id);
        self.batches.forget(id);
        let newest = self.lines.remove(id, now);
        self.outbox.finished(id);
        self.unwritten
            .reported(id, After::Over(newest.then_some(session)));
    }

    fn put_back(&mut self, mut delivery: Queued, due: Timestamp, now: Timestamp) {
        delivery.due_at = Some(due);
        self.unwritten.reported(delivery.id, After::pending(&delivery));
        let (session, counts) = (delivery.ordering_key, self.lines.counts());
        let spare = counts.bodies > self.bounds.bodies / 2 || counts.bytes > self.bounds.bytes / 2;
        self.lines.give_back(delivery, due, spare, now);
        // Where even stubs are too many, what will be read again anyway can be forgotten.
        if due > now
            && self.lines.counts().stubs > self.bounds.stubs
            && self
                .outbox
                .cursor()
                .is_some_and(|after| self.lines.lies_behind(session, after))
        {
            self.lines.forget(session);
        }
    }

    /// By what the outcome is known that followed from the last [`Queue::finish`] or [`Queue::conclude`], until it is
    /// [written](Queue::written).
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.unwritten.last()
    }

    /// These outcomes are on record, or there was nothing to write of them.
    pub fn written(&mut self, marks: &[Mark]) {
        for mark in marks {
            if let Some(Recorded { read_from, next_of }) = self.unwritten.recorded(*mark) {
                self.outbox.recorded(read_from, next_of);
            }
        }
    }

    /// Whether an outcome of one of these has yet to be written.
    #[must_use]
    pub fn has_unwritten(&self, mut of: impl Iterator<Item = DeliveryId>) -> bool {
        of.any(|id| self.unwritten.contains(id))
    }

    /// Whether all outcomes are written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    fn is_reading_rows(&self) -> bool {
        self.lines.has_due_rows() || self.outbox.reads_rows()
    }

    /// When a request may be sent at all.
    fn gate(&mut self, now: Timestamp) -> Timestamp {
        let hold = self.hold.as_ref().map_or(now, |hold| hold.until);
        let rate = self.rate.as_mut().map_or(now, |rate| rate.gate(now));
        self.breaker.gate(now).max(hold).max(rate)
    }

    /// When to call [`Queue::claim`] and [`Queue::wanted`] again if nothing else happens; `None`: not
    /// before something does.
    pub fn next_wake(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.stopped || self.paused().is_some() {
            return None;
        }
        let work = if self.in_flight >= self.most_in_flight() {
            None
        } else if self.lines.has_ready() {
            Some(now)
        } else if self.breaker.is_open() && !self.is_reading_rows() {
            self.lines.next_due().map(|_| now)
        } else {
            self.lines.next_due()
        };
        let gate = self.gate(now);
        let work = work.map(|at| self.batches.full_or_due(at, now));
        let claim = work.map(|at| at.max(gate)).filter(|at| *at < Timestamp::MAX);
        [claim, self.outbox.retry_at()].into_iter().flatten().min()
    }

    /// Claims nothing any longer.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries known in memory, those under way included.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.lines.len()
    }

    /// Whether more is pending in the outbox than is known in memory.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.outbox.cursor().is_some()
    }

    /// The circuit breaker's state.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }
}
