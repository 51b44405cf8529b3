//! The reducers' state. Rows change often and here and there; to write a page for each would cost many times
//! what changed. So a commit appends its changes to a log, which is folded into the table in the order of
//! its keys once it has grown as large as the table: then every page takes many changes at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, params};
use turnhook_reducer::{state::Change, time::Timestamp};

use super::{int, nat, rows};
use crate::{
    codec::{self, Reader, Writer},
    ids::SourceId,
};

/// A row of the log holds about this much.
const LOG_ROW: usize = 256 << 10;
/// A log larger than this would make the start slow, and folding it would take much memory.
const LOG_MAX: u64 = 24 << 20;
/// Keys that one step of folding writes.
const STEP: usize = 500;

/// Where the log ends.
#[derive(Clone, Copy, Default)]
pub(super) struct LogEnd {
    /// The number of the next row.
    pub(super) next: i64,
    /// Bytes of the changes in it.
    pub(super) bytes: u64,
}

/// A row of the log.
pub(super) struct Packed {
    bytes: u64,
    changes: Vec<u8>,
}

impl Packed {
    fn new(plain: &[u8]) -> Packed {
        Packed {
            bytes: plain.len() as u64,
            changes: codec::pack(plain),
        }
    }
}

/// The changes as rows of the log, packed: at least one row, which then carries the time alone.
pub(super) fn pack_changes(changes: &[Change]) -> Vec<Packed> {
    let mut packed = Vec::new();
    let mut w = Writer(Vec::new());
    for change in changes {
        w.u8(change.table as u8);
        w.varint(change.key);
        match &change.value {
            None => w.varint(0),
            Some(value) => {
                w.varint(value.len() as u64 + 1);
                w.raw(value);
            }
        }
        if w.0.len() >= LOG_ROW {
            packed.push(Packed::new(&w.0));
            w.0.clear();
        }
    }
    if !w.0.is_empty() || packed.is_empty() {
        packed.push(Packed::new(&w.0));
    }
    packed
}

/// Gives each change of a row of the log; `None` if it is damaged.
fn unpack_changes(packed: &[u8], mut each: impl FnMut(u8, u64, Option<&[u8]>)) -> Option<()> {
    let plain = codec::unpack(packed)?;
    let mut r = Reader(&plain);
    while !r.is_empty() {
        let (table, key) = (r.u8()?, r.varint()?);
        let value = match r.varint()? {
            0 => None,
            len => Some(r.raw(usize::try_from(len - 1).ok()?)?),
        };
        each(table, key, value);
    }
    Some(())
}

/// Appends to the log.
pub(super) fn log(
    conn: &Connection,
    log: &mut LogEnd,
    source: SourceId,
    clock: Timestamp,
    changes: &[Packed],
) -> rusqlite::Result<()> {
    if changes.is_empty() {
        // That all is well up to then is worth knowing, though nothing has changed.
        conn.prepare_cached("UPDATE source SET clock = max(coalesce(clock, 0), ?2) WHERE id = ?1")?
            .execute(params![source.0, int(clock.0)])?;
        return Ok(());
    }
    let mut stmt = conn.prepare_cached(
        "INSERT INTO state_log (seq, source, clock, bytes, changes) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in changes {
        stmt.execute(params![
            log.next,
            source.0,
            int(clock.0),
            int(row.bytes),
            row.changes
        ])?;
        log.next += 1;
        log.bytes += row.bytes;
    }
    Ok(())
}

/// How large the table is about, in bytes; shared with the reader that loads it.
pub(super) type Size = Arc<AtomicU64>;

/// Whether a log of that size should be folded.
pub(super) fn fold_wanted(log_bytes: u64, at_least: u64, size: &Size) -> bool {
    log_bytes > size.load(Ordering::Relaxed).min(LOG_MAX).max(at_least)
}

type Key = (u32, u8, i64);

/// A part of the log on its way into the table. Until it is in, the log's rows stay, and win.
pub(super) struct Fold {
    upto: i64,
    bytes: u64,
    clocks: BTreeMap<u32, i64>,
    changes: Vec<(Key, Option<Vec<u8>>)>,
    done: usize,
}

