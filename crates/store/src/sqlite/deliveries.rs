//! Deliveries as people look for them: listed, shown, replayed, discarded.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};
use turnhook_reducer::{
    event::{EventId, SessionId},
    time::Timestamp,
};

use super::{Fault, Sqlite, admin::unknown_endpoint, connection, int, nat, rows, writer::Mem};
use crate::{
    delivery::{
        Attempt, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryState, Replay,
        ReplayId, ReplayRequest,
    },
    error::Result,
    facts,
    ids::DeliveryId,
};

/// Up to so many pending or dead ones are looked up and sorted; among more, the newest are found sooner by
/// walking back from the newest event.
const FEW: i64 = 10_000;

/// Deliveries that one transaction changes.
const STEP: usize = 1000;

const COLUMNS: &str = "d.id, p.name, e.event_id, e.type, e.session_id, e.sequence, e.at, d.state, d.attempts, \
     d.first_attempt_at, d.at, d.latency_ms, d.reason, d.replay";

fn delivery_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    let state = rows::state(row.get(7)?);
    let at = rows::time(row, 10)?;
    let latency: i64 = row.get(11)?;
    // A first attempt that succeeded leaves only when it was over.
    let began = (state == DeliveryState::Delivered).then(|| Timestamp(at.0.saturating_sub(nat(latency))));
    Ok(DeliveryRow {
        id: DeliveryId(row.get(0)?),
        endpoint: row.get(1)?,
        event_id: EventId(row.get(2)?),
        event_type: rows::event_type(row.get(3)?),
        session_id: SessionId(row.get(4)?),
        sequence: row.get(5)?,
        timestamp: rows::time(row, 6)?,
        state,
        attempts: row.get(8)?,
        first_attempt_at: rows::maybe_time(row, 9)?.or(began),
        next_attempt_at: (state == DeliveryState::Pending).then_some(at),
        finished_at: (state != DeliveryState::Pending).then_some(at),
        reason: row.get(12)?,
        replay: row.get::<_, Option<i64>>(13)?.map(ReplayId),
    })
}

/// A query made of a filter: the tables to walk, outermost first, and the conditions.
struct Query {
    from: &'static str,
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Query {
    /// Walks from where there is least to look at.
    fn new(filter: &DeliveryFilter, few: bool) -> Query {
        const KEYS: &str = "event_key k CROSS JOIN event e ON e.id = k.event \
             CROSS JOIN delivery d NOT INDEXED ON d.id BETWEEN e.id << 16 AND (e.id << 16) + 65535";
        const SESSION: &str = "session_event l CROSS JOIN event e ON e.id = l.event \
             CROSS JOIN delivery d NOT INDEXED ON d.id BETWEEN e.id << 16 AND (e.id << 16) + 65535";
        const USER: &str = "session s CROSS JOIN session_event l ON l.session_id = s.id CROSS JOIN event e ON e.id = l.event \
             CROSS JOIN delivery d NOT INDEXED ON d.id BETWEEN e.id << 16 AND (e.id << 16) + 65535";
        const PENDING: &str =
            "delivery d INDEXED BY delivery_pending CROSS JOIN event e ON e.id = d.id >> 16";
        const DEAD: &str = "delivery d INDEXED BY delivery_dead CROSS JOIN event e ON e.id = d.id >> 16";
        let mut q = Query {
            from: KEYS,
            conditions: Vec::new(),
            values: Vec::new(),
        };
        if !filter.ids.is_empty() {
            let list: Vec<String> = filter.ids.iter().map(|id| q.value(id.0.to_vec())).collect();
            q.conditions.push(format!("k.event_id IN ({})", list.join(", ")));
        } else if filter.session.is_some() {
            q.from = SESSION;
        } else if filter.user.is_some() {
            q.from = USER;
        } else if few && filter.states == [DeliveryState::Pending] {
            q.from = PENDING;
            q.conditions.push("d.state = 0".into());
        } else if few && filter.states == [DeliveryState::Dead] {
            q.from = DEAD;
            q.conditions.push("d.state = 2".into());
        }
        if let Some(session) = filter.session {
            let v = q.value(session.0.to_vec());
            if q.from == SESSION {
                q.conditions.push(format!("l.session_id = {v}"));
            }
            q.conditions.push(format!("e.session_id = {v}"));
        }
        if let Some(user) = &filter.user {
            let v = q.value(user.clone());
            q.conditions.push(if q.from == USER {
                format!("s.user = {v}")
            } else {
                format!("EXISTS (SELECT 1 FROM session s WHERE s.id = e.session_id AND s.user = {v})")
            });
        }
        if let Some(endpoint) = &filter.endpoint {
            let v = q.value(endpoint.clone());
            q.conditions
                .push(format!("d.endpoint = (SELECT id FROM endpoint WHERE name = {v})"));
        }
        if !filter.states.is_empty() {
            let codes: Vec<String> = filter
                .states
                .iter()
                .map(|s| rows::state_code(*s).to_string())
                .collect();
            q.conditions.push(format!("d.state IN ({})", codes.join(", ")));
        }
        if !filter.event_types.is_empty() {
            let codes: Vec<String> = filter
                .event_types
                .iter()
                .map(|t| rows::type_code(*t).to_string())
                .collect();
            q.conditions.push(format!("e.type IN ({})", codes.join(", ")));
        }
        for (time, compare) in [(filter.since, ">="), (filter.until, "<")] {
            let Some(time) = time else { continue };
            if q.from == KEYS {
                // An event's id begins with its timestamp: this bounds the walk.
                let mut low = [0u8; 16];
                low[..6].copy_from_slice(&time.0.min((1 << 48) - 1).to_be_bytes()[2..]);
                let v = q.value(low.to_vec());
                q.conditions.push(format!("k.event_id {compare} {v}"));
            }
            let v = q.value(int(time.0));
            q.conditions.push(format!("e.at {compare} {v}"));
        }
        q
    }

    fn value(&mut self, v: impl Into<Value>) -> String {
        self.values.push(v.into());
        format!("?{}", self.values.len())
    }

    /// The column by which it is ordered: that of the walk, so that nothing is sorted that need not be.
    fn order(&self) -> &'static str {
        if self.from.starts_with("event_key") {
            "k.event_id"
        } else {
            "e.event_id"
        }
    }

