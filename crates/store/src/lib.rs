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
//!   (but for [`Error::Unavailable`]: an answer may be lost on the way). [`Error::is_transient`] tells whether the same request may succeed later (a full disk, say).
//! * **Harmless to repeat.** A commit may be repeated as it was: events that are there are not written again.
//! * **Order.** Ids rise with every commit, and within one in the order of its events: of two deliveries of a session
//!   to an endpoint, the one with the lower id comes first. Delivered, dead and discarded ones no longer count.
//! * **Group commit** (SQLite). One thread writes. It takes all that was asked for while the last transaction was being
//!   synced and does it in one; many callers at once cost no more than one. Who comes to an idle store waits for nothing
//!   but the disk; transactions in a row begin 3 to 12 ms apart, and the outcomes of [`Store::record`] ride on the next
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
//! store.set_endpoints(&["billing"], Timestamp(1_000)).await?;
//! let source = store.source("eu-1").await?;
//! // With the events that a source decided, and the state that it changed.
//! let committed = store.commit(Commit::new(source, Timestamp(2_000))).await?;
//! assert!(committed.deliveries.is_empty(), "there was no event");
//!
//! store.pause("billing", Timestamp(3_000), "new disks").await?;
//! let endpoints = store.endpoints().await?;
//! assert_eq!(endpoints[0].paused().map(|pause| &*pause.reason), Some("new disks"));
//! store.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Who may open it
//!
//! One process runs on a file ([`Mode::Run`]); any number look in ([`Mode::Shared`]): reads, and small writes
//! such as replays and pauses. The running one finds out by [`Store::changed_by_others`].
//! On SQLite that lock is also the claim to every delivery: no other process delivers, so that nothing has to
//! be written to claim one. The dispatcher itself remembers which ones it has in hand.
//!
//! # More than one machine
//!
//! On PostgreSQL ([`Store::connect`]) any number of processes run on one store. What each of them may do is settled by
//! leases ([`Cluster`]): a source is led, and the deliveries of a lane are made, by one node at a time. A [`Commit`] names
//! the epoch of its source's lease, and is refused with [`Error::LeaseLost`] once another node has taken it. An `Err`
//! that [is transient](Error::is_transient) may hide a commit that went through: it is repeated as it is, all the same.
//! The functions say nothing of the database: the same contract holds on both.

mod apart;
mod assign;
mod block;
mod cluster;
mod codec;
mod codes;
mod commit;
mod copy;
mod delivery;
mod endpoint;
mod error;
mod facts;
mod horizon;
mod ids;
mod included;
mod options;
mod postgres;
mod query;
mod reads;
mod session;
mod sqlite;
mod upkeep;
mod usage;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use turnhook_reducer::{
    event::{EventId, SessionId},
    state::Table,
    time::Timestamp,
};

pub use assign::assign;
pub use block::{BlockChange, BlockRow};
pub use cluster::{Epoch, Lanes, LeaseName, LeaseRow, NodeId, NodeRow, View};
pub use commit::{Commit, Committed, NewEvent};
pub use copy::{Copied, Progress, copy};
pub use delivery::{
    Attempt, Delivery, DeliveryCursor, DeliveryDetail, DeliveryFilter, DeliveryRow, DeliveryState, Next,
    Outcome, Recorded, Replay, ReplayId, ReplayRequest, Sent,
};
pub use endpoint::{Backlog, Endpoint, Pause};
pub use error::{Error, Result};
pub use ids::{DeliveryId, EndpointId, SourceId};
pub use included::{Included, Part};
pub use options::{Mode, Options, Trimmed};
use postgres::Postgres;
pub use postgres::{Cluster, Migrated, PostgresOptions};
pub use reads::{NumberedGap, RecordFilter, RefusedRow, ToldEvent, UnattributedRow};
pub use session::{GapRow, SessionDetail, SessionEventRow, SessionFilter, SessionRow, UsageDay};
use sqlite::Sqlite;
pub use usage::{AuditEntry, QUARTER_MS, Sums, UsageFilter, UsageQuarter};

/// A store. Clones are the same store. When the last is dropped, what was asked for is still done, and the
/// file is given free; [`Store::close`] waits for that.
#[derive(Clone)]
pub struct Store(Backend);

#[derive(Clone)]
enum Backend {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

/// The same request, whatever stands behind.
macro_rules! on {
    ($store:expr, $db:ident => $request:expr) => {
        match &$store.0 {
            Backend::Sqlite($db) => $request,
            Backend::Postgres($db) => $request,
        }
    };
}
pub(crate) use on;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.describe()).finish()
    }
}

