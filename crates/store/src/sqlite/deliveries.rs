//! What people do with deliveries: replayed, discarded.

use rusqlite::{Connection, OptionalExtension, params};
use turnhook_reducer::time::Timestamp;

use super::{Fault, Sqlite, int, mem::Mem, rows};
use crate::{
    delivery::{Replay, ReplayId, ReplayRequest},
    error::Result,
    ids::DeliveryId,
    query::Pace,
};

/// Deliveries that one transaction changes.
const STEP: usize = 1000;

impl Sqlite {
    pub(crate) async fn replay(&self, request: ReplayRequest, ids: Vec<i64>) -> Result<Replay> {
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

    pub(crate) async fn discard(&self, ids: Vec<i64>, at: Timestamp) -> Result<u64> {
        let mut total = 0;
        for ids in ids.chunks(STEP) {
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
