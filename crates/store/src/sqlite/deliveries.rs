//! Deliveries as people look for them: listed, shown, replayed, discarded.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use turnhook_reducer::{event::EventId, time::Timestamp};

use super::{Fault, Sqlite, admin::unknown_endpoint, connection, int, nat, rows, writer::Mem};
use crate::{
    delivery::{
        Attempt, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryState, Replay,
        ReplayId, ReplayRequest,
    },
    error::Result,
    facts,
    ids::DeliveryId,
    query::{Deliveries, Dialect, Listed, Pace, listed},
};

/// Up to so many pending or dead ones are looked up and sorted; among more, the newest are found sooner by
/// walking back from the newest event.
const FEW: i64 = 10_000;

/// Deliveries that one transaction changes.
const STEP: usize = 1000;

/// The cross joins and the indexes named say how it is to be walked, whatever the planner believes.
pub(super) const DIALECT: Dialect = Dialect {
    mark: '?',
    keys: "event_key k CROSS JOIN event e ON e.id = k.event \
         CROSS JOIN delivery d NOT INDEXED ON d.id BETWEEN e.id << 16 AND (e.id << 16) + 65535",
    key: "k.event_id",
    session: "session_event l CROSS JOIN event e ON e.id = l.event \
         CROSS JOIN delivery d NOT INDEXED ON d.id BETWEEN e.id << 16 AND (e.id << 16) + 65535",
    session_id: "l.session_id",
    user: "(SELECT k.event FROM session s CROSS JOIN session_event k ON k.session_id = s.id AND s.user = ?1 \
         UNION ALL SELECT event FROM user_event WHERE user = ?1) l CROSS JOIN event e ON e.id = l.event \
         CROSS JOIN delivery d NOT INDEXED ON d.id BETWEEN e.id << 16 AND (e.id << 16) + 65535",
    pending: "delivery d INDEXED BY delivery_pending CROSS JOIN event e ON e.id = d.id >> 16",
    dead: "delivery d INDEXED BY delivery_dead CROSS JOIN event e ON e.id = d.id >> 16",
    endpoint: "CROSS JOIN endpoint p ON p.id = d.endpoint",
    user_column: "s.user",
    join: "CROSS JOIN",
    by_end: "session INDEXED BY session_ended",
};

fn delivery_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(Listed {
        id: row.get(0)?,
        endpoint: row.get(1)?,
        event_id: row.get(2)?,
        event_type: row.get(3)?,
        session_id: row.get(4)?,
        sequence: row.get(5)?,
        timestamp: row.get(6)?,
        state: row.get(7)?,
        attempts: row.get(8)?,
        first_attempt_at: row.get(9)?,
        at: row.get(10)?,
        latency_ms: row.get(11)?,
        reason: row.get(12)?,
        replay: row.get(13)?,
        user: row.get(14)?,
    }
    .into())
}

/// Whether there are only a few of these.
fn are_few(conn: &Connection, states: &[DeliveryState]) -> rusqlite::Result<bool> {
    let sql = match states {
        [DeliveryState::Pending] => {
            "SELECT count(*) FROM (SELECT 1 FROM delivery INDEXED BY delivery_pending WHERE state = 0 LIMIT ?1)"
        }
        [DeliveryState::Dead] => {
            "SELECT count(*) FROM (SELECT 1 FROM delivery INDEXED BY delivery_dead WHERE state = 2 LIMIT ?1)"
        }
        _ => return Ok(true),
    };
    Ok(conn
        .prepare_cached(sql)?
        .query_row([FEW + 1], |r| r.get::<_, i64>(0))?
        <= FEW)
}

fn check_endpoint(conn: &Connection, name: Option<&str>) -> rusqlite::Result<Result<()>> {
    let Some(name) = name else { return Ok(Ok(())) };
    if connection::exists(conn, "SELECT 1 FROM endpoint WHERE name = ?1", [name])? {
        return Ok(Ok(()));
    }
    unknown_endpoint(conn, name).map(Err)
}

