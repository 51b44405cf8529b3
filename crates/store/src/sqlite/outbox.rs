//! Reading the outbox: at the start, after deliveries were not kept in memory, and for retries that fall due.
//!
//! Pending deliveries stand in one small index by endpoint and session, so the first of a session is found
//! beside its others, and those of a session that has to wait are passed over together.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, params};
use turnhook_reducer::{event::SessionId, time::Timestamp};

use super::{
    Sqlite,
    commit::{read_delivery, session_key},
    connection, int, rows,
};
use crate::{
    delivery::{Delivery, OutboxCursor, OutboxPage},
    endpoint::Backlog,
    error::Result,
    ids::{DeliveryId, EndpointId},
};

/// A page looks at so many index entries for each delivery that it may hold, so that it stays short where most wait.
const LOOK: usize = 16;

impl Sqlite {
    pub(crate) async fn outbox(
        self: &Arc<Self>,
        endpoint: EndpointId,
        after: Option<OutboxCursor>,
        now: Timestamp,
        limit: usize,
    ) -> Result<OutboxPage> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            page(&tx, endpoint, after, int(now.0), limit)
        })
        .await
    }

    pub(crate) async fn due(
        self: &Arc<Self>,
        endpoint: EndpointId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let mut stmt = tx.prepare_cached(
                "SELECT id, session FROM delivery INDEXED BY delivery_waiting WHERE endpoint = ?1 AND state = 1 AND at <= ?2 ORDER BY at LIMIT ?3",
            )?;
            let mut found = stmt.query(params![endpoint.0, int(now.0), int((limit * LOOK) as u64)])?;
            let mut due = Vec::new();
            while let Some(row) = found.next()? {
                let id: i64 = row.get(0)?;
                if due.len() < limit && first_of_session(&tx, endpoint, row.get(1)?)? == Some(id) {
                    due.extend(read_delivery(&tx, DeliveryId(id))?);
                }
            }
            Ok(due)
        })
        .await
    }

    pub(crate) async fn next_due(
        self: &Arc<Self>,
        endpoint: EndpointId,
        after: Timestamp,
    ) -> Result<Option<Timestamp>> {
        self.read(move |conn| {
            conn.prepare_cached("SELECT min(at) FROM delivery INDEXED BY delivery_waiting WHERE endpoint = ?1 AND state = 1 AND at > ?2")?
                .query_row(params![endpoint.0, int(after.0)], |r| rows::maybe_time(r, 0))
        })
        .await
    }

    pub(crate) async fn first_pending(
        self: &Arc<Self>,
        endpoint: EndpointId,
        session: SessionId,
    ) -> Result<Option<Delivery>> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            match first_of_session(&tx, endpoint, session_key(session))? {
                Some(id) => read_delivery(&tx, DeliveryId(id)),
                None => Ok(None),
            }
        })
        .await
    }

    pub(crate) async fn pending_after(
        self: &Arc<Self>,
        endpoint: EndpointId,
        after: DeliveryId,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let mut stmt = tx.prepare_cached(
                "SELECT id FROM delivery INDEXED BY delivery_queue \
                 WHERE endpoint = ?1 AND state <= 1 AND id > ?2 ORDER BY id LIMIT ?3",
            )?;
            let ids = stmt.query_map(params![endpoint.0, after.0, int(limit as u64)], |r| r.get(0))?;
            read_all(&tx, ids)
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
            let mut stmt = tx.prepare_cached(
                "SELECT id, session, state, at FROM delivery INDEXED BY delivery_queue \
                 WHERE endpoint = ?1 AND state <= 1 ORDER BY id DESC LIMIT ?2",
            )?;
            let mut found = stmt.query(params![endpoint.0, int((limit * LOOK) as u64)])?;
            let mut newest = Vec::new();
            while let Some(row) = found.next()? {
                let (id, session, state, at): (i64, i64, i64, i64) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                let due = state != rows::WAITING || at <= int(now.0);
                if due && first_of_session(&tx, endpoint, session)? == Some(id) {
                    newest.extend(read_delivery(&tx, DeliveryId(id))?);
                }
                if newest.len() >= limit {
                    break;
                }
            }
            Ok(newest)
        })
        .await
    }

    pub(crate) async fn pending_rows(self: &Arc<Self>, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let mut stmt = tx.prepare_cached("SELECT id FROM delivery WHERE id = ?1 AND state <= 1")?;
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
            let mut stmt = tx.prepare_cached("SELECT 1 FROM delivery WHERE id = ?1 AND state <= 1")?;
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
                             WHERE d.id >= ?1 AND d.endpoint = ?2 AND d.state <= 1 ORDER BY d.id LIMIT 1",
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

fn read_all(
    conn: &Connection,
    ids: impl Iterator<Item = rusqlite::Result<i64>>,
) -> rusqlite::Result<Vec<Delivery>> {
    let mut deliveries = Vec::new();
    for id in ids {
        deliveries.extend(read_delivery(conn, DeliveryId(id?))?);
    }
    Ok(deliveries)
}

fn first_of_session(conn: &Connection, endpoint: EndpointId, session: i64) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT id FROM delivery INDEXED BY delivery_pending WHERE endpoint = ?1 AND session = ?2 AND state <= 1 ORDER BY id LIMIT 1",
    )?
    .query_row(params![endpoint.0, session], |r| r.get(0))
    .optional()
}

