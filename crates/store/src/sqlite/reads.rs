//! What is asked of both databases in the same words, the ledger that is brought up to date for it, and state as a whole.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use rusqlite::params_from_iter;
use turnhook_reducer::{state::Table, time::Timestamp};

use super::{Sqlite, connection, int, ledger, nat, retention, rows, state};
use crate::{
    Trimmed, details,
    error::Result,
    ids::SourceId,
    query::{Query, Value},
    record::Record,
    session,
};

/// Events in a batch that somebody waits for.
const BATCH: usize = 65_536;

impl Sqlite {
    /// The rows that answer a query.
    pub(crate) async fn list<T: Record + Send + 'static>(self: &Arc<Self>, query: Query) -> Result<Vec<T>> {
        self.read(move |conn| rows::all(conn, &query)).await
    }

    /// Of rows that are a user and a number: the users with the largest sums.
    pub(crate) async fn with_most(self: &Arc<Self>, query: Query, most: usize) -> Result<Vec<Vec<u8>>> {
        self.read(move |conn| rows::with_most(conn, &query, most)).await
    }

    /// What a session is shown by, at one moment.
    pub(crate) async fn session(
        self: &Arc<Self>,
        [row, events, deliveries, gaps]: [Query; 4],
    ) -> Result<session::Shown> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            let (row, events) = (rows::all(&tx, &row)?, rows::all(&tx, &events)?);
            Ok((row, events, rows::all(&tx, &deliveries)?, rows::all(&tx, &gaps)?))
        })
        .await
    }

    /// What an event's deliveries are shown by, at one moment.
    pub(crate) async fn delivery(
        self: &Arc<Self>,
        [deliveries, attempts]: [Query; 2],
    ) -> Result<details::Found> {
        self.read(move |conn| {
            let tx = conn.unchecked_transaction()?;
            Ok((rows::all(&tx, &deliveries)?, rows::all(&tx, &attempts)?))
        })
        .await
    }

    /// Does a statement once for each of these values: how many rows it changed.
    pub(crate) async fn execute(&self, sql: String, values: Vec<Vec<Value>>) -> Result<u64> {
        self.write(move |conn, _| {
            let mut stmt = conn.prepare_cached(&sql)?;
            let mut changed = 0;
            for values in &values {
                changed += stmt.execute(params_from_iter(values))? as u64;
            }
            Ok(changed)
        })
        .await
    }

    /// What is not in the ledger cannot go. Where little happens, a batch of events takes months to fill: those that are older
    /// than this are brought in before.
    pub(crate) async fn bring_in_old(self: &Arc<Self>, before: Timestamp) -> Result<()> {
        let old = self
            .read(move |conn| {
                connection::exists(
                    conn,
                    "SELECT 1 FROM event WHERE id = (SELECT min(id) FROM event WHERE id > (SELECT ledger_event FROM store)) \
                     AND at < ?1",
                    [int(before.0)],
                )
            })
            .await?;
        if old { self.catch_up().await } else { Ok(()) }
    }

    /// Brings the ledger up to date with all events that are committed now.
    pub(crate) async fn catch_up(self: &Arc<Self>) -> Result<()> {
        let target = self
            .read(|conn| {
                conn.query_row("SELECT coalesce(max(id), 0) FROM event", [], |r| {
                    r.get::<_, i64>(0)
                })
            })
            .await?;
        loop {
            let done = self.read(ledger::done).await?;
            if done >= target {
                return Ok(());
            }
            let Some(fold) = self.read(|conn| ledger::Fold::begin(conn, BATCH)).await? else {
                return Ok(());
            };
            let fold = Arc::new(Mutex::new(fold));
            loop {
                let step = Arc::clone(&fold);
                self.write(move |conn, _| {
                    Ok(step.lock().unwrap_or_else(PoisonError::into_inner).step(conn)?)
                })
                .await?;
                if fold
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .advance()
                    .is_some()
                {
                    break;
                }
            }
        }
    }

    /// Gives every row of a source's state to `each`, in no order, and its last committed time.
    pub(crate) async fn load<T, F>(
        self: &Arc<Self>,
        source: SourceId,
        mut to: T,
        mut each: F,
    ) -> Result<(T, Option<Timestamp>)>
    where
        T: Send + 'static,
        F: FnMut(&mut T, Table, u64, &[u8]) + Send + 'static,
    {
        let size = Arc::clone(&self.state_size);
        self.read(move |conn| {
            // One snapshot: the log must be that of the table.
            let tx = conn.unchecked_transaction()?;
            let (clock, bytes) =
                state::read(&tx, source.0, |table, key, value| match Table::from_u8(table) {
                    Some(table) => each(&mut to, table, key, value),
                    None => tracing::warn!(
                        table,
                        "rows of a state table that this version does not know are left alone"
                    ),
                })?;
            size.fetch_max(bytes, Ordering::Relaxed);
            Ok((to, clock.map(|ms| Timestamp(nat(ms)))))
        })
        .await
    }

    pub(crate) async fn trim(&self, before: Timestamp, limit: usize) -> Result<Trimmed> {
        self.write(move |conn, mem| retention::step(conn, &mut mem.trim, &mut mem.moves, before, limit))
            .await
    }
}
