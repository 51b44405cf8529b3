//! Moving a store from SQLite to PostgreSQL: as it is, with all ids and bytes, in one transaction.

use tokio::sync::mpsc;

use crate::{
    Backend, Error, Result, Store,
    sqlite::{self, export},
};

pub(crate) mod tables;

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being copied.
    pub table: &'static str,
    /// Rows that the database has taken.
    pub done: u64,
    /// All rows there are.
    pub total: u64,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Sources, with their state.
    pub sources: u64,
    /// Endpoints, with their pauses.
    pub endpoints: u64,
    /// Events.
    pub events: u64,
    /// Deliveries of these, in whatever state.
    pub deliveries: u64,
    /// Sessions in the ledger.
    pub sessions: u64,
    /// Rows of any kind.
    pub rows: u64,
}

/// Parts on their way: this and what a part holds bound the memory.
const PARTS: usize = 4;

/// Copies a store that nobody runs on from SQLite into PostgreSQL, where there must be an empty one: all of it, with
/// the same ids and bytes, pending deliveries pending. It is one transaction: if it fails, or is interrupted, nothing
/// is there, and it can be begun again. `progress` is called after each part. The copy has the id of the original,
/// which [`Store::store_id`] of `to` returns when it is opened again; the original is left as it is, and a file beside
/// it keeps it from being run on ([`Error::Copied`]).
///
/// # Errors
/// [`Error::InUse`] where a turnhook runs on the original, [`Error::NotEmpty`], [`Error::AlreadyCopied`],
/// [`Error::Copied`] where it went to another place already,
/// [`Error::Unsupported`] for any other kinds of stores, or what the disk or the database say.
pub async fn copy(from: &Store, to: &Store, mut progress: impl FnMut(Progress)) -> Result<Copied> {
    let (Backend::Sqlite(file), Backend::Postgres(database)) = (from.backend(), to.backend()) else {
        return Err(Error::Unsupported {
            store: from.describe(),
            advice: format!(
                "a copy goes from a SQLite file to PostgreSQL, not to {}",
                to.describe()
            ),
        });
    };
    let (parts, queue) = mpsc::channel(PARTS);
    let reading = export::start(file, parts).await?;
    // Before it can be there: whatever happens to this process, nobody runs on both.
    let (path, place) = (file.path(), to.describe());
    let was_marked = sqlite::refuse_copied(path, Some(&place))?;
    sqlite::mark_copied(path, &place)?;
    let written = database.import(queue, &mut progress).await;
    let copied = match reading.finish().await {
        // The other side has gone first, and knows why.
        Err(Error::Closed) | Ok(()) => written,
        Err(error) => Err(error),
    };
    // Where the database went away, it may have committed.
    match &copied {
        Ok(_) | Err(Error::AlreadyCopied { .. } | Error::Unavailable { .. }) => {}
        Err(_) if was_marked => {}
        Err(_) => sqlite::unmark_copied(path)?,
    }
    copied
}