impl Sqlite {
    pub(crate) async fn deliveries(
        self: &Arc<Self>,
        filter: DeliveryFilter,
        after: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<Vec<DeliveryRow>> {
        self.catch_up().await?;
        self.read(move |conn| {
            if let Err(e) = check_endpoint(conn, filter.endpoint.as_deref())? {
                return Ok(Err(e));
            }
            let mut q = Deliveries::new(&DIALECT, &filter, are_few(conn, &filter.states)?);
            if let Some(after) = after {
                q.after(after);
            }
            let order = q.order();
            let limit = q.value(int(limit as u64));
            let sql = q.sql(
                &listed(&DIALECT),
                &format!("ORDER BY {order} DESC, d.id DESC LIMIT {limit}"),
            );
            let mut stmt = conn.prepare_cached(&sql)?;
            stmt.query_map(params_from_iter(q.values), delivery_row)?
                .collect::<rusqlite::Result<Vec<_>>>()
                .map(Ok)
        })
        .await?
    }

    pub(crate) async fn delivery(self: &Arc<Self>, event: EventId) -> Result<Vec<DeliveryDetail>> {
        self.catch_up().await?;
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let only = DeliveryFilter {
                ids: vec![event],
                ..DeliveryFilter::default()
            };
            let q = Deliveries::new(&DIALECT, &only, true);
            let columns = listed(&DIALECT)
                + ", d.status, d.latency_ms, e.data, (SELECT s.items FROM sent s WHERE s.delivery = d.id)";
            let mut stmt = tx.prepare_cached(&q.sql(&columns, "ORDER BY d.id"))?;
            let mut found = stmt.query(params_from_iter(q.values))?;
            let mut details = Vec::new();
            while let Some(row) = found.next()? {
                let shown = delivery_row(row)?;
                let body =
                    facts::unpack_body(row.get_ref(17)?.as_blob()?).ok_or_else(|| rows::damaged("event"))?;
                let mut attempts = read_attempts(&tx, shown.id)?;
                if shown.state == DeliveryState::Delivered {
                    let latency = nat(row.get(16)?);
                    attempts.push(shown.success(row.get(15)?, latency));
                }
                details.push(DeliveryDetail {
                    row: shown,
                    body: body.into(),
                    attempts,
                    sent: row.get::<_, Option<Vec<u8>>>(18)?.map(Into::into),
                });
            }
            Ok(details)
        })
        .await
    }

    pub(crate) async fn count_deliveries(self: &Arc<Self>, filter: DeliveryFilter) -> Result<u64> {
        self.catch_up().await?;
        self.read(move |conn| {
            if let Err(e) = check_endpoint(conn, filter.endpoint.as_deref())? {
                return Ok(Err(e));
            }
            let q = Deliveries::new(&DIALECT, &filter, true);
            let mut stmt = conn.prepare_cached(&q.sql("count(*)", ""))?;
            let count = stmt.query_row(params_from_iter(q.values), |r| r.get(0))?;
            Ok(Ok(nat(count)))
        })
        .await?
    }

    /// Oldest first.
    async fn matching(self: &Arc<Self>, filter: DeliveryFilter) -> Result<Vec<i64>> {
        self.catch_up().await?;
        self.read(move |conn| {
            if let Err(e) = check_endpoint(conn, filter.endpoint.as_deref())? {
                return Ok(Err(e));
            }
            let q = Deliveries::new(&DIALECT, &filter, true);
            let sql = q.sql("d.id", &format!("ORDER BY {}, d.id", q.order()));
            let mut stmt = conn.prepare(&sql)?;
            stmt.query_map(params_from_iter(q.values), |r| r.get(0))?
                .collect::<rusqlite::Result<Vec<i64>>>()
                .map(Ok)
        })
        .await?
    }

    pub(crate) async fn replay(self: &Arc<Self>, request: ReplayRequest) -> Result<Replay> {
        let ids = self.matching(request.filter).await?;
        let (at, who, what) = (request.at, request.who, request.what);
        let may_repeat = request.may_repeat;
        let (by, asked) = (who.clone(), what.clone());
        let id = self
            .write(move |conn, _| {
                conn.execute(
                    "INSERT INTO replay (at, who, what, total) VALUES (?1, ?2, ?3, 0)",
                    params![int(at.0), by, asked],
                )?;
                Ok(ReplayId(conn.last_insert_rowid()))
            })
            .await?;
        let pace = Pace::new(request.rate);
        let mut total = 0;
        for (step, ids) in ids.chunks(STEP).enumerate() {
            let ids = ids.to_vec();
            total += self
                .write(move |conn, mem| {
                    let mut queued = 0;
                    for (i, delivery) in ids.iter().enumerate() {
                        let wait = pace.wait_ms(step * STEP + i);
                        let again = queue_again(conn, mem, DeliveryId(*delivery), id, at, wait)?;
                        queued += u64::from(again);
                        if again && may_repeat {
                            // As if nothing had been sent: whoever asks knows that it may count twice.
                            conn.prepare_cached("DELETE FROM sent WHERE delivery = ?1")?
                                .execute([delivery])?;
                        }
                    }
                    conn.execute(
                        "UPDATE replay SET total = total + ?2 WHERE id = ?1",
                        params![id.0, int(queued)],
                    )?;
                    Ok(queued)
                })
                .await?;
        }
        Ok(Replay {
            id,
            at,
            who,
            what,
            total,
            pending: total,
        })
    }

    pub(crate) async fn replays(
        self: &Arc<Self>,
        only: Option<ReplayId>,
        limit: usize,
    ) -> Result<Vec<Replay>> {
        self.read(move |conn| {
            let mut stmt = conn.prepare_cached(
                "SELECT id, at, who, what, total, \
                 (SELECT count(*) FROM delivery INDEXED BY delivery_replay WHERE replay = r.id AND replay IS NOT NULL AND state = 0) \
                 FROM replay r WHERE ?1 IS NULL OR id = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            stmt.query_map(params![only.map(|r| r.0), int(limit as u64)], |r| {
                Ok(Replay {
                    id: ReplayId(r.get(0)?),
                    at: rows::time(r, 1)?,
                    who: r.get(2)?,
                    what: r.get(3)?,
                    total: nat(r.get(4)?),
                    pending: nat(r.get(5)?),
                })
            })?
            .collect()
        })
        .await
    }

    pub(crate) async fn discard(self: &Arc<Self>, mut filter: DeliveryFilter, at: Timestamp) -> Result<u64> {
        if filter.states.is_empty() {
            filter.states = vec![DeliveryState::Pending, DeliveryState::Dead];
        }
        let mut total = 0;
        for ids in self.matching(filter).await?.chunks(STEP) {
            let ids = ids.to_vec();
            total += self
                .write(move |conn, mem| {
                    let mut discarded = 0;
                    for id in &ids {
                        let state: Option<i64> = conn
                            .prepare_cached("SELECT state FROM delivery WHERE id = ?1 AND state IN (0, 2)")?
                            .query_row([id], |r| r.get(0))
                            .optional()?;
                        if state.is_some() {
                            conn.prepare_cached("UPDATE delivery SET state = 3, at = ?2 WHERE id = ?1")?
                                .execute(params![id, int(at.0)])?;
                            mem.moves.add(DeliveryId(*id), state, Some(rows::DISCARDED));
                            discarded += 1;
                        }
                    }
                    Ok(discarded)
                })
                .await?;
        }
        Ok(total)
    }
}

