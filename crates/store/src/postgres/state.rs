//! The reducers' state: rows that are written as they change, and read as a whole.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use turnhook_reducer::{state::Table, time::Timestamp};

use super::rows::{Read as _, id32};
use super::{Fault, Postgres, rows};
use crate::{error::Result, ids::SourceId};

/// Rows that are given before others may have their turn.
const ROWS: usize = 256;
/// All of it may take long; only a stand-still is a failure.
const STILL: Duration = Duration::from_secs(60);

impl Postgres {
    /// Gives every row of a source's state to `each`, in no order, and its last committed time.
    pub(crate) async fn load<T, F>(&self, source: SourceId, to: T, each: F) -> Result<(T, Option<Timestamp>)>
    where
        T: Send + 'static,
        F: FnMut(&mut T, Table, u64, &[u8]) + Send + 'static,
    {
        // What has been given cannot be taken back: only the connection is tried for again.
        let mut tries = self.db.tries();
        let mut conn = loop {
            if let Some(conn) = tries.over(self.db.conn().await).await {
                break conn?;
            }
        };
        let result = self.read_state(&mut conn, source, to, each).await;
        conn.finish(result).map_err(|fault| fault.at(self.db.describe()))
    }

    async fn read_state<T, F>(
        &self,
        conn: &mut super::connection::Conn,
        source: SourceId,
        mut to: T,
        mut each: F,
    ) -> Result<(T, Option<Timestamp>), Fault>
    where
        T: Send + 'static,
        F: FnMut(&mut T, Table, u64, &[u8]) + Send + 'static,
    {
        let id = id32(source.0)?;
        let client = conn.client()?;
        // One snapshot: the time must be that of the rows.
        let (tx, clock) = self
            .db
            .limited(async {
                let tx = client
                    .build_transaction()
                    .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
                    .read_only(true)
                    .start()
                    .await?;
                tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
                let clock = tx
                    .query_opt("SELECT clock FROM source WHERE id = $1", &[&id])
                    .await?;
                Ok((tx, clock))
            })
            .await?;
        let clock = match clock {
            Some(row) => rows::maybe_time(&row, 0)?,
            None => None,
        };
        let sql = "SELECT tbl, key, value FROM state WHERE source = $1";
        let found = self
            .db
            .limited(async { Ok(tx.query_raw(sql, [&id]).await?) })
            .await?;
        // Past its end it would fail.
        let mut found = pin!(found.fuse());
        // A timer for some rows, not for each.
        while let Some(some) = self
            .db
            .limited_to(STILL, async {
                let mut some = Vec::with_capacity(ROWS);
                while some.len() < ROWS {
                    match found.try_next().await? {
                        Some(row) => some.push(row),
                        None => break,
                    }
                }
                Ok((!some.is_empty()).then_some(some))
            })
            .await?
        {
            for row in some {
                let (table, key): (i16, i64) = (row.read(0)?, row.read(1)?);
                match u8::try_from(table).ok().and_then(Table::from_u8) {
                    Some(table) => each(&mut to, table, key.cast_unsigned(), row.read(2)?),
                    None => tracing::warn!(
                        table,
                        "rows of a state table that this version does not know are left alone"
                    ),
                }
            }
        }
        self.db.limited(async { Ok(tx.commit().await?) }).await?;
        Ok((to, clock))
    }
}
