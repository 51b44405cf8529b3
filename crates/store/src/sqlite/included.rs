//! How much of an event each endpoint is sent.

use rusqlite::{Connection, params};

use super::{Sqlite, rows};
use crate::{
    error::Result,
    ids::EndpointId,
    included::{Include, Included},
};

impl Sqlite {
    pub(crate) async fn set_included(&self, wanted: Vec<(EndpointId, Include)>) -> Result<Included> {
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
}

fn read(conn: &Connection) -> rusqlite::Result<Included> {
    rows::all(conn, &(Included::SQL.to_owned(), Vec::new())).map(Included::new)
}
