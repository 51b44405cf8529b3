//! Nodes and leases. Only the database's clock decides what has expired; a node counts for itself from when it
//! sent a beat that succeeded, which is never later.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use futures_util::future::try_join5;

use super::rows::{Read as _, id32, one};
use super::{
    Fault,
    connection::{Db, LEASE_MAX, Limits, attempt},
    rows, text,
    url::PostgresOptions,
};
use crate::{
    cluster::{Epoch, LeaseName, LeaseRow, NodeId, NodeRow, View},
    codes::{int, nat},
    error::Result,
    ids::SourceId,
};

/// The database's clock, in milliseconds.
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// A node that has not beaten for this long is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// This process among those that share the store.
pub struct Cluster {
    db: Db,
    node: NodeId,
    name: String,
    lease: Duration,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("node", &self.node)
            .field("name", &self.name)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    pub(super) fn new(options: &PostgresOptions, limits: Limits, connections: usize) -> Result<Cluster> {
        // A beat that is tried again by itself would only come late; whoever beats does so again anyway.
        let limits = Limits {
            patience: Duration::ZERO,
            ..limits
        };
        let db = Db::new(options, limits, connections)?;
        let mut id = [0u8; 8];
        getrandom::fill(&mut id).map_err(|e| Fault::Lost(e.to_string()).at(db.describe()))?;
        Ok(Cluster {
            db,
            node: NodeId(i64::from_be_bytes(id)),
            name: text(&options.node),
            lease: options.lease.min(LEASE_MAX),
        })
    }

    /// This node. Every process start is a new one.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How long a lease holds after a beat was sent.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Says that this node lives and which sources it has configured, renews the leases that it holds (those that have
    /// expired have to be taken again), and says how all stand. Whatever it says, a lease is held no longer than
    /// [`Cluster::lease`] from when the last beat that succeeded was sent.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`]. Not tried again by itself: beat again.
    pub async fn beat(&self, sources: &[SourceId]) -> Result<View> {
        self.beat_without(sources, &[]).await
    }

    /// The same, but lets those leases expire that this node acts on no more: their release may be under way, and hang.
    ///
    /// # Errors
    /// As [`Cluster::beat`].
    pub async fn beat_without(&self, sources: &[SourceId], given_up: &[LeaseName]) -> Result<View> {
        let given_up: Vec<String> = given_up.iter().map(ToString::to_string).collect();
        let sources: Vec<i32> = sources
            .iter()
            .map(|s| id32(s.0))
            .collect::<Result<_, _>>()
            .map_err(|fault| fault.at(self.db.describe()))?;
        let (node, lease) = (self.node.0, self.lease_ms());
        let forget = int(u64::try_from(FORGET.as_millis()).unwrap_or(u64::MAX));
        // Over a connection that has died without a word it fails soon enough for another beat over a new one.
        let limit = (self.lease / 3).max(Duration::from_secs(2));
        attempt!(&self.db, client within limit => {
            let client = &*client;
            let upsert = client
                .prepare_cached(&format!(
                    "INSERT INTO node (id, name, version, started_at, expires_at, sources) \
                     VALUES ($1, $2, $3, {NOW}, {NOW} + $4, $5) \
                     ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, sources = excluded.sources"
                ))
                .await?;
            // One that is being given back may be locked for as long as that takes: the others are renewed all the
            // same.
            let renew = client
                .prepare_cached(&format!(
                    "UPDATE lease SET expires_at = {NOW} + $2 WHERE holder = $1 AND expires_at > {NOW} \
                     AND name IN (SELECT name FROM lease WHERE holder = $1 AND name <> ALL($3) FOR NO KEY UPDATE SKIP LOCKED)"
                ))
                .await?;
            let forget_dead = client
                .prepare_cached(&format!("DELETE FROM node WHERE expires_at < {NOW} - $1"))
                .await?;
            let (read_nodes, read_leases) = read_statements(client).await?;
            // Each for itself, and not a transaction: a process that is stopped here must not hold anything locked.
            let (nodes, leases) = {
                let version = env!("CARGO_PKG_VERSION");
                let upsert_values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                    [&node, &self.name, &version, &lease, &sources];
                let (_, _, _, nodes, leases) = try_join5(
                    client.execute(&upsert, &upsert_values),
                    client.execute(&renew, &[&node, &lease, &given_up]),
                    client.execute(&forget_dead, &[&forget]),
                    client.query(&read_nodes, &[]),
                    client.query(&read_leases, &[]),
                )
                .await?;
                (nodes, leases)
            };
            view(&nodes, &leases)
        })
    }

    /// Takes a lease that nobody holds, that has expired, or that this node holds already; `None` if another node
    /// holds it. Waits for a commit under way by its former holder. What is read from the store afterwards is all that
    /// earlier holders will ever have written. Holds from when this was called.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`].
    pub async fn take(&self, lease: LeaseName) -> Result<Option<Epoch>> {
        Ok(self.take_all(&[lease]).await?.first().map(|(_, epoch)| *epoch))
    }

