//! Deliveries as people look for them: listed, shown, replayed, discarded.

use std::{collections::HashMap, pin::pin};

use deadpool_postgres::{GenericClient, Transaction};
use futures_util::TryStreamExt;
use tokio_postgres::{IsolationLevel, Row, types::ToSql};
use turnhook_reducer::{event::EventId, time::Timestamp};

use super::rows::{Read as _, one};
use super::{Postgres, admin, connection::Fault, connection::attempt, moves::Moves, rows, text};
use crate::{
    codes::{self, int, nat},
    delivery::{
        Attempt, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryState, Replay,
        ReplayId, ReplayRequest,
    },
    error::Result,
    facts,
    ids::DeliveryId,
    query::{Deliveries, Dialect, Listed, Pace, Value, listed},
};

/// Up to so many pending or dead ones are looked up and sorted; among more, the newest are found sooner by
/// walking back from the newest event.
const FEW: i64 = 10_000;

/// Deliveries that one transaction changes.
const STEP: usize = 1000;

/// From an event to its deliveries by their ids, which the planner sees to be few; a range of ids it takes for many.
pub(super) const DIALECT: Dialect = Dialect {
    mark: '$',
    keys: "event e CROSS JOIN endpoint p JOIN delivery d ON d.id = (e.id << 16) | p.id",
    key: "e.event_id",
    session: "event e CROSS JOIN endpoint p JOIN delivery d ON d.id = (e.id << 16) | p.id",
    session_id: "e.session_id",
    // Not to walk back through all events in search of one user's: OFFSET keeps it in one piece.
    user: "(SELECT v.* FROM session s JOIN event v ON v.session_id = s.id WHERE s.user_name = $1 UNION ALL \
         SELECT v.* FROM user_event u JOIN event v ON v.id = u.event WHERE u.user_name = $1 OFFSET 0) e \
         CROSS JOIN endpoint p JOIN delivery d ON d.id = (e.id << 16) | p.id",
    pending: "delivery d JOIN event e ON e.id = d.id >> 16 JOIN endpoint p ON p.id = d.endpoint",
    dead: "delivery d JOIN event e ON e.id = d.id >> 16 JOIN endpoint p ON p.id = d.endpoint",
    endpoint: "",
    user_column: "s.user_name",
    join: "JOIN",
    by_end: "session",
};

fn delivery_row(row: &Row) -> Result<DeliveryRow, Fault> {
    Ok(Listed {
        id: row.read(0)?,
        endpoint: row.read(1)?,
        event_id: rows::event_id(row, 2)?.0,
        event_type: rows::code(row, 3)?,
        session_id: rows::session_id(row, 4)?.0,
        sequence: rows::number(row, 5)?,
        timestamp: row.read(6)?,
        state: rows::code(row, 7)?,
        attempts: rows::number(row, 8)?,
        first_attempt_at: row.read(9)?,
        at: row.read(10)?,
        latency_ms: row.read(11)?,
        reason: row.read(12)?,
        replay: row.read(13)?,
        user: row.read(14)?,
    }
    .into())
}

/// As parameters of a statement.
pub(super) fn params(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    fn param(value: &Value) -> &(dyn ToSql + Sync) {
        match value {
            Value::Int(v) => v,
            Value::Text(v) => v,
            Value::Bytes(v) => v,
        }
    }
    values.iter().map(param).collect()
}

/// Whether there are only a few of these.
async fn are_few(client: &impl GenericClient, states: &[DeliveryState]) -> Result<bool, Fault> {
    let sql = match states {
        [DeliveryState::Pending] => {
            "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE state = 0 LIMIT $1) few"
        }
        [DeliveryState::Dead] => "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE state = 2 LIMIT $1) few",
        _ => return Ok(true),
    };
    let found: i64 = one(client, sql, &[&(FEW + 1)]).await?.read(0)?;
    Ok(found <= FEW)
}