    fn sql(&self, columns: &str, tail: &str) -> String {
        let conditions = if self.conditions.is_empty() {
            "TRUE".into()
        } else {
            self.conditions.join(" AND ")
        };
        let endpoint = if columns.contains("p.") {
            "CROSS JOIN endpoint p ON p.id = d.endpoint"
        } else {
            ""
        };
        format!(
            "SELECT {columns} FROM {} {endpoint} WHERE {conditions} {tail}",
            self.from
        )
    }
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
            let mut q = Query::new(&filter, are_few(conn, &filter.states)?);
            let order = q.order();
            if let Some(after) = after {
                let (event, id) = (q.value(after.event_id.0.to_vec()), q.value(after.id.0));
                q.conditions.push(format!(
                    "{order} <= {event} AND ({order} < {event} OR d.id < {id})"
                ));
            }
            let limit = q.value(int(limit as u64));
            let sql = q.sql(
                COLUMNS,
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
            let q = Query::new(&only, true);
            let columns = format!("{COLUMNS}, d.status, d.latency_ms, e.data");
            let mut stmt = tx.prepare_cached(&q.sql(&columns, "ORDER BY d.id"))?;
            let mut found = stmt.query(params_from_iter(q.values))?;
            let mut details = Vec::new();
            while let Some(row) = found.next()? {
                let shown = delivery_row(row)?;
                let body =
                    facts::unpack_body(row.get_ref(16)?.as_blob()?).ok_or_else(|| rows::damaged("event"))?;
                let mut attempts = read_attempts(&tx, shown.id)?;
                if shown.state == DeliveryState::Delivered {
                    let latency = nat(row.get(15)?);
                    attempts.push(success(&shown, row.get(14)?, latency));
                }
                details.push(DeliveryDetail {
                    row: shown,
                    body: body.into(),
                    attempts,
                });
            }
            Ok(details)
        })
        .await
    }

    pub(crate) async fn count_deliveries(self: &Arc<Self>, filter: DeliveryFilter) -> Result<u64> {
        Ok(self.matching(filter).await?.len() as u64)
    }

    /// Oldest first.
    async fn matching(self: &Arc<Self>, filter: DeliveryFilter) -> Result<Vec<i64>> {
        self.catch_up().await?;
        self.read(move |conn| {
            if let Err(e) = check_endpoint(conn, filter.endpoint.as_deref())? {
                return Ok(Err(e));
            }
            let q = Query::new(&filter, true);
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
        let gap_ms = request
            .rate
            .filter(|r| r.is_finite() && *r > 0.0)
            .map(|r| 1000.0 / r);
        let mut total = 0;
        for (step, ids) in ids.chunks(STEP).enumerate() {
            let ids = ids.to_vec();
            total += self
                .write(move |conn, mem| {
                    let mut queued = 0;
                    for (i, delivery) in ids.iter().enumerate() {
                        #[allow(
                            clippy::cast_possible_truncation,
                            clippy::cast_sign_loss,
                            clippy::cast_precision_loss
                        )]
                        let wait = gap_ms.map_or(0, |gap| ((step * STEP + i) as f64 * gap) as u64);
                        queued += u64::from(queue_again(conn, mem, DeliveryId(*delivery), id, at, wait)?);
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

/// The attempt that succeeded, from its delivery.
fn success(row: &DeliveryRow, status: Option<u16>, latency_ms: u64) -> Attempt {
    let over = row.finished_at.unwrap_or_default();
    Attempt {
        number: row.attempts,
        at: Timestamp(over.0.saturating_sub(latency_ms)),
        latency_ms: u32::try_from(latency_ms).unwrap_or(u32::MAX),
        status: Some(status.unwrap_or(200)),
        error: None,
        answer: None,
    }
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
