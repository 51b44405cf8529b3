//! State: what sources know. How it is committed is in `apart.rs`.

use std::time::Instant;

use turnhook_reducer::{state::Table, time::Timestamp};

use crate::{Backend, Result, SourceId, State, on};

impl State {
    /// A source's number, by its name; made at the first call.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn source(&self, name: &str) -> Result<SourceId> {
        on!(self, db => db.source(name).await)
    }

    /// How many allocations and sessions of a source are open in its committed state. Reads all of that.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn open_in(&self, source: SourceId) -> Result<(u64, u64)> {
        let count = |(allocations, sessions): &mut (u64, u64), table, _, _: &[u8]| match table {
            Table::Allocation => *allocations += 1,
            Table::Session => *sessions += 1,
            Table::Tombstone | Table::Source | Table::Leftover => {}
        };
        Ok(self.load(source, (0, 0), count).await?.0)
    }

    /// Gives every row of a source's committed state to `each`, in no order, then `to` and the last committed
    /// time (`None` for a source that never committed). A million rows take one to two seconds.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn load<T, F>(&self, source: SourceId, to: T, each: F) -> Result<(T, Option<Timestamp>)>
    where
        T: Send + 'static,
        F: FnMut(&mut T, Table, u64, &[u8]) + Send + 'static,
    {
        on!(self, db => db.load(source, to, each).await)
    }

    /// When a commit would be begun: one that is handed over before only waits, and what happens meanwhile
    /// must wait for the next.
    #[must_use]
    pub fn next_commit_at(&self) -> Option<Instant> {
        match &self.0 {
            Backend::Sqlite(db) => Some(db.next_commit_at()),
            Backend::Postgres(_) => None,
        }
    }
}
