//! Sources, endpoints and their pauses, gaps, backups.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use rusqlite::{Connection, OptionalExtension, params};
use turnhook_reducer::{
    source::{Gap, GapReason},
    time::Timestamp,
};

use super::{Fault, Sqlite, files, int, rows};
use crate::{
    Mode,
    endpoint::{Endpoint, Pause},
    error::{Error, Result},
    ids::{EndpointId, SourceId},
    session::GapRow,
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

    pub(crate) async fn sources(self: &Arc<Self>) -> Result<BTreeMap<String, SourceId>> {
        self.read(|conn| {
            let mut stmt = conn.prepare_cached("SELECT name, id FROM source")?;
            let sources = stmt
                .query_map([], |r| Ok((r.get(0)?, SourceId(r.get(1)?))))?
                .collect::<Result<_, _>>()?;
            Ok(sources)
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

    pub(crate) async fn endpoints(self: &Arc<Self>) -> Result<Vec<Endpoint>> {
        self.read(|conn| {
            let tx = conn.unchecked_transaction()?;
            let mut stmt =
                tx.prepare_cached("SELECT id, name, created_at, removed_at FROM endpoint ORDER BY name")?;
            let mut pauses = tx.prepare_cached(
                "SELECT from_at, to_at, reason FROM endpoint_pause WHERE endpoint = ?1 ORDER BY id",
            )?;
            let mut found = stmt.query([])?;
            let mut endpoints = Vec::new();
            while let Some(row) = found.next()? {
                let id: u16 = row.get(0)?;
                endpoints.push(Endpoint {
                    id: EndpointId(id),
                    name: row.get(1)?,
                    created_at: rows::time(row, 2)?,
                    removed_at: rows::maybe_time(row, 3)?,
                    pauses: pauses
                        .query_map([id], |r| {
                            Ok(Pause {
                                from: rows::time(r, 0)?,
                                to: rows::maybe_time(r, 1)?,
                                reason: r.get::<_, String>(2)?.into(),
                            })
                        })?
                        .collect::<rusqlite::Result<_>>()?,
                });
            }
            Ok(endpoints)
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

    pub(crate) async fn gaps(
        self: &Arc<Self>,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<GapRow>> {
        self.read(move |conn| {
            let mut stmt = conn.prepare_cached(
                "SELECT s.name, g.from_at, g.to_at, g.reason, g.server FROM gap g JOIN source s ON s.id = g.source \
                 WHERE g.to_at >= ?1 ORDER BY g.id DESC LIMIT ?2",
            )?;
            let mut found = stmt.query(params![int(since.unwrap_or_default().0), int(limit as u64)])?;
            let mut gaps = Vec::new();
            while let Some(row) = found.next()? {
                if let Some(gap) = read_gap(row, 1)? {
                    gaps.push(GapRow { source: row.get(0)?, gap });
                }
            }
            Ok(gaps)
        })
        .await
    }

    pub(crate) async fn backup(self: &Arc<Self>, to: PathBuf) -> Result<()> {
        let source = self.path().to_path_buf();
        let copying = tokio::task::spawn_blocking(move || files::backup(&source, &to));
        copying.await.unwrap_or(Err(Error::Closed))
    }
}

/// From four columns: from, to, reason, server. `None` for a reason that this version does not know.
pub(super) fn read_gap(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Option<Gap>> {
    let server: Vec<u8> = row.get(first + 3)?;
    let Some(reason) = GapReason::from_text(row.get_ref(first + 2)?.as_str()?) else {
        return Ok(None);
    };
    let server = (!server.is_empty()).then(|| server.into_boxed_slice());
    Ok(Some(Gap {
        from: rows::time(row, first)?,
        to: rows::time(row, first + 1)?,
        reason,
        server,
    }))
}

fn endpoint_id(conn: &Connection, name: &str) -> Result<u16, Fault> {
    let id = conn
        .query_row("SELECT id FROM endpoint WHERE name = ?1", [name], |r| r.get(0))
        .optional()?;
    match id {
        Some(id) => Ok(id),
        None => Err(unknown_endpoint(conn, name)?.into()),
    }
}

/// The error that names those there are.
pub(super) fn unknown_endpoint(conn: &Connection, name: &str) -> rusqlite::Result<Error> {
    let mut stmt = conn.prepare("SELECT name FROM endpoint ORDER BY name")?;
    let known = stmt
        .query_map([], |r| r.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let known = if known.is_empty() {
        "none".into()
    } else {
        known.join(", ")
    };
    Ok(Error::UnknownEndpoint {
        name: name.into(),
        known,
    })
}