async fn check_endpoint(client: &impl GenericClient, filter: &DeliveryFilter) -> Result<(), Fault> {
    match &filter.endpoint {
        Some(name) => admin::endpoint_id(client, name).await.map(drop),
        None => Ok(()),
    }
}

impl Postgres {
    pub(crate) async fn deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<Vec<DeliveryRow>> {
        attempt!(&self.db, client => {
            check_endpoint(client, &filter).await?;
            let mut q = Deliveries::new(&DIALECT, &filter, are_few(client, &filter.states).await?);
            if let Some(after) = after {
                q.after(after);
            }
            let order = q.order();
            let limit = q.value(int(limit as u64));
            let sql = q.sql(&listed(&DIALECT), &format!("ORDER BY {order} DESC, d.id DESC LIMIT {limit}"));
            let found = client.query(&sql, &params(&q.values)).await?;
            found.iter().map(delivery_row).collect()
        })
    }

    pub(crate) async fn delivery(&self, event: EventId) -> Result<Vec<DeliveryDetail>> {
        attempt!(&self.db, client => {
            let tx = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await?;
            let only = DeliveryFilter {
                ids: vec![event],
                ..DeliveryFilter::default()
            };
            let q = Deliveries::new(&DIALECT, &only, true);
            let columns = listed(&DIALECT)
                + ", d.status, d.latency_ms, e.data, (SELECT s.items FROM sent s WHERE s.delivery = d.id)";
            let found = tx.query(&q.sql(&columns, "ORDER BY d.id"), &params(&q.values)).await?;
            let mut attempts = attempts_of(&tx, found.iter().map(|row| row.read(0)).collect::<Result<_, _>>()?).await?;
            tx.commit().await?;
            let mut details = Vec::new();
            for row in &found {
                let shown = delivery_row(row)?;
                let body = facts::unpack_body(row.read(17)?).ok_or_else(|| Fault::damaged("event"))?;
                let mut attempts = attempts.remove(&shown.id).unwrap_or_default();
                if shown.state == DeliveryState::Delivered {
                    attempts.push(shown.success(rows::status(row, 15)?, nat(row.read(16)?)));
                }
                details.push(DeliveryDetail {
                    row: shown,
                    body: body.into(),
                    attempts,
                    sent: row.read::<Option<Vec<u8>>>(18)?.map(Into::into),
                });
            }
            Ok(details)
        })
    }

    pub(crate) async fn count_deliveries(&self, filter: DeliveryFilter) -> Result<u64> {
        attempt!(&self.db, client => {
            check_endpoint(client, &filter).await?;
            let q = Deliveries::new(&DIALECT, &filter, true);
            let row = one(client, &q.sql("count(*)", ""), &params(&q.values)).await?;
            Ok(nat(row.read(0)?))
        })
    }

    /// Oldest first.
    async fn matching(&self, filter: &DeliveryFilter) -> Result<Vec<i64>> {
        attempt!(&self.db, client => {
            check_endpoint(client, filter).await?;
            let q = Deliveries::new(&DIALECT, filter, true);
            let sql = q.sql("d.id", &format!("ORDER BY {}, d.id", q.order()));
            let found = client.query_raw(&sql, params(&q.values)).await?;
            let mut found = pin!(found);
            let mut ids: Vec<i64> = Vec::new();
            while let Some(row) = found.try_next().await? {
                ids.push(row.read(0)?);
            }
            Ok(ids)
        })
    }