impl Fold {
    /// Reads the log's oldest part; `None` if there is nothing.
    pub(super) fn begin(conn: &Connection) -> rusqlite::Result<Option<Fold>> {
        let mut latest: BTreeMap<Key, Option<Vec<u8>>> = BTreeMap::new();
        let mut fold = Fold {
            upto: 0,
            bytes: 0,
            clocks: BTreeMap::new(),
            changes: Vec::new(),
            done: 0,
        };
        let mut stmt =
            conn.prepare_cached("SELECT seq, source, clock, changes, bytes FROM state_log ORDER BY seq")?;
        let mut found = stmt.query([])?;
        while let Some(row) = found.next()? {
            let source: u32 = row.get(1)?;
            let packed = row.get_ref(3)?.as_blob()?;
            unpack_changes(packed, |table, key, value| {
                latest.insert((source, table, key.cast_signed()), value.map(<[u8]>::to_vec));
            })
            .ok_or_else(|| rows::damaged("state_log"))?;
            fold.upto = row.get(0)?;
            fold.clocks.insert(source, row.get(2)?);
            fold.bytes += nat(row.get(4)?);
            if fold.bytes > LOG_MAX {
                break;
            }
        }
        fold.changes = latest.into_iter().collect();
        Ok((fold.upto > 0).then_some(fold))
    }

    /// Writes some of it.
    pub(super) fn step(&self, conn: &Connection, size: &Size) -> rusqlite::Result<()> {
        let mut put = conn.prepare_cached(
            "INSERT OR REPLACE INTO state (source, tbl, key, value) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut remove =
            conn.prepare_cached("DELETE FROM state WHERE source = ?1 AND tbl = ?2 AND key = ?3")?;
        let mut grown = 0;
        for ((source, table, key), value) in self.changes.iter().skip(self.done).take(STEP) {
            match value {
                Some(value) => {
                    put.execute(params![source, table, key, value])?;
                    grown += value.len() as u64;
                }
                None => {
                    remove.execute(params![source, table, key])?;
                }
            }
        }
        if self.last_step() {
            for (source, clock) in &self.clocks {
                conn.execute(
                    "UPDATE source SET clock = max(coalesce(clock, 0), ?2) WHERE id = ?1",
                    params![source, clock],
                )?;
            }
            conn.execute("DELETE FROM state_log WHERE seq <= ?1", [self.upto])?;
        }
        // Rows replaced count twice: it only has to be about right, and is measured at each start.
        size.fetch_add(grown / 4, Ordering::Relaxed);
        Ok(())
    }

    fn last_step(&self) -> bool {
        self.done + STEP >= self.changes.len()
    }

    /// The step is on the disk; the bytes that left the log if it was the last.
    pub(super) fn advance(&mut self) -> Option<u64> {
        let last = self.last_step();
        self.done += STEP;
        last.then_some(self.bytes)
    }
}

/// Gives every row of a source's state to `each`, in no order; its last committed time, and about how large the table is.
pub(super) fn read(
    tx: &Connection,
    source: u32,
    mut each: impl FnMut(u8, u64, &[u8]),
) -> rusqlite::Result<(Option<i64>, u64)> {
    let mut clock: Option<i64> =
        tx.query_row("SELECT clock FROM source WHERE id = ?1", [source], |r| r.get(0))?;
    let mut latest: HashMap<(u8, u64), Option<Vec<u8>>> = HashMap::new();
    let mut stmt = tx.prepare("SELECT clock, changes FROM state_log WHERE source = ?1 ORDER BY seq")?;
    let mut found = stmt.query([source])?;
    while let Some(row) = found.next()? {
        clock = clock.max(Some(row.get(0)?));
        unpack_changes(row.get_ref(1)?.as_blob()?, |table, key, value| {
            latest.insert((table, key), value.map(<[u8]>::to_vec));
        })
        .ok_or_else(|| rows::damaged("state_log"))?;
    }
    let mut stmt = tx.prepare("SELECT tbl, key, value FROM state WHERE source = ?1")?;
    let mut found = stmt.query([source])?;
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        let (table, key): (u8, i64) = (row.get(0)?, row.get(1)?);
        let value = row.get_ref(2)?.as_blob()?;
        bytes += value.len() as u64;
        if !latest.contains_key(&(table, key.cast_unsigned())) {
            each(table, key.cast_unsigned(), value);
        }
    }
    for ((table, key), value) in latest {
        if let Some(value) = value {
            each(table, key, &value);
        }
    }
    Ok((clock, bytes))
}
