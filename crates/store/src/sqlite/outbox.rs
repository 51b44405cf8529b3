//! Reading the outbox, for a dispatcher that has not kept all of it in memory.
//!
//! Deliveries are read along their ids, from the lowest that is pending, which is known at any time; so no index
//! of the pending ones by id has to be written with every commit. The one there is, by endpoint and
//! session, says whether something of a session comes first.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, params};
use turnhook_reducer::time::Timestamp;

use super::{
    Sqlite,
    commit::{DELIVERY, delivery_of, read_delivery},
    connection, int,
};
use crate::{
    delivery::Delivery,
    endpoint::Backlog,
    error::Result,
    ids::{DeliveryId, EndpointId},
};

/// For each delivery that is wanted of the newest, so many pending ones are looked at.
const LOOK: usize = 16;
/// Or so many, where few are wanted.
const LOOK_LEAST: usize = 4096;
/// And no more than the newest so many events.
const NEWEST: i64 = 100_000;

impl Sqlite {
    pub(crate) async fn pending_after(
        self: &Arc<Self>,
        endpoint: EndpointId,
        after: DeliveryId,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        let counts = Arc::clone(&self.counts);
        self.read(move |conn| {
            let (seen, mark) = counts.see();
            let tx = conn.unchecked_transaction()?;
            let lowest = seen.get(&endpoint).map_or(0, |count| count.lowest);
            let mut stmt = tx.prepare_cached(&format!(
                "SELECT {DELIVERY} FROM delivery d NOT INDEXED CROSS JOIN event e ON e.id = d.id >> 16 \
                 WHERE d.id >= ?2 AND d.endpoint = ?1 AND d.state = 0 ORDER BY d.id LIMIT ?3"
            ))?;
            let from = after.0.saturating_add(1).max(lowest);
            let page = stmt
                .query_map(params![endpoint.0, from, int(limit as u64)], delivery_of)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            if let Some(first) = page.first().filter(|_| after.0 < lowest) {
                counts.found_lowest(first.id, mark);
            }
            Ok(page)
        })
        .await
    }

    pub(crate) async fn pending_since(
        self: &Arc<Self>,
        after: DeliveryId,
        limit: usize,
    ) -> Result<Vec<DeliveryId>> {
        self.read(move |conn| {
            let sql = "SELECT id FROM delivery NOT INDEXED WHERE id > ?1 AND state = 0 ORDER BY id LIMIT ?2";
            let mut stmt = conn.prepare_cached(sql)?;
            stmt.query_map(params![after.0, int(limit as u64)], |row| {
                Ok(DeliveryId(row.get(0)?))
            })?
            .collect()
        })
        .await
    }

    pub(crate) async fn newest_delivery(self: &Arc<Self>) -> Result<DeliveryId> {
        self.read(|conn| {
            // Also of events that went to nobody, and of those that were trimmed.
            conn.query_row(
                "SELECT max((SELECT coalesce(max(id), 0) FROM event), ledger_event) FROM store",
                [],
                |r| r.get(0),
            )
            .map(DeliveryId::last_of)
        })
        .await
    }

    pub(crate) async fn newest_due(
        self: &Arc<Self>,
        endpoint: EndpointId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let newest: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM event", [], |r| r.get(0))?;
            let mut stmt = tx.prepare_cached(
                "SELECT id, session, at FROM delivery NOT INDEXED \
                 WHERE id >= ?2 AND endpoint = ?1 AND state = 0 ORDER BY id DESC LIMIT ?3",
            )?;
            let mut found = stmt.query(params![
                endpoint.0,
                (newest - NEWEST) << 16,
                int((limit * LOOK).max(LOOK_LEAST) as u64)
            ])?;
            let mut ids = Vec::new();
            while let Some(row) = found.next()? {
                let (id, session, at): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if at <= int(now.0) && first_of_session(&tx, endpoint, session)? == Some(id) {
                    ids.push(DeliveryId(id));
                }
                if ids.len() >= limit {
                    break;
                }
            }
            read_all(&tx, &ids)
        })
        .await
    }

    pub(crate) async fn pending_rows(self: &Arc<Self>, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let mut stmt = tx.prepare_cached("SELECT id FROM delivery WHERE id = ?1 AND state = 0")?;
            let mut pending = Vec::new();
            for id in ids {
                if stmt.exists([id.0])? {
                    pending.extend(read_delivery(&tx, id)?);
                }
            }
            Ok(pending)
        })
        .await
    }

    pub(crate) async fn still_pending(self: &Arc<Self>, ids: Vec<DeliveryId>) -> Result<Vec<DeliveryId>> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let mut stmt = tx.prepare_cached("SELECT 1 FROM delivery WHERE id = ?1 AND state = 0")?;
            let mut pending = Vec::new();
            for id in ids {
                if stmt.exists([id.0])? {
                    pending.push(id);
                }
            }
            Ok(pending)
        })
        .await
    }

    pub(crate) async fn backlog(self: &Arc<Self>) -> Result<BTreeMap<EndpointId, Backlog>> {
        let counts = Arc::clone(&self.counts);
        let live = self.mode == crate::Mode::Run;
        self.read(move |conn| {
            if !live {
                // Nobody keeps the counts of another process up to date here.
                counts.read(conn)?;
            }
            let (seen, mark) = counts.see();
            let mut backlog = BTreeMap::new();
            for (endpoint, count) in seen {
                let mut oldest = None;
                if count.pending > 0 {
                    let found: Option<(i64, i64)> = conn
                        .prepare_cached(
                            "SELECT d.id, e.at FROM delivery d NOT INDEXED JOIN event e ON e.id = d.id >> 16 \
                             WHERE d.id >= ?1 AND d.endpoint = ?2 AND d.state = 0 ORDER BY d.id LIMIT 1",
                        )?
                        .query_row(params![count.lowest, endpoint.0], |r| Ok((r.get(0)?, r.get(1)?)))
                        .optional()?;
                    if let Some((id, at)) = found {
                        counts.found_lowest(DeliveryId(id), mark);
                        oldest = Some(Timestamp(super::nat(at)));
                    }
                }
                backlog.insert(
                    endpoint,
                    Backlog {
                        pending: count.pending,
                        dead: count.dead,
                        oldest,
                    },
                );
            }
            Ok(backlog)
        })
        .await
    }

    pub(crate) async fn changed_by_others(&self) -> Result<bool> {
        self.write(|conn, mem| {
            let changed = connection::changed_by_others(conn, &mut mem.data_version)?;
            if changed {
                mem.counts.read(conn)?;
            }
            Ok(changed)
        })
        .await
    }
}

fn read_all(conn: &Connection, ids: &[DeliveryId]) -> rusqlite::Result<Vec<Delivery>> {
    let mut deliveries = Vec::with_capacity(ids.len());
    for id in ids {
        deliveries.extend(read_delivery(conn, *id)?);
    }
    Ok(deliveries)
}

fn first_of_session(conn: &Connection, endpoint: EndpointId, session: i64) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT id FROM delivery INDEXED BY delivery_pending WHERE endpoint = ?1 AND session = ?2 AND state = 0 ORDER BY id LIMIT 1",
    )?
    .query_row(params![endpoint.0, session], |r| r.get(0))
    .optional()
}
