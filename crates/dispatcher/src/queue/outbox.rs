//! What of the outbox is known in memory, and what has to be read.

use std::collections::HashSet;

use turnhook_reducer::{event::SessionId, outbox::DeliveryId, time::Timestamp};

use super::lines::{Counts, Lines};
use crate::queued::Queued;

/// After a page that could not be read, in milliseconds.
const READ_AGAIN: u64 = 1_000;

/// Rows read from the newest end beyond those that were left out.
const SPARE: usize = 16;

/// What bounds a queue's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deliveries held with their bodies; a page may overshoot.
    pub bodies: usize,
    /// Their bodies' bytes; a page may overshoot.
    pub bytes: usize,
    /// Deliveries that wait for a retry, without bodies.
    pub stubs: usize,
    /// Rows in a page.
    pub page: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            bodies: 4096,
            bytes: 32 << 20,
            stubs: 32_768,
            page: 1024,
        }
    }
}

/// What has to be read from the outbox, always of this endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The pending deliveries with ids above `after`, lowest first, those that wait for a retry included.
    Oldest {
        /// The cursor.
        after: DeliveryId,
        /// Rows at most.
        limit: usize,
    },
    /// Pending deliveries that are due, highest id first, and only those before which nothing of their
    /// session is pending. Not to be complete: it is enough to look among the newest few thousand rows.
    Newest {
        /// Rows at most.
        limit: usize,
    },
    /// Those of these deliveries that are still pending.
    Rows(Vec<DeliveryId>),
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The rows.
    pub deliveries: Vec<Queued>,
    /// Whether these were all: fewer than the limit.
    pub end: bool,
}

#[derive(Debug)]
pub(super) struct Outbox {
    /// While behind: everything pending up to this id is known, and nothing beyond it but for what
    /// was read from the newest end.
    cursor: Option<DeliveryId>,
    fresh: Fresh,
    reading: Option<Reading>,
    not_before: Option<Timestamp>,
    /// Whether the oldest end was read last, where both are wanted.
    oldest_last: bool,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox {
            cursor: Some(DeliveryId::MIN),
            fresh: Fresh::default(),
            reading: None,
            not_before: None,
            oldest_last: false,
        }
    }
}

/// What was offered while behind and left out: the newest end is read for these alone. All else there is
/// backlog, and costs less to read from the oldest end.
#[derive(Debug, Default)]
struct Fresh {
    /// The lowest id that was left out since the newest end was read down to it.
    from: Option<DeliveryId>,
    /// How many were left out since.
    count: usize,
    /// The sessions of what was left out: once the first of one is done, the next may be read.
    sessions: HashSet<SessionId>,
}

impl Fresh {
    /// Fresh is no more than this many pages: beyond, it is backlog.
    const PAGES: usize = 8;

    fn left_out(&mut self, id: DeliveryId, session: SessionId, bounds: &Bounds) {
        if self.sessions.len() >= Self::PAGES * bounds.page {
            *self = Fresh::default();
        }
        self.sessions.insert(session);
        self.count += 1;
        self.from = Some(self.from.map_or(id, |from| from.min(id)));
    }

    /// One that was read from the newest end is done.
    fn finished(&mut self, session: SessionId) {
        if self.from.is_none() && self.sessions.contains(&session) {
            // Whatever became the first of its session: a glance is enough.
            self.from = Some(DeliveryId::MAX);
        }
    }

    /// The newest end is read now, down to what is given back.
    fn read(&mut self) -> DeliveryId {
        self.count = 0;
        self.from.take().unwrap_or(DeliveryId::MAX)
    }

    /// A page did not reach down to `from`.
    fn go_on(&mut self, from: DeliveryId) {
        self.from = Some(self.from.map_or(from, |other| other.min(from)));
    }
}

/// A read under way, and what happened meanwhile: the page may have it or not.
#[derive(Debug)]
struct Reading {
    wanted: Wanted,
    /// From the newest end: the lowest id that is looked for.
    fresh_from: DeliveryId,
    /// Offered meanwhile: if the page is the last one, nothing is missing between it and these.
    held: Vec<Queued>,
    /// The lowest id that was offered meanwhile and left out.
    dropped: Option<DeliveryId>,
    /// Finished or withdrawn meanwhile: rows may still call them pending.
    over: HashSet<DeliveryId>,
    /// Some were withdrawn meanwhile: what was read, or held, of their sessions must not go before them. Or some are somebody
    /// else's now. It is read anew.
    dropped_whole: bool,
}

