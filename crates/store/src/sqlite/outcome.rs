//! What attempts came to, as rows: a plain success changes a few bytes of its delivery and adds nothing.

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::{Fault, Sqlite, int, mem::Mem, rows, writer::Job};
use crate::{
    delivery::{Next, Outcome, Recorded, Sent, kept},
    error::Result,
    ids::DeliveryId,
};

impl Sqlite {
    pub(crate) async fn record(&self, outcomes: Vec<Outcome>) -> Result<Recorded> {
        if outcomes.is_empty() {
            return Ok(Recorded::default());
        }
        self.writer
            .ask(|reply| {
                Box::new(RecordJob {
                    outcomes,
                    done: Recorded::default(),
                    reply,
                })
            })
            .await
    }
}

const PUT_SENT: &str = "INSERT OR REPLACE INTO sent (delivery, items) VALUES (?1, ?2)";

impl Sqlite {
    pub(crate) async fn begin_sending(&self, rows: Vec<(DeliveryId, Bytes)>) -> Result<()> {
        self.write(move |conn, _| {
            let mut stmt = conn.prepare_cached(PUT_SENT)?;
            for (id, items) in &rows {
                stmt.execute(params![id.0, &items[..]])?;
            }
            Ok(())
        })
        .await
    }
}

fn sent(conn: &Connection, outcome: &Outcome) -> rusqlite::Result<()> {
    match &outcome.sent {
        Sent::Keep => {}
        Sent::Forget => {
            conn.prepare_cached("DELETE FROM sent WHERE delivery = ?1")?
                .execute([outcome.delivery.0])?;
        }
        Sent::Put(items) => {
            conn.prepare_cached(PUT_SENT)?
                .execute(params![outcome.delivery.0, &items[..]])?;
        }
    }
    Ok(())
}

struct RecordJob {
    outcomes: Vec<Outcome>,
    done: Recorded,
    reply: oneshot::Sender<Result<Recorded>>,
}

impl Job for RecordJob {
    fn run(&mut self, conn: &Connection, mem: &mut Mem) -> Result<(), Fault> {
        self.done = Recorded::default();
        // What is usual, looked up once for all of them.
        let mut deliver = conn.prepare_cached(DELIVERED)?;
        for outcome in &self.outcomes {
            let known = match outcome.next {
                Next::Done => delivered(conn, &mut deliver, mem, outcome)?,
                Next::Retry(next) => failed(conn, mem, outcome, rows::PENDING, int(next.0), None)?,
                Next::Paused => failed(conn, mem, outcome, rows::PENDING, int(outcome.at.0), None)?,
                Next::Waits => true,
                Next::Dead(reason) => {
                    let at = int(outcome.at.plus(u64::from(outcome.latency_ms())).0);
                    failed(conn, mem, outcome, rows::DEAD, at, Some(reason))?
                }
            };
            sent(conn, outcome)?;
            self.done.ignored += usize::from(!known);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &mut Mem, result: Result<()>) {
        let Self { done, reply, .. } = *self;
        let _ = reply.send(result.map(|()| done));
    }

    fn patience(&self) -> usize {
        self.outcomes.len()
    }

    fn weight(&self) -> usize {
        self.outcomes.len()
    }
}

const DELIVERED: &str = "UPDATE delivery SET state = 1, attempts = attempts + 1, at = ?2, latency_ms = ?3, status = ?4 \
     WHERE id = ?1 AND state = 0";

fn delivered(
    conn: &Connection,
    deliver: &mut CachedStatement<'_>,
    mem: &mut Mem,
    outcome: &Outcome,
) -> rusqlite::Result<bool> {
    let at = outcome.at.plus(u64::from(outcome.latency_ms()));
    let status = outcome.status.filter(|s| *s != 200);
    let values = params![outcome.delivery.0, int(at.0), outcome.latency_ms(), status];
    if deliver.execute(values)? == 1 {
        mem.moves
            .add(outcome.delivery, Some(rows::PENDING), Some(rows::DELIVERED));
        return Ok(true);
    }
    // Discarded while it was under way; but the endpoint has it.
    let late = conn
        .prepare_cached("SELECT state FROM delivery WHERE id = ?1 AND state IN (2, 3)")?
        .query_row([outcome.delivery.0], |r| r.get::<_, i64>(0))
        .optional()?;
    if let Some(state) = late {
        conn.prepare_cached(
            "UPDATE delivery SET state = 1, attempts = attempts + 1, at = ?2, latency_ms = ?3, status = ?4, reason = NULL WHERE id = ?1",
        )?
        .execute(values)?;
        mem.moves
            .add(outcome.delivery, Some(state), Some(rows::DELIVERED));
    }
    Ok(late.is_some())
}

fn failed(
    conn: &Connection,
    mem: &mut Mem,
    outcome: &Outcome,
    state: i64,
    at: i64,
    reason: Option<&str>,
) -> rusqlite::Result<bool> {
    let attempts: Option<u32> = conn
        .prepare_cached(
            "UPDATE delivery SET state = ?2, attempts = attempts + 1, at = ?3, first_attempt_at = coalesce(first_attempt_at, ?4), \
             reason = ?5 WHERE id = ?1 AND state = 0 RETURNING attempts",
        )?
        .query_row(params![outcome.delivery.0, state, at, int(outcome.at.0), reason], |r| r.get(0))
        .optional()?;
    let Some(n) = attempts else { return Ok(false) };
    mem.moves.add(outcome.delivery, Some(rows::PENDING), Some(state));
    conn.prepare_cached(
        "INSERT OR REPLACE INTO attempt (delivery, n, at, latency_ms, status, error, answer) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        outcome.delivery.0,
        n,
        int(outcome.at.0),
        outcome.latency_ms(),
        outcome.status,
        outcome.error,
        kept(&outcome.answer),
    ])?;
    Ok(true)
}
