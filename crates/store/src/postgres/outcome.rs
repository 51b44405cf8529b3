//! What attempts came to, as rows: the deliveries are locked in the order of their ids, what follows for each is decided
//! here, and all is written at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio_postgres::Row;
use turnhook_reducer::time::Timestamp;

use super::rows::Read as _;
use super::{
    Fault, Postgres, attempt,
    moves::{self, Moves},
    pipeline::{Pipeline, params, undo},
    rows, text,
};
use crate::{
    codes::{DEAD, DELIVERED, PENDING, int},
    delivery::{Next, Outcome, Recorded, Sent, kept},
    error::Result,
    ids::DeliveryId,
};

const LOCK: &str = "SELECT d.id, d.session, d.state, d.attempts, d.at, d.latency_ms, d.status, d.first_attempt_at, d.reason, \
     a.at, a.latency_ms, a.status FROM delivery d LEFT JOIN attempt a ON a.delivery = d.id AND a.n = d.attempts \
     WHERE d.id = ANY ($1) ORDER BY d.id FOR UPDATE OF d";

const UPDATE: &str = "UPDATE delivery d SET state = u.state, attempts = u.attempts, at = u.at, latency_ms = u.latency_ms, \
     status = u.status, first_attempt_at = u.first_attempt_at, reason = u.reason \
     FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::integer[], $7::bigint[], $8::text[]) \
     AS u (id, state, attempts, at, latency_ms, status, first_attempt_at, reason) WHERE d.id = u.id";

const INSERT_ATTEMPTS: &str = "INSERT INTO attempt (delivery, n, at, latency_ms, status, error, answer) \
     SELECT u.delivery, u.n, u.at, u.latency_ms, u.status, u.error, u.answer FROM \
     unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[], $6::text[], $7::bytea[]) \
     AS u (delivery, n, at, latency_ms, status, error, answer) \
     ON CONFLICT (delivery, n) DO UPDATE SET at = excluded.at, latency_ms = excluded.latency_ms, status = excluded.status, \
     error = excluded.error, answer = excluded.answer";

const PUT_SENT: &str = "INSERT INTO sent (delivery, items) SELECT u.delivery, u.items \
     FROM unnest($1::bigint[], $2::bytea[]) AS u (delivery, items) \
     ON CONFLICT (delivery) DO UPDATE SET items = excluded.items";

const FORGET_SENT: &str = "DELETE FROM sent WHERE delivery = ANY ($1)";

impl Postgres {
    pub(crate) async fn begin_sending(&self, mut rows: Vec<(DeliveryId, Bytes)>) -> Result<()> {
        // In one order, so that no two of these wait for each other.
        rows.sort_by_key(|(id, _)| *id);
        let ids: Vec<i64> = rows.iter().map(|(id, _)| id.0).collect();
        let items: Vec<&[u8]> = rows.iter().map(|(_, items)| &items[..]).collect();
        attempt!(&self.db, client for ids.len() => {
            let statement = client.prepare_cached(PUT_SENT).await?;
            client.execute(&statement, &[&ids, &items]).await?;
            Ok(())
        })
    }

    pub(crate) async fn record(&self, outcomes: Vec<Outcome>) -> Result<Recorded> {
        if outcomes.is_empty() {
            return Ok(Recorded::default());
        }
        // Those that come meanwhile are in one of the next of these, which is so much larger.
        let _turn = self.outcomes.lock().await;
        let ids: Vec<i64> = outcomes.iter().map(|o| o.delivery.0).collect();
        attempt!(&self.db, client for ids.len() => {
            let client = &*client;
            let mut first = Pipeline::default();
            first.add("BEGIN", params![]);
            let locked = first.add(LOCK, params![&ids]);
            let done = async {
                let found = first.run(client).await?;
                let mut change = Change::default();
                for row in &found[locked] {
                    let row = Kept::read(row)?;
                    change.rows.insert(row.id, row);
                }
                let ignored = outcomes.iter().filter(|o| !change.apply(o)).count();
                change.write().run(client).await?;
                Ok(Recorded { ignored })
            };
            undo(client, done.await).await
        })
    }
}

/// A delivery as it stands, or will.
struct Kept {
    id: i64,
    session: i64,
    state: i64,
    attempts: i64,
    at: i64,
    latency_ms: i64,
    status: Option<i32>,
    first_attempt_at: Option<i64>,
    reason: Option<String>,
    /// Its last attempt, if it failed: when, for how long, with which status.
    last: Option<(i64, i64, Option<i32>)>,
    changed: bool,
}

impl Kept {
    fn read(row: &Row) -> Result<Kept, Fault> {
        let last: Option<i64> = row.read(9)?;
        Ok(Kept {
            id: row.read(0)?,
            session: row.read(1)?,
            state: rows::code(row, 2)?,
            attempts: row.read(3)?,
            at: row.read(4)?,
            latency_ms: row.read(5)?,
            status: row.read(6)?,
            first_attempt_at: row.read(7)?,
            reason: row.read(8)?,
            last: match last {
                Some(at) => Some((at, row.read(10)?, row.read(11)?)),
                None => None,
            },
            changed: false,
        })
    }
}

