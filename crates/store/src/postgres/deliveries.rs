//! What people do with deliveries: replayed, discarded.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use turnhook_reducer::time::Timestamp;

use super::rows::{Read as _, one};
use super::{Postgres, admin, connection::Fault, connection::attempt, moves::Moves, rows, text};
use crate::{
    codes::{self, int, nat},
    delivery::{Replay, ReplayId, ReplayRequest},
    error::Result,
    ids::DeliveryId,
    query::Pace,
};

/// Deliveries that one transaction changes.
const STEP: usize = 1000;

impl Postgres {
    pub(crate) async fn replay(&self, request: ReplayRequest, ids: Vec<i64>) -> Result<Replay> {
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

    pub(crate) async fn discard(&self, ids: Vec<i64>, at: Timestamp) -> Result<u64> {
        let mut total = 0;
        for ids in ids.chunks(STEP) {
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
