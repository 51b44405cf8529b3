//! Sources, endpoints and their pauses, backups.

use std::{path::PathBuf, sync::Arc};

use rusqlite::{Connection, OptionalExtension, params};
use turnhook_reducer::time::Timestamp;

use super::{Fault, Sqlite, backup, files, int};
use crate::{
    Mode,
    error::{Error, Result},
    ids::{EndpointId, SourceId},
};

impl Sqlite {
    pub(crate) async fn source(&self, name: &str) -> Result<SourceId> {
        let name = name.to_owned();
        self.write(move |conn, _| {
            conn.execute("INSERT OR IGNORE INTO source (name) VALUES (?1)", [&name])?;
            Ok(SourceId(conn.query_row(
                "SELECT id FROM source WHERE name = ?1",
                [&name],
                |r| r.get(0),
            )?))
        })
        .await
    }

    pub(crate) async fn rename_source(&self, from: &str, to: &str) -> Result<()> {
        // Nobody may begin to run on it meanwhile, nor be running.
        let _lock = match self.mode {
            Mode::Run => None,
            Mode::Shared => {
                let path = self.path().to_path_buf();
                let locking = tokio::task::spawn_blocking(move || files::lock_to_run(&path));
                Some(locking.await.unwrap_or(Err(Error::Closed))?)
            }
        };
        let (from, to) = (from.to_owned(), to.to_owned());
        self.write(move |conn, _| {
            let mut stmt = conn.prepare("SELECT name FROM source ORDER BY name")?;
            let names = stmt
                .query_map([], |r| r.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            if !names.contains(&from) {
                return Err(Error::unknown_source(&from, &names).into());
            }
            if names.contains(&to) {
                return Err(Error::SourceExists { name: to.clone() }.into());
            }
            conn.execute("UPDATE source SET name = ?2 WHERE name = ?1", [&from, &to])?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn set_endpoints(&self, names: Vec<String>, at: Timestamp) -> Result<Vec<EndpointId>> {
        self.write(move |conn, _| {
            let mut ids = Vec::with_capacity(names.len());
            for name in &names {
                conn.execute(
                    "INSERT OR IGNORE INTO endpoint (name, created_at) VALUES (?1, ?2)",
                    params![name, int(at.0)],
                )?;
                conn.execute(
                    "UPDATE endpoint SET removed_at = NULL WHERE name = ?1 AND removed_at IS NOT NULL",
                    [name],
                )?;
                ids.push(EndpointId(conn.query_row(
                    "SELECT id FROM endpoint WHERE name = ?1",
                    [name],
                    |r| r.get(0),
                )?));
            }
            let mut stmt = conn.prepare("SELECT id FROM endpoint WHERE removed_at IS NULL")?;
            let configured = stmt
                .query_map([], |r| r.get(0))?
                .collect::<rusqlite::Result<Vec<u16>>>()?;
            for id in configured
                .into_iter()
                .filter(|id| !ids.contains(&EndpointId(*id)))
            {
                conn.execute(
                    "UPDATE endpoint SET removed_at = ?2 WHERE id = ?1",
                    params![id, int(at.0)],
                )?;
            }
            Ok(ids)
        })
        .await
    }

    pub(crate) async fn pause(&self, endpoint: &str, at: Timestamp, reason: &str) -> Result<bool> {
        let (endpoint, reason) = (endpoint.to_owned(), reason.to_owned());
        self.write(move |conn, _| {
            let id = endpoint_id(conn, &endpoint)?;
            let inserted = conn.execute(
                "INSERT INTO endpoint_pause (endpoint, from_at, reason) SELECT ?1, ?2, ?3 \
                 WHERE NOT EXISTS (SELECT 1 FROM endpoint_pause WHERE endpoint = ?1 AND to_at IS NULL)",
                params![id, int(at.0), reason],
            )?;
            Ok(inserted == 1)
        })
        .await
    }

    pub(crate) async fn resume(&self, endpoint: &str, at: Timestamp) -> Result<bool> {
        let endpoint = endpoint.to_owned();
        self.write(move |conn, _| {
            let id = endpoint_id(conn, &endpoint)?;
            let sql =
                "UPDATE endpoint_pause SET to_at = max(from_at, ?2) WHERE endpoint = ?1 AND to_at IS NULL";
            let was_paused = conn.execute(sql, params![id, int(at.0)])? > 0;
            if !was_paused {
                // For a running process to see that somebody wants it to go on.
                conn.execute(
                    "INSERT INTO endpoint_pause (endpoint, from_at, to_at, reason) VALUES (?1, ?2, ?2, 'resumed')",
                    params![id, int(at.0)],
                )?;
            }
            Ok(was_paused)
        })
        .await
    }

    pub(crate) async fn backup(self: &Arc<Self>, to: PathBuf) -> Result<()> {
        let source = self.path().to_path_buf();
        let copying = tokio::task::spawn_blocking(move || backup::backup(&source, &to));
        copying.await.unwrap_or(Err(Error::Closed))
    }
}

fn endpoint_id(conn: &Connection, name: &str) -> Result<u16, Fault> {
    let id = conn
        .query_row("SELECT id FROM endpoint WHERE name = ?1", [name], |r| r.get(0))
        .optional()?;
    match id {
        Some(id) => Ok(id),
        None => {
            let mut stmt = conn.prepare("SELECT name FROM endpoint")?;
            let known = stmt
                .query_map([], |r| r.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            Err(Error::unknown_endpoint(name, known).into())
        }
    }
}