/// An attempt that failed: a row of `attempt`.
struct Failed {
    delivery: i64,
    n: i64,
    at: i64,
    latency_ms: i64,
    status: Option<i32>,
    error: Option<String>,
    answer: Option<Vec<u8>>,
}

#[derive(Default)]
struct Change {
    rows: BTreeMap<i64, Kept>,
    attempts: Vec<Failed>,
    moves: Moves,
    put: BTreeMap<i64, Bytes>,
    forget: Vec<i64>,
}

impl Change {
    /// False if it comes too late. One that has been written down already, by a try whose answer was lost, does not.
    fn apply(&mut self, outcome: &Outcome) -> bool {
        match &outcome.sent {
            Sent::Keep => {}
            Sent::Forget => self.forget.push(outcome.delivery.0),
            Sent::Put(items) => drop(self.put.insert(outcome.delivery.0, items.clone())),
        }
        let Some(row) = self.rows.get_mut(&outcome.delivery.0) else {
            return false;
        };
        let endpoint = DeliveryId(row.id).endpoint();
        let (began, latency_ms) = (int(outcome.at.0), i64::from(outcome.latency_ms()));
        let over = int(outcome.at.plus(u64::from(outcome.latency_ms())).0);
        let status = outcome.status.map(i32::from);
        let (state, at, reason) = match outcome.next {
            Next::Done if row.state == DELIVERED => {
                return row.at == over && row.latency_ms == latency_ms;
            }
            // Also one that was given up while it was under way: the endpoint has it.
            Next::Done => {
                self.moves
                    .add(endpoint, row.session, Some(row.state), Some(DELIVERED));
                row.state = DELIVERED;
                row.attempts += 1;
                row.at = over;
                row.latency_ms = latency_ms;
                row.status = status.filter(|s| *s != 200);
                row.reason = None;
                row.changed = true;
                return true;
            }
            Next::Waits => return true,
            Next::Retry(Timestamp(next)) => (PENDING, int(next), None),
            Next::Paused => (PENDING, began, None),
            Next::Dead(reason) => (DEAD, over, Some(text(reason))),
        };
        if row.last == Some((began, latency_ms, status)) {
            return true;
        }
        if row.state != PENDING {
            return false;
        }
        self.moves.add(endpoint, row.session, Some(PENDING), Some(state));
        row.state = state;
        row.attempts += 1;
        row.at = at;
        row.first_attempt_at = row.first_attempt_at.or(Some(began));
        row.reason = reason;
        row.last = Some((began, latency_ms, status));
        row.changed = true;
        self.attempts.push(Failed {
            delivery: row.id,
            n: row.attempts,
            at: began,
            latency_ms,
            status,
            error: outcome.error.as_deref().map(text),
            answer: kept(&outcome.answer).map(<[u8]>::to_vec),
        });
        true
    }

    fn write(&mut self) -> Pipeline<'static> {
        let mut pipeline = Pipeline::default();
        let rows = std::mem::take(&mut self.rows);
        let rows: Vec<Kept> = rows.into_values().filter(|row| row.changed).collect();
        let column = |of: fn(&Kept) -> i64| rows.iter().map(of).collect::<Vec<i64>>();
        if !rows.is_empty() {
            #[allow(clippy::cast_possible_truncation)]
            let states: Vec<i16> = rows.iter().map(|row| row.state as i16).collect();
            pipeline.add(
                UPDATE,
                params![
                    column(|row| row.id),
                    states,
                    column(|row| row.attempts),
                    column(|row| row.at),
                    column(|row| row.latency_ms),
                    rows.iter().map(|row| row.status).collect::<Vec<_>>(),
                    rows.iter().map(|row| row.first_attempt_at).collect::<Vec<_>>(),
                    rows.iter().map(|row| row.reason.clone()).collect::<Vec<_>>(),
                ],
            );
        }
        let attempts = std::mem::take(&mut self.attempts);
        if !attempts.is_empty() {
            let column = |of: fn(&Failed) -> i64| attempts.iter().map(of).collect::<Vec<i64>>();
            pipeline.add(
                INSERT_ATTEMPTS,
                params![
                    column(|a| a.delivery),
                    column(|a| a.n),
                    column(|a| a.at),
                    column(|a| a.latency_ms),
                    attempts.iter().map(|a| a.status).collect::<Vec<_>>(),
                    attempts.iter().map(|a| a.error.clone()).collect::<Vec<_>>(),
                    attempts.iter().map(|a| a.answer.clone()).collect::<Vec<_>>(),
                ],
            );
        }
        let put = std::mem::take(&mut self.put);
        if !put.is_empty() {
            let items: Vec<Vec<u8>> = put.values().map(|items| items.to_vec()).collect();
            pipeline.add(PUT_SENT, params![put.into_keys().collect::<Vec<_>>(), items]);
        }
        let forget = std::mem::take(&mut self.forget);
        if !forget.is_empty() {
            pipeline.add(FORGET_SENT, params![forget]);
        }
        let (endpoints, lanes, pending, dead) = self.moves.columns();
        if !endpoints.is_empty() {
            pipeline.add(moves::ADD, params![endpoints, lanes, pending, dead]);
        }
        pipeline.add("COMMIT", params![]);
        pipeline
    }
}