fn read_attempts(conn: &Connection, id: DeliveryId) -> rusqlite::Result<Vec<Attempt>> {
    let mut stmt = conn.prepare_cached(
        "SELECT n, at, latency_ms, status, error, answer FROM attempt WHERE delivery = ?1 ORDER BY n",
    )?;
    stmt.query_map([id.0], |r| {
        Ok(Attempt {
            number: r.get(0)?,
            at: rows::time(r, 1)?,
            latency_ms: r.get(2)?,
            status: r.get(3)?,
            error: r.get(4)?,
            answer: r.get::<_, Option<Vec<u8>>>(5)?.map(Into::into),
        })
    })?
    .collect()
}

/// Makes a finished delivery pending again; false if it is pending already or gone.
fn queue_again(
    conn: &Connection,
    mem: &mut Mem,
    id: DeliveryId,
    replay: ReplayId,
    at: Timestamp,
    wait_ms: u64,
) -> Result<bool, Fault> {
    let found: Option<i64> = conn
        .prepare_cached("SELECT state FROM delivery WHERE id = ?1 AND state > 0")?
        .query_row([id.0], |r| r.get(0))
        .optional()?;
    let Some(state) = found else { return Ok(false) };
    if state == rows::DELIVERED {
        // From now on its row speaks of the next delivery.
        conn.prepare_cached(
            "INSERT OR IGNORE INTO attempt (delivery, n, at, latency_ms, status) \
             SELECT id, attempts, at - latency_ms, latency_ms, coalesce(status, 200) FROM delivery WHERE id = ?1",
        )?
        .execute([id.0])?;
    }
    conn.prepare_cached(
        "UPDATE delivery SET state = 0, at = ?2, prior = attempts, first_attempt_at = NULL, latency_ms = ?3, status = NULL, \
         reason = NULL, replay = ?4 WHERE id = ?1",
    )?
    .execute(params![id.0, int(at.plus(wait_ms).0), rows::NO_LATENCY, replay.0])?;
    mem.moves.add(id, Some(state), Some(rows::PENDING));
    Ok(true)
}
