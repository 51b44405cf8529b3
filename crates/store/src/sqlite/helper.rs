//! A second thread, for what would keep the writer from writing: copying the WAL into the file, and reading
//! what is to be folded.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;

use super::{
    connection, ledger, state,
    threads::{self, Threads},
};

/// The thread's.
const NAME: &str = "store-helper";

/// Bytes in the WAL after which they are copied into the file. Between two copies a page that was written often is
/// copied once.
const WAL_BYTES: i32 = 16 << 20;

/// What it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Copy,
    Ledger { events: usize },
    State,
}

/// What was read for folding.
pub(super) enum Found {
    /// Up to which event the ledger is complete, and the next batch if there is one.
    Ledger(i64, Option<ledger::Fold>),
    /// The log's oldest part, if there is one.
    State(Option<state::Fold>),
}

#[derive(Default)]
struct Results {
    /// It has copied nearly everything; the rest must be copied while nobody writes, for the WAL to start anew.
    copied: AtomicBool,
    found: Mutex<Option<rusqlite::Result<Found>>>,
}

/// The way to the thread.
pub(super) struct Helper {
    asks: SyncSender<Ask>,
    results: Arc<Results>,
    thread: JoinHandle<()>,
}

impl Helper {
    /// Starts it, to be woken whenever the WAL of `conn` has grown.
    pub(super) fn start(threads: &Threads, path: &Path, conn: &mut Connection) -> rusqlite::Result<Helper> {
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        let (asks, queue) = mpsc::sync_channel::<Ask>(2);
        let results = Arc::new(Results::default());
        let own = connection::helper(path)?;
        let thread = {
            let results = Arc::clone(&results);
            let serve = move || {
                for ask in queue {
                    serve(&own, ask, &results);
                }
            };
            threads
                .start(NAME, serve)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?
        };
        let page_size: i32 = conn.pragma_query_value(None, "page_size", |r| r.get(0))?;
        let enough = WAL_BYTES / page_size.max(1);
        let wake = asks.clone();
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames: i32| {
            if frames >= enough {
                // Full: it is at work already.
                let _ = wake.try_send(Ask::Copy);
            }
            Ok(())
        }))?;
        Ok(Helper {
            asks,
            results,
            thread,
        })
    }

    /// False if it has enough to do.
    pub(super) fn ask(&self, ask: Ask) -> bool {
        !matches!(self.asks.try_send(ask), Err(TrySendError::Full(_)))
    }

    /// What was read since it was asked.
    pub(super) fn found(&self) -> Option<rusqlite::Result<Found>> {
        self.results
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Called between transactions: copies what was written while the thread copied, so that the WAL can start anew.
    pub(super) fn end_copying(&self, conn: &Connection) {
        if self.results.copied.swap(false, Ordering::AcqRel) {
            copy(conn);
        }
    }

    /// Waits until it has ended.
    pub(super) fn stop(self, conn: &mut Connection) {
        drop(self.asks);
        let _ = conn.wal_hook(None::<fn(&mut rusqlite::hooks::Wal, i32) -> rusqlite::Result<()>>);
        let _ = self.thread.join();
    }
}

fn serve(conn: &Connection, ask: Ask, results: &Results) {
    threads::fault(NAME);
    let found = match ask {
        Ask::Copy => {
            results.copied.store(copy(conn), Ordering::Release);
            return;
        }
        Ask::Ledger { events } => {
            ledger::done(conn).and_then(|done| Ok(Found::Ledger(done, ledger::Fold::begin(conn, events)?)))
        }
        Ask::State => state::Fold::begin(conn).map(Found::State),
    };
    *results.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
}

fn copy(conn: &Connection) -> bool {
    match conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "the write-ahead log could not be copied into the store's file; trying again");
            false
        }
    }
}
