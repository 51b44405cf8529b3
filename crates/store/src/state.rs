//! State: what sources know. See also [`crate::Store::commit`].

use std::collections::BTreeMap;

use turnhook_reducer::{state::Table, time::Timestamp};

#[cfg(doc)]
use crate::Error;
use crate::{Backend, Result, SourceId, Store, on};

impl Store {
    /// A source's number, by its name; made at the first call.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn source(&self, name: &str) -> Result<SourceId> {
        on!(self, db => db.source(name).await)
    }

    /// All sources that ever were configured, by name.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sources(&self) -> Result<BTreeMap<String, SourceId>> {
        on!(self, db => db.sources().await)
    }

    /// Gives a source another name, while nobody runs on the store. Its state is its number's, and so are its gaps and what
    /// was told: open sessions go on under the new name, with the ids that they have.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Running`], [`Error::UnknownSource`], [`Error::SourceExists`], or the disk's.
    pub async fn rename_source(&self, from: &str, to: &str) -> Result<()> {
        on!(self, db => db.rename_source(from, to).await)
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
}
