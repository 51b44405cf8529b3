//! What the writing thread knows besides the file.

use std::{collections::HashMap, sync::Arc};

use rusqlite::Connection;
use turnhook_reducer::event::EventId;

use super::{
    connection,
    counts::{Counts, Moves},
    ledger, nat, retention, state,
};
use crate::{Options, error::Error};

/// What the thread knows besides the file. Everything here can be undone with the transaction, or does not depend on it.
pub(super) struct Mem {
    /// The number of the next event.
    pub(super) next_event: i64,
    /// The end of `state_log`.
    pub(super) log: state::LogEnd,
    /// Events that are not in `event_key` yet, by id: a repeated commit finds them here or there.
    pub(super) recent: HashMap<EventId, i64>,
    /// The largest id in `event_key`.
    pub(super) newest_key: EventId,
    pub(super) counts: Arc<Counts>,
    pub(super) moves: Moves,
    pub(super) folding: Folding,
    pub(super) trim: retention::Trim,
    pub(super) data_version: i64,
    staged: Vec<EventId>,
    before: (i64, state::LogEnd),
}

impl Mem {
    pub(super) fn load(conn: &Connection, counts: Arc<Counts>, folding: Folding) -> rusqlite::Result<Mem> {
        counts.read(conn)?;
        let done: i64 = conn.query_row("SELECT ledger_event FROM store", [], |r| r.get(0))?;
        let last: i64 = conn.query_row("SELECT coalesce(max(id), 0) FROM event", [], |r| r.get(0))?;
        let mut recent = HashMap::new();
        let mut stmt = conn.prepare("SELECT event_id, id FROM event WHERE id > ?1")?;
        let mut rows = stmt.query([done])?;
        while let Some(row) = rows.next()? {
            recent.insert(EventId(row.get(0)?), row.get(1)?);
        }
        drop(rows);
        drop(stmt);
        let (next_log, log_bytes): (i64, i64) = conn.query_row(
            "SELECT coalesce(max(seq), 0) + 1, coalesce(sum(bytes), 0) FROM state_log",
            [],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )?;
        let newest: Option<[u8; 16]> =
            conn.query_row("SELECT max(event_id) FROM event_key", [], |r| r.get(0))?;
        let mut data_version = 0;
        connection::changed_by_others(conn, &mut data_version)?;
        Ok(Mem {
            next_event: last.max(done) + 1,
            log: state::LogEnd {
                next: next_log,
                bytes: nat(log_bytes),
            },
            recent,
            newest_key: EventId(newest.unwrap_or_default()),
            counts,
            moves: Moves::default(),
            folding,
            trim: retention::Trim::default(),
            data_version,
            staged: Vec::new(),
            before: (0, state::LogEnd::default()),
        })
    }

    /// A number for a new event, and the promise to undo it with the transaction.
    pub(super) fn new_event(&mut self, id: EventId) -> i64 {
        let n = self.next_event;
        self.next_event += 1;
        self.recent.insert(id, n);
        self.staged.push(id);
        n
    }

    /// Events up to this one are in `event_key`.
    pub(super) fn forget_recent(&mut self, upto: i64) {
        let newest = &mut self.newest_key;
        self.recent.retain(|id, n| {
            if *n <= upto {
                *newest = (*newest).max(*id);
            }
            *n > upto
        });
    }

    pub(super) fn begin(&mut self) {
        self.before = (self.next_event, self.log);
        self.staged.clear();
        self.moves.clear();
    }

    pub(super) fn undo(&mut self) {
        (self.next_event, self.log) = self.before;
        for id in self.staged.drain(..) {
            self.recent.remove(&id);
        }
        self.moves.clear();
    }
}

/// What is being folded.
pub(super) struct Folding {
    pub(super) ledger: Option<ledger::Fold>,
    pub(super) state: Option<state::Fold>,
    /// The helper is reading the next one.
    pub(super) asked: bool,
    /// What is taken into account when the step is on the disk.
    pub(super) stepped: Option<Step>,
    pub(super) state_size: state::Size,
    pub(super) ledger_batch: usize,
    pub(super) state_log_bytes: u64,
    /// Why the last step failed.
    pub(super) failed: Option<Error>,
}

pub(super) enum Step {
    Ledger,
    State,
}

impl Folding {
    pub(super) fn new(state_size: state::Size, options: &Options) -> Folding {
        Folding {
            ledger: None,
            state: None,
            asked: false,
            stepped: None,
            state_size,
            ledger_batch: options.ledger_batch.max(1),
            state_log_bytes: options.state_log_bytes,
            failed: None,
        }
    }
}
