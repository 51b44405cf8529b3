//! Internal to turnhook: this Rust API is no promise, and changes with any version.
//!
//! Durable state: what the reducers know, the outbox and its attempts, the session ledger, gaps.
//!
//! ```text
//! engine ── commit ──▶ state + events + deliveries, one transaction ──▶ deliveries, to hand on from memory
//! dispatcher ── record ──▶ what attempts came to          dispatcher ◀── pending_after, newest_due ── at start, after overflow
//! people ── deliveries, session(s), usage_by_day, replay, discard, pause, backup: with turnhook running or not
//! ```
//!
//! # What is promised
//!
//! * **Durable.** Whatever returns `Ok` is on the disk and survives `kill -9` and a power cut.
//! * **All or nothing.** A [`Commit`] is written as a whole or not at all; an `Err` means that nothing was
//!   (but for [`Error::Unavailable`]: an answer may be lost on the way). [`Error::is_transient`] says whether the same request may succeed later (a full disk, say).
//! * **Harmless to repeat.** A commit may be repeated as it was: events that are there are not written again.
//! * **Order.** Ids rise with every commit, and within one in the order of its events: of two deliveries of a session
//!   to an endpoint, the one with the lower id comes first. Delivered, dead and discarded ones no longer count.
//! * **Group commit** (SQLite). One thread writes. It takes all that was asked for while the last transaction was being
//!   synced and does it in one; many callers at once cost no more than one. Who comes to an idle store waits for nothing
//!   but the disk; transactions in a row begin 3 to 12 ms apart, and the outcomes of [`Outbox::record`] ride on the next
//!   commit or wait 20 ms for others: both for the sake of what is written to the disk.
//!
//! ```
//! use turnhook_reducer::time::Timestamp;
//! use turnhook_store::{Commit, Mode, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let store = Store::open(folder.path().join("turnhook.db"), Mode::Run).await?;
//! store.outbox().set_endpoints(&["billing"], Timestamp(1_000)).await?;
//! let source = store.state().source("eu-1").await?;
//! // With the events that a source decided, and the state that it changed.
//! let committed = store.state().commit(Commit::new(source, Timestamp(2_000))).await?;
//! assert!(committed.deliveries.is_empty(), "there was no event");
//!
//! store.admin().pause("billing", Timestamp(3_000), "new disks").await?;
//! let endpoints = store.outbox().endpoints().await?;
//! assert_eq!(endpoints[0].paused().map(|pause| &*pause.reason), Some("new disks"));
//! store.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Who may open it
//!
//! One process runs on a file ([`Mode::Run`]); any number look in ([`Mode::Shared`]): reads, and small writes
//! such as replays and pauses. The running one finds out by [`Outbox::changed_by_others`].
//! On SQLite that lock is also the claim to every delivery: no other process delivers, so that nothing has to
//! be written to claim one. The dispatcher itself remembers which ones it has in hand.
//!
//! # More than one machine
//!
//! On PostgreSQL ([`Store::connect`]) any number of processes run on one store. What each of them may do is settled by
//! leases ([`Cluster`]): a source is led, and the deliveries of a lane are made, by one node at a time. A [`Commit`]
//! names the epoch of its source's lease, and is refused with [`Error::LeaseLost`] once another node has taken it. An
//! `Err` that [is transient](Error::is_transient) may hide a commit that went through: it is repeated as it is, all the
//! same. The functions say nothing of the database: the same contract holds on both.

mod admin;
mod apart;
mod assign;
mod backend;
mod block;
mod cluster;
mod codec;
mod codes;
mod commit;
mod copy;
mod delivery;
mod details;
mod endpoint;
mod error;
mod facts;
mod heal;
mod horizon;
mod ids;
mod included;
mod ledger;
mod options;
mod outbox;
mod postgres;
mod query;
mod quota;
mod reads;
mod record;
mod session;
mod size;
mod sqlite;
mod state;
mod summed;
mod trim;
mod upkeep;
mod usage;
mod user_events;

use std::{path::Path, sync::Arc};

pub use assign::assign;
use backend::{Backend, on};
pub use block::{BlockChange, BlockRow, Whom};
pub use cluster::{Epoch, Lanes, LeaseName, LeaseRow, NodeId, NodeRow, View};
pub use codes::QUARTER_MS;
pub use commit::{Commit, Committed, NewEvent};
pub use copy::{Copied, Progress, copy};
pub use delivery::{
    Attempt, Delivery, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryState, Next,
    Outcome, Recorded, Replay, ReplayId, ReplayRequest, Sent,
};
pub use endpoint::{Backlog, Endpoint, Pause};
pub use error::{Error, Result};
pub use heal::HealRow;
pub use ids::{DeliveryId, EndpointId, SourceId};
pub use included::{Include, Included};
pub use options::{Mode, Options, Trimmed};
use postgres::Postgres;
pub use postgres::{Cluster, Migrated, PostgresOptions};
pub use reads::{EmittedEvent, NumberedGap, RecordFilter, RefusedRow, UnattributedRow};
pub use session::{GapRow, SessionDetail, SessionEventRow, SessionFilter, SessionRow, UsageDay};
use sqlite::Sqlite;
pub use summed::{Summed, SummedBy, Unit};
pub use usage::{AuditEntry, Sums, UsageFilter, UsageQuarter};
pub use user_events::{Earlier, NewUserEvent, PendingChange, PendingChanges, UserEventBatch};

