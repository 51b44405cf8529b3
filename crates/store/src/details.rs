//! A delivery with all that is known of it.

use std::collections::HashMap;

use bytes::Bytes;
use turnhook_reducer::event::EventId;

use crate::{
    delivery::{Attempt, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryState, Replay, ReplayId},
    facts,
    ids::DeliveryId,
    query::{Deliveries, Dialect, LISTED, Query, listed},
    record::{Columns, Record},
};

/// What an event's deliveries are shown by: themselves, and what attempts left of them.
pub(crate) fn queries(dialect: &Dialect, event: EventId) -> [Query; 2] {
    let only = DeliveryFilter {
        ids: vec![event],
        ..DeliveryFilter::default()
    };
    let of = || Deliveries::new(dialect, &only, true);
    let columns = listed(dialect)
        + ", d.status, d.latency_ms, e.data, (SELECT s.items FROM sent s WHERE s.delivery = d.id)";
    let attempts = "a.delivery, a.n, a.at, a.latency_ms, a.status, a.error, a.answer";
    [
        of().query(&columns, "ORDER BY d.id"),
        of().joined("JOIN attempt a ON a.delivery = d.id")
            .query(attempts, "ORDER BY a.n"),
    ]
}

/// One of them, and the attempt that succeeded, which leaves no row of its own.
pub(crate) struct Shown {
    row: DeliveryRow,
    success: Option<Attempt>,
    body: Bytes,
    sent: Option<Bytes>,
}

/// An attempt that failed, and of which delivery.
pub(crate) struct Failed(DeliveryId, Attempt);

impl Record for Shown {
    fn read<R: Columns>(row: &R) -> Result<Shown, R::Error> {
        let shown = DeliveryRow::read(row)?;
        let (status, latency) = (row.maybe(LISTED)?, row.value(LISTED + 1)?);
        let body = facts::unpack_body(row.value(LISTED + 2)?).ok_or_else(|| R::damaged("event"))?;
        Ok(Shown {
            success: (shown.state == DeliveryState::Delivered).then(|| shown.success(status, latency)),
            row: shown,
            body,
            sent: row.maybe(LISTED + 3)?,
        })
    }
}

impl Record for Failed {
    fn read<R: Columns>(row: &R) -> Result<Failed, R::Error> {
        let attempt = Attempt {
            number: row.value(1)?,
            at: row.value(2)?,
            latency_ms: row.value(3)?,
            status: row.maybe(4)?,
            error: row.maybe(5)?,
            answer: row.maybe(6)?,
        };
        Ok(Failed(DeliveryId(row.value(0)?), attempt))
    }
}

/// What these queries give.
pub(crate) type Found = (Vec<Shown>, Vec<Failed>);

pub(crate) fn details((shown, failed): Found) -> Vec<DeliveryDetail> {
    let mut attempts: HashMap<DeliveryId, Vec<Attempt>> = HashMap::new();
    for Failed(id, attempt) in failed {
        attempts.entry(id).or_default().push(attempt);
    }
    let detail = |shown: Shown| {
        let mut attempts = attempts.remove(&shown.row.id).unwrap_or_default();
        attempts.extend(shown.success);
        DeliveryDetail {
            row: shown.row,
            body: shown.body,
            attempts,
            sent: shown.sent,
        }
    };
    shown.into_iter().map(detail).collect()
}

impl Record for Replay {
    fn read<R: Columns>(row: &R) -> Result<Replay, R::Error> {
        Ok(Replay {
            id: ReplayId(row.value(0)?),
            at: row.value(1)?,
            who: row.value(2)?,
            what: row.value(3)?,
            total: row.value(4)?,
            pending: row.value(5)?,
        })
    }
}