    /// Takes those of these leases that can be taken, in one transaction.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`].
    pub async fn take_all(&self, leases: &[LeaseName]) -> Result<Vec<(LeaseName, Epoch)>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = leases.iter().map(ToString::to_string).collect();
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            // The clock first: while this waits for a row, an expiry must not seem to have come that has not.
            let now: i64 = one(&tx, &format!("SELECT {NOW}"), &[]).await?.read(0)?;
            // Commits share the row (FOR KEY SHARE), beats only change it: of these two, this waits for commits alone.
            let free = tx
                .query(
                    "SELECT name FROM lease WHERE name = ANY($1) AND (holder IS NULL OR holder = $2 OR expires_at <= $3) \
                     ORDER BY name FOR UPDATE",
                    &[&names, &self.node.0, &now],
                )
                .await?;
            let free = free.iter().map(|row| row.read(0)).collect::<Result<Vec<String>, _>>()?;
            let taken = tx
                .query(
                    &format!(
                        "UPDATE lease SET holder = $2, epoch = epoch + 1, expires_at = {NOW} + $3 WHERE name = ANY($1) \
                         RETURNING name, epoch"
                    ),
                    &[&free, &self.node.0, &self.lease_ms()],
                )
                .await?;
            tx.commit().await?;
            let mut all = Vec::with_capacity(taken.len());
            for row in taken {
                if let Ok(name) = row.read::<String>(0)?.parse::<LeaseName>() {
                    all.push((name, Epoch(row.read(1)?)));
                }
            }
            all.sort_unstable();
            Ok(all)
        })
    }

    /// Gives a lease back, if it is still held in this epoch. Stop what it allows before.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`]; it then expires.
    pub async fn release(&self, lease: LeaseName, epoch: Epoch) -> Result<()> {
        let name = lease.to_string();
        attempt!(&self.db, client => {
            client
                .execute(
                    "UPDATE lease SET holder = NULL, expires_at = 0 WHERE name = $1 AND holder = $2 AND epoch = $3",
                    &[&name, &self.node.0, &epoch.0],
                )
                .await?;
            Ok(())
        })
    }

    /// Gives back all leases that this node holds, and is no node any more until it beats again.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`]; they then expire.
    pub async fn leave(&self) -> Result<()> {
        attempt!(&self.db, client => {
            client
                .execute("UPDATE lease SET holder = NULL, expires_at = 0 WHERE holder = $1", &[&self.node.0])
                .await?;
            client.execute("DELETE FROM node WHERE id = $1", &[&self.node.0]).await?;
            Ok(())
        })
    }

    /// How nodes and leases stand. Changes nothing.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`].
    pub async fn view(&self) -> Result<View> {
        attempt!(&self.db, client => {
            let client = &*client;
            let (read_nodes, read_leases) = read_statements(client).await?;
            let nodes = client.query(&read_nodes, &[]).await?;
            let leases = client.query(&read_leases, &[]).await?;
            view(&nodes, &leases)
        })
    }

    pub(super) async fn close(&self) {
        self.db.close().await;
    }

    fn lease_ms(&self) -> i64 {
        int(u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX))
    }
}

async fn read_statements(
    client: &impl GenericClient,
) -> Result<(tokio_postgres::Statement, tokio_postgres::Statement), Fault> {
    let nodes = client
        .prepare_cached(&format!(
            "SELECT id, name, version, started_at, expires_at - {NOW}, sources FROM node ORDER BY id"
        ))
        .await?;
    let leases = client
        .prepare_cached(&format!(
            "SELECT name, holder, epoch, holder IS NULL OR expires_at <= {NOW} FROM lease"
        ))
        .await?;
    Ok((nodes, leases))
}

fn view(nodes: &[tokio_postgres::Row], leases: &[tokio_postgres::Row]) -> Result<View, Fault> {
    let mut view = View::default();
    for row in nodes {
        let left: i64 = row.read(4)?;
        let sources: Vec<i32> = row.read(5)?;
        let mut sources = sources
            .into_iter()
            .map(|s| {
                u32::try_from(s)
                    .map(SourceId)
                    .map_err(|_| Fault::damaged("source"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        sources.sort_unstable();
        view.nodes.push(NodeRow {
            id: NodeId(row.read(0)?),
            name: row.read(1)?,
            version: row.read(2)?,
            started_at: rows::time(row, 3)?,
            live: left > 0,
            expires_in: Duration::from_millis(nat(left)),
            sources,
        });
    }
    for row in leases {
        // One that a newer version made is none of our business.
        let Ok(name) = row.read::<String>(0)?.parse::<LeaseName>() else {
            continue;
        };
        view.leases.push(LeaseRow {
            name,
            holder: row.read::<Option<i64>>(1)?.map(NodeId),
            epoch: Epoch(row.read(2)?),
            expired: row.read(3)?,
        });
    }
    view.leases.sort_by_key(|lease| lease.name);
    Ok(view)
}
