//! How much of an event each endpoint is sent.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::Sqlite;
use crate::{
    error::Result,
    ids::EndpointId,
    included::{Included, Part},
};

impl Sqlite {
    pub(crate) async fn set_included(&self, wanted: Vec<(EndpointId, Part)>) -> Result<Included> {
        self.write(move |conn, _| {
            // Also of events that were trimmed.
            let last: i64 = conn.query_row(
                "SELECT max((SELECT coalesce(max(id), 0) FROM event), ledger_event) FROM store",
                [],
                |r| r.get(0),
            )?;
            for (endpoint, part) in read(conn)?.changed(&wanted) {
                conn.execute(
                    "INSERT OR REPLACE INTO included (endpoint, from_event, allocations, addresses) VALUES (?1, ?2, ?3, ?4)",
                    params![endpoint.0, last + 1, part.allocations, part.addresses],
                )?;
            }
            Ok(read(conn)?)
        })
        .await
    }

    pub(crate) async fn included(self: &Arc<Self>) -> Result<Included> {
        self.read(read).await
    }
}

fn read(conn: &Connection) -> rusqlite::Result<Included> {
    let mut stmt = conn.prepare_cached(
        "SELECT endpoint, from_event, allocations, addresses FROM included ORDER BY endpoint, from_event",
    )?;
    let mut found = stmt.query([])?;
    let mut included = Included::default();
    while let Some(row) = found.next()? {
        let part = Part {
            allocations: row.get(2)?,
            addresses: row.get(3)?,
        };
        included.add(EndpointId(row.get(0)?), row.get(1)?, part);
    }
    Ok(included)
}
