//! How much is kept, and from when on: whether it grows without end, and whether retention does its work.

use std::{fs, io, path::Path};

use turnhook_reducer::time::Timestamp;

use crate::{Backend, Error, Ledger, Result, query::values};

impl Ledger {
    /// When the oldest session that is kept began; `None` while there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn oldest(&self) -> Result<Option<Timestamp>> {
        // An id begins with its time, and its index is there.
        let oldest = "SELECT started_at FROM session ORDER BY id LIMIT 1";
        let found: Vec<(Timestamp,)> = self.0.ask(oldest, values![]).await?;
        Ok(found.first().map(|(at,)| *at))
    }

    /// The bytes that it takes on disk: of SQLite's file and its log, or of the whole database.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn bytes(&self) -> Result<u64> {
        match &self.0 {
            Backend::Sqlite(db) => {
                let path = db.path().to_owned();
                tokio::task::spawn_blocking(move || of_files(&path))
                    .await
                    .map_err(|_| Error::Closed)
            }
            Backend::Postgres(_) => {
                let size = "SELECT pg_database_size(current_database())";
                let found: Vec<(u64,)> = self.0.ask(size, values![]).await?;
                Ok(found.first().map_or(0, |(bytes,)| *bytes))
            }
        }
    }
}

/// A log that is not there takes nothing.
fn of_files(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let len = |found: io::Result<fs::Metadata>| found.map_or(0, |found| found.len());
    len(fs::metadata(path)).saturating_add(len(fs::metadata(log)))
}
