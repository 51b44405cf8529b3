//! Reading a whole store, for a copy of it in another database.

use std::{fs::File, sync::Arc};

use rusqlite::{Connection, types::ValueRef};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Sqlite, connection, error_from, files, ledger, nat, state};
use crate::{
    Mode,
    copy::tables::{Part, TABLES, Table},
    error::{Error, Result},
};

/// A part holds about this much.
const PART: usize = 256 << 10;

/// A reading under way. Nobody can begin to run on the store before it is dropped.
pub(crate) struct Reading {
    task: JoinHandle<Result<()>>,
    _lock: Option<File>,
}

impl Reading {
    /// Waits for its end.
    pub(crate) async fn finish(self) -> Result<()> {
        // It is never aborted; it fails only if it panicked.
        self.task.await.unwrap_or(Err(Error::Closed))
    }
}

/// Reads all of it as it is at one moment.
pub(crate) async fn start(store: &Arc<Sqlite>, parts: mpsc::Sender<Part>) -> Result<Reading> {
    let lock = match store.mode {
        Mode::Run => None,
        Mode::Shared => {
            let path = store.path().to_path_buf();
            let locking = tokio::task::spawn_blocking(move || files::lock_to_run(&path));
            Some(locking.await.unwrap_or(Err(Error::Closed))?)
        }
    };
    store.catch_up().await?;
    let store = Arc::clone(store);
    let task = tokio::task::spawn_blocking(move || {
        let conn = connection::reader(store.path())?;
        match read(&conn, store.store_id(), &parts) {
            Ok(()) => Ok(()),
            Err(Stop::Gone) => Err(Error::Closed),
            Err(Stop::Sql(e)) => Err(error_from(store.path(), &e)),
        }
    });
    Ok(Reading { task, _lock: lock })
}

enum Stop {
    /// Nobody wants it any more.
    Gone,
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(e: rusqlite::Error) -> Stop {
        Stop::Sql(e)
    }
}

fn read(conn: &Connection, store_id: [u8; 16], parts: &mpsc::Sender<Part>) -> Result<(), Stop> {
    let tx = conn.unchecked_transaction()?;
    let send = |part| parts.blocking_send(part).map_err(|_| Stop::Gone);
    let mut total: i64 = 0;
    for table in TABLES {
        let sql = format!("SELECT count(*) FROM {}", table.name);
        total += tx.query_row(&sql, [], |r| r.get::<_, i64>(0))?;
    }
    let last: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM event", [], |r| r.get(0))?;
    send(Part::Begin {
        total: nat(total),
        store_id,
        last_event: last.max(ledger::done(&tx)?),
        horizon: tx.query_row("SELECT horizon FROM store", [], |r| r.get(0))?,
        told_change: tx.query_row("SELECT told_change FROM store", [], |r| r.get(0))?,
    })?;
    for table in TABLES {
        let mut rows = Rows {
            table,
            parts,
            rows: 0,
            text: Vec::new(),
        };
        match table.order {
            Some(order) => {
                let sql = format!("SELECT {} FROM {} ORDER BY {order}", table.select(), table.name);
                let mut stmt = tx.prepare(&sql)?;
                let width = stmt.column_count();
                let mut found = stmt.query([])?;
                while let Some(row) = found.next()? {
                    for column in 0..width {
                        rows.value(row.get_ref(column)?);
                    }
                    rows.end_row()?;
                }
            }
            None => {
                let mut stmt = tx.prepare("SELECT id FROM source ORDER BY id")?;
                let sources = stmt
                    .query_map([], |r| r.get(0))?
                    .collect::<rusqlite::Result<Vec<u32>>>()?;
                for source in sources {
                    let mut gone = false;
                    state::read(&tx, source, |tbl, key, value| {
                        if gone {
                            return;
                        }
                        for number in [source.into(), tbl.into(), key.cast_signed()] {
                            rows.value(ValueRef::Integer(number));
                        }
                        rows.value(ValueRef::Blob(value));
                        gone = rows.end_row().is_err();
                    })?;
                    if gone {
                        return Err(Stop::Gone);
                    }
                }
            }
        }
        rows.send()?;
    }
    send(Part::End)
}

/// Rows of a table in the text format of PostgreSQL's `COPY`.
struct Rows<'a> {
    table: &'static Table,
    parts: &'a mpsc::Sender<Part>,
    rows: u64,
    text: Vec<u8>,
}

impl Rows<'_> {
    fn value(&mut self, value: ValueRef<'_>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let to = &mut self.text;
        match value {
            ValueRef::Null => to.extend_from_slice(b"\\N"),
            ValueRef::Integer(n) => to.extend_from_slice(n.to_string().as_bytes()),
            ValueRef::Real(n) => to.extend_from_slice(n.to_string().as_bytes()),
            ValueRef::Text(text) => {
                for byte in text {
                    match byte {
                        // PostgreSQL knows none in a text.
                        0 => to.extend_from_slice("\u{fffd}".as_bytes()),
                        b'\\' => to.extend_from_slice(b"\\\\"),
                        b'\t' => to.extend_from_slice(b"\\t"),
                        b'\n' => to.extend_from_slice(b"\\n"),
                        b'\r' => to.extend_from_slice(b"\\r"),
                        byte => to.push(*byte),
                    }
                }
            }
            ValueRef::Blob(bytes) => {
                to.extend_from_slice(b"\\\\x");
                for byte in bytes {
                    to.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
            }
        }
        to.push(b'\t');
    }

    fn end_row(&mut self) -> Result<(), Stop> {
        if let Some(last) = self.text.last_mut() {
            *last = b'\n';
        }
        self.rows += 1;
        if self.text.len() >= PART {
            self.send()
        } else {
            Ok(())
        }
    }

    fn send(&mut self) -> Result<(), Stop> {
        if self.rows == 0 {
            return Ok(());
        }
        let part = Part::Rows {
            table: self.table,
            rows: std::mem::take(&mut self.rows),
            text: std::mem::take(&mut self.text).into(),
        };
        self.parts.blocking_send(part).map_err(|_| Stop::Gone)
    }
}