    pub(crate) async fn replay(&self, request: ReplayRequest) -> Result<Replay> {
        let ids = self.matching(&request.filter).await?;
        let at = request.at;
        // The number first: a replay that is put on record twice is there once.
        let id: i64 = attempt!(&self.db, client => {
            let sql = "SELECT nextval(pg_get_serial_sequence('replay', 'id'))";
            one(client, sql, &[]).await?.read(0)
        })?;
        let (who, what) = (text(&request.who), text(&request.what));
        attempt!(&self.db, client => {
            let sql = "INSERT INTO replay (id, at, who, what, total) VALUES ($1, $2, $3, $4, 0) ON CONFLICT (id) DO NOTHING";
            client.execute(sql, &[&id, &int(at.0), &who, &what]).await?;
            Ok(())
        })?;
        let pace = Pace::new(request.rate);
        let mut total = 0;
        for (step, ids) in ids.chunks(STEP).enumerate() {
            let due: Vec<i64> = (0..ids.len())
                .map(|i| int(at.plus(pace.wait_ms(step * STEP + i)).0))
                .collect();
            // All that it has queued so far, also where an answer was lost on the way and the step is repeated.
            let change;
            (total, change) = attempt!(&self.db, client => {
                let tx = client.transaction().await?;
                let done = queue_again(&tx, ids, &due, id, request.may_repeat, total).await?;
                tx.commit().await?;
                Ok(done)
            })?;
            self.note_own(Some(change));
        }
        Ok(Replay {
            id: ReplayId(id),
            at,
            who: request.who,
            what: request.what,
            total,
            pending: total,
        })
    }