impl Outbox {
    /// The cursor, while behind.
    pub(super) fn cursor(&self) -> Option<DeliveryId> {
        self.cursor
    }

    /// Whether rows are being read that fell due.
    pub(super) fn reads_rows(&self) -> bool {
        self.reading
            .as_ref()
            .is_some_and(|reading| matches!(reading.wanted, Wanted::Rows(_)))
    }

    /// When to try again what could not be read.
    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// Gives an offered delivery back if there is room for it now.
    pub(super) fn offered(&mut self, delivery: Queued, counts: Counts, bounds: &Bounds) -> Option<Queued> {
        let id = delivery.id;
        let Some(cursor) = &mut self.cursor else {
            if has_room(counts, bounds) {
                return Some(delivery);
            }
            self.cursor = Some(id.before());
            self.fresh.left_out(id, delivery.session_id, bounds);
            return None;
        };
        self.fresh.left_out(id, delivery.session_id, bounds);
        match &mut self.reading {
            Some(Reading {
                wanted: Wanted::Oldest { .. },
                held,
                dropped: None,
                ..
            }) if held.len() < bounds.page => {
                held.push(delivery);
            }
            Some(reading) => reading.dropped = Some(reading.dropped.unwrap_or(id).min(id)),
            // Known up to the cursor, but this one is known no longer: a replay.
            None => *cursor = (*cursor).min(id.before()),
        }
        None
    }

    /// Outcomes are on record: those of `next_of`, which were read from the newest end, let the next of their sessions
    /// be read; `read_from` is to be read once more.
    pub(super) fn recorded(&mut self, read_from: Option<DeliveryId>, next_of: Option<SessionId>) {
        if let Some(session) = next_of {
            self.fresh.finished(session);
        }
        let Some(id) = read_from else { return };
        match &mut self.reading {
            Some(reading) => reading.dropped = Some(reading.dropped.map_or(id, |dropped| dropped.min(id))),
            None => self.cursor = Some(self.cursor.map_or(id.before(), |cursor| cursor.min(id.before()))),
        }
    }

    /// A delivery is done or dead.
    pub(super) fn finished(&mut self, id: DeliveryId) {
        if let Some(reading) = &mut self.reading {
            reading.over.insert(id);
        }
    }

    /// Rows may be pending that were not before (a replay by another process): from the oldest on.
    pub(super) fn read_again(&mut self) {
        self.cursor = Some(DeliveryId::MIN);
        if let Some(reading) = &mut self.reading {
            reading.dropped = Some(DeliveryId::MIN);
        }
    }

    pub(super) fn withdrawn(&mut self, ids: &[DeliveryId]) {
        if let Some(reading) = &mut self.reading {
            reading.over.extend(ids);
            reading.held.retain(|delivery| !ids.contains(&delivery.id));
            reading.dropped_whole |= !ids.is_empty();
        }
    }

