//! How much each endpoint still has to get, kept as it changes: with a million pending nobody counts them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use rusqlite::Connection;

use super::{nat, rows};
use crate::ids::{DeliveryId, EndpointId};

/// Of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) pending: u64,
    pub(super) dead: u64,
    /// No pending delivery has a smaller id.
    pub(super) lowest: i64,
}

/// Of all endpoints.
#[derive(Debug, Default)]
struct Kept {
    counts: BTreeMap<EndpointId, Count>,
    /// How often a `lowest` was lowered: what a reader found before that is out of date.
    lowered: u64,
}

/// What is on the disk, for the writer to change and for readers to see.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Kept>);

impl Counts {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts all: at the start, and after another process has written.
    pub(super) fn read(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut counts: BTreeMap<EndpointId, Count> = BTreeMap::new();
        let mut stmt = conn
            .prepare("SELECT endpoint, count(*), min(id) FROM delivery WHERE state = 0 GROUP BY endpoint")?;
        let mut rows = stmt.query([])?;
        while let Some(row) = rows.next()? {
            let count = Count {
                pending: nat(row.get(1)?),
                dead: 0,
                lowest: row.get(2)?,
            };
            counts.insert(EndpointId(row.get(0)?), count);
        }
        let mut stmt =
            conn.prepare("SELECT endpoint, count(*) FROM delivery WHERE state = 2 GROUP BY endpoint")?;
        let mut rows = stmt.query([])?;
        while let Some(row) = rows.next()? {
            counts.entry(EndpointId(row.get(0)?)).or_default().dead = nat(row.get(1)?);
        }
        let mut kept = self.lock();
        kept.counts = counts;
        kept.lowered += 1;
        Ok(())
    }

    /// All counts, and the mark to give back with [`Counts::found_lowest`].
    pub(super) fn see(&self) -> (BTreeMap<EndpointId, Count>, u64) {
        let kept = self.lock();
        (kept.counts.clone(), kept.lowered)
    }

    /// A reader has found the lowest pending delivery of an endpoint.
    pub(super) fn found_lowest(&self, id: DeliveryId, mark: u64) {
        let mut kept = self.lock();
        if kept.lowered == mark
            && let Some(count) = kept.counts.get_mut(&id.endpoint())
        {
            count.lowest = count.lowest.max(id.0);
        }
    }

    /// A transaction is on the disk.
    pub(super) fn keep(&self, moves: &mut Moves) {
        if moves.0.is_empty() {
            return;
        }
        let mut kept = self.lock();
        let Kept { counts, lowered } = &mut *kept;
        for (id, pending, dead) in moves.0.drain(..) {
            let count = counts.entry(id.endpoint()).or_default();
            if pending > 0 && (count.pending == 0 || id.0 < count.lowest) {
                count.lowest = id.0;
                *lowered += 1;
            }
            count.pending = count.pending.saturating_add_signed(pending);
            count.dead = count.dead.saturating_add_signed(dead);
        }
    }
}

/// What the transaction under way changes.
#[derive(Debug, Default)]
pub(super) struct Moves(Vec<(DeliveryId, i64, i64)>);

impl Moves {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A delivery goes from one `delivery.state` to another; `None` before it was there, and after it was removed.
    pub(super) fn add(&mut self, id: DeliveryId, from: Option<i64>, to: Option<i64>) {
        let is = |state: Option<i64>, code: i64| i64::from(state == Some(code));
        let change = (
            id,
            is(to, rows::PENDING) - is(from, rows::PENDING),
            is(to, rows::DEAD) - is(from, rows::DEAD),
        );
        if (change.1, change.2) != (0, 0) {
            self.0.push(change);
        }
    }
}
