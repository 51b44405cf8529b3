//! Sources, endpoints and their pauses, and how other processes learn that people changed something.

use std::sync::atomic::Ordering;

use deadpool_postgres::GenericClient;
use turnhook_reducer::time::Timestamp;

use super::rows::{Read as _, one};
use super::{Fault, Postgres, attempt, cluster::NOW, text};
use crate::{
    cluster::LeaseName,
    codes::int,
    error::{Error, Result},
    ids::{EndpointId, SourceId},
};

impl Postgres {
    pub(crate) async fn source(&self, name: &str) -> Result<SourceId> {
        attempt!(&self.db, client => {
            if let Some(row) = client.query_opt("SELECT id FROM source WHERE name = $1", &[&name]).await? {
                return_source(row.read(0)?)
            } else {
                let tx = client.transaction().await?;
                // Whoever else makes one waits here.
                tx.execute("SELECT value FROM counter WHERE name = 'source' FOR UPDATE", &[]).await?;
                let found = tx.query_opt("SELECT id FROM source WHERE name = $1", &[&name]).await?;
                let id: i32 = if let Some(row) = found {
                    row.read(0)?
                } else {
                    let id = next(&tx, "source").await?;
                    tx.execute("INSERT INTO source (id, name) VALUES ($1, $2)", &[&id, &name]).await?;
                    let source = SourceId(u32::try_from(id).map_err(|_| Fault::damaged("source"))?);
                    tx.execute(
                        "INSERT INTO lease (name, holder, epoch, expires_at) VALUES ($1, NULL, 0, 0) ON CONFLICT (name) DO NOTHING",
                        &[&LeaseName::Source(source).to_string()],
                    )
                    .await?;
                    id
                };
                tx.commit().await?;
                return_source(id)
            }
        })
    }