/// A store. Clones are the same store. When the last is dropped, what was asked for is still done, and the
/// file is given free; [`Store::close`] waits for that.
///
/// What can be asked of it has four handles, which are clones of the store, too: whoever needs one of them is given
/// that one, and cannot ask for the rest.
#[derive(Clone)]
pub struct Store {
    state: State,
    outbox: Outbox,
    ledger: Ledger,
    admin: Admin,
}

/// What sources know: read at the start and at a takeover, and committed.
#[derive(Clone)]
pub struct State(Backend);

/// What endpoints still have to get, and what attempts came to.
#[derive(Clone)]
pub struct Outbox(Backend);

/// What is on record: sessions, usage, deliveries, gaps. It changes nothing.
#[derive(Clone)]
pub struct Ledger(Backend);

/// What people ask for: pauses, replays, blocks, with who did it; and the upkeep.
#[derive(Clone)]
pub struct Admin(Backend);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.describe()).finish()
    }
}

impl Store {
    fn of(backend: Backend) -> Store {
        Store {
            state: State(backend.clone()),
            outbox: Outbox(backend.clone()),
            ledger: Ledger(backend.clone()),
            admin: Admin(backend),
        }
    }

    /// What sources know.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What endpoints still have to get.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// What is on record.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What people ask for.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.state.0
    }

    /// The schema of files that this version reads and writes.
    pub const SCHEMA: u32 = sqlite::SCHEMA;
    /// That of PostgreSQL databases.
    pub const POSTGRES_SCHEMA: u32 = postgres::SCHEMA;

    /// Opens a store in a file.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NotFound`], [`Error::Newer`], [`Error::Older`], [`Error::NotAStore`], or what the
    /// system says.
    pub async fn open(path: impl AsRef<Path>, mode: Mode) -> Result<Store> {
        Store::open_with(path, mode, Options::default()).await
    }

    /// Opens a store in a file, with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(path: impl AsRef<Path>, mode: Mode, options: Options) -> Result<Store> {
        let path = path.as_ref().to_path_buf();
        let opened = tokio::task::spawn_blocking(move || Sqlite::open(&path, mode, &options));
        opened
            .await
            .unwrap_or(Err(Error::Closed))
            .map(|s| Store::of(Backend::Sqlite(Arc::new(s))))
    }

    /// Connects to a store in PostgreSQL. [`Mode::Run`] makes or migrates the schema if there is need, and if the role
    /// may; any number of processes may run on it.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::Refused`], [`Error::Unmigrated`], [`Error::Newer`], or [`Error::Unavailable`]
    /// (transient: try again).
    pub async fn connect(options: PostgresOptions, mode: Mode) -> Result<Store> {
        Postgres::connect(&options, mode)
            .await
            .map(|db| Store::of(Backend::Postgres(Arc::new(db))))
    }

    /// Makes the schema in PostgreSQL, or brings it up to date, with a role that may.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn migrate(options: &PostgresOptions) -> Result<Migrated> {
        Postgres::migrate(options).await
    }

    /// The nodes that share the store; `None` on SQLite, where there is but one.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match self.backend() {
            Backend::Sqlite(_) => None,
            Backend::Postgres(db) => Some(db.cluster()),
        }
    }

    /// Resolves when a thread of the store's own has panicked, and how: it is of no more use then. Those of a store in a
    /// file; a database's connections are made anew.
    pub async fn panicked(&self) -> String {
        match self.backend() {
            Backend::Sqlite(db) => db.panicked().await,
            Backend::Postgres(_) => std::future::pending().await,
        }
    }

    /// Waits until all that was asked for is done, and gives the file free. Later requests fail with
    /// [`Error::Closed`].
    pub async fn close(&self) {
        on!(self.state, db => db.close().await);
    }

    /// The file, absolute; or host and database, without user and password.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.backend() {
            Backend::Sqlite(db) => db.path().display().to_string(),
            Backend::Postgres(db) => db.describe(),
        }
    }

    /// The file, absolute; `None` on PostgreSQL.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self.backend() {
            Backend::Sqlite(db) => Some(db.path()),
            Backend::Postgres(_) => None,
        }
    }

    /// Whether a turnhook runs on this store, this process or another.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn is_run_on(&self) -> Result<bool> {
        match self.backend() {
            Backend::Sqlite(db) => sqlite::is_run_on(db.path()),
            Backend::Postgres(db) => Ok(db.cluster().view().await?.nodes.iter().any(|node| node.live)),
        }
    }

    /// The version of a PostgreSQL, and its clock in milliseconds since the epoch; `None` on SQLite.
    ///
    /// # Errors
    /// The database's.
    pub async fn server(&self) -> Result<Option<(String, u64)>> {
        match self.backend() {
            Backend::Sqlite(_) => Ok(None),
            Backend::Postgres(db) => db.about().await.map(Some),
        }
    }

    /// Random, made with the store: what ids are derived from. A backup has the same.
    #[must_use]
    pub fn store_id(&self) -> [u8; 16] {
        on!(self.state, db => db.store_id())
    }
}