    pub(crate) async fn replays(&self, only: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>> {
        attempt!(&self.db, client => {
            let found = client
                .query(
                    "SELECT id, at, who, what, total, \
                     (SELECT count(*) FROM delivery d WHERE d.replay = r.id AND d.replay IS NOT NULL AND d.state = 0) \
                     FROM replay r WHERE $1::bigint IS NULL OR id = $1 ORDER BY id DESC LIMIT $2",
                    &[&only.map(|r| r.0), &int(limit as u64)],
                )
                .await?;
            let replay = |row: &Row| {
                Ok(Replay {
                    id: ReplayId(row.read(0)?),
                    at: rows::time(row, 1)?,
                    who: row.read(2)?,
                    what: row.read(3)?,
                    total: nat(row.read(4)?),
                    pending: nat(row.read(5)?),
                })
            };
            found.iter().map(replay).collect()
        })
    }

    pub(crate) async fn discard(&self, mut filter: DeliveryFilter, at: Timestamp) -> Result<u64> {
        if filter.states.is_empty() {
            filter.states = vec![DeliveryState::Pending, DeliveryState::Dead];
        }
        let mut total = 0;
        for ids in self.matching(&filter).await?.chunks(STEP) {
            let (discarded, change) = attempt!(&self.db, client => {
                let tx = client.transaction().await?;
                let done = discard(&tx, ids, int(at.0)).await?;
                tx.commit().await?;
                Ok(done)
            })?;
            self.note_own(Some(change));
            total += discarded;
        }
        Ok(total)
    }
}

/// Makes finished deliveries pending again; those that are pending already, or gone, stay so. How many the replay has
/// queued by now (`total` before), and the number of this change.
async fn queue_again(
    tx: &Transaction<'_>,
    ids: &[i64],
    due: &[i64],
    replay: i64,
    may_repeat: bool,
    total: u64,
) -> Result<(u64, i64), Fault> {
    let due: HashMap<i64, i64> = ids.iter().copied().zip(due.iter().copied()).collect();
    let (mut moves, mut delivered) = (Moves::default(), Vec::new());
    let (mut queued, mut when) = (Vec::new(), Vec::new());
    for (id, session, state) in lock(tx, ids).await? {
        if state == codes::PENDING {
            continue;
        }
        if state == codes::DELIVERED {
            delivered.push(id);
        }
        moves.add(
            DeliveryId(id).endpoint(),
            session,
            Some(state),
            Some(codes::PENDING),
        );
        queued.push(id);
        when.push(due.get(&id).copied().unwrap_or_default());
    }
    // From now on their rows speak of the next delivery.
    tx.execute(
        "INSERT INTO attempt (delivery, n, at, latency_ms, status) \
         SELECT id, attempts, at - latency_ms, latency_ms, coalesce(status, 200) FROM delivery WHERE id = ANY ($1) \
         ON CONFLICT (delivery, n) DO NOTHING",
        &[&delivered],
    )
    .await?;
    tx.execute(
        "UPDATE delivery d SET state = 0, at = q.at, prior = d.attempts, first_attempt_at = NULL, latency_ms = 0, \
         status = NULL, reason = NULL, replay = $3 FROM unnest($1::bigint[], $2::bigint[]) AS q (id, at) WHERE d.id = q.id",
        &[&queued, &when, &replay],
    )
    .await?;
    if may_repeat {
        // As if nothing had been sent: whoever asks knows that it may count twice.
        tx.execute("DELETE FROM sent WHERE delivery = ANY ($1)", &[&queued])
            .await?;
    }
    let sql = "UPDATE replay SET total = total + $2 WHERE id = $1 RETURNING total";
    let queued = queued.len() as u64;
    let total = match tx.query_opt(sql, &[&replay, &int(queued)]).await? {
        Some(row) => nat(row.read(0)?),
        // Trimmed meanwhile.
        None => total + queued,
    };
    let change = admin::note_change(tx).await?;
    moves.write(tx).await?;
    Ok((total, change))
}

/// How many were given up, and the number of this change.
async fn discard(tx: &Transaction<'_>, ids: &[i64], at: i64) -> Result<(u64, i64), Fault> {
    let (mut moves, mut open) = (Moves::default(), Vec::new());
    for (id, session, state) in lock(tx, ids).await? {
        if [codes::PENDING, codes::DEAD].contains(&state) {
            moves.add(
                DeliveryId(id).endpoint(),
                session,
                Some(state),
                Some(codes::DISCARDED),
            );
            open.push(id);
        }
    }
    tx.execute(
        "UPDATE delivery SET state = 3, at = $2 WHERE id = ANY ($1)",
        &[&open, &at],
    )
    .await?;
    let change = admin::note_change(tx).await?;
    moves.write(tx).await?;
    // Those discarded at that very time were so by a try whose answer was lost.
    let sql = "SELECT count(*) FROM delivery WHERE id = ANY ($1) AND state = 3 AND at = $2";
    let discarded = nat(one(tx, sql, &[&ids, &at]).await?.read(0)?);
    Ok((discarded, change))
}

/// Id, session and state of those that are there, locked, in the order in which everybody locks them.
async fn lock(tx: &Transaction<'_>, ids: &[i64]) -> Result<Vec<(i64, i64, i64)>, Fault> {
    let sql = "SELECT id, session, state FROM delivery WHERE id = ANY ($1) ORDER BY id FOR UPDATE";
    let found = tx.query(sql, &[&ids]).await?;
    found
        .iter()
        .map(|row| Ok((row.read(0)?, row.read(1)?, rows::code(row, 2)?)))
        .collect()
}

async fn attempts_of(
    tx: &Transaction<'_>,
    ids: Vec<i64>,
) -> Result<HashMap<DeliveryId, Vec<Attempt>>, Fault> {
    let sql = "SELECT delivery, n, at, latency_ms, status, error, answer FROM attempt WHERE delivery = ANY ($1) ORDER BY n";
    let mut attempts: HashMap<DeliveryId, Vec<Attempt>> = HashMap::new();
    for row in tx.query(sql, &[&ids]).await? {
        attempts
            .entry(DeliveryId(row.read(0)?))
            .or_default()
            .push(Attempt {
                number: rows::number(&row, 1)?,
                at: rows::time(&row, 2)?,
                latency_ms: rows::number(&row, 3)?,
                status: rows::status(&row, 4)?,
                error: row.read(5)?,
                answer: row.read::<Option<Vec<u8>>>(6)?.map(Into::into),
            });
    }
    Ok(attempts)
}
