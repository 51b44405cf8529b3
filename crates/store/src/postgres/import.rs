//! Taking over a whole store from another database.

use std::pin::pin;

use deadpool_postgres::{Client, Transaction};
use futures_util::SinkExt;
use tokio::sync::mpsc;
use tokio_postgres::CopyInSink;

use super::rows::{Read as _, one};
use super::{Fault, Postgres};
use crate::{
    cluster::{Lanes, LeaseName},
    copy::{
        Copied, Progress,
        tables::{Part, Table},
    },
    error::{Error, Result},
    ids::SourceId,
};

impl Postgres {
    /// Takes all parts, in one transaction; the store must be empty.
    pub(crate) async fn import(
        &self,
        parts: mpsc::Receiver<Part>,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Copied> {
        let result = match self.db.conn().await {
            Ok(mut conn) => {
                let result = match conn.client() {
                    Ok(client) => import(client, self.db.describe(), parts, progress).await,
                    Err(fault) => Err(fault),
                };
                conn.finish(result)
            }
            Err(fault) => Err(fault),
        };
        result.map_err(|fault| fault.at(self.db.describe()))
    }
}

async fn import(
    client: &mut Client,
    store: &str,
    mut parts: mpsc::Receiver<Part>,
    progress: &mut impl FnMut(Progress),
) -> Result<Copied, Fault> {
    let Some(Part::Begin {
        mut total,
        store_id,
        last_event,
        horizon,
        told_change,
    }) = parts.recv().await
    else {
        return Err(cut_short());
    };
    let tx = client.transaction().await?;
    tx.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        .await?;
    empty(&tx, store, &store_id).await?;
    let mut copied = Copied::default();
    let mut next = parts.recv().await;
    while let Some(Part::Rows { table, .. }) = &next {
        let table: &Table = table;
        let sql = format!("COPY {} ({}) FROM STDIN", table.name, table.columns());
        let sink: CopyInSink<bytes::Bytes> = tx.copy_in(&sql).await?;
        let mut sink = pin!(sink);
        let mut sent = 0;
        // A whole table is one COPY: each ends with all that it deferred.
        while let Some(Part::Rows { table: of, rows, .. }) = &next
            && of.name == table.name
        {
            sent += rows;
            let Some(Part::Rows { text, .. }) = next else {
                break;
            };
            sink.send(text).await?;
            total = total.max(copied.rows + sent);
            progress(Progress {
                table: table.name,
                done: copied.rows + sent,
                total,
            });
            next = parts.recv().await;
        }
        let taken = sink.finish().await?;
        if taken != sent {
            return Err(Fault::Lost(format!(
                "{taken} of {sent} rows of {} were taken",
                table.name
            )));
        }
        copied.rows += taken;
        match table.name {
            "source" => copied.sources = taken,
            "endpoint" => copied.endpoints = taken,
            "event" => copied.events = taken,
            "delivery" => copied.deliveries = taken,
            "session" => copied.sessions = taken,
            _ => {}
        }
    }
    // Where the reading side failed, there is no end.
    let Some(Part::End) = next else {
        return Err(cut_short());
    };
    tx.execute(
        "UPDATE store SET horizon = $1, told_change = $2 WHERE id = 1",
        &[&horizon, &told_change],
    )
    .await?;
    complete(&tx, &store_id, last_event).await?;
    tx.commit().await?;
    analyze(client).await;
    Ok(copied)
}

fn cut_short() -> Fault {
    Fault::Lost("what was to be copied ended early".into())
}

/// Sees to it that there is nothing, and that nothing comes before the transaction has ended: whoever makes a source, an
/// endpoint or an event needs one of these rows.
async fn empty(tx: &Transaction<'_>, store: &str, store_id: &[u8; 16]) -> Result<(), Fault> {
    let found: Vec<u8> = one(tx, "SELECT store_id FROM store WHERE id = 1", &[])
        .await?
        .read(0)?;
    if found == store_id {
        return Err(Error::AlreadyCopied { store: store.into() }.into());
    }
    let counters = tx
        .query("SELECT name, value FROM counter ORDER BY name FOR UPDATE", &[])
        .await?;
    let mut free = true;
    for row in &counters {
        let (name, value): (&str, i64) = (row.read(0)?, row.read(1)?);
        free &= name == "change" || value == 0;
    }
    let replayed: bool = one(tx, "SELECT EXISTS (SELECT 1 FROM replay)", &[])
        .await?
        .read(0)?;
    if !free || replayed {
        return Err(Error::NotEmpty { store: store.into() }.into());
    }
    Ok(())
}

/// What follows from the rows.
async fn complete(tx: &Transaction<'_>, store_id: &[u8; 16], last_event: i64) -> Result<(), Fault> {
    tx.execute("UPDATE store SET store_id = $1 WHERE id = 1", &[&&store_id[..]])
        .await?;
    tx.execute(
        "UPDATE counter SET value = $1 WHERE name = 'event'",
        &[&last_event],
    )
    .await?;
    for sql in [
        "UPDATE counter SET value = (SELECT coalesce(max(id), 0) FROM source) WHERE name = 'source'",
        "UPDATE counter SET value = (SELECT coalesce(max(id), 0) FROM endpoint) WHERE name = 'endpoint'",
        "UPDATE counter SET value = (SELECT coalesce(max(id), 0) FROM block_change) WHERE name = 'block'",
        "UPDATE counter SET value = value + 1 WHERE name = 'change'",
        "SELECT setval(pg_get_serial_sequence('replay', 'id'), max(id)) FROM replay HAVING max(id) IS NOT NULL",
    ] {
        tx.execute(sql, &[]).await?;
    }
    tx.execute(
        "INSERT INTO backlog (endpoint, lane, pending, dead) \
         SELECT endpoint, (session & $1)::integer, count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 2) \
         FROM delivery WHERE state IN (0, 2) GROUP BY 1, 2",
        &[&i64::from(Lanes::COUNT - 1)],
    )
    .await?;
    let mut names = Vec::new();
    for row in tx.query("SELECT id FROM source", &[]).await? {
        let id: i32 = row.read(0)?;
        names.push(
            LeaseName::Source(SourceId(u32::try_from(id).map_err(|_| Fault::damaged("source"))?)).to_string(),
        );
    }
    tx.execute(
        "INSERT INTO lease (name, holder, epoch, expires_at) SELECT l.name, NULL, 0, 0 FROM unnest($1::text[]) AS l (name) \
         ON CONFLICT (name) DO NOTHING",
        &[&names],
    )
    .await?;
    Ok(())
}

/// Has the database see what it holds now, so that it plans well from the start. It finds out by itself, too.
async fn analyze(client: &mut Client) {
    let done = async {
        let tx = client.transaction().await?;
        tx.batch_execute(
            "SET LOCAL statement_timeout = 0; ANALYZE event, delivery, attempt, session, state, usage_day, usage_quarter, usage_all",
        )
        .await?;
        tx.commit().await
    };
    if let Err(error) = done.await {
        tracing::debug!(%error, "the database has not analyzed its tables");
    }
}