impl Store {
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
            .map(|s| Store(Backend::Sqlite(Arc::new(s))))
    }

    /// Connects to a store in PostgreSQL. [`Mode::Run`] makes or migrates the schema if there is need, and if the role may;
    /// any number of processes may run on it.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::Refused`], [`Error::Unmigrated`], [`Error::Newer`], or [`Error::Unavailable`]
    /// (transient: try again).
    pub async fn connect(options: PostgresOptions, mode: Mode) -> Result<Store> {
        Postgres::connect(&options, mode)
            .await
            .map(|db| Store(Backend::Postgres(Arc::new(db))))
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
        match &self.0 {
            Backend::Sqlite(_) => None,
            Backend::Postgres(db) => Some(db.cluster()),
        }
    }

    /// Which lanes this process makes the deliveries of: [`Store::pending_after`], [`Store::newest_due`],
    /// [`Store::pending_rows`], [`Store::still_pending`] and [`Store::pending_since`] see no others. All of them
    /// until this is called, and always on SQLite.
    pub fn set_lanes(&self, lanes: Lanes) {
        if let Backend::Postgres(db) = &self.0 {
            db.set_lanes(lanes);
        }
    }

    /// When a commit would be begun: one that is handed over before only waits in line, and what happens meanwhile
    /// must wait for the next.
    #[must_use]
    pub fn next_turn(&self) -> Option<Instant> {
        match &self.0 {
            Backend::Sqlite(db) => Some(db.next_turn()),
            Backend::Postgres(_) => None,
        }
    }

    /// Waits until all that was asked for is done, and gives the file free. Later requests fail with
    /// [`Error::Closed`].
    pub async fn close(&self) {
        on!(self, db => db.close().await);
    }

    /// The file, absolute; or host and database, without user and password.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.0 {
            Backend::Sqlite(db) => db.path().display().to_string(),
            Backend::Postgres(db) => db.describe(),
        }
    }

    /// The file, absolute; `None` on PostgreSQL.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Backend::Sqlite(db) => Some(db.path()),
            Backend::Postgres(_) => None,
        }
    }

    /// Whether a turnhook runs on this store, this process or another.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn is_run_on(&self) -> Result<bool> {
        match &self.0 {
            Backend::Sqlite(db) => sqlite::is_run_on(db.path()),
            Backend::Postgres(db) => Ok(db.cluster().view().await?.nodes.iter().any(|node| node.live)),
        }
    }

    /// Random, made with the store: what ids are derived from. A backup has the same.
    #[must_use]
    pub fn store_id(&self) -> [u8; 16] {
        on!(self, db => db.store_id())
    }

    // --- what a source knows -------------------------------------------------------------------------

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

    // --- the outbox -----------------------------------------------------------------------------------

    /// Writes down what attempts came to. Answers when it is on the disk, which may take 20 ms longer than a
    /// commit: do not wait for it before the next attempt of another session.
    ///
    /// # Errors
    /// The disk's; then nothing of it was written, and it may be repeated as it is.
    pub async fn record(&self, outcomes: Vec<Outcome>) -> Result<Recorded> {
        on!(self, db => db.record(outcomes).await)
    }

    /// Writes down what is about to be sent to a billing product: from now on it may have been counted. Answers when it is
    /// on the disk.
    ///
    /// # Errors
    /// The disk's; then nothing of it may be sent.
    pub async fn begin_sending(&self, rows: Vec<(DeliveryId, bytes::Bytes)>) -> Result<()> {
        on!(self, db => db.begin_sending(rows).await)
    }

    /// Pending deliveries of an endpoint with ids above `after`, lowest first, those that wait for a retry
    /// included, and those whose outcome [`Store::record`] has not answered yet.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn pending_after(
        &self,
        endpoint: EndpointId,
        after: DeliveryId,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        on!(self, db => db.pending_after(endpoint, after, limit.max(1)).await)
    }

    /// Pending deliveries of all endpoints with ids above `after`, lowest first: what other nodes committed.
    /// Whoever has seen a delivery of one commit has been given those of all earlier ones.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn pending_since(&self, after: DeliveryId, limit: usize) -> Result<Vec<Delivery>> {
        on!(self, db => db.pending_since(after, limit.max(1)).await)
    }

    /// Above all deliveries of commits that are on the disk, below those of later ones.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn newest_delivery(&self) -> Result<DeliveryId> {
        on!(self, db => db.newest_delivery().await)
    }

    /// Pending deliveries of an endpoint that are due by `now`, highest id first, and only those before which
    /// nothing of their session is pending. Looks among the
    /// newest 100,000 events only, and at 16 pending ones for each that is wanted (4096 at least).
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn newest_due(
        &self,
        endpoint: EndpointId,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        on!(self, db => db.newest_due(endpoint, now, limit.max(1)).await)
    }

    /// Those of these deliveries that are pending, in the same order.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn pending_rows(&self, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>> {
        on!(self, db => db.pending_rows(ids).await)
    }

    /// Which of these deliveries are pending, in the same order.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn still_pending(&self, ids: Vec<DeliveryId>) -> Result<Vec<DeliveryId>> {
        on!(self, db => db.still_pending(ids).await)
    }

    /// What each endpoint still has to get; those that never had anything are missing. Cheap: nothing is counted,
    /// whatever is pending (in [`Mode::Shared`], the pending ones are).
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn backlog(&self) -> Result<BTreeMap<EndpointId, Backlog>> {
        on!(self, db => db.backlog().await)
    }

    /// Whether another process wrote since this was asked last (a replay, a pause …): then read endpoints and
    /// outbox again. Cheap enough for every second.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn changed_by_others(&self) -> Result<bool> {
        on!(self, db => db.changed_by_others().await)
    }

    // --- endpoints ------------------------------------------------------------------------------------

    /// Says which endpoints are configured, and gives their numbers in the same order. One that is missing is
    /// marked as removed and keeps its deliveries; one that comes back goes on where it was.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn set_endpoints(&self, names: &[impl AsRef<str>], at: Timestamp) -> Result<Vec<EndpointId>> {
        let names = names.iter().map(|n| n.as_ref().to_owned()).collect();
        on!(self, db => db.set_endpoints(names, at).await)
    }

    /// Says how much of an event each endpoint is sent from now on, and gives what held when.
    ///
    /// # Errors
    /// The disk's.
    pub async fn set_included(&self, wanted: Vec<(EndpointId, Part)>) -> Result<Included> {
        on!(self, db => db.set_included(wanted).await)
    }

    /// How much of an event each endpoint is sent, and was.
    ///
    /// # Errors
    /// The disk's.
    pub async fn included(&self) -> Result<Included> {
        on!(self, db => db.included().await)
    }

    /// All endpoints that ever were configured, by name.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn endpoints(&self) -> Result<Vec<Endpoint>> {
        on!(self, db => db.endpoints().await)
    }

    /// Pauses an endpoint; false if it was paused already.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn pause(&self, endpoint: &str, at: Timestamp, reason: &str) -> Result<bool> {
        on!(self, db => db.pause(endpoint, at, reason).await)
    }

    /// Ends an endpoint's pause; false if it was not paused: then a pause of no length is put on record, by which a
    /// running process knows that it is to let go of whatever else it holds back.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn resume(&self, endpoint: &str, at: Timestamp) -> Result<bool> {
        on!(self, db => db.resume(endpoint, at).await)
    }

    // --- deliveries, for people ---------------------------------------------------------------------

    /// Deliveries, newest event first; the next page is `after` the last one of this.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn deliveries(
        &self,
        filter: DeliveryFilter,
        after: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<Vec<DeliveryRow>> {
        on!(self, db => db.deliveries(filter, after, limit).await)
    }

    /// An event's deliveries with all that is known of each; empty if there is no such event, or nobody wanted it.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn delivery(&self, event: EventId) -> Result<Vec<DeliveryDetail>> {
        on!(self, db => db.delivery(event).await)
    }

    /// How many deliveries match: for `--dry-run`.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's.
    pub async fn count_deliveries(&self, filter: DeliveryFilter) -> Result<u64> {
        on!(self, db => db.count_deliveries(filter).await)
    }

    /// Queues deliveries again, with the same ids and bytes, oldest first, and puts that on record. Those that are
    /// pending already stay as they are. With a rate, they fall due one after the other.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's; then a part may have been queued, and is on record.
    pub async fn replay(&self, request: ReplayRequest) -> Result<Replay> {
        on!(self, db => db.replay(request).await)
    }

    /// Replays on record, newest first, with what is still pending of each.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn replays(&self, only: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>> {
        on!(self, db => db.replays(only, limit).await)
    }

    /// Gives up pending and dead deliveries (only those in `filter.states`, if it names any) for good; how many.
    ///
    /// # Errors
    /// [`Error::UnknownEndpoint`], or the disk's; then a part may have been discarded.
    pub async fn discard(&self, filter: DeliveryFilter, at: Timestamp) -> Result<u64> {
        on!(self, db => db.discard(filter, at).await)
    }

    // --- the ledger -------------------------------------------------------------------------------------

    /// Sessions, newest first; the next page is `after` the last one of this.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn sessions(
        &self,
        filter: SessionFilter,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRow>> {
        on!(self, db => db.sessions(filter, after, limit).await)
    }

    /// A session with its events, what became of them, and the gaps of its source in its time.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionDetail>> {
        on!(self, db => db.session(id).await)
    }

    /// What each user used on each UTC day from `from` to `to` (days since 1970-01-01, both included), in order;
    /// the next page is `after` the last row of this. The sum of its `usage` is the sum of all `usage_delta` told.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn usage_by_day(
        &self,
        from: u32,
        to: u32,
        after: Option<UsageDay>,
        limit: usize,
    ) -> Result<Vec<UsageDay>> {
        on!(self, db => db.usage_by_day(from, to, after, limit).await)
    }

    /// Gaps of all sources that were not over before `since`, newest first.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn gaps(&self, since: Option<Timestamp>, limit: usize) -> Result<Vec<GapRow>> {
        on!(self, db => db.gaps(since, limit).await)
    }
}