/// Walks the index from `after`: in each session up to the first delivery that has to wait.
fn page(
    conn: &Connection,
    endpoint: EndpointId,
    after: Option<OutboxCursor>,
    now: i64,
    limit: usize,
) -> rusqlite::Result<OutboxPage> {
    let mut ids = Vec::new();
    let mut looked = 0;
    let mut last = after;
    // What the walk is in: a session, and whether something in it has to wait.
    let mut waiting: Option<i64> = None;
    let mut walk = |sql: &str, session: i64, id: i64| -> rusqlite::Result<bool> {
        let mut stmt = conn.prepare_cached(sql)?;
        let mut found = stmt.query(params![endpoint.0, session, id])?;
        while let Some(row) = found.next()? {
            let (id, session, state, at): (i64, i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            if state == rows::WAITING && at > now {
                waiting = Some(session);
            }
            last = Some(OutboxCursor { session, id });
            if waiting != Some(session) {
                ids.push(id);
            }
            looked += 1;
            if ids.len() >= limit || looked >= limit * LOOK {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let mut more = false;
    if let Some(OutboxCursor { session, id }) = after {
        // The rest of the session in which the last page ended, unless an earlier delivery of it has to wait.
        let blocked = connection::exists(
            conn,
            "SELECT 1 FROM delivery INDEXED BY delivery_pending WHERE endpoint = ?1 AND session = ?2 AND id <= ?3 AND state <= 1 AND state = 1 AND at > ?4",
            params![endpoint.0, session, id, now],
        )?;
        if !blocked {
            more = walk(
                "SELECT id, session, state, at FROM delivery INDEXED BY delivery_pending \
                 WHERE endpoint = ?1 AND session = ?2 AND id > ?3 AND state <= 1 ORDER BY id",
                session,
                id,
            )?;
        }
    }
    if !more {
        more = walk(
            "SELECT id, session, state, at FROM delivery INDEXED BY delivery_pending \
             WHERE endpoint = ?1 AND session > ?2 AND ?3 IS NOT NULL AND state <= 1 ORDER BY session, id",
            after.map_or(i64::MIN, |a| a.session),
            0,
        )?;
    }
    let mut deliveries = Vec::with_capacity(ids.len());
    for id in ids {
        deliveries.extend(read_delivery(conn, DeliveryId(id))?);
    }
    Ok(OutboxPage {
        deliveries,
        next: last.filter(|_| more),
    })
}