    pub(crate) async fn rename_source(&self, from: &str, to: &str) -> Result<()> {
        attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            // Whoever makes a source waits here, and so does whoever else renames one.
            tx.execute("SELECT value FROM counter WHERE name = 'source' FOR UPDATE", &[]).await?;
            let live = format!("SELECT count(*) FROM node WHERE expires_at > {NOW}");
            if one(&tx, &live, &[]).await?.read::<i64>(0)? > 0 {
                return Err(Error::Running { store: self.db.describe().to_owned() }.into());
            }
            let found = tx.query("SELECT name FROM source", &[]).await?;
            let mut names = found.iter().map(|row| row.read(0)).collect::<Result<Vec<String>, Fault>>()?;
            names.sort();
            if !names.iter().any(|name| name == from) {
                return Err(Error::unknown_source(from, &names).into());
            }
            if names.iter().any(|name| name == to) {
                return Err(Error::SourceExists { name: to.to_owned() }.into());
            }
            tx.execute("UPDATE source SET name = $2 WHERE name = $1", &[&from, &to]).await?;
            tx.commit().await?;
            Ok(())
        })
    }

    pub(crate) async fn set_endpoints(&self, names: Vec<String>, at: Timestamp) -> Result<Vec<EndpointId>> {
        let at = int(at.0);
        let (ids, change) = attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            tx.execute("SELECT value FROM counter WHERE name = 'endpoint' FOR UPDATE", &[]).await?;
            let mut touched = 0;
            let mut ids: Vec<i32> = Vec::with_capacity(names.len());
            for name in &names {
                let found = tx.query_opt("SELECT id FROM endpoint WHERE name = $1", &[name]).await?;
                if let Some(row) = found {
                    ids.push(row.read(0)?);
                    continue;
                }
                let id = next(&tx, "endpoint").await?;
                tx.execute("INSERT INTO endpoint (id, name, created_at) VALUES ($1, $2, $3)", &[&id, name, &at])
                    .await?;
                ids.push(id);
                touched += 1;
            }
            touched += tx
                .execute("UPDATE endpoint SET removed_at = NULL WHERE id = ANY($1) AND removed_at IS NOT NULL", &[&ids])
                .await?;
            touched += tx
                .execute("UPDATE endpoint SET removed_at = $2 WHERE id <> ALL($1) AND removed_at IS NULL", &[&ids, &at])
                .await?;
            let change = if touched > 0 { Some(note_change(&tx).await?) } else { None };
            tx.commit().await?;
            let ids = ids
                .into_iter()
                .map(|id| u16::try_from(id).map(EndpointId).map_err(|_| Fault::damaged("endpoint")))
                .collect::<Result<Vec<_>, Fault>>()?;
            Ok((ids, change))
        })?;
        self.note_own(change);
        Ok(ids)
    }

    pub(crate) async fn pause(&self, endpoint: &str, at: Timestamp, reason: &str) -> Result<bool> {
        let reason = text(reason);
        let change = attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            let id = endpoint_id(&tx, endpoint).await?;
            let inserted = tx
                .execute(
                    "INSERT INTO endpoint_pause (endpoint, from_at, reason) VALUES ($1, $2, $3) \
                     ON CONFLICT (endpoint) WHERE to_at IS NULL DO NOTHING",
                    &[&id, &int(at.0), &reason],
                )
                .await?;
            let change = if inserted > 0 { Some(note_change(&tx).await?) } else { None };
            tx.commit().await?;
            Ok(change)
        })?;
        self.note_own(change);
        Ok(change.is_some())
    }

    pub(crate) async fn resume(&self, endpoint: &str, at: Timestamp) -> Result<bool> {
        let (was_paused, change) = attempt!(&self.db, client => {
            let tx = client.transaction().await?;
            let id = endpoint_id(&tx, endpoint).await?;
            let ended = tx
                .execute(
                    "UPDATE endpoint_pause SET to_at = greatest(from_at, $2) WHERE endpoint = $1 AND to_at IS NULL",
                    &[&id, &int(at.0)],
                )
                .await?;
            if ended == 0 {
                // For a running process to see that somebody wants it to go on.
                tx.execute(
                    "INSERT INTO endpoint_pause (endpoint, from_at, to_at, reason) VALUES ($1, $2, $2, 'resumed')",
                    &[&id, &int(at.0)],
                )
                .await?;
            }
            let change = note_change(&tx).await?;
            tx.commit().await?;
            Ok((ended > 0, change))
        })?;
        self.note_own(Some(change));
        Ok(was_paused)
    }

    pub(crate) async fn changed_by_others(&self) -> Result<bool> {
        let now: i64 = attempt!(&self.db, client => {
            one(client, "SELECT value FROM counter WHERE name = 'change'", &[]).await?.read(0)
        })?;
        Ok(self.changes.swap(now, Ordering::AcqRel) != now)
    }

    /// A change of our own, by what [`note_change`] gave: it is not one by others.
    pub(super) fn note_own(&self, change: Option<i64>) {
        if let Some(n) = change {
            // If others changed something before it, that is still to be found.
            let _ = self
                .changes
                .compare_exchange(n - 1, n, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

fn return_source(id: i32) -> Result<SourceId, Fault> {
    u32::try_from(id)
        .map(SourceId)
        .map_err(|_| Fault::damaged("source"))
}

/// The next small number; those who want one wait for each other's commits.
async fn next(tx: &impl GenericClient, name: &str) -> Result<i32, Fault> {
    let row = one(
        tx,
        "UPDATE counter SET value = value + 1 WHERE name = $1 RETURNING value",
        &[&name],
    )
    .await?;
    i32::try_from(row.read::<i64>(0)?).map_err(|_| Fault::damaged("number"))
}

/// Has other processes look again at endpoints and outbox. In the transaction that changes them, near its end; give the
/// result to [`Postgres::note_own`] when it is committed.
pub(super) async fn note_change(tx: &impl GenericClient) -> Result<i64, Fault> {
    let row = one(
        tx,
        "UPDATE counter SET value = value + 1 WHERE name = 'change' RETURNING value",
        &[],
    )
    .await?;
    row.read(0)
}

/// The number of an endpoint, or the error that names those there are.
pub(super) async fn endpoint_id(client: &impl GenericClient, name: &str) -> Result<i32, Fault> {
    match client
        .query_opt("SELECT id FROM endpoint WHERE name = $1", &[&name])
        .await?
    {
        Some(row) => Ok(row.read(0)?),
        None => {
            let known = client.query("SELECT name FROM endpoint", &[]).await?;
            let known = known
                .iter()
                .map(|row| row.read(0))
                .collect::<Result<Vec<String>, _>>()?;
            Err(Error::unknown_endpoint(name, known).into())
        }
    }
}
