//! The store on PostgreSQL, which several nodes share: plain SQL, in a few statements a request.
//!
//! What goes together is one transaction; its statements are sent without waiting for each other's answers, and deal with
//! many rows each (`unnest`). Rows that many transactions want are locked in one order: lease, source, deliveries, the
//! counters, `backlog`.

mod admin;
mod blocks;
mod cluster;
mod commit;
mod connection;
mod deliveries;
mod dialect;
mod fault;
mod import;
mod included;
mod ledger;
mod migrations;
mod moves;
mod outbox;
mod outcome;
mod pass;
mod pipeline;
mod reads;
mod retention;
mod rows;
mod state;
mod url;
mod user_events;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

pub use cluster::Cluster;
use connection::{Db, Fault, Limits, attempt};
pub(crate) use dialect::DIALECT;
pub use migrations::Migrated;
pub(crate) use migrations::SCHEMA;
use rows::{Read as _, one, text};
pub use url::PostgresOptions;

use crate::{
    Mode,
    cluster::Lanes,
    codes::{int, nat},
    error::Result,
    horizon::Horizon,
    ids::SourceId,
};

/// Connections that a running store has at most, besides those of its cluster.
const RUN_CONNECTIONS: usize = 8;
/// And one that looks in.
const SHARED_CONNECTIONS: usize = 3;
/// Those with which it beats: nothing else may keep a beat waiting.
const CLUSTER_CONNECTIONS: usize = 2;

/// A store in a database.
pub(crate) struct Postgres {
    db: Db,
    cluster: Cluster,
    store_id: [u8; 16],
    lanes: AtomicU64,
    /// The counter `change` as it was last looked at.
    changes: AtomicI64,
    trim: pass::Trim,
    refused: AtomicU64,
    horizon: Horizon,
    commit_locks: Mutex<HashMap<SourceId, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while outcomes are written: of two such transactions, one would wait for the counts that the other has locked,
    /// until that is on the disk.
    outcomes: tokio::sync::Mutex<()>,
}

impl Postgres {
    /// Connects, and migrates as the mode allows.
    pub(crate) async fn connect(options: &PostgresOptions, mode: Mode) -> Result<Postgres> {
        let limits = Limits::new(mode, options.lease);
        let connections = if mode == Mode::Run {
            RUN_CONNECTIONS
        } else {
            SHARED_CONNECTIONS
        };
        let db = Db::new(options, limits, connections)?;
        db.reach().await?;
        migrations::check(&db, mode).await?;
        let (store_id, horizon, change): (Vec<u8>, Option<i64>, i64) = attempt!(&db, client => {
            let sql = "SELECT s.store_id, s.horizon, c.value FROM store s, counter c WHERE s.id = 1 AND c.name = 'change'";
            let row = one(client, sql, &[]).await?;
            Ok((row.read(0)?, row.read(1)?, row.read(2)?))
        })?;
        let store = Postgres {
            cluster: Cluster::new(options, limits, CLUSTER_CONNECTIONS)?,
            store_id: store_id
                .try_into()
                .map_err(|_| Fault::damaged("store id").at(db.describe()))?,
            db,
            lanes: AtomicU64::new(Lanes::ALL.0),
            changes: AtomicI64::new(change),
            trim: pass::Trim::default(),
            refused: AtomicU64::new(0),
            horizon: Horizon::new(horizon.map(nat)),
            commit_locks: Mutex::default(),
            outcomes: tokio::sync::Mutex::default(),
        };
        Ok(store)
    }

    /// Brings the schema up to date.
    pub(crate) async fn migrate(options: &PostgresOptions) -> Result<Migrated> {
        let db = Db::new(options, Limits::new(Mode::Shared, options.lease), 1)?;
        // A role that may not change it may ask.
        match migrations::version(&db).await? {
            SCHEMA => Ok(Migrated {
                from: SCHEMA,
                to: SCHEMA,
            }),
            _ => migrations::migrate(&db).await,
        }
    }

    pub(crate) fn describe(&self) -> String {
        self.db.describe().to_owned()
    }

    /// Parts of commits that were put on record in place of being committed.
    pub(crate) fn refused(&self) -> &AtomicU64 {
        &self.refused
    }

    pub(crate) fn horizon(&self) -> &Horizon {
        &self.horizon
    }

    /// Writes it down; what is written. All nodes share it: forwards the furthest counts, and backwards whoever goes back.
    pub(crate) async fn keep_horizon(&self, at: u64, back: bool) -> Result<u64> {
        let which = if back { "least" } else { "greatest" };
        let sql = format!(
            "UPDATE store SET horizon = {which}(coalesce(horizon, $1), $1) WHERE id = 1 RETURNING horizon"
        );
        attempt!(&self.db, client => { Ok(nat(one(client, &sql, &[&int(at)]).await?.read(0)?)) })
    }

    pub(crate) fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn set_lanes(&self, lanes: Lanes) {
        self.lanes.store(lanes.0, Ordering::Relaxed);
    }

    /// Those looked at, as `integer[]`; `None`: all.
    fn lanes(&self) -> Option<Vec<i64>> {
        let lanes = Lanes(self.lanes.load(Ordering::Relaxed));
        (lanes != Lanes::ALL).then(|| lanes.iter().map(i64::from).collect())
    }

    /// Held by the commit of a source that is being written.
    fn commit_lock(&self, source: SourceId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.commit_locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(source).or_default())
    }

    /// Waits until all that was asked for is done.
    pub(crate) async fn close(&self) {
        self.db.close().await;
        self.cluster.close().await;
    }
}
