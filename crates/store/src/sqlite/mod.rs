//! The store on SQLite: one file, one process that runs on it, any number that look in.
//!
//! All writes go through one thread (`writer`) that commits whatever has been asked for since its last
//! commit in one transaction. Reads have connections of their own and never wait for it.

mod admin;
mod backup;
mod blocks;
mod commit;
mod connection;
mod counts;
mod deliveries;
mod dialect;
pub(crate) mod export;
mod fault;
mod files;
mod fold;
mod helper;
mod included;
mod ledger;
mod mem;
mod most;
mod outbox;
mod outcome;
#[cfg(test)]
mod plans;
mod reads;
mod retention;
mod rows;
mod state;
mod threads;
mod user_events;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Instant,
};

use rusqlite::Connection;

use crate::{
    Mode, Options,
    codes::{int, nat},
    error::{Error, Result},
    horizon::Horizon,
};
pub(crate) use connection::{SCHEMA, error_from};
use counts::Counts;
pub(crate) use dialect::DIALECT;
pub(crate) use fault::Fault;
pub(crate) use files::{is_run_on, mark_copied, refuse_copied, unmark_copied};
use mem::Mem;
use writer::{Handle, Job};

/// Reading connections that are kept for the next reader.
const IDLE_READERS: usize = 4;

/// A store in a file.
pub(crate) struct Sqlite {
    path: PathBuf,
    mode: Mode,
    store_id: [u8; 16],
    writer: Handle,
    readers: Mutex<Vec<Connection>>,
    counts: Arc<Counts>,
    state_size: state::Size,
    refused: AtomicU64,
    horizon: Horizon,
}

impl Sqlite {
    /// Opens, and makes or migrates as the mode allows. Blocks.
    pub(crate) fn open(path: &Path, mode: Mode, options: &Options) -> Result<Sqlite> {
        let opened = connection::open(path, mode, options)?;
        let counts = Arc::new(Counts::default());
        let store_id = opened.store_id;
        let horizon = Horizon::new(opened.horizon.map(nat));
        let path = opened.path.clone();
        let state_size = state::Size::default();
        let writer = writer::start(
            opened,
            mode,
            Arc::clone(&counts),
            Arc::clone(&state_size),
            options,
        )?;
        Ok(Sqlite {
            path,
            mode,
            store_id,
            writer,
            readers: Mutex::default(),
            counts,
            state_size,
            refused: AtomicU64::new(0),
            horizon,
        })
    }

    pub(crate) fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Parts of commits that were put on record in place of being committed.
    pub(crate) fn refused(&self) -> &AtomicU64 {
        &self.refused
    }

    pub(crate) fn horizon(&self) -> &Horizon {
        &self.horizon
    }

    /// Writes it down; what is written.
    pub(crate) async fn keep_horizon(&self, at: u64, _back: bool) -> Result<u64> {
        self.write(move |conn, _| {
            conn.execute("UPDATE store SET horizon = ?1", [int(at)])?;
            Ok(at)
        })
        .await
    }

    pub(crate) fn next_commit_at(&self) -> Instant {
        self.writer.next_commit_at()
    }

    /// Resolves when one of its threads has panicked.
    pub(crate) async fn panicked(&self) -> String {
        self.writer.panicked().await
    }

    /// Waits until all that was asked for is done, and gives the file free.
    pub(crate) async fn close(&self) {
        self.writer.close().await;
    }

    /// Reads, on a thread that may block.
    async fn read<T, F>(self: &Arc<Self>, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let idle = this.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = match idle {
                Some(conn) => conn,
                None => connection::reader(&this.path)?,
            };
            let result = f(&conn).map_err(|e| error_from(&this.path, &e));
            let mut readers = this.readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < IDLE_READERS {
                readers.push(conn);
            }
            result
        });
        // The task is never aborted; it fails only if `f` panicked.
        done.await.unwrap_or(Err(Error::Closed))
    }

    /// Writes in the next transaction. `f` may run twice: if the transaction fails as a whole, each request
    /// is tried alone.
    async fn write<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection, &mut Mem) -> Result<T, Fault> + Send + 'static,
    {
        self.writer
            .ask(|reply| Box::new(writer::Closure::new(f, reply)) as Box<dyn Job>)
            .await
    }
}