    pub(super) fn drop_read(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.dropped_whole = true;
        }
    }

    /// What is to be read next, if anything; marks it as being read.
    pub(super) fn wanted(&mut self, lines: &mut Lines, bounds: &Bounds, now: Timestamp) -> Option<Wanted> {
        if self.reading.is_some() {
            return None;
        }
        if self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        self.not_before = None;
        let wanted = self.choose(lines, bounds)?;
        self.oldest_last = match &wanted {
            Wanted::Oldest { .. } => true,
            Wanted::Newest { .. } => false,
            Wanted::Rows(_) => self.oldest_last,
        };
        let fresh_from = match &wanted {
            Wanted::Newest { .. } => self.fresh.read(),
            Wanted::Oldest { .. } | Wanted::Rows(_) => DeliveryId::MAX,
        };
        self.reading = Some(Reading {
            wanted: wanted.clone(),
            fresh_from,
            held: Vec::new(),
            dropped: None,
            over: HashSet::new(),
            dropped_whole: false,
        });
        Some(wanted)
    }

    fn choose(&self, lines: &mut Lines, bounds: &Bounds) -> Option<Wanted> {
        if lines.has_due_rows() {
            let rows = lines.take_due_rows(bounds.page);
            if !rows.is_empty() {
                return Some(Wanted::Rows(rows));
            }
        }
        let after = self.cursor?;
        let counts = lines.counts();
        let limit = bounds.page;
        let backlog = counts.bodies - counts.newest;
        let oldest =
            (backlog <= bounds.bodies / 2 && counts.bytes <= bounds.bytes / 2 && counts.stubs < bounds.stubs)
                .then_some(Wanted::Oldest { after, limit });
        // What is known there already fills a part of the page; where that is half of it, it can wait.
        let few = (counts.newest + 2 * self.fresh.count + SPARE).min(limit);
        let newest =
            (self.fresh.from.is_some() && counts.newest <= limit / 2 && counts.bytes <= bounds.bytes)
                .then_some(Wanted::Newest { limit: few });
        if self.oldest_last {
            newest.or(oldest)
        } else {
            oldest.or(newest)
        }
    }

    /// What was read, or `None` if it could not be; `last` is the highest id of it, those that are over included.
    pub(super) fn answered(
        &mut self,
        page: Option<Page>,
        last: Option<DeliveryId>,
        lines: &mut Lines,
        bounds: &Bounds,
        now: Timestamp,
    ) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        let Some(page) = page.filter(|_| !reading.dropped_whole) else {
            if !reading.dropped_whole {
                self.not_before = Some(now.plus(READ_AGAIN));
            }
            self.go_back(reading.lowest_left_out());
            match reading.wanted {
                Wanted::Rows(ids) => lines.ask_again(ids),
                Wanted::Newest { .. } => self.fresh.go_on(reading.fresh_from),
                Wanted::Oldest { .. } => {}
            }
            return;
        };
        match reading.wanted {
            Wanted::Rows(ids) => {
                let mut rows = page.deliveries;
                rows.retain(|row| !reading.over.contains(&row.id));
                lines.fill(&ids, rows, now);
                self.go_back(reading.dropped);
            }
            Wanted::Newest { .. } => {
                let known = lines.len();
                let lowest = page.deliveries.iter().map(|row| row.id).min();
                insert(page.deliveries, true, &reading.over, lines, now);
                // A page that brought nothing new would bring nothing new again.
                if !page.end && lowest > Some(reading.fresh_from) && lines.len() > known {
                    self.fresh.go_on(reading.fresh_from);
                }
                self.go_back(reading.dropped);
            }
            Wanted::Oldest { after, .. } => {
                insert(page.deliveries, false, &reading.over, lines, now);
                if page.end {
                    // Nothing is missing up to what was held, but for what was left out; what no longer fits is read later.
                    self.cursor = None;
                    for delivery in reading.held {
                        if reading.dropped.is_none_or(|dropped| delivery.id < dropped)
                            && !lines.knows(delivery.id)
                            && let Some(delivery) = self.offered(delivery, lines.counts(), bounds)
                        {
                            lines.insert(delivery, false, now);
                        }
                    }
                    if let Some(dropped) = reading.dropped {
                        let before = dropped.before();
                        self.cursor = Some(self.cursor.map_or(before, |cursor| cursor.min(before)));
                    }
                } else {
                    self.cursor = Some(last.unwrap_or(after));
                    self.go_back(reading.lowest_left_out());
                }
            }
        }
    }

    /// Something with this id was left out: the cursor must not lie beyond it.
    fn go_back(&mut self, left_out: Option<DeliveryId>) {
        if let (Some(cursor), Some(id)) = (&mut self.cursor, left_out) {
            *cursor = (*cursor).min(id.before());
        }
    }
}

impl Reading {
    fn lowest_left_out(&self) -> Option<DeliveryId> {
        self.held
            .iter()
            .map(|delivery| delivery.id)
            .chain(self.dropped)
            .min()
    }
}

fn insert(rows: Vec<Queued>, newest: bool, over: &HashSet<DeliveryId>, lines: &mut Lines, now: Timestamp) {
    for row in rows {
        if !over.contains(&row.id) {
            lines.insert(row, newest, now);
        }
    }
}

fn has_room(counts: Counts, bounds: &Bounds) -> bool {
    counts.bodies < bounds.bodies && counts.bytes < bounds.bytes && counts.stubs < bounds.stubs
}
